//! Who may run now: a bounded number of running turns, a bounded number of waiting ones, a refusal at once beyond.
//! The permit is free when the work is gone, so it travels with the turn; this file only counts.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// The gate before the engine.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    /// A place for every turn that runs or waits.
    places: ResizableSemaphore,
    /// A slot for every turn that runs.
    slots: ResizableSemaphore,
    max_running: Arc<AtomicUsize>,
    max_waiting: usize,
    resizing: Arc<Mutex<()>>,
    /// Smoothed length of a turn, for an honest `Retry-After`.
    typical_ms: Arc<AtomicU64>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct QueueTicket {
    admission: Admission,
    place: ResizablePermit,
}

/// A slot. Dropping it lets the next turn in.
#[derive(Debug)]
pub(super) struct RunPermit {
    typical_ms: Arc<AtomicU64>,
    since: Instant,
    _place: ResizablePermit,
    _slot: ResizablePermit,
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) running: usize,
    pub(super) waiting: usize,
}

impl Admission {
    /// A gate for `max_running` turns and a queue of `max_waiting`.
    pub(super) fn new(max_running: usize, max_waiting: usize) -> Self {
        Self {
            places: ResizableSemaphore::new(max_running + max_waiting),
            slots: ResizableSemaphore::new(max_running),
            max_running: Arc::new(AtomicUsize::new(max_running)),
            max_waiting,
            resizing: Arc::default(),
            typical_ms: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Lets so many turns run from now on. Who runs already, runs on.
    pub(super) fn resize(&self, max_running: usize) {
        if self.max_running() == max_running {
            return;
        }
        let _one_at_a_time = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.max_running.swap(max_running, Ordering::Relaxed);
        for room in [&self.places, &self.slots] {
            room.grow(max_running.saturating_sub(before));
            room.shrink(before.saturating_sub(max_running));
        }
    }

    /// Refuses everybody from now on, those who wait included. Who runs, runs on.
    pub(super) fn close(&self) {
        self.places.free.close();
        self.slots.free.close();
    }

    /// Places for `count` turns, all or none, at once or never.
    pub(super) fn enter(&self, count: u32) -> Result<Vec<QueueTicket>, Error> {
        if self.places.free.is_closed() {
            return Err(Error::Draining);
        }
        let mut all = Arc::clone(&self.places.free).try_acquire_many_owned(count).map_err(|_| self.full())?;
        let mut tickets = Vec::new();
        while let Some(place) = all.split(1) {
            tickets.push(QueueTicket { admission: self.clone(), place: self.places.taken(place) });
        }
        Ok(tickets)
    }

    pub(super) fn load(&self) -> Load {
        let running = self.slots.used(self.max_running());
        let entered = self.places.used(self.capacity());
        Load { running, waiting: entered.saturating_sub(running) }
    }

    /// Turns that can be here at once, running and waiting.
    pub(super) fn capacity(&self) -> usize {
        self.max_running() + self.max_waiting
    }

    pub(super) fn limits(&self) -> Load {
        Load { running: self.max_running(), waiting: self.max_waiting }
    }

    fn max_running(&self) -> usize {
        self.max_running.load(Ordering::Relaxed)
    }

    fn full(&self) -> Error {
        Error::Overloaded {
            message: format!(
                "the server is busy: {} turns run and {} wait; try again later",
                self.max_running(),
                self.max_waiting
            ),
            retry_after: self.retry_after(),
        }
    }

    /// When a slot is likely to be free.
    fn retry_after(&self) -> Duration {
        let typical = Duration::from_millis(self.typical_ms.load(Ordering::Relaxed));
        let per_slot = typical / u32::try_from(self.max_running()).unwrap_or(u32::MAX);
        per_slot.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }
}

impl QueueTicket {
    /// Waits for a slot, first come, first served.
    pub(super) async fn slot(self, deadline: tokio::time::Instant) -> Result<RunPermit, Error> {
        let Self { admission, place } = self;
        let waited =
            tokio::time::timeout_at(deadline, Arc::clone(&admission.slots.free).acquire_owned()).await;
        let slot = match waited {
            Ok(Ok(slot)) => admission.slots.taken(slot),
            Ok(Err(_closed)) => return Err(Error::Draining),
            Err(_elapsed) => {
                return Err(Error::Overloaded {
                    message: "the request's time was over before a slot was free; try again later".to_owned(),
                    retry_after: admission.retry_after(),
                });
            }
        };
        Ok(RunPermit { typical_ms: admission.typical_ms, since: Instant::now(), _place: place, _slot: slot })
    }
}

impl Drop for RunPermit {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let before = self.typical_ms.load(Ordering::Relaxed);
        // A lost update of two turns that end together does not matter.
        self.typical_ms.store(before - before / 8 + took / 8, Ordering::Relaxed);
    }
}

/// Permits whose number can change.
#[derive(Debug, Clone)]
struct ResizableSemaphore {
    free: Arc<Semaphore>,
    /// Those in use that are not to come back.
    owed: Arc<AtomicUsize>,
}

/// A permit of it. Dropping it gives it back.
#[derive(Debug)]
struct ResizablePermit {
    permit: Option<OwnedSemaphorePermit>,
    owed: Arc<AtomicUsize>,
}

impl ResizableSemaphore {
    fn new(size: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(size)), owed: Arc::default() }
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> ResizablePermit {
        ResizablePermit { permit: Some(permit), owed: Arc::clone(&self.owed) }
    }

    fn used(&self, size: usize) -> usize {
        (size + self.owed.load(Ordering::Relaxed)).saturating_sub(self.free.available_permits())
    }

    fn grow(&self, count: usize) {
        let new = (0..count).filter(|_| !pay(&self.owed)).count();
        self.free.add_permits(new);
    }

    fn shrink(&self, count: usize) {
        let gone = self.free.forget_permits(count);
        self.owed.fetch_add(count - gone, Ordering::Relaxed);
    }
}

impl Drop for ResizablePermit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && pay(&self.owed)
        {
            permit.forget();
        }
    }
}

/// Takes one off a debt; false if there is none.
fn pay(owed: &AtomicUsize) -> bool {
    owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| owed.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn slots_then_places_then_a_refusal() {
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
    async fn who_waits_too_long_is_told_to_come_back() {
        let admission = Admission::new(1, 1);
        let mut tickets = admission.enter(2).unwrap();
        let _permit = tickets.remove(0).slot(soon()).await.unwrap();
        let error = tickets.remove(0).slot(soon()).await.unwrap_err();
        assert_eq!(error.reason(), "OVERLOADED");
        assert_eq!(admission.load(), Load { running: 1, waiting: 0 });
    }

    #[tokio::test]
    async fn closing_refuses_those_who_come_and_those_who_wait() {
        let admission = Admission::new(1, 1);
        let mut tickets = admission.enter(2).unwrap();
        let _permit = tickets.remove(0).slot(soon()).await.unwrap();
        let waiting = tickets.remove(0).slot(soon());
        admission.close();
        assert_eq!(waiting.await.unwrap_err().reason(), "SHUTTING_DOWN");
        assert_eq!(admission.enter(1).unwrap_err().reason(), "SHUTTING_DOWN");
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_slots_can_change_while_they_are_used() {
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
        // Fewer than run: nobody is let in before enough of them are gone.
        admission.resize(1);
        assert_eq!(admission.load(), Load { running: 4, waiting: 0 });
        assert_eq!(admission.enter(1).unwrap_err().reason(), "OVERLOADED");
        permits.truncate(1);
        assert_eq!(admission.load(), Load { running: 1, waiting: 0 });
        let next = admission.enter(1).unwrap().remove(0).slot(soon());
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        // What is owed is paid before there is more.
        admission.resize(2);
        permits.push(next.await.unwrap());
        admission.resize(1);
        admission.resize(2);
        assert_eq!(admission.load(), Load { running: 2, waiting: 0 });
        drop(permits);
        assert_eq!(admission.load(), Load { running: 0, waiting: 0 });
        assert_eq!(
            (admission.slots.free.available_permits(), admission.places.free.available_permits()),
            (2, 3)
        );
    }
}
