//! Items of the app-server (what the agent does) → the contract's items. Pure.

use serde_json::Value;

use crate::pb::{self, item::Kind};

/// Translates an item; one of a kind that the contract does not know has no kind set.
pub(crate) fn of(item: &Value, completed: bool) -> pb::Item {
    pb::Item { id: text(item, "id"), status: status(item, completed).into(), kind: kind(item) }
}

/// The agent's plan, which has a notification of its own.
pub(crate) fn plan(params: &Value) -> pb::Item {
    let steps: Vec<pb::todo_list::Step> = list(params, "plan")
        .map(|step| pb::todo_list::Step {
            text: text(step, "step"),
            completed: step["status"] == "completed",
        })
        .collect();
    let done = steps.iter().all(|step| step.completed);
    let status = if done { pb::ItemStatus::Completed } else { pb::ItemStatus::InProgress };
    let kind = Some(Kind::TodoList(pb::TodoList { steps }));
    pb::Item { id: "plan".to_owned(), status: status.into(), kind }
}

fn status(item: &Value, completed: bool) -> pb::ItemStatus {
    match item["status"].as_str() {
        Some("inProgress") => pb::ItemStatus::InProgress,
        Some("failed") => pb::ItemStatus::Failed,
        Some("declined") => pb::ItemStatus::Declined,
        _ if completed => pb::ItemStatus::Completed,
        _ => pb::ItemStatus::InProgress,
    }
}

fn kind(item: &Value) -> Option<Kind> {
    Some(match item["type"].as_str()? {
        "commandExecution" => Kind::CommandExecution(pb::CommandExecution {
            command: text(item, "command"),
            aggregated_output: text(item, "aggregatedOutput"),
            exit_code: item["exitCode"].as_i64().and_then(|code| i32::try_from(code).ok()),
        }),
        "fileChange" => Kind::FileChange(pb::FileChange {
            changes: list(item, "changes")
                .map(|change| {
                    let kind =
                        change["kind"]["type"].as_str().or(change["kind"].as_str()).unwrap_or_default();
                    pb::file_change::Change { path: text(change, "path"), kind: kind.to_owned() }
                })
                .collect(),
        }),
        "mcpToolCall" => Kind::McpToolCall(pb::McpToolCall {
            server: text(item, "server"),
            tool: text(item, "tool"),
            arguments: json(&item["arguments"]),
            result: json(&item["result"]),
            error: item["error"]["message"].as_str().map_or_else(|| json(&item["error"]), str::to_owned),
        }),
        "webSearch" => Kind::WebSearch(pb::WebSearch { query: text(item, "query") }),
        "plan" => Kind::AgentMessage(pb::AgentMessage { text: text(item, "text") }),
        _ => return None,
    })
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn json(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}
