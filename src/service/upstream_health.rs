//! Remembers whether the last turns could use the upstream. The status reports it, because a server with a dead network or
//! a refused login still counts as ready: only a turn tells.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::error::Error;

/// The results of the last turns.
#[derive(Debug, Default)]
pub(super) struct UpstreamHealth(Mutex<Option<Failing>>);

/// Consecutive failed turns.
#[derive(Debug)]
struct Failing {
    reason: &'static str,
    since: Instant,
    turns: u32,
}

impl UpstreamHealth {
    /// Records that the upstream answered a turn.
    pub(super) fn record_success(&self) {
        *self.lock() = None;
    }

    /// Records a failed turn. Failures that one request causes do not count.
    pub(super) fn record_failure(&self, error: &Error, now: Instant) {
        let error = error.root_cause();
        if !concerns_all_turns(error) {
            return;
        }
        let mut failing = self.lock();
        let failing = failing.get_or_insert(Failing { reason: error.reason(), since: now, turns: 0 });
        failing.reason = error.reason();
        failing.turns = failing.turns.saturating_add(1);
    }

    /// Returns the warning of the status. The text names only the reason, because the status needs no token.
    pub(super) fn warning(&self, now: Instant) -> Option<String> {
        let failing = self.lock();
        let Failing { reason, since, turns } = failing.as_ref()?;
        let seconds = now.saturating_duration_since(*since).as_secs();
        let turns = if *turns == 1 { "the last turn".to_owned() } else { format!("the last {turns} turns") };
        Some(format!("{turns} failed with {reason}, first {seconds} s ago; the log has the cause"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if the next turn of any caller probably fails for the same reason.
const fn concerns_all_turns(error: &Error) -> bool {
    matches!(
        error,
        Error::UpstreamUnavailable { .. } | Error::EngineUnavailable { .. } | Error::UsageLimit { .. }
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn warning_counts_failures_of_the_upstream_until_a_success() {
        let health = UpstreamHealth::default();
        let start = Instant::now();
        let failed = || Error::UpstreamUnavailable { message: "secret".into() };
        assert_eq!(health.warning(start), None);
        health.record_failure(&Error::Rejected { message: "the caller's fault".into() }, start);
        assert_eq!(health.warning(start), None);
        health.record_failure(&failed(), start);
        let warning = health.warning(start + Duration::from_secs(5)).unwrap();
        assert!(warning.starts_with("the last turn failed with UPSTREAM_UNAVAILABLE, first 5 s ago"));
        health.record_failure(&failed(), start + Duration::from_secs(6));
        let warning = health.warning(start + Duration::from_secs(7)).unwrap();
        assert!(warning.starts_with("the last 2 turns failed") && warning.contains("first 7 s ago"));
        assert!(!warning.contains("secret"));
        health.record_success();
        assert_eq!(health.warning(start), None);
    }
}
