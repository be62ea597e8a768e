//! `POST /v1/chat/completions`: JSON in, the generated trait called, JSON or server-sent events out.

mod chunks;
mod convert;
mod extra_params;
mod image;
mod messages;
mod request;
mod response;
mod sse_body;
mod tools;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::HeaderValue;
use http::request::Parts;
use tonic::Status;

use self::chunks::ChunkEncoder;
use self::convert::ConvertedRequest;
use self::request::ChatCompletionRequest;
use self::sse_body::SseBody;
use super::{Facade, IGNORED_PARAMS, error::ApiError, extract, sse};
use crate::{error::Error, pb::codex_service_server::CodexService};

/// Answers one chat request, whole or in pieces.
pub(super) async fn complete<S: CodexService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let wire: ChatCompletionRequest = extract::json(&parts, body, facade.body_limits).await?;
    let mut asked = ConvertedRequest::try_from(wire)?;
    asked.request.timeout = extract::timeout(&parts.headers)?;

    let ignored = std::mem::take(&mut asked.ignored_params).join(", ");
    let mut response = match asked.stream {
        Some(options) => stream(&facade, &parts, asked, options.include_usage).await?,
        None => whole(&facade, &parts, asked).await?,
    };
    if let Some(value) = HeaderValue::from_str(&ignored).ok().filter(|_| !ignored.is_empty()) {
        response.headers_mut().insert(IGNORED_PARAMS, value);
    }
    Ok(response)
}

async fn whole<S: CodexService>(
    facade: &Facade<S>,
    parts: &Parts,
    asked: ConvertedRequest,
) -> Result<Response, ApiError> {
    let ConvertedRequest { request, field_names: words, .. } = asked;
    let answer = facade.service.chat(extract::call(parts, request)).await;
    let answer = answer.map_err(|status| ApiError::of(&status, &words))?;
    Ok(Json(response::ChatCompletion::of(answer.into_inner())).into_response())
}

/// The head waits for the first event: until then a failure is still an HTTP status.
async fn stream<S: CodexService>(
    facade: &Facade<S>,
    parts: &Parts,
    asked: ConvertedRequest,
    include_usage: bool,
) -> Result<Response, ApiError> {
    let ConvertedRequest { request, field_names: words, .. } = asked;
    let choices = request.n.unwrap_or(1);
    let events = facade.service.stream_chat(extract::call(parts, request)).await;
    let mut events = events.map_err(|status| ApiError::of(&status, &words))?.into_inner().boxed();
    let first = match events.next().await {
        Some(Ok(event)) => event,
        Some(Err(status)) => return Err(ApiError::of(&status, &words)),
        None => {
            let status = Status::from(Error::internal("the stream of events ended before it began"));
            return Err(ApiError::of(&status, &words));
        }
    };
    let chunks = ChunkEncoder::begin(first, choices, include_usage);
    let chunks = chunks.map_err(|status| ApiError::of(&status, &words))?;
    Ok(sse::response(SseBody::new(chunks, events, words), facade.keep_alive))
}
