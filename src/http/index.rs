//! `GET /`: what this server is, and its routes. The route needs no token, and its response contains no secret.

use axum::Json;
use serde_json::{Value, json};

/// Every route of the facade, with its method.
const ENDPOINTS: [&str; 7] = [
    "POST /v1/chat/completions",
    "POST /v1/responses",
    "POST /v1/completions",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "GET /v1/codex/status",
    "GET /healthz",
];

/// Returns the name, the version and the routes.
pub(super) async fn show() -> Json<Value> {
    Json(json!({
        "name": "codex-api",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "the OpenAI Codex CLI as OpenAI HTTP API and gRPC services codex.v1.CodexService and codex.v1.ResponsesService",
        "base_url": "/v1",
        "endpoints": ENDPOINTS,
    }))
}

/// Returns the routes for an error text.
pub(super) fn endpoints() -> String {
    ENDPOINTS.join(", ")
}
