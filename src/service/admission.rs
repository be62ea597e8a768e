//! Who may run now: a bounded number of running turns, a bounded number of waiting ones, a refusal at once beyond.
//! The permit is free when the work is gone, so it travels with the turn; this file only counts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// The gate before the engine.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    /// A place for every turn that runs or waits.
    places: Arc<Semaphore>,
    /// A slot for every turn that runs.
    slots: Arc<Semaphore>,
    max_running: usize,
    max_waiting: usize,
    /// Smoothed length of a turn, for an honest `Retry-After`.
    typical_ms: Arc<AtomicU64>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    admission: Admission,
    place: OwnedSemaphorePermit,
}

/// A slot. Dropping it lets the next turn in.
#[derive(Debug)]
pub(super) struct Permit {
    typical_ms: Arc<AtomicU64>,
    since: Instant,
    _place: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
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
            places: Arc::new(Semaphore::new(max_running + max_waiting)),
            slots: Arc::new(Semaphore::new(max_running)),
            max_running,
            max_waiting,
            typical_ms: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Refuses everybody from now on, those who wait included. Who runs, runs on.
    pub(super) fn close(&self) {
        self.places.close();
        self.slots.close();
    }

    /// Places for `count` turns, all or none, at once or never.
    pub(super) fn enter(&self, count: u32) -> Result<Vec<Ticket>, Error> {
        if self.places.is_closed() {
            return Err(Error::Draining);
        }
        let mut all = Arc::clone(&self.places).try_acquire_many_owned(count).map_err(|_| self.full())?;
        let mut tickets = Vec::new();
        while let Some(place) = all.split(1) {
            tickets.push(Ticket { admission: self.clone(), place });
        }
        Ok(tickets)
    }

    pub(super) fn load(&self) -> Load {
        let running = self.max_running - self.slots.available_permits().min(self.max_running);
        let entered = self.capacity() - self.places.available_permits().min(self.capacity());
        Load { running, waiting: entered.saturating_sub(running) }
    }

    /// Turns that can be here at once, running and waiting.
    pub(super) fn capacity(&self) -> usize {
        self.max_running + self.max_waiting
    }

    pub(super) fn limits(&self) -> Load {
        Load { running: self.max_running, waiting: self.max_waiting }
    }

    fn full(&self) -> Error {
        Error::Overloaded {
            message: format!(
                "the server is busy: {} turns run and {} wait; try again later",
                self.max_running, self.max_waiting
            ),
            retry_after: self.retry_after(),
        }
    }

    /// When a slot is likely to be free.
    fn retry_after(&self) -> Duration {
        let typical = Duration::from_millis(self.typical_ms.load(Ordering::Relaxed));
        let per_slot = typical / u32::try_from(self.max_running).unwrap_or(u32::MAX);
        per_slot.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }
}

impl Ticket {
    /// Waits for a slot, first come, first served.
    pub(super) async fn slot(self, deadline: tokio::time::Instant) -> Result<Permit, Error> {
        let Self { admission, place } = self;
        let waited = tokio::time::timeout_at(deadline, Arc::clone(&admission.slots).acquire_owned()).await;
        let slot = match waited {
            Ok(Ok(slot)) => slot,
            Ok(Err(_closed)) => return Err(Error::Draining),
            Err(_elapsed) => {
                return Err(Error::Overloaded {
                    message: "the request's time was over before a slot was free; try again later".to_owned(),
                    retry_after: admission.retry_after(),
                });
            }
        };
        Ok(Permit { typical_ms: admission.typical_ms, since: Instant::now(), _place: place, _slot: slot })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let before = self.typical_ms.load(Ordering::Relaxed);
        // A lost update of two turns that end together does not matter.
        self.typical_ms.store(before - before / 8 + took / 8, Ordering::Relaxed);
    }
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
}
