//! Finds the Codex executable: the configured one, or the first on `PATH`, and behind npm's Node launcher the
//! native program, which needs no Node and starts 40 ms sooner.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The executable to run, or what the operator should do.
pub(crate) fn find(configured: Option<&Path>, env: &BTreeMap<OsString, OsString>) -> Result<PathBuf, String> {
    let found = match configured {
        Some(name) if name.components().count() == 1 => on_path(name, env)
            .ok_or_else(|| format!("CODEX_BIN names {}, which is not on PATH", name.display()))?,
        Some(path) if is_executable(path) => path.to_owned(),
        Some(path) => {
            return Err(format!("CODEX_BIN names {}, which is not an executable file", path.display()));
        }
        None => on_path(Path::new("codex"), env).ok_or(
            "the Codex CLI was not found on PATH; install it (npm install -g @openai/codex) or set CODEX_BIN",
        )?,
    };
    Ok(native(&found).unwrap_or(found))
}

fn on_path(name: &Path, env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let path = env.get(&OsString::from("PATH"))?;
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The native program that npm's launcher (`@openai/codex/bin/codex.js`) would start.
fn native(launcher: &Path) -> Option<PathBuf> {
    let script = fs::canonicalize(launcher).ok()?;
    if script.extension()? != "js" {
        return None;
    }
    let package = script.parent()?.parent()?;
    // npm puts the platform's package beside the launcher's or below it.
    let homes = [package.join("node_modules/@openai"), package.parent()?.to_owned()];
    let platforms = homes.iter().flat_map(|home| entries(home)).filter(|entry| {
        entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with("codex-linux"))
    });
    let vendors = platforms.chain([package.to_owned()]).map(|platform| platform.join("vendor"));
    let triples: Vec<PathBuf> = vendors.flat_map(|vendor| entries(&vendor)).collect();
    let arch = std::env::consts::ARCH;
    triples
        .iter()
        .filter(|triple| triple.file_name().is_some_and(|name| name.to_string_lossy().starts_with(arch)))
        // The folder was called `codex` before 0.140.
        .flat_map(|triple| [triple.join("bin/codex"), triple.join("codex/codex")])
        .find(|file| is_executable(file))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executable(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn npms_launcher_leads_to_the_native_program() {
        let root = tempfile::tempdir().unwrap();
        let scope = root.path().join("node_modules/@openai");
        let script = scope.join("codex/bin/codex.js");
        executable(&script);
        let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let program = scope.join("codex-linux-x64/vendor").join(triple).join("bin/codex");
        executable(&program);
        let bin = root.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(&script, bin.join("codex")).unwrap();

        let env = BTreeMap::from([("PATH".into(), bin.into_os_string())]);
        let program = fs::canonicalize(program).unwrap();
        assert_eq!(fs::canonicalize(find(None, &env).unwrap()).unwrap(), program);
        assert_eq!(fs::canonicalize(find(Some(&script), &env).unwrap()).unwrap(), program);
        assert_eq!(fs::canonicalize(find(Some(Path::new("codex")), &env).unwrap()).unwrap(), program);
    }

    #[test]
    fn what_is_missing_is_said_with_its_remedy() {
        assert!(find(None, &BTreeMap::new()).unwrap_err().contains("CODEX_BIN"));
        let error = find(Some(Path::new("/nonexistent/codex")), &BTreeMap::new()).unwrap_err();
        assert!(error.contains("/nonexistent/codex"));
    }
}
