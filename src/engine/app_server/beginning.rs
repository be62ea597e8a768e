//! What it takes to start a turn on a worker: much, with the client's tools and a history of pictures among it. A turn
//! lets go of it as soon as it runs.

use serde_json::{Value, json};

use super::{history::Opening, setting::Setting};
use crate::{
    engine::{Format, Turn},
    error::Error,
};

/// Of one turn.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) turn: Turn,
    /// Of its thread.
    pub(super) setting: Setting,
    /// What the thread is told first.
    pub(super) opening: Opening,
}

impl Beginning {
    /// For `thread/inject_items`.
    pub(super) fn items(&mut self, thread: &str) -> Value {
        json!({"threadId": thread, "items": std::mem::take(&mut self.opening.items)})
    }

    /// For `turn/start`.
    pub(super) fn turn(&self, thread: &str) -> Result<Value, Error> {
        let mut params = json!({
            "threadId": thread,
            "input": [],
            "effort": self.turn.reasoning_effort,
            "summary": self.turn.reasoning_summary,
        });
        if let Format::JsonSchema(schema) = &self.turn.format {
            params["outputSchema"] = serde_json::from_str(schema).map_err(Error::internal)?;
        }
        Ok(params)
    }
}
