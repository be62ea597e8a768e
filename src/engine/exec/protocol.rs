//! Lines of `codex exec --json`, typed (verified with 0.110 to 0.169). Unknown events and items deserialize to `Unknown`,
//! missing fields and fields of another type to their default.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    error::foreign_text,
    pb::{self, item::Kind},
};

/// One line of the output.
#[derive(Debug, Default, Deserialize)]
#[serde(tag = "type")]
pub(super) enum ExecEvent {
    #[serde(rename = "item.started", alias = "item.updated")]
    ItemProgress {
        #[serde(default)]
        item: ExecItem,
    },
    #[serde(rename = "item.completed")]
    ItemCompleted {
        #[serde(default)]
        item: ExecItem,
    },
    #[serde(rename = "turn.completed")]
    TurnCompleted {
        #[serde(default, deserialize_with = "tolerant")]
        usage: Option<ExecUsage>,
    },
    #[serde(rename = "turn.failed")]
    TurnFailed {
        #[serde(default, deserialize_with = "tolerant")]
        error: ErrorMessage,
    },
    /// A warning, or a retry as `Reconnecting... 1/5 (reason)`.
    #[serde(rename = "error")]
    Error {
        #[serde(default, deserialize_with = "tolerant")]
        message: String,
    },
    #[default]
    #[serde(other)]
    Unknown,
}

impl ExecEvent {
    /// Parses a line. Returns `None` if it is not JSON.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        // A `Value` accepts the duplicate key `id` of `web_search` items, which derived structs refuse.
        let value = serde_json::from_slice::<Value>(line).ok()?;
        Some(serde_json::from_value(value).unwrap_or_default())
    }
}

/// The error of a failed turn.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorMessage {
    #[serde(default, deserialize_with = "tolerant")]
    pub(super) message: String,
}

/// Tokens of a turn.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ExecUsage {
    #[serde(default, deserialize_with = "tolerant")]
    input_tokens: u64,
    #[serde(default, deserialize_with = "tolerant")]
    cached_input_tokens: u64,
    #[serde(default, deserialize_with = "tolerant")]
    output_tokens: u64,
    #[serde(default, deserialize_with = "tolerant")]
    reasoning_output_tokens: u64,
}

impl From<ExecUsage> for pb::Usage {
    fn from(usage: ExecUsage) -> Self {
        let ExecUsage { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens } = usage;
        Self { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens, estimated: false }
    }
}

/// An action or message of the agent.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct ExecItem {
    id: String,
    status: ItemStatus,
    pub(super) kind: ExecItemKind,
}

#[derive(Default, Deserialize)]
struct ItemHeader {
    #[serde(default, deserialize_with = "tolerant")]
    id: String,
    #[serde(default, deserialize_with = "tolerant")]
    status: ItemStatus,
}

impl From<Value> for ExecItem {
    fn from(item: Value) -> Self {
        let ItemHeader { id, status } = ItemHeader::deserialize(&item).unwrap_or_default();
        Self { id, status, kind: serde_json::from_value(item).unwrap_or_default() }
    }
}

impl ExecItem {
    /// Converts the item to the contract's item. An unknown kind has no kind set.
    pub(super) fn into_pb(self, completed: bool) -> pb::Item {
        let status = match self.status {
            ItemStatus::InProgress => pb::ItemStatus::InProgress,
            ItemStatus::Failed => pb::ItemStatus::Failed,
            ItemStatus::Declined => pb::ItemStatus::Declined,
            ItemStatus::Other if completed => pb::ItemStatus::Completed,
            ItemStatus::Other => pb::ItemStatus::InProgress,
        };
        pb::Item { id: self.id, status: status.into(), kind: self.kind.into_pb() }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ItemStatus {
    InProgress,
    Failed,
    Declined,
    #[default]
    #[serde(other)]
    Other,
}

/// The kind of an [`ExecItem`], with the fields that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ExecItemKind {
    AgentMessage {
        #[serde(default, deserialize_with = "tolerant")]
        text: String,
    },
    Reasoning {
        #[serde(default, deserialize_with = "tolerant")]
        text: String,
    },
    /// Within a turn, an item of kind `error` is a warning. `turn.failed` reports failures.
    Error {
        #[serde(default, deserialize_with = "tolerant")]
        message: String,
    },
    CommandExecution {
        #[serde(default, deserialize_with = "tolerant")]
        command: String,
        #[serde(default, deserialize_with = "tolerant")]
        aggregated_output: String,
        #[serde(default, deserialize_with = "tolerant")]
        exit_code: Option<i32>,
    },
    FileChange {
        #[serde(default, deserialize_with = "tolerant")]
        changes: Vec<Change>,
    },
    McpToolCall(Box<McpToolCall>),
    WebSearch {
        #[serde(default, deserialize_with = "tolerant")]
        query: String,
    },
    TodoList {
        #[serde(default, deserialize_with = "tolerant")]
        items: Vec<TodoItem>,
    },
    #[default]
    #[serde(other)]
    Unknown,
}

impl ExecItemKind {
    fn into_pb(self) -> Option<Kind> {
        Some(match self {
            Self::CommandExecution { command, aggregated_output, exit_code } => {
                Kind::CommandExecution(pb::CommandExecution { command, aggregated_output, exit_code })
            }
            Self::FileChange { changes } => Kind::FileChange(pb::FileChange {
                changes: changes
                    .into_iter()
                    .map(|Change { path, kind }| pb::file_change::Change { path, kind })
                    .collect(),
            }),
            Self::McpToolCall(call) => {
                let McpToolCall { server, tool, arguments, result, error } = *call;
                let error = error["message"].as_str().map_or_else(|| json_text(&error), str::to_owned);
                let (arguments, result) = (json_text(&arguments), json_text(&result));
                let error = foreign_text::bounded(&error);
                Kind::McpToolCall(pb::McpToolCall { server, tool, arguments, result, error })
            }
            Self::WebSearch { query } => Kind::WebSearch(pb::WebSearch { query }),
            Self::TodoList { items } => Kind::TodoList(pb::TodoList {
                steps: items
                    .into_iter()
                    .map(|TodoItem { text, completed }| pb::todo_list::Step { text, completed })
                    .collect(),
            }),
            Self::AgentMessage { .. } | Self::Reasoning { .. } | Self::Error { .. } | Self::Unknown => {
                return None;
            }
        })
    }
}

/// A call of an MCP tool.
#[derive(Debug, Deserialize)]
pub(super) struct McpToolCall {
    #[serde(default, deserialize_with = "tolerant")]
    server: String,
    #[serde(default, deserialize_with = "tolerant")]
    tool: String,
    #[serde(default)]
    arguments: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Value,
}

/// A change of a file.
#[derive(Debug, Deserialize)]
pub(super) struct Change {
    #[serde(default, deserialize_with = "tolerant")]
    path: String,
    #[serde(default, deserialize_with = "tolerant")]
    kind: String,
}

/// A step of a plan.
#[derive(Debug, Deserialize)]
pub(super) struct TodoItem {
    #[serde(default, deserialize_with = "tolerant")]
    text: String,
    #[serde(default, deserialize_with = "tolerant")]
    completed: bool,
}

fn json_text(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}

/// Deserializes a value, or its default if the JSON has another type.
fn tolerant<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}
