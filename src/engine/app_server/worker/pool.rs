//! The pool of workers. One task per slot spawns a worker, watches it, replaces it when it is lost or due, and lets a
//! replaced worker finish its turns. A worker with a former login gets no more turns.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Worker,
    error::StartError,
    lease::WorkerLease,
    state::{WorkerEvent, WorkerState},
};
use crate::{
    config::Workers,
    engine::cli::login::watch::{CurrentLogin, LoginMark, LoginWatch},
    error::Error,
    task::catch_panic,
};

/// Delay after a failed start. Doubled at each further failure, up to [`MAX_START_DELAY`].
const MIN_DELAY: Duration = Duration::from_millis(250);
const MAX_START_DELAY: Duration = Duration::from_secs(30);

/// Age from which a lost worker is replaced at once. A younger worker is replaced after a delay, because the cause may
/// kill the next worker too. The delay doubles up to [`MAX_RESTART_DELAY`].
const STABLE_AGE: Duration = Duration::from_secs(10);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(1);

/// Delay after a failed replacement of a worker with a former login, which gets no turns.
const LOGIN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Maximum time that a turn waits for a worker.
const LEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval of the checks whether a worker is due for replacement.
const DUE_INTERVAL: Duration = Duration::from_secs(1);

/// Spawns workers for a pool.
#[tonic::async_trait]
pub(crate) trait SpawnWorker: std::fmt::Debug + Send + Sync + 'static {
    /// Spawns a worker that is ready for turns. Dropping the future kills the process.
    async fn spawn(&self) -> Result<Worker, StartError>;

    /// Returns `true` if a new worker would run another program.
    fn is_outdated(&self, worker: &Worker) -> bool;
}

/// The last change of the pool.
#[derive(Debug)]
struct PoolStatus {
    /// The reason why the last start failed.
    start_error: Option<StartError>,
    /// The time of the last change.
    changed: Instant,
    /// The generation of the login for which the workers are or will be replaced.
    login: u64,
}

/// The limits of one slot's workers. All slots start together and get equally many turns. The limits differ between
/// slots, so that the workers are not replaced together.
#[derive(Debug, Clone, Copy)]
struct SlotLimits {
    max_turns: u32,
    max_age: Duration,
}

impl SlotLimits {
    /// Returns the configured limits for slot 0, and up to a tenth less for the others.
    fn new(config: &Workers, slot: usize) -> Self {
        let (slot, count) = (u32::try_from(slot).unwrap_or(0), u32::try_from(config.count).unwrap_or(1));
        let parts = count.saturating_mul(10).max(1);
        let less = |whole: u64| u64::from(slot) * (whole / u64::from(parts));
        Self {
            max_turns: config.max_turns - u32::try_from(less(config.max_turns.into())).unwrap_or(0),
            max_age: config.max_age - config.max_age / parts * slot,
        }
    }
}

/// The reason why a worker is due for replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Turns,
    Age,
    Memory,
    Outdated,
    Login,
}

impl Due {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Turns => "CODEX_WORKER_MAX_TURNS is reached",
            Self::Age => "CODEX_WORKER_MAX_SECONDS is reached",
            Self::Memory => "CODEX_WORKER_MAX_MEMORY_MB is reached",
            Self::Outdated => "the Codex CLI was replaced",
            Self::Login => "account or key of the login changed",
        }
    }
}

/// The place where a turn may run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextPlace {
    /// The worker has the same account and reads its new tokens (0.169).
    SameThread,
    /// The worker keeps the former account or key.
    OtherWorker,
}

/// The pool of workers.
#[derive(Debug)]
pub(crate) struct Pool {
    config: Workers,
    spawner: Arc<dyn SpawnWorker>,
    login: Arc<LoginWatch>,
    ready: RwLock<Vec<Arc<Worker>>>,
    status: watch::Sender<PoolStatus>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Held while a slot spawns the successor of a worker that is due.
    replacing: Mutex<()>,
}

impl Pool {
    /// Starts the tasks of all slots. Slot 0 starts with `first`.
    pub(crate) fn start(
        first: Worker,
        config: Workers,
        spawner: Arc<dyn SpawnWorker>,
        login: Arc<LoginWatch>,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let status =
            PoolStatus { start_error: None, changed: Instant::now(), login: login.current().generation };
        let pool = Arc::new(Self {
            spawner,
            login,
            ready: RwLock::default(),
            status: watch::Sender::new(status),
            stop: CancellationToken::new(),
            replacing: Mutex::default(),
            tasks: tasks.clone(),
            config,
        });
        let mut first = Some(first);
        for slot in 0..pool.config.count {
            let limits = SlotLimits::new(&pool.config, slot);
            tasks.spawn(Arc::clone(&pool).run_slot(limits, first.take()));
        }
        pool
    }

    /// Claims the ready worker with the fewest turns. Waits up to [`LEASE_TIMEOUT`] for a ready worker.
    ///
    /// # Errors
    ///
    /// [`Error::Draining`] if the pool is closed, [`Error::EngineUnavailable`] if no worker is ready in time or there is
    /// no login. Cancel safe.
    pub(crate) async fn lease(&self) -> Result<WorkerLease, Error> {
        let login = self.login.settled().await;
        if let Some(problem) = login.problem {
            return Err(Error::EngineUnavailable { message: problem.with_remedy() });
        }
        let mut status = self.status.subscribe();
        let leased = tokio::time::timeout(LEASE_TIMEOUT, async {
            loop {
                status.borrow_and_update();
                if let Some(lease) = self.try_lease() {
                    return Some(lease);
                }
                if self.stop.is_cancelled() || status.changed().await.is_err() {
                    return None;
                }
            }
        });
        match leased.await {
            Ok(Some(lease)) => Ok(lease),
            Ok(None) => Err(Error::Draining),
            Err(_) => Err(Error::EngineUnavailable {
                message: self.unavailable_reason().unwrap_or_else(|| "no app-server is ready".to_owned()),
            }),
        }
    }

    fn try_lease(&self) -> Option<WorkerLease> {
        let login = self.current_login();
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        let best = ready
            .iter()
            .filter(|worker| worker.has_login(&login))
            .map(|worker| (worker, worker.state()))
            .filter(|(_, state)| state.accepts_turns())
            .min_by_key(|(worker, state)| (*state == WorkerState::Slow, worker.leases.running()));
        best.map(|(worker, _)| WorkerLease::new(worker))
    }

    /// Claims the worker of a kept thread. Returns `None` if the worker gets no more turns, does not answer as usual, or has
    /// a former login.
    pub(crate) fn lease_of(&self, worker: &Arc<Worker>) -> Option<WorkerLease> {
        let login = self.current_login();
        let is_fit =
            login.problem.is_none() && worker.has_login(&login) && worker.state() == WorkerState::Ready;
        is_fit.then(|| WorkerLease::new(worker))
    }

    /// Returns the login of new workers. After a change, wakes the slots and the waiting turns.
    fn current_login(&self) -> CurrentLogin {
        let login = self.login.current();
        self.status.send_if_modified(|status| {
            let is_new = status.login != login.generation;
            if is_new {
                *status = PoolStatus { start_error: None, changed: Instant::now(), login: login.generation };
            }
            is_new
        });
        login
    }

    /// Returns a mark of the login of a turn that starts now.
    pub(crate) fn login_mark(&self) -> LoginMark {
        self.login.mark()
    }

    /// Records whether the upstream accepted the login of a turn. Also notices a login that changed meanwhile.
    pub(crate) fn report_login(&self, mark: &LoginMark, accepted: bool) {
        if accepted {
            self.login.accept();
        } else {
            self.login.refuse(mark);
            drop(self.current_login());
        }
    }

    /// Returns where a turn that started at `mark` may run again after the upstream refused its login. Returns `None` if
    /// the login has not changed since or cannot be used.
    pub(crate) async fn place_after_refusal(
        &self,
        mark: &LoginMark,
        lease: &WorkerLease,
    ) -> Option<NextPlace> {
        let login = self.login.changed_since(mark).await;
        drop(self.current_login());
        let is_same = |login: CurrentLogin| lease.has_login(&login) && lease.state() != WorkerState::Closed;
        login.map(|login| if is_same(login) { NextPlace::SameThread } else { NextPlace::OtherWorker })
    }

    /// Records that every attempt of a turn was refused.
    pub(crate) fn exhaust_login(&self) {
        self.login.exhaust();
    }

    /// Returns the reason why no worker is ready, or `None` if a worker is ready. Also returns `None` shortly after the
    /// loss of the last worker or a change of the login, because turns wait for the successor.
    pub(crate) fn unavailable_reason(&self) -> Option<String> {
        let login = self.current_login();
        if let Some(problem) = &login.problem {
            return Some(problem.with_remedy());
        }
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        if ready.iter().any(|worker| worker.state() != WorkerState::Closed && worker.has_login(&login)) {
            return None;
        }
        drop(ready);
        let status = self.status.borrow();
        let starting =
            || (status.changed.elapsed() >= LEASE_TIMEOUT).then(|| "the app-server is starting".to_owned());
        status.start_error.as_ref().map(ToString::to_string).or_else(starting)
    }

    /// Kills all workers and ends the tasks of all slots.
    pub(crate) fn close(&self) {
        self.stop.cancel();
        self.publish(|ready| ready.clear(), None);
    }

    /// Keeps one slot filled until the pool is closed.
    async fn run_slot(self: Arc<Self>, limits: SlotLimits, mut first: Option<Worker>) {
        let (mut start_delay, mut restart_delay) = (MIN_DELAY, MIN_DELAY);
        while !self.stop.is_cancelled() {
            let worker = match first.take() {
                Some(worker) => worker,
                None => match self.spawn().await {
                    None => return,
                    Some(Ok(worker)) => worker,
                    Some(Err(error)) => {
                        tracing::error!(
                            error = error.detail(),
                            delay_ms = start_delay.as_millis(),
                            "worker failed to start"
                        );
                        self.publish(|_| {}, Some(error));
                        tokio::select! {
                            () = self.delay_within_login(start_delay) => {}
                            () = self.stop.cancelled() => {}
                        }
                        start_delay = (start_delay * 2).min(MAX_START_DELAY);
                        continue;
                    }
                },
            };
            start_delay = MIN_DELAY;
            let mut worker = Arc::new(worker);
            self.publish(|ready| ready.push(Arc::clone(&worker)), None);
            while let Some(successor) = self.run_worker(limits, &worker).await {
                worker = successor;
            }
            if worker.started.elapsed() >= STABLE_AGE {
                restart_delay = MIN_DELAY;
                continue;
            }
            self.delay(restart_delay).await;
            restart_delay = (restart_delay * 2).min(MAX_RESTART_DELAY);
        }
    }

    /// Watches a worker until it leaves its slot. Returns its successor, or `None` if the worker was lost or the pool
    /// is closed.
    async fn run_worker(&self, limits: SlotLimits, worker: &Arc<Worker>) -> Option<Arc<Worker>> {
        let watched = catch_panic("worker slot", async {
            tokio::select! {
                reason = worker.watch() => {
                    tracing::warn!(%reason, turns = worker.leases.running(), "worker was lost");
                    None
                }
                () = self.stop.cancelled() => None,
                successor = self.successor(limits, worker) => Some(successor),
            }
        });
        // Without a watch, the worker would get turns although it may be lost.
        let Some(successor) = watched.await.flatten() else {
            self.publish(|ready| ready.retain(|other| !Arc::ptr_eq(other, worker)), None);
            worker.kill();
            return None;
        };
        let successor = Arc::new(successor);
        worker.apply(WorkerEvent::Replaced);
        let change = |ready: &mut Vec<Arc<Worker>>| {
            ready.retain(|other| !Arc::ptr_eq(other, worker));
            ready.push(Arc::clone(&successor));
        };
        self.publish(change, None);
        self.drain(Arc::clone(worker));
        Some(successor)
    }

    /// Waits until `worker` is due and returns its successor. `worker` gets turns until the successor is ready.
    async fn successor(&self, limits: SlotLimits, worker: &Worker) -> Worker {
        loop {
            self.delay_within_login(DUE_INTERVAL).await;
            let Some(due) = self.due(limits, worker) else { continue };
            // Workers that are due together are replaced one by one. Otherwise the number of processes would double.
            let replacing = self.replacing.lock().await;
            let spawned = self.spawn().await;
            drop(replacing);
            match spawned {
                None => std::future::pending().await,
                Some(Ok(successor)) => {
                    tracing::info!(reason = due.as_str(), "worker was replaced");
                    return successor;
                }
                Some(Err(error)) => {
                    tracing::warn!(
                        error = error.detail(),
                        reason = due.as_str(),
                        "worker cannot be replaced yet"
                    );
                    if due == Due::Login {
                        self.publish(|_| {}, Some(error));
                        self.delay_within_login(LOGIN_RETRY_DELAY).await;
                    } else {
                        self.delay_within_login(MAX_START_DELAY).await;
                    }
                }
            }
        }
    }

    /// Kills a retired worker when its turns have ended.
    fn drain(&self, retired: Arc<Worker>) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let drained = async {
                while retired.leases.running() > 0 {
                    sleep(DUE_INTERVAL).await;
                }
            };
            let ended = catch_panic("retired worker", async {
                tokio::select! {
                    () = drained => {}
                    _lost = retired.watch() => {}
                    () = stop.cancelled() => {}
                }
            });
            ended.await;
            retired.kill();
        });
    }

    /// Spawns a worker. Returns `None` if the pool is closed.
    async fn spawn(&self) -> Option<Result<Worker, StartError>> {
        tokio::select! {
            worker = catch_panic("worker start", self.spawner.spawn()) => {
                Some(worker.unwrap_or(Err(StartError::Panicked)))
            }
            () = self.stop.cancelled() => None,
        }
    }

    async fn delay(&self, delay: Duration) {
        tokio::select! {
            () = sleep(delay) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Waits for `delay`, at most until the login changes.
    async fn delay_within_login(&self, delay: Duration) {
        let mut status = self.status.subscribe();
        let generation = self.status.borrow().login;
        tokio::select! {
            () = sleep(delay) => {}
            _changed = status.wait_for(|status| status.login != generation) => {}
        }
    }

    fn due(&self, limits: SlotLimits, worker: &Worker) -> Option<Due> {
        let login = self.current_login();
        if login.problem.is_none() && !worker.has_login(&login) {
            Some(Due::Login)
        } else if worker.leases.total() >= limits.max_turns {
            Some(Due::Turns)
        } else if worker.started.elapsed() >= limits.max_age {
            Some(Due::Age)
        } else if worker.memory() >= self.config.max_memory_bytes {
            Some(Due::Memory)
        } else if self.spawner.is_outdated(worker) {
            Some(Due::Outdated)
        } else {
            None
        }
    }

    /// Changes the ready workers and wakes the turns that wait for a worker.
    fn publish(&self, change: impl FnOnce(&mut Vec<Arc<Worker>>), start_error: Option<StartError>) {
        change(&mut self.ready.write().unwrap_or_else(PoisonError::into_inner));
        self.status.send_modify(|status| {
            status.start_error = start_error;
            status.changed = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests;
