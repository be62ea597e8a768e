//! What the client has of the model's response that is under way, should Codex ask for it again: text must never come
//! twice, so that such a turn fails; thoughts need not come twice, so that those of the next attempt are left out.
//! What the agent does is told each time, because it happens each time.

/// The response that is under way.
#[derive(Debug, Default)]
pub(crate) struct ResponseAttempt {
    text: bool,
    thoughts: bool,
    /// The client has thoughts of an earlier attempt.
    silent: bool,
    retried: u32,
    /// Codex says when a response is complete. Older ones only tell the usage, behind it.
    ends_are_told: bool,
}

impl ResponseAttempt {
    /// The client gets text of it.
    pub(crate) fn speaks(&mut self) {
        self.text = true;
    }

    /// The model thinks; false if the client is not to be told.
    pub(crate) fn thinks(&mut self) -> bool {
        self.thoughts |= !self.silent;
        !self.silent
    }

    /// It broke off and is asked for again. False if that must not be, or was often enough.
    pub(crate) fn retries(&mut self, at_most: u32) -> bool {
        self.retried += 1;
        self.silent |= self.thoughts;
        !self.text && self.retried <= at_most
    }

    /// It is complete.
    pub(crate) fn ends(&mut self) {
        *self = Self { ends_are_told: true, ..Self::default() };
    }

    /// Its usage is told.
    pub(crate) fn is_counted(&mut self) {
        if !self.ends_are_told {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_come_once_and_text_ends_it() {
        let mut attempt = ResponseAttempt::default();
        assert!(attempt.retries(2), "nothing was told yet");
        assert!(attempt.thinks() && attempt.thinks());
        assert!(attempt.retries(2));
        assert!(!attempt.thinks());
        attempt.ends();
        assert!(attempt.thinks() && attempt.retries(2) && attempt.retries(2), "counted anew");
        assert!(!attempt.retries(2));
        attempt.ends();
        attempt.speaks();
        assert!(!attempt.retries(2));
    }

    #[test]
    fn usage_ends_it_only_where_nothing_else_does() {
        let mut attempt = ResponseAttempt::default();
        attempt.speaks();
        attempt.is_counted();
        assert!(attempt.retries(1));
        attempt.ends();
        attempt.speaks();
        attempt.is_counted();
        assert!(!attempt.retries(1));
    }
}
