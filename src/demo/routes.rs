//! The routes of the scripted upstream: responses, models, and OpenAI's error shape for other paths.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State as Shared, rejection::BytesRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::{
    content, plan,
    record::{Open, Recorded, State},
    request::ParsedRequest,
    script::{Directive, Step},
    sse,
};

/// Maximum body size, for a conversation with many images.
const MAX_BODY_BYTES: usize = 64 << 20;
/// The models of `GET /v1/models`; any other name works too.
const MODELS: &[&str] = &["gpt-5.5", "gpt-6-luna", "gpt-6.1-sol"];

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/responses", post(responses))
        .route("/v1/models", get(models))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

async fn models() -> Json<Value> {
    let model = |id: &&str| json!({"id": id, "object": "model", "created": 1_767_225_600, "owned_by": "codex-api demo"});
    Json(json!({"object": "list", "data": MODELS.iter().map(model).collect::<Vec<_>>()}))
}

async fn unknown(method: Method, uri: Uri) -> Response {
    let message = format!("the scripted upstream has no {method} {}", uri.path());
    error(StatusCode::NOT_FOUND, "unknown_url", &message)
}

async fn responses(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let open = Open::new(Arc::clone(&state));
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return error(rejection.status(), "invalid_body", &rejection.body_text()),
    };
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity") {
        let message = format!("the scripted upstream cannot read content encoding {encoding:?}");
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", &message);
    }
    let request: Value = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(reason) => return bad_request("invalid_json", &format!("the body is not JSON: {reason}")),
    };
    let (parsed, streams, number) =
        (ParsedRequest::parse(&request), request["stream"] == true, state.next_number());
    state.record(body.len(), Recorded::new(number, parsed.round, &headers, Arc::new(request)));
    drop(body);
    if !streams {
        return bad_request("unsupported_value", "the scripted upstream only answers with `stream: true`");
    }
    match choose(&state, &parsed) {
        Ok(step) => play(&step, &parsed, number, open).await,
        Err(reason) => bad_request("invalid_directive", &reason),
    }
}

/// Returns the step that answers a request.
fn choose(state: &State, request: &ParsedRequest) -> Result<Step, String> {
    let Some(directive) = Directive::find(&request.user)? else {
        return Ok(Step { delay_ms: content::DEFAULT_DELAY_MS, ..Step::default() });
    };
    let Some(step) = directive.steps.get(request.round) else {
        return Ok(Step { text: Some("(script over)".to_owned()), ..Step::default() });
    };
    if step.times.is_none() {
        return Ok(step.clone());
    }
    Ok(step.for_use(state.count(&format!("{} {}", request.round, directive.source))))
}

async fn play(step: &Step, request: &ParsedRequest, number: u64, open: Open) -> Response {
    let acts = match plan::acts(step, request, number) {
        Ok(acts) => acts,
        Err(reason) => return bad_request("invalid_directive", &reason),
    };
    if step.hang_before_ms > 0 {
        tokio::time::sleep(Duration::from_millis(step.hang_before_ms)).await;
    }
    let mut response = match step.status.map(StatusCode::from_u16) {
        None => ([(header::CONTENT_TYPE, "text/event-stream")], sse::body(acts, open)).into_response(),
        Some(Ok(status)) => match &step.body {
            None => error(status, "scripted", "a scripted error"),
            Some(Value::String(text)) => (status, Body::from(text.clone())).into_response(),
            Some(body) => (status, Json(body)).into_response(),
        },
        Some(Err(reason)) => return bad_request("invalid_directive", &reason.to_string()),
    };
    for (name, value) in &step.headers {
        // The parser of the directive has checked names and values.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn bad_request(code: &str, message: &str) -> Response {
    error(StatusCode::BAD_REQUEST, code, message)
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    (status, Json(body)).into_response()
}
