//! Maps the app-server's error of a turn to an error for the caller. Uses the error's type (`codexErrorInfo`) if the type
//! is specific, otherwise the text.

use crate::{
    engine::{
        app_server::rpc::protocol::{CodexErrorInfo, TurnError, UpstreamStatus},
        cli::{error_messages, error_messages::TurnEnd},
    },
    error::Error,
};

/// Classifies the error of `turn/completed` or of an `error` notification.
pub(crate) fn classify(error: &TurnError) -> TurnEnd {
    let TurnError { message, additional_details: details, codex_error_info: info } = error;
    match classify_type(*info, message) {
        Some(error) => TurnEnd::Error(error),
        // While Codex retries, the cause is in the details; the message only reports the retry.
        None => error_messages::classify_message(if details.is_empty() { message } else { details }),
    }
}

/// Maps the types that are more specific than the text. Any release of Codex may add types.
fn classify_type(info: CodexErrorInfo, full: &str) -> Option<Error> {
    let message = error_messages::without_url(full);
    Some(match info {
        CodexErrorInfo::ContextWindowExceeded => Error::ContextLengthExceeded { message },
        CodexErrorInfo::ModelNotFound => Error::ModelNotFound { message },
        CodexErrorInfo::RateLimitExceeded => {
            Error::RateLimited { retry_after: error_messages::retry_delay(&message), message }
        }
        // The URLs in this text are public, and the time of the reset follows them.
        CodexErrorInfo::UsageLimitExceeded => error_messages::usage_limit(full.to_owned()),
        CodexErrorInfo::InternalServerError | CodexErrorInfo::ServerOverloaded => {
            Error::UpstreamUnavailable { message }
        }
        CodexErrorInfo::CyberPolicy => Error::Rejected { message },
        CodexErrorInfo::Unauthorized => error_messages::classify_status(401, &message),
        // The text repeats the status, with the upstream's own message.
        CodexErrorInfo::HttpConnectionFailed(UpstreamStatus { http_status_code: Some(status) })
        | CodexErrorInfo::ResponseTooManyFailedAttempts(UpstreamStatus { http_status_code: Some(status) })
        | CodexErrorInfo::ResponseStreamDisconnected(UpstreamStatus { http_status_code: Some(status) }) => {
            error_messages::classify_status(status, &message)
        }
        CodexErrorInfo::HttpConnectionFailed(UpstreamStatus { http_status_code: None })
        | CodexErrorInfo::ResponseStreamConnectionFailed(UpstreamStatus { http_status_code: None }) => {
            Error::UpstreamUnavailable { message }
        }
        CodexErrorInfo::ResponseTooManyFailedAttempts(_)
        | CodexErrorInfo::ResponseStreamDisconnected(_)
        | CodexErrorInfo::ResponseStreamConnectionFailed(_)
        | CodexErrorInfo::Unknown => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classify_known_error_returns_the_reason_of_its_row() {
        let table = [
            (json!({"message": "x", "codexErrorInfo": "contextWindowExceeded"}), "CONTEXT_LENGTH_EXCEEDED"),
            (json!({"message": "x", "codexErrorInfo": "modelNotFound"}), "MODEL_NOT_FOUND"),
            (
                json!({"message": "try again in 2s", "codexErrorInfo": "rateLimitExceeded"}),
                "RATE_LIMIT_EXCEEDED",
            ),
            (json!({"message": "x", "codexErrorInfo": "usageLimitExceeded"}), "INSUFFICIENT_QUOTA"),
            (json!({"message": "x", "codexErrorInfo": "internalServerError"}), "UPSTREAM_UNAVAILABLE"),
            (json!({"message": "x", "codexErrorInfo": "serverOverloaded"}), "UPSTREAM_UNAVAILABLE"),
            (
                json!({"message": "unexpected status 401 Unauthorized: no, url: http://u",
                    "codexErrorInfo": {"httpConnectionFailed": {"httpStatusCode": 401}}}),
                "ENGINE_UNAVAILABLE",
            ),
            (
                json!({"message": "exceeded retry limit, last status: 429 Too Many Requests",
                    "codexErrorInfo": {"responseTooManyFailedAttempts": {"httpStatusCode": 429}}}),
                "RATE_LIMIT_EXCEEDED",
            ),
            (
                json!({"message": "Connection failed", "codexErrorInfo": {"httpConnectionFailed": {"httpStatusCode": null}}}),
                "UPSTREAM_UNAVAILABLE",
            ),
            (
                json!({"message": "{\"error\":{\"message\":\"bad\",\"code\":\"x\"}}", "codexErrorInfo": "other"}),
                "UPSTREAM_REJECTED",
            ),
            (json!({"message": "something new", "codexErrorInfo": {"brandNew": {}}}), "TURN_FAILED"),
            (
                json!({"message": "Reconnecting... 1/5", "additionalDetails": "idle timeout waiting for SSE",
                    "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": null}}}),
                "UPSTREAM_UNAVAILABLE",
            ),
        ];
        for (error, expected) in table {
            let read = serde_json::from_value::<TurnError>(error.clone()).unwrap();
            let TurnEnd::Error(found) = classify(&read) else { panic!("{error} failed") };
            assert_eq!(found.reason(), expected, "{error}");
        }
        let cut = json!({"message": "Incomplete response returned, reason: max_output_tokens", "codexErrorInfo": "other"});
        let cut = serde_json::from_value::<TurnError>(cut).unwrap();
        assert!(matches!(classify(&cut), TurnEnd::Truncated(crate::pb::FinishReason::Length)));
    }
}
