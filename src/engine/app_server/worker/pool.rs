//! The workers: each seat is kept filled by a task of its own, which starts a worker, watches it, replaces it when it
//! dies, stops answering or is due, and lets it finish its turns before it goes.

use std::{
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Worker, WorkerLease};
use crate::{config::Workers, error::Error};

/// Pause after a start that failed, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A worker that lives so long was well. One that dies sooner is replaced after a pause, doubled each time: what killed
/// it may kill the next one too.
const WELL: Duration = Duration::from_secs(10);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long a turn waits for a worker when none is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a worker is due.
const ROUND: Duration = Duration::from_secs(1);

/// Makes workers.
#[tonic::async_trait]
pub(crate) trait SpawnWorker: std::fmt::Debug + Send + Sync + 'static {
    /// Starts one, ready for turns.
    async fn worker(&self) -> Result<Worker, String>;

    /// Whether a new one would be of another kind.
    fn is_stale(&self, worker: &Worker) -> bool;
}

/// What has become of the seats.
#[derive(Debug)]
struct PoolStatus {
    /// Why the last start failed.
    trouble: Option<String>,
    /// When a worker was last seen coming or going.
    changed: Instant,
}

/// One seat: how long its workers stay. All begin together and get as many turns, but they are not to go together.
#[derive(Debug, Clone, Copy)]
struct SlotLimits {
    max_turns: u32,
    max_age: Duration,
}

impl SlotLimits {
    /// The first one has the whole of what the rules allow, the others up to a tenth less.
    fn new(rules: &Workers, number: usize) -> Self {
        let (number, count) = (u32::try_from(number).unwrap_or(0), u32::try_from(rules.count).unwrap_or(1));
        let parts = count.saturating_mul(10).max(1);
        let less = |whole: u64| u64::from(number) * (whole / u64::from(parts));
        Self {
            max_turns: rules.max_turns - u32::try_from(less(rules.max_turns.into())).unwrap_or(0),
            max_age: rules.max_age - rules.max_age / parts * number,
        }
    }
}

/// All seats.
#[derive(Debug)]
pub(crate) struct Pool {
    rules: Workers,
    nursery: Arc<dyn SpawnWorker>,
    ready: RwLock<Vec<Arc<Worker>>>,
    news: watch::Sender<PoolStatus>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Held by who starts the successor of a worker that is due.
    replacing: Mutex<()>,
}

impl Pool {
    /// Fills the seats, the first one with a worker that is there already.
    pub(crate) fn start(
        first: Worker,
        rules: Workers,
        nursery: Arc<dyn SpawnWorker>,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            nursery,
            ready: RwLock::default(),
            news: watch::Sender::new(PoolStatus { trouble: None, changed: Instant::now() }),
            stop: CancellationToken::new(),
            replacing: Mutex::default(),
            tasks: tasks.clone(),
            rules,
        });
        let mut first = Some(first);
        for number in 0..pool.rules.count {
            let keeper = Arc::clone(&pool);
            let first = first.take();
            let seat = SlotLimits::new(&pool.rules, number);
            tasks.spawn(async move { keeper.keep_seat(seat, first).await });
        }
        pool
    }

    /// The worker with the fewest turns. Waits a while if there is none.
    pub(crate) async fn lease(&self) -> Result<WorkerLease, Error> {
        let mut news = self.news.subscribe();
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                news.borrow_and_update();
                if let Some(lease) = self.try_lease() {
                    return Some(lease);
                }
                if self.stop.is_cancelled() || news.changed().await.is_err() {
                    return None;
                }
            }
        });
        match waited.await {
            Ok(Some(lease)) => Ok(lease),
            Ok(None) => Err(Error::Draining),
            Err(_) => Err(Error::EngineUnavailable {
                message: self.trouble().unwrap_or_else(|| "no app-server is ready".to_owned()),
            }),
        }
    }

    fn try_lease(&self) -> Option<WorkerLease> {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        let best = ready
            .iter()
            .filter(|worker| !worker.retired.load(Ordering::Relaxed) && !worker.rpc.is_closed())
            .min_by_key(|worker| {
                (worker.late.load(Ordering::Relaxed), worker.running.load(Ordering::Relaxed))
            })?;
        Some(WorkerLease::of(best))
    }

    /// Why there is no worker, if there is none. That one was lost just now is no trouble: turns wait for the next.
    pub(crate) fn trouble(&self) -> Option<String> {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        if ready.iter().any(|worker| !worker.rpc.is_closed()) {
            return None;
        }
        drop(ready);
        let news = self.news.borrow();
        let starting =
            || (news.changed.elapsed() >= PATIENCE).then(|| "the app-server is starting".to_owned());
        news.trouble.clone().or_else(starting)
    }

    /// Sends all workers away.
    pub(crate) fn close(&self) {
        self.stop.cancel();
        self.publish(|ready| ready.clear(), None);
    }

    async fn keep_seat(self: Arc<Self>, seat: SlotLimits, mut first: Option<Worker>) {
        let (mut pause, mut rest) = (FIRST_PAUSE, FIRST_PAUSE);
        while !self.stop.is_cancelled() {
            let worker = match first.take() {
                Some(worker) => worker,
                None => match self.hire().await {
                    None => return,
                    Some(Ok(worker)) => worker,
                    Some(Err(why)) => {
                        tracing::error!(%why, pause_ms = pause.as_millis(), "an app-server does not start");
                        self.publish(|_| {}, Some(why));
                        self.rest(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                },
            };
            pause = FIRST_PAUSE;
            let mut worker = Arc::new(worker);
            self.publish(|ready| ready.push(Arc::clone(&worker)), None);
            // One after the other, as long as each is replaced in good order.
            while let Some(successor) = self.serve(&seat, &worker).await {
                worker = successor;
            }
            if worker.born.elapsed() >= WELL {
                rest = FIRST_PAUSE;
                continue;
            }
            self.rest(rest).await;
            rest = (rest * 2).min(LONGEST_REST);
        }
    }

    /// Sees one worker to its end; gives its successor, where it was replaced in good order.
    async fn serve(&self, seat: &SlotLimits, worker: &Arc<Worker>) -> Option<Arc<Worker>> {
        let successor = tokio::select! {
            why = worker.watch() => {
                tracing::warn!(why, turns = worker.running.load(Ordering::Relaxed), "an app-server is lost");
                None
            }
            () = self.stop.cancelled() => None,
            successor = self.successor(seat, worker) => Some(successor),
        };
        let Some(successor) = successor else {
            self.publish(|ready| ready.retain(|other| !Arc::ptr_eq(other, worker)), None);
            worker.dismiss();
            return None;
        };
        let successor = Arc::new(successor);
        worker.retired.store(true, Ordering::Relaxed);
        let change = |ready: &mut Vec<Arc<Worker>>| {
            ready.retain(|other| !Arc::ptr_eq(other, worker));
            ready.push(Arc::clone(&successor));
        };
        self.publish(change, None);
        self.see_off(Arc::clone(worker));
        Some(successor)
    }

    /// Waits until a worker is due, and starts the next one first, so that no turn has to wait for it.
    async fn successor(&self, seat: &SlotLimits, worker: &Worker) -> Worker {
        loop {
            sleep(ROUND).await;
            let Some(why) = self.due(seat, worker) else { continue };
            // Those that are due together go one after the other, or there were twice the processes for a while.
            let turn = self.replacing.lock().await;
            let hired = self.hire().await;
            drop(turn);
            match hired {
                None => std::future::pending().await,
                Some(Ok(successor)) => {
                    tracing::info!(why, "an app-server is replaced");
                    return successor;
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "an app-server that is due cannot be replaced yet");
                    self.rest(LONGEST_PAUSE).await;
                }
            }
        }
    }

    /// Lets a retired worker finish its turns.
    fn see_off(&self, old: Arc<Worker>) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let finished = async {
                while old.running.load(Ordering::Relaxed) > 0 {
                    sleep(ROUND).await;
                }
            };
            tokio::select! {
                () = finished => {}
                _ = old.watch() => {}
                () = stop.cancelled() => {}
            }
            old.dismiss();
        });
    }

    /// None if none is wanted any more.
    async fn hire(&self) -> Option<Result<Worker, String>> {
        tokio::select! {
            worker = self.nursery.worker() => Some(worker),
            () = self.stop.cancelled() => None,
        }
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn due(&self, seat: &SlotLimits, worker: &Worker) -> Option<&'static str> {
        if worker.turns.load(Ordering::Relaxed) >= seat.max_turns {
            Some("it has run its number of turns")
        } else if worker.born.elapsed() >= seat.max_age {
            Some("it is old")
        } else if worker.memory() >= self.rules.max_memory_bytes {
            Some("it holds too much memory")
        } else if self.nursery.is_stale(worker) {
            Some("the Codex CLI is another one")
        } else {
            None
        }
    }

    fn publish(&self, change: impl FnOnce(&mut Vec<Arc<Worker>>), why: Option<String>) {
        change(&mut self.ready.write().unwrap_or_else(PoisonError::into_inner));
        self.news.send_replace(PoolStatus { trouble: why, changed: Instant::now() });
    }
}

#[cfg(test)]
mod tests;
