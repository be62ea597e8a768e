//! Counts the retries of one response of the model. Pure.
//!
//! Codex numbers its retries (`Reconnecting... 2/5`) over each transport separately. Over a WebSocket it does not report the
//! first retry, so the numbers begin with 2; over HTTPS they begin with 1 (0.169). If no WebSocket can be established, Codex
//! changes to HTTPS after its last retry. Attempts to connect therefore do not count as retries of the response. Codex reports a
//! status 500 of the connection and of the response by the same text, so neither counts over a WebSocket.

use super::error_messages;

/// The retries of one response.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    count: u32,
    transport: Transport,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Transport {
    #[default]
    Unknown,
    WebSocket,
    Https,
}

impl Retries {
    /// Records a reported retry. `received` tells whether something of the broken attempt arrived.
    pub(crate) fn record(&mut self, message: &str, reason: &str, received: bool) {
        let number = number(message);
        let is_first = self.transport == Transport::Unknown;
        if number == Some(1) {
            self.transport = Transport::Https;
        } else if is_first {
            let is_websocket = number.is_some() || error_messages::names_websocket(reason);
            self.transport = if is_websocket { Transport::WebSocket } else { Transport::Https };
        }
        let is_websocket = self.transport == Transport::WebSocket || error_messages::names_websocket(reason);
        if is_websocket && !received && !error_messages::is_answer_over_websocket(reason) {
            return;
        }
        // The first retry over a WebSocket was not reported.
        let unreported = u32::from(is_first && number == Some(2) && self.count == 0);
        self.count += 1 + unreported;
    }

    /// Records a retry that was found by its sign.
    pub(crate) const fn record_unreported(&mut self) {
        self.count += 1;
    }

    /// Records that Codex changed from a WebSocket to HTTPS.
    pub(crate) const fn fall_back(&mut self) {
        self.count = 0;
        self.transport = Transport::Https;
    }

    /// Returns the number of retries of the response.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }
}

/// Parses the number of `Reconnecting... 2/5`.
fn number(message: &str) -> Option<u32> {
    message.strip_prefix("Reconnecting...")?.trim_start().split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: &str = "stream disconnected before completion: Transport error";
    const BUSY: &str = "We’re currently experiencing high demand, which may cause temporary errors.";

    /// Returns the count after retries with these numbers and one reason.
    fn count(numbers: std::ops::RangeInclusive<u32>, reason: &str, received: bool) -> u32 {
        let mut retries = Retries::default();
        for number in numbers {
            retries.record(&format!("Reconnecting... {number}/5"), reason, received);
        }
        retries.count()
    }

    #[test]
    fn record_counts_responses_but_not_attempts_to_connect() {
        let table = [
            (1..=3, CUT, false, 3),
            (1..=3, BUSY, false, 3),
            (1..=2, "unexpected status 403 Forbidden: no, url: http://u/v1/responses", false, 2),
            (2..=5, "unexpected status 404 Not Found: no, url: ws://u/v1/responses", false, 0),
            (2..=5, "unexpected status 403 Forbidden: no, url: wss://u/v1/responses", false, 0),
            (
                2..=5,
                "stream disconnected before completion: WebSocket protocol error: Handshake not finished",
                false,
                0,
            ),
            (2..=5, "stream disconnected before completion: Connection closed normally", false, 0),
            (2..=5, BUSY, false, 0),
            // The upstream answered the request over the WebSocket.
            (2..=3, "unexpected status 503 Service Unavailable: unavailable", false, 3),
            (2..=3, "rate limit exceeded: Please try again in 1.5s.", false, 3),
            (2..=3, "unexpected status 401 Unauthorized: no, url: wss://u/v1/responses", false, 3),
            // The response began.
            (2..=3, "stream disconnected before completion: websocket closed by server", true, 3),
        ];
        for (numbers, reason, received, expected) in table {
            assert_eq!(count(numbers, reason, received), expected, "{reason}");
        }
        let mut retries = Retries::default();
        retries.record(
            "Reconnecting... waiting for network",
            "Connection failed: error sending request",
            false,
        );
        assert_eq!(retries.count(), 1);
    }

    #[test]
    fn fall_back_starts_the_count_over_https() {
        let mut retries = Retries::default();
        retries.record("Reconnecting... 5/5", "unexpected status 503 Service Unavailable: x", false);
        retries.fall_back();
        assert_eq!(retries.count(), 0);
        for number in 1..=2 {
            retries.record(&format!("Reconnecting... {number}/5"), BUSY, false);
            assert_eq!(retries.count(), number);
        }
    }
}
