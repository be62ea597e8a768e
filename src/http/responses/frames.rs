//! Encodes the contract's events as the frames of a stream of a response. A state machine without I/O and clock, which
//! turns one event into bytes.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use tonic::Status;

use super::{
    convert::param,
    objects::{OutputItem, OutputText, ResponseError, ResponseObject, SummaryText},
};
use crate::{
    error::Error,
    http::{
        error::{ApiError, ErrorObject},
        sse,
        sse_stream::Encode,
    },
    pb::{self, response_event::Event},
};

/// Encodes one stream. Owned by its body.
#[derive(Debug)]
pub(super) struct FrameEncoder {
    /// For each item of the request, its index in the body.
    items: Vec<usize>,
    /// The response so far, for its failure.
    response: pb::Response,
    next_sequence_number: u64,
    is_ended: bool,
}

#[derive(Debug, Serialize)]
struct Frame<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    sequence_number: u64,
    #[serde(flatten)]
    members: T,
}

#[derive(Debug, Serialize)]
struct WithResponse<'a> {
    response: ResponseObject<'a>,
}

#[derive(Debug, Serialize)]
struct WithItem<'a> {
    output_index: u32,
    item: OutputItem<'a>,
}

#[derive(Debug, Serialize)]
struct WithPart<'a, T> {
    item_id: &'a str,
    output_index: u32,
    #[serde(flatten)]
    index: PartIndex,
    part: T,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum PartIndex {
    Content { content_index: u32 },
    Summary { summary_index: u32 },
}

#[derive(Debug, Serialize)]
struct WithText<'a> {
    item_id: &'a str,
    output_index: u32,
    #[serde(flatten)]
    index: Option<PartIndex>,
    #[serde(flatten)]
    text: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<[(); 0]>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Text<'a> {
    Delta { delta: &'a str },
    Whole { text: &'a str },
    Arguments { arguments: &'a str },
}

/// An error in both forms that SDKs read: nested and flat.
#[derive(Debug, Serialize)]
struct WithError<'a> {
    error: ErrorObject<'a>,
    code: &'static str,
    message: &'a str,
    param: Option<&'a str>,
}

impl FrameEncoder {
    /// Begins a stream. `items` has the index in the body of each item of the request.
    pub(super) fn new(items: Vec<usize>) -> Self {
        Self { items, response: pb::Response::default(), next_sequence_number: 0, is_ended: false }
    }

    fn event(&mut self, event: pb::ResponseEvent, out: &mut BytesMut) {
        let number = event.sequence_number;
        let Some(event) = event.event else { return };
        let mut write = Writer { number, out };
        match event {
            Event::Created(response) => {
                write.response("response.created", &response);
                self.response = *response;
            }
            Event::InProgress(response) => write.response("response.in_progress", &response),
            Event::Completed(response) => {
                self.is_ended = true;
                write.response("response.completed", &response);
            }
            Event::Incomplete(response) => {
                self.is_ended = true;
                write.response("response.incomplete", &response);
            }
            Event::OutputItemAdded(added) => write.item("response.output_item.added", &added),
            Event::OutputItemDone(done) => {
                write.item("response.output_item.done", &done);
                self.response.output.extend(done.item);
            }
            Event::ContentPartAdded(part) => {
                write.part("response.content_part.added", &part, OutputText::new, content);
            }
            Event::ContentPartDone(part) => {
                write.part("response.content_part.done", &part, OutputText::new, content);
            }
            Event::ReasoningSummaryPartAdded(part) => {
                write.part("response.reasoning_summary_part.added", &part, SummaryText::new, summary);
            }
            Event::ReasoningSummaryPartDone(part) => {
                write.part("response.reasoning_summary_part.done", &part, SummaryText::new, summary);
            }
            Event::OutputTextDelta(text) => {
                let delta = Text::Delta { delta: &text.text };
                write.text("response.output_text.delta", &text, Some(content), delta);
            }
            Event::OutputTextDone(text) => {
                let whole = Text::Whole { text: &text.text };
                write.text("response.output_text.done", &text, Some(content), whole);
            }
            Event::ReasoningSummaryTextDelta(text) => {
                let delta = Text::Delta { delta: &text.text };
                write.text("response.reasoning_summary_text.delta", &text, Some(summary), delta);
            }
            Event::ReasoningSummaryTextDone(text) => {
                let whole = Text::Whole { text: &text.text };
                write.text("response.reasoning_summary_text.done", &text, Some(summary), whole);
            }
            Event::FunctionCallArgumentsDelta(text) => {
                let delta = Text::Delta { delta: &text.text };
                write.text("response.function_call_arguments.delta", &text, None, delta);
            }
            Event::FunctionCallArgumentsDone(text) => {
                let whole = Text::Arguments { arguments: &text.text };
                write.text("response.function_call_arguments.done", &text, None, whole);
            }
            // OpenAI's stream has no event for these, and a strict client refuses other ones.
            Event::Activity(_) | Event::Notice(_) | Event::Heartbeat(_) => return,
        }
        self.next_sequence_number = number + 1;
        if self.is_ended {
            out.extend_from_slice(sse::DONE);
        }
    }

    /// Writes the error, and the failed response if the response has begun. No `[DONE]` follows.
    fn fail(&mut self, status: &Status, out: &mut BytesMut) {
        self.is_ended = true;
        let error = ApiError::from_status_of(status, |field| param(field, &self.items));
        let object = error.object();
        let ErrorObject { message, kind, param, code } = object;
        let number = self.next_sequence_number;
        let mut write = Writer { number, out };
        write.frame("error", WithError { error: object, code, message, param });
        if self.response.id.is_empty() {
            return;
        }
        let error = ResponseError { code: error.response_code(), message, kind, param };
        let response = ResponseObject::new(&self.response).with_error(error);
        Writer { number: number + 1, out }.frame("response.failed", WithResponse { response });
    }
}

impl Encode for FrameEncoder {
    type Event = pb::ResponseEvent;

    fn push(&mut self, event: Result<pb::ResponseEvent, Status>, out: &mut BytesMut) {
        match event {
            Ok(event) => self.event(event, out),
            Err(status) => self.fail(&status, out),
        }
    }

    fn cut(&mut self, out: &mut BytesMut) {
        self.fail(&Error::internal("the events of a response ended without the last one").into(), out);
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}

fn content(content_index: u32) -> PartIndex {
    PartIndex::Content { content_index }
}

fn summary(summary_index: u32) -> PartIndex {
    PartIndex::Summary { summary_index }
}

/// Writes the frame of one event.
struct Writer<'a> {
    number: u64,
    out: &'a mut BytesMut,
}

impl Writer<'_> {
    fn response(&mut self, kind: &str, response: &pb::Response) {
        self.frame(kind, WithResponse { response: ResponseObject::new(response) });
    }

    fn item(&mut self, kind: &str, event: &pb::ResponseItemEvent) {
        // An item of a kind that this door does not know has no frame.
        if let Some(item) = event.item.as_ref().and_then(OutputItem::new) {
            self.frame(kind, WithItem { output_index: event.output_index, item });
        }
    }

    fn part<'a, T: Serialize>(
        &mut self,
        kind: &str,
        event: &'a pb::ContentPartEvent,
        part: fn(&'a str) -> T,
        index: fn(u32) -> PartIndex,
    ) {
        let pb::ContentPartEvent { output_index, item_id, part_index, text } = event;
        let (output_index, index) = (*output_index, index(*part_index));
        self.frame(kind, WithPart { item_id, output_index, index, part: part(text) });
    }

    fn text(
        &mut self,
        kind: &str,
        event: &pb::ResponseTextEvent,
        index: Option<fn(u32) -> PartIndex>,
        text: Text<'_>,
    ) {
        let pb::ResponseTextEvent { output_index, item_id, part_index, .. } = event;
        let logprobs = kind.starts_with("response.output_text").then_some([]);
        let (output_index, index) = (*output_index, index.map(|index| index(*part_index)));
        self.frame(kind, WithText { item_id, output_index, index, text, logprobs });
    }

    fn frame(&mut self, kind: &str, members: impl Serialize) {
        self.out.put_slice(b"event: ");
        self.out.put_slice(kind.as_bytes());
        self.out.put_slice(b"\n");
        sse::write_event(self.out, &Frame { kind, sequence_number: self.number, members });
    }
}

#[cfg(test)]
mod tests;
