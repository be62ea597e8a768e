//! The time limit of a call's message. It begins with the head, so that a message that arrives slowly does not stay open
//! beyond the time limit of its request.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tonic::{Status, metadata::MetadataMap};

use crate::{
    context::{RequestContext, deadline::Deadline},
    pb::codex_service_server::SERVICE_NAME,
};

/// Middleware that limits the messages of the contract's methods. The streams of other services have no time limit.
pub(super) async fn limit(State(server): State<Duration>, request: Request, next: Next) -> Response {
    let of_contract =
        request.uri().path().strip_prefix('/').is_some_and(|path| path.starts_with(SERVICE_NAME));
    let context = request.extensions().get::<RequestContext>().filter(|_| of_contract);
    let metadata = MetadataMap::from_headers(request.headers().clone());
    // The core refuses a malformed time limit.
    let deadline =
        context.and_then(|context| Deadline::new(context.received_at, server, &metadata, None).ok());
    let Some(deadline) = deadline else { return next.run(request).await };
    next.run(request.map(|body| {
        let timer = Box::pin(sleep_until(deadline.at()));
        Body::new(TimedBody { body, deadline, timer })
    }))
    .await
}

/// A body that fails at the deadline.
#[derive(Debug)]
struct TimedBody {
    body: Body,
    deadline: Deadline,
    timer: Pin<Box<Sleep>>,
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.timer.as_mut().poll(cx).map(|()| {
            // tonic looks for a status among the causes of an error.
            Some(Err(Status::from(self.deadline.body_exceeded()).into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
