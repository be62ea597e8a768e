//! The body of a streamed response: encodes ready events into one piece of bytes, writes keep-alives while the stream
//! is silent, and ends with `[DONE]` or with an error.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream::Fuse};
use http_body::{Body, Frame};
use tonic::Status;

use super::chunks::ChunkEncoder;
use crate::{
    config::KeepAliveForm,
    error::Error,
    http::{error::ApiError, field_names::FieldNames, sse},
    pb::{ChatEvent, chat_event::Event},
};

/// Maximum number of events in one piece.
const MAX_READY_EVENTS: usize = 64;

/// A body whose pieces are whole SSE events. Owns the events: dropping it cancels the turns.
pub(super) struct SseBody<S> {
    encoder: ChunkEncoder,
    field_names: FieldNames,
    /// `None` after the last frame, so that a slow reader does not keep the turns alive.
    events: Option<Fuse<Pin<Box<S>>>>,
    /// Events that were ready when the role chunks were written.
    lookahead: VecDeque<Result<ChatEvent, Status>>,
    /// Reused for every piece as soon as the connection has sent the previous one.
    out: BytesMut,
    keep_alive: Option<sse::KeepAlive>,
}

impl<S: Stream<Item = Result<ChatEvent, Status>>> SseBody<S> {
    /// Encodes `events` by `encoder`. An error names fields by `field_names`, the client's names.
    pub(super) fn new(
        encoder: ChunkEncoder,
        events: Pin<Box<S>>,
        field_names: FieldNames,
        keep_alive: Option<sse::KeepAlive>,
    ) -> Self {
        let events = Some(events.fuse());
        let mut out = BytesMut::new();
        if let Some(keep_alive) = keep_alive.as_ref().filter(|_| encoder.is_waiting()) {
            // The request waits for its slot. Proxies need a first byte as well as a head.
            out.extend_from_slice(waiting_frame(keep_alive.form()));
        }
        Self { encoder, field_names, events, lookahead: VecDeque::new(), out, keep_alive }
    }

    /// Returns the next piece, `None` after the last one.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let mut is_pending = false;
            for _ in 0..MAX_READY_EVENTS {
                if self.encoder.needs_roles() {
                    self.fill_lookahead(cx);
                    self.write_roles();
                }
                match self.poll_event(cx) {
                    Poll::Ready(Some(event)) => self.write(event),
                    Poll::Ready(None) => break,
                    Poll::Pending => {
                        is_pending = true;
                        break;
                    }
                }
            }
            if !self.out.is_empty() {
                return Poll::Ready(Some(self.out.split().freeze()));
            }
            if self.events.is_none() {
                return Poll::Ready(None);
            }
            if is_pending {
                return Poll::Pending;
            }
        }
    }

    /// Returns the next event, `None` after the last frame. The end of the events without `completed` is an error.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ChatEvent, Status>>> {
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        if let Some(event) = self.lookahead.pop_front() {
            if self.lookahead.is_empty() {
                // Not used again: the role chunks are written once.
                self.lookahead = VecDeque::new();
            }
            return Poll::Ready(Some(event));
        }
        events.poll_next_unpin(cx).map(|event| {
            Some(event.unwrap_or_else(|| {
                Err(Error::internal("the stream of events ended without `completed`").into())
            }))
        })
    }

    /// Returns the frame of a silent stream.
    fn keep_alive_frame(&mut self, form: KeepAliveForm) -> Bytes {
        match form {
            form if self.encoder.is_waiting() => Bytes::from_static(waiting_frame(form)),
            KeepAliveForm::Comment => Bytes::from_static(sse::KEEP_ALIVE),
            KeepAliveForm::Chunk => {
                self.encoder.empty_chunk(&mut self.out);
                self.out.split().freeze()
            }
        }
    }

    /// Buffers the events that are ready now.
    fn fill_lookahead(&mut self, cx: &mut Context<'_>) {
        let Some(events) = &mut self.events else { return };
        while self.lookahead.len() < MAX_READY_EVENTS
            && let Poll::Ready(Some(event)) = events.poll_next_unpin(cx)
        {
            self.lookahead.push_back(event);
        }
    }

    /// Writes the role chunks. OpenAI's first chunk has no text if only calls follow. An answer that begins with
    /// anything else may still have text.
    fn write_roles(&mut self) {
        let is_output =
            |event: &Event| !matches!(event, Event::Item(_) | Event::Notice(_) | Event::Heartbeat(_));
        let is_call = |index| {
            let of_choice = self.lookahead.iter().flatten().filter(|event| event.choice_index == index);
            let first = of_choice.filter_map(|event| event.event.as_ref()).find(|event| is_output(event));
            matches!(first, Some(Event::ToolCall(_)))
        };
        self.encoder.role_chunks(is_call, &mut self.out);
    }

    /// Writes the frames of an event. After `completed`, the body ends with `[DONE]`. After an error it ends without
    /// `[DONE]`, so that every SDK raises an exception.
    fn write(&mut self, event: Result<ChatEvent, Status>) {
        match event.and_then(|event| self.encoder.push(event, &mut self.out)) {
            Ok(()) if self.encoder.is_complete() => self.out.extend_from_slice(sse::DONE),
            Ok(()) => return,
            Err(status) => {
                sse::write_event(&mut self.out, &ApiError::from_status(&status, &self.field_names).body());
            }
        }
        self.events = None;
    }
}

/// Returns the keep-alive of a request that waits for its slot. A chunk would need the head of `started`, so that an empty
/// line replaces it: clients that parse each line skip it.
fn waiting_frame(form: KeepAliveForm) -> &'static [u8] {
    match form {
        KeepAliveForm::Comment => sse::KEEP_ALIVE,
        KeepAliveForm::Chunk => b"\n",
    }
}

impl<S: Stream<Item = Result<ChatEvent, Status>>> Body for SseBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let mut piece = this.poll_piece(cx);
        if let Some(keep_alive) = &mut this.keep_alive {
            if piece.is_ready() {
                keep_alive.reset();
            } else {
                piece = keep_alive.poll_due(cx).map(|form| Some(this.keep_alive_frame(form)));
            }
        }
        piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests;
