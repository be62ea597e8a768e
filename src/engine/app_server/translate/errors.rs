//! What the app-server says when a turn fails: a type (`codexErrorInfo`) where it has one, words where it has not,
//! and the error that each means for the caller.

use crate::{
    engine::{
        app_server::rpc::protocol::{CodexErrorInfo, TurnError, UpstreamStatus},
        cli::{error_messages, error_messages::TurnEnd},
    },
    error::Error,
};

/// Reads the error of a turn (`turn/completed`, or the `error` notification).
pub(crate) fn of(error: &TurnError) -> TurnEnd {
    let TurnError { message, additional_details: details, codex_error_info: info } = error;
    match typed(*info, message) {
        Some(error) => TurnEnd::Error(error),
        // While it retries, the reason is in the details and the message only says that it does.
        None => error_messages::classify_message(if details.is_empty() { message } else { details }),
    }
}

/// The types that say more than the words. The schema allows new ones at any time.
fn typed(info: CodexErrorInfo, message: &str) -> Option<Error> {
    let message = error_messages::without_url(message);
    Some(match info {
        CodexErrorInfo::ContextWindowExceeded => Error::ContextLengthExceeded { message },
        CodexErrorInfo::ModelNotFound => Error::ModelNotFound { message },
        CodexErrorInfo::RateLimitExceeded => {
            Error::RateLimited { retry_after: error_messages::retry_delay(&message), message }
        }
        CodexErrorInfo::UsageLimitExceeded => Error::UsageLimit { message },
        CodexErrorInfo::InternalServerError | CodexErrorInfo::ServerOverloaded => {
            Error::UpstreamUnavailable { message }
        }
        CodexErrorInfo::CyberPolicy => Error::Rejected { message },
        CodexErrorInfo::Unauthorized => error_messages::classify_status(401, &message),
        // The words tell the status too, and the upstream's own words with it.
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
    fn types_and_words_have_their_rows() {
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
            let TurnEnd::Error(found) = of(&read) else { panic!("{error} failed") };
            assert_eq!(found.reason(), expected, "{error}");
        }
        let cut = json!({"message": "Incomplete response returned, reason: max_output_tokens", "codexErrorInfo": "other"});
        let cut = serde_json::from_value::<TurnError>(cut).unwrap();
        assert!(matches!(of(&cut), TurnEnd::Truncated(crate::pb::FinishReason::Length)));
    }
}
