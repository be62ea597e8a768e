//! A response body whose frames pass through a hook. The layers around the routes use it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// A frame, the end of the body, or its error.
pub(super) type NextFrame = Option<Result<Frame<Bytes>, axum::Error>>;

/// Polls the frames of a body for a layer. Length and end of the body stay unchanged.
pub(super) trait FrameHook: Unpin {
    /// Polls the next frame. The hook may take the body, which then has ended.
    fn poll_frame(&mut self, body: &mut Option<Body>, cx: &mut Context<'_>) -> Poll<NextFrame>;

    /// Drops the body. Called when the response is dropped.
    fn drop_body(&mut self, body: Option<Body>) {
        drop(body);
    }
}

/// A body with a hook.
#[derive(Debug)]
pub(super) struct HookedBody<H: FrameHook> {
    body: Option<Body>,
    hook: H,
}

impl<H: FrameHook> HookedBody<H> {
    pub(super) fn new(body: Body, hook: H) -> Self {
        Self { body: Some(body), hook }
    }
}

impl<H: FrameHook> http_body::Body for HookedBody<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<NextFrame> {
        let this = &mut *self;
        this.hook.poll_frame(&mut this.body, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl<H: FrameHook> Drop for HookedBody<H> {
    fn drop(&mut self) {
        let body = self.body.take();
        self.hook.drop_body(body);
    }
}
