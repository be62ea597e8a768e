//! The output of the translator: an event for the client, and the next action of the turn driver.

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
    /// The event to send before the action. No input yields more than one event. A hand-over carries its events itself.
    pub(crate) event: Option<TurnEvent>,
    pub(crate) action: Action,
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
        Self { event: None, action }
    }
}

impl From<Option<TurnEvent>> for TranslatorOutput {
    fn from(event: Option<TurnEvent>) -> Self {
        Self { event, action: Action::Continue }
    }
}
