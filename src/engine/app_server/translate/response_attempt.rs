//! Tracks the delivered part of the current response, in case Codex requests the response again.
//!
//! Codex announces most retries. It does not announce the first retry over a WebSocket, nor the change from a WebSocket to
//! HTTPS if the provider allows no retry (0.169). Such a retry is found by its sign: the next item of the model begins although
//! the current one did not end.
//!
//! The client never receives anything twice. An announced retry after delivered text fails the turn, because a retry costs
//! tokens and seldom repeats the text. After a silent retry the model has answered again already: the client receives what
//! follows the delivered text, and the turn fails if the new answer differs from this text. Reasoning that differs is dropped.
//! Actions of the agent are delivered each time, because they happen each time. Completed items of a broken response stay in
//! Codex's history, so the model continues after them.

use super::delivered_text::{DeliveredText, Piece};
use crate::{
    engine::{REASONING_BREAK, app_server::rpc::delta::ReasoningPart, cli::retries::Retries},
    error::Error,
};

/// Text for the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewText {
    /// The text begins a message.
    pub(crate) starts_message: bool,
    pub(crate) text: String,
}

/// The progress of an item of the model that has deltas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    None,
    Open,
    /// The attempt ended before the item did.
    Broken,
    /// The item is complete, and no other action followed.
    Complete,
}

/// The current response, over all attempts at it.
#[derive(Debug, Default)]
pub(crate) struct ResponseAttempt {
    message: Progress,
    /// The text of the current message.
    text: DeliveredText,
    /// The delivered text is the beginning of a message that did not end, so that the next message must repeat it.
    must_repeat: bool,
    text_delivered: bool,
    reasoning_item: Progress,
    reasoning: DeliveredText,
    /// The reasoning of this attempt differs from the delivered reasoning.
    reasoning_muted: bool,
    /// The part of the reasoning that the last delta belonged to.
    reasoning_part: Option<ReasoningPart>,
    /// The same at the start of the response.
    first_reasoning_part: Option<ReasoningPart>,
    /// The model has sent something since the start of this attempt.
    received: bool,
    retries: Retries,
    /// Set if Codex reports the completion of a response. Older releases report only the usage, after the response.
    reports_completion: bool,
}

impl ResponseAttempt {
    /// Records the start of a message. Returns `true` if the client gets the start now.
    pub(crate) fn start_message(&mut self) -> bool {
        self.detect_retry();
        self.received = true;
        match std::mem::replace(&mut self.message, Progress::Open) {
            // The client has the start of the message, and perhaps text of it.
            Progress::Open | Progress::Broken => false,
            // A broken response may repeat a complete message. If the texts differ, another message starts.
            Progress::Complete => {
                self.text.expect_repetition();
                !self.text.is_repeating()
            }
            Progress::None => {
                self.text.replace("");
                true
            }
        }
    }

    /// Records text of the message. Returns the text that the client gets.
    pub(crate) fn push_text(&mut self, text: String) -> Result<Option<NewText>, Error> {
        self.received = true;
        self.message = Progress::Open;
        let piece = self.text.push(text);
        let new = match piece {
            Piece::New(text) => NewText { starts_message: false, text },
            Piece::Repeated => NewText { starts_message: false, text: String::new() },
            Piece::Differs(whole) => self.start_other_message(whole)?,
        };
        self.must_repeat &= self.text.is_repeating();
        self.text_delivered |= !new.text.is_empty();
        Ok((!new.text.is_empty()).then_some(new))
    }

    /// Records the end of the message. Returns the text that the client gets.
    pub(crate) fn complete_message(&mut self, whole: &str) -> Result<Option<NewText>, Error> {
        // An upstream that does not stream sends the text only here.
        let suffix = self.text.suffix_of(whole).to_owned();
        let mut new = self.push_text(suffix)?;
        if self.text.is_repeating() && !whole.is_empty() {
            let other = self.start_other_message(self.text.repetition())?;
            self.text_delivered = true;
            new = Some(other);
        }
        self.message = Progress::Complete;
        Ok(new)
    }

    fn start_other_message(&mut self, whole: Option<String>) -> Result<NewText, Error> {
        match whole {
            Some(text) if !self.must_repeat => {
                self.text.replace(&text);
                Ok(NewText { starts_message: true, text })
            }
            Some(_) | None => Err(diverged_error()),
        }
    }

    /// Records the start or the end of a reasoning item.
    pub(crate) fn on_reasoning_item(&mut self, completed: bool) {
        if completed {
            self.reasoning_item = Progress::Complete;
            return;
        }
        self.detect_retry();
        self.reasoning_item = Progress::None;
    }

    /// Records a delta of the reasoning. Returns the text that the client gets.
    pub(crate) fn push_reasoning(&mut self, part: ReasoningPart, text: String) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        let continues = self.reasoning_part.as_ref().is_none_or(|last| *last == part);
        self.reasoning_part = Some(part);
        self.deliver_reasoning(if continues { text } else { format!("{REASONING_BREAK}{text}") })
    }

    /// Records the start of a paragraph of the reasoning. Returns the text that the client gets.
    pub(crate) fn break_reasoning(&mut self) -> Option<String> {
        self.deliver_reasoning(REASONING_BREAK.to_owned())
    }

    fn deliver_reasoning(&mut self, text: String) -> Option<String> {
        self.received = true;
        self.reasoning_item = Progress::Open;
        if self.reasoning_muted {
            return None;
        }
        match self.reasoning.push(text) {
            Piece::New(text) => Some(text),
            Piece::Repeated => None,
            Piece::Differs(_) => {
                self.reasoning_muted = true;
                None
            }
        }
    }

    /// Records a complete item of the model that has no deltas, such as a call.
    pub(crate) fn on_call(&mut self) {
        self.detect_retry();
        self.received = true;
        self.on_action();
    }

    /// Records an action of the agent. A later message follows the action and repeats nothing.
    pub(crate) fn on_action(&mut self) {
        if self.message == Progress::Complete {
            self.message = Progress::None;
        }
    }

    /// Records that Codex changes from a WebSocket to HTTPS and requests the response again.
    pub(crate) fn on_fallback(&mut self) {
        self.break_off();
        self.retries.fall_back();
    }

    /// Records an announced retry. Returns `false` if text was delivered or the retries exceed `max_retries`.
    pub(crate) fn try_retry(&mut self, message: &str, reason: &str, max_retries: u32) -> bool {
        self.retries.record(message, reason, self.received);
        self.break_off();
        !self.text_delivered && self.retries.count() <= max_retries
    }

    /// Ends the attempt if an item of the model is open, because the items of a response follow one another.
    fn detect_retry(&mut self) {
        if self.message == Progress::Open {
            self.retries.record_unreported();
        }
        if self.message == Progress::Open || self.reasoning_item == Progress::Open {
            self.break_off();
        }
    }

    /// Ends the attempt before its response was complete.
    fn break_off(&mut self) {
        if self.message == Progress::Open {
            // A message that may be a repetition of a complete one was not delivered.
            self.must_repeat |= !self.text.is_empty() && !self.text.is_repeating();
            self.message = if self.text.is_repeating() && !self.must_repeat {
                Progress::Complete
            } else {
                Progress::Broken
            };
        }
        if self.must_repeat {
            self.text.expect_repetition();
        }
        self.reasoning_item = Progress::None;
        self.reasoning.expect_repetition();
        self.reasoning_muted = false;
        self.reasoning_part.clone_from(&self.first_reasoning_part);
        self.received = false;
    }

    /// Starts the next response, because this one is complete. Fails if the response does not repeat delivered text.
    pub(crate) fn complete(&mut self) -> Result<(), Error> {
        self.check_repeated()?;
        self.start_next(true);
        Ok(())
    }

    /// Starts the next response if Codex reports only the usage at the end of a response.
    pub(crate) fn usage_reported(&mut self) -> Result<(), Error> {
        if !self.reports_completion {
            self.check_repeated()?;
            self.start_next(false);
        }
        Ok(())
    }

    /// Fails if delivered text was not repeated.
    pub(crate) fn check_repeated(&self) -> Result<(), Error> {
        if self.must_repeat { Err(diverged_error()) } else { Ok(()) }
    }

    fn start_next(&mut self, reports_completion: bool) {
        let part = self.reasoning_part.take();
        *self = Self {
            reports_completion,
            first_reasoning_part: part.clone(),
            reasoning_part: part,
            ..Self::default()
        };
    }
}

fn diverged_error() -> Error {
    let message = "the connection to the upstream broke in the middle of the answer, and the repeated answer differs from \
                   the text that was already sent";
    Error::UpstreamUnavailable { message: message.to_owned() }
}

#[cfg(test)]
mod tests;
