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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::app_server::rpc::protocol::{ContentPart, RawItem};

    #[test]
    fn drop_large_parts_keeps_a_small_history_only() {
        for (bytes, kept) in [(1 << 10, true), (MAX_KEPT_BYTES, false)] {
            let content = vec![ContentPart::InputText("x".repeat(bytes))];
            let items = vec![RawItem::message("user", content)];
            let history = InitialHistory { developer_instructions: None, items };
            let mut start =
                TurnStart { turn: Turn::default(), thread_params: ThreadParams::default(), history };
            start.drop_large_parts();
            assert_eq!(start.can_start_thread(), kept, "{bytes} bytes");
        }
    }
}
