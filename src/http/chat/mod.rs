//! `POST /v1/chat/completions`: converts JSON, calls the generated trait, returns JSON or server-sent events.

mod chunks;
mod convert;
mod messages;
mod request;
mod response;
mod sse_body;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::request::Parts;

pub(super) use self::response::Usage;

use self::chunks::{ChunkEncoder, ChunkOptions};
use self::convert::ConvertedRequest;
use self::request::ChatCompletionRequest;
use self::sse_body::SseBody;
use super::{
    Facade, error::ApiError, extract, first_event, json_body, sse, stream_headers, with_ignored, with_thread,
};
use crate::pb::{ThreadOrigin, chat_event::Event, codex_service_server::CodexService};

/// Handles one chat request, streamed or not.
pub(super) async fn complete<S: CodexService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let convert = |wire: ChatCompletionRequest| ConvertedRequest::try_from(wire);
    let mut converted = extract::json(&mut parts, body, &facade.body_limits, convert).await?;
    converted.request.timeout = extract::timeout(&parts.headers)?;

    let ignored = std::mem::take(&mut converted.ignored_params);
    let response = match converted.stream {
        Some(options) => stream(&facade, &parts, converted, options.include_usage).await?,
        None => unary(&facade, &parts, converted).await?,
    };
    Ok(with_ignored(response, &ignored))
}

async fn unary<S: CodexService>(
    facade: &Facade<S>,
    parts: &Parts,
    converted: ConvertedRequest,
) -> Result<Response, ApiError> {
    let ConvertedRequest { request, field_names, .. } = converted;
    let (service, call) = (Arc::clone(&facade.service), extract::call(parts, request));
    let completion = async move {
        let response = service.chat(call).await;
        let response = response.map_err(|status| ApiError::from_status(&status, &field_names))?;
        Ok(response::ChatCompletion::from(response.into_inner()))
    };
    match facade.json_keep_alive {
        Some(interval) => json_body::respond(completion, interval).await,
        None => Ok(completion.await?.into_response()),
    }
}

/// Returns a streamed response. The head waits for the first event, so that an earlier failure is an HTTP status.
async fn stream<S: CodexService>(
    facade: &Facade<S>,
    parts: &Parts,
    converted: ConvertedRequest,
    include_usage: bool,
) -> Result<Response, ApiError> {
    let options = ChunkOptions { include_usage, notices: stream_headers::notices(&parts.headers)? };
    let keep_alive = stream_headers::keep_alive(facade, &parts.headers)?;
    let ConvertedRequest { request, field_names, .. } = converted;
    let choices = request.n.unwrap_or(1);
    let events = facade.service.stream_chat(extract::call(parts, request)).await;
    let events = events.map_err(|status| ApiError::from_status(&status, &field_names))?.into_inner();
    let mut events = Box::pin(events);
    let first =
        first_event(&mut events).await.map_err(|status| ApiError::from_status(&status, &field_names))?;
    let thread = match &first.event {
        Some(Event::Started(started)) => started.thread(),
        _ => ThreadOrigin::Unspecified,
    };
    let encoder = ChunkEncoder::new(first, choices, options);
    let encoder = encoder.map_err(|status| ApiError::from_status(&status, &field_names))?;
    Ok(with_thread(sse::response(SseBody::new(encoder, events, field_names, keep_alive)), thread))
}
