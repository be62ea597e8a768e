//! What comes of one thing that an app-server said: events for the client, and the conductor's part.

use serde_json::Value;

use super::super::{
    rpc::protocol::{RequestId, ToolCallResult},
    tools::call::Call,
};
use crate::{engine::TurnEvent, pb};

/// What is to be done after something was said.
#[derive(Debug, Default)]
pub(crate) struct TranslatorOutput {
    pub(crate) events: Vec<TurnEvent>,
    pub(crate) next: Action,
}

/// The conductor's part.
#[derive(Debug, Default)]
pub(crate) enum Action {
    /// Go on reading.
    #[default]
    Read,
    /// Answer these requests and go on.
    Answer(Vec<(RequestId, ToolCallResult)>),
    /// Check these calls, which may take a while, and tell what came of it: `Translator::checked`.
    Check(Vec<Call>),
    /// Interrupt the turn and go on reading: it then tells what Codex's own calls came to.
    Interrupt,
    /// The client must answer the calls: remember what the model produced, and end the turn.
    HandOver {
        /// The calls, as the client is told them.
        calls: Vec<pb::ToolCall>,
        /// What the model produced in this turn.
        items: Vec<Value>,
    },
    /// The turn has ended by itself.
    Over,
}

impl From<Action> for TranslatorOutput {
    fn from(next: Action) -> Self {
        Self { events: Vec::new(), next }
    }
}

impl From<Option<TurnEvent>> for TranslatorOutput {
    fn from(event: Option<TurnEvent>) -> Self {
        Self { events: event.into_iter().collect(), next: Action::Read }
    }
}
