//! Limits concurrent turns. A bounded number runs, a bounded number waits, and further turns are refused at once.
//! The engine holds the permit of a turn until the turn's processes have exited, so the permit moves with the turn.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::error::Error;

/// Admits turns to the engine. Owned by the service; clones share the counts.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    /// One permit for each turn that runs or waits.
    entries: ResizableSemaphore,
    /// One permit for each turn that runs.
    slots: ResizableSemaphore,
    max_running: Arc<AtomicUsize>,
    max_waiting: usize,
    resize_lock: Arc<Mutex<()>>,
    /// Duration of a turn, for `Retry-After`.
    average: Arc<Mutex<Average>>,
}

/// Average duration of a turn.
#[derive(Debug)]
struct Average {
    duration: Duration,
    /// Number of averaged turns, at most [`Average::MAX_TURNS`].
    turns: u32,
}

impl Average {
    /// Older turns count less beyond this number.
    const MAX_TURNS: u32 = 8;

    /// Counts as one turn before any was measured. A turn of a coding agent takes seconds to minutes.
    const ASSUMED: Self = Self { duration: Duration::from_secs(10), turns: 1 };

    fn add(&mut self, turn: Duration) {
        self.turns = (self.turns + 1).min(Self::MAX_TURNS);
        let former = self.duration * (self.turns - 1) / self.turns;
        self.duration = former + turn / self.turns;
    }
}

/// Bounds of `Retry-After`. The official SDKs ignore a delay above one minute.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// An entry of one turn, which may wait for a slot. Dropping it frees the entry.
#[derive(Debug)]
pub(super) struct QueueTicket {
    admission: Admission,
    entry: ResizablePermit,
}

/// The slot of a running turn. Dropping it starts the next turn that waits.
#[derive(Debug)]
pub(super) struct RunPermit {
    average: Arc<Mutex<Average>>,
    since: Instant,
    _entry: ResizablePermit,
    _slot: ResizablePermit,
}

/// Numbers of turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) running: usize,
    pub(super) waiting: usize,
}

impl Admission {
    /// Admits `max_running` running turns and `max_waiting` waiting turns.
    pub(super) fn new(max_running: usize, max_waiting: usize) -> Self {
        Self {
            entries: ResizableSemaphore::new(max_running + max_waiting),
            slots: ResizableSemaphore::new(max_running),
            max_running: Arc::new(AtomicUsize::new(max_running)),
            max_waiting,
            resize_lock: Arc::default(),
            average: Arc::new(Mutex::new(Average::ASSUMED)),
        }
    }

    /// Sets the number of turns that may run. Running turns are not interrupted.
    pub(super) fn resize(&self, max_running: usize) {
        if self.max_running() == max_running {
            return;
        }
        let _guard = self.resize_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.max_running.swap(max_running, Ordering::Relaxed);
        for semaphore in [&self.entries, &self.slots] {
            semaphore.grow(max_running.saturating_sub(before));
            semaphore.shrink(before.saturating_sub(max_running));
        }
    }

    /// Refuses new and waiting turns from now on. Running turns are not interrupted.
    pub(super) fn close(&self) {
        self.entries.free.close();
        self.slots.free.close();
    }

    /// Returns entries for `count` turns, all or none, without waiting. Fails if they exceed the free entries.
    pub(super) fn enter(&self, count: u32) -> Result<Vec<QueueTicket>, Error> {
        if self.entries.free.is_closed() {
            return Err(Error::Draining);
        }
        let mut all =
            Arc::clone(&self.entries.free).try_acquire_many_owned(count).map_err(|_| self.full())?;
        let mut tickets = Vec::new();
        while let Some(permit) = all.split(1) {
            tickets.push(QueueTicket { admission: self.clone(), entry: self.entries.wrap(permit) });
        }
        Ok(tickets)
    }

    /// Returns the current numbers of turns.
    pub(super) fn load(&self) -> Load {
        let running = self.slots.used(self.max_running());
        let entered = self.entries.used(self.capacity());
        Load { running, waiting: entered.saturating_sub(running) }
    }

    /// Returns the maximum number of running and waiting turns together.
    pub(super) fn capacity(&self) -> usize {
        self.max_running() + self.max_waiting
    }

    /// Returns the maximum numbers of turns.
    pub(super) fn limits(&self) -> Load {
        Load { running: self.max_running(), waiting: self.max_waiting }
    }

    fn max_running(&self) -> usize {
        self.max_running.load(Ordering::Relaxed)
    }

    fn full(&self) -> Error {
        Error::Overloaded {
            message: format!(
                "the server is busy: its limits of {} running and {} waiting turns are reached; try again later",
                self.max_running(),
                self.max_waiting
            ),
            retry_after: self.retry_after(),
        }
    }

    /// Estimates when the turns that wait now have a slot and the next one is free.
    fn retry_after(&self) -> Duration {
        let average = self.average.lock().unwrap_or_else(PoisonError::into_inner).duration;
        let count = |turns: usize| u32::try_from(turns).unwrap_or(u32::MAX);
        let per_slot = average / count(self.max_running().max(1));
        let turns_before = count(self.load().waiting).saturating_add(1);
        per_slot.saturating_mul(turns_before).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER)
    }
}

impl QueueTicket {
    /// Waits for a slot, in the order of arrival. Fails at the deadline or when admission closes.
    pub(super) async fn slot(self, deadline: Instant) -> Result<RunPermit, Error> {
        let Self { admission, entry } = self;
        let waited =
            tokio::time::timeout_at(deadline, Arc::clone(&admission.slots.free).acquire_owned()).await;
        let slot = match waited {
            Ok(Ok(slot)) => admission.slots.wrap(slot),
            Ok(Err(_closed)) => return Err(Error::Draining),
            Err(_elapsed) => {
                return Err(Error::Overloaded {
                    message: "the deadline expired while the request was queued; try again later".to_owned(),
                    retry_after: admission.retry_after(),
                });
            }
        };
        Ok(RunPermit { average: admission.average, since: Instant::now(), _entry: entry, _slot: slot })
    }
}

impl Drop for RunPermit {
    fn drop(&mut self) {
        self.average.lock().unwrap_or_else(PoisonError::into_inner).add(self.since.elapsed());
    }
}

/// A semaphore whose number of permits can change.
#[derive(Debug, Clone)]
struct ResizableSemaphore {
    free: Arc<Semaphore>,
    /// Permits in use that are discarded instead of released.
    debt: Arc<AtomicUsize>,
}

/// A permit. Dropping it releases it, or pays the debt.
#[derive(Debug)]
struct ResizablePermit {
    permit: Option<OwnedSemaphorePermit>,
    debt: Arc<AtomicUsize>,
}

impl ResizableSemaphore {
    fn new(size: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(size)), debt: Arc::default() }
    }

    fn wrap(&self, permit: OwnedSemaphorePermit) -> ResizablePermit {
        ResizablePermit { permit: Some(permit), debt: Arc::clone(&self.debt) }
    }

    fn used(&self, size: usize) -> usize {
        (size + self.debt.load(Ordering::Relaxed)).saturating_sub(self.free.available_permits())
    }

    fn grow(&self, count: usize) {
        let added = (0..count).filter(|_| !consume_debt(&self.debt)).count();
        self.free.add_permits(added);
    }

    fn shrink(&self, count: usize) {
        let removed = self.free.forget_permits(count);
        self.debt.fetch_add(count - removed, Ordering::Relaxed);
    }
}

impl Drop for ResizablePermit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && consume_debt(&self.debt)
        {
            permit.forget();
        }
    }
}

/// Decrements a debt. Returns `false` if no debt was left.
fn consume_debt(debt: &AtomicUsize) -> bool {
    debt.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |debt| debt.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn admission_beyond_slots_and_queue_refuses() {
        let admission = Admission::new(1, 2);
        let mut tickets = admission.enter(3).unwrap();
        assert_eq!(admission.enter(1).unwrap_err().reason(), "OVERLOADED");
        let permit = tickets.remove(0).slot(soon()).await.unwrap();
        assert_eq!(admission.load(), Load { running: 1, waiting: 2 });
        drop(tickets.remove(0));
        assert_eq!(admission.load(), Load { running: 1, waiting: 1 });
        let waiting = tickets.remove(0).slot(soon());
        drop(permit);
        let permit = waiting.await.unwrap();
        assert_eq!(admission.load(), Load { running: 1, waiting: 0 });
        drop(permit);
        assert_eq!(admission.load(), Load { running: 0, waiting: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn queue_ticket_after_the_deadline_is_overloaded() {
        let admission = Admission::new(1, 1);
        let mut tickets = admission.enter(2).unwrap();
        let _permit = tickets.remove(0).slot(soon()).await.unwrap();
        let error = tickets.remove(0).slot(soon()).await.unwrap_err();
        assert_eq!(error.reason(), "OVERLOADED");
        assert_eq!(admission.load(), Load { running: 1, waiting: 0 });
    }

    /// Returns the delay of a refusal.
    fn refused(admission: &Admission) -> Duration {
        let error = admission.enter(1).unwrap_err();
        let Error::Overloaded { retry_after, .. } = error else { panic!("{error}") };
        retry_after
    }

    #[tokio::test(start_paused = true)]
    async fn admission_retry_after_follows_the_turns_and_the_queue() {
        for (running, waiting, seconds) in
            [(1, 0, 10.0), (2, 0, 5.0), (2, 3, 20.0), (1, 32, 60.0), (20, 0, 1.0)]
        {
            let admission = Admission::new(running, waiting);
            let mut permits = Vec::new();
            let mut tickets = admission.enter(u32::try_from(running + waiting).unwrap()).unwrap();
            for ticket in tickets.drain(..running) {
                permits.push(ticket.slot(soon()).await.unwrap());
            }
            let delay = refused(&admission);
            assert_eq!(delay.as_secs_f64(), seconds, "{running} running, {waiting} waiting, none measured");
        }
        // The assumption counts as one turn, so that neither one short nor one long turn decides.
        let admission = Admission::new(1, 0);
        let permit = admission.enter(1).unwrap().remove(0).slot(soon()).await.unwrap();
        tokio::time::advance(Duration::from_secs(40)).await;
        drop(permit);
        let permit = admission.enter(1).unwrap().remove(0).slot(soon()).await.unwrap();
        assert_eq!(refused(&admission).as_secs(), 25);
        drop(permit);
        for _ in 0..60 {
            let permit = admission.enter(1).unwrap().remove(0).slot(soon()).await.unwrap();
            tokio::time::advance(Duration::from_secs(4)).await;
            drop(permit);
        }
        let _permit = admission.enter(1).unwrap().remove(0).slot(soon()).await.unwrap();
        assert_eq!(refused(&admission).as_millis().div_ceil(100), 41, "later turns replace the assumption");
    }

    #[tokio::test]
    async fn admission_closed_refuses_new_and_waiting_turns() {
        let admission = Admission::new(1, 1);
        let mut tickets = admission.enter(2).unwrap();
        let _permit = tickets.remove(0).slot(soon()).await.unwrap();
        let waiting = tickets.remove(0).slot(soon());
        admission.close();
        assert_eq!(waiting.await.unwrap_err().reason(), "SHUTTING_DOWN");
        assert_eq!(admission.enter(1).unwrap_err().reason(), "SHUTTING_DOWN");
    }

    #[tokio::test(start_paused = true)]
    async fn admission_resize_with_running_turns_keeps_them() {
        let admission = Admission::new(2, 1);
        let mut permits = Vec::new();
        for ticket in admission.enter(2).unwrap() {
            permits.push(ticket.slot(soon()).await.unwrap());
        }
        admission.resize(4);
        assert_eq!((admission.capacity(), admission.load()), (5, Load { running: 2, waiting: 0 }));
        for ticket in admission.enter(2).unwrap() {
            permits.push(ticket.slot(soon()).await.unwrap());
        }
        // The limit is below the running turns, so no turn is admitted before enough turns end.
        admission.resize(1);
        assert_eq!(admission.load(), Load { running: 4, waiting: 0 });
        assert_eq!(admission.enter(1).unwrap_err().reason(), "OVERLOADED");
        permits.truncate(1);
        assert_eq!(admission.load(), Load { running: 1, waiting: 0 });
        let next = admission.enter(1).unwrap().remove(0).slot(soon());
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        // The debt is paid before new permits are added.
        admission.resize(2);
        permits.push(next.await.unwrap());
        admission.resize(1);
        admission.resize(2);
        assert_eq!(admission.load(), Load { running: 2, waiting: 0 });
        drop(permits);
        assert_eq!(admission.load(), Load { running: 0, waiting: 0 });
        assert_eq!(
            (admission.slots.free.available_permits(), admission.entries.free.available_permits()),
            (2, 3)
        );
    }

    /// A reproducible sequence of numbers (xorshift).
    struct Seeded(u64);

    impl Seeded {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
        }

        async fn yield_some(&mut self) {
            for _ in 0..self.below(4) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// One thread runs all tasks in an order that depends on the seed. Turns end, are cancelled and are refused while the
    /// limit changes. At the end every permit is released.
    #[tokio::test]
    async fn admission_resize_under_many_tasks_loses_no_permit() {
        for seed in 1..=50 {
            let admission = Admission::new(3, 4);
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..40 {
                let (admission, mut seeded) = (admission.clone(), Seeded(seed * 1000 + task));
                tasks.spawn(async move {
                    for _ in 0..10 {
                        seeded.yield_some().await;
                        if task < 4 {
                            admission.resize(1 + seeded.below(6));
                            continue;
                        }
                        let count = u32::try_from(1 + seeded.below(2)).unwrap();
                        for ticket in admission.enter(count).unwrap_or_default() {
                            if seeded.below(4) == 0 {
                                continue;
                            }
                            let permit = ticket.slot(soon()).await.unwrap();
                            let load = admission.load();
                            assert!((1..=6).contains(&load.running), "seed {seed}: {load:?}");
                            seeded.yield_some().await;
                            drop(permit);
                        }
                    }
                });
            }
            while let Some(result) = tasks.join_next().await {
                result.unwrap();
            }
            assert_eq!(admission.load(), Load { running: 0, waiting: 0 }, "seed {seed}");
            let limit = admission.max_running();
            let free =
                [&admission.slots, &admission.entries].map(|semaphore| semaphore.free.available_permits());
            assert_eq!(free, [limit, limit + 4], "seed {seed}");
            assert!(
                [&admission.slots, &admission.entries].iter().all(|s| s.debt.load(Ordering::Relaxed) == 0)
            );
        }
    }
}
