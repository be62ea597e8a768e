//! OpenAI's error object, and the only translation of a `tonic::Status` into this object.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::field_names::FieldNames;
use crate::error::INTERNAL_TEXT;

/// An error response of the facade.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    row: Row,
    message: String,
    param: Option<String>,
    retry_after: Option<Duration>,
}

/// A row of the table: the form of an error over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    http: StatusCode,
    kind: &'static str,
    code: &'static str,
    retry: Retry,
    /// Parameter of the error if the status names no field.
    param: Option<&'static str>,
}

/// Instruction for SDKs with automatic retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Follow the SDK's default for the status code.
    Default,
    /// Do not retry, because a retry would run an agent twice or cannot help.
    Never,
}

const INVALID_REQUEST: &str = "invalid_request_error";
const PERMISSION: &str = "permission_error";
const RATE_LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";

impl Row {
    const fn new(http: StatusCode, kind: &'static str, code: &'static str) -> Self {
        Self { http, kind, code, retry: Retry::Default, param: None }
    }

    const fn never_retried(mut self) -> Self {
        self.retry = Retry::Never;
        self
    }

    const fn about(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }
}

/// Returns the row of a stable reason of `google.rpc.ErrorInfo`.
fn row_of_reason(reason: &str) -> Option<Row> {
    use StatusCode as S;
    Some(match reason {
        "INVALID_VALUE" => Row::new(S::BAD_REQUEST, INVALID_REQUEST, "invalid_value"),
        "UNSUPPORTED_PARAMETER" => Row::new(S::BAD_REQUEST, INVALID_REQUEST, "unsupported_parameter"),
        "UPSTREAM_REJECTED" => Row::new(S::BAD_REQUEST, INVALID_REQUEST, "upstream_rejected"),
        "PROMPT_TOO_LARGE" => {
            Row::new(S::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "context_length_exceeded").about("messages")
        }
        "CONTEXT_LENGTH_EXCEEDED" => {
            Row::new(S::BAD_REQUEST, INVALID_REQUEST, "context_length_exceeded").about("messages")
        }
        // The official SDKs raise this pair as AuthenticationError.
        "INVALID_API_KEY" => Row::new(S::UNAUTHORIZED, INVALID_REQUEST, "invalid_api_key"),
        "POLICY_WIDENED" => Row::new(S::FORBIDDEN, PERMISSION, "policy_widened"),
        "HOST_REFUSED" => Row::new(S::FORBIDDEN, PERMISSION, "host_refused"),
        "ORIGIN_REFUSED" => Row::new(S::FORBIDDEN, PERMISSION, "origin_refused"),
        "MODEL_NOT_FOUND" => Row::new(S::NOT_FOUND, INVALID_REQUEST, "model_not_found").about("model"),
        "OVERLOADED" => Row::new(S::TOO_MANY_REQUESTS, RATE_LIMIT, "overloaded"),
        "RATE_LIMIT_EXCEEDED" => Row::new(S::TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded"),
        "INSUFFICIENT_QUOTA" => {
            Row::new(S::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota").never_retried()
        }
        "ENGINE_UNAVAILABLE" => {
            Row::new(S::SERVICE_UNAVAILABLE, SERVER, "engine_unavailable").never_retried()
        }
        "SHUTTING_DOWN" => Row::new(S::SERVICE_UNAVAILABLE, SERVER, "shutting_down"),
        "TIMEOUT" => Row::new(S::GATEWAY_TIMEOUT, SERVER, "timeout").never_retried(),
        "TURN_FAILED" => Row::new(S::BAD_GATEWAY, SERVER, "turn_failed").never_retried(),
        // The agent has acted, so the caller decides about a retry. Neither the status nor the code is one of those that
        // proxies and clients retry by themselves.
        "FAILED_AFTER_EFFECTS" => Row::new(S::BAD_GATEWAY, SERVER, "failed_after_effects").never_retried(),
        "WORKER_LOST" => Row::new(S::SERVICE_UNAVAILABLE, SERVER, "worker_lost"),
        "UPSTREAM_UNAVAILABLE" => Row::new(S::SERVICE_UNAVAILABLE, SERVER, "upstream_unavailable"),
        "INTERNAL" => Row::new(S::INTERNAL_SERVER_ERROR, SERVER, "internal_error").never_retried(),
        _ => return None,
    })
}

/// Returns the row of a status without a reason, which only a library can create.
fn row_of_code(code: Code) -> Row {
    use StatusCode as S;
    match code {
        Code::InvalidArgument | Code::OutOfRange => {
            Row::new(S::BAD_REQUEST, INVALID_REQUEST, "invalid_value")
        }
        Code::Unauthenticated => Row::new(S::UNAUTHORIZED, INVALID_REQUEST, "invalid_api_key"),
        Code::PermissionDenied => Row::new(S::FORBIDDEN, PERMISSION, "permission_denied"),
        Code::NotFound => Row::new(S::NOT_FOUND, INVALID_REQUEST, "not_found"),
        Code::AlreadyExists => Row::new(S::CONFLICT, INVALID_REQUEST, "already_exists"),
        Code::ResourceExhausted => Row::new(S::TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded"),
        Code::FailedPrecondition => {
            Row::new(S::SERVICE_UNAVAILABLE, SERVER, "engine_unavailable").never_retried()
        }
        Code::Unavailable => Row::new(S::SERVICE_UNAVAILABLE, SERVER, "unavailable"),
        Code::DeadlineExceeded => Row::new(S::GATEWAY_TIMEOUT, SERVER, "timeout").never_retried(),
        Code::Aborted | Code::Cancelled => Row::new(S::BAD_GATEWAY, SERVER, "turn_failed").never_retried(),
        Code::Unimplemented => Row::new(S::NOT_IMPLEMENTED, SERVER, "not_implemented").never_retried(),
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok => {
            Row::new(S::INTERNAL_SERVER_ERROR, SERVER, "internal_error").never_retried()
        }
    }
}

impl ApiError {
    /// Translates a status. `names` are the client's names of the contract's fields.
    pub(super) fn from_status(status: &Status, names: &FieldNames) -> Self {
        Self::from_status_of(status, |field| names.param(field))
    }

    /// Translates a status. `param` returns the client's name of a field of the contract.
    pub(super) fn from_status_of(status: &Status, param: impl Fn(&str) -> String) -> Self {
        let details = status.get_error_details();
        let by_reason = details.error_info().and_then(|info| row_of_reason(&info.reason));
        let row = by_reason.unwrap_or_else(|| row_of_code(status.code()));
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
        let field = violation.map(|v| v.field.as_str()).filter(|field| !field.is_empty());
        let row_param = row.param.map(&param);
        let param = field.map(param);
        let message = match (field, &param) {
            // A library's text about an internal error is not for clients.
            _ if row.http == StatusCode::INTERNAL_SERVER_ERROR => INTERNAL_TEXT.to_owned(),
            (Some(field), Some(param)) if field != param => status.message().replace(field, param),
            _ => status.message().to_owned(),
        };
        Self {
            row,
            message,
            param: param.or(row_param),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        }
    }

    /// Returns the error of a parameter with an invalid value.
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let row = Row::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "invalid_value");
        Self::plain(row, message).with_param(param)
    }

    /// Returns the error of a parameter that is not supported.
    pub(super) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        let row = Row::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "unsupported_parameter");
        Self::plain(row, message).with_param(param)
    }

    /// Returns the error of a body that is not JSON.
    pub(super) fn invalid_json(message: impl Into<String>) -> Self {
        Self::plain(Row::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "invalid_json"), message)
    }

    /// Returns the error of a body that could not be read to its end.
    pub(super) fn broken_body(message: impl Into<String>) -> Self {
        Self::plain(Row::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "invalid_body"), message)
    }

    /// Returns the error of a body above the limit.
    pub(super) fn body_too_large(message: impl Into<String>) -> Self {
        Self::plain(Row::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "body_too_large"), message)
    }

    /// Returns the error of a body that did not arrive in time.
    pub(super) fn body_timeout(message: impl Into<String>) -> Self {
        Self::plain(Row::new(StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST, "body_timeout"), message)
    }

    /// Returns the error of a body with another content type.
    pub(super) fn unsupported_media_type(message: impl Into<String>) -> Self {
        let row = Row::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, "unsupported_media_type");
        Self::plain(row, message)
    }

    /// Returns the error of an unknown path.
    pub(super) fn unknown_url(message: impl Into<String>) -> Self {
        Self::plain(Row::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "unknown_url"), message)
    }

    /// Returns the error of a route that does not support the method.
    pub(super) fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::plain(Row::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, "method_not_allowed"), message)
    }

    /// Returns the error of a reference to an item that this server does not have.
    pub(super) fn item_not_found(param: impl Into<String>, message: impl Into<String>) -> Self {
        let row = Row::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "not_found");
        Self::plain(row, message).with_param(param)
    }

    /// Replaces the beginning of the parameter's name, also in the message.
    pub(super) fn renamed(mut self, from: &str, to: &str) -> Self {
        if let Some(rest) = self.param.as_deref().and_then(|param| param.strip_prefix(from)) {
            self.param = Some(format!("{to}{rest}"));
            self.message = self.message.replace(from, to);
        }
        self
    }

    /// Returns the code of the error in the closed list that a failed response has.
    pub(super) fn response_code(&self) -> &'static str {
        match self.row.kind {
            RATE_LIMIT | "insufficient_quota" => "rate_limit_exceeded",
            INVALID_REQUEST => "invalid_prompt",
            _ => "server_error",
        }
    }

    /// Returns the error as the members of an event.
    pub(super) fn object(&self) -> ErrorObject<'_> {
        ErrorObject {
            message: &self.message,
            kind: self.row.kind,
            param: self.param.as_deref(),
            code: self.row.code,
        }
    }

    /// Returns the error of an unknown model.
    pub(super) fn model_not_found(message: impl Into<String>) -> Self {
        let row = Row::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "model_not_found");
        Self::plain(row, message).with_param("model")
    }

    fn plain(row: Row, message: impl Into<String>) -> Self {
        Self { row, message: message.into(), param: None, retry_after: None }
    }

    fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Returns the error object, for a body or an SSE frame.
    pub(super) fn body(&self) -> impl Serialize + '_ {
        ErrorBody { error: self.object() }
    }
}

#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

/// The members of an error.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct ErrorObject<'a> {
    pub(super) message: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) param: Option<&'a str>,
    pub(super) code: &'static str,
}

/// Header with which a response overrides the official SDKs' own rule for retries.
pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.row.http, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if self.row.http == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let is_temporary =
            matches!(self.row.http, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if let Some(delay) = self.retry_after.filter(|_| is_temporary) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
        }
        match self.row.retry {
            Retry::Default => {}
            Retry::Never => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
        }
        response
    }
}

/// Rounds up to whole seconds, because the server refuses a retry that comes too early.
fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
