//! Classifies the error texts of the CLI (measured with 0.169) and maps each to an error for the caller. No other
//! module classifies by substring.

use std::time::Duration;

use crate::{
    error::{Error, foreign_text::without_addresses},
    pb,
};

/// The end of a turn that did not complete.
#[derive(Debug)]
pub(crate) enum TurnEnd {
    /// The upstream truncated the answer. The text before the end is valid.
    Truncated(pb::FinishReason),
    /// The turn failed.
    Error(Error),
}

/// Classifies the message of `turn.failed`, or the reason of a `Reconnecting…` line. The error has no addresses.
pub(crate) fn classify_message(message: &str) -> TurnEnd {
    let text = message.trim();
    // The text may have a prefix: `stream disconnected before completion: Incomplete response …`.
    if let Some((_, reason)) = text.split_once("Incomplete response returned, reason: ") {
        return match reason.trim() {
            "max_output_tokens" => TurnEnd::Truncated(pb::FinishReason::Length),
            "content_filter" => TurnEnd::Truncated(pb::FinishReason::ContentFilter),
            _ => TurnEnd::Error(Error::TurnFailed { message: without_addresses(text) }),
        };
    }
    TurnEnd::Error(
        upstream_body(text)
            .or_else(|| unexpected_status(text))
            .unwrap_or_else(|| classify_prefix(&without_addresses(text))),
    )
}

/// Parses a rejection of the upstream, which the CLI reports as the JSON body.
fn upstream_body(text: &str) -> Option<Error> {
    let body: serde_json::Value = serde_json::from_str(text).ok()?;
    let error = body.get("error").unwrap_or(&body);
    let message = without_addresses(error.get("message").or(body.get("detail"))?.as_str()?);
    let code = error.get("code").and_then(|code| code.as_str()).unwrap_or_default();
    Some(match code {
        "model_not_found" => model_not_found(message),
        "context_length_exceeded" => Error::ContextLengthExceeded { message },
        "insufficient_quota" => usage_limit(message),
        _ => rejected_or_unknown_model(message),
    })
}

fn rejected_or_unknown_model(message: String) -> Error {
    if is_unknown_model(&message) { model_not_found(message) } else { Error::Rejected { message } }
}

/// Parses `unexpected status 401 Unauthorized: <upstream's message>, url: …`.
fn unexpected_status(text: &str) -> Option<Error> {
    let rest = text.strip_prefix("unexpected status ")?;
    let code: u16 = rest.get(..3)?.parse().ok()?;
    let message = rest.split_once(": ").map_or(rest, |(_, message)| message);
    // The URL is followed by ids of the request, which tell the caller nothing.
    let (message, url) = message.split_once(", url: ").unwrap_or((message, ""));
    let message = without_addresses(message.trim());
    let is_upgrade = WEBSOCKET_SCHEMES.iter().any(|scheme| url.starts_with(scheme));
    Some(if is_upgrade { upgrade_refused(code, &message) } else { by_status(code, &message) })
}

const WEBSOCKET_SCHEMES: &[&str] = &["ws://", "wss://"];

/// Returns the error of a refused WebSocket. The request of a response was not sent, so only a status that concerns the
/// login or its limits is about more than the connection. A proxy or a firewall may have answered.
fn upgrade_refused(code: u16, text: &str) -> Error {
    match code {
        401 | 402 | 429 => by_status(code, text),
        _ if is_html(text) || is_binary(text) => upgrade_refused(code, ""),
        _ => {
            let answer = if text.is_empty() { code.to_string() } else { format!("{code}: {}", quoted(text)) };
            Error::UpstreamUnavailable {
                message: format!(
                    "the WebSocket to the upstream was refused, possibly by a proxy or a firewall ({answer})"
                ),
            }
        }
    }
}

/// Returns `true` if a text names a failure of a WebSocket.
pub(crate) fn names_websocket(text: &str) -> bool {
    WEBSOCKET_SCHEMES.iter().any(|scheme| text.contains(scheme)) || text.to_lowercase().contains("websocket")
}

/// Returns `true` if the reason of a retry over a WebSocket is the upstream's answer to the request. The reason of a refused
/// connection names the address. A refused login counts as an answer, because HTTPS uses the same login.
pub(crate) fn is_answer_over_websocket(reason: &str) -> bool {
    if reason.starts_with("unexpected status 401") {
        return true;
    }
    let is_answer =
        ["unexpected status ", "rate limit exceeded"].iter().any(|start| reason.starts_with(start));
    is_answer && !names_websocket(reason)
}

/// Returns `true` if a retry follows a plain 429. Codex waits for as long as the `Retry-After` of the 429 says, which may be
/// hours, and reports neither the header nor the wait.
pub(crate) fn is_rate_limit_without_delay(reason: &str) -> bool {
    reason.starts_with("exceeded retry limit, last status: 429")
        || reason.starts_with("unexpected status 429")
}

/// Classifies a message with a separate status.
pub(crate) fn classify_status(code: u16, message: &str) -> Error {
    unexpected_status(message).unwrap_or_else(|| by_status(code, &without_addresses(message)))
}

/// Classifies a message whose type already says that the upstream failed.
pub(crate) fn classify_failure(message: &str) -> Error {
    let message = message.trim();
    unexpected_status(message)
        .filter(|error| matches!(error, Error::UpstreamUnavailable { .. }))
        .unwrap_or_else(|| {
            let message = without_addresses(message);
            unreadable_body(500, &message).unwrap_or(Error::UpstreamUnavailable { message })
        })
}

fn by_status(code: u16, text: &str) -> Error {
    if let Some(error) = unreadable_body(code, text) {
        return error;
    }
    let message = format!("the upstream answered {code}: {text}");
    match code {
        400 | 403 | 404 | 422 if is_unknown_model(text) => model_not_found(message),
        400 | 422 => Error::Rejected { message },
        401 | 403 => login_refused(code, &quoted(text)),
        402 => usage_limit(message),
        413 => Error::ContextLengthExceeded { message },
        429 => Error::RateLimited { retry_after: retry_delay(text), message },
        // A proxy or a portal answers with a redirect or with 407.
        300..=399 | 407 | 500.. => Error::UpstreamUnavailable { message },
        _ => Error::TurnFailed { message },
    }
}

/// Returns the error of a response that the API does not send: a page, or a body that is no text.
fn unreadable_body(code: u16, text: &str) -> Option<Error> {
    let kind = if is_html(text) {
        "an HTML page"
    } else if is_binary(text) {
        "a body that is no text, perhaps compressed"
    } else {
        return None;
    };
    Some(Error::UpstreamUnavailable {
        message: format!("the upstream answered {code} with {kind}, possibly of a proxy or a portal"),
    })
}

/// The start of a text in which a mark of HTML makes it a page. Comments and declarations may precede the mark.
const HTML_START_CHARS: usize = 1000;

fn is_html(text: &str) -> bool {
    let start: String =
        text.trim_start_matches('\u{feff}').trim_start().chars().take(HTML_START_CHARS).collect();
    let start = start.to_ascii_lowercase();
    start.starts_with('<')
        && ["<html", "<!doctype html", "<head", "<body", "<title"].iter().any(|mark| start.contains(mark))
}

/// Returns `true` if a body was no UTF-8 text. Codex replaces invalid bytes by U+FFFD.
fn is_binary(text: &str) -> bool {
    text.contains(|c: char| c == char::REPLACEMENT_CHARACTER || (c.is_control() && !c.is_whitespace()))
}

/// Returns the error of an upstream that refuses the server's key (401) or account (403, which has other causes as
/// well). The text of a 401 concerns the key, so only the log contains it.
fn login_refused(code: u16, text: &str) -> Error {
    tracing::warn!(status = code, upstream = text, "upstream refuses the server's login");
    let quote = if code == 403 && !text.is_empty() { format!(": {text}") } else { String::new() };
    let remedy = match code {
        403 => "the operator must log in with an account that has access, or fix the named cause",
        _ => "the operator must log in again",
    };
    Error::EngineUnavailable { message: format!("{LOGIN_REFUSED}{code}{quote}); {remedy}") }
}

/// The start of the message about a login that the upstream refused, before the status.
const LOGIN_REFUSED: &str = "the upstream refused the server's own login (";

/// Returns `true` if the upstream or the CLI refused the login itself, and not only the access of its account.
pub(crate) fn is_login_refused(error: &Error) -> bool {
    let refused = |message: &str| {
        message == LOGIN_REMEDY
            || message.strip_prefix(LOGIN_REFUSED).is_some_and(|status| status.starts_with("401"))
    };
    matches!(error, Error::EngineUnavailable { message } if refused(message))
}

/// Maximum length of a quoted text of the upstream, in characters.
const MAX_QUOTE_CHARS: usize = 200;

/// Returns a text of the upstream on one line, with possible keys replaced.
fn quoted(text: &str) -> String {
    let words: Vec<&str> =
        text.split_whitespace().map(|word| if is_secret(word) { "…" } else { word }).collect();
    words.join(" ").chars().take(MAX_QUOTE_CHARS).collect()
}

fn is_secret(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let has_key_mark = ["sk-", "sess-", "eyJ"].iter().any(|start| word.contains(start));
    has_key_mark || (word.len() >= 24 && word.contains(|c: char| c.is_ascii_digit()))
}

fn classify_prefix(text: &str) -> Error {
    // The whole body of a 400. Codex does not report the status.
    if let Some(error) = unreadable_body(400, text) {
        return error;
    }
    let message = text.to_owned();
    let starts = |prefix: &str| text.starts_with(prefix);
    if starts("exceeded retry limit, last status: 429") {
        Error::RateLimited {
            message: "the upstream's rate limit is reached".to_owned(),
            retry_after: retry_delay(text),
        }
    } else if starts("rate limit exceeded") {
        Error::RateLimited { retry_after: retry_delay(text), message }
    } else if starts("Quota exceeded")
        || starts("You've hit your usage limit")
        || starts("You’ve hit your usage limit")
        || starts("To use Codex with your ChatGPT plan")
    {
        usage_limit(message)
    } else if starts("Invalid prompt") {
        Error::Rejected { message }
    } else if text.contains("ran out of room in the model's context window") {
        Error::ContextLengthExceeded { message }
    } else if starts("Missing environment variable") {
        Error::EngineUnavailable {
            message: "the Codex CLI has no key for its upstream; the operator must set it".to_owned(),
        }
    } else if is_login_failure(text) {
        Error::EngineUnavailable { message: LOGIN_REMEDY.to_owned() }
    } else if is_unknown_model(text) {
        model_not_found(message)
    } else if is_upstream_failure(text) {
        Error::UpstreamUnavailable { message }
    } else {
        Error::TurnFailed { message }
    }
}

const LOGIN_REMEDY: &str =
    "the login of the Codex CLI is missing, over, or not allowed; the operator must run `codex login`";

/// Returns `true` if the CLI refuses its own login: none, one that cannot be refreshed, or another than config.toml demands.
fn is_login_failure(text: &str) -> bool {
    const SIGNS: &[&str] = &[
        "access token could not be refreshed",
        "authentication session could not be refreshed",
        "Please log out and sign in again",
        "Not logged in",
        "not logged in",
        "login is required, but",
        "Login is restricted to workspace",
        "current credentials lack a workspace identifier",
        "current credentials belong to",
        // The backend of ChatGPT logins, before the first model call.
        "workspace routing discovery unauthorized",
        "selected workspace missing from routing discovery",
    ];
    SIGNS.iter().any(|sign| text.contains(sign))
}

fn is_upstream_failure(text: &str) -> bool {
    const SIGNS: &[&str] = &[
        "stream disconnected before completion",
        "experiencing high demand",
        "Selected model is at capacity",
        "idle timeout waiting for SSE",
        "waiting for network",
        // The backend of ChatGPT logins, before the first model call.
        "workspace routing discovery",
        "Connection failed",
        "connection failed",
        "error sending request",
        "exceeded retry limit, last status: 5",
    ];
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// Returns `true` if a warning reports that Codex uses HTTPS for the rest of the thread.
pub(crate) fn is_transport_fallback(warning: &str) -> bool {
    warning.starts_with("Falling back from WebSockets")
}

/// Returns `true` if a warning reports that `codex exec` lost events of the turn, with a flood of deltas (0.169).
pub(crate) fn is_loss_of_events(warning: &str) -> bool {
    warning.contains("event stream lagged")
}

/// Returns the error of a reached plan or quota. Some texts have a delay (`try again in 3 days 4 hours`).
pub(crate) fn usage_limit(message: String) -> Error {
    Error::UsageLimit { retry_after: retry_delay(&message), message }
}

/// Returns the error of an unknown model. Clients look for OpenAI's words, which other texts of the upstream lack.
fn model_not_found(message: String) -> Error {
    let message = match message.contains("does not exist") {
        true => message,
        false => format!("The model does not exist or you do not have access to it: {message}"),
    };
    Error::ModelNotFound { message }
}

/// Returns `true` for the texts about a model that is unknown, retired, or not available to the account.
fn is_unknown_model(text: &str) -> bool {
    const SIGNS: &[&str] = &[
        "does not exist",
        "not found",
        // `The 'gpt-5-codex' model is not supported when using Codex with a ChatGPT account.`
        "model is not supported",
        "does not have access to model",
    ];
    // A parameter may be deprecated as well.
    const SIGNS_OF_THE_SUBJECT: &[&str] = &["has been deprecated", "has been retired", "no longer available"];
    let lower = text.to_lowercase();
    let contains_any = |signs: &[&str]| signs.iter().any(|sign| lower.contains(sign));
    lower.contains("model") && contains_any(SIGNS)
        || lower.contains("the model ") && contains_any(SIGNS_OF_THE_SUBJECT)
}

/// Parses `… try again in 1.5s`, or `1h20m`. Returns `None` for an unknown unit.
pub(crate) fn retry_delay(text: &str) -> Option<Duration> {
    // Some plans get a sentence of its own: `Try again in …`.
    let (_, mut rest) = text.split_once("try again in ").or_else(|| text.split_once("Try again in "))?;
    let mut seconds = None;
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let after = after.trim_start();
        let (unit, after) =
            after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let unit = match unit {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            _ => break,
        };
        let number: f64 = number.trim_end_matches('.').parse().ok()?;
        seconds = Some(seconds.unwrap_or_default() + number * unit);
        rest = after.trim_start();
    }
    Duration::try_from_secs_f64(seconds?).ok()
}

/// Classifies a process that exited without reporting the end of its turn.
pub(crate) fn classify_exit(code: Option<i32>, stderr: &str) -> Error {
    tracing::warn!(exit_code = code, stderr = stderr.trim_end(), "codex exited without ending its turn");
    let has = |sign: &str| stderr.contains(sign);
    if has("Input exceeds the maximum length") {
        return Error::PromptTooLarge {
            field: "messages",
            message: "the prompt exceeds the Codex CLI's limit of 1048576 characters".into(),
        };
    }
    let unavailable = |message: &str| Error::EngineUnavailable { message: message.to_owned() };
    if is_login_failure(stderr) || has("codex login") {
        unavailable(LOGIN_REMEDY)
    } else if has("error: unexpected argument") || has("error: invalid value") {
        unavailable("the installed Codex CLI does not support the server's options; run `codex-api doctor`")
    } else if has("Error loading config") || has("in `model_providers") {
        unavailable("the Codex CLI rejects its configuration; run `codex-api doctor`")
    } else if has("failed to initialize ") || has("Error finding codex home") {
        unavailable("the Codex CLI cannot start a turn, possibly because of its home; run `codex-api doctor`")
    } else if has("Not inside a trusted directory") {
        unavailable(
            "the workspace is not a git repository; set CODEX_SKIP_GIT_REPO_CHECK=1 or another CODEX_WORKSPACE",
        )
    } else if code == Some(127) || code == Some(126) {
        unavailable("the Codex CLI cannot be executed; run `codex-api doctor`")
    } else {
        let cause = match code {
            Some(0) => "exited without completing its turn".to_owned(),
            Some(code) => format!("exited with code {code} before the end of its turn"),
            None => "was killed before the end of its turn".to_owned(),
        };
        Error::TurnFailed { message: format!("the Codex CLI {cause}") }
    }
}

#[cfg(test)]
mod tests;
