//! Server-sent events: the frames, the comments of a silent stream, and the head of the response. This module does not
//! depend on the content of the events.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::header;
use serde::Serialize;
use tokio::time::{Instant, Sleep};

use crate::config::KeepAliveForm;

/// The last frame of a successful stream.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// A comment, which clients ignore and proxies count as data.
pub(super) const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Writes one unnamed event. Named events break the official SDKs on chat completions.
pub(super) fn write_event(out: &mut BytesMut, value: &impl Serialize) {
    write_line(out, b"data: ", value);
}

/// Writes a notice as a comment. Clients ignore comments, unless they parse them.
pub(super) fn write_notice(out: &mut BytesMut, value: &impl Serialize) {
    write_line(out, b": notice ", value);
}

fn write_line(out: &mut BytesMut, head: &[u8], value: &impl Serialize) {
    // Most events are shorter than this, so the buffer grows once.
    out.reserve(256);
    let start = out.len();
    out.put_slice(head);
    // JSON text has no line breaks, so one line always holds it.
    if let Err(error) = serde_json::to_writer((&mut *out).writer(), value) {
        tracing::error!(%error, "could not serialize an event");
        out.truncate(start);
        return;
    }
    out.put_slice(b"\n\n");
}

/// Returns a response with a body of SSE frames.
pub(super) fn response(
    body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::new(body)).into_response()
}

/// The timer of a body's keep-alives. The connection polls it with the body, so that no task can outlive the body.
#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    form: KeepAliveForm,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// Begins the first interval now.
    pub(super) fn new(interval: Duration, form: KeepAliveForm) -> Self {
        Self { interval, form, timer: Box::pin(tokio::time::sleep(interval)) }
    }

    /// Returns the form of the keep-alives.
    pub(super) fn form(&self) -> KeepAliveForm {
        self.form
    }

    /// Restarts the interval after a frame.
    pub(super) fn reset(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.interval);
    }

    /// Returns the form of the keep-alive that is due after an interval without a frame. Begins the next interval.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<KeepAliveForm> {
        ready!(self.timer.as_mut().poll(cx));
        self.reset();
        Poll::Ready(self.form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_event_and_notice_are_one_line() {
        let mut out = BytesMut::new();
        write_event(&mut out, &"a\nb\u{2028}");
        assert_eq!(out, "data: \"a\\nb\u{2028}\"\n\n");
        out.clear();
        write_notice(&mut out, &"a\r\ndata: b");
        assert_eq!(out, ": notice \"a\\r\\ndata: b\"\n\n");
    }
}
