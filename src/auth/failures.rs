//! Counts the requests without a valid token per peer, and slows their refusals, so that tokens cannot be guessed
//! quickly and the log shows who tries.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::context::peer::network_of;

/// Delay of a refusal per earlier refusal of the same peer.
const DELAY_STEP: Duration = Duration::from_millis(20);

/// Maximum delay of a refusal.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// Time without refusals after which a peer is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// Maximum number of counted peers.
const MAX_PEERS: usize = 4096;

/// The refused requests of each peer.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<IpAddr, Entry>>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    count: u32,
    last: Instant,
}

impl Failures {
    /// Counts a refused request of a peer. Returns the delay of its refusal, which depends on the count alone.
    pub(super) fn record(&self, peer: IpAddr) -> Duration {
        let count = self.count(network_of(peer), Instant::now());
        // One line for each power of ten, so that guesses do not fill the log.
        if count >= 10 && 10_u32.checked_pow(count.ilog10()) == Some(count) {
            tracing::warn!(%peer, count, "requests without a valid token");
        }
        DELAY_STEP.saturating_mul(count).min(MAX_DELAY)
    }

    fn count(&self, network: IpAddr, now: Instant) -> u32 {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&network) {
            peers.retain(|_, entry| now.duration_since(entry.last) < FORGET_AFTER);
            // The peer with the fewest refusals gains the least from being forgotten.
            let fewest = peers.iter().min_by_key(|(_, entry)| (entry.count, entry.last));
            if peers.len() >= MAX_PEERS
                && let Some(fewest) = fewest.map(|(network, _)| *network)
            {
                peers.remove(&fewest);
            }
        }
        let entry = peers.entry(network).or_insert(Entry { count: 0, last: now });
        if now.duration_since(entry.last) >= FORGET_AFTER {
            entry.count = 0;
        }
        *entry = Entry { count: entry.count.saturating_add(1), last: now };
        entry.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[tokio::test(start_paused = true)]
    async fn record_delays_each_peer_by_its_own_refusals() {
        let failures = Failures::default();
        let delays: Vec<_> = (0..60).map(|_| failures.record(peer(1))).collect();
        assert_eq!((delays[0], delays[1], delays[59]), (DELAY_STEP, DELAY_STEP * 2, MAX_DELAY));
        assert!(delays.is_sorted());
        assert_eq!(failures.record(peer(2)), DELAY_STEP);
        // A host of IPv6 has many addresses.
        let [one, other] = ["2001:db8::1", "2001:db8::2:2"].map(|text| text.parse().unwrap());
        assert_eq!((failures.record(one), failures.record(other)), (DELAY_STEP, DELAY_STEP * 2));
        tokio::time::advance(FORGET_AFTER).await;
        assert_eq!(failures.record(peer(1)), DELAY_STEP);
    }

    #[tokio::test(start_paused = true)]
    async fn record_of_many_peers_keeps_the_busiest() {
        let failures = Failures::default();
        failures.record(peer(0));
        failures.record(peer(0));
        for number in 1..3 * u32::try_from(MAX_PEERS).unwrap() {
            failures.record(peer(number));
        }
        assert_eq!(failures.0.lock().unwrap().len(), MAX_PEERS);
        assert_eq!(failures.record(peer(0)), DELAY_STEP * 3);
    }
}
