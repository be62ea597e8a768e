//! `ChildHandle`: the only way to start a child. Each runs inside a containment process (`containment`), is asked to
//! stop when dropped, is killed with all it started after a grace, and holds its slot and its files until then.

pub(crate) mod lines;
pub(crate) mod orphan_reaper;
pub(crate) mod procfs;
pub(crate) mod stderr_summary;
pub mod supervisor;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::OptionFuture;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::watch,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::orphan_reaper::OrphanReaper;
use super::TurnGuard;

/// How much of stderr is kept: its end, where the reason stands.
const STDERR_KEPT: usize = 16 * 1024;

/// How much of an answer is read, in bytes.
const ANSWER_LIMIT: u64 = 4 << 20;

/// Beyond the grace, how long the containment may take to kill and bury before it is killed itself.
const BURIAL: Duration = Duration::from_secs(10);

/// Starts children and knows those that live.
#[derive(Debug, Clone)]
pub struct Launcher {
    containment: PathBuf,
    grace: Duration,
    alive: TaskTracker,
    /// Cancelled when all must end.
    stop_all: CancellationToken,
    /// Our containment processes, where what a killed one left behind comes to us.
    foster: Option<OrphanReaper>,
}

/// What to start.
#[derive(Debug, Default)]
pub(super) struct SpawnSpec {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) env: BTreeMap<OsString, OsString>,
    pub(super) folder: PathBuf,
    pub(super) stdin: Input,
    /// Folders that the child needs; removed when the last of its processes is gone.
    pub(super) scratch: Vec<TempDir>,
    /// A file in `scratch` to look into when the child has ended.
    pub(super) last_words: Option<PathBuf>,
    /// Files that it shares with others; removed with it when we were killed, and cannot do so ourselves.
    pub(super) shared: Option<PathBuf>,
    /// When it is stopped, whoever still waits for it.
    pub(super) deadline: Option<tokio::time::Instant>,
}

/// What a child is given to read.
#[derive(Debug)]
pub(super) enum Input {
    /// This, and then the end.
    Text(Vec<u8>),
    /// Whatever is written to its end of the pipe.
    Open,
}

impl Default for Input {
    fn default() -> Self {
        Self::Text(Vec::new())
    }
}

/// A child and its pipes.
#[derive(Debug)]
pub(super) struct Started {
    /// With [`Input::Open`] only.
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: ChildStdout,
    pub(super) process: ChildHandle,
}

/// What a child said that was asked one thing.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Answer {
    /// What it said, on one line, for a person.
    pub(super) fn words(&self) -> String {
        stderr_summary::of(if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr })
    }
}

/// A child that runs. Dropping it ends the child and all that came of it.
#[derive(Debug)]
pub(super) struct ChildHandle {
    stderr: Arc<Mutex<Vec<u8>>>,
    exit: watch::Receiver<Option<Exit>>,
    pid: Option<u32>,
    leave: CancellationToken,
    #[expect(dead_code, reason = "held for its destructor, which asks the child to stop")]
    stop: DropGuard,
}

impl Launcher {
    /// `containment` is a `codex-api` executable: our own, unless a test says otherwise.
    pub fn new(containment: PathBuf, grace: Duration) -> Self {
        Self {
            containment,
            grace,
            alive: TaskTracker::new(),
            stop_all: CancellationToken::new(),
            foster: None,
        }
    }

    /// The same, in a process that has no other children: what a containment leaves behind that is itself killed
    /// (nobody can prevent that) is adopted and ended by us.
    pub fn fostering(self) -> io::Result<Self> {
        Ok(Self { foster: Some(OrphanReaper::start()?), ..self })
    }

    /// Stops all children and waits until none is alive.
    pub async fn drain(&self) {
        self.stop_all.cancel();
        self.alive.close();
        self.alive.wait().await;
    }

    /// Starts a child; `slot` is held until the last of its processes is gone.
    pub(super) fn start(&self, launch: SpawnSpec, slot: TurnGuard) -> io::Result<Started> {
        let mut child = match &self.foster {
            Some(foster) => foster.spawn(|| self.spawn(&launch))?,
            None => self.spawn(&launch)?,
        };
        let missing = || io::Error::other("a pipe is missing");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;

        let pid = child.id();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (exited, exit) = watch::channel(None);
        let (stop, leave) = (self.stop_all.child_token(), CancellationToken::new());
        let owner = ChildOwner {
            child,
            stop: stop.clone(),
            leave: leave.clone(),
            grace: self.grace,
            deadline: launch.deadline,
        };
        let tail = Arc::clone(&kept);
        let foster = self.foster.clone();
        let (stdin, text) = match launch.stdin {
            Input::Text(text) => (None, Some((stdin, text))),
            Input::Open => (Some(stdin), None),
        };
        self.alive.spawn(async move {
            let feeding = OptionFuture::from(text.map(|(stdin, text)| feed(stdin, text)));
            let ending = async {
                let status = owner.end().await;
                // What is left may hold the pipes, which are read to their end.
                if let Some(foster) = foster {
                    foster.ended(pid, status).await;
                }
                status
            };
            let (status, _, ()) = tokio::join!(ending, feeding, keep(stderr, tail));
            let last_words = launch.last_words.and_then(|path| std::fs::read_to_string(path).ok());
            drop(launch.scratch);
            drop(slot);
            exited.send_replace(Some(Exit { status, last_words }));
        });
        let process = ChildHandle { stderr: kept, exit, pid, leave, stop: stop.drop_guard() };
        Ok(Started { stdin, stdout, process })
    }

    /// Starts a child and waits for its end. What it prints is bounded.
    pub(super) async fn ask(&self, launch: SpawnSpec) -> io::Result<Answer> {
        let Started { stdout, mut process, .. } = self.start(launch, TurnGuard::new(()))?;
        let mut printed = Vec::new();
        stdout.take(ANSWER_LIMIT).read_to_end(&mut printed).await?;
        let code = process.exit().await.and_then(|exit| exit.status.code());
        Ok(Answer { code, stdout: String::from_utf8_lossy(&printed).into_owned(), stderr: process.stderr() })
    }

    fn spawn(&self, launch: &SpawnSpec) -> io::Result<Child> {
        let mut command = Command::new(&self.containment);
        command.arg("contain");
        command.arg(format!("--parent={}", std::process::id()));
        command.arg(format!("--grace-ms={}", self.grace.as_millis()));
        for scratch in &launch.scratch {
            command.arg("--remove").arg(scratch.path());
        }
        if let Some(shared) = &launch.shared {
            command.arg("--remove").arg(shared);
        }
        command.arg("--").arg(&launch.program).args(&launch.arguments);
        command.env_clear().envs(&launch.env).current_dir(&launch.folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that Ctrl-C in a terminal reaches us alone and the drain is orderly.
        command.process_group(0);
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        command.spawn()
    }
}

impl ChildHandle {
    /// Lets the child end by itself, for the length of the grace: its work is done.
    pub(super) fn leave(&self) {
        self.leave.cancel();
    }

    /// The containment process; what it contains is its child.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Waits for the end of all processes.
    pub(super) async fn exit(&mut self) -> Option<Exit> {
        let exit = self.exit.wait_for(Option::is_some).await.ok()?;
        exit.clone()
    }

    /// The end of what it printed to stderr; whole after [`exit`](Self::exit).
    pub(super) fn stderr(&self) -> String {
        let kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

/// What is left of a child.
#[derive(Debug, Clone)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    /// The text of [`SpawnSpec::last_words`].
    pub(super) last_words: Option<String>,
}

struct ChildOwner {
    child: Child,
    stop: CancellationToken,
    leave: CancellationToken,
    grace: Duration,
    deadline: Option<tokio::time::Instant>,
}

impl ChildOwner {
    /// Sees the child to its end.
    async fn end(mut self) -> ExitStatus {
        let left = async {
            self.leave.cancelled().await;
            tokio::time::sleep(self.grace).await;
        };
        // After `leave`, dropping the group is no longer a reason to hurry.
        let stopped = async {
            self.stop.cancelled().await;
            if self.leave.is_cancelled() {
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
            () = left => {}
            () = overdue => {}
            () = stopped => {}
        }
        signal(&self.child, Signal::TERM);
        if let Ok(status) = tokio::time::timeout(self.grace + BURIAL, self.child.wait()).await {
            return status.unwrap_or_default();
        }
        tracing::error!(pid = self.child.id(), "a containment process did not end and is killed");
        signal(&self.child, Signal::KILL);
        self.child.wait().await.unwrap_or_default()
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        let _gone_already = kill_process(pid, signal);
    }
}

/// Writes the prompt. A child that does not read it is its own affair.
async fn feed(mut stdin: ChildStdin, text: Vec<u8>) {
    if let Err(error) = stdin.write_all(&text).await {
        tracing::debug!(%error, "the child did not read all of its input");
    }
}

/// Keeps the end of stderr.
async fn keep(mut stderr: ChildStderr, tail: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut kept = tail.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..read]);
        let surplus = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..surplus);
    }
}
