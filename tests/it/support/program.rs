//! The program as a separate process with arguments, environment and signals.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use super::{Codex, Engine, TIMEOUT, engines, executable, login, processes};
use crate::eventually;

/// A `codex-api` command with its own home folder and environment. Dropping it removes the folder.
pub struct Program {
    home: TempDir,
    marker: String,
    env: BTreeMap<String, String>,
    ignores_hangup: bool,
    /// A folder, and the folder that it replaces for the program.
    mount: Option<(PathBuf, PathBuf)>,
}

impl Program {
    /// Creates a home folder and an environment with the `PATH` of the machine, port 0 and a JSON log.
    pub fn new(codex: Codex, engine: Engine) -> Self {
        let home = tempfile::Builder::new().prefix("codex-api-program-").tempdir().unwrap();
        let marker = format!("{}-{}", std::process::id(), home.path().file_name().unwrap().display());
        for folder in ["scratch", "work", "codex-home"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
        }
        if codex == Codex::Fake {
            login::write(&home.path().join("codex-home"), &login::key("sk-fake"));
        }
        let below_home = |folder: &str| home.path().join(folder).display().to_string();
        let env = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("HOME", below_home("")),
            ("CODEX_HOME", below_home("codex-home")),
            ("TMPDIR", below_home("scratch")),
            (processes::MARKER, marker.clone()),
            ("CODEX_GATEWAY_PORT", "0".into()),
            ("CODEX_LOG_FORMAT", "json".into()),
            ("CODEX_CANCEL_GRACE_SECONDS", "0.5".into()),
            // Most tests stop the program and need no time for callers to leave.
            ("CODEX_LAME_DUCK_SECONDS", "0".into()),
            ("CODEX_BIN", executable(codex).display().to_string()),
            ("CODEX_ENGINE", engine.name().into()),
        ];
        // The fake has no forks, which the doctor would report.
        let no_forks = (codex == Codex::Fake).then(|| ("CODEX_PROMPT_CACHE_KEYS", "off".to_owned()));
        let env = env.into_iter().chain(no_forks).map(|(name, value)| (name.to_owned(), value)).collect();
        Self { home, marker, env, ignores_hangup: false, mount: None }
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub fn remove_env(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// Returns the working directory.
    pub fn work_dir(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// Returns the home of the CLI.
    pub fn codex_home(&self) -> PathBuf {
        self.home.path().join("codex-home")
    }

    /// Writes `.env` into the working directory.
    pub fn write_dotenv(self, text: &str) -> Self {
        std::fs::write(self.work_dir().join(".env"), text).unwrap();
        self
    }

    /// Ignores SIGHUP, as `nohup` does.
    pub fn ignoring_hangup(mut self) -> Self {
        self.ignores_hangup = true;
        self
    }

    /// Mounts a folder over another one, in a namespace of the program. Needs root.
    pub fn mounting(mut self, folder: &Path, over: &Path) -> Self {
        self.mount = Some((folder.to_owned(), over.to_owned()));
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_codex-api");
        let mut command = if let Some((folder, over)) = &self.mount {
            let mut shell = Command::new("unshare");
            let script = r#"mount --bind "$0" "$1" && shift && exec "$@""#;
            shell.args(["-m", "/bin/sh", "-c", script]).args([folder, over]).arg(program);
            shell
        } else if self.ignores_hangup {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", r#"trap "" HUP; exec "$0" "$@""#, program]);
            shell
        } else {
            Command::new(program)
        };
        command.args(arguments).env_clear().envs(&self.env).current_dir(self.work_dir());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs the program until it exits.
    pub async fn run(&self, arguments: &[&str]) -> ExitedProgram {
        let output = timeout(TIMEOUT, self.command(arguments).output()).await;
        ExitedProgram::new(output.expect("the program exits in time").unwrap())
    }

    /// Starts the program and waits until it listens.
    pub async fn serve(self, arguments: &[&str]) -> RunningProgram {
        let mut child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let collected = Arc::clone(&log);
        let collecting = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                collected.lock().unwrap().push(line);
            }
        });
        let address = ([127, 0, 0, 1], 0).into();
        let turn_folders = processes::TurnFolders::default();
        let mut running = RunningProgram { child, program: self, log, collecting, turn_folders, address };
        eventually!("the program listens", {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("{status}: {:?}", running.log());
            }
            let line = running.log_line("codex-api is listening");
            line.map(|line| running.address = line["listen"].as_str().unwrap().parse().unwrap()).is_some()
        });
        running
    }
}

/// Exit code and output of a program.
#[derive(Debug)]
pub struct ExitedProgram {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl ExitedProgram {
    fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Maximum time that the log of a server that has exited is read.
const LOG_LIMIT: Duration = Duration::from_secs(2);

/// A running server.
pub struct RunningProgram {
    child: Child,
    program: Program,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads stderr to its end.
    collecting: JoinHandle<()>,
    turn_folders: processes::TurnFolders,
    pub address: SocketAddr,
}

impl RunningProgram {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Returns the folder of all files that the server writes.
    pub fn home(&self) -> &Path {
        self.program.home.path()
    }

    /// Returns the lines on stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Returns the first log line whose message contains a text.
    pub fn log_line(&self, message: &str) -> Option<Value> {
        let lines = self.log();
        let mut parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.find(|line| line["message"].as_str().is_some_and(|text| text.contains(message)))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Returns the command lines of running turn processes, without workers and their supervisors.
    pub fn turn_processes(&self) -> Vec<String> {
        engines::without_workers(self.processes())
    }

    /// Returns the command line of the first turn process that contains both texts.
    pub fn turn_process(&self, first: &str, second: &str) -> Option<String> {
        self.turn_processes().into_iter().find(|line| line.contains(first) && line.contains(second))
    }

    /// Returns the command lines of the running child processes.
    pub fn processes(&self) -> Vec<String> {
        let server = self.child.id().map(|pid| format!("{pid}: "));
        let mut running = processes::with_marker(&self.program.marker);
        running.retain(|process| server.as_ref().is_none_or(|server| !process.starts_with(server)));
        running
    }

    /// Returns the number of running turns in the health report.
    pub async fn running_turns(&self) -> u64 {
        let health: Value = reqwest::get(self.url("/healthz")).await.unwrap().json().await.unwrap();
        health["running"].as_u64().unwrap()
    }

    /// Returns the temporary files; see `TestApp::scratch_files` for the exception.
    pub fn scratch_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.program.home.path().join("scratch")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let in_memory = self.turn_folders.existing(&self.processes());
        let all: BTreeSet<PathBuf> = paths.filter(|path| !is_sandbox_lock(path)).chain(in_memory).collect();
        all.into_iter().collect()
    }

    /// Waits for the exit; returns the exit code, or `None` after a signal.
    pub async fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let status = timeout(within, self.child.wait()).await.expect("the server exits in time").unwrap();
        // The log is complete then. A process that outlives a killed server may hold the pipe open for a while.
        if !self.collecting.is_finished() {
            drop(timeout(LOG_LIMIT, &mut self.collecting).await);
        }
        status.code()
    }

    /// Asserts that no process and no file is left.
    pub async fn assert_nothing_is_left(&self) {
        eventually!("no process is left", self.processes().is_empty());
        eventually!("no file is left", self.scratch_files().is_empty());
    }
}

fn is_sandbox_lock(path: &Path) -> bool {
    path.to_string_lossy().contains("/codex-bwrap-synthetic-mount-targets-")
}
