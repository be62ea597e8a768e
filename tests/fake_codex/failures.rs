//! Upstream failures, with the recorded texts of the real CLI without retries.

/// The texts of a failed turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Failure {
    /// An incomplete agent message before the failure.
    pub(crate) partial: Option<&'static str>,
    /// The message of `turn.failed`.
    pub(crate) message: &'static str,
}

/// Builds a failure whose message has a status, a text and a URL.
macro_rules! refused {
    ($status:literal, $text:literal) => {
        message_only(concat!(
            "unexpected status ",
            $status,
            ": ",
            $text,
            ", url: http://127.0.0.1:9/v1/responses"
        ))
    };
}

/// The reason of a WebSocket that a proxy refuses, and the warning after the last attempt.
pub(crate) const WEBSOCKET_REFUSED: &str =
    "unexpected status 403 Forbidden: blocked by a proxy, url: ws://127.0.0.1:9/v1/responses";
pub(crate) const FALLBACK: &str = "Falling back from WebSockets to HTTPS transport. unexpected status 403 Forbidden: \
                                   blocked by a proxy, url: ws://127.0.0.1:9/v1/responses";

/// Returns the failure of a kind, which is the status or the event of the upstream. `KIND+BYTES` has a text of this length
/// with secrets at its start and end.
pub(crate) fn from_kind(kind: &str) -> Option<Failure> {
    if let Some((kind, bytes)) = kind.split_once('+') {
        let Failure { partial, message } = from_kind(kind)?;
        let (before, url) = message.split_at(message.find(", url: ").unwrap_or(message.len()));
        let message = format!("{before} {}{url}", with_secrets(bytes.parse().ok()?));
        // The process ends soon.
        return Some(Failure { partial, message: message.leak() });
    }
    Some(match kind {
        "400" => message_only(
            r#"{"error": {"message": "bad thing", "type": "invalid_request_error", "param": "input", "code": "bad_param"}}"#,
        ),
        "400-model" => message_only("The requested model 'x' does not exist."),
        // ChatGPT's form, without a code.
        "400-unsupported-model" => message_only(
            r#"{"detail":"The 'gpt-5-codex' model is not supported when using Codex with a ChatGPT account."}"#,
        ),
        "403-model" => message_only("Project `proj_1` does not have access to model `x`"),
        "404-retired-model" => message_only("The model `x` has been deprecated, learn more here."),
        "400-context" | "sse-context" => message_only(
            "Codex ran out of room in the model's context window. Start a new thread or clear earlier history before retrying.",
        ),
        // The real CLI classifies this body only for an exact code. Proxies use many wordings.
        "400-context-json" => message_only(
            r#"{"error": {"message": "This model's maximum context length is 272000 tokens. However, your messages resulted in 300001 tokens.", "type": "invalid_request_error", "param": "input", "code": "context_length_exceeded"}}"#,
        ),
        "401" => refused!("401 Unauthorized", "Incorrect API key provided: sk-fake."),
        "402" => refused!("402 Payment Required", "pay first"),
        "403" => refused!("403 Forbidden", "forbidden"),
        "404" => refused!("404 Not Found", "no such route"),
        "404-model" => message_only("The model `x` does not exist or you do not have access to it."),
        "413" => refused!("413 Payload Too Large", "too large"),
        "422" => refused!("422 Unprocessable Entity", "unprocessable"),
        "429" => message_only("exceeded retry limit, last status: 429 Too Many Requests"),
        "429-delay" => {
            refused!("429 Too Many Requests", "Rate limit reached for org. Please try again in 3.2s.")
        }
        "429-quota" => message_only("Quota exceeded. Check your plan and billing details."),
        "429-usage-limit" => message_only(
            "You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit https://chatgpt.com/settings/usage to purchase more credits or try again at 4:27 PM.",
        ),
        "429-not-included" => message_only(
            "To use Codex with your ChatGPT plan, upgrade to Plus: https://chatgpt.com/explore/plus.",
        ),
        "403-websocket" => message_only(WEBSOCKET_REFUSED),
        "refresh" => message_only(
            "Your access token could not be refreshed because your refresh token was already used. Please log out and sign in again.",
        ),
        "500" => message_only("We’re currently experiencing high demand, which may cause temporary errors."),
        "502" => refused!("502 Bad Gateway", "<html>bad gateway</html>"),
        "503" => refused!("503 Service Unavailable", "busy"),
        "503-capacity" => message_only("Selected model is at capacity. Please try a different model."),
        "sse-rate-limit" => {
            message_only("rate limit exceeded: Rate limit reached for org. Please try again in 1.5s.")
        }
        "sse-server-error" => message_only("stream disconnected before completion: oops"),
        "sse-invalid-prompt" => message_only("flagged"),
        "cut" => message_only(
            "stream disconnected before completion: Transport error: network error: error decoding response body",
        ),
        "eof" => {
            message_only("stream disconnected before completion: stream closed before response.completed")
        }
        "incomplete-length" => {
            with_partial("the beginning of", "Incomplete response returned, reason: max_output_tokens")
        }
        "incomplete-filter" => with_partial(
            "the beginning of",
            "stream disconnected before completion: Incomplete response returned, reason: content_filter",
        ),
        "idle" => message_only("stream disconnected before completion: idle timeout waiting for SSE"),
        "connection" => message_only("Connection failed: error sending request"),
        "missing-env-key" => message_only("Missing environment variable: `FAKE_KEY`."),
        "not-logged-in" => refused!("401 Unauthorized", "Missing bearer or basic authentication in header"),
        _ => return None,
    })
}

/// Returns a text of at least `bytes` with a key, an internal address and a path of the CLI's home.
fn with_secrets(bytes: usize) -> String {
    let home = crate::env("CODEX_HOME").unwrap_or_default();
    let secrets =
        format!("key sk-proj-0123456789abcdefABCDEF at http://10.1.2.3:8080/internal/v1 in {home}/auth.json");
    format!("{secrets} {} {secrets}", "upstream détail ".repeat(bytes / 17 + 1))
}

const fn message_only(message: &'static str) -> Failure {
    Failure { partial: None, message }
}

const fn with_partial(partial: &'static str, message: &'static str) -> Failure {
    Failure { partial: Some(partial), message }
}
