//! `GET /healthz`: the contract's `GetStatus` as 200 or 503, for load balancers and operators. The route needs no token,
//! and its response contains no secret.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::{
    Facade,
    error::ApiError,
    status::{self, non_empty},
};
use crate::pb::{self, codex_service_server::CodexService};

#[derive(Debug, Serialize)]
struct Health {
    ok: bool,
    engine: String,
    codex_version: Option<String>,
    version: String,
    running: u32,
    waiting: u32,
    draining: bool,
    demo: bool,
    reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Returns 200 if a turn can run now, otherwise 503 with the cause.
pub(super) async fn show<S: CodexService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let status = status::fetch(&facade, request).await?;
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let draining = status.draining;
    let mut response = (code, Json(Health::from(status))).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if draining && code == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

impl From<pb::GetStatusResponse> for Health {
    fn from(status: pb::GetStatusResponse) -> Self {
        Self {
            ok: status.ready,
            engine: status.engine,
            codex_version: non_empty(status.codex_version),
            version: status.server_version,
            running: status.running_turns,
            waiting: status.waiting_turns,
            draining: status.draining,
            demo: status.demo,
            reason: non_empty(status.reason),
            warnings: status.warnings,
        }
    }
}
