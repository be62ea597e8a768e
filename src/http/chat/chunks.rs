//! From the contract's events to the chunks of a chat completion stream: a pure state machine, one event in, the
//! chunks that it means out. No I/O and no clock.

use serde::Serialize;
use tonic::Status;

use super::response::{Notice, ToolCall, Usage, finish_reason, given};
use crate::{
    error::Error,
    pb::{self, chat_event::Event},
};

/// Makes the chunks of one stream.
#[derive(Debug)]
pub(super) struct ChunkEncoder {
    head: Head,
    include_usage: bool,
    choices: Vec<ChoiceState>,
    phase: Phase,
}

/// What every chunk of a stream repeats.
#[derive(Debug)]
struct Head {
    id: String,
    created: i64,
    model: String,
    system_fingerprint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The role chunks are still to be made.
    Begun,
    Running,
    Complete,
}

/// How far one answer is.
#[derive(Debug, Clone, Copy, Default)]
struct ChoiceState {
    tool_calls: u32,
    finished: bool,
}

/// What one chunk says; [`ChunkEncoder::frame`] puts the head to it.
#[derive(Debug, PartialEq)]
pub(super) enum Chunk {
    /// One answer went on.
    Delta(u32, Delta),
    /// One answer is whole.
    Finish(u32, &'static str),
    /// Tokens, at the very end.
    Usage(Usage),
    /// No chunk of OpenAI's: a comment between them.
    Notice(Notice),
}

/// How an answer went on.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Delta {
    Role { role: &'static str, content: Option<&'static str>, refusal: () },
    Content { content: String },
    Reasoning { reasoning_content: String },
    ToolCalls { tool_calls: [ToolCallDelta; 1] },
    Nothing {},
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ToolCallDelta {
    index: u32,
    #[serde(flatten)]
    call: ToolCall,
}

impl ChunkEncoder {
    /// Begins with the first event, which must be `started`. `choices` is how many answers were asked for.
    pub(super) fn begin(first: pb::ChatEvent, choices: u32, include_usage: bool) -> Result<Self, Status> {
        let Some(Event::Started(started)) = first.event else {
            return Err(Error::internal("a stream of events did not begin with `started`").into());
        };
        let head = Head {
            id: first.id,
            created: started.created_unix_seconds,
            model: started.model,
            system_fingerprint: given(started.system_fingerprint),
        };
        let choices = vec![ChoiceState::default(); choices as usize];
        Ok(Self { head, include_usage, choices, phase: Phase::Begun })
    }

    /// The chunks that come before any event: the role of every answer, without text for those that `is_call` says
    /// begin with a call. Empty when asked again.
    pub(super) fn roles(&mut self, is_call: impl Fn(u32) -> bool) -> Vec<Chunk> {
        if self.phase != Phase::Begun {
            return Vec::new();
        }
        self.phase = Phase::Running;
        let content = |index| (!is_call(index)).then_some("");
        let role = |index| {
            Chunk::Delta(index, Delta::Role { role: "assistant", content: content(index), refusal: () })
        };
        (0..).zip(&self.choices).map(|(index, _)| role(index)).collect()
    }

    /// The chunks that an event means. An event that the contract does not allow here is an inner fault.
    pub(super) fn push(&mut self, event: pb::ChatEvent) -> Result<Vec<Chunk>, Status> {
        if self.phase == Phase::Complete {
            return Err(Error::internal("an event came after `completed`").into());
        }
        let index = event.choice_index;
        let Some(event) = event.event else { return Ok(Vec::new()) };
        Ok(match event {
            Event::TextDelta(delta) => {
                self.open(index)?;
                vec![Chunk::Delta(index, Delta::Content { content: delta.text })]
            }
            Event::ReasoningDelta(delta) => {
                self.open(index)?;
                vec![Chunk::Delta(index, Delta::Reasoning { reasoning_content: delta.text })]
            }
            Event::ToolCall(call) => {
                let choice = self.open(index)?;
                let call = ToolCallDelta { index: choice.tool_calls, call: ToolCall::of(call) };
                choice.tool_calls += 1;
                vec![Chunk::Delta(index, Delta::ToolCalls { tool_calls: [call] })]
            }
            Event::ChoiceFinished(finished) => {
                self.open(index)?.finished = true;
                vec![Chunk::Finish(index, finish_reason(finished.finish_reason()))]
            }
            Event::Completed(completed) => {
                if !self.choices.iter().all(|choice| choice.finished) {
                    return Err(Error::internal("`completed` came before every answer was finished").into());
                }
                self.phase = Phase::Complete;
                let usage = completed.usage.filter(|_| self.include_usage);
                usage.map(|usage| Chunk::Usage(Usage::of(usage))).into_iter().collect()
            }
            Event::Started(_) => return Err(Error::internal("`started` came twice").into()),
            Event::Notice(notice) => vec![Chunk::Notice(Notice::of(notice))],
            // OpenAI's stream has no place for what the agent does besides answering.
            Event::Item(_) => Vec::new(),
        })
    }

    /// Whether the stream came to its proper end.
    pub(super) fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    /// A chunk as it is printed. A notice is none: it is printed by itself.
    pub(super) fn frame<'a>(&'a self, chunk: &'a Chunk) -> impl Serialize + 'a {
        let choice = match chunk {
            Chunk::Delta(index, delta) => Some(ChoiceFrame::new(*index, delta, None)),
            Chunk::Finish(index, reason) => Some(ChoiceFrame::new(*index, &Delta::Nothing {}, Some(reason))),
            Chunk::Usage(_) | Chunk::Notice(_) => None,
        };
        let usage = match chunk {
            Chunk::Usage(usage) => Some(Some(usage)),
            Chunk::Delta(..) | Chunk::Finish(..) => self.include_usage.then_some(None),
            Chunk::Notice(_) => None,
        };
        Frame {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: self.head.system_fingerprint.as_deref(),
            choices: choice.into_iter().collect(),
            usage,
        }
    }

    /// The answer that an event goes on with.
    fn open(&mut self, index: u32) -> Result<&mut ChoiceState, Status> {
        let choice = self.choices.get_mut(index as usize).filter(|choice| !choice.finished);
        choice.ok_or_else(|| Error::internal("an event came for an answer that is not open").into())
    }
}

#[derive(Debug, Serialize)]
struct Frame<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: Option<&'a str>,
    choices: Vec<ChoiceFrame<'a>>,
    /// Absent unless usage was asked for, then `null` until the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<&'a Usage>>,
}

#[derive(Debug, Serialize)]
struct ChoiceFrame<'a> {
    index: u32,
    delta: &'a Delta,
    logprobs: (),
    finish_reason: Option<&'static str>,
}

impl<'a> ChoiceFrame<'a> {
    fn new(index: u32, delta: &'a Delta, finish_reason: Option<&'static str>) -> Self {
        Self { index, delta, logprobs: (), finish_reason }
    }
}

#[cfg(test)]
mod tests;
