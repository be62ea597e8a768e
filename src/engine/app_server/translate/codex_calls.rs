//! Calls of Codex's own tools, which one response may contain beside calls of client tools. Pure.

use std::collections::HashSet;

use crate::engine::app_server::rpc::protocol::RawItem;

/// Outputs for the model. They replace Codex's output of an interrupted call, which claims that the user aborted the call.
const NOT_RUN: &str = "Not run: the application answers its calls of the same reply first. Repeat this call if it is still needed.";
const STOPPED: &str = "Stopped before its end, because the application answers its calls of the same reply first. It may have \
                       had effects: look before you repeat it.";

/// The calls of Codex's own tools in one turn, and their progress.
#[derive(Debug, Default)]
pub(crate) struct CodexToolCalls {
    /// Calls without an output, in order.
    open: Vec<String>,
    /// Calls that Codex reported as started. Codex does not report every tool, and does not report very short commands.
    started: HashSet<String>,
    /// Calls that Codex reported as finished. Outputs arrive in the order of the calls, so an output may arrive later,
    /// behind the missing output of a client call.
    finished: HashSet<String>,
}

impl CodexToolCalls {
    /// Records a raw item that is not a call of a client tool.
    pub(crate) fn on_item(&mut self, item: &RawItem) {
        let Some(id) = item.call_id() else { return };
        if item.kind().ends_with("_call") {
            self.open.push(id.to_owned());
        } else if item.kind().ends_with("_output") {
            self.open.retain(|open| open != id);
        }
    }

    /// Records that an action of the agent started or finished. Most actions have the id of their call.
    pub(crate) fn on_status(&mut self, id: &str, finished: bool) {
        let ids = if finished { &mut self.finished } else { &mut self.started };
        ids.insert(id.to_owned());
    }

    /// Returns `true` if all calls have their output.
    pub(crate) const fn all_have_output(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns `true` if a call has no output.
    pub(crate) fn is_open(&self, id: &str) -> bool {
        self.open.iter().any(|open| open == id)
    }

    /// Returns `true` if all calls have finished, even if their output has not arrived yet.
    pub(crate) fn all_finished(&self) -> bool {
        self.open.iter().all(|id| self.finished.contains(id))
    }

    /// Returns `true` if a call is running and Codex will report its end.
    pub(crate) fn any_running(&self) -> bool {
        self.open.iter().any(|id| self.started.contains(id) && !self.finished.contains(id))
    }

    /// Removes the open calls, because their response broke off.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Replaces the output of an aborted call. Changes no other item.
    pub(crate) fn rewrite_aborted(&self, item: &mut RawItem) {
        let Some(aborted) = item.output().and_then(Aborted::parse) else { return };
        let Some(id) = item.call_id() else { return };
        let started = self.started.contains(id) || aborted == Aborted::Command;
        item.set_output(if started { STOPPED } else { NOT_RUN });
    }
}

/// Codex's output of an aborted call.
#[derive(Debug, PartialEq, Eq)]
enum Aborted {
    /// `aborted by user after 1.5s`
    Any,
    /// `Wall time: 1.5 seconds`, `aborted by user`
    Command,
}

impl Aborted {
    /// Parses an output. Returns `None` if the output contains anything else.
    fn parse(output: &str) -> Option<Self> {
        let is_number = |text: &str| text.parse::<f64>().is_ok();
        let seconds = output.strip_prefix("aborted by user after ").and_then(|rest| rest.strip_suffix('s'));
        if seconds.is_some_and(is_number) {
            return Some(Self::Any);
        }
        let seconds = output.strip_prefix("Wall time: ")?.strip_suffix(" seconds\naborted by user")?;
        is_number(seconds).then_some(Self::Command)
    }
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
    fn call_with_output_or_finished_item_counts_as_finished() {
        let mut calls = CodexToolCalls::default();
        calls.on_item(&json!({"type": "web_search_call", "id": "ws"}).into());
        assert!(calls.all_have_output() && calls.all_finished() && !calls.any_running());
        calls.on_item(&call("1"));
        calls.on_item(&call("2"));
        assert!(!calls.all_finished() && !calls.any_running(), "no start was reported");
        calls.on_status("1", false);
        assert!(calls.any_running());
        calls.on_status("1", true);
        assert!(!calls.all_finished() && !calls.any_running());
        calls.on_item(&output("2", "done"));
        assert!(calls.all_finished() && !calls.all_have_output());
        calls.on_item(&output("1", "done"));
        assert!(calls.all_have_output());
    }

    #[test]
    fn rewrite_aborted_replaces_only_outputs_of_aborted_calls() {
        let mut calls = CodexToolCalls::default();
        calls.on_status("started", false);
        for (id, text, expected) in [
            ("1", "aborted by user after 1.5s", NOT_RUN),
            ("started", "aborted by user after 1.5s", STOPPED),
            ("1", "Wall time: 1.0 seconds\naborted by user", STOPPED),
            ("1", "aborted by user after all", "aborted by user after all"),
            (
                "1",
                "Wall time: 1.0 seconds\nOutput:\naborted by user",
                "Wall time: 1.0 seconds\nOutput:\naborted by user",
            ),
        ] {
            let mut item = output(id, text);
            calls.rewrite_aborted(&mut item);
            assert_eq!(item.output(), Some(expected), "{text}");
        }
    }
}
