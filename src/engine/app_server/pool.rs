//! The workers: each seat is kept filled by a task of its own, which starts a worker, watches it, replaces it when it
//! dies, stops answering or is due, and lets it finish its turns before it goes.

use std::{
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::worker::{Lease, Worker};
use crate::{config::Workers, error::Error};

/// Pause after a start that failed, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long a turn waits for a worker when none is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a worker is due.
const ROUND: Duration = Duration::from_secs(1);

/// Makes workers.
#[tonic::async_trait]
pub(super) trait Nursery: std::fmt::Debug + Send + Sync + 'static {
    /// Starts one, ready for turns.
    async fn worker(&self) -> Result<Worker, String>;
}

/// All seats.
#[derive(Debug)]
pub(super) struct Pool {
    rules: Workers,
    nursery: Arc<dyn Nursery>,
    ready: RwLock<Vec<Arc<Worker>>>,
    /// Counts changes of `ready`, and holds why the last start failed.
    news: watch::Sender<(u64, Option<String>)>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Pool {
    /// Fills the seats, the first one with a worker that is there already.
    pub(super) fn start(
        first: Worker,
        rules: Workers,
        nursery: Arc<dyn Nursery>,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            nursery,
            ready: RwLock::default(),
            news: watch::Sender::new((0, None)),
            stop: CancellationToken::new(),
            tasks: tasks.clone(),
            rules,
        });
        let mut first = Some(first);
        for _ in 0..pool.rules.count {
            let keeper = Arc::clone(&pool);
            let first = first.take();
            tasks.spawn(async move { keeper.keep_seat(first).await });
        }
        pool
    }

    /// The worker with the fewest turns. Waits a while if there is none.
    pub(super) async fn lease(&self) -> Result<Lease, Error> {
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

    fn try_lease(&self) -> Option<Lease> {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        let best = ready
            .iter()
            .filter(|worker| !worker.retired.load(Ordering::Relaxed) && !worker.peer.is_gone())
            .min_by_key(|worker| worker.running.load(Ordering::Relaxed))?;
        Some(Lease::of(best))
    }

    /// Why there is no worker, if there is none.
    pub(super) fn trouble(&self) -> Option<String> {
        if !self.ready.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return None;
        }
        let why = self.news.borrow().1.clone();
        Some(why.unwrap_or_else(|| "the app-server is starting".to_owned()))
    }

    /// Sends all workers away.
    pub(super) fn close(&self) {
        self.stop.cancel();
        self.publish(|ready| ready.clear(), None);
    }

    async fn keep_seat(self: Arc<Self>, mut next: Option<Worker>) {
        let mut pause = FIRST_PAUSE;
        while !self.stop.is_cancelled() {
            let worker = match next.take() {
                Some(worker) => worker,
                None => match self.hire().await {
                    Ok(worker) => worker,
                    Err(why) => {
                        tracing::error!(%why, pause_ms = pause.as_millis(), "an app-server does not start");
                        self.publish(|_| {}, Some(why));
                        self.rest(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                },
            };
            pause = FIRST_PAUSE;
            let worker = Arc::new(worker);
            self.publish(|ready| ready.push(Arc::clone(&worker)), None);
            next = self.serve(&worker).await;
        }
    }

    /// Sees one worker to its end; gives its successor, where it was replaced in good order.
    async fn serve(&self, worker: &Arc<Worker>) -> Option<Worker> {
        let due = async {
            loop {
                sleep(ROUND).await;
                if let Some(why) = self.due(worker) {
                    return why;
                }
            }
        };
        let why = tokio::select! {
            why = worker.watch() => {
                tracing::warn!(why, turns = worker.running.load(Ordering::Relaxed), "an app-server is lost");
                self.dismiss(worker);
                return None;
            }
            () = self.stop.cancelled() => {
                self.dismiss(worker);
                return None;
            }
            why = due => why,
        };
        // The successor first, so that no turn has to wait for it.
        let successor = match self.hire().await {
            Ok(successor) => successor,
            Err(error) => {
                tracing::warn!(%error, "an app-server that is due cannot be replaced yet");
                self.rest(LONGEST_PAUSE).await;
                return self.again(worker).await;
            }
        };
        tracing::info!(why, "an app-server is replaced");
        worker.retired.store(true, Ordering::Relaxed);
        self.publish(|ready| ready.retain(|other| !Arc::ptr_eq(other, worker)), None);
        let old = Arc::clone(worker);
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
        Some(successor)
    }

    async fn again(&self, worker: &Arc<Worker>) -> Option<Worker> {
        Box::pin(self.serve(worker)).await
    }

    async fn hire(&self) -> Result<Worker, String> {
        tokio::select! {
            worker = self.nursery.worker() => worker,
            () = self.stop.cancelled() => Err("the server is shutting down".to_owned()),
        }
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn due(&self, worker: &Worker) -> Option<&'static str> {
        if worker.turns.load(Ordering::Relaxed) >= self.rules.max_turns {
            Some("it has run its number of turns")
        } else if worker.born.elapsed() >= self.rules.max_age {
            Some("it is old")
        } else if worker.memory() >= self.rules.max_memory_bytes {
            Some("it holds too much memory")
        } else {
            None
        }
    }

    fn dismiss(&self, worker: &Arc<Worker>) {
        self.publish(|ready| ready.retain(|other| !Arc::ptr_eq(other, worker)), None);
        worker.dismiss();
    }

    fn publish(&self, change: impl FnOnce(&mut Vec<Arc<Worker>>), why: Option<String>) {
        change(&mut self.ready.write().unwrap_or_else(PoisonError::into_inner));
        self.news.send_modify(|(count, last)| {
            *count += 1;
            *last = why;
        });
    }
}
