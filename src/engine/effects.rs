//! Whether the agent of a request has begun to act. One bit decides whether a failure may be offered for retry.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::TurnEvent;
use crate::pb::item::Kind;

/// The bit of a request. Its turns share it. An engine sets it as soon as it learns of an action, which may be before the
/// client does; the service reads it when the request fails.
///
/// Everything counts as an action that Codex does beside the model's answer: commands, file changes, calls of MCP servers,
/// web searches, sub-agents, and each kind that this server does not know. Messages, reasoning, the plan and calls of the
/// client's own tools do not count, because they have no effect outside the turn.
#[derive(Debug, Clone, Default)]
pub struct Effects(Arc<AtomicBool>);

impl Effects {
    /// Records that an action may have begun.
    pub fn record(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Records the action that an event reports.
    pub fn record_event(&self, event: &TurnEvent) {
        if is_action(event) {
            self.record();
        }
    }

    /// Returns `true` if an action may have begun.
    pub fn have_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn is_action(event: &TurnEvent) -> bool {
    match event {
        TurnEvent::Item(item) => match &item.kind {
            Some(Kind::TodoList(_) | Kind::AgentMessage(_)) => false,
            Some(
                Kind::CommandExecution(_) | Kind::FileChange(_) | Kind::McpToolCall(_) | Kind::WebSearch(_),
            )
            | None => true,
        },
        TurnEvent::MessageStarted { .. }
        | TurnEvent::Text(_)
        | TurnEvent::Reasoning(_)
        | TurnEvent::ToolCall(_)
        | TurnEvent::Notice(_)
        | TurnEvent::Finished { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn effects_begin_with_any_item_but_plan_and_message() {
        let begins = |kind| {
            let effects = Effects::default();
            effects.record_event(&TurnEvent::Item(Box::new(pb::Item { kind, ..pb::Item::default() })));
            effects.have_begun()
        };
        for kind in [
            None,
            Some(Kind::CommandExecution(pb::CommandExecution::default())),
            Some(Kind::FileChange(pb::FileChange::default())),
            Some(Kind::McpToolCall(pb::McpToolCall::default())),
            Some(Kind::WebSearch(pb::WebSearch::default())),
        ] {
            assert!(begins(kind.clone()), "{kind:?}");
        }
        for kind in [Kind::TodoList(pb::TodoList::default()), Kind::AgentMessage(pb::AgentMessage::default())]
        {
            assert!(!begins(Some(kind.clone())), "{kind:?}");
        }
    }

    #[test]
    fn effects_of_a_clone_are_those_of_the_request() {
        let effects = Effects::default();
        let of_other_choice = effects.clone();
        effects.record_event(&TurnEvent::Text("a".into()));
        effects.record_event(&TurnEvent::ToolCall(Box::default()));
        assert!(!of_other_choice.have_begun());
        effects.record();
        assert!(of_other_choice.have_begun());
    }
}
