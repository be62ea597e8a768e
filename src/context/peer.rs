//! The peer of a connection: its address, and what it may keep open.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::extract::ConnectInfo;
use http::Extensions;

/// Maximum number of health watches per connection. A watch needs no token and never ends, and one of each service name
/// is enough for a client. A proxy multiplexes several clients.
const MAX_WATCHES: usize = 16;

/// The number of open health watches of one connection, in the extensions of its requests. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct HealthWatches(Arc<AtomicUsize>);

/// Counts as an open health watch until it is dropped.
#[derive(Debug)]
pub struct HealthWatch(HealthWatches);

impl HealthWatches {
    /// Counts a watch. Returns `None` if the connection has too many.
    pub fn begin(&self) -> Option<HealthWatch> {
        let add = |open| (open < MAX_WATCHES).then_some(open + 1);
        self.0.fetch_update(Relaxed, Relaxed, add).is_ok().then(|| HealthWatch(self.clone()))
    }

    /// Returns the number of open watches.
    pub fn open(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Returns the address of the peer whose connection a request came over. Behind a proxy it is the proxy.
pub fn peer_of(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| peer.ip().to_canonical())
}

/// Returns the network that a limit per peer counts: an IPv4 address, or the first 64 bits of an IPv6 address, because a
/// host chooses the other bits itself.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_watches_of_a_connection_are_limited() {
        let watches = HealthWatches::default();
        let mut open: Vec<_> = std::iter::from_fn(|| watches.clone().begin()).collect();
        assert_eq!((open.len(), watches.open()), (MAX_WATCHES, MAX_WATCHES));
        open.pop();
        assert!(watches.begin().is_some());
    }

    #[test]
    fn network_of_addresses_of_one_host_is_the_same() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:2::9"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:3::9"), "2001:db8:1:3::");
    }
}
