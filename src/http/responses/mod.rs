//! `POST /v1/responses`: converts JSON, calls the generated trait, returns JSON or server-sent events.

mod convert;
mod frames;
mod objects;
mod request;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::request::Parts;
use serde::{Serialize, Serializer};
use tonic::Status;

use self::{
    convert::ConvertedRequest, frames::FrameEncoder, objects::ResponseObject, request::ResponseRequest,
};
use super::{
    Facade, error::ApiError, extract, first_event, json_body, sse, sse_stream, stream_headers, with_ignored,
    with_thread,
};
use crate::pb::{self, ThreadOrigin, response_event::Event, responses_service_server::ResponsesService};

/// Handles one request for a response, streamed or not.
pub(super) async fn create<S: ResponsesService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let convert = |wire: ResponseRequest| ConvertedRequest::try_from(wire);
    let mut converted = extract::json(&mut parts, body, &facade.body_limits, convert).await?;
    converted.request.timeout = extract::timeout(&parts.headers)?;

    let ignored = std::mem::take(&mut converted.ignored_params);
    let response = match converted.is_streamed {
        true => stream_events(&facade, &parts, converted).await?,
        false => unary(&facade, &parts, converted).await?,
    };
    Ok(with_ignored(response, &ignored))
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
        Ok(WholeResponse(response.into_inner()))
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
    let first = first_event(&mut events).await.map_err(to_error)?;
    let thread = match &first.event {
        Some(Event::Created(response)) => response.thread(),
        _ => ThreadOrigin::Unspecified,
    };
    let events = futures_util::stream::once(async move { Ok(first) }).chain(events);
    let body = sse_stream::body(FrameEncoder::new(items), events, keep_alive);
    Ok(with_thread(sse::response(body), thread))
}

/// A response that is not streamed.
#[derive(Debug)]
struct WholeResponse(pb::Response);

impl Serialize for WholeResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ResponseObject::new(&self.0).serialize(serializer)
    }
}

impl IntoResponse for WholeResponse {
    fn into_response(self) -> Response {
        let thread = self.0.thread();
        with_thread(Json(self).into_response(), thread)
    }
}

#[cfg(test)]
mod tests;
