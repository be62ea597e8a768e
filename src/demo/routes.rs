//! The routes of the scripted upstream: responses, models, and OpenAI's error shape for other paths.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, RawQuery, State as Shared, rejection::BytesRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    answer::{self, Answer, Received, Refusal},
    record::{Open, State, Transport},
    sse, websocket,
};

/// Maximum size of a body or of a WebSocket message, for a conversation with many images.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;
/// The models of `GET /v1/models`; any other name works too.
const MODELS: &[&str] = &["gpt-5.5", "gpt-6-luna", "gpt-6.1-sol"];

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/responses", post(responses).get(websocket::upgrade))
        .route("/v1/models", get(models))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

/// Codex asks with `client_version` and gets its own list, other clients get OpenAI's.
async fn models(Shared(state): Shared<Arc<State>>, RawQuery(query): RawQuery) -> Response {
    if query.is_some_and(|query| query.contains("client_version=")) {
        let list = json!({"models": state.models()});
        let digest = Sha256::digest(list.to_string());
        let tag = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        return ([(header::ETAG, format!("\"{tag}\""))], Json(list)).into_response();
    }
    let model = |id: &&str| json!({"id": id, "object": "model", "created": 1_767_225_600, "owned_by": "codex-api demo"});
    Json(json!({"object": "list", "data": MODELS.iter().map(model).collect::<Vec<_>>()})).into_response()
}

pub(super) async fn unknown(method: Method, uri: Uri) -> Response {
    let message = format!("the scripted upstream has no {method} {}", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, "unknown_url", &message).into_response()
}

async fn responses(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let open = Open::new(Arc::clone(&state));
    let body =
        body.map_err(|rejection| Refusal::new(rejection.status(), "invalid_body", &rejection.body_text()))?;
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity") {
        let message = format!("the scripted upstream cannot read content encoding {encoding:?}");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", &message));
    }
    let request: Value = serde_json::from_slice(&body)
        .map_err(|reason| Refusal::bad_request("invalid_json", &format!("the body is not JSON: {reason}")))?;
    let received =
        Received { transport: Transport::Http, headers: &headers, size: body.len(), body: request };
    drop(body);
    let answer = answer::answer(&state, received, state.next_number())?;
    play(answer, open).await
}

async fn play(Answer { step, acts }: Answer, open: Open) -> Result<Response, Refusal> {
    let refusal = answer::refusal(&step)?;
    if step.hang_before_ms > 0 {
        tokio::time::sleep(Duration::from_millis(step.hang_before_ms)).await;
    }
    let mut response = match refusal {
        None => ([(header::CONTENT_TYPE, "text/event-stream")], sse::body(acts, open)).into_response(),
        Some((status, Value::String(text))) => (status, Body::from(text)).into_response(),
        Some((status, body)) => (status, Json(body)).into_response(),
    };
    for (name, value) in answer::headers(&step) {
        // The parser of the directive has checked names and values.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.error}))).into_response()
    }
}
