//! Outermost layer of both doors: sets the id of each request and writes one log line at the end of its response. The
//! turn log of the service describes the turn itself.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame;
use tonic::Code;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::hooked_body::{FrameHook, HookedBody, NextFrame};
use crate::context::{REQUEST_ID, peer::peer_of};

/// Maximum length of an id from a caller.
const MAX_ID_BYTES: usize = 128;

/// Middleware for `axum::middleware::from_fn`. Must be added last, as the outermost layer.
///
/// Keeps the caller's id if it is 1 to 128 visible ASCII characters, otherwise creates one. Handlers read the id
/// from the request's `x-request-id`, and the caller from the response's. Every log line has the id as `request.id`.
pub async fn log(mut request: Request, next: Next) -> Response {
    let id = keep_or_create_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    // The span has the highest level, so that a filter that passes a line also passes the id.
    let span = tracing::error_span!("request", request.id = id.to_str().unwrap_or_default());
    // Dropping the entry writes its line, inside of the span, also if the caller disconnects before the head.
    let entry = AccessLogEntry::new(&request);
    let handled = async move {
        let mut entry = entry;
        let response = next.run(request).await;
        entry.head(&response);
        (response, entry)
    };
    let (mut response, entry) = handled.instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(LogEnd::hook(body, entry, span)))
}

fn keep_or_create_id(headers: &HeaderMap) -> HeaderValue {
    let is_valid = |id: &&HeaderValue| {
        (1..=MAX_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(is_valid).cloned().unwrap_or_else(|| {
        let id = format!("req_{}", Uuid::now_v7().simple());
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("req_"))
    })
}

/// The log line of one request, written when it is dropped.
#[derive(Debug)]
struct AccessLogEntry {
    method: Method,
    path: String,
    peer: Option<IpAddr>,
    route: Option<MatchedPath>,
    started: Instant,
    head: Option<(StatusCode, Duration)>,
    grpc: Option<Code>,
    outcome: &'static str,
}

impl AccessLogEntry {
    fn new(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            peer: peer_of(request.extensions()),
            route: request.extensions().get().cloned(),
            started: Instant::now(),
            head: None,
            grpc: None,
            outcome: "aborted",
        }
    }

    fn head(&mut self, response: &Response) {
        self.head = Some((response.status(), self.started.elapsed()));
        self.grpc_status(response.headers());
    }

    /// Reads the gRPC status from trailers, or from the head of a response without message.
    fn grpc_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.grpc = Some(Code::from_bytes(status.as_bytes()));
        }
    }

    /// Returns the path for the log. Paths without a route are chosen by callers and not logged. The route of a gRPC
    /// service contains no method, so the path of a known method is logged instead.
    fn route(&self) -> &str {
        match &self.route {
            None => "unmatched",
            Some(route) if !route.as_str().ends_with("/{*rest}") => route.as_str(),
            Some(route) if matches!(self.grpc, None | Some(Code::Unimplemented)) => route.as_str(),
            Some(_) => &self.path,
        }
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let status = self.head.map(|(status, _)| status.as_u16());
        let failed = status.is_some_and(|status| status >= 400) || self.grpc.is_some_and(|c| c != Code::Ok);
        macro_rules! write_line {
            ($level:ident) => {
                tracing::$level!(
                    method = self.method.as_str(),
                    path = self.route(),
                    peer = self.peer.map(tracing::field::display),
                    status,
                    grpc_status = self.grpc.map(|code| code as i32),
                    head_ms = self.head.map(|(_, time)| millis(time)),
                    duration_ms = millis(self.started.elapsed()),
                    outcome = self.outcome,
                    "request"
                )
            };
        }
        if failed {
            write_line!(info);
        } else {
            write_line!(debug);
        }
    }
}

/// Ends the log line of a request at the end of its body.
#[derive(Debug)]
struct LogEnd {
    entry: Option<AccessLogEntry>,
    /// Bytes up to the announced length.
    remaining: Option<u64>,
    span: Span,
}

impl LogEnd {
    fn hook(body: Body, entry: AccessLogEntry, span: Span) -> HookedBody<Self> {
        let remaining = http_body::Body::size_hint(&body).exact();
        let is_head = entry.method == Method::HEAD;
        let mut hook = Self { entry: Some(entry), remaining, span };
        // hyper does not poll these bodies.
        if is_head || http_body::Body::is_end_stream(&body) {
            hook.end("ended");
        }
        HookedBody::new(body, hook)
    }

    fn end(&mut self, outcome: &'static str) {
        if let Some(mut entry) = self.entry.take() {
            entry.outcome = outcome;
            self.span.in_scope(|| drop(entry));
        }
    }

    /// Returns `true` if hyper polls no further frame after this one.
    fn is_last(&mut self, frame: &Frame<Bytes>, body: &Body) -> bool {
        if let (Some(remaining), Some(data)) = (&mut self.remaining, frame.data_ref()) {
            *remaining = remaining.saturating_sub(data.len() as u64);
        }
        frame.is_trailers() || self.remaining == Some(0) || http_body::Body::is_end_stream(body)
    }
}

impl FrameHook for LogEnd {
    fn poll_frame(&mut self, body: &mut Option<Body>, cx: &mut Context<'_>) -> Poll<NextFrame> {
        let Some(body) = body else { return Poll::Ready(None) };
        let frame = ready!(self.span.in_scope(|| http_body::Body::poll_frame(Pin::new(body), cx)));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(trailers), Some(entry)) = (frame.trailers_ref(), &mut self.entry) {
                    entry.grpc_status(trailers);
                }
                if self.is_last(frame, body) {
                    self.end("ended");
                }
            }
            Some(Err(_)) => self.end("failed"),
            None => self.end("ended"),
        }
        Poll::Ready(frame)
    }

    fn drop_body(&mut self, body: Option<Body>) {
        // Dropping the body may write log lines, which need the id of the request.
        let entry = self.entry.take();
        self.span.in_scope(|| {
            drop(body);
            drop(entry);
        });
    }
}

#[cfg(test)]
mod tests;
