//! Locates the Codex executable. `CODEX_BIN` takes precedence over the first `codex` on `PATH`. npm's Node.js launcher
//! resolves to the native program, which starts 40 ms faster.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The reason why no executable was found. The message is for callers and contains the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LocateError {
    /// `CODEX_BIN` is a name that is not on `PATH`.
    #[error("CODEX_BIN names a program that is not on PATH; install the Codex CLI or correct CODEX_BIN")]
    MissingOnPath(PathBuf),
    /// `CODEX_BIN` is not an executable file.
    #[error("CODEX_BIN names no executable file; install the Codex CLI there or correct CODEX_BIN")]
    NoExecutable(PathBuf),
    /// `CODEX_BIN` is not set and `PATH` has no `codex`.
    #[error(
        "the Codex CLI was not found on PATH; install it (npm install -g @openai/codex) or set CODEX_BIN"
    )]
    Uninstalled,
}

impl LocateError {
    /// Returns the message for the operator.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::MissingOnPath(name) => format!("CODEX_BIN names {}, which is not on PATH", name.display()),
            Self::NoExecutable(path) => {
                format!("CODEX_BIN names {}, which is not an executable file", path.display())
            }
            Self::Uninstalled => self.to_string(),
        }
    }
}

/// Returns the executable to run.
pub(crate) fn find(
    configured: Option<&Path>,
    env: &BTreeMap<OsString, OsString>,
) -> Result<PathBuf, LocateError> {
    let program = named(configured, env)?;
    Ok(native(&program).unwrap_or(program))
}

/// Returns the files that decide which executable runs: the named one, even if it does not exist, and the native program of
/// npm's launcher.
pub(crate) fn programs(configured: Option<&Path>, env: &BTreeMap<OsString, OsString>) -> Vec<PathBuf> {
    let path = configured.filter(|path| path.components().count() > 1).map(Path::to_owned);
    let program = named(configured, env).ok().or(path);
    let native = program.as_deref().and_then(native);
    program.into_iter().chain(native).collect()
}

/// Returns the configured executable, which may be npm's launcher.
fn named(configured: Option<&Path>, env: &BTreeMap<OsString, OsString>) -> Result<PathBuf, LocateError> {
    match configured {
        Some(name) if name.components().count() == 1 => {
            on_path(name, env).ok_or_else(|| LocateError::MissingOnPath(name.to_owned()))
        }
        Some(path) if is_executable(path) => Ok(path.to_owned()),
        Some(path) => Err(LocateError::NoExecutable(path.to_owned())),
        None => on_path(Path::new("codex"), env).ok_or(LocateError::Uninstalled),
    }
}

/// Returns the first executable of this name on `PATH`.
pub(crate) fn on_path(name: &Path, env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let path = env.get(&OsString::from("PATH"))?;
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Returns the native program that npm's launcher (`@openai/codex/bin/codex.js`) starts.
fn native(launcher: &Path) -> Option<PathBuf> {
    let script = fs::canonicalize(launcher).ok()?;
    if script.extension()? != "js" {
        return None;
    }
    let package = script.parent()?.parent()?;
    // npm installs the platform's package beside the launcher's package or below it.
    let homes = [package.join("node_modules/@openai"), package.parent()?.to_owned()];
    let platforms = homes.iter().flat_map(|home| entries(home)).filter(|entry| {
        entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PLATFORM_PACKAGE))
    });
    let vendors = platforms.chain([package.to_owned()]).map(|platform| platform.join("vendor"));
    let triples: Vec<PathBuf> = vendors.flat_map(|vendor| entries(&vendor)).collect();
    let arch = std::env::consts::ARCH;
    triples
        .iter()
        .filter(|triple| triple.file_name().is_some_and(|name| name.to_string_lossy().starts_with(arch)))
        // Before 0.140 the folder was named `codex`.
        .flat_map(|triple| [triple.join("bin/codex"), triple.join("codex/codex")])
        .find(|file| is_executable(file))
}

/// Prefix of the npm package with the native program.
const PLATFORM_PACKAGE: &str = if cfg!(target_os = "macos") { "codex-darwin" } else { "codex-linux" };

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
    fn find_with_npm_launcher_returns_the_native_program() {
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
    fn find_without_executable_names_the_remedy() {
        assert!(find(None, &BTreeMap::new()).unwrap_err().to_string().contains("CODEX_BIN"));
        let error = find(Some(Path::new("/nonexistent/codex")), &BTreeMap::new()).unwrap_err();
        assert!(error.detail().contains("/nonexistent/codex"));
        assert!(error.to_string().contains("CODEX_BIN") && !error.to_string().contains('/'), "{error}");
    }
}
