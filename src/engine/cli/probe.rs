//! What the installed CLI is, asked before the first turn: version, features, whether it takes our settings.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use super::{environment, locate};
use crate::config::Codex;
use crate::engine::process::{Answer, Launcher, SpawnSpec};

/// What the installed CLI is and has.
#[derive(Debug, Clone, Default)]
pub(crate) struct CliInfo {
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    /// Its features, and whether each is on by the user's configuration.
    pub(crate) features: BTreeMap<String, bool>,
    /// Which program it was.
    pub(crate) fingerprint: Option<BinaryId>,
}

/// What tells one program from the next one, be it at the same place or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BinaryId {
    program: PathBuf,
    inode: (u64, u64),
    modified: (i64, i64),
    size: u64,
}

/// The oldest CLI that has what every turn needs (`--ephemeral`).
const OLDEST: (u64, u64) = (0, 110);

/// Time for one question; the CLI needs some 20 ms.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

impl CliInfo {
    /// Whether the program that would be started now is another one. Where there is none, nothing can be said.
    pub(crate) fn is_outdated(&self, codex: &Codex) -> bool {
        fingerprint(codex).is_some_and(|now| Some(&now) != self.fingerprint.as_ref())
    }
}

/// Which program would be started now. Cheap.
pub(crate) fn fingerprint(codex: &Codex) -> Option<BinaryId> {
    let program = locate::find(codex.bin.as_deref(), &codex.env).ok()?;
    let meta = fs::metadata(&program).ok()?;
    Some(BinaryId {
        program,
        inode: (meta.dev(), meta.ino()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        size: meta.len(),
    })
}

/// Looks at the CLI; the error tells the operator what to do.
pub(crate) async fn look(codex: &Codex, launcher: &Launcher) -> Result<CliInfo, String> {
    let program = locate::find(codex.bin.as_deref(), &codex.env)?;
    // Taken first: one that is replaced while it is asked is another one.
    let fingerprint = fingerprint(codex);
    if !codex.workspace.is_dir() {
        return Err(format!("CODEX_WORKSPACE names {}, which is not a folder", codex.workspace.display()));
    }
    if let Some(trouble) = environment::trouble(codex) {
        return Err(trouble);
    }
    let ask = async |arguments: &[&str]| {
        let launch = SpawnSpec {
            program: program.clone(),
            arguments: arguments.iter().map(Into::into).collect(),
            env: environment::environment(codex),
            folder: codex.workspace.clone(),
            ..SpawnSpec::default()
        };
        let question = arguments.join(" ");
        match tokio::time::timeout(PATIENCE, launcher.ask(launch)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{} cannot be started: {error}", program.display())),
            Err(_) => Err(format!("`codex {question}` did not answer within {} s", PATIENCE.as_secs())),
        }
    };

    let answer = ask(&["--version"]).await?;
    let version = version(&answer).ok_or_else(|| {
        format!("{} does not answer --version as the Codex CLI does: {}", program.display(), answer.words())
    })?;
    if numbers(&version) < OLDEST {
        return Err(format!(
            "the installed Codex CLI is {version}; at least {}.{}.0 is needed (npm install -g @openai/codex)",
            OLDEST.0, OLDEST.1
        ));
    }
    let answer = ask(&["-a", &codex.approval_policy, "features", "list"]).await?;
    if answer.code == Some(2) && answer.stderr.contains("--ask-for-approval") {
        return Err(format!(
            "Codex {version} no longer knows CODEX_APPROVAL_POLICY={}; use never: nobody is there to be asked",
            codex.approval_policy
        ));
    }
    if answer.code != Some(0) {
        return Err(format!("the Codex CLI refuses its configuration: {}", answer.words()));
    }
    Ok(CliInfo { program, version, features: features(&answer.stdout), fingerprint })
}

/// `codex-cli 0.169.0` → `0.169.0`
fn version(answer: &Answer) -> Option<String> {
    let version = answer.stdout.trim().strip_prefix("codex-cli ")?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// Major and minor.
pub(crate) fn numbers(version: &str) -> (u64, u64) {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// The first word of each line, and the last one: `shell_tool  stable  true`.
fn features(list: &str) -> BTreeMap<String, bool> {
    let line = |line: &str| {
        let name = line.split_whitespace().next()?.to_owned();
        Some((name, line.trim_end().ends_with("true")))
    };
    list.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn a_program_is_known_by_what_is_there_now() {
        let folder = tempfile::tempdir().unwrap();
        let (link, new) = (folder.path().join("codex"), folder.path().join("new"));
        let put = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::symlink(&file, &new).unwrap();
            fs::rename(&new, &link).unwrap();
        };
        let env = [("CODEX_BIN".into(), link.clone().into()), ("PATH".into(), "".into())].into();
        let codex = Config::load(Sources { env, ..Sources::default() }).unwrap().codex;
        put("old", "the first one");
        let installed = CliInfo { fingerprint: fingerprint(&codex), ..CliInfo::default() };
        assert!(!installed.is_outdated(&codex));
        // Of the same size, made within the same tick of the clock, and perhaps for a moment.
        put("next", "the other one");
        assert!(installed.is_outdated(&codex));
        fs::remove_file(&link).unwrap();
        assert!(!installed.is_outdated(&codex), "nothing is there to take its place");
    }

    #[test]
    fn features_have_a_state() {
        let found = features("apps  stable  true\nremoved_one   removed            false\n\n");
        assert_eq!(found, BTreeMap::from([("apps".into(), true), ("removed_one".into(), false)]));
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("0.77.0") < OLDEST);
        assert!(numbers("0.110.0") >= OLDEST);
        assert!(numbers("0.169.0-alpha.1") >= OLDEST);
        assert!(numbers("1.0.0") >= OLDEST);
    }
}
