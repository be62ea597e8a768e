//! Workers: `codex app-server` processes. This module starts one, completes its handshake, watches it and kills it. The
//! [`pool`] assigns turns to workers and replaces them.

pub(crate) mod account_limits;
pub(crate) mod command_reaper;
pub(crate) mod error;
pub(crate) mod factory;
mod health;
pub(crate) mod lease;
pub(crate) mod model_list;
pub(crate) mod pool;
pub(crate) mod spec;
mod state;

use std::{
    borrow::Cow,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use self::{
    error::StartError,
    health::{Health, PingTicks, StoppedTicks, TICK},
    lease::LeaseCounter,
    spec::WorkerSpec,
    state::{WorkerEvent, WorkerState},
};
use super::{
    capabilities::ProbeSubject,
    launch::seed::CLIENT_NAME,
    rpc::{
        client::RpcClient,
        dispatch::{CallError, CloseReason},
        protocol::{ClientCapabilities, ClientInfo, INITIALIZED, Initialize},
    },
};
use crate::engine::{
    RateLimits, TurnGuard,
    cli::login::{Identity, watch::CurrentLogin},
    process::{ChildHandle, Launcher, SpawnSpec, Started, platform, stderr_summary},
};

/// Time limit of one call. The slowest call takes about 20 ms on an idle machine.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// Maximum time for a worker to exit and print the reason after a failed handshake.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval of the checks of a worker without turns. A check costs processor time in both processes.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);

/// Interval of the pings to a worker with turns.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Notifications that a worker must not send, because no code reads them.
const UNUSED_NOTIFICATIONS: &[&str] = &[
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

/// A worker whose handshake has completed.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) rpc: RpcClient,
    /// The spec that the worker was started with.
    pub(crate) spec: Arc<WorkerSpec>,
    /// The parent of the temporary directories of the worker's turns.
    pub(crate) commands_dir: Option<PathBuf>,
    /// The folder of the worker's seeds. `None` for a worker without a home.
    pub(crate) seeds_dir: Option<PathBuf>,
    /// The login that the process found at its start.
    login: Option<Identity>,
    /// The limits of its account.
    pub(crate) rate_limits: Arc<RateLimits>,
    started: Instant,
    leases: LeaseCounter,
    state: Mutex<WorkerState>,
    process: Mutex<Option<ChildHandle>>,
    /// The PID of the supervisor.
    pid: Option<u32>,
    stats: OnceLock<platform::ProcessStats>,
}

impl Worker {
    /// Spawns a process and completes the handshake. Dropping the future kills the process.
    async fn start(
        launch: SpawnSpec,
        launcher: &Launcher,
        spec: &Arc<WorkerSpec>,
        rate_limits: Arc<RateLimits>,
        tasks: &TaskTracker,
    ) -> Result<Self, StartError> {
        let started = launcher.start(launch, TurnGuard::new(()))?;
        let Started { stdin: Some(stdin), stdout, mut process } = started else {
            return Err(StartError::NoPipe);
        };
        let pid = process.supervisor_pid();
        let limits = Arc::clone(&rate_limits);
        let rpc = RpcClient::start(stdin, stdout, spec.codex.line_limit, limits, tasks);
        match handshake(&rpc).await {
            Ok(()) => {}
            Err(CallError::Closed(_)) => {
                // A process that only closed its pipe may never exit.
                drop(timeout(EXIT_TIMEOUT, process.exit()).await);
                return Err(StartError::Exited {
                    stderr: stderr_summary::summarize_stderr(&process.stderr()),
                });
            }
            Err(error) => return Err(error.into()),
        }
        let mut worker = Self::new(rpc, Arc::clone(spec), Some(process), pid);
        worker.rate_limits = rate_limits;
        Ok(worker)
    }

    fn new(rpc: RpcClient, spec: Arc<WorkerSpec>, process: Option<ChildHandle>, pid: Option<u32>) -> Self {
        Self {
            rpc,
            spec,
            commands_dir: None,
            seeds_dir: None,
            login: None,
            rate_limits: Arc::default(),
            started: Instant::now(),
            leases: LeaseCounter::default(),
            state: Mutex::new(WorkerState::Ready),
            process: Mutex::new(process),
            pid,
            stats: OnceLock::new(),
        }
    }

    /// Returns the worker as the subject of a probe.
    pub(crate) fn probe_subject(&self) -> ProbeSubject<'_> {
        ProbeSubject {
            client: &self.rpc,
            codex: &self.spec.codex,
            installed: &self.spec.installed,
            seeds_dir: self.seeds_dir.as_deref().filter(|_| self.spec.codex.prompt_cache_keys),
        }
    }

    /// Kills the process and closes the connection. The worker's turns get `ThreadMessage::Closed`.
    pub(crate) fn kill(&self) {
        self.apply(WorkerEvent::Closed);
        self.rpc.close();
        drop(self.process.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Returns `true` unless turns need another login than this worker has.
    fn has_login(&self, login: &CurrentLogin) -> bool {
        login.identity.is_none() || self.login == login.identity
    }

    /// Returns the current state.
    fn state(&self) -> WorkerState {
        if self.rpc.is_closed() {
            return WorkerState::Closed;
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, event: WorkerEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.after(event);
    }

    /// Completes when the connection closed, or when the process was stopped by a signal or no longer answers. Returns the
    /// reason, which follows the name of the process.
    async fn watch(&self) -> Cow<'static, str> {
        tokio::select! {
            reason = self.rpc.closed() => reason.to_string().into(),
            () = self.stopped() => "a signal stopped it".into(),
            () = self.unresponsive() => CloseReason::NoAnswer.to_string().into(),
        }
    }

    /// Completes when a signal has stopped the process. This check waits for no answer, so it completes sooner than
    /// [`Worker::unresponsive`].
    async fn stopped(&self) {
        let mut ticks = StoppedTicks::new(self.rpc.lines_received());
        loop {
            if ticks.is_clear() {
                self.wait_for_turns().await;
            }
            sleep(TICK).await;
            let is_stopped = || self.process_stats().is_some_and(platform::ProcessStats::is_stopped);
            match ticks.tick(self.rpc.lines_received(), is_stopped) {
                Health::Ok => {}
                Health::Slow => self.apply(WorkerEvent::Delayed),
                Health::Lost => return,
            }
        }
    }

    /// Completes when a ping stays unanswered for too long.
    async fn unresponsive(&self) {
        loop {
            self.wait_for_turns().await;
            sleep(PING_INTERVAL).await;
            let ping = self.rpc.ping();
            tokio::pin!(ping);
            let mut ticks = PingTicks::new(self.rpc.lines_received());
            loop {
                tokio::select! {
                    biased;
                    _answered_or_closed = &mut ping => break,
                    () = sleep(TICK) => {}
                }
                match ticks.tick(self.rpc.lines_received()) {
                    Health::Ok => {}
                    Health::Slow => self.apply(WorkerEvent::Delayed),
                    Health::Lost => return,
                }
            }
            self.apply(WorkerEvent::Answered);
        }
    }

    /// Waits until the worker has a turn, at most [`IDLE_INTERVAL`].
    async fn wait_for_turns(&self) {
        // Created before the check, so that a turn that starts in between is not missed.
        let first_started = self.leases.first_started();
        if self.leases.running() == 0 {
            let _idle = timeout(IDLE_INTERVAL, first_started).await;
        }
    }

    /// Returns the resident memory of the process in bytes.
    fn memory(&self) -> u64 {
        self.process_stats().map_or(0, platform::ProcessStats::memory)
    }

    /// Returns the statistics of the process. Each call retries a failed open, because open files may be scarce.
    fn process_stats(&self) -> Option<&platform::ProcessStats> {
        if self.stats.get().is_none()
            && let Some(found) = self.pid.and_then(platform::ProcessStats::open)
        {
            // Another task may have set the statistics meanwhile.
            let _ = self.stats.set(found);
        }
        self.stats.get()
    }
}

async fn handshake(rpc: &RpcClient) -> Result<(), CallError> {
    let version = env!("CARGO_PKG_VERSION");
    let params = Initialize {
        client_info: ClientInfo { name: CLIENT_NAME, title: CLIENT_NAME, version },
        capabilities: ClientCapabilities {
            experimental_api: true,
            opt_out_notification_methods: UNUSED_NOTIFICATIONS,
        },
    };
    rpc.call(&params, CALL_LIMIT).await?;
    rpc.notify(INITIALIZED).await;
    Ok(())
}

#[cfg(test)]
mod tests;
