//! Items of `codex exec --json` (what the agent does) → the contract's items. Pure.

use serde_json::Value;

use crate::pb::{self, item::Kind};

/// Translates an item; one of a kind that the contract does not know has no kind set.
pub(super) fn of(item: &Value, completed: bool) -> pb::Item {
    pb::Item { id: text(item, "id"), status: status(item, completed).into(), kind: kind(item) }
}

fn status(item: &Value, completed: bool) -> pb::ItemStatus {
    match item["status"].as_str() {
        Some("in_progress") => pb::ItemStatus::InProgress,
        Some("failed") => pb::ItemStatus::Failed,
        Some("declined") => pb::ItemStatus::Declined,
        _ if completed => pb::ItemStatus::Completed,
        _ => pb::ItemStatus::InProgress,
    }
}

fn kind(item: &Value) -> Option<Kind> {
    Some(match item["type"].as_str()? {
        "command_execution" => Kind::CommandExecution(pb::CommandExecution {
            command: text(item, "command"),
            aggregated_output: text(item, "aggregated_output"),
            exit_code: item["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()),
        }),
        "file_change" => Kind::FileChange(pb::FileChange {
            changes: list(item, "changes")
                .map(|change| pb::file_change::Change {
                    path: text(change, "path"),
                    kind: text(change, "kind"),
                })
                .collect(),
        }),
        "mcp_tool_call" => Kind::McpToolCall(pb::McpToolCall {
            server: text(item, "server"),
            tool: text(item, "tool"),
            arguments: json(&item["arguments"]),
            result: json(&item["result"]),
            error: error(&item["error"]),
        }),
        "web_search" => Kind::WebSearch(pb::WebSearch { query: text(item, "query") }),
        "todo_list" => Kind::TodoList(pb::TodoList {
            steps: list(item, "items")
                .map(|step| pb::todo_list::Step {
                    text: text(step, "text"),
                    completed: step["completed"].as_bool().unwrap_or_default(),
                })
                .collect(),
        }),
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

fn error(value: &Value) -> String {
    value["message"].as_str().map_or_else(|| json(value), str::to_owned)
}
