//! The output of the translator: an event for the client, and the next action of the turn driver.

use super::response_attempt::NewText;
use crate::{
    engine::{
        TurnEvent,
        app_server::{
            rpc::protocol::{RawItem, RequestId, ToolCallResult},
            tools::call::Call,
        },
    },
    pb::{self, FinishReason},
};

/// The result of one input.
#[derive(Debug, Default)]
pub(crate) struct TranslatorOutput {
    /// Whether a message starts before the event.
    pub(crate) starts_message: bool,
    /// Whether the model says that no other message follows this one.
    pub(crate) is_final: bool,
    /// The event to send before the action. No input yields more than one event. A hand-over carries its events itself.
    pub(crate) event: Option<TurnEvent>,
    pub(crate) action: Action,
    /// Whether the agent begins to act, so that the turn may have effects.
    pub(crate) begins_action: bool,
}

impl TranslatorOutput {
    /// Returns `true` if the model or the agent has done something, which another attempt would repeat.
    pub(crate) const fn is_progress(&self) -> bool {
        self.starts_message
            || self.begins_action
            || !matches!(self.event, None | Some(TurnEvent::Notice(_)))
            || !matches!(self.action, Action::Continue)
    }
}

/// The next action of the turn driver.
#[derive(Debug, Default)]
pub(crate) enum Action {
    /// Reads the next message.
    #[default]
    Continue,
    /// Sends these results to Codex and reads the next message.
    Respond(Vec<(RequestId, ToolCallResult)>),
    /// Validates these calls and pushes the verdicts before any other input.
    Validate(Vec<Call>),
    /// Interrupts the turn and reads the next message. Codex then reports the outputs of its own calls.
    Interrupt,
    /// Ends the turn with calls for the client.
    HandOver(Box<HandOver>),
    /// Ends the request with calls for the client. The turn stays open.
    Park(Box<HandOver>),
    /// The turn has completed.
    Complete,
}

/// Calls that the client must answer.
#[derive(Debug)]
pub(crate) struct HandOver {
    /// The calls with the client's ids and names.
    pub(crate) calls: Vec<pb::ToolCall>,
    /// The raw items of this turn, for the turn cache.
    pub(crate) items: Vec<RawItem>,
    pub(crate) usage: Option<pb::Usage>,
}

impl HandOver {
    /// Returns the last events of the turn.
    pub(crate) fn into_events(self) -> impl Iterator<Item = TurnEvent> {
        let usage = self.usage.map(Box::new);
        let calls = self.calls.into_iter().map(|call| TurnEvent::ToolCall(Box::new(call)));
        calls.chain([TurnEvent::Finished { reason: FinishReason::ToolCalls, usage }])
    }
}

impl From<Action> for TranslatorOutput {
    fn from(action: Action) -> Self {
        Self { action, ..Self::default() }
    }
}

impl From<Option<TurnEvent>> for TranslatorOutput {
    fn from(event: Option<TurnEvent>) -> Self {
        Self { event, ..Self::default() }
    }
}

impl From<Option<NewText>> for TranslatorOutput {
    fn from(text: Option<NewText>) -> Self {
        let starts_message = text.as_ref().is_some_and(|text| text.starts_message);
        let event = text.map(|new| TurnEvent::Text(new.text.into()));
        Self { starts_message, event, ..Self::default() }
    }
}
