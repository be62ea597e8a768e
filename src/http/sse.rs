//! Server-sent events: how a frame is written, what keeps a silent stream alive, and the head of the response.
//! What the events say is not known here.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream::BoxStream};
use http::header;
use serde::Serialize;
use tokio::time::{Instant, Sleep};

/// The last frame of a stream that went well.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// A comment: no client sees it, every proxy does.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Writes one unnamed event. Named ones break the official SDKs on chat completions.
pub(super) fn write_event(out: &mut BytesMut, value: &impl Serialize) {
    write_line(out, b"data: ", value);
}

/// Writes what no client takes for an event, for people and for who looks for it.
pub(super) fn write_notice(out: &mut BytesMut, value: &impl Serialize) {
    write_line(out, b": notice ", value);
}

fn write_line(out: &mut BytesMut, head: &[u8], value: &impl Serialize) {
    // Most events are shorter than this: one growth instead of several.
    out.reserve(256);
    let start = out.len();
    out.put_slice(head);
    // JSON text has no line breaks, so one line always holds it.
    if let Err(error) = serde_json::to_writer((&mut *out).writer(), value) {
        tracing::error!(%error, "an event could not be written as JSON");
        out.truncate(start);
        return;
    }
    out.put_slice(b"\n\n");
}

/// A response whose body is `frames`, with a comment after every `keep_alive` of silence. Dropping the response
/// drops `frames` at once.
pub(super) fn response(
    frames: impl Stream<Item = Bytes> + Send + 'static,
    keep_alive: Option<Duration>,
) -> Response {
    let frames = KeepAlive { frames: frames.boxed(), silence: keep_alive.map(Silence::new) };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(frames.map(Ok::<_, Infallible>))).into_response()
}

/// Frames with comments in their pauses. Polled by the connection alone: there is no task that could outlive it.
struct KeepAlive {
    frames: BoxStream<'static, Bytes>,
    silence: Option<Silence>,
}

struct Silence {
    length: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    fn new(length: Duration) -> Self {
        Self { length, timer: Box::pin(tokio::time::sleep(length)) }
    }

    fn begin_again(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.length);
    }
}

impl Stream for KeepAlive {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let frame = self.frames.as_mut().poll_next(cx);
        let Some(silence) = &mut self.silence else { return frame };
        if frame.is_ready() {
            silence.begin_again();
            return frame;
        }
        if silence.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        silence.begin_again();
        Poll::Ready(Some(Bytes::from_static(KEEP_ALIVE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_comment_follows_every_silence_and_no_frame_waits_for_one() {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut body = response(frames, Some(Duration::from_secs(15))).into_body().into_data_stream();
        let start = Instant::now();
        // The clock is paused and moves on only to the next timer.
        assert_eq!(body.next().await.unwrap().unwrap(), KEEP_ALIVE);
        assert_eq!(body.next().await.unwrap().unwrap(), KEEP_ALIVE);
        assert_eq!(start.elapsed().as_secs(), 30);
        tokio::time::advance(Duration::from_secs(14)).await;
        sender.send(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), "x");
        assert_eq!(start.elapsed().as_secs(), 44);
        assert_eq!(body.next().await.unwrap().unwrap(), KEEP_ALIVE);
        assert_eq!(start.elapsed().as_secs(), 59);
        drop(sender);
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn dropping_the_response_drops_the_frames() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let response = response(tokio_stream::wrappers::ReceiverStream::new(receiver), None);
        assert!(!sender.is_closed());
        drop(response);
        assert!(sender.is_closed());
    }

    #[test]
    fn an_event_is_one_line() {
        let mut out = BytesMut::new();
        write_event(&mut out, &"a\nb\u{2028}");
        assert_eq!(out, "data: \"a\\nb\u{2028}\"\n\n");
        out.clear();
        write_notice(&mut out, &"a\r\ndata: b");
        assert_eq!(out, ": notice \"a\\r\\ndata: b\"\n\n");
    }
}
