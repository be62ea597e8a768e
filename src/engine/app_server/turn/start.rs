//! The parameters for starting a turn. Large parameters, such as tool schemas and images, are dropped once the turn has
//! started.

use super::params::ThreadParams;
use crate::engine::{
    Format, Turn,
    app_server::{
        history::InitialHistory,
        rpc::protocol::{InjectItems, StartTurn},
    },
};

/// The parameters for starting one turn.
#[derive(Debug)]
pub(crate) struct TurnStart {
    pub(crate) turn: Turn,
    pub(crate) thread_params: ThreadParams,
    pub(crate) history: InitialHistory,
}

impl TurnStart {
    /// Returns the parameters of `thread/inject_items`. Takes the items of the history.
    pub(crate) fn inject_items<'a>(&mut self, thread_id: &'a str) -> InjectItems<'a> {
        InjectItems { thread_id, items: std::mem::take(&mut self.history.items) }
    }

    /// Returns the parameters of `turn/start`.
    pub(crate) fn start_turn<'a>(&'a self, thread_id: &'a str) -> StartTurn<'a> {
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
