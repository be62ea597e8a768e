//! The limit of open files (`ulimit -n`). Each connection is an open file, and so are the pipes of each turn. A server
//! that reaches the limit accepts no connection and starts no turn.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::seats::spare;

/// Open files besides the connections: listeners, workers, the pipes and folders of turns.
const OTHER_FILES: u64 = 512;

/// What the limit of open files allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// The number of open files for the configured connections.
    pub needed: u64,
    /// The limit. `None` if there is none.
    pub limit: Option<u64>,
    /// The number of connections within the limit, at most the configured number.
    pub connections: usize,
}

/// Raises the soft limit of this process as far as `listeners` listeners of `connections` connections each need and the
/// hard limit allows. Processes of turns inherit it.
pub fn raise_limit(connections: usize, listeners: usize) -> OpenFiles {
    let needed = needed(connections, listeners);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(needed, |maximum| needed.min(maximum));
    let limit = match current {
        Some(current) if current < wanted => {
            let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
            if raised.is_ok() { Some(wanted) } else { Some(current) }
        }
        unchanged => unchanged,
    };
    OpenFiles { needed, limit, connections: fitting(connections, listeners, limit) }
}

fn needed(connections: usize, listeners: usize) -> u64 {
    // Connections that wait for a seat, and those that have lost theirs.
    let each = connections.saturating_add(2 * spare(connections));
    u64::try_from(each.saturating_mul(listeners)).unwrap_or(u64::MAX).saturating_add(OTHER_FILES)
}

/// Returns the largest number of connections up to `connections` that needs no more than `limit` files.
fn fitting(connections: usize, listeners: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return connections };
    let (mut fits, mut exceeds) = (1, connections.saturating_add(1));
    while exceeds - fits > 1 {
        let middle = fits + (exceeds - fits) / 2;
        if needed(middle, listeners) <= limit {
            fits = middle;
        } else {
            exceeds = middle;
        }
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fitting_connections_need_no_more_than_the_limit() {
        assert_eq!(fitting(1024, 1, None), 1024);
        assert_eq!(fitting(1024, 1, Some(1 << 20)), 1024);
        for (limit, listeners) in [(1024, 1), (1024, 2), (2000, 2), (4096, 1)] {
            let fits = fitting(4096, listeners, Some(limit));
            assert!(
                needed(fits, listeners) <= limit && needed(fits + 1, listeners) > limit,
                "{limit}: {fits}"
            );
        }
        assert_eq!(fitting(1024, 1, Some(64)), 1, "the server still serves");
    }

    #[test]
    fn raise_limit_raises_the_soft_limit_only() {
        let before = getrlimit(Resource::Nofile);
        let files = raise_limit(64, 1);
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.maximum, before.maximum);
        assert_eq!(after.current, files.limit);
        assert!(after.current.unwrap_or(u64::MAX) >= before.current.unwrap_or(u64::MAX));
        assert_eq!(files.connections, 64);
    }
}
