//! Lines of `codex exec --json` → events of a turn. Pure: no I/O, no clock. An event that it does not know is passed
//! over; a line that is no JSON is reported to the log and passed over too.

use serde_json::Value;

use super::items;
use crate::{
    engine::{
        THOUGHT_BREAK, TurnEvent,
        cli::{error_messages, error_messages::End},
    },
    error::Error,
    pb,
};

/// Translates one turn.
#[derive(Debug)]
pub(super) struct Translator {
    /// How often the CLI may ask the upstream again before we call it a failure.
    retries: u32,
    retried: u32,
    last_retry: Option<String>,
    /// The last message of the agent, if nothing came after it.
    answer: Option<String>,
    /// Some thoughts were told: the next ones are a paragraph of their own.
    thought: bool,
}

impl Translator {
    pub(super) fn new(retries: u32) -> Self {
        Self { retries, retried: 0, last_retry: None, answer: None, thought: false }
    }

    /// What a line means. After an error or `Finished`, nothing more must be pushed.
    pub(super) fn push(&mut self, line: &[u8]) -> Result<Vec<TurnEvent>, Error> {
        // `Value`, not a struct: the CLI writes some keys twice, which serde's structs refuse.
        let Ok(event) = serde_json::from_slice::<Value>(line) else {
            if !line.trim_ascii().is_empty() {
                tracing::warn!(bytes = line.len(), "the CLI printed a line that is not JSON");
            }
            return Ok(Vec::new());
        };
        match text(&event, "type") {
            "item.started" | "item.updated" | "item.completed" => Ok(self.item(&event)),
            "turn.completed" => Ok(vec![TurnEvent::Finished {
                reason: pb::FinishReason::Stop,
                // No turn is free: nothing at all means that the CLI lost count.
                usage: event.get("usage").map(usage).filter(|usage| *usage != pb::Usage::default()),
            }]),
            "turn.failed" => self.failed(text(&event["error"], "message")),
            "error" => self.trouble(text(&event, "message")),
            _ => Ok(Vec::new()),
        }
    }

    /// Whether the end came without what comes before it.
    pub(super) fn is_lossy(&self, end: &TurnEvent) -> bool {
        matches!(end, TurnEvent::Finished { usage, .. } if usage.is_none() || self.answer.is_none())
    }

    /// What was lost on the way, told by the file that holds the last message.
    pub(super) fn recovered(self, last_words: Option<String>) -> Result<Vec<TurnEvent>, Error> {
        match last_words.filter(|text| !text.is_empty()) {
            Some(text) if self.answer.as_ref() == Some(&text) => Ok(Vec::new()),
            Some(text) => Ok(message(&text)),
            None if self.answer.is_some() => Ok(Vec::new()),
            None => Err(Error::TurnFailed {
                message: "the Codex CLI ended the turn without an answer".to_owned(),
            }),
        }
    }

    /// What it means that the process ended without an end of its turn.
    pub(super) fn cut_off(self, code: Option<i32>, stderr: &str) -> Error {
        match self.last_retry.map(|message| error_messages::of_message(&message)) {
            Some(End::Failed(error)) => error,
            Some(End::Cut(_)) | None => error_messages::of_exit(code, stderr),
        }
    }

    fn item(&mut self, event: &Value) -> Vec<TurnEvent> {
        let item = &event["item"];
        let completed = event["type"] == "item.completed";
        match text(item, "type") {
            "agent_message" if completed => {
                self.retried = 0;
                self.answer = Some(text(item, "text").to_owned());
                message(text(item, "text"))
            }
            "reasoning" if completed => {
                let Some(thought) = non_empty(text(item, "text")) else { return Vec::new() };
                let is_next = std::mem::replace(&mut self.thought, true);
                vec![TurnEvent::Reasoning(if is_next {
                    format!("{THOUGHT_BREAK}{thought}")
                } else {
                    thought
                })]
            }
            "agent_message" | "reasoning" => Vec::new(),
            // Within a turn, an item of type `error` is a warning: what fails says `turn.failed`.
            "error" => vec![notice(pb::notice::Kind::Warning, text(item, "message"))],
            _ => {
                // The upstream answered since the last retry, so the count begins anew.
                self.retried = 0;
                self.answer = self.answer.take().filter(|_| text(item, "type") == "todo_list");
                vec![TurnEvent::Item(Box::new(items::of(item, completed)))]
            }
        }
    }

    fn failed(&self, message: &str) -> Result<Vec<TurnEvent>, Error> {
        match error_messages::of_message(message) {
            End::Cut(reason) => Ok(vec![TurnEvent::Finished { reason, usage: None }]),
            End::Failed(error) => Err(error),
        }
    }

    /// A retry, told as `Reconnecting... 1/5 (why)`, or a warning.
    fn trouble(&mut self, message: &str) -> Result<Vec<TurnEvent>, Error> {
        let Some(rest) = message.strip_prefix("Reconnecting...") else {
            return Ok(vec![notice(pb::notice::Kind::Warning, message)]);
        };
        let why = rest.split_once('(').map_or(rest, |(_, why)| why.strip_suffix(')').unwrap_or(why)).trim();
        // The built-in provider tries a WebSocket before HTTPS: its failure is not yet the upstream's.
        let websocket = why.contains("ws://") || why.contains("wss://");
        if websocket {
            return Ok(vec![notice(pb::notice::Kind::Retry, message)]);
        }
        self.retried += 1;
        self.last_retry = Some(why.to_owned());
        match error_messages::of_message(why) {
            // The partial answer has been given; asked again, the model would repeat it.
            End::Cut(reason) => Ok(vec![TurnEvent::Finished { reason, usage: None }]),
            End::Failed(error) if self.retried > self.retries => Err(given_up(error)),
            End::Failed(_) => Ok(vec![notice(pb::notice::Kind::Retry, message)]),
        }
    }
}

/// A failure that nobody could read is still one of the upstream's, as the CLI wanted to reconnect.
fn given_up(error: Error) -> Error {
    if let Error::TurnFailed { message } = error {
        return Error::UpstreamUnavailable { message };
    }
    error
}

fn message(text: &str) -> Vec<TurnEvent> {
    let text = non_empty(text).map(TurnEvent::Text);
    std::iter::once(TurnEvent::MessageStarted).chain(text).collect()
}

fn notice(kind: pb::notice::Kind, message: &str) -> TurnEvent {
    TurnEvent::Notice(pb::Notice { kind: kind.into(), message: message.to_owned() })
}

fn usage(usage: &Value) -> pb::Usage {
    let count = |key: &str| usage[key].as_u64().unwrap_or_default();
    pb::Usage {
        input_tokens: count("input_tokens"),
        cached_input_tokens: count("cached_input_tokens"),
        output_tokens: count("output_tokens"),
        reasoning_output_tokens: count("reasoning_output_tokens"),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
