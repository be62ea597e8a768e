//! The seats of a listener: the number of open connections in all and per peer, and which connection gives its seat to
//! a newcomer when there is none left. A silent or idle peer must not lock out others, nor the health checks.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{activity::ConnectionActivity, request_rate::RequestRate};
use crate::context::peer::network_of;

/// Time without a request after which a connection may lose its seat. The head of a new client is on its way.
const MIN_UNUSED: Duration = Duration::from_millis(200);

/// The seats of one listener.
#[derive(Debug)]
pub(crate) struct Seats {
    max: usize,
    max_per_peer: usize,
    /// Maximum number of requests per second of a peer; zero for no limit.
    max_request_rate: u32,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    taken: HashMap<u64, Taken>,
    peers: HashMap<IpAddr, Peer>,
    /// Number of connections that have lost their seats and are still closing.
    closing: usize,
}

/// The connections of one peer. Kept without connections until its rate is settled.
#[derive(Debug)]
struct Peer {
    connections: usize,
    rate: Arc<RequestRate>,
}

#[derive(Debug)]
struct Taken {
    network: IpAddr,
    activity: Arc<ConnectionActivity>,
    evicted: CancellationToken,
}

/// A seat, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    id: u64,
    seats: Arc<Seats>,
    /// The activity of the connection.
    pub(crate) activity: Arc<ConnectionActivity>,
    /// The rate of requests of the peer.
    pub(crate) rate: Arc<RequestRate>,
    /// Cancelled when the connection must give its seat to another.
    pub(crate) evicted: CancellationToken,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// All seats are taken by active connections.
    Full,
    /// The peer has as many active connections as it may have.
    PeerFull,
}

/// Returns the number of connections without a seat that a listener holds besides `max` others: those that wait for a
/// seat, and those that have lost theirs.
pub(crate) fn spare(max: usize) -> usize {
    max / 8 + 8
}

impl Seats {
    pub(crate) fn new(max: usize, max_per_peer: usize, max_request_rate: u32) -> Self {
        let max_per_peer = max_per_peer.min(max);
        Self { max, max_per_peer, max_request_rate, table: Mutex::default(), freed: Notify::new() }
    }

    /// Takes a seat for a connection of `peer`, if necessary from an unused connection.
    pub(crate) fn try_take(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, NoSeat> {
        let network = network_of(peer);
        let mut table = self.table();
        let of_peer = table.connections_of(network);
        let evicted = if self.max_per_peer < self.max && of_peer >= self.max_per_peer {
            Some(self.evict(&mut table, Some(network)).ok_or(NoSeat::PeerFull)?)
        } else if table.taken.len() >= self.max {
            Some(self.evict(&mut table, None).ok_or(NoSeat::Full)?)
        } else {
            None
        };
        let id = table.next_id;
        table.next_id += 1;
        if table.peers.len() > 2 * self.max {
            table.peers.retain(|_, peer| peer.connections > 0 || !peer.rate.is_settled());
        }
        let peer = table.peers.entry(network).or_insert_with(|| Peer {
            connections: 0,
            rate: Arc::new(RequestRate::new(self.max_request_rate)),
        });
        peer.connections += 1;
        let seat = Seat {
            id,
            seats: Arc::clone(self),
            activity: Arc::default(),
            rate: Arc::clone(&peer.rate),
            evicted: CancellationToken::new(),
        };
        let taken = Taken { network, activity: Arc::clone(&seat.activity), evicted: seat.evicted.clone() };
        table.taken.insert(id, taken);
        drop(table);
        if let Some(evicted) = evicted {
            evicted.cancel();
        }
        Ok(seat)
    }

    /// Takes a seat when there is one for the peer. Returns `None` at once if only the peer is full.
    pub(crate) async fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Seat> {
        loop {
            match self.try_take(peer) {
                Ok(seat) => return Some(seat),
                Err(NoSeat::PeerFull) => return None,
                Err(NoSeat::Full) => self.freed().await,
            }
        }
    }

    /// Takes a seat when there is one for the peer.
    pub(crate) async fn wait_and_take(self: &Arc<Self>, peer: IpAddr) -> Seat {
        loop {
            match self.try_take(peer) {
                Ok(seat) => return seat,
                Err(NoSeat::PeerFull | NoSeat::Full) => self.freed().await,
            }
        }
    }

    /// Completes when a seat may be free.
    async fn freed(&self) {
        // A connection may also become unused, of which there is no notice.
        let _ = tokio::time::timeout(MIN_UNUSED, self.freed.notified()).await;
    }

    /// Removes the connection that loses the least: one that has sent no request before one that has, then one of the
    /// peer with the most connections, then the one unused for the longest time. Returns its token, or `None`
    /// if every connection is active.
    fn evict(&self, table: &mut Table, of: Option<IpAddr>) -> Option<CancellationToken> {
        if table.closing >= spare(self.max) {
            return None;
        }
        let now = Instant::now();
        let candidates = table.taken.iter().filter(|(_, taken)| {
            of.is_none_or(|network| network == taken.network)
                && taken.activity.is_idle()
                && now.duration_since(taken.activity.unused_since()) >= MIN_UNUSED
        });
        let rank = |taken: &Taken| {
            let of_peer = table.connections_of(taken.network);
            (taken.activity.has_served(), Reverse(of_peer), taken.activity.unused_since())
        };
        let id = candidates.min_by_key(|(_, taken)| rank(taken)).map(|(id, _)| *id)?;
        let taken = table.remove(id)?;
        table.closing += 1;
        Some(taken.evicted)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        if let Some(peer) = self.peers.get_mut(&taken.network) {
            peer.connections -= 1;
            if peer.connections == 0 && peer.rate.is_settled() {
                self.peers.remove(&taken.network);
            }
        }
        Some(taken)
    }

    fn connections_of(&self, network: IpAddr) -> usize {
        self.peers.get(&network).map_or(0, |peer| peer.connections)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table();
        if table.remove(self.id).is_none() {
            table.closing -= 1;
        }
        drop(table);
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn taken(seats: &Arc<Seats>, number: u32) -> Seat {
        seats.try_take(peer(number)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn try_take_of_a_full_table_evicts_silent_then_idle_connections() {
        let seats = Arc::new(Seats::new(3, 3, 0));
        let [idle, silent, busy] = [taken(&seats, 1), taken(&seats, 2), taken(&seats, 3)];
        drop(idle.activity.begin_request());
        let _request = busy.activity.begin_request();
        assert_eq!(seats.try_take(peer(4)).unwrap_err(), NoSeat::Full, "all connections are new");
        tokio::time::advance(MIN_UNUSED).await;
        let fourth = taken(&seats, 4);
        assert!(silent.evicted.is_cancelled() && !idle.evicted.is_cancelled());
        let _fifth = taken(&seats, 5);
        assert!(idle.evicted.is_cancelled() && !busy.evicted.is_cancelled());
        assert_eq!(seats.try_take(peer(6)).unwrap_err(), NoSeat::Full);
        drop(fourth);
        let _sixth = taken(&seats, 6);
        drop((idle, silent));
        assert_eq!(seats.table().closing, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn try_take_beyond_the_limit_of_a_peer_affects_that_peer_alone() {
        let seats = Arc::new(Seats::new(10, 2, 0));
        let [first, second, other] = [taken(&seats, 1), taken(&seats, 1), taken(&seats, 2)];
        let requests = [first.activity.begin_request(), second.activity.begin_request()];
        tokio::time::advance(MIN_UNUSED).await;
        assert_eq!(seats.try_take(peer(1)).unwrap_err(), NoSeat::PeerFull);
        let _third = taken(&seats, 3);
        for request in requests {
            drop(request);
            tokio::time::advance(MIN_UNUSED).await;
        }
        let _more = taken(&seats, 1);
        assert!(first.evicted.is_cancelled() && !other.evicted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn evict_prefers_the_peer_with_the_most_connections() {
        let seats = Arc::new(Seats::new(3, 3, 0));
        let single = taken(&seats, 1);
        tokio::time::advance(MIN_UNUSED).await;
        let first = taken(&seats, 2);
        tokio::time::advance(MIN_UNUSED).await;
        let second = taken(&seats, 2);
        tokio::time::advance(MIN_UNUSED).await;
        let _new = taken(&seats, 3);
        assert!(first.evicted.is_cancelled());
        assert!(!single.evicted.is_cancelled() && !second.evicted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn evict_is_bounded_by_the_connections_that_still_close() {
        let seats = Arc::new(Seats::new(1, 1, 0));
        let mut all = vec![taken(&seats, 1)];
        for number in 0.. {
            tokio::time::advance(MIN_UNUSED).await;
            match seats.try_take(peer(number)) {
                Ok(seat) => all.push(seat),
                Err(error) => {
                    assert_eq!((error, all.len()), (NoSeat::Full, 1 + spare(1)));
                    break;
                }
            }
        }
    }
}
