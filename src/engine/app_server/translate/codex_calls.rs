//! Calls of Codex's own tools, which may stand beside calls of the client's in one response: whether they have come
//! to their end, and what is said of those that never do. Pure.

use std::collections::HashSet;

use crate::engine::app_server::rpc::protocol::RawItem;

/// For the model, in place of what Codex says of any call that an interrupt met, as if the user had wanted it.
const NOT_RUN: &str = "Not run: the application answers its calls of the same reply first. Repeat this call if it is still needed.";
const STOPPED: &str = "Stopped before its end, because the application answers its calls of the same reply first. It may have \
                       had effects: look before you repeat it.";

/// What has become of the calls of Codex's own tools in this turn.
#[derive(Debug, Default)]
pub(crate) struct CodexToolCalls {
    /// Those without an output, in order.
    open: Vec<String>,
    /// What Codex said to have begun. Not every tool does, and a command only if it takes a moment.
    begun: HashSet<String>,
    /// What it said to have ended, though the output may come later: outputs come in the order of the calls, and so
    /// behind that of a client's call which has none yet.
    ended: HashSet<String>,
}

impl CodexToolCalls {
    /// A raw item of the response, which is no call of a client's tool.
    pub(crate) fn saw(&mut self, item: &RawItem) {
        let Some(id) = item.call_id() else { return };
        if item.kind().ends_with("_call") {
            self.open.push(id.to_owned());
        } else if item.kind().ends_with("_output") {
            self.open.retain(|open| open != id);
        }
    }

    /// Something that the agent does has begun or ended; mostly it has the id of its call.
    pub(crate) fn heard(&mut self, id: &str, ended: bool) {
        if ended {
            self.ended.insert(id.to_owned());
        } else {
            self.begun.insert(id.to_owned());
        }
    }

    /// Whether all have their outputs.
    pub(crate) fn are_answered(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether all have come to their end, though it may still be said what came of them.
    pub(crate) fn are_over(&self) -> bool {
        self.open.iter().all(|id| self.ended.contains(id))
    }

    /// Whether something runs that will say when it has ended.
    pub(crate) fn run(&self) -> bool {
        self.open.iter().any(|id| self.begun.contains(id) && !self.ended.contains(id))
    }

    /// Forgets those of a response that broke off.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Mends the output of a call that an interrupt met.
    pub(crate) fn mend(&self, output: &mut RawItem) {
        let Some(word) = output.output().and_then(aborted) else { return };
        let Some(id) = output.call_id() else { return };
        let begun = self.begun.contains(id) || word == Aborted::Command;
        output.set_output(if begun { STOPPED } else { NOT_RUN });
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Aborted {
    /// `aborted by user after 1.5s`
    Any,
    /// `Wall time: 1.5 seconds`, `aborted by user`
    Command,
}

/// Whether an output is nothing but Codex's word for a call that it did not end.
fn aborted(output: &str) -> Option<Aborted> {
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    let seconds = output.strip_prefix("aborted by user after ").and_then(|rest| rest.strip_suffix('s'));
    if seconds.is_some_and(is_number) {
        return Some(Aborted::Any);
    }
    let seconds = output.strip_prefix("Wall time: ")?.strip_suffix(" seconds\naborted by user")?;
    is_number(seconds).then_some(Aborted::Command)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(id: &str) -> RawItem {
        json!({"type": "custom_tool_call", "call_id": id, "name": "apply_patch", "input": ""}).into()
    }

    fn output(id: &str, text: &str) -> RawItem {
        json!({"type": "custom_tool_call_output", "call_id": id, "output": text}).into()
    }

    #[test]
    fn a_call_is_over_when_it_has_an_output_or_its_item_has_ended() {
        let mut own = CodexToolCalls::default();
        own.saw(&json!({"type": "web_search_call", "id": "ws"}).into());
        assert!(own.are_answered() && own.are_over() && !own.run());
        own.saw(&call("1"));
        own.saw(&call("2"));
        assert!(!own.are_over() && !own.run(), "nothing says that it has begun");
        own.heard("1", false);
        assert!(own.run());
        own.heard("1", true);
        assert!(!own.are_over() && !own.run());
        own.saw(&output("2", "done"));
        assert!(own.are_over() && !own.are_answered());
        own.saw(&output("1", "done"));
        assert!(own.are_answered());
    }

    #[test]
    fn what_an_interrupt_met_is_said_in_other_words_and_nothing_else_is_changed() {
        let mut own = CodexToolCalls::default();
        own.heard("begun", false);
        for (id, text, expected) in [
            ("1", "aborted by user after 1.5s", NOT_RUN),
            ("begun", "aborted by user after 1.5s", STOPPED),
            ("1", "Wall time: 1.0 seconds\naborted by user", STOPPED),
            ("1", "aborted by user after all", "aborted by user after all"),
            (
                "1",
                "Wall time: 1.0 seconds\nOutput:\naborted by user",
                "Wall time: 1.0 seconds\nOutput:\naborted by user",
            ),
        ] {
            let mut said = output(id, text);
            own.mend(&mut said);
            assert_eq!(said.output(), Some(expected), "{text}");
        }
    }
}
