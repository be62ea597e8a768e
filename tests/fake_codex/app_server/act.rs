//! What a turn does, one small act after the other.

use std::time::Duration;

use serde_json::Value;

use super::{failures::Failure, wire::Usage};

/// What follows when the client has answered.
pub(crate) type Then = Box<dyn FnOnce(Vec<Answer>) -> Vec<Act>>;

/// One act of a turn.
pub(crate) enum Act {
    /// Nothing for so long.
    Pause(Duration),
    /// A message of the agent begins; with its phase.
    Open(Option<&'static str>),
    /// A piece of it.
    Delta(String),
    /// So many pieces, one each so often, each with the time it was sent at.
    Stream { left: usize, every: Duration },
    /// So many bytes of pieces, as fast as they are read.
    Flood { left: usize },
    /// The message ends.
    Close,
    /// A thought: pieces of its summary, and the raw text if the model shows it.
    Think { summary: Vec<String>, raw: Option<&'static str> },
    /// An item begins.
    Started(Value),
    /// An item ends, or an update takes its place.
    Completed(Value),
    /// A notification; thread and turn are added.
    Notify(&'static str, Value),
    /// What the upstream sent, for those who asked for raw events; without its `internal_chat_message…`.
    Raw(Value),
    /// A response of the model is complete.
    Response(Usage),
    /// A response of the model ends before it is complete: it costs, but nobody says which one did.
    Unfinished(Usage),
    /// Its usage is told, after its tools are done.
    Settle,
    /// The model calls a tool of the client. The arguments are as it wrote them.
    Call { tool: String, arguments: String },
    /// Another request to the client.
    Ask(&'static str, Value),
    /// Waits till every request is answered.
    Await(Then),
    /// An `error` notification of this error after which it is tried again.
    Retry(Value),
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// So many bytes of log on stderr.
    Stderr(usize),
    /// Takes so many bytes of memory and never gives them back.
    Leak(usize),
    /// Starts the grandchild that ignores signals.
    Grandchild,
    /// Waits for a byte in this pipe.
    Gate(String),
    /// Stops reading requests, for ever.
    CloseStdin,
    /// Stops itself as SIGSTOP does.
    Stop,
    /// The process ends.
    Exit { code: u8, words: &'static str },
    /// Nothing more, till it is interrupted.
    Hang,
    /// The good end.
    Finish,
    /// The bad end.
    Fail(Failure),
}

/// What the client answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The method of the request.
    pub(crate) method: &'static str,
    /// The text that goes to the model.
    pub(crate) text: String,
    /// Whether the tool worked.
    pub(crate) success: bool,
    /// Result or error, as it came.
    pub(crate) answer: Value,
}

/// A whole message in pieces.
pub(crate) fn message(pieces: Vec<String>, phase: Option<&'static str>) -> Vec<Act> {
    let mut acts = vec![Act::Open(phase)];
    acts.extend(pieces.into_iter().map(Act::Delta));
    acts.push(Act::Close);
    acts
}

/// The text in words, each with the space behind it.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// The last message, the usage and the good end.
pub(crate) fn answer(text: &str, usage: Usage) -> Vec<Act> {
    let mut acts = message(words(text), None);
    acts.extend([Act::Response(usage), Act::Settle, Act::Finish]);
    acts
}
