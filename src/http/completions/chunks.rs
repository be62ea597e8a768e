//! Encodes the contract's events as the frames of a completion stream. A state machine without I/O and clock.

use bytes::BytesMut;
use serde::Serialize;
use tonic::Status;

use super::error;
use crate::{
    error::Error,
    http::{chat::Usage, sse, sse_stream::Encode},
    pb::{self, chat_event::Event},
};

/// Encodes one stream. Owned by its body.
#[derive(Debug, Default)]
pub(super) struct ChunkEncoder {
    include_usage: bool,
    started: pb::Started,
    is_ended: bool,
}

/// One answer, or its new part.
#[derive(Debug, Serialize)]
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) index: u32,
    pub(super) logprobs: (),
    pub(super) finish_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Chunk<'a> {
    id: String,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

impl ChunkEncoder {
    /// Begins a stream. `include_usage` adds a last chunk with the usage.
    pub(super) fn new(include_usage: bool) -> Self {
        Self { include_usage, ..Self::default() }
    }

    fn event(&mut self, event: pb::ChatEvent, out: &mut BytesMut) {
        let (id, index) = (event.id, event.choice_index);
        let choice = |text, finish_reason| Choice { text, index, logprobs: (), finish_reason };
        match event.event {
            Some(Event::Started(started)) => self.started = started,
            Some(Event::TextDelta(delta)) => self.write(&id, vec![choice(delta.text, None)], None, out),
            Some(Event::ChoiceFinished(finished)) => {
                let reason = finish_reason(finished.finish_reason());
                self.write(&id, vec![choice(String::new(), Some(reason))], None, out);
            }
            Some(Event::Completed(completed)) => {
                if let Some(usage) = completed.usage.filter(|_| self.include_usage) {
                    self.write(&id, Vec::new(), Some(usage.into()), out);
                }
                self.is_ended = true;
                out.extend_from_slice(sse::DONE);
            }
            // The API has nothing else.
            Some(
                Event::ReasoningDelta(_)
                | Event::ToolCall(_)
                | Event::Item(_)
                | Event::Notice(_)
                | Event::Heartbeat(_)
                | Event::MessageStarted(_),
            )
            | None => {}
        }
    }

    fn write(&self, id: &str, choices: Vec<Choice>, usage: Option<Usage>, out: &mut BytesMut) {
        let chunk = Chunk {
            id: completion_id(id),
            object: "text_completion",
            created: self.started.created_unix_seconds,
            model: &self.started.model,
            system_fingerprint: &self.started.system_fingerprint,
            choices,
            usage: self.include_usage.then_some(usage),
        };
        sse::write_event(out, &chunk);
    }

    /// Writes the error. No `[DONE]` follows, so that every SDK raises an exception.
    fn fail(&mut self, status: &Status, out: &mut BytesMut) {
        self.is_ended = true;
        sse::write_event(out, &error(status).body());
    }
}

impl Encode for ChunkEncoder {
    type Event = pb::ChatEvent;

    fn push(&mut self, event: Result<pb::ChatEvent, Status>, out: &mut BytesMut) {
        match event {
            Ok(event) => self.event(event, out),
            Err(status) => self.fail(&status, out),
        }
    }

    fn cut(&mut self, out: &mut BytesMut) {
        self.fail(&Error::internal("the stream of events ended without `completed`").into(), out);
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}

/// Returns the id in the form of this API. The log has the id of the turn, with the same digits.
pub(super) fn completion_id(id: &str) -> String {
    format!("cmpl-{}", id.trim_start_matches("chatcmpl-"))
}

/// Returns the API's name of a finish reason.
pub(super) fn finish_reason(reason: pb::FinishReason) -> &'static str {
    match reason {
        // Without tools no answer ends with calls, and the contract never sends the zero value.
        pb::FinishReason::Unspecified | pb::FinishReason::Stop | pb::FinishReason::ToolCalls => "stop",
        pb::FinishReason::Length => "length",
        pb::FinishReason::ContentFilter => "content_filter",
    }
}
