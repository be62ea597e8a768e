//! The transport of one thread, and how long the next turn may use it. Pure.
//!
//! Codex keeps the WebSocket of a thread between turns. If the upstream closed it meanwhile, Codex connects again and sends
//! the whole conversation. Codex does not notice that a network dropped the connection without a word: it sends no pings and
//! sets no TCP keep-alive, and the next turn waits for
//! [`WEBSOCKET_IDLE_TIMEOUT`](super::provider::WEBSOCKET_IDLE_TIMEOUT) (0.169).

use std::time::Duration;

/// Maximum age of a thread with a WebSocket. OpenAI closes a WebSocket after 60 minutes. A response that runs then is lost,
/// and Codex requests it again.
const MAX_AGE: Duration = Duration::from_secs(55 * 60);

/// Maximum time between two turns on a WebSocket. The NAT gateways of Azure and AWS drop an idle connection after 240 and
/// 350 seconds by default.
const MAX_IDLE: Duration = Duration::from_secs(180);

/// Time in which a response over a used WebSocket must begin. The upstream announces reasoning or text within seconds, also
/// if the model then reasons in silence. A response that begins later costs a second model call.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// The transport of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ThreadTransport {
    /// Each model call has a connection of its own.
    #[default]
    Https,
    /// One connection since the start of the thread.
    WebSocket,
}

impl ThreadTransport {
    /// Limits the age of a thread.
    pub(crate) fn limit_age(self, age: Duration) -> Duration {
        match self {
            Self::Https => age,
            Self::WebSocket => age.min(MAX_AGE),
        }
    }

    /// Limits the time between two turns of a thread, and that of a turn that waits for results.
    pub(crate) fn limit_idle(self, idle: Duration) -> Duration {
        match self {
            Self::Https => idle,
            Self::WebSocket => idle.min(MAX_IDLE),
        }
    }

    /// Returns the time after which a turn on a used connection should run on a fresh thread if no response has begun. `None`
    /// if the connection cannot be lost, or if `service_tier` lets responses begin late.
    pub(crate) fn first_event_timeout(self, service_tier: Option<&str>) -> Option<Duration> {
        match self {
            Self::Https => None,
            Self::WebSocket => (service_tier != Some("flex")).then_some(FIRST_EVENT_TIMEOUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_limits_age_and_idle_time() {
        let seconds = Duration::from_secs;
        for (age, idle, expected) in
            [(21_600, 1800, (3300, 180)), (3000, 60, (3000, 60)), (3300, 180, (3300, 180))]
        {
            let (age, idle) = (seconds(age), seconds(idle));
            let limited = |transport: ThreadTransport| (transport.limit_age(age), transport.limit_idle(idle));
            assert_eq!(limited(ThreadTransport::WebSocket), (seconds(expected.0), seconds(expected.1)));
            assert_eq!(limited(ThreadTransport::Https), (age, idle));
        }
    }

    #[test]
    fn first_event_timeout_is_for_websockets_whose_responses_begin_soon() {
        for (transport, tier, expected) in [
            (ThreadTransport::WebSocket, None, true),
            (ThreadTransport::WebSocket, Some("priority"), true),
            (ThreadTransport::WebSocket, Some("flex"), false),
            (ThreadTransport::Https, None, false),
        ] {
            assert_eq!(transport.first_event_timeout(tier).is_some(), expected, "{transport:?} {tier:?}");
        }
    }
}
