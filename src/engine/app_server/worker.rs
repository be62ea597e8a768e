//! One `codex app-server` process: its start, its handshake, its watch, its end. Which turns it runs is the pool's
//! business.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::peer::{CallError, Peer};
use crate::engine::{
    Slot,
    process::{Launch, Launcher, ProcessGroup, Started},
};

/// Time for one call; the slowest takes some 20 ms when nothing else runs.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// How often an idle or silent worker is asked whether it is there.
const PULSE: Duration = Duration::from_secs(2);

/// How long it may take to say so.
const PULSE_LIMIT: Duration = Duration::from_secs(5);

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
    pub(super) born: Instant,
    /// Turns that it has been given.
    pub(super) turns: AtomicU32,
    /// Turns that it runs.
    pub(super) running: AtomicUsize,
    /// No more turns are given to it.
    pub(super) retired: AtomicBool,
    process: Mutex<Option<ProcessGroup>>,
    pid: Option<u32>,
}

impl Worker {
    /// Starts a process and shakes hands.
    pub(super) async fn start(
        launch: Launch,
        launcher: &Launcher,
        line_limit: usize,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let started = launcher.start(launch, Slot::new(())).map_err(|error| error.to_string())?;
        let Started { stdin: Some(stdin), stdout, mut process } = started else {
            return Err("a pipe is missing".to_owned());
        };
        let pid = process.pid();
        let peer = Peer::start(stdin, stdout, line_limit, tasks);
        match shake_hands(&peer).await {
            Ok(()) => {}
            Err(CallError::Gone(_)) => {
                process.exit().await;
                let words = process.stderr();
                let last =
                    words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
                return Err(format!("the app-server ended at its start: {}", last.trim()));
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(Self {
            peer,
            born: Instant::now(),
            turns: AtomicU32::new(0),
            running: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            process: Mutex::new(Some(process)),
            pid,
        })
    }

    /// Ends the process, whatever it is doing. Its turns are told.
    pub(super) fn dismiss(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.peer.hang_up();
        drop(self.process.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Ends when the worker does: by itself, or because it no longer answers.
    pub(super) async fn watch(&self) -> &'static str {
        loop {
            tokio::select! {
                () = self.peer.gone() => return "it ended",
                () = sleep(PULSE) => {}
            }
            let pulse = self.peer.call("thread/loaded/list", &json!({}), PULSE_LIMIT).await;
            if let Err(CallError::TimedOut(_)) = pulse {
                return "it no longer answers";
            }
        }
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

fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// A turn on a worker; dropped, the worker has one turn less.
#[derive(Debug)]
pub(super) struct Lease(pub(super) Arc<Worker>);

impl Lease {
    pub(super) fn of(worker: &Arc<Worker>) -> Self {
        worker.turns.fetch_add(1, Ordering::Relaxed);
        worker.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(worker))
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
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
