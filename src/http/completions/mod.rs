//! `POST /v1/completions`, OpenAI's older API: the continuation of a text, for tools that have no other. The prompt becomes a
//! conversation, because Codex has no other input.

mod chunks;
mod convert;
mod request;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::request::Parts;
use serde::Serialize;
use tonic::Status;

use self::{
    chunks::{Choice, ChunkEncoder, completion_id, finish_reason},
    convert::ConvertedRequest,
    request::CompletionRequest,
};
use super::{
    Facade, chat::Usage, error::ApiError, extract, field_names::FieldNames, first_event, json_body, sse,
    sse_stream, stream_headers, with_ignored, with_thread,
};
use crate::pb::{self, ThreadOrigin, chat_event::Event, codex_service_server::CodexService};

/// Handles one completion, streamed or not.
pub(super) async fn complete<S: CodexService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let convert = |wire: CompletionRequest| ConvertedRequest::try_from(wire);
    let mut converted = extract::json(&mut parts, body, &facade.body_limits, convert).await?;
    converted.request.timeout = extract::timeout(&parts.headers)?;

    let ignored = std::mem::take(&mut converted.ignored_params);
    let response = match converted.stream {
        Some(include_usage) => stream(&facade, &parts, converted.request, include_usage).await?,
        None => unary(&facade, &parts, converted.request).await?,
    };
    Ok(with_ignored(response, &ignored))
}

async fn unary<S: CodexService>(
    facade: &Facade<S>,
    parts: &Parts,
    request: pb::ChatRequest,
) -> Result<Response, ApiError> {
    let (service, call) = (Arc::clone(&facade.service), extract::call(parts, request));
    let completion = async move {
        let response = service.chat(call).await.map_err(|status| error(&status))?;
        Ok(TextCompletion::from(response.into_inner()))
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
    request: pb::ChatRequest,
    include_usage: bool,
) -> Result<Response, ApiError> {
    let keep_alive = stream_headers::keep_alive(facade, &parts.headers)?;
    let events = facade.service.stream_chat(extract::call(parts, request)).await;
    let mut events = Box::pin(events.map_err(|status| error(&status))?.into_inner());
    let first = first_event(&mut events).await.map_err(|status| error(&status))?;
    let thread = match &first.event {
        Some(Event::Started(started)) => started.thread(),
        _ => ThreadOrigin::Unspecified,
    };
    let events = futures_util::stream::once(async move { Ok(first) }).chain(events);
    let body = sse_stream::body(ChunkEncoder::new(include_usage), events, keep_alive);
    Ok(with_thread(sse::response(body), thread))
}

/// Translates a status. The prompt is the only message.
fn error(status: &Status) -> ApiError {
    let names = FieldNames { max_output_tokens: "max_tokens", ..FieldNames::default() };
    ApiError::from_status_of(status, |field| match field.starts_with("messages") {
        true => "prompt".to_owned(),
        false => names.param(field),
    })
}

/// The body of a response that is not streamed.
#[derive(Debug, Serialize)]
struct TextCompletion {
    id: String,
    object: &'static str,
    created: i64,
    model: String,
    choices: Vec<Choice>,
    usage: Option<Usage>,
    system_fingerprint: String,
    /// For the header of the response.
    #[serde(skip)]
    thread: ThreadOrigin,
}

impl From<pb::ChatResponse> for TextCompletion {
    fn from(response: pb::ChatResponse) -> Self {
        let choices = response.choices.iter().map(|choice| {
            let reason = Some(finish_reason(choice.finish_reason()));
            Choice { text: choice.text.clone(), index: choice.index, logprobs: (), finish_reason: reason }
        });
        Self {
            thread: response.thread(),
            id: completion_id(&response.id),
            object: "text_completion",
            created: response.created_unix_seconds,
            choices: choices.collect(),
            model: response.model,
            usage: response.usage.map(Usage::from),
            system_fingerprint: response.system_fingerprint,
        }
    }
}

impl IntoResponse for TextCompletion {
    fn into_response(self) -> Response {
        let thread = self.thread;
        with_thread(Json(self).into_response(), thread)
    }
}

#[cfg(test)]
mod tests;
