//! Tracks the delivered part of the current response, in case Codex requests the response again.
//!
//! Codex announces most retries. It does not announce the first retry over a WebSocket, nor the change from a WebSocket to
//! HTTPS if the provider allows no retry (0.169). Such a retry is found by its sign: the next item of the model begins although
//! the current one did not end.
//!
//! The client never receives anything twice. An announced retry after delivered text fails the turn, because a retry costs
//! tokens and seldom repeats the text. After a silent retry the model has answered again already: the client receives what
//! follows the delivered text, and the turn fails if the new answer differs from this text. Reasoning that differs is dropped.
//!
//! A response that breaks off between two items leaves no sign. A message or reasoning that follows a complete one is therefore
//! compared with those of the response, from the first one on. It is another item if it differs.
//!
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

/// The relation of the reasoning that arrives to the delivered reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Repetition {
    #[default]
    No,
    /// The reasoning follows complete reasoning, so that it repeats this reasoning or is new.
    Possible,
    /// The attempt at the response is another one.
    Certain,
    /// The reasoning of this attempt differs from the delivered reasoning, and the client gets none of it.
    Differs,
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
    /// The complete messages of the response.
    complete_messages: Vec<DeliveredText>,
    /// The index of the complete message that the next message may repeat.
    next_repeated: usize,
    /// The current message may repeat that message, or repeats it.
    may_repeat: bool,
    reasoning_item: Progress,
    reasoning: DeliveredText,
    reasoning_repetition: Repetition,
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
                // The response may be repeated once more.
                let index =
                    if self.next_repeated < self.complete_messages.len() { self.next_repeated } else { 0 };
                self.expect_message(index);
                !self.may_repeat
            }
            Progress::None => {
                self.text.replace("");
                self.may_repeat = false;
                true
            }
        }
    }

    /// Expects that the next message repeats this complete one.
    fn expect_message(&mut self, index: usize) {
        self.text = self.complete_messages.get(index).cloned().unwrap_or_default();
        self.text.expect_repetition();
        self.next_repeated = index;
        self.may_repeat = self.text.is_repeating();
    }

    /// Records text of the message. Returns the text that the client gets.
    pub(crate) fn push_text(&mut self, text: String) -> Result<Option<NewText>, Error> {
        self.received = true;
        self.message = Progress::Open;
        let new = self.compare(text)?;
        self.must_repeat &= self.text.is_repeating();
        self.text_delivered |= !new.text.is_empty();
        Ok((!new.text.is_empty()).then_some(new))
    }

    /// Records the end of the message. Returns the text that the client gets.
    pub(crate) fn complete_message(&mut self, whole: &str) -> Result<Option<NewText>, Error> {
        // An upstream that does not stream sends the text only here.
        let suffix = self.text.suffix_of(whole).to_owned();
        let mut new = self.push_text(suffix)?;
        while self.text.is_repeating() && !whole.is_empty() {
            let other = self.start_other_message(self.text.repetition())?;
            self.text_delivered |= !other.text.is_empty();
            new = Some(other).filter(|new| !new.text.is_empty());
        }
        self.message = Progress::Complete;
        match self.complete_messages.get_mut(self.next_repeated).filter(|_| self.may_repeat) {
            Some(repeated) => {
                repeated.clone_from(&self.text);
                self.next_repeated += 1;
            }
            None => {
                self.complete_messages.push(self.text.clone());
                self.next_repeated = 0;
            }
        }
        Ok(new)
    }

    fn compare(&mut self, text: String) -> Result<NewText, Error> {
        Ok(match self.text.push(text) {
            Piece::New(text) => NewText { starts_message: false, text },
            Piece::Repeated => NewText { starts_message: false, text: String::new() },
            Piece::Differs(whole) => self.start_other_message(whole)?,
        })
    }

    /// Handles a text that differs from the expected repetition. Takes the text so far.
    fn start_other_message(&mut self, whole: Option<String>) -> Result<NewText, Error> {
        match whole {
            // The repetition broke off as well, and the response starts over.
            Some(text) if self.may_repeat && self.next_repeated > 0 => {
                self.expect_message(0);
                self.compare(text)
            }
            Some(text) if !self.must_repeat => {
                self.text.replace(&text);
                self.may_repeat = false;
                Ok(NewText { starts_message: true, text })
            }
            Some(_) | None => Err(diverged_error()),
        }
    }

    /// Records the start or the end of a reasoning item.
    pub(crate) fn on_reasoning_item(&mut self, completed: bool) {
        if completed {
            if self.reasoning_item == Progress::Open && self.reasoning_repetition == Repetition::Possible {
                self.reasoning_repetition = Repetition::Certain;
            }
            self.reasoning_item = Progress::Complete;
            return;
        }
        self.detect_retry();
        let is_known = match self.reasoning_repetition {
            Repetition::No | Repetition::Possible => false,
            Repetition::Certain => self.reasoning.is_repeating(),
            Repetition::Differs => true,
        };
        if self.reasoning_item == Progress::Complete && !is_known {
            self.expect_reasoning(Repetition::Possible);
        }
        self.reasoning_item = Progress::None;
    }

    /// Expects that the next reasoning repeats the delivered reasoning.
    fn expect_reasoning(&mut self, repetition: Repetition) {
        self.reasoning.expect_repetition();
        self.reasoning_repetition = repetition;
        self.reasoning_part.clone_from(&self.first_reasoning_part);
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
        if self.reasoning_repetition == Repetition::Differs {
            return None;
        }
        match (self.reasoning.push(text), self.reasoning_repetition) {
            (Piece::New(text), _) => Some(text),
            (Piece::Repeated, _) => None,
            (Piece::Differs(Some(whole)), Repetition::Possible) => {
                let text = format!("{REASONING_BREAK}{}", whole.trim_start_matches(REASONING_BREAK));
                self.reasoning.append(&text);
                self.reasoning_repetition = Repetition::No;
                Some(text)
            }
            (Piece::Differs(_), _) => {
                self.reasoning_repetition = Repetition::Differs;
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
        if self.reasoning_item == Progress::Complete {
            self.reasoning_item = Progress::None;
        }
    }

    /// Records that Codex answered a call of the client itself. If the response with the call broke off, the model may repeat
    /// what it sent before the call.
    pub(crate) fn on_client_output(&mut self) {
        if self.message == Progress::None && !self.complete_messages.is_empty() {
            self.message = Progress::Complete;
            self.next_repeated = 0;
        }
        if self.reasoning_item == Progress::None && !self.reasoning.is_empty() {
            self.reasoning_item = Progress::Complete;
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
        self.next_repeated = 0;
        self.reasoning_item = Progress::None;
        self.expect_reasoning(Repetition::Certain);
        self.received = false;
    }

    /// Starts the next response, because this one is complete. Fails if the response does not repeat delivered text.
    pub(crate) fn complete(&mut self) -> Result<(), Error> {
        self.check_repeated()?;
        self.start_next(true);
        Ok(())
    }

    /// Starts the first response of a request that goes on with the turn. The client has another answer in front of it.
    pub(crate) fn resume(&mut self) {
        *self = Self { reports_completion: self.reports_completion, ..Self::default() };
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
