//! What an engine gets and gives: one validated turn and its events.

use std::{any::Any, fmt, pin::Pin, sync::Arc};

use futures_util::Stream;

use super::{
    image::Image,
    tool::{ResponseSchema, Tool},
};
use crate::{
    config::{Profile, Sandbox},
    error::Error,
    pb,
};

/// What stands between thoughts of their own.
pub(crate) const THOUGHT_BREAK: &str = "\n\n";

/// Longest id of a call of a client's tool in bytes, in both directions.
pub const LONGEST_CALL_ID: usize = 256;

/// What one turn needs, already validated: no question is left that an engine would have to ask.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// Names the turn in logs and temporary files.
    pub id: String,
    /// The model's real name, aliases resolved.
    pub model: String,
    /// The conversation, oldest first, never empty.
    pub messages: Vec<Message>,
    /// Functions of the client. Shared by the choices of a request.
    pub tools: Arc<[Tool]>,
    /// How the model may use `tools`; whatever it says, there are none where the client allows none.
    pub tool_choice: ToolChoice,
    /// Whether the model may call several tools at once.
    pub parallel_tool_calls: bool,
    /// Effort, a word the model knows.
    pub reasoning_effort: String,
    /// Summaries of thoughts, a word of [`SUMMARIES`](crate::config::SUMMARIES).
    pub reasoning_summary: String,
    /// Verbosity, or the model's default.
    pub verbosity: Option<String>,
    /// Form of the answer.
    pub format: Format,
    /// Sandbox of the agent's commands, already narrowed.
    pub sandbox: Sandbox,
    /// Live web search, already narrowed.
    pub web_search: bool,
    /// What the model is given, already narrowed.
    pub profile: Profile,
    /// When its work must end, whether or not somebody reads its events.
    pub deadline: Option<tokio::time::Instant>,
}

/// How the model may use the client's tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// It must call one at least.
    Required,
    /// It must call this one.
    Named(String),
}

/// One message of a turn.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The speaker's name.
    pub name: Option<String>,
    /// What is said.
    pub parts: Vec<Part>,
    /// Calls made in it (assistant only).
    pub tool_calls: Vec<pb::ToolCall>,
    /// The call it answers (tool only).
    pub tool_call_id: Option<String>,
}

/// Who speaks. The contract's enum without its zero value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Operator.
    System,
    /// Application.
    Developer,
    /// Person.
    User,
    /// Model.
    Assistant,
    /// Result of a tool.
    Tool,
}

/// One part of a message.
#[derive(Debug, Clone)]
pub enum Part {
    /// Text.
    Text(String),
    /// A picture, checked by content.
    Image(Image),
}

/// Form of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format {
    /// Plain text.
    #[default]
    Text,
    /// A JSON object, by instruction.
    JsonObject,
    /// JSON by a schema, which the upstream enforces. Shared by the choices of a request.
    JsonSchema(Arc<ResponseSchema>),
}

impl Format {
    /// Whether the upstream enforces it.
    pub fn is_schema(&self) -> bool {
        matches!(self, Self::JsonSchema(_))
    }
}

/// Held as long as anything of a turn is alive, then dropped: the admission permit, opaque to the engine.
pub struct TurnGuard(#[expect(dead_code, reason = "held for its destructor")] Box<dyn Any + Send>);

impl TurnGuard {
    /// Wraps whatever must live as long as the turn's work.
    pub fn new(permit: impl Any + Send) -> Self {
        Self(Box::new(permit))
    }
}

impl fmt::Debug for TurnGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

/// What happens in a turn.
pub type Events = Pin<Box<dyn Stream<Item = Result<TurnEvent, Error>> + Send>>;

/// One thing that happens in a turn: the contract's own messages, before the service numbers them.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEvent {
    /// A whole message of the agent begins; its text follows in deltas.
    MessageStarted,
    /// Text of the current message.
    Text(String),
    /// Thoughts.
    Reasoning(String),
    /// A call of a client's tool.
    ToolCall(pb::ToolCall),
    /// What the agent does.
    Item(Box<pb::Item>),
    /// A warning or a retry.
    Notice(pb::Notice),
    /// The end, once.
    Finished {
        /// Why it ended.
        reason: pb::FinishReason,
        /// Tokens of this turn, if Codex told them.
        usage: Option<pb::Usage>,
    },
}
