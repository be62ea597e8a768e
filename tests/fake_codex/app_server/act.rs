//! The acts of a turn.

use std::time::Duration;

use serde_json::Value;

use super::{failures::Failure, wire::Usage};

/// Returns the acts after the responses of the client.
pub(crate) type Continuation = Box<dyn FnOnce(Vec<Answer>) -> Vec<Act>>;

/// One act of a turn.
pub(crate) enum Act {
    /// Pauses for this time.
    Pause(Duration),
    /// Starts an agent message with this phase.
    Open(Option<&'static str>),
    /// Sends a delta of the message.
    Delta(String),
    /// Sends deltas at an interval, each with its time of sending.
    Stream { left: usize, every: Duration },
    /// Sends this many bytes of deltas at full speed.
    Flood { left: usize },
    /// Completes the message.
    Close,
    /// Sends reasoning: deltas of its summary, and optional raw text.
    Reasoning { summary: Vec<String>, raw: Option<&'static str> },
    /// Sends `item/started`.
    Started(Value),
    /// Sends `item/completed`.
    Completed(Value),
    /// Sends a notification with the ids of thread and turn.
    Notify(&'static str, Value),
    /// Sends a notification that belongs to no thread.
    NotifyAll(&'static str, Value),
    /// Sends a raw item of the upstream, without `internal_chat_message…`, if the client requested raw events.
    Raw(Value),
    /// Completes a response of the model.
    Response(Usage),
    /// Ends an incomplete response of the model. Its usage counts, but no `rawResponse/completed` is sent.
    Unfinished(Usage),
    /// Sends the usage of the response, after its tools have finished.
    ReportUsage,
    /// Calls a client tool with the raw arguments of the model.
    Call { tool: String, arguments: String },
    /// Calls a command of the agent. It runs if the thread has an environment.
    OwnCall { command: String },
    /// Starts the commands of the agent that were called.
    StartOwn,
    /// Ends the commands of the agent.
    FinishOwn,
    /// Sends another request to the client.
    Request(&'static str, Value),
    /// Waits until every request has a response.
    Await(Continuation),
    /// Calls the model with the items of the thread.
    CallModel,
    /// Sends an `error` notification with `willRetry`.
    Retry(Value),
    /// Writes raw bytes to stdout.
    Bytes(Vec<u8>),
    /// Writes this many bytes of log to stderr.
    Stderr(usize),
    /// Allocates this many bytes and never frees them.
    Leak(usize),
    /// Starts the grandchild that ignores signals.
    Grandchild,
    /// Waits for a byte from this pipe.
    Gate(String),
    /// Closes stdin.
    CloseStdin,
    /// Stops the process with SIGSTOP.
    Stop,
    /// Exits the process.
    Exit { code: u8, stderr: &'static str },
    /// Waits for an interrupt.
    Hang,
    /// Completes the turn.
    Finish,
    /// Fails the turn.
    Fail(Failure),
}

/// A response of the client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The method of the request.
    pub(crate) method: &'static str,
    /// The text for the model.
    pub(crate) text: String,
    /// Whether the tool succeeded.
    pub(crate) success: bool,
    /// The raw result or error.
    pub(crate) answer: Value,
}

/// Returns the acts of a whole message in deltas.
pub(crate) fn message(pieces: Vec<String>, phase: Option<&'static str>) -> Vec<Act> {
    let mut acts = vec![Act::Open(phase)];
    acts.extend(pieces.into_iter().map(Act::Delta));
    acts.push(Act::Close);
    acts
}

/// Splits a text into words with their trailing spaces.
pub(crate) fn split_words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// Returns the acts of the last message, the usage and the end of the turn.
pub(crate) fn answer(text: &str, usage: Usage) -> Vec<Act> {
    let mut acts = message(split_words(text), None);
    acts.extend([Act::Response(usage), Act::ReportUsage, Act::Finish]);
    acts
}
