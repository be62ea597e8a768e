//! Turns a panic in a handler, or in the middle of its response body, into an error in the caller's protocol. Only the
//! log has the cause.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, header};
use http_body::Frame;
use tonic::Status;

use super::hooked_body::{FrameHook, HookedBody, NextFrame};
use crate::{context::is_grpc, error::Error, task::panic_text};

/// Functions that render an error for the HTTP door. The composition root passes them, because this module must not
/// import the door.
#[derive(Debug, Clone, Copy)]
pub struct ErrorRenderer {
    /// Renders a whole response.
    pub response: fn(&Status) -> Response,
    /// Renders the last frame of an event stream.
    pub event: fn(&Status) -> Bytes,
}

/// Middleware for `axum::middleware::from_fn_with_state` that catches panics of everything inside of it.
///
/// Before the head, the caller gets an INTERNAL status, or a 500 with OpenAI's error object. After the head, a gRPC stream
/// ends with an INTERNAL status, an event stream ends with an error event and without `[DONE]`, and any other body fails.
pub async fn catch(State(renderer): State<ErrorRenderer>, request: Request, next: Next) -> Response {
    let grpc = is_grpc(request.headers());
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => {
            let protocol = if grpc {
                Protocol::Grpc
            } else if is_event_stream(response.headers()) {
                Protocol::Events(renderer.event)
            } else {
                Protocol::Other
            };
            response.map(|body| Body::new(HookedBody::new(body, CatchPanic { protocol })))
        }
        Err(panic) if grpc => {
            let (head, ()) = status(&*panic).into_http::<()>().into_parts();
            Response::from_parts(head, Body::empty())
        }
        Err(panic) => (renderer.response)(&status(&*panic)),
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Returns the status of a panic. Creating it writes the cause to the log, once.
fn status(panic: &(dyn Any + Send)) -> Status {
    Error::internal(format_args!("panic: {}", panic_text(panic))).into()
}

/// The form of an error at the end of a body.
#[derive(Debug, Clone, Copy)]
enum Protocol {
    /// Trailers.
    Grpc,
    /// A last event.
    Events(fn(&Status) -> Bytes),
    /// None: the body fails.
    Other,
}

impl Protocol {
    fn last_frame(self, panic: &(dyn Any + Send)) -> Result<Frame<Bytes>, axum::Error> {
        let status = status(panic);
        match self {
            Self::Grpc => {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers).map_err(axum::Error::new)?;
                Ok(Frame::trailers(trailers))
            }
            Self::Events(render) => Ok(Frame::data(render(&status))),
            Self::Other => Err(axum::Error::new(status)),
        }
    }
}

/// Catches panics of a body. The body is dropped after a panic.
#[derive(Debug)]
struct CatchPanic {
    protocol: Protocol,
}

impl FrameHook for CatchPanic {
    fn poll_frame(&mut self, body: &mut Option<Body>, cx: &mut Context<'_>) -> Poll<NextFrame> {
        let Some(inner) = body else { return Poll::Ready(None) };
        let polled = catch_unwind(AssertUnwindSafe(|| http_body::Body::poll_frame(Pin::new(inner), cx)));
        polled.unwrap_or_else(|panic| {
            let last = self.protocol.last_frame(&*panic);
            let body = body.take();
            if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(body))) {
                status(&*another);
            }
            Poll::Ready(Some(last))
        })
    }
}

#[cfg(test)]
mod tests;
