//! The outermost layer of both doors: gives every request an id and writes one line when its response is over.
//! Who may do what, and what a turn did, is told elsewhere.

use std::{
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
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::{Frame, SizeHint};
use tonic::Code;
use tracing::{Instrument, Span};
use uuid::Uuid;

/// Header of the request's id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken from a caller.
const MAX_ID_BYTES: usize = 128;

/// Middleware (`axum::middleware::from_fn`), to be added last so that it is outermost.
///
/// The id of the caller is kept if it is 1 to 128 visible ASCII characters, else one is made. Handlers find it in the
/// request's `x-request-id`, the caller in the response's, the log in the field `request.id` of every line.
pub async fn log(mut request: Request, next: Next) -> Response {
    let id = take_or_make_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    // Of the highest level, so that no filter takes the id away from a line that it lets pass.
    let span = tracing::error_span!("request", request.id = id.to_str().unwrap_or_default());
    // The line is written when it is dropped; inside the span, also when the caller hangs up before the head.
    let line = AccessLogEntry::new(&request);
    let answer = async move {
        let mut line = line;
        let response = next.run(request).await;
        line.head(&response);
        (response, line)
    };
    let (mut response, line) = answer.instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(LoggedBody::new(body, line, span)))
}

fn take_or_make_id(headers: &HeaderMap) -> HeaderValue {
    let fine = |id: &&HeaderValue| {
        (1..=MAX_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(fine).cloned().unwrap_or_else(|| {
        let id = format!("req_{}", Uuid::now_v7().simple());
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("req_"))
    })
}

/// The line of one request, written when it is dropped.
#[derive(Debug)]
struct AccessLogEntry {
    method: Method,
    path: String,
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

    /// gRPC tells its status in the trailers, or in the head where there is no message.
    fn grpc_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.grpc = Some(Code::from_bytes(status.as_bytes()));
        }
    }

    /// What a caller may choose freely is not a path worth telling. A route for a whole gRPC service does not name
    /// the method; a method that was not refused as unknown is one of ours.
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
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    method = self.method.as_str(),
                    path = self.route(),
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
            line!(info);
        } else {
            line!(debug);
        }
    }
}

/// A response body that ends the line of its request.
#[derive(Debug)]
struct LoggedBody {
    body: Option<Body>,
    line: Option<AccessLogEntry>,
    /// Bytes until the announced length is reached.
    rest: Option<u64>,
    span: Span,
}

impl LoggedBody {
    fn new(body: Body, line: AccessLogEntry, span: Span) -> Self {
        let rest = http_body::Body::size_hint(&body).exact();
        let is_head = line.method == Method::HEAD;
        let mut this = Self { body: Some(body), line: Some(line), rest, span };
        // The body of these is never asked for.
        if is_head || http_body::Body::is_end_stream(&this) {
            this.end("ended");
        }
        this
    }

    fn end(&mut self, outcome: &'static str) {
        if let Some(mut line) = self.line.take() {
            line.outcome = outcome;
            self.span.in_scope(|| drop(line));
        }
    }

    /// Whether the HTTP library, having this frame, will not ask for another.
    fn is_last(&mut self, frame: &Frame<Bytes>) -> bool {
        if let (Some(rest), Some(data)) = (&mut self.rest, frame.data_ref()) {
            *rest = rest.saturating_sub(data.len() as u64);
        }
        frame.is_trailers() || self.rest == Some(0) || http_body::Body::is_end_stream(self)
    }
}

impl http_body::Body for LoggedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(this.span.in_scope(|| Pin::new(body).poll_frame(cx)));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(trailers), Some(line)) = (frame.trailers_ref(), &mut this.line) {
                    line.grpc_status(trailers);
                }
                if this.is_last(frame) {
                    this.end("ended");
                }
            }
            Some(Err(_)) => this.end("failed"),
            None => this.end("ended"),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        // What the body's end sets off is told under the request's id as well.
        let body = self.body.take();
        let line = self.line.take();
        self.span.in_scope(|| {
            drop(body);
            drop(line);
        });
    }
}

#[cfg(test)]
mod tests;
