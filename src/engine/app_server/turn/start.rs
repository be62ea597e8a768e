//! What it takes to start a turn on a worker: much, with the client's tools and a history of pictures among it. A turn
//! lets go of it as soon as it runs.

use serde_json::{Value, json};

use super::params::ThreadParams;
use crate::engine::app_server::history::InitialHistory;
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
    pub(crate) fn items(&mut self, thread: &str) -> Value {
        json!({"threadId": thread, "items": std::mem::take(&mut self.opening.items)})
    }

    /// For `turn/start`.
    pub(crate) fn turn(&self, thread: &str) -> Value {
        let mut params = json!({
            "threadId": thread,
            "input": [],
            "effort": self.turn.reasoning_effort,
            "summary": self.turn.reasoning_summary,
        });
        if let Format::JsonSchema(schema) = &self.turn.format {
            params["outputSchema"] = schema.value.clone();
        }
        params
    }
}
