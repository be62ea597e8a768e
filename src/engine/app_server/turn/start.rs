//! What it takes to start a turn on a worker: much, with the client's tools and a history of pictures among it. A turn
//! lets go of it as soon as it runs.

use super::params::ThreadParams;
use crate::engine::app_server::{
    history::InitialHistory,
    rpc::protocol::{InjectItems, StartTurn},
};
use crate::engine::{Format, Turn};

/// Of one turn.
#[derive(Debug)]
pub(crate) struct TurnStart {
    pub(crate) turn: Turn,
    /// Of its thread.
    pub(crate) setting: ThreadParams,
    /// What the thread is told first.
    pub(crate) opening: InitialHistory,
}

impl TurnStart {
    /// For `thread/inject_items`.
    pub(crate) fn items<'a>(&mut self, thread_id: &'a str) -> InjectItems<'a> {
        InjectItems { thread_id, items: std::mem::take(&mut self.opening.items) }
    }

    /// For `turn/start`.
    pub(crate) fn turn<'a>(&'a self, thread_id: &'a str) -> StartTurn<'a> {
        let output_schema = match &self.turn.format {
            Format::JsonSchema(schema) => Some(schema.value.clone()),
            Format::Text | Format::JsonObject => None,
        };
        StartTurn {
            thread_id,
            input: [],
            effort: Some(&self.turn.reasoning_effort),
            summary: Some(&self.turn.reasoning_summary),
            output_schema,
        }
    }
}
