//! Selects the transport to the upstream and remembers a network that refuses the WebSocket.
//!
//! Codex falls back to HTTPS by itself, but only for one thread. With a provider for each transport, the next threads start on
//! HTTPS.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::{Profile, UpstreamTransport},
    engine::{ToolChoice, Turn},
};

/// Time for which a refused WebSocket is not tried again. A network rarely changes, and a hanging connect costs seconds.
const REFUSAL_TIME: Duration = Duration::from_secs(600);

/// Number of rejected turns in a row after which a WebSocket that has worked before is the probable cause.
const MAX_REJECTIONS: u32 = 3;

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
    /// Turns in a row that the upstream rejected or failed.
    rejections: u32,
}

/// The work of a thread, as far as the transport depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Workload {
    /// One model call, or several that a person paces.
    #[default]
    SingleCall,
    /// Several model calls in a row. A WebSocket sends only the new items of each call.
    SeveralCalls,
}

impl Workload {
    /// Returns the probable workload of the thread of a turn. `keeps_threads` is `true` if the client's next request continues
    /// the thread.
    ///
    /// The first call over a WebSocket takes two round trips more than a call over HTTPS, and each further call two less
    /// (`docs/operations.md`), so the WebSocket pays from the second call on. Messages alone do not tell that a second call
    /// follows in time: people pause for longer than a WebSocket can be kept.
    pub(crate) fn of(turn: &Turn, keeps_threads: bool) -> Self {
        match turn.profile {
            // Codex calls the model again after each command of the agent.
            Profile::Agent if turn.tools.is_empty() => Self::SeveralCalls,
            // Programs return the results of their tools within seconds.
            Profile::Agent | Profile::Chat
                if keeps_threads && !turn.tools.is_empty() && !is_extraction(&turn.tool_choice) =>
            {
                Self::SeveralCalls
            }
            Profile::Agent | Profile::Chat => Self::SingleCall,
        }
    }
}

/// Returns `true` if the arguments of the call are usually the answer, so that no result follows.
const fn is_extraction(choice: &ToolChoice) -> bool {
    match choice {
        ToolChoice::Named(_) => true,
        ToolChoice::Auto | ToolChoice::Required => false,
    }
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
        (state.has_worked, state.rejections) = (false, 0);
        if state.refused_at.replace(now).is_none() {
            let minutes = REFUSAL_TIME.as_secs() / 60;
            tracing::warn!("the upstream's WebSocket failed; turns use HTTPS for {minutes} minutes");
        }
    }

    /// Records that a turn over the WebSocket has completed.
    pub(crate) fn record_success(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.has_worked, state.rejections) = (true, 0);
    }

    /// Records that the upstream rejected or failed a turn over the WebSocket. Codex does not fall back if a proxy answers
    /// the upgrade with 400, so that every turn would fail. Codex reports a rejected request by the same text. A WebSocket that
    /// has worked before is the cause only if several turns in a row fail.
    pub(crate) fn record_rejection(&self, now: Instant) {
        let is_refusal = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.rejections += 1;
            !state.has_worked || state.rejections >= MAX_REJECTIONS
        };
        if is_refusal {
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
    use crate::engine::Tool;

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
    fn workload_depends_on_profile_tools_and_kept_threads() {
        use Profile::{Agent, Chat};
        use ToolChoice::{Auto, Required};
        use Workload::{SeveralCalls, SingleCall};
        let named = || ToolChoice::Named("f".into());
        // The profile, the choice of the client's tools if any, and the workload without and with kept threads.
        for (profile, choice, fresh, kept) in [
            (Agent, None, SeveralCalls, SeveralCalls),
            (Agent, Some(Auto), SingleCall, SeveralCalls),
            (Agent, Some(named()), SingleCall, SingleCall),
            (Chat, None, SingleCall, SingleCall),
            (Chat, Some(Auto), SingleCall, SeveralCalls),
            (Chat, Some(Required), SingleCall, SeveralCalls),
            (Chat, Some(named()), SingleCall, SingleCall),
        ] {
            let tools = choice.iter().map(|_| Tool::default()).collect();
            let tool_choice = choice.clone().unwrap_or_default();
            let turn = Turn { profile, tools, tool_choice, ..Turn::default() };
            assert_eq!(Workload::of(&turn, false), fresh, "{profile:?} {choice:?}");
            assert_eq!(Workload::of(&turn, true), kept, "{profile:?} {choice:?}");
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

    #[test]
    fn rejections_in_a_row_select_https_although_the_websocket_has_worked() {
        let selector = TransportSelector::new(UpstreamTransport::WebSocket);
        let now = Instant::now();
        let selects = || selector.selects_websocket(Workload::SingleCall, now);
        for _ in 0..3 {
            selector.record_success();
            for _ in 1..MAX_REJECTIONS {
                selector.record_rejection(now);
            }
        }
        assert!(selects());
        selector.record_rejection(now);
        assert!(!selects());
    }
}
