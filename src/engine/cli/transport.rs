//! Selects the transport to the upstream and remembers a network that refuses the WebSocket.
//!
//! Codex falls back to HTTPS by itself, but only for one thread, and each request is a thread. With a provider for each
//! transport, the next threads start on HTTPS.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::config::UpstreamTransport;

/// Time for which a refused WebSocket is not tried again. A network rarely changes, and a hanging connect costs seconds.
const REFUSAL_TIME: Duration = Duration::from_secs(600);

/// Selects the transport of each thread.
#[derive(Debug)]
pub(crate) struct TransportSelector {
    setting: UpstreamTransport,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    refused_at: Option<Instant>,
    /// A turn over the WebSocket has completed since the last refusal.
    has_worked: bool,
}

/// The work of a turn, as far as the transport depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Workload {
    /// One model call.
    #[default]
    SingleCall,
    /// Several model calls. A WebSocket sends only the new items of each call.
    SeveralCalls,
}

impl TransportSelector {
    pub(crate) fn new(setting: UpstreamTransport) -> Self {
        Self { setting, state: Mutex::default() }
    }

    /// Returns `true` if a thread that starts at `now` should use the WebSocket.
    pub(crate) fn selects_websocket(&self, workload: Workload, now: Instant) -> bool {
        let is_wanted = match self.setting {
            UpstreamTransport::Https => false,
            UpstreamTransport::WebSocket => true,
            UpstreamTransport::Auto => workload == Workload::SeveralCalls,
        };
        is_wanted && !self.was_refused(now)
    }

    /// Records that Codex fell back to HTTPS.
    pub(crate) fn record_fallback(&self, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.has_worked = false;
        if state.refused_at.replace(now).is_none() {
            let minutes = REFUSAL_TIME.as_secs() / 60;
            tracing::warn!("the upstream's WebSocket failed; turns use HTTPS for {minutes} minutes");
        }
    }

    /// Records that a turn over the WebSocket has completed.
    pub(crate) fn record_success(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).has_worked = true;
    }

    /// Records that the upstream rejected or failed a turn over the WebSocket. Codex does not fall back if a proxy answers
    /// the upgrade with 400, so that every turn would fail. A WebSocket that has worked before is not the cause.
    pub(crate) fn record_rejection(&self, now: Instant) {
        if !self.state.lock().unwrap_or_else(PoisonError::into_inner).has_worked {
            self.record_fallback(now);
        }
    }

    fn was_refused(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = state.refused_at.is_some_and(|at| now.saturating_duration_since(at) < REFUSAL_TIME);
        if !is_recent {
            state.refused_at = None;
        }
        is_recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_websocket_depends_on_setting_and_workload() {
        use UpstreamTransport::{Auto, Https, WebSocket};
        let now = Instant::now();
        for (setting, single, several) in
            [(Https, false, false), (WebSocket, true, true), (Auto, false, true)]
        {
            let selector = TransportSelector::new(setting);
            assert_eq!(selector.selects_websocket(Workload::SingleCall, now), single, "{setting:?}");
            assert_eq!(selector.selects_websocket(Workload::SeveralCalls, now), several, "{setting:?}");
        }
    }

    #[test]
    fn a_fallback_selects_https_until_the_refusal_time_is_over() {
        let selector = TransportSelector::new(UpstreamTransport::WebSocket);
        let start = Instant::now();
        selector.record_fallback(start);
        let selects = |after: Duration| selector.selects_websocket(Workload::SingleCall, start + after);
        assert!(!selects(Duration::ZERO) && !selects(REFUSAL_TIME - Duration::from_millis(1)));
        assert!(selects(REFUSAL_TIME));
        selector.record_fallback(start + REFUSAL_TIME);
        assert!(!selects(REFUSAL_TIME));
    }

    #[test]
    fn a_rejection_selects_https_unless_the_websocket_has_worked() {
        let selector = TransportSelector::new(UpstreamTransport::WebSocket);
        let now = Instant::now();
        let selects = || selector.selects_websocket(Workload::SingleCall, now);
        selector.record_success();
        selector.record_rejection(now);
        assert!(selects());
        selector.record_fallback(now - REFUSAL_TIME);
        assert!(selects());
        selector.record_rejection(now);
        assert!(!selects());
    }
}
