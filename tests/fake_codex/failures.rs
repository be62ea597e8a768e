//! Upstream failures: the texts of the real CLI for each, with retries switched off.

/// The texts of a failed turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Failure {
    /// A message of the agent that comes first, cut off as it is.
    pub(crate) partial: Option<&'static str>,
    /// The message of `turn.failed`.
    pub(crate) message: &'static str,
}

/// The URL in the messages.
macro_rules! refused {
    ($status:literal, $said:literal) => {
        says(concat!("unexpected status ", $status, ": ", $said, ", url: http://127.0.0.1:9/v1/responses"))
    };
}

/// The failure of this kind, named after the upstream's status or event.
pub(crate) fn named(kind: &str) -> Option<Failure> {
    Some(match kind {
        "400" => says(
            r#"{"error": {"message": "bad thing", "type": "invalid_request_error", "param": "input", "code": "bad_param"}}"#,
        ),
        "400-model" => says("The requested model 'x' does not exist."),
        "400-context" | "sse-context" => says(
            "Codex ran out of room in the model's context window. Start a new thread or clear earlier history before retrying.",
        ),
        // The real one translates this body only where the code is exactly so; proxies word it in many ways.
        "400-context-json" => says(
            r#"{"error": {"message": "This model's maximum context length is 272000 tokens. However, your messages resulted in 300001 tokens.", "type": "invalid_request_error", "param": "input", "code": "context_length_exceeded"}}"#,
        ),
        "401" => refused!("401 Unauthorized", "Incorrect API key provided: sk-fake."),
        "402" => refused!("402 Payment Required", "pay first"),
        "403" => refused!("403 Forbidden", "forbidden"),
        "404" => refused!("404 Not Found", "no such route"),
        "404-model" => says("The model `x` does not exist or you do not have access to it."),
        "413" => refused!("413 Payload Too Large", "too large"),
        "422" => refused!("422 Unprocessable Entity", "unprocessable"),
        "429" => says("exceeded retry limit, last status: 429 Too Many Requests"),
        "429-quota" => says("Quota exceeded. Check your plan and billing details."),
        "429-usage-limit" => says(
            "You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit https://chatgpt.com/settings/usage to purchase more credits or try again at 4:27 PM.",
        ),
        "500" => says("We’re currently experiencing high demand, which may cause temporary errors."),
        "502" => refused!("502 Bad Gateway", "<html>bad gateway</html>"),
        "503" => refused!("503 Service Unavailable", "busy"),
        "503-capacity" => says("Selected model is at capacity. Please try a different model."),
        "sse-rate-limit" => {
            says("rate limit exceeded: Rate limit reached for org. Please try again in 1.5s.")
        }
        "sse-server-error" => says("stream disconnected before completion: oops"),
        "sse-invalid-prompt" => says("flagged"),
        "cut" => says(
            "stream disconnected before completion: Transport error: network error: error decoding response body",
        ),
        "eof" => says("stream disconnected before completion: stream closed before response.completed"),
        "incomplete-length" => {
            partly("the beginning of", "Incomplete response returned, reason: max_output_tokens")
        }
        "incomplete-filter" => partly(
            "the beginning of",
            "stream disconnected before completion: Incomplete response returned, reason: content_filter",
        ),
        "idle" => says("stream disconnected before completion: idle timeout waiting for SSE"),
        "connection" => says("Connection failed: error sending request"),
        "missing-env-key" => says("Missing environment variable: `FAKE_KEY`."),
        "not-logged-in" => refused!("401 Unauthorized", "Missing bearer or basic authentication in header"),
        _ => return None,
    })
}

const fn says(message: &'static str) -> Failure {
    Failure { partial: None, message }
}

const fn partly(partial: &'static str, message: &'static str) -> Failure {
    Failure { partial: Some(partial), message }
}
