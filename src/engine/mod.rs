//! How a turn is executed: the trait that the core calls, and what it gives and gets.
//! Engines speak the contract's own events; they know neither the service nor the doors.

mod app_server;
mod choice;
pub(crate) mod cli;
pub mod exec;
pub mod process;
mod selector;

pub use self::choice::{ChoiceError, choose, examine};

use std::{any::Any, fmt, pin::Pin};

use bytes::Bytes;
use futures_util::Stream;

use super::{
    config::{Profile, Sandbox},
    error::Error,
    pb,
};

/// Executes turns.
#[tonic::async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Starts a turn. Dropping the returned events cancels it; `slot` is dropped when the last of its work is gone.
    ///
    /// The stream ends with exactly one [`Event::Finished`](TurnEvent::Finished) or one error.
    async fn run(&self, turn: Turn, slot: TurnGuard) -> Result<Events, Error>;

    /// Whether a turn can run now. Cheap: a good answer is remembered, a bad one is checked again.
    async fn status(&self) -> EngineStatus;

    /// Turns that it runs well at once; may change with the installed CLI.
    fn usual_concurrency(&self) -> usize;

    /// Refuses what this engine cannot do, before the turn is admitted.
    fn check(&self, turn: &Turn) -> Result<(), Error>;

    /// The models that the CLI knows, the usual one first; none where it cannot be asked.
    async fn models(&self) -> Vec<pb::Model>;

    /// Profiles that a request may ask for. Told at once, by what is known of the CLI.
    fn profiles(&self) -> Vec<Profile>;

    /// Ends what is left of all turns, read or not, and waits until nothing of them is alive.
    async fn drain(&self);
}

/// What one turn needs, already validated: no question is left that an engine would have to ask.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// Names the turn in logs and temporary files.
    pub id: String,
    /// The model's real name, aliases resolved.
    pub model: String,
    /// The conversation, oldest first, never empty.
    pub messages: Vec<Message>,
    /// Functions of the client.
    pub tools: Vec<pb::Tool>,
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

/// A picture.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file's bytes.
    pub data: Bytes,
    /// What they are.
    pub kind: ImageKind,
}

/// What stands between thoughts of their own.
const THOUGHT_BREAK: &str = "\n\n";

/// Longest id of a call of a client's tool in bytes, in both directions.
pub const LONGEST_CALL_ID: usize = 256;

/// Formats of pictures that Codex takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// image/png
    Png,
    /// image/jpeg
    Jpeg,
    /// image/webp
    Webp,
    /// image/gif
    Gif,
}

impl ImageKind {
    /// Tells the format by content. A file that is cut short has none: Codex would leave it out in silence.
    pub fn of(data: &[u8]) -> Option<Self> {
        imagesize::blob_size(data).ok()?;
        Self::of_head(data).filter(|kind| kind.is_whole(data))
    }

    fn of_head(data: &[u8]) -> Option<Self> {
        // The list is an allow list: whatever else the library may know stays refused.
        match imagesize::image_type(data) {
            Ok(imagesize::ImageType::Png) => Some(Self::Png),
            Ok(imagesize::ImageType::Jpeg) => Some(Self::Jpeg),
            Ok(imagesize::ImageType::Webp) => Some(Self::Webp),
            Ok(imagesize::ImageType::Gif) => Some(Self::Gif),
            Ok(_) | Err(_) => None,
        }
    }

    /// Whether the file has the end that its format wants; anything may follow it.
    fn is_whole(self, data: &[u8]) -> bool {
        let holds = |end: &[u8]| data.windows(end.len()).rev().any(|window| window == end);
        match self {
            Self::Png => holds(b"IEND\xaeB`\x82"),
            Self::Jpeg => holds(b"\xff\xd9"),
            Self::Gif => holds(b"\x00\x3b"),
            Self::Webp => {
                let told = data.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
                told.and_then(|told| usize::try_from(told).ok()).is_some_and(|told| told + 8 <= data.len())
            }
        }
    }

    /// The file extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
            Self::Gif => "gif",
        }
    }
}

/// Form of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format {
    /// Plain text.
    #[default]
    Text,
    /// A JSON object, by instruction.
    JsonObject,
    /// JSON by a schema (JSON text of an object), enforced upstream.
    JsonSchema(String),
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

/// Whether an engine can run a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineStatus {
    /// `exec` or `app-server`; `auto` while nothing can be chosen.
    pub kind: &'static str,
    /// Version of the CLI, empty when it could not be asked.
    pub version: String,
    /// Why no turn can run, and what to do about it.
    pub trouble: Option<String>,
}

/// One finding of `codex-api doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What came out.
    pub outcome: Outcome,
    /// What was found.
    pub says: String,
    /// What to do about it; empty if nothing.
    pub remedy: &'static str,
}

/// What came out of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Works, but worth knowing.
    Odd,
    /// Turns will fail.
    Bad,
}

impl Check {
    /// As it should be.
    pub fn good(name: &'static str, says: String) -> Self {
        Self { name, outcome: Outcome::Good, says, remedy: "" }
    }

    /// Works, but worth knowing.
    pub fn odd(name: &'static str, says: String, remedy: &'static str) -> Self {
        Self { name, outcome: Outcome::Odd, says, remedy }
    }

    /// Turns will fail.
    pub fn bad(name: &'static str, says: String, remedy: &'static str) -> Self {
        Self { name, outcome: Outcome::Bad, says, remedy }
    }

    /// Makes a failure something worth knowing.
    fn soften(&mut self) {
        if self.outcome == Outcome::Bad {
            self.outcome = Outcome::Odd;
        }
    }
}
