//! The model of a turn: each call returns acts for the items of the thread.

use serde_json::{Value, json};

use super::{
    act::Act,
    scenario::Scenario,
    script::{self, TurnInput},
    upstream,
};

/// The model of one turn, with the items of its thread.
#[derive(Debug)]
pub(crate) struct Model {
    scenario: Scenario,
    input: TurnInput,
}

impl Model {
    /// Creates the model of a turn.
    pub(crate) fn new(scenario: Scenario, input: TurnInput) -> Self {
        Self { scenario, input }
    }

    /// Returns the acts of a call. Without a scenario, a thread with a configured upstream uses that upstream.
    pub(crate) fn acts(&self) -> Vec<Act> {
        let thread_start = &self.input.thread_start;
        match upstream::base_url(thread_start).filter(|_| self.scenario == Scenario::Echo) {
            Some(base_url) => {
                let model = thread_start["model"].as_str().unwrap_or("gpt-5.5");
                upstream::acts(&base_url, model, &self.input)
            }
            None => script::acts(&self.scenario, &self.input),
        }
    }

    /// Adds an item to the thread.
    pub(crate) fn push(&mut self, item: Value) {
        self.input.items.push(item);
    }

    /// Returns the items of the thread.
    pub(crate) fn into_items(self) -> Vec<Value> {
        self.input.items
    }

    /// Returns the working folder.
    pub(crate) fn cwd(&self) -> &str {
        &self.input.cwd
    }

    /// Returns whether the thread may run commands.
    pub(crate) fn runs_commands(&self) -> bool {
        script::commands_run(&self.input)
    }

    /// Returns whether the client requested raw events.
    pub(crate) fn has_raw_events(&self) -> bool {
        self.input.thread_start["experimentalRawEvents"] == json!(true)
    }
}

/// Prepends the user message item for the input of a turn.
pub(crate) fn user_message(input: &Value, acts: Vec<Act>) -> Vec<Act> {
    if input.as_array().is_none_or(Vec::is_empty) {
        return acts;
    }
    let id = uuid::Uuid::now_v7();
    let item = json!({"type": "userMessage", "id": id.to_string(), "clientId": null, "content": input});
    [Act::Started(item.clone()), Act::Completed(item)].into_iter().chain(acts).collect()
}
