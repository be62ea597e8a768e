//! What became of the threads of turns, for status and log.

/// The thread that a turn ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThreadOrigin {
    /// Not known yet, or the engine has no threads.
    #[default]
    Unknown,
    /// A new thread with the whole conversation.
    Fresh,
    /// A new thread with the whole conversation and a stable key for the upstream's cache.
    Forked,
    /// The thread of the former turn of the conversation.
    Continued,
}

impl ThreadOrigin {
    /// Returns the name in logs and headers, or `None` if unknown.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Fresh => Some("fresh"),
            Self::Forked => Some("forked"),
            Self::Continued => Some("continued"),
        }
    }
}

/// Why a kept thread was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// The worker had more threads than it may keep.
    Number,
    /// The threads of the worker were too large.
    Size,
    /// Another thread had the same conversation.
    Duplicate,
    /// No request continued the conversation in time.
    Idle,
    /// The thread was too old.
    Age,
    /// The worker was lost or replaced.
    Worker,
    /// The request could not go on there, and ran on a fresh thread.
    Unfit,
}

impl Eviction {
    /// All reasons.
    pub const ALL: [Self; 7] =
        [Self::Number, Self::Size, Self::Duplicate, Self::Idle, Self::Age, Self::Worker, Self::Unfit];

    /// Returns the name in status and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Size => "size",
            Self::Duplicate => "duplicate",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Worker => "worker",
            Self::Unfit => "unfit",
        }
    }
}

/// The kept threads now, and what became of turns and threads since the start of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadCounts {
    /// Threads that wait for the next turn of their conversation.
    pub kept: usize,
    /// Threads whose turn waits for the results of a client's calls.
    pub parked: usize,
    /// Turns that continued a thread.
    pub continued: u64,
    /// Turns on a fork.
    pub forked: u64,
    /// Turns on a fresh thread.
    pub fresh: u64,
    evicted: [u64; Eviction::ALL.len()],
}

impl ThreadCounts {
    /// Counts a turn.
    pub fn record_turn(&mut self, origin: ThreadOrigin) {
        match origin {
            ThreadOrigin::Unknown => {}
            ThreadOrigin::Fresh => self.fresh += 1,
            ThreadOrigin::Forked => self.forked += 1,
            ThreadOrigin::Continued => self.continued += 1,
        }
    }

    /// Counts a thread that was let go.
    pub fn record_eviction(&mut self, reason: Eviction) {
        for (count, counted) in self.evicted.iter_mut().zip(Eviction::ALL) {
            *count += u64::from(counted == reason);
        }
    }

    /// Returns the number of threads that were let go, by reason.
    pub fn evicted(&self) -> impl Iterator<Item = (Eviction, u64)> {
        Eviction::ALL.into_iter().zip(self.evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_counts_by_origin_and_reason() {
        let mut counts = ThreadCounts::default();
        for origin in
            [ThreadOrigin::Continued, ThreadOrigin::Fresh, ThreadOrigin::Continued, ThreadOrigin::Forked]
        {
            counts.record_turn(origin);
        }
        counts.record_eviction(Eviction::Idle);
        counts.record_eviction(Eviction::Idle);
        counts.record_eviction(Eviction::Unfit);
        assert_eq!((counts.continued, counts.forked, counts.fresh), (2, 1, 1));
        let evicted: Vec<_> = counts.evicted().filter(|(_, count)| *count > 0).collect();
        assert_eq!(evicted, [(Eviction::Idle, 2), (Eviction::Unfit, 1)]);
    }
}
