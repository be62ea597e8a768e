//! Tracks the delivered part of the current response, in case Codex requests the response again.
//!
//! A retry after delivered text fails the turn, because text must never be delivered twice. Reasoning of later attempts is
//! dropped once reasoning was delivered. Actions of the agent are delivered each time, because they happen each time.

/// The current response, over all attempts at it.
#[derive(Debug, Default)]
pub(crate) struct ResponseAttempt {
    text_delivered: bool,
    reasoning_delivered: bool,
    /// Set if an earlier attempt delivered reasoning.
    reasoning_muted: bool,
    retries: u32,
    /// Set if Codex reports the completion of a response. Older releases report only the usage, after the response.
    reports_completion: bool,
}

impl ResponseAttempt {
    /// Records that the client gets text.
    pub(crate) const fn mark_text(&mut self) {
        self.text_delivered = true;
    }

    /// Records reasoning of the model. Returns `true` if the client gets the reasoning.
    pub(crate) const fn mark_reasoning(&mut self) -> bool {
        self.reasoning_delivered |= !self.reasoning_muted;
        !self.reasoning_muted
    }

    /// Starts the next attempt. Returns `false` if text was delivered or the retries exceed `max_retries`.
    pub(crate) const fn try_retry(&mut self, max_retries: u32) -> bool {
        self.retries += 1;
        self.reasoning_muted |= self.reasoning_delivered;
        !self.text_delivered && self.retries <= max_retries
    }

    /// Starts the next response, because this one is complete.
    pub(crate) fn complete(&mut self) {
        *self = Self { reports_completion: true, ..Self::default() };
    }

    /// Starts the next response if Codex reports only the usage at the end of a response.
    pub(crate) fn usage_reported(&mut self) {
        if !self.reports_completion {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_mutes_delivered_reasoning_and_fails_after_text() {
        let mut attempt = ResponseAttempt::default();
        assert!(attempt.try_retry(2), "nothing was delivered yet");
        assert!(attempt.mark_reasoning() && attempt.mark_reasoning());
        assert!(attempt.try_retry(2));
        assert!(!attempt.mark_reasoning());
        attempt.complete();
        assert!(
            attempt.mark_reasoning() && attempt.try_retry(2) && attempt.try_retry(2),
            "the count starts again"
        );
        assert!(!attempt.try_retry(2));
        attempt.complete();
        attempt.mark_text();
        assert!(!attempt.try_retry(2));
    }

    #[test]
    fn usage_completes_a_response_only_without_a_reported_completion() {
        let mut attempt = ResponseAttempt::default();
        attempt.mark_text();
        attempt.usage_reported();
        assert!(attempt.try_retry(1));
        attempt.complete();
        attempt.mark_text();
        attempt.usage_reported();
        assert!(!attempt.try_retry(1));
    }
}
