//! The body of a streamed answer: takes the events that are ready, writes them into one piece of bytes, and ends
//! with `[DONE]` or with an error. Owns the events: dropping it cancels the turn.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt,
    stream::{BoxStream, ReadyChunks},
};
use tonic::Status;

use super::chunks::{Chunk, ChunkEncoder};
use crate::{
    error::Error,
    http::{error::ApiError, field_names::FieldNames, sse},
    pb::{ChatEvent, chat_event::Event},
};

/// Most events in one piece.
const MAX_READY: usize = 64;

/// Pieces of a body, each of whole SSE events.
pub(super) struct SseBody {
    chunks: ChunkEncoder,
    words: FieldNames,
    /// `None` once the stream has ended, in whichever way.
    events: Option<ReadyChunks<BoxStream<'static, Result<ChatEvent, Status>>>>,
}

impl SseBody {
    /// Writes `events` as the chunks of `chunks`; `words` are the client's, for an error.
    pub(super) fn new(
        chunks: ChunkEncoder,
        events: BoxStream<'static, Result<ChatEvent, Status>>,
        words: FieldNames,
    ) -> Self {
        Self { chunks, words, events: Some(events.ready_chunks(MAX_READY)) }
    }

    fn write(&self, chunks: &[Chunk], out: &mut BytesMut) {
        for chunk in chunks {
            match chunk {
                Chunk::Notice(notice) => sse::write_notice(out, notice),
                Chunk::Delta(..) | Chunk::Finish(..) | Chunk::Usage(_) => {
                    sse::write_event(out, &self.chunks.frame(chunk));
                }
            }
        }
    }

    /// Writes the roles if they are still to come. OpenAI's first chunk has no text where calls are all that follows;
    /// an answer that begins with anything else may still have some.
    fn write_roles(&mut self, ready: &[Result<ChatEvent, Status>], out: &mut BytesMut) {
        let says = |event: &Event| !matches!(event, Event::Item(_) | Event::Notice(_));
        let is_call = |index| {
            let of_answer = ready.iter().flatten().filter(|event| event.choice_index == index);
            let first = of_answer.filter_map(|event| event.event.as_ref()).find(|event| says(event));
            matches!(first, Some(Event::ToolCall(_)))
        };
        let roles = self.chunks.roles(is_call);
        self.write(&roles, out);
    }

    /// Writes what is ready and tells whether the stream goes on.
    fn write_ready(&mut self, ready: Vec<Result<ChatEvent, Status>>, out: &mut BytesMut) -> bool {
        for event in ready {
            match event.and_then(|event| self.chunks.push(event)) {
                Ok(chunks) => self.write(&chunks, out),
                Err(status) => {
                    self.write_error(&status, out);
                    return false;
                }
            }
            if self.chunks.is_complete() {
                out.extend_from_slice(sse::DONE);
                return false;
            }
        }
        true
    }

    /// The last frame of a stream that went wrong. Without `[DONE]`, so that every SDK raises.
    fn write_error(&self, status: &Status, out: &mut BytesMut) {
        sse::write_event(out, &ApiError::of(status, &self.words).body());
    }
}

impl Stream for SseBody {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let frames = &mut *self;
        let mut out = BytesMut::new();
        loop {
            let Some(events) = &mut frames.events else { return Poll::Ready(None) };
            let polled = events.poll_next_unpin(cx);
            // Only now, because what is ready tells how the answers begin.
            let ready = match &polled {
                Poll::Ready(Some(ready)) => ready.as_slice(),
                Poll::Ready(None) | Poll::Pending => &[],
            };
            frames.write_roles(ready, &mut out);
            let goes_on = match polled {
                Poll::Ready(Some(ready)) => frames.write_ready(ready, &mut out),
                Poll::Ready(None) => {
                    let cut = Error::internal("the stream of events ended without `completed`");
                    frames.write_error(&cut.into(), &mut out);
                    false
                }
                // The roles may be all there is to say yet. The events have been asked, so they will wake us.
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Some(out.freeze())),
            };
            if !goes_on {
                // Dropped now and not with the body, which a slow reader may hold for long.
                frames.events = None;
            }
            if !out.is_empty() {
                return Poll::Ready(Some(out.freeze()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
