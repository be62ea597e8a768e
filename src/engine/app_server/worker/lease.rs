//! The claim of one turn on a worker.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, futures::Notified};

use super::{Worker, command_reaper};
use crate::engine::process::platform;

/// A claim of one turn on a worker. The claim ends when the lease is dropped.
#[derive(Debug)]
pub(crate) struct WorkerLease {
    pub(super) worker: Arc<Worker>,
    number: u32,
}

impl WorkerLease {
    /// Claims a worker in any state.
    pub(crate) fn new(worker: &Arc<Worker>) -> Self {
        let number = worker.leases.start();
        Self { worker: Arc::clone(worker), number }
    }

    /// Returns the worker, which outlives the claim.
    pub(crate) const fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Kills the commands that the turn left behind. `thread` is the turn's thread.
    pub(crate) async fn reap_commands(&self, thread: &str) {
        let Some(supervisor) = self.worker.pid else { return };
        let oldest_other = || self.worker.leases.oldest_except(self.number);
        let worker = self.worker.process_stats().map(platform::ProcessStats::pid);
        command_reaper::reap_commands(supervisor, worker, thread, oldest_other).await;
    }
}

impl Deref for WorkerLease {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl Drop for WorkerLease {
    fn drop(&mut self) {
        self.worker.leases.end(self.number);
    }
}

/// The leases of one worker.
#[derive(Debug, Default)]
pub(super) struct LeaseCounter {
    total: AtomicU32,
    running: AtomicUsize,
    /// Notified when the first of the running leases starts.
    first_started: Notify,
    /// The start of each running lease, in the kernel's ticks since boot.
    starts: Mutex<BTreeMap<u32, u64>>,
}

impl LeaseCounter {
    /// Returns the number of leases so far.
    pub(super) fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Returns the number of running leases.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Completes when a lease starts while no other is running.
    pub(super) fn first_started(&self) -> Notified<'_> {
        self.first_started.notified()
    }

    fn start(&self) -> u32 {
        let number = self.total.fetch_add(1, Ordering::Relaxed);
        if self.running.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first_started.notify_waiters();
        }
        self.starts().insert(number, platform::boot_ticks());
        number
    }

    fn end(&self, number: u32) {
        self.starts().remove(&number);
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the start of the oldest running lease other than `number`.
    fn oldest_except(&self, number: u32) -> Option<u64> {
        self.starts().iter().filter(|(other, _)| **other != number).map(|(_, start)| *start).min()
    }

    fn starts(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
