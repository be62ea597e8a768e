//! Starts all children of the server. Each child runs below a supervisor process ([`supervisor`]). Dropping its handle
//! sends a stop request; after a grace the supervisor kills the child with all its descendants. The child's guard and
//! files are dropped after that.

pub(crate) mod lines;
pub(crate) mod orphan_reaper;
pub(crate) mod output_pipe;
pub mod platform;
pub(crate) mod private_dir;
pub(crate) mod stderr_summary;
pub mod supervisor;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::OptionFuture;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::Instant,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{orphan_reaper::OrphanReaper, output_pipe::OutputPipe, private_dir::PrivateDir};
use crate::task::catch_panic;

/// Maximum time to wait for killed processes to be reaped.
pub(crate) const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after the grace before the server kills a supervisor. Twice the [`REAP_TIMEOUT`] of the supervisor.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that are kept of the end of stderr, where programs print the cause of a failure.
const STDERR_TAIL_BYTES: usize = 16 * 1024;

/// Maximum bytes of stdout that [`Launcher::run_to_completion`] reads.
const MAX_OUTPUT_BYTES: u64 = 4 << 20;

/// Starts children and tracks the running ones. Clones share the tracker.
#[derive(Debug, Clone)]
pub struct Launcher {
    supervisor: PathBuf,
    grace: Duration,
    children: TaskTracker,
    /// Cancelled by [`drain`](Self::drain).
    stop_all: CancellationToken,
    /// Reaps the orphans of a killed supervisor.
    orphan_reaper: Option<OrphanReaper>,
}

/// Parameters of a child.
#[derive(Debug, Default)]
pub(crate) struct SpawnSpec {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The whole environment of the child.
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) working_dir: PathBuf,
    pub(crate) stdin: Input,
    /// Folders of the child, removed when the last of its processes has exited.
    pub(crate) temp_dirs: Vec<PrivateDir>,
    /// A file in `temp_dirs` that is read after the exit.
    pub(crate) output_file: Option<PathBuf>,
    /// A folder that several children share. The supervisor removes it if this server was killed.
    pub(crate) shared_dir: Option<PathBuf>,
    /// Time at which the child is stopped, even if its handle still exists.
    pub(crate) deadline: Option<Instant>,
}

/// The stdin of a child.
#[derive(Debug)]
pub(crate) enum Input {
    /// This text, then the end of the file.
    Text(Vec<u8>),
    /// A pipe that the caller writes to.
    Open,
}

impl Default for Input {
    fn default() -> Self {
        Self::Text(Vec::new())
    }
}

/// A running child with its pipes.
#[derive(Debug)]
pub(crate) struct Started {
    /// Present only with [`Input::Open`].
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: OutputPipe<ChildStdout>,
    pub(crate) process: ChildHandle,
}

/// The output of a child that ran to completion.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    /// `None` if a signal killed the child.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl CommandOutput {
    /// Returns stderr, or stdout if stderr is empty, as one line for a person.
    pub(crate) fn error_summary(&self) -> String {
        stderr_summary::summarize_stderr(if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        })
    }
}

/// A running child. Dropping the handle stops the child with all its descendants.
#[derive(Debug)]
pub(crate) struct ChildHandle {
    stderr: Arc<Mutex<Vec<u8>>>,
    exit: watch::Receiver<Option<Exit>>,
    supervisor_pid: Option<u32>,
    detached: CancellationToken,
    /// Dropping it requests the stop.
    stop: DropGuard,
}

impl Launcher {
    /// Creates a launcher. `supervisor` is a `codex-api` executable, usually this one.
    pub fn new(supervisor: PathBuf, grace: Duration) -> Self {
        Self {
            supervisor,
            grace,
            children: TaskTracker::new(),
            stop_all: CancellationToken::new(),
            orphan_reaper: None,
        }
    }

    /// Adds a reaper for the orphans of killed supervisors. All children of this process must come from this launcher,
    /// because the reaper kills every other child.
    pub fn with_orphan_reaper(self) -> io::Result<Self> {
        Ok(Self { orphan_reaper: Some(OrphanReaper::new()?), ..self })
    }

    /// Returns the `codex-api` executable that supervises children.
    pub(crate) fn supervisor(&self) -> &Path {
        &self.supervisor
    }

    /// Stops all children and completes when none is left.
    pub async fn drain(&self) {
        self.stop_all.cancel();
        self.children.close();
        self.children.wait().await;
    }

    /// Starts a child. `guard` is dropped when the last process of the child has exited.
    pub(crate) fn start(&self, spec: SpawnSpec, guard: impl Send + 'static) -> io::Result<Started> {
        let mut child = match &self.orphan_reaper {
            Some(reaper) => reaper.spawn(|| self.spawn(&spec))?,
            None => self.spawn(&spec)?,
        };
        let missing = || io::Error::other("a pipe of the child is missing");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;

        let supervisor_pid = child.id();
        let stderr_tail = Arc::new(Mutex::new(Vec::new()));
        let (exited, exit) = watch::channel(None);
        let (stop, detached) = (self.stop_all.child_token(), CancellationToken::new());
        let owner = ChildOwner {
            child,
            stop: stop.clone(),
            detached: detached.clone(),
            grace: self.grace,
            deadline: spec.deadline,
        };
        let all_exited = CancellationToken::new();
        let stdout = OutputPipe::new(stdout, all_exited.clone());
        let stderr = OutputPipe::new(stderr, all_exited.clone());
        let tail = Arc::clone(&stderr_tail);
        let orphan_reaper = self.orphan_reaper.clone();
        let (stdin, text) = match spec.stdin {
            Input::Text(text) => (None, Some((stdin, text))),
            Input::Open => (Some(stdin), None),
        };
        self.children.spawn(async move {
            let writing = OptionFuture::from(text.map(|(stdin, text)| write_stdin(stdin, text)));
            let ending = async {
                let status = owner.wait_or_kill().await;
                // Orphans may hold the pipes.
                if let Some(reaper) = orphan_reaper {
                    reaper.on_supervisor_exit(supervisor_pid, status).await;
                }
                all_exited.cancel();
                status
            };
            let ended = catch_panic("child process", async {
                let (status, _, ()) = tokio::join!(ending, writing, tail_stderr(stderr, tail));
                let output_file = spec.output_file.map(tokio::fs::read_to_string);
                let output_file = OptionFuture::from(output_file).await.and_then(Result::ok);
                Exit { status, output_file }
            });
            // After a panic the handle reports no exit, and the child is killed as its owner is dropped.
            let exit = ended.await;
            for dir in spec.temp_dirs {
                dir.remove().await;
            }
            drop(guard);
            if exit.is_some() {
                exited.send_replace(exit);
            }
        });
        let stop = stop.drop_guard();
        let process = ChildHandle { stderr: stderr_tail, exit, supervisor_pid, detached, stop };
        Ok(Started { stdin, stdout, process })
    }

    /// Starts a child and returns its output after its exit. Reads at most 4 MiB of stdout. Dropping the future stops
    /// the child.
    pub(crate) async fn run_to_completion(&self, spec: SpawnSpec) -> io::Result<CommandOutput> {
        let Started { stdout, mut process, .. } = self.start(spec, ())?;
        let mut printed = Vec::new();
        stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut printed).await?;
        let code = process.exit().await.and_then(|exit| exit.status.code());
        let stdout = String::from_utf8_lossy(&printed).into_owned();
        Ok(CommandOutput { code, stdout, stderr: process.stderr() })
    }

    fn spawn(&self, spec: &SpawnSpec) -> io::Result<Child> {
        let mut command = Command::new(&self.supervisor);
        command.arg("supervise");
        command.arg(format!("--parent={}", std::process::id()));
        command.arg(format!("--grace-ms={}", self.grace.as_millis()));
        for dir in &spec.temp_dirs {
            command.arg("--remove").arg(dir.path());
        }
        if let Some(dir) = &spec.shared_dir {
            command.arg("--remove").arg(dir);
        }
        command.arg("--").arg(&spec.program).args(&spec.arguments);
        command.env_clear().envs(&spec.env).current_dir(&spec.working_dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Has an effect only if the task of the child panicked.
        command.kill_on_drop(true);
        // The child gets its own process group, so that Ctrl-C reaches only the server and the drain is orderly.
        command.process_group(0);
        #[expect(clippy::disallowed_methods, reason = "the only place that spawns")]
        command.spawn()
    }
}

impl ChildHandle {
    /// Lets the child exit by itself within the grace, because its work is done. Dropping the handle then has no
    /// effect.
    pub(crate) fn detach(&self) {
        self.detached.cancel();
    }

    /// Stops the child and completes when all processes have exited.
    pub(crate) async fn stop(self) {
        let Self { stop, mut exit, .. } = self;
        drop(stop);
        let _exited = exit.wait_for(Option::is_some).await;
    }

    /// Returns the PID of the supervisor, which is the parent of the program.
    pub(crate) fn supervisor_pid(&self) -> Option<u32> {
        self.supervisor_pid
    }

    /// Completes when all processes have exited. Cancel safe.
    pub(crate) async fn exit(&mut self) -> Option<Exit> {
        let exit = self.exit.wait_for(Option::is_some).await.ok()?;
        exit.clone()
    }

    /// Returns the end of stderr. Complete after [`exit`](Self::exit).
    pub(crate) fn stderr(&self) -> String {
        let tail = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail).into_owned()
    }
}

/// The result of a child.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    /// The content of [`SpawnSpec::output_file`].
    pub(crate) output_file: Option<String>,
}

/// A child with the conditions that stop it. Owned by the task of the child.
struct ChildOwner {
    child: Child,
    stop: CancellationToken,
    detached: CancellationToken,
    grace: Duration,
    deadline: Option<Instant>,
}

impl ChildOwner {
    /// Waits for the exit of the child, and stops it on request, at its deadline, or when it outlives its grace after
    /// [`ChildHandle::detach`].
    async fn wait_or_kill(mut self) -> ExitStatus {
        let grace_over = async {
            self.detached.cancelled().await;
            tokio::time::sleep(self.grace).await;
        };
        // A detached child keeps its grace when the handle is dropped.
        let stopped = async {
            self.stop.cancelled().await;
            if self.detached.is_cancelled() {
                std::future::pending::<()>().await;
            }
        };
        let overdue = async {
            match self.deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = self.child.wait() => return status.unwrap_or_default(),
            () = grace_over => {}
            () = overdue => {}
            () = stopped => {}
        }
        signal(&self.child, Signal::TERM);
        if let Ok(status) = tokio::time::timeout(self.grace + SUPERVISOR_TIMEOUT, self.child.wait()).await {
            return status.unwrap_or_default();
        }
        tracing::error!(pid = self.child.id(), "supervisor did not exit in time; killing it");
        signal(&self.child, Signal::KILL);
        self.child.wait().await.unwrap_or_default()
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        let _already_exited = kill_process(pid, signal);
    }
}

/// Writes the prompt to stdin. Write errors are logged and ignored.
async fn write_stdin(mut stdin: ChildStdin, text: Vec<u8>) {
    if let Err(error) = stdin.write_all(&text).await {
        tracing::debug!(%error, "child did not read its whole stdin");
    }
}

/// Reads stderr to its end and keeps its tail.
async fn tail_stderr(mut stderr: OutputPipe<ChildStderr>, tail: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&buffer[..read]);
        let surplus = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..surplus);
    }
}
