//! Converts the agent's actions from items of the app-server to items of the contract. Pure.

use serde_json::Value;

use crate::{
    engine::app_server::rpc::protocol::{ItemStatus, McpToolCall, PlanUpdate, ThreadItem, ThreadItemKind},
    error::foreign_text,
    pb::{self, item::Kind},
};

/// Converts an item. Leaves the kind unset if the contract has no equivalent.
pub(crate) fn convert(item: ThreadItem, completed: bool) -> pb::Item {
    pb::Item { status: status(item.status, completed).into(), kind: kind(item.kind), id: item.id }
}

/// Converts the agent's plan, which arrives in its own notification.
pub(crate) fn plan(update: PlanUpdate) -> pb::Item {
    let steps: Vec<pb::todo_list::Step> = update
        .plan
        .into_iter()
        .map(|step| pb::todo_list::Step { completed: step.status == ItemStatus::Completed, text: step.step })
        .collect();
    let done = steps.iter().all(|step| step.completed);
    let status = if done { pb::ItemStatus::Completed } else { pb::ItemStatus::InProgress };
    let kind = Some(Kind::TodoList(pb::TodoList { steps }));
    pb::Item { id: "plan".to_owned(), status: status.into(), kind }
}

fn status(status: ItemStatus, completed: bool) -> pb::ItemStatus {
    match status {
        ItemStatus::InProgress => pb::ItemStatus::InProgress,
        ItemStatus::Failed => pb::ItemStatus::Failed,
        ItemStatus::Declined => pb::ItemStatus::Declined,
        ItemStatus::Completed | ItemStatus::Unknown if completed => pb::ItemStatus::Completed,
        ItemStatus::Completed | ItemStatus::Unknown => pb::ItemStatus::InProgress,
    }
}

fn kind(kind: ThreadItemKind) -> Option<Kind> {
    Some(match kind {
        ThreadItemKind::CommandExecution { command, aggregated_output, exit_code } => {
            Kind::CommandExecution(pb::CommandExecution { command, aggregated_output, exit_code })
        }
        ThreadItemKind::FileChange { changes } => Kind::FileChange(pb::FileChange {
            changes: changes
                .into_iter()
                .map(|change| pb::file_change::Change { path: change.path, kind: change.kind.into_name() })
                .collect(),
        }),
        ThreadItemKind::McpToolCall(call) => {
            let McpToolCall { server, tool, arguments, result, error } = *call;
            let (arguments, result, error) =
                (json(&arguments), json(&result), foreign_text::bounded(&error.into_text()));
            Kind::McpToolCall(pb::McpToolCall { server, tool, arguments, result, error })
        }
        ThreadItemKind::WebSearch { query } => Kind::WebSearch(pb::WebSearch { query }),
        ThreadItemKind::Plan { text } => Kind::AgentMessage(pb::AgentMessage { text }),
        ThreadItemKind::AgentMessage { .. }
        | ThreadItemKind::ContextCompaction
        | ThreadItemKind::Reasoning
        | ThreadItemKind::UserMessage
        | ThreadItemKind::DynamicToolCall
        | ThreadItemKind::HookPrompt
        | ThreadItemKind::FunctionCallOutput
        | ThreadItemKind::Unknown => return None,
    })
}

fn json(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}
