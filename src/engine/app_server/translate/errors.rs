//! Maps the app-server's error of a turn to an error for the caller. Uses the error's type (`codexErrorInfo`) if the type
//! is specific, otherwise the text.

use crate::{
    engine::{
        app_server::rpc::protocol::{CodexErrorInfo, TurnError, UpstreamStatus},
        cli::{error_messages, error_messages::TurnEnd},
    },
    error::{Error, foreign_text::without_addresses},
};

/// Classifies the error of `turn/completed` or of an `error` notification.
pub(crate) fn classify(error: &TurnError) -> TurnEnd {
    let reason = reason(error);
    match classify_type(error.codex_error_info, reason) {
        Some(error) => TurnEnd::Error(error),
        None => error_messages::classify_message(reason),
    }
}

/// Returns the reason of an error. While Codex retries, the message only reports the retry, and the reason is in the details.
pub(crate) fn reason(error: &TurnError) -> &str {
    if error.additional_details.is_empty() { &error.message } else { &error.additional_details }
}

/// Maps the types that are more specific than the text. Any release of Codex may add types.
fn classify_type(info: CodexErrorInfo, reason: &str) -> Option<Error> {
    let message = without_addresses(reason);
    Some(match info {
        CodexErrorInfo::ContextWindowExceeded => Error::ContextLengthExceeded { message },
        CodexErrorInfo::ModelNotFound => Error::ModelNotFound { message },
        CodexErrorInfo::RateLimitExceeded => {
            Error::RateLimited { retry_after: error_messages::retry_delay(&message), message }
        }
        CodexErrorInfo::UsageLimitExceeded => error_messages::usage_limit(message),
        CodexErrorInfo::InternalServerError | CodexErrorInfo::ServerOverloaded => {
            error_messages::classify_failure(reason)
        }
        CodexErrorInfo::CyberPolicy => Error::Rejected { message },
        CodexErrorInfo::Unauthorized => error_messages::classify_status(401, reason),
        // The text repeats the status, with the upstream's own message.
        CodexErrorInfo::HttpConnectionFailed(UpstreamStatus { http_status_code: Some(status) })
        | CodexErrorInfo::ResponseTooManyFailedAttempts(UpstreamStatus { http_status_code: Some(status) })
        | CodexErrorInfo::ResponseStreamDisconnected(UpstreamStatus { http_status_code: Some(status) }) => {
            error_messages::classify_status(status, reason)
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
            (
                json!({"message": "Reconnecting... 4/5", "additionalDetails": "unexpected status 402 Payment Required: pay first",
                    "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": 402}}}),
                "INSUFFICIENT_QUOTA",
            ),
            (
                json!({"message": "unexpected status 403 Forbidden: blocked, url: wss://u/v1/responses",
                    "codexErrorInfo": {"httpConnectionFailed": {"httpStatusCode": 403}}}),
                "UPSTREAM_UNAVAILABLE",
            ),
            (
                json!({"message": "Reconnecting... 5/5", "additionalDetails": "unexpected status 401 Unauthorized: no, url: ws://u/v1",
                    "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": 401}}}),
                "ENGINE_UNAVAILABLE",
            ),
        ];
        for (error, expected) in table {
            let read = serde_json::from_value::<TurnError>(error.clone()).unwrap();
            let TurnEnd::Error(found) = classify(&read) else { panic!("{error} failed") };
            assert_eq!(found.reason(), expected, "{error}");
            assert!(!found.to_string().contains("Reconnecting"), "{error}: {found}");
        }
        let cut = json!({"message": "Incomplete response returned, reason: max_output_tokens", "codexErrorInfo": "other"});
        let cut = serde_json::from_value::<TurnError>(cut).unwrap();
        assert!(matches!(classify(&cut), TurnEnd::Truncated(crate::pb::FinishReason::Length)));
    }
}
