//! The input of an engine: a validated turn.

use std::{any::Any, fmt, sync::Arc};

use super::{
    continuation::Continuation,
    effects::Effects,
    image::Image,
    tool::{ResponseSchema, Tool},
};
use crate::{
    config::{Profile, Sandbox},
    pb,
};

/// Separator between two pieces of reasoning.
pub(crate) const REASONING_BREAK: &str = "\n\n";

/// Maximum length of a tool call id in bytes, in both directions.
pub const MAX_CALL_ID_BYTES: usize = 256;

/// A validated turn. An engine needs no further checks and no configuration of the service.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// Identifies the turn in logs and temporary files.
    pub id: String,
    /// Identifies the caller and the end user. Nothing of one caller's conversations is used for another caller's.
    pub caller: String,
    /// Name of the model, with aliases resolved.
    pub model: String,
    /// The conversation, oldest message first. Never empty.
    pub messages: Vec<Message>,
    /// Tools of the client. Shared by the choices of a request.
    pub tools: Arc<[Tool]>,
    /// How the model may use `tools`. `tools` is empty if the client allows none.
    pub tool_choice: ToolChoice,
    /// Whether the model may call several tools at once.
    pub parallel_tool_calls: bool,
    /// Reasoning effort, a value that the model accepts.
    pub reasoning_effort: String,
    /// Reasoning summary, one of [`SUMMARIES`](crate::config::SUMMARIES).
    pub reasoning_summary: String,
    /// Verbosity. `None` selects the model's default.
    pub verbosity: Option<String>,
    /// Service tier of the upstream. `None` selects the upstream's own.
    pub service_tier: Option<String>,
    /// The client's key of requests with a common beginning, for the upstream's prompt cache.
    pub prompt_cache_key: Option<String>,
    /// Format of the answer.
    pub format: Format,
    /// Sandbox of the agent's commands.
    pub sandbox: Sandbox,
    /// Whether live web search is enabled.
    pub web_search: bool,
    /// The profile.
    pub profile: Profile,
    /// The permit for the memory of the content.
    pub content: ContentGuard,
    /// Time at which all work of the turn must end, even if its events are not polled.
    pub deadline: Option<tokio::time::Instant>,
    /// The bit that the engine sets when the agent begins to act. Shared by the choices of a request.
    pub effects: Effects,
    /// The offer to go on where this turn ends. Each choice has its own.
    pub continuation: Continuation,
}

/// How the model may use the client's tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// The model must call at least one tool.
    Required,
    /// The model must call this tool.
    Named(String),
}

/// One message of a turn.
#[derive(Debug, Clone)]
pub struct Message {
    /// Author of the message.
    pub role: Role,
    /// Name of the author.
    pub name: Option<String>,
    /// Content, in order.
    pub parts: Vec<Part>,
    /// Tool calls (assistant only).
    pub tool_calls: Vec<pb::ToolCall>,
    /// Id of the answered call (tool only).
    pub tool_call_id: Option<String>,
}

/// The author of a message. The contract's enum without its zero value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Operator.
    System,
    /// Application.
    Developer,
    /// User.
    User,
    /// Model.
    Assistant,
    /// Result of a tool call.
    Tool,
}

/// One part of a message.
#[derive(Debug, Clone)]
pub enum Part {
    /// Text.
    Text(String),
    /// An image with a detected format.
    Image(Image),
}

/// Format of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format {
    /// Plain text.
    #[default]
    Text,
    /// A JSON object, requested by an instruction and not enforced.
    JsonObject,
    /// JSON that matches a schema, which the upstream enforces. Shared by the choices of a request.
    JsonSchema(Arc<ResponseSchema>),
}

impl Format {
    /// Returns `true` if the upstream enforces the format.
    pub fn is_schema(&self) -> bool {
        matches!(self, Self::JsonSchema(_))
    }
}

/// The permit for the memory of a request's content, opaque to the engine. The engine drops it with the content, when Codex
/// has it. Shared by the choices of a request.
#[derive(Clone, Default)]
pub struct ContentGuard(
    #[expect(dead_code, reason = "held for its destructor")] Option<Arc<dyn Any + Send + Sync>>,
);

impl ContentGuard {
    /// Wraps a permit.
    pub fn new(permit: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(permit)))
    }
}

impl fmt::Debug for ContentGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentGuard")
    }
}

/// The admission permit of a turn, opaque to the engine. The engine drops it when no process and no file of the turn
/// is left.
pub struct TurnGuard(#[expect(dead_code, reason = "held for its destructor")] Box<dyn Any + Send + Sync>);

impl TurnGuard {
    /// Wraps a permit.
    pub fn new(permit: impl Any + Send + Sync) -> Self {
        Self(Box::new(permit))
    }
}

impl fmt::Debug for TurnGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnGuard")
    }
}
