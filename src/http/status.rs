//! `GET /v1/codex/status`: the contract's `GetStatus` with the limits of the account. Unlike `/healthz`, the route needs a
//! token, and returns 200 whether or not a turn can run.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use prost_types::Timestamp;
use serde::Serialize;

use super::{Facade, error::ApiError, extract, field_names::FieldNames};
use crate::pb::{self, codex_service_server::CodexService};

#[derive(Debug, Serialize)]
struct ServerStatus {
    ready: bool,
    reason: Option<String>,
    draining: bool,
    demo: bool,
    engine: String,
    codex_version: Option<String>,
    version: String,
    running: u32,
    waiting: u32,
    max_running: u32,
    max_waiting: u32,
    account_limits: Option<AccountLimits>,
    threads: Option<Threads>,
}

/// See the contract's `Threads`.
#[derive(Debug, Serialize)]
struct Threads {
    kept: u32,
    parked: u32,
    continued_turns: u64,
    forked_turns: u64,
    fresh_turns: u64,
    evicted: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct AccountLimits {
    plan_type: Option<String>,
    windows: Vec<Window>,
    credits: Option<Credits>,
    /// Seconds since 1970 UTC, as OpenAI writes times.
    read_at: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Window {
    limit_id: String,
    used_percent: f64,
    window_seconds: Option<i64>,
    /// Seconds since 1970 UTC.
    resets_at: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Credits {
    has_credits: bool,
    unlimited: bool,
    balance: Option<String>,
}

/// Returns the status.
pub(super) async fn show<S: CodexService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let status = fetch(&facade, request).await?;
    let mut response = Json(ServerStatus::from(status)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Calls `GetStatus`.
pub(super) async fn fetch<S: CodexService>(
    facade: &Facade<S>,
    request: Request,
) -> Result<pb::GetStatusResponse, ApiError> {
    let (parts, _) = request.into_parts();
    let call = extract::call(&parts, pb::GetStatusRequest {});
    let answer = facade.service.get_status(call).await;
    let status = answer.map_err(|status| ApiError::from_status(&status, &FieldNames::default()))?;
    Ok(status.into_inner())
}

/// Returns `None` for an empty text, which stands for a missing value in the contract.
pub(super) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn seconds(time: Option<Timestamp>) -> Option<i64> {
    time.map(|time| time.seconds)
}

impl From<pb::GetStatusResponse> for ServerStatus {
    fn from(status: pb::GetStatusResponse) -> Self {
        Self {
            ready: status.ready,
            reason: non_empty(status.reason),
            draining: status.draining,
            demo: status.demo,
            engine: status.engine,
            codex_version: non_empty(status.codex_version),
            version: status.server_version,
            running: status.running_turns,
            waiting: status.waiting_turns,
            max_running: status.max_running_turns,
            max_waiting: status.max_waiting_turns,
            account_limits: status.account_limits.map(AccountLimits::from),
            threads: status.threads.map(Threads::from),
        }
    }
}

impl From<pb::Threads> for Threads {
    fn from(threads: pb::Threads) -> Self {
        Self {
            kept: threads.kept,
            parked: threads.parked,
            continued_turns: threads.continued_turns,
            forked_turns: threads.forked_turns,
            fresh_turns: threads.fresh_turns,
            evicted: threads.evicted.into_iter().collect(),
        }
    }
}

impl From<pb::AccountLimits> for AccountLimits {
    fn from(limits: pb::AccountLimits) -> Self {
        Self {
            plan_type: non_empty(limits.plan_type),
            windows: limits.windows.into_iter().map(Window::from).collect(),
            credits: limits.credits.map(Credits::from),
            read_at: seconds(limits.read_at),
        }
    }
}

impl From<pb::LimitWindow> for Window {
    fn from(window: pb::LimitWindow) -> Self {
        Self {
            limit_id: window.limit_id,
            used_percent: window.used_percent,
            window_seconds: window.duration.map(|duration| duration.seconds),
            resets_at: seconds(window.resets_at),
        }
    }
}

impl From<pb::Credits> for Credits {
    fn from(credits: pb::Credits) -> Self {
        Self {
            has_credits: credits.has_credits,
            unlimited: credits.unlimited,
            balance: non_empty(credits.balance),
        }
    }
}
