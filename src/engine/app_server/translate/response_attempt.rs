//! The part of the current response that the client has, in case Codex requests the response again.
//!
//! Text must never be delivered twice, so a turn whose text was delivered fails. Reasoning need not be delivered twice,
//! so that of later attempts is dropped. Actions of the agent are delivered each time, because they happen each time.

/// The current response, over all attempts at it.
#[derive(Debug, Default)]
pub(crate) struct ResponseAttempt {
    text_delivered: bool,
    reasoning_delivered: bool,
    /// An earlier attempt delivered reasoning.
    reasoning_muted: bool,
    retries: u32,
    /// Codex reports the completion of a response. Older releases report only the usage, after it.
    reports_completion: bool,
}

impl ResponseAttempt {
    /// Records that the client gets text.
    pub(crate) const fn mark_text(&mut self) {
        self.text_delivered = true;
    }

    /// Records that the model reasons. Returns whether the client gets the reasoning.
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

    /// Starts the next response if the usage is all that Codex reports at the end of one.
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
