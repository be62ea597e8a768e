//! The rate of requests of one peer. A client that opens and resets streams as fast as it can costs the server time that all
//! peers share, and no limit of open connections or streams stops it. Above the rate, the connections of the peer are
//! read later.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Number of requests that a peer may send at once. A burst of expired deadlines behind a proxy has some thousands.
const BURST: u32 = 4096;

/// The rate of one peer, shared by its connections.
#[derive(Debug)]
pub(crate) struct RequestRate {
    /// Time for one request. `None` for no limit.
    interval: Option<Duration>,
    /// Time at which the peer has used no more than its rate.
    settled_at: Mutex<Instant>,
}

impl RequestRate {
    /// Allows `per_second` requests in the long run, and any number if it is zero.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(per_second);
        Self { interval, settled_at: Mutex::new(Instant::now()) }
    }

    /// Counts a request.
    pub(crate) fn count(&self) {
        let Some(interval) = self.interval else { return };
        let mut settled_at = self.settled_at();
        *settled_at = (*settled_at).max(Instant::now()) + interval;
    }

    /// Returns the time at which the peer may be read again, unless it may be read now.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        let burst = self.interval? * BURST;
        let until = self.settled_at().checked_sub(burst)?;
        (until > Instant::now()).then_some(until)
    }

    /// Returns `true` if the peer has used no more than its rate.
    pub(crate) fn is_settled(&self) -> bool {
        self.interval.is_none() || *self.settled_at() <= Instant::now()
    }

    fn settled_at(&self) -> MutexGuard<'_, Instant> {
        self.settled_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paused_until_allows_a_burst_and_then_the_rate() {
        let rate = RequestRate::new(1000);
        for _ in 0..BURST {
            assert_eq!(rate.paused_until(), None);
            rate.count();
        }
        assert!(rate.paused_until().is_none() && !rate.is_settled());
        (0..500).for_each(|_| rate.count());
        assert_eq!(rate.paused_until(), Some(Instant::now() + Duration::from_millis(500)));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(rate.paused_until(), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(rate.is_settled());
    }

    #[tokio::test]
    async fn rate_of_zero_is_no_limit() {
        let rate = RequestRate::new(0);
        (0..3 * BURST).for_each(|_| rate.count());
        assert!(rate.paused_until().is_none() && rate.is_settled());
    }
}
