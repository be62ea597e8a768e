use super::*;
use crate::error::{Error, RETRY_PUSHBACK};

/// One error of each kind with its status, type, code, param, Retry-After and x-should-retry.
#[expect(clippy::type_complexity, reason = "one row of a table")]
fn table() -> Vec<(Error, (u16, &'static str, &'static str, Option<&'static str>, Option<u64>, bool))> {
    let m = || "why".to_owned();
    let bad = "invalid_request_error";
    let server = "server_error";
    let limit = "rate_limit_error";
    vec![
        (Error::invalid("n", "why"), (400, bad, "invalid_value", Some("n"), None, true)),
        (Error::unsupported("tools", "why"), (400, bad, "unsupported_parameter", Some("tools"), None, true)),
        (
            Error::PromptTooLarge { field: "messages", message: m() },
            (413, bad, "context_length_exceeded", Some("messages"), None, true),
        ),
        (
            Error::ContextLengthExceeded { message: m() },
            (400, bad, "context_length_exceeded", Some("messages"), None, true),
        ),
        (Error::Rejected { message: m() }, (400, bad, "upstream_rejected", None, None, true)),
        (Error::Unauthenticated { message: m() }, (401, bad, "invalid_api_key", None, None, true)),
        (
            Error::PermissionDenied { reason: "POLICY_WIDENED", message: m() },
            (403, "permission_error", "policy_widened", None, None, true),
        ),
        (
            Error::PermissionDenied { reason: "HOST_REFUSED", message: m() },
            (403, "permission_error", "host_refused", None, None, true),
        ),
        (
            Error::PermissionDenied { reason: "ORIGIN_REFUSED", message: m() },
            (403, "permission_error", "origin_refused", None, None, true),
        ),
        (Error::ModelNotFound { message: m() }, (404, bad, "model_not_found", Some("model"), None, true)),
        (
            Error::Overloaded { message: m(), retry_after: Duration::from_millis(2001) },
            (429, limit, "overloaded", None, Some(3), true),
        ),
        (
            Error::RateLimited { message: m(), retry_after: Some(Duration::from_secs(20)) },
            (429, limit, "rate_limit_exceeded", None, Some(20), true),
        ),
        (
            Error::RateLimited { message: m(), retry_after: None },
            (429, limit, "rate_limit_exceeded", None, None, true),
        ),
        (
            Error::UsageLimit { message: m(), retry_after: None },
            (429, "insufficient_quota", "insufficient_quota", None, None, false),
        ),
        (
            Error::UsageLimit { message: m(), retry_after: Some(Duration::from_millis(8_999_001)) },
            (429, "insufficient_quota", "insufficient_quota", None, Some(9_000), false),
        ),
        (Error::EngineUnavailable { message: m() }, (503, server, "engine_unavailable", None, None, false)),
        (Error::Draining, (503, server, "shutting_down", None, Some(1), true)),
        (Error::DeadlineExceeded { message: m() }, (504, server, "timeout", None, None, false)),
        (Error::TurnFailed { message: m() }, (502, server, "turn_failed", None, None, false)),
        (
            Error::UpstreamUnavailable { message: m() },
            (503, server, "upstream_unavailable", None, Some(5), true),
        ),
        (Error::WorkerLost { message: m() }, (503, server, "worker_lost", None, Some(1), true)),
        (
            Error::RateLimited { message: m(), retry_after: Some(Duration::from_secs(20)) }.after_effects(),
            (502, server, "failed_after_effects", None, None, false),
        ),
        (Error::Internal { cause: m() }, (500, server, "internal_error", None, None, false)),
    ]
}

#[tokio::test]
async fn api_error_of_each_error_has_its_row() {
    for (error, expected) in table() {
        let shown = if let Error::Internal { .. } = error { INTERNAL_TEXT.into() } else { error.to_string() };
        let status = Status::from(error);
        let pushback = status.metadata().get(RETRY_PUSHBACK).map(|value| value.to_str().unwrap().to_owned());
        let response = ApiError::from_status(&status, &FieldNames::default()).into_response();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let (http, kind, code, param, retry_after, may_retry) = expected;
        assert_eq!(
            body,
            serde_json::json!({"error": {"message": shown, "type": kind, "param": param, "code": code}})
        );
        assert_eq!(parts.status.as_u16(), http, "{code}");
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("retry-after"), retry_after.map(|s| s.to_string()), "{code}");
        assert_eq!(header("x-should-retry"), (!may_retry).then(|| "false".to_owned()), "{code}");
        assert_eq!(
            pushback.as_deref() == Some("-1"),
            !may_retry,
            "{code}: both doors forbid the same retries"
        );
        assert_eq!(header("www-authenticate"), (http == 401).then(|| "Bearer".to_owned()), "{code}");
        assert_eq!(header("content-type").as_deref(), Some("application/json"));
    }
}

#[test]
fn table_contains_every_error() {
    // A new kind of error needs a row above; this match fails to compile without it.
    let number = |error: &Error| match error {
        Error::InvalidArgument { .. } => 0,
        Error::Unsupported { .. } => 1,
        Error::PromptTooLarge { .. } => 2,
        Error::ContextLengthExceeded { .. } => 3,
        Error::Rejected { .. } => 4,
        Error::Unauthenticated { .. } => 5,
        Error::PermissionDenied { .. } => 6,
        Error::ModelNotFound { .. } => 7,
        Error::Overloaded { .. } => 8,
        Error::RateLimited { .. } => 9,
        Error::UsageLimit { .. } => 10,
        Error::EngineUnavailable { .. } => 11,
        Error::Draining => 12,
        Error::DeadlineExceeded { .. } => 13,
        Error::TurnFailed { .. } => 14,
        Error::UpstreamUnavailable { .. } => 15,
        Error::WorkerLost { .. } => 16,
        Error::Internal { .. } => 17,
        Error::FailedAfterEffects { .. } => 18,
    };
    let numbers: std::collections::BTreeSet<i32> = table().iter().map(|(error, _)| number(error)).collect();
    assert_eq!(numbers, (0..19).collect());
}

#[test]
fn api_error_of_a_status_without_a_reason_hides_internal_causes() {
    let error = ApiError::from_status(&Status::unknown("transport: /run/secret"), &FieldNames::default());
    assert_eq!(error.row.http, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(error.message, INTERNAL_TEXT);
    for code in (0..17).map(Code::from_i32) {
        let row = row_of_code(code);
        assert!(row.http.is_client_error() || row.http.is_server_error(), "{code:?}");
    }
}

#[test]
fn api_error_message_contains_the_clients_field_name() {
    let names = FieldNames { max_output_tokens: "max_tokens", ..FieldNames::default() };
    let status = Status::from(Error::invalid("max_output_tokens", "max_output_tokens must be at least 1"));
    let error = ApiError::from_status(&status, &names);
    assert_eq!(error.param.as_deref(), Some("max_tokens"));
    assert_eq!(error.message, "max_tokens must be at least 1");
}
