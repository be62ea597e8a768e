//! Probes the installed CLI before the first turn: version, features, and whether it accepts the settings.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    environment::{self, HomeError},
    locate::{self, LocateError},
    scrub,
    writable_roots::{self, WritableError},
};
use crate::{
    config::Codex,
    engine::process::{CommandOutput, Launcher, SpawnSpec},
};

/// The installed CLI.
#[derive(Debug, Clone, Default)]
pub(crate) struct CliInfo {
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    /// Features with their state in the user's configuration.
    pub(crate) features: BTreeMap<String, bool>,
    /// The probed program.
    pub(crate) binary: Option<BinaryId>,
}

/// Identifies a program file, even if another program replaces it at the same path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BinaryId {
    program: PathBuf,
    inode: (u64, u64),
    modified: (i64, i64),
    size: u64,
}

/// The oldest version with `--ephemeral`, which every turn needs.
const MIN_VERSION: (u64, u64) = (0, 110);

/// Time limit of one command of the CLI, which takes some 20 ms.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// The reason of an engine whose first probe has not ended.
pub(crate) const PROBING: &str =
    "the Codex CLI is being probed; turns wait for the result until their deadline";

/// Maximum time that the start of the server waits for the first probe. The probe goes on in the background.
pub(crate) const START_WAIT: Duration = Duration::from_secs(5);

impl CliInfo {
    /// Returns `true` if another program is installed now, `false` if none is.
    pub(crate) fn is_outdated(&self, codex: &Codex) -> bool {
        binary_id(codex).is_some_and(|now| Some(&now) != self.binary.as_ref())
    }
}

/// Returns the id of the program that would be started now. Calls `stat` on the file.
pub(crate) fn binary_id(codex: &Codex) -> Option<BinaryId> {
    let program = locate::find(codex.bin.as_deref(), &codex.env).ok()?;
    let meta = fs::metadata(&program).ok()?;
    Some(BinaryId {
        program,
        inode: (meta.dev(), meta.ino()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        size: meta.len(),
    })
}

/// The reason why the installed CLI cannot be used. Each message is for callers: a fixed sentence with the remedy, without
/// paths and without output of the CLI. [`detail`](Self::detail) is for the log and the doctor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// No executable was found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// `CODEX_WORKSPACE` is not a folder.
    #[error("CODEX_WORKSPACE names no folder; create it or set another folder")]
    Workspace(PathBuf),
    /// Commands of the agent could have replaced what would run.
    #[error(
        "commands of the agent can write to what the server runs or reads, so nothing is started; `codex-api doctor` \
         and the log name it"
    )]
    Writable(#[from] WritableError),
    /// The CLI cannot use its home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The program does not start.
    #[error("the Codex CLI cannot be started; `codex-api doctor` and the log have the cause")]
    Start {
        /// The program.
        program: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// The program does not finish a command in time.
    #[error(
        "`codex {command}` did not finish within {} s; the CLI may wait for the network, to refresh the login or to \
         load the configuration of the organisation",
        PROBE_TIMEOUT.as_secs()
    )]
    TimedOut {
        /// The arguments.
        command: String,
    },
    /// The server stops, or its task failed.
    #[error("the probe of the Codex CLI was interrupted")]
    Interrupted,
    /// The program is not Codex.
    #[error("the configured program does not print a version like the Codex CLI; correct CODEX_BIN")]
    NotCodex {
        /// The program.
        program: PathBuf,
        /// Its output.
        output: String,
    },
    /// The version is not supported.
    #[error(
        "the installed Codex CLI is {version}; at least {}.{}.0 is needed (npm install -g @openai/codex)",
        MIN_VERSION.0, MIN_VERSION.1
    )]
    TooOld {
        /// The version.
        version: String,
    },
    /// The CLI does not support the configured approval policy.
    #[error("Codex {version} does not support CODEX_APPROVAL_POLICY={policy}; use never")]
    ApprovalPolicy {
        /// The version.
        version: String,
        /// The policy.
        policy: String,
    },
    /// The CLI rejects its configuration.
    #[error(
        "the Codex CLI rejects its configuration; correct its config.toml, `codex-api doctor` and the log have the mistake"
    )]
    Configuration {
        /// Its output.
        output: String,
    },
}

impl ProbeError {
    /// Returns the message for the operator. It has no value of the CLI's configuration.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Locate(error) => error.detail(),
            Self::Home(error) => error.detail(),
            Self::Writable(error) => error.to_string(),
            Self::Workspace(folder) => {
                format!("CODEX_WORKSPACE names {}, which is not a folder", folder.display())
            }
            Self::Start { program, cause } => format!("{} cannot be started: {cause}", program.display()),
            Self::NotCodex { program, output } => {
                format!("{} does not print a version like the Codex CLI: {output}", program.display())
            }
            Self::Configuration { output } => format!("the Codex CLI rejects its configuration: {output}"),
            Self::TimedOut { .. } | Self::Interrupted | Self::TooOld { .. } | Self::ApprovalPolicy { .. } => {
                self.to_string()
            }
        }
    }

    /// Returns `true` if the server's own settings must change, so that a retry cannot succeed.
    pub(crate) fn is_misconfiguration(&self) -> bool {
        matches!(self, Self::ApprovalPolicy { .. })
    }
}

/// Logs the detail of a failure whose message callers see. Logs a repeated failure once.
pub(crate) fn log_detail(detail: &str) {
    static LAST: Mutex<String> = Mutex::new(String::new());
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if *last != detail {
        detail.clone_into(&mut last);
        tracing::error!(detail, "the Codex CLI cannot be used");
    }
}

/// Probes version and features of the CLI. Dropping the future stops the CLI.
pub(crate) async fn run(codex: &Codex, launcher: &Launcher) -> Result<CliInfo, ProbeError> {
    let program = locate::find(codex.bin.as_deref(), &codex.env)?;
    // The id is read first, so that a program that is replaced during the probe counts as changed.
    let binary = binary_id(codex);
    if !codex.workspace.is_dir() {
        return Err(ProbeError::Workspace(codex.workspace.clone()));
    }
    writable_roots::check(codex, launcher.supervisor())?;
    environment::check_home(codex)?;
    let output = run_cli(codex, launcher, &program, &["--version"]).await?;
    let Some(version) = version(&output) else {
        let output = scrub::without_values(&output.error_summary());
        return Err(ProbeError::NotCodex { program, output });
    };
    if major_minor(&version) < MIN_VERSION {
        return Err(ProbeError::TooOld { version });
    }
    let arguments = ["-a", &codex.approval_policy, "features", "list"];
    let output = run_cli(codex, launcher, &program, &arguments).await?;
    if output.code == Some(2) && output.stderr.contains("--ask-for-approval") {
        return Err(ProbeError::ApprovalPolicy { version, policy: codex.approval_policy.clone() });
    }
    if output.code != Some(0) {
        let output = scrub::without_values(&output.error_summary());
        return Err(ProbeError::Configuration { output });
    }
    Ok(CliInfo { program, version, features: features(&output.stdout), binary })
}

/// Runs a command of the CLI in the workspace.
pub(crate) async fn run_cli(
    codex: &Codex,
    launcher: &Launcher,
    program: &Path,
    arguments: &[&str],
) -> Result<CommandOutput, ProbeError> {
    let spec = SpawnSpec {
        program: program.to_owned(),
        arguments: arguments.iter().map(Into::into).collect(),
        env: environment::environment(codex),
        working_dir: codex.workspace.clone(),
        ..SpawnSpec::default()
    };
    match tokio::time::timeout(PROBE_TIMEOUT, launcher.run_to_completion(spec)).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(cause)) => Err(ProbeError::Start { program: program.to_owned(), cause }),
        Err(_) => Err(ProbeError::TimedOut { command: arguments.join(" ") }),
    }
}

/// Parses `codex-cli 0.169.0` to `0.169.0`.
fn version(output: &CommandOutput) -> Option<String> {
    let version = output.stdout.trim().strip_prefix("codex-cli ")?;
    // Callers see the version.
    let is_version = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    let looks_right = version.starts_with(|c: char| c.is_ascii_digit())
        && version.len() <= 64
        && version.chars().all(is_version);
    looks_right.then(|| version.to_owned())
}

/// Returns major and minor version.
pub(crate) fn major_minor(version: &str) -> (u64, u64) {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Parses lines like `shell_tool  stable  true`.
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
    fn is_outdated_after_a_replacement_returns_true() {
        let folder = tempfile::tempdir().unwrap();
        let (link, new) = (folder.path().join("codex"), folder.path().join("new"));
        let install = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::symlink(&file, &new).unwrap();
            fs::rename(&new, &link).unwrap();
        };
        let env = [("CODEX_BIN".into(), link.clone().into()), ("PATH".into(), "".into())].into();
        let codex = Config::load(Sources { env, ..Sources::default() }).unwrap().codex;
        install("old", "the first one");
        let installed = CliInfo { binary: binary_id(&codex), ..CliInfo::default() };
        assert!(!installed.is_outdated(&codex));
        // Same size, written within the same clock tick.
        install("next", "the other one");
        assert!(installed.is_outdated(&codex));
        fs::remove_file(&link).unwrap();
        assert!(!installed.is_outdated(&codex), "no other program is installed");
    }

    #[test]
    fn features_with_two_states_are_parsed() {
        let features = features("apps  stable  true\nremoved_one   removed            false\n\n");
        assert_eq!(features, BTreeMap::from([("apps".into(), true), ("removed_one".into(), false)]));
    }

    #[test]
    fn major_minor_of_versions_compares_numerically() {
        assert!(major_minor("0.77.0") < MIN_VERSION);
        assert!(major_minor("0.110.0") >= MIN_VERSION);
        assert!(major_minor("0.169.0-alpha.1") >= MIN_VERSION);
        assert!(major_minor("1.0.0") >= MIN_VERSION);
    }
}
