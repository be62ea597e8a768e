//! Turns a panic in a handler, or in the middle of its response body, into an error in the caller's protocol.
//! The cause is for the log only.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::json;
use tonic::Status;

use crate::error::{Error, INTERNAL_TEXT};

/// Middleware (`axum::middleware::from_fn`) that catches panics of everything inside it.
///
/// Before the head, the caller gets an INTERNAL status or a 500 with OpenAI's error object. After it, a gRPC stream
/// ends with an INTERNAL status, an event stream with an error event and without `[DONE]`, any other body is cut.
pub async fn catch(request: Request, next: Next) -> Response {
    let grpc = is_grpc(request.headers());
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => {
            let protocol = if grpc {
                Protocol::Grpc
            } else if has_type(response.headers(), "text/event-stream") {
                Protocol::Events
            } else {
                Protocol::Other
            };
            response.map(|body| Body::new(Guarded { body: Some(body), protocol }))
        }
        Err(panic) if grpc => {
            let (head, ()) = status(&*panic).into_http::<()>().into_parts();
            Response::from_parts(head, Body::empty())
        }
        Err(panic) => {
            status(&*panic);
            // The request may have run an agent; the official SDKs would run it again.
            let headers = [(header::CONTENT_TYPE.as_str(), "application/json"), ("x-should-retry", "false")];
            (StatusCode::INTERNAL_SERVER_ERROR, headers, error_object()).into_response()
        }
    }
}

/// Whether a request is a gRPC call.
fn is_grpc(headers: &HeaderMap) -> bool {
    has_type(headers, "application/grpc")
}

fn has_type(headers: &HeaderMap, prefix: &str) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(prefix.as_bytes()))
}

/// The status of a panic. Making it writes the cause to the log, once.
fn status(panic: &(dyn Any + Send)) -> Status {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)");
    Error::internal(format_args!("panic: {message}")).into()
}

fn error_object() -> String {
    json!({"error": {
        "message": INTERNAL_TEXT,
        "type": "server_error",
        "param": null,
        "code": "internal_error",
    }})
    .to_string()
}

/// How the end of a body can tell an error.
#[derive(Debug, Clone, Copy)]
enum Protocol {
    /// By trailers.
    Grpc,
    /// By a last event.
    Events,
    /// Not at all.
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
            Self::Events => Ok(Frame::data(format!("data: {}\n\n", error_object()).into())),
            Self::Other => Err(axum::Error::new(status)),
        }
    }
}

/// A response body whose panics are caught. After one the body is gone.
#[derive(Debug)]
struct Guarded {
    body: Option<Body>,
    protocol: Protocol,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))).unwrap_or_else(|panic| {
            let last = self.protocol.last_frame(&*panic);
            let body = self.body.take();
            if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(body))) {
                status(&*another);
            }
            Poll::Ready(Some(last))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests;
