//! One `codex app-server` process: its start, its handshake, its watch, its end. Which turns it runs is the pool's
//! business.

pub(crate) mod command_reaper;
pub(crate) mod factory;
pub(crate) mod model_list;
pub(crate) mod pool;
pub(crate) mod spec;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use self::spec::WorkerSpec;
use super::rpc::{
    client::RpcClient,
    dispatch::CallError,
    protocol::{ClientCapabilities, ClientInfo, INITIALIZED, Initialize},
};
use crate::engine::{
    TurnGuard,
    process::{ChildHandle, Launcher, SpawnSpec, Started, platform, stderr_summary},
};

/// Time for one call; the slowest takes some 20 ms when nothing else runs.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// How long one that fails at its start may take to end and say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a worker without turns is left alone: to look after it costs processor time, its own too.
const IDLE: Duration = Duration::from_secs(2);

/// How often a worker with turns is asked whether it is there.
const PULSE: Duration = Duration::from_secs(1);

/// How often it is then looked for an answer, and whether the process was stopped.
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
    pub(super) rpc: RpcClient,
    /// What it was started with.
    pub(super) kit: Arc<WorkerSpec>,
    /// Where its turns have their temporary folders.
    pub(super) commands: Option<PathBuf>,
    pub(super) born: Instant,
    /// Turns that it has been given.
    pub(super) turns: AtomicU32,
    /// Turns that it runs.
    pub(super) running: AtomicUsize,
    /// Told when it gets a turn and had none.
    busy: Notify,
    /// When each of these began, in the kernel's ticks.
    begun: Mutex<BTreeMap<u32, u64>>,
    /// No more turns are given to it.
    pub(super) retired: AtomicBool,
    /// It owes an answer for longer than usual.
    pub(super) late: AtomicBool,
    process: Mutex<Option<ChildHandle>>,
    /// Of its containment.
    pid: Option<u32>,
    vitals: OnceLock<platform::ProcessStats>,
}

impl Worker {
    /// Starts a process and shakes hands.
    pub(super) async fn start(
        launch: SpawnSpec,
        launcher: &Launcher,
        kit: &Arc<WorkerSpec>,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let started = launcher.start(launch, TurnGuard::new(())).map_err(|error| error.to_string())?;
        let Started { stdin: Some(stdin), stdout, mut process } = started else {
            return Err("a pipe is missing".to_owned());
        };
        let pid = process.supervisor_pid();
        let rpc = RpcClient::start(stdin, stdout, kit.codex.line_limit, tasks);
        match shake_hands(&rpc).await {
            Ok(()) => {}
            Err(CallError::Closed(_)) => {
                // One that has only closed its pipe may never end by itself.
                drop(timeout(LAST_WORDS, process.exit()).await);
                let words = stderr_summary::summarize_stderr(&process.stderr());
                let words = if words.is_empty() { "it said nothing" } else { &words };
                return Err(format!("the app-server ended at its start: {words}"));
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(Self::of(rpc, Arc::clone(kit), Some(process), pid))
    }

    /// One that has shaken hands.
    pub(super) fn of(
        rpc: RpcClient,
        kit: Arc<WorkerSpec>,
        process: Option<ChildHandle>,
        pid: Option<u32>,
    ) -> Self {
        Self {
            rpc,
            kit,
            commands: None,
            born: Instant::now(),
            turns: AtomicU32::new(0),
            running: AtomicUsize::new(0),
            busy: Notify::new(),
            begun: Mutex::default(),
            retired: AtomicBool::new(false),
            late: AtomicBool::new(false),
            process: Mutex::new(process),
            pid,
            vitals: OnceLock::new(),
        }
    }

    /// Ends the process, whatever it is doing. Its turns are told.
    pub(super) fn dismiss(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.rpc.close();
        drop(self.process.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Ends when the worker does: by itself, or because it no longer answers.
    pub(super) async fn watch(&self) -> &'static str {
        tokio::select! {
            () = self.rpc.closed() => "it ended",
            () = self.stopped() => "it was stopped",
            why = self.silent() => why,
        }
    }

    /// Ends when somebody has stopped the process: it would never answer, and need not be asked.
    async fn stopped(&self) {
        let (mut ticks, mut heard) = (0, self.rpc.lines_received());
        while ticks < STOPPED_TICKS {
            if ticks == 0 {
                self.busy().await;
            }
            sleep(TICK).await;
            let now = self.rpc.lines_received();
            let silent = std::mem::replace(&mut heard, now) == now;
            let stopped = silent && self.vitals().is_some_and(platform::ProcessStats::is_stopped);
            ticks = if stopped { ticks + 1 } else { 0 };
            self.late.fetch_or(stopped, Ordering::Relaxed);
        }
    }

    /// Ends when the worker owes an answer for too long.
    async fn silent(&self) -> &'static str {
        loop {
            self.busy().await;
            sleep(PULSE).await;
            let pulse = self.rpc.ping();
            tokio::pin!(pulse);
            let (mut silent, mut deaf) = (0, 0);
            let mut heard = self.rpc.lines_received();
            loop {
                tokio::select! {
                    biased;
                    _answered_or_gone = &mut pulse => break,
                    () = sleep(TICK) => {}
                }
                let now = self.rpc.lines_received();
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

    /// Waits for turns, but not for long.
    async fn busy(&self) {
        // Made before the look, so that no turn is missed in between.
        let busy = self.busy.notified();
        if self.running.load(Ordering::Relaxed) == 0 {
            let _idle = timeout(IDLE, busy).await;
        }
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory that the process holds, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.vitals().map_or(0, platform::ProcessStats::memory)
    }

    /// Looked for until it is found: for want of open files it may not be there at first.
    fn vitals(&self) -> Option<&platform::ProcessStats> {
        if self.vitals.get().is_none()
            && let Some(found) = self.pid.and_then(platform::ProcessStats::open)
        {
            // Another one may have been quicker.
            let _ = self.vitals.set(found);
        }
        self.vitals.get()
    }
}

async fn shake_hands(rpc: &RpcClient) -> Result<(), CallError> {
    let version = env!("CARGO_PKG_VERSION");
    let params = Initialize {
        client_info: ClientInfo { name: "codex-api", title: "codex-api", version },
        capabilities: ClientCapabilities { experimental_api: true, opt_out_notification_methods: NOT_WANTED },
    };
    rpc.call(&params, CALL_LIMIT).await?;
    rpc.notify(INITIALIZED).await;
    Ok(())
}

/// A turn on a worker; dropped, the worker has one turn less.
#[derive(Debug)]
pub(super) struct WorkerLease(pub(super) Arc<Worker>, u32);

impl WorkerLease {
    pub(super) fn of(worker: &Arc<Worker>) -> Self {
        let number = worker.turns.fetch_add(1, Ordering::Relaxed);
        if worker.running.fetch_add(1, Ordering::Relaxed) == 0 {
            worker.busy.notify_waiters();
        }
        worker.begun().insert(number, platform::boot_ticks());
        Self(Arc::clone(worker), number)
    }

    /// Ends what commands of the turn, whose thread this is, have left behind.
    pub(super) async fn sweep(&self, thread: &str) {
        let Some(containment) = self.pid else { return };
        let others = || self.begun().iter().filter(|(number, _)| **number != self.1).map(|(_, at)| *at).min();
        command_reaper::end_commands(
            containment,
            self.vitals().map(platform::ProcessStats::pid),
            thread,
            others,
        )
        .await;
    }
}

impl std::ops::Deref for WorkerLease {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.0
    }
}

impl Drop for WorkerLease {
    fn drop(&mut self) {
        self.0.begun().remove(&self.1);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
