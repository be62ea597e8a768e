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
    refused_at: Mutex<Option<Instant>>,
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
        Self { setting, refused_at: Mutex::default() }
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
        let mut refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.replace(now).is_none() {
            let minutes = REFUSAL_TIME.as_secs() / 60;
            tracing::warn!("the upstream's WebSocket failed; turns use HTTPS for {minutes} minutes");
        }
    }

    fn was_refused(&self, now: Instant) -> bool {
        let mut refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = refused_at.is_some_and(|at| now.saturating_duration_since(at) < REFUSAL_TIME);
        if !is_recent {
            *refused_at = None;
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
}
