//! Encodes the contract's events as the frames of a chat completion stream. A pure state machine without I/O and clock,
//! which turns one event into bytes.

use bytes::BytesMut;
use serde::Serialize;
use tonic::Status;

use super::response::{Notice, ToolCall, Usage, finish_reason, non_empty};
use crate::{
    error::Error,
    http::sse,
    pb::{self, chat_event::Event},
};

/// Encodes one stream. Owned by its body.
#[derive(Debug)]
pub(super) struct ChunkEncoder {
    head: Head,
    options: ChunkOptions,
    choices: Vec<ChoiceState>,
    phase: Phase,
}

/// What the client wants in its stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ChunkOptions {
    /// Whether the last chunk has the usage.
    pub(super) include_usage: bool,
    /// Whether notices are sent as comments. Some clients parse every line as JSON.
    pub(super) notices: bool,
}

/// The fields that every chunk of a stream repeats.
#[derive(Debug, Default)]
struct Head {
    id: String,
    created: i64,
    model: String,
    system_fingerprint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// `started` has not come yet.
    Waiting,
    /// The role chunks are not written yet.
    Started,
    Running,
    Complete,
}

/// The progress of one answer.
#[derive(Debug, Clone, Copy, Default)]
struct ChoiceState {
    tool_calls: u32,
    finished: bool,
}

/// The new part of an answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Delta<'a> {
    Role { role: &'static str, content: Option<&'static str>, refusal: () },
    Content { content: &'a str },
    Reasoning { reasoning_content: &'a str },
    ToolCalls { tool_calls: [ToolCallDelta; 1] },
    Empty {},
}

#[derive(Debug, Serialize)]
struct ToolCallDelta {
    index: u32,
    #[serde(flatten)]
    call: ToolCall,
}

impl ChunkEncoder {
    /// Begins a stream of `choices` answers with its first event. Fails unless that is `started`, or a heartbeat of a
    /// request that waits.
    pub(super) fn new(first: pb::ChatEvent, choices: u32, options: ChunkOptions) -> Result<Self, Status> {
        let choices = vec![ChoiceState::default(); choices as usize];
        let mut encoder = Self { head: Head::default(), options, choices, phase: Phase::Waiting };
        encoder.start(first)?;
        Ok(encoder)
    }

    /// Handles an event in [`Phase::Waiting`].
    fn start(&mut self, event: pb::ChatEvent) -> Result<(), Status> {
        match event.event {
            Some(Event::Started(started)) => {
                self.head = Head {
                    id: event.id,
                    created: started.created_unix_seconds,
                    model: started.model,
                    system_fingerprint: non_empty(started.system_fingerprint),
                };
                self.phase = Phase::Started;
                Ok(())
            }
            Some(Event::Heartbeat(_)) => Ok(()),
            _ => Err(Error::internal("a stream of events did not begin with `started`").into()),
        }
    }

    /// Returns whether `started` has not come yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.phase == Phase::Waiting
    }

    /// Returns whether the role chunks are not written yet.
    pub(super) fn needs_roles(&self) -> bool {
        self.phase == Phase::Started
    }

    /// Writes the role chunk of every answer, which precedes its other chunks. `content` is `null` for an answer that
    /// begins with a tool call according to `is_call`. A second call writes nothing.
    pub(super) fn role_chunks(&mut self, is_call: impl Fn(u32) -> bool, out: &mut BytesMut) {
        if !self.needs_roles() {
            return;
        }
        self.phase = Phase::Running;
        for (index, _) in (0..).zip(&self.choices) {
            let content = (!is_call(index)).then_some("");
            self.write_delta(index, &Delta::Role { role: "assistant", content, refusal: () }, out);
        }
    }

    /// Writes the frames of an event. Fails as an internal error if the contract does not allow the event here.
    pub(super) fn push(&mut self, event: pb::ChatEvent, out: &mut BytesMut) -> Result<(), Status> {
        match self.phase {
            Phase::Waiting => return self.start(event),
            Phase::Complete => return Err(Error::internal("an event came after `completed`").into()),
            Phase::Started | Phase::Running => {}
        }
        let index = event.choice_index;
        let Some(event) = event.event else { return Ok(()) };
        match event {
            Event::TextDelta(delta) => {
                self.open_choice(index)?;
                self.write_delta(index, &Delta::Content { content: &delta.text }, out);
            }
            Event::ReasoningDelta(delta) => {
                self.open_choice(index)?;
                self.write_delta(index, &Delta::Reasoning { reasoning_content: &delta.text }, out);
            }
            Event::ToolCall(call) => {
                let choice = self.open_choice(index)?;
                let call = ToolCallDelta { index: choice.tool_calls, call: ToolCall::from(call) };
                choice.tool_calls += 1;
                self.write_delta(index, &Delta::ToolCalls { tool_calls: [call] }, out);
            }
            Event::ChoiceFinished(finished) => {
                self.open_choice(index)?.finished = true;
                let finish_reason = Some(finish_reason(finished.finish_reason()));
                let choice = ChunkChoice { index, delta: &Delta::Empty {}, logprobs: (), finish_reason };
                self.write_chunk(&[choice], self.null_usage(), out);
            }
            Event::Completed(completed) => {
                if !self.choices.iter().all(|choice| choice.finished) {
                    return Err(Error::internal("`completed` came before every answer was finished").into());
                }
                self.phase = Phase::Complete;
                if let Some(usage) = completed.usage.filter(|_| self.options.include_usage) {
                    self.write_chunk(&[], Some(Some(Usage::from(usage))), out);
                }
            }
            Event::Started(_) => return Err(Error::internal("`started` came twice").into()),
            Event::Notice(notice) if self.options.notices => sse::write_notice(out, &Notice::from(notice)),
            Event::Notice(_) => {}
            // OpenAI's stream has no frame for the agent's own work. A silent body has keep-alives of its own.
            Event::Item(_) | Event::Heartbeat(_) | Event::MessageStarted(_) => {}
        }
        Ok(())
    }

    /// Writes a chunk without content. Its choice has an empty delta, because clients read `choices[0]` of chunks without
    /// usage.
    pub(super) fn empty_chunk(&self, out: &mut BytesMut) {
        let open = (0..).zip(&self.choices).find(|(_, choice)| !choice.finished);
        self.write_delta(open.map_or(0, |(index, _)| index), &Delta::Empty {}, out);
    }

    /// Returns whether `completed` was written.
    pub(super) fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    fn write_delta(&self, index: u32, delta: &Delta<'_>, out: &mut BytesMut) {
        let choice = ChunkChoice { index, delta, logprobs: (), finish_reason: None };
        self.write_chunk(&[choice], self.null_usage(), out);
    }

    fn write_chunk(&self, choices: &[ChunkChoice<'_>], usage: Option<Option<Usage>>, out: &mut BytesMut) {
        let chunk = Chunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: self.head.system_fingerprint.as_deref(),
            choices,
            usage,
        };
        sse::write_event(out, &chunk);
    }

    /// Returns the `usage` of every chunk but the last: `null` if usage was requested, else absent.
    fn null_usage(&self) -> Option<Option<Usage>> {
        self.options.include_usage.then_some(None)
    }

    /// Returns the state of an answer that an event may continue.
    fn open_choice(&mut self, index: u32) -> Result<&mut ChoiceState, Status> {
        let choice = self.choices.get_mut(index as usize).filter(|choice| !choice.finished);
        choice.ok_or_else(|| Error::internal("an event came for an answer that is not open").into())
    }
}

#[derive(Debug, Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: Option<&'a str>,
    choices: &'a [ChunkChoice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: &'a Delta<'a>,
    logprobs: (),
    finish_reason: Option<&'static str>,
}

#[cfg(test)]
mod tests;
