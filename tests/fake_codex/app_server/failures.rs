//! The typed errors of failed turns, with the texts of `exec` and the codes of the app-server.

use serde_json::{Value, json};

use super::version::Release;
use crate::failures;

/// The error of a failed turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// The text before the failure.
    pub(crate) partial: Option<&'static str>,
    /// The message.
    pub(crate) message: &'static str,
    /// `codexErrorInfo`.
    pub(crate) info: Value,
}

/// Returns the failure of a kind.
pub(crate) fn from_kind(kind: &str) -> Option<Failure> {
    let (partial, message) = match kind {
        "529" => {
            (None, "unexpected status 529 <unknown status code>: x, url: http://127.0.0.1:9/v1/responses")
        }
        "sse-cyber" => (None, "This request was flagged for possible cybersecurity risk."),
        "sse-overloaded" => (None, "Selected model is at capacity. Please try a different model."),
        _ => failures::from_kind(kind).map(|failure| (failure.partial, failure.message))?,
    };
    let kind = kind.split('+').next().unwrap_or(kind);
    let status = |key: &str, status: Value| json!({key: {"httpStatusCode": status}});
    let info = match kind {
        "400-context" | "sse-context" => json!("contextWindowExceeded"),
        "400-model" | "403-model" | "404-model" | "404-retired-model" => json!("modelNotFound"),
        "401" | "402" | "403" | "404" | "413" | "422" | "502" | "503" | "529" => {
            status("httpConnectionFailed", kind.parse::<u16>().map_or(Value::Null, Value::from))
        }
        "403-websocket" => status("httpConnectionFailed", json!(403)),
        "not-logged-in" => status("httpConnectionFailed", json!(401)),
        "connection" => status("httpConnectionFailed", Value::Null),
        "429-delay" => status("httpConnectionFailed", json!(429)),
        "429" => status("responseTooManyFailedAttempts", json!(429)),
        "sse-rate-limit" => json!("rateLimitExceeded"),
        "429-quota" | "429-usage-limit" | "429-not-included" => json!("usageLimitExceeded"),
        "500" => json!("internalServerError"),
        "503-capacity" | "sse-overloaded" => json!("serverOverloaded"),
        "sse-cyber" => json!("cyberPolicy"),
        // 400, broken streams, incomplete answers, a missing key.
        _ => json!("other"),
    };
    Some(Failure { partial, message, info })
}

impl Failure {
    /// Returns the `error` of the notification and of the turn. Old releases report a refused key as `other`.
    pub(crate) fn error(&self, release: Release) -> Value {
        let old = release < Release::V169 && self.info.get("httpConnectionFailed").is_some();
        let info = if old { json!("other") } else { self.info.clone() };
        error(self.message, &info, None, release)
    }

    /// Returns the `error` of a retry after this failure.
    pub(crate) fn retry(&self, attempt: &str, release: Release) -> Value {
        let status =
            self.info.get("httpConnectionFailed").map_or(Value::Null, |i| i["httpStatusCode"].clone());
        retry(attempt, status, self.message, release)
    }
}

/// Returns the `error` of a retry. `attempt` is the text after `Reconnecting... `.
pub(crate) fn retry(attempt: &str, status: Value, why: &str, release: Release) -> Value {
    let info = json!({"responseStreamDisconnected": {"httpStatusCode": status}});
    error(&format!("Reconnecting... {attempt}"), &info, Some(why), release)
}

fn error(message: &str, info: &Value, details: Option<&str>, release: Release) -> Value {
    let mut error = json!({"message": message, "codexErrorInfo": info, "additionalDetails": details});
    if release >= Release::V169 {
        error["misalignment"] = Value::Null;
    }
    error
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Release, from_kind};

    #[test]
    fn recorded_failures_are_all_typed() {
        for (kind, info) in [
            ("400", json!("other")),
            ("400-context", json!("contextWindowExceeded")),
            ("sse-context", json!("contextWindowExceeded")),
            ("401", json!({"httpConnectionFailed": {"httpStatusCode": 401}})),
            ("402", json!({"httpConnectionFailed": {"httpStatusCode": 402}})),
            ("403", json!({"httpConnectionFailed": {"httpStatusCode": 403}})),
            ("404", json!({"httpConnectionFailed": {"httpStatusCode": 404}})),
            ("413", json!({"httpConnectionFailed": {"httpStatusCode": 413}})),
            ("422", json!({"httpConnectionFailed": {"httpStatusCode": 422}})),
            ("404-model", json!("modelNotFound")),
            ("400-model", json!("modelNotFound")),
            ("429", json!({"responseTooManyFailedAttempts": {"httpStatusCode": 429}})),
            ("sse-rate-limit", json!("rateLimitExceeded")),
            ("429-quota", json!("usageLimitExceeded")),
            ("429-usage-limit", json!("usageLimitExceeded")),
            ("500", json!("internalServerError")),
            ("502", json!({"httpConnectionFailed": {"httpStatusCode": 502}})),
            ("503", json!({"httpConnectionFailed": {"httpStatusCode": 503}})),
            ("529", json!({"httpConnectionFailed": {"httpStatusCode": 529}})),
            ("503-capacity", json!("serverOverloaded")),
            ("sse-overloaded", json!("serverOverloaded")),
            ("sse-cyber", json!("cyberPolicy")),
            ("sse-invalid-prompt", json!("other")),
            ("sse-server-error", json!("other")),
            ("cut", json!("other")),
            ("eof", json!("other")),
            ("idle", json!("other")),
            ("incomplete-length", json!("other")),
            ("incomplete-filter", json!("other")),
            ("missing-env-key", json!("other")),
            ("connection", json!({"httpConnectionFailed": {"httpStatusCode": null}})),
        ] {
            let failure = from_kind(kind).expect(kind);
            assert_eq!(failure.error(Release::V169)["codexErrorInfo"], info, "{kind}");
        }
        assert!(from_kind("418").is_none());
    }

    #[test]
    fn refused_key_in_old_releases_is_untyped() {
        assert_eq!(from_kind("401").expect("a kind").error(Release::V140)["codexErrorInfo"], json!("other"));
    }
}
