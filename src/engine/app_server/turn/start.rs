//! The parameters for starting a turn. They are dropped at the first output of the turn, because until then the turn may
//! start again. Large parameters, such as images, are dropped once the history is injected.

use super::params::ThreadParams;
use crate::engine::{
    Format, Turn,
    app_server::{
        history::{InitialHistory, response_item},
        rpc::protocol::{InjectItems, StartTurn},
    },
};

/// Maximum size of the parameters that are kept for another thread, in bytes.
const MAX_KEPT_BYTES: usize = 256 << 10;

/// The parameters for starting one turn.
#[derive(Debug)]
pub(crate) struct TurnStart {
    pub(crate) turn: Turn,
    pub(crate) thread_params: ThreadParams,
    pub(crate) history: InitialHistory,
}

impl TurnStart {
    /// Returns the parameters of `thread/inject_items`.
    pub(crate) fn inject_items<'a>(&'a self, thread_id: &'a str) -> InjectItems<'a> {
        InjectItems { thread_id, items: &self.history.items }
    }

    /// Drops the parameters of another thread if they are large.
    pub(crate) fn drop_large_parts(&mut self) {
        let items: usize = self.history.items.iter().map(response_item::heap_size).sum();
        if items + self.thread_params.heap_size() > MAX_KEPT_BYTES {
            self.history.items = Vec::new();
            self.history.developer_instructions = None;
            self.thread_params = ThreadParams::default();
        }
    }

    /// Returns `true` if the turn can start on another thread.
    pub(crate) fn can_start_thread(&self) -> bool {
        !self.history.items.is_empty()
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
