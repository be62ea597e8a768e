//! The activity of a connection, shared by its socket and its requests. By it, the limits of time, the drain and the
//! eviction distinguish active from idle connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::context::peer::HealthWatches;

/// Activity of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionActivity {
    opened: Instant,
    requests: AtomicUsize,
    watches: HealthWatches,
    has_served: AtomicBool,
    io_count: AtomicUsize,
    write_pending: AtomicBool,
    /// Milliseconds from `opened` to the end of the last request.
    unused_since: AtomicU64,
    /// Milliseconds from `opened` to the first byte of an incomplete request head, plus one. 0 if there is none.
    head_since: AtomicU64,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A request is in progress.
    Busy,
    /// Bytes of a request head arrive since this time.
    Head(Instant),
    /// No request is in progress since this time.
    Unused(Instant),
}

/// Counts as a request in progress until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<ConnectionActivity>);

impl Default for ConnectionActivity {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            requests: AtomicUsize::new(0),
            watches: HealthWatches::default(),
            has_served: AtomicBool::new(false),
            io_count: AtomicUsize::new(0),
            write_pending: AtomicBool::new(false),
            unused_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
        }
    }
}

impl ConnectionActivity {
    /// Counts a request until the returned guard is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Relaxed);
        self.has_served.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Counts a completed read or write.
    pub(crate) fn count_io(&self) {
        self.io_count.fetch_add(1, Relaxed);
    }

    /// Notes that bytes were read. Outside of a request they belong to the head of the next one.
    pub(crate) fn note_read(&self) {
        if self.requests.load(Relaxed) == 0 {
            let now = self.elapsed_ms().saturating_add(1);
            // Only the first byte of a head counts. A head that is complete already keeps its value.
            let _ = self.head_since.compare_exchange(0, now, Relaxed, Relaxed);
        }
    }

    /// Notes whether bytes wait to be sent.
    pub(crate) fn set_write_pending(&self, pending: bool) {
        self.write_pending.store(pending, Relaxed);
    }

    /// Returns the number of completed reads and writes.
    pub(crate) fn io_count(&self) -> usize {
        self.io_count.load(Relaxed)
    }

    /// Returns `true` if no request but health watches is in progress and no byte waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Relaxed) <= self.watches.open() && !self.write_pending.load(Relaxed)
    }

    /// Returns `true` if a request has begun on the connection.
    pub(crate) fn has_served(&self) -> bool {
        self.has_served.load(Relaxed)
    }

    /// Returns the count of health watches, for the requests of this connection.
    pub(crate) fn watches(&self) -> &HealthWatches {
        &self.watches
    }

    /// Returns the time of the end of the last request, or of the connection's beginning.
    pub(crate) fn unused_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.unused_since.load(Relaxed))
    }

    /// Returns what the connection does.
    pub(crate) fn current_use(&self) -> Use {
        if self.requests.load(Relaxed) > 0 || self.write_pending.load(Relaxed) {
            return Use::Busy;
        }
        match self.head_since.load(Relaxed).checked_sub(1) {
            Some(since) => Use::Head(self.opened + Duration::from_millis(since)),
            None => Use::Unused(self.unused_since()),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.unused_since.store(self.0.elapsed_ms(), Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn current_use_follows_heads_and_requests() {
        let activity = Arc::new(ConnectionActivity::default());
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(activity.current_use(), Use::Unused(begin));
        tokio::time::advance(second).await;
        activity.note_read();
        tokio::time::advance(second).await;
        activity.note_read();
        assert_eq!(activity.current_use(), Use::Head(begin + second));
        let request = activity.begin_request();
        activity.note_read();
        assert_eq!(activity.current_use(), Use::Busy);
        assert!(!activity.is_idle());
        tokio::time::advance(second).await;
        drop(request);
        assert_eq!(activity.current_use(), Use::Unused(begin + 3 * second));
        assert!(activity.is_idle() && activity.has_served());
    }

    #[test]
    fn connection_with_only_health_watches_is_idle_but_busy() {
        let activity = Arc::new(ConnectionActivity::default());
        let _request = activity.begin_request();
        let watch = activity.watches().begin();
        assert!(watch.is_some() && activity.is_idle());
        assert_eq!(activity.current_use(), Use::Busy);
        let _other = activity.begin_request();
        assert!(!activity.is_idle());
    }
}
