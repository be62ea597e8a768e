//! `POST /v1/responses`: converts JSON, calls the generated trait, returns JSON or server-sent events.

mod convert;
mod frames;
mod objects;
mod request;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_stream::stream;
use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, request::Parts};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::{Serialize, Serializer};
use tonic::Status;

use self::{
    convert::ConvertedRequest, frames::FrameEncoder, objects::ResponseObject, request::ResponseRequest,
};
use super::{
    Facade, IGNORED_PARAMS,
    chat::{json_body, stream_headers, with_thread},
    error::ApiError,
    extract, sse,
};
use crate::{
    error::Error,
    pb::{self, ThreadOrigin, response_event::Event, responses_service_server::ResponsesService},
};

/// Maximum number of events in one piece of the body.
const MAX_READY_EVENTS: usize = 64;

/// Handles one request for a response, streamed or not.
pub(super) async fn create<S: ResponsesService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let convert = |wire: ResponseRequest| ConvertedRequest::try_from(wire);
    let mut converted = extract::json(&mut parts, body, &facade.body_limits, convert).await?;
    converted.request.timeout = extract::timeout(&parts.headers)?;

    let ignored = std::mem::take(&mut converted.ignored_params).join(", ");
    let mut response = match converted.is_streamed {
        true => stream_events(&facade, &parts, converted).await?,
        false => unary(&facade, &parts, converted).await?,
    };
    if let Some(value) = HeaderValue::from_str(&ignored).ok().filter(|_| !ignored.is_empty()) {
        response.headers_mut().insert(IGNORED_PARAMS, value);
    }
    Ok(response)
}

async fn unary<S: ResponsesService>(
    facade: &Facade<S>,
    parts: &Parts,
    converted: ConvertedRequest,
) -> Result<Response, ApiError> {
    let ConvertedRequest { request, items, .. } = converted;
    let (service, call) = (Arc::clone(&facade.service), extract::call(parts, request));
    let response = async move {
        let response = service.create_response(call).await;
        let response = response
            .map_err(|status| ApiError::from_status_of(&status, |field| convert::param(field, &items)))?;
        Ok(WholeResponse { response: response.into_inner(), completed_at: unix_seconds() })
    };
    match facade.json_keep_alive {
        Some(interval) => json_body::respond(response, interval).await,
        None => Ok(response.await?.into_response()),
    }
}

/// Returns a streamed response. The head waits for the first event, so that an earlier failure is an HTTP status.
async fn stream_events<S: ResponsesService>(
    facade: &Facade<S>,
    parts: &Parts,
    converted: ConvertedRequest,
) -> Result<Response, ApiError> {
    let keep_alive = stream_headers::keep_alive(facade, &parts.headers)?;
    let ConvertedRequest { request, items, .. } = converted;
    let to_error = |status: Status| ApiError::from_status_of(&status, |field| convert::param(field, &items));
    let events = facade.service.stream_response(extract::call(parts, request)).await;
    let mut events = Box::pin(events.map_err(to_error)?.into_inner());
    let first = match events.next().await {
        Some(event) => event.map_err(to_error)?,
        None => {
            return Err(to_error(Error::internal("the stream of events ended without an event").into()));
        }
    };
    let thread = match &first.event {
        Some(Event::Created(response)) => response.thread(),
        _ => ThreadOrigin::Unspecified,
    };
    let events = futures_util::stream::once(async move { Ok(first) }).chain(events);
    let frames = frames(FrameEncoder::new(items), events, keep_alive);
    let body = StreamBody::new(frames.map(|frame| frame.map(Frame::data)));
    Ok(with_thread(sse::response(body), thread))
}

/// Returns the pieces of the body: the frames of ready events, and keep-alives while the stream is silent. Owns the events:
/// dropping it cancels the turn.
fn frames(
    mut encoder: FrameEncoder,
    events: impl Stream<Item = Result<pb::ResponseEvent, Status>> + Send,
    mut keep_alive: Option<sse::KeepAlive>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream! {
        let mut events = Box::pin(events.ready_chunks(MAX_READY_EVENTS));
        let mut out = BytesMut::new();
        while !encoder.is_ended() {
            let due = async {
                match &mut keep_alive {
                    Some(keep_alive) => drop(std::future::poll_fn(|cx| keep_alive.poll_due(cx)).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ready = events.next() => match ready {
                    Some(ready) => ready.into_iter().for_each(|event| {
                        if !encoder.is_ended() {
                            encoder.push(event, unix_seconds(), &mut out);
                        }
                    }),
                    None => encoder.cut(&mut out),
                },
                () = due => out.extend_from_slice(sse::KEEP_ALIVE),
            }
            if !out.is_empty() {
                if let Some(keep_alive) = &mut keep_alive {
                    keep_alive.reset();
                }
                yield Ok(out.split().freeze());
            }
        }
    }
}

/// A response that is not streamed.
#[derive(Debug)]
struct WholeResponse {
    response: pb::Response,
    completed_at: i64,
}

impl Serialize for WholeResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ResponseObject::new(&self.response, Some(self.completed_at)).serialize(serializer)
    }
}

impl IntoResponse for WholeResponse {
    fn into_response(self) -> Response {
        let thread = self.response.thread();
        with_thread(Json(self).into_response(), thread)
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
