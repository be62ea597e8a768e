//! Translates the lines of `codex exec --json` to events of a turn. Pure: no I/O, no clock.

use super::protocol::{ExecEvent, ExecItem, ExecItemKind};
use crate::{
    engine::{
        REASONING_BREAK, TurnEvent,
        cli::{
            error_messages::{self, TurnEnd},
            retries::Retries,
        },
        notice::{notice, retries_exhausted},
    },
    error::Error,
    pb::{self, notice::Kind},
};

/// Translates the lines of one turn.
#[derive(Debug)]
pub(super) struct Translator {
    /// Number of retries of the CLI that are tolerated without output of the upstream in between.
    max_retries: u32,
    retries: Retries,
    last_retry_reason: Option<String>,
    /// The last message of the agent, unless an item followed it.
    answer: Option<String>,
    /// Reasoning was emitted, so that the next piece starts a paragraph.
    has_reasoning: bool,
    /// The CLI may retry a response without a report, as it does over a WebSocket.
    retries_silently: bool,
    /// The CLI has reported a retry since the last action of the agent.
    has_retried: bool,
    /// The messages and the reasoning since the last action of the agent. The repetition of a response that broke off begins
    /// with these items.
    emitted: Emitted,
}

/// Texts of complete items.
#[derive(Debug, Default)]
struct Emitted {
    messages: Vec<String>,
    reasoning: Vec<String>,
}

impl Translator {
    pub(super) fn new(max_retries: u32, retries_silently: bool) -> Self {
        Self {
            max_retries,
            retries_silently,
            has_retried: false,
            retries: Retries::default(),
            last_retry_reason: None,
            answer: None,
            has_reasoning: false,
            emitted: Emitted::default(),
        }
    }

    /// Returns the events of a line. Skips unknown events, and logs lines that are not JSON. A caller must not push
    /// more lines after an error or `Finished`.
    pub(super) fn push(&mut self, line: &[u8]) -> Result<Vec<TurnEvent>, Error> {
        let Some(event) = ExecEvent::parse(line) else {
            if !line.trim_ascii().is_empty() {
                tracing::warn!(bytes = line.len(), "codex printed a line that is not JSON");
            }
            return Ok(Vec::new());
        };
        match event {
            ExecEvent::ItemProgress { item } => Ok(self.on_item(item, false)),
            ExecEvent::ItemCompleted { item } => Ok(self.on_item(item, true)),
            ExecEvent::TurnCompleted { usage } => Ok(vec![TurnEvent::Finished {
                reason: pb::FinishReason::Stop,
                // A turn without any tokens means that the CLI lost the count.
                usage: usage
                    .map(pb::Usage::from)
                    .filter(|usage| *usage != pb::Usage::default())
                    .map(Box::new),
            }]),
            ExecEvent::TurnFailed { error } => match error_messages::classify_message(&error.message) {
                TurnEnd::Truncated(reason) => Ok(vec![TurnEvent::Finished { reason, usage: None }]),
                TurnEnd::Error(error) => Err(error),
            },
            ExecEvent::Error { message } => self.on_error(&message),
            ExecEvent::Unknown => Ok(Vec::new()),
        }
    }

    /// Returns `true` if events before the end were lost. Codex drops events under a flood of deltas (0.169).
    pub(super) fn is_lossy(&self, end: &TurnEvent) -> bool {
        matches!(end, TurnEvent::Finished { usage, .. } if usage.is_none() || self.answer.is_none())
    }

    /// Returns the lost message from the file with the last message.
    pub(super) fn recover(self, last_message: Option<String>) -> Result<Vec<TurnEvent>, Error> {
        match last_message.filter(|text| !text.is_empty()) {
            Some(text) if self.answer.as_ref() == Some(&text) => Ok(Vec::new()),
            Some(text) => Ok(message(text)),
            None if self.answer.is_some() => Ok(Vec::new()),
            None => Err(Error::TurnFailed {
                message: "the Codex CLI ended the turn without an answer".to_owned(),
            }),
        }
    }

    /// Returns the error of a process that exited without ending its turn.
    pub(super) fn on_exit(self, code: Option<i32>, stderr: &str) -> Error {
        match self.last_retry_reason.map(|reason| error_messages::classify_message(&reason)) {
            Some(TurnEnd::Error(error)) => error,
            Some(TurnEnd::Truncated(_)) | None => error_messages::classify_exit(code, stderr),
        }
    }

    fn on_item(&mut self, item: ExecItem, completed: bool) -> Vec<TurnEvent> {
        match item.kind {
            ExecItemKind::AgentMessage { text } if completed => {
                self.retries = Retries::default();
                self.answer = Some(text.clone());
                if self.may_repeat() && self.emitted.messages.contains(&text) {
                    return Vec::new();
                }
                self.emitted.messages.push(text.clone());
                message(text)
            }
            ExecItemKind::Reasoning { text } if completed && !text.is_empty() => {
                if self.may_repeat() && self.emitted.reasoning.contains(&text) {
                    return Vec::new();
                }
                self.emitted.reasoning.push(text.clone());
                let is_first = !std::mem::replace(&mut self.has_reasoning, true);
                let text = if is_first { text } else { format!("{REASONING_BREAK}{text}") };
                vec![TurnEvent::Reasoning(text.into())]
            }
            ExecItemKind::AgentMessage { .. } | ExecItemKind::Reasoning { .. } => Vec::new(),
            ExecItemKind::Error { message } => {
                self.on_warning(&message);
                vec![notice(Kind::Warning, &message)]
            }
            ExecItemKind::CommandExecution { .. }
            | ExecItemKind::FileChange { .. }
            | ExecItemKind::McpToolCall(_)
            | ExecItemKind::WebSearch { .. }
            | ExecItemKind::TodoList { .. }
            | ExecItemKind::Unknown => {
                // The upstream answered after the last retry.
                self.retries = Retries::default();
                if !matches!(item.kind, ExecItemKind::TodoList { .. }) {
                    self.answer = None;
                    self.emitted = Emitted::default();
                    self.has_retried = false;
                }
                vec![TurnEvent::Item(Box::new(item.into_pb(completed)))]
            }
        }
    }

    /// Returns `true` if an item may be part of a repeated response.
    const fn may_repeat(&self) -> bool {
        self.retries_silently || self.has_retried
    }

    /// Starts the count of retries again if Codex changes from a WebSocket to HTTPS.
    fn on_warning(&mut self, message: &str) {
        if error_messages::is_transport_fallback(message) {
            self.retries.fall_back();
            self.has_retried = true;
        }
    }

    /// Handles a retry, reported as `Reconnecting... 1/5 (reason)`, or a warning.
    fn on_error(&mut self, message: &str) -> Result<Vec<TurnEvent>, Error> {
        let Some(rest) = message.strip_prefix("Reconnecting...") else {
            self.on_warning(message);
            return Ok(vec![notice(Kind::Warning, message)]);
        };
        let reason = rest
            .split_once('(')
            .map_or(rest, |(_, reason)| reason.strip_suffix(')').unwrap_or(reason))
            .trim();
        self.has_retried = true;
        // `codex exec` reports whole items, and each of them starts the count again.
        self.retries.record(message, reason, false);
        let outcome = error_messages::classify_message(reason);
        self.last_retry_reason = Some(reason.to_owned());
        match outcome {
            // The client has the partial answer, which a retry would repeat.
            TurnEnd::Truncated(reason) => Ok(vec![TurnEvent::Finished { reason, usage: None }]),
            TurnEnd::Error(error)
                if self.retries.count() > self.max_retries
                    || error_messages::is_rate_limit_without_delay(reason) =>
            {
                Err(retries_exhausted(error))
            }
            TurnEnd::Error(_) => Ok(vec![notice(Kind::Retry, message)]),
        }
    }
}

fn message(text: String) -> Vec<TurnEvent> {
    let text = (!text.is_empty()).then(|| TurnEvent::Text(text.into()));
    std::iter::once(TurnEvent::MessageStarted { is_final: false }).chain(text).collect()
}

#[cfg(test)]
mod tests;
