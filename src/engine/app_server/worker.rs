//! One `codex app-server` process: its start, its handshake, its watch, its end. Which turns it runs is the pool's
//! business.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::{
    kit::Kit,
    peer::{CallError, Peer},
    sweep,
};
use crate::engine::{
    Slot, complaint,
    process::{Launch, Launcher, ProcessGroup, Started},
    procfs,
};

/// Time for one call; the slowest takes some 20 ms when nothing else runs.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// How long one that fails at its start may take to end and say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often a worker is asked whether it is there.
const PULSE: Duration = Duration::from_secs(1);

/// How often it is looked for an answer, and whether the process was stopped.
const TICK: Duration = Duration::from_millis(250);

/// Ticks without any word of a worker that was asked, after which it is lost. Ticks, not time: when we were stopped
/// ourselves, or starved, it was not the worker that was silent.
const SILENT_TICKS: u32 = 20;

/// The same for a worker that speaks but does not answer.
const DEAF_TICKS: u32 = 32;

/// Ticks after which others are preferred.
const LATE_TICKS: u32 = 2;

/// Ticks that a process may be stopped for.
const STOPPED_TICKS: u32 = 2;

/// What is told of every thread and means nothing to us.
const NOT_WANTED: &[&str] = &[
    "account/rateLimits/updated",
    "configWarning",
    "item/commandExecution/outputDelta",
    "mcpServer/startupStatus/updated",
    "remoteControl/status/changed",
    "thread/settings/updated",
    "thread/started",
    "thread/status/changed",
    "turn/diff/updated",
    "turn/started",
];

/// A worker that has shaken hands.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) peer: Peer,
    /// What it was started with.
    pub(super) kit: Arc<Kit>,
    /// Where its turns have their temporary folders.
    pub(super) commands: Option<PathBuf>,
    pub(super) born: Instant,
    /// Turns that it has been given.
    pub(super) turns: AtomicU32,
    /// Turns that it runs.
    pub(super) running: AtomicUsize,
    /// When each of these began, in the kernel's ticks.
    begun: Mutex<BTreeMap<u32, u64>>,
    /// No more turns are given to it.
    pub(super) retired: AtomicBool,
    /// It owes an answer for longer than usual.
    pub(super) late: AtomicBool,
    process: Mutex<Option<ProcessGroup>>,
    pid: Option<u32>,
}

impl Worker {
    /// Starts a process and shakes hands.
    pub(super) async fn start(
        launch: Launch,
        launcher: &Launcher,
        kit: &Arc<Kit>,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let started = launcher.start(launch, Slot::new(())).map_err(|error| error.to_string())?;
        let Started { stdin: Some(stdin), stdout, mut process } = started else {
            return Err("a pipe is missing".to_owned());
        };
        let pid = process.pid();
        let peer = Peer::start(stdin, stdout, kit.codex.line_limit, tasks);
        match shake_hands(&peer).await {
            Ok(()) => {}
            Err(CallError::Gone(_)) => {
                // One that has only closed its pipe may never end by itself.
                drop(timeout(LAST_WORDS, process.exit()).await);
                let words = complaint::of(&process.stderr());
                let words = if words.is_empty() { "it said nothing" } else { &words };
                return Err(format!("the app-server ended at its start: {words}"));
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(Self::of(peer, Arc::clone(kit), Some(process), pid))
    }

    /// One that has shaken hands.
    pub(super) fn of(peer: Peer, kit: Arc<Kit>, process: Option<ProcessGroup>, pid: Option<u32>) -> Self {
        Self {
            peer,
            kit,
            commands: None,
            born: Instant::now(),
            turns: AtomicU32::new(0),
            running: AtomicUsize::new(0),
            begun: Mutex::default(),
            retired: AtomicBool::new(false),
            late: AtomicBool::new(false),
            process: Mutex::new(process),
            pid,
        }
    }

    /// Ends the process, whatever it is doing. Its turns are told.
    pub(super) fn dismiss(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.peer.hang_up();
        drop(self.process.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Ends when the worker does: by itself, or because it no longer answers.
    pub(super) async fn watch(&self) -> &'static str {
        tokio::select! {
            () = self.peer.gone() => "it ended",
            () = self.stopped() => "it was stopped",
            why = self.silent() => why,
        }
    }

    /// Ends when somebody has stopped the process: it would never answer, and need not be asked.
    async fn stopped(&self) {
        let mut ticks = 0;
        while ticks < STOPPED_TICKS {
            sleep(TICK).await;
            let stopped = self.pid.and_then(contained_by).and_then(state) == Some('T');
            ticks = if stopped { ticks + 1 } else { 0 };
            self.late.fetch_or(stopped, Ordering::Relaxed);
        }
    }

    /// Ends when the worker owes an answer for too long.
    async fn silent(&self) -> &'static str {
        loop {
            sleep(PULSE).await;
            let pulse = self.peer.pulse();
            tokio::pin!(pulse);
            let (mut silent, mut deaf) = (0, 0);
            let mut heard = self.peer.heard();
            loop {
                tokio::select! {
                    biased;
                    _answered_or_gone = &mut pulse => break,
                    () = sleep(TICK) => {}
                }
                let now = self.peer.heard();
                silent = if now == heard { silent + 1 } else { 0 };
                deaf += 1;
                heard = now;
                if silent >= SILENT_TICKS || deaf >= DEAF_TICKS {
                    return "it no longer answers";
                }
                self.late.fetch_or(deaf >= LATE_TICKS, Ordering::Relaxed);
            }
            self.late.store(false, Ordering::Relaxed);
        }
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory that the process holds, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.pid.and_then(contained_by).and_then(resident).unwrap_or_default()
    }
}

async fn shake_hands(peer: &Peer) -> Result<(), CallError> {
    let params = json!({
        "clientInfo": {"name": "codex-api", "title": "codex-api", "version": env!("CARGO_PKG_VERSION")},
        "capabilities": {"experimentalApi": true, "optOutNotificationMethods": NOT_WANTED},
    });
    peer.call("initialize", &params, CALL_LIMIT).await?;
    peer.notify("initialized").await;
    Ok(())
}

/// The process in a containment.
fn contained_by(containment: u32) -> Option<u32> {
    let path = format!("/proc/{containment}/task/{containment}/children");
    std::fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// The letter for what a process does; `T` when it was stopped.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// A turn on a worker; dropped, the worker has one turn less.
#[derive(Debug)]
pub(super) struct Lease(pub(super) Arc<Worker>, u32);

impl Lease {
    pub(super) fn of(worker: &Arc<Worker>) -> Self {
        let number = worker.turns.fetch_add(1, Ordering::Relaxed);
        worker.running.fetch_add(1, Ordering::Relaxed);
        worker.begun().insert(number, procfs::ticks());
        Self(Arc::clone(worker), number)
    }

    /// Ends what commands of the turn, whose thread this is, have left behind.
    pub(super) async fn sweep(&self, thread: &str) {
        let Some(containment) = self.pid else { return };
        let others = || self.begun().iter().filter(|(number, _)| **number != self.1).map(|(_, at)| *at).min();
        sweep::end_commands(containment, contained_by(containment), thread, others).await;
    }
}

impl std::ops::Deref for Lease {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.begun().remove(&self.1);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
