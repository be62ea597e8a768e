//! What the app-server says when a turn fails: a type (`codexErrorInfo`) where it has one, words where it has not,
//! and the error that each means for the caller.

use serde_json::Value;

use crate::{
    engine::cli::{error_messages, error_messages::End},
    error::Error,
};

/// Reads the error of a turn (`turn/completed`, or the `error` notification).
pub(crate) fn of(error: &Value) -> End {
    let message = error["message"].as_str().unwrap_or_default();
    let details = error["additionalDetails"].as_str();
    match typed(&error["codexErrorInfo"], message) {
        Some(error) => End::Failed(error),
        // While it retries, the reason is in the details and the message only says that it does.
        None => error_messages::of_message(details.filter(|d| !d.is_empty()).unwrap_or(message)),
    }
}

/// The types that say more than the words. The schema allows new ones at any time.
fn typed(info: &Value, message: &str) -> Option<Error> {
    let message = error_messages::without_url(message);
    if let Some(name) = info.as_str() {
        return Some(match name {
            "contextWindowExceeded" => Error::ContextLengthExceeded { message },
            "modelNotFound" => Error::ModelNotFound { message },
            "rateLimitExceeded" => {
                Error::RateLimited { retry_after: error_messages::delay(&message), message }
            }
            "usageLimitExceeded" => Error::UsageLimit { message },
            "internalServerError" | "serverOverloaded" => Error::UpstreamUnavailable { message },
            "cyberPolicy" => Error::Rejected { message },
            "unauthorized" => error_messages::of_status(401, &message),
            _ => return None,
        });
    }
    let (name, inner) = info.as_object()?.iter().next()?;
    let status = inner["httpStatusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
    match (name.as_str(), status) {
        // The words tell the status too, and the upstream's own words with it.
        (
            "httpConnectionFailed" | "responseTooManyFailedAttempts" | "responseStreamDisconnected",
            Some(status),
        ) => Some(error_messages::of_status(status, &message)),
        ("httpConnectionFailed" | "responseStreamConnectionFailed", None) => {
            Some(Error::UpstreamUnavailable { message })
        }
        _ => None,
    }
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
            let End::Failed(found) = of(&error) else { panic!("{error} failed") };
            assert_eq!(found.reason(), expected, "{error}");
        }
        let cut = json!({"message": "Incomplete response returned, reason: max_output_tokens", "codexErrorInfo": "other"});
        assert!(matches!(of(&cut), End::Cut(crate::pb::FinishReason::Length)));
    }
}
