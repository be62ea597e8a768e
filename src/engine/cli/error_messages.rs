//! What the CLI says when something fails, told apart by its own words (measured with 0.169, see the field guide's
//! table of failures), and the error that each means for the caller.

use std::time::Duration;

use crate::{error::Error, pb};

/// How a failed turn ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The answer stands, cut short by the upstream.
    Cut(pb::FinishReason),
    /// The turn failed.
    Failed(Error),
}

/// Reads the message of `turn.failed`, or the reason within a `Reconnecting…` line.
pub(crate) fn of_message(message: &str) -> End {
    let text = message.trim();
    // Some come with a prefix of their own: `stream disconnected before completion: Incomplete response …`.
    if let Some((_, reason)) = text.split_once("Incomplete response returned, reason: ") {
        return match reason.trim() {
            "max_output_tokens" => End::Cut(pb::FinishReason::Length),
            "content_filter" => End::Cut(pb::FinishReason::ContentFilter),
            _ => End::Failed(Error::TurnFailed { message: text.to_owned() }),
        };
    }
    End::Failed(upstream_body(text).or_else(|| status(text)).unwrap_or_else(|| by_prefix(text)))
}

/// A refusal of the upstream reaches us as the body it sent.
fn upstream_body(text: &str) -> Option<Error> {
    let body: serde_json::Value = serde_json::from_str(text).ok()?;
    let error = body.get("error").unwrap_or(&body);
    let message = error.get("message").or(body.get("detail"))?.as_str()?.to_owned();
    let code = error.get("code").and_then(|code| code.as_str()).unwrap_or_default();
    Some(match code {
        "model_not_found" => Error::ModelNotFound { message },
        "context_length_exceeded" => Error::ContextLengthExceeded { message },
        "insufficient_quota" => Error::UsageLimit { message },
        _ => by_prefix_of_refusal(message),
    })
}

fn by_prefix_of_refusal(message: String) -> Error {
    if is_unknown_model(&message) { Error::ModelNotFound { message } } else { Error::Rejected { message } }
}

/// `unexpected status 401 Unauthorized: <upstream's message>, url: …`
fn status(text: &str) -> Option<Error> {
    let rest = text.strip_prefix("unexpected status ")?;
    let code: u16 = rest.get(..3)?.parse().ok()?;
    // The URL is the operator's business.
    let words = rest.split_once(": ").map_or(rest, |(_, words)| words);
    let words = words.split(", url: ").next().unwrap_or(words).trim();
    Some(by_status(code, words))
}

/// The same, where the status is told beside the message.
pub(crate) fn of_status(code: u16, message: &str) -> Error {
    status(message).unwrap_or_else(|| by_status(code, &without_url(message)))
}

fn by_status(code: u16, words: &str) -> Error {
    let message = format!("the upstream answered {code}: {words}");
    match code {
        400 | 422 => Error::Rejected { message },
        401 | 403 => refused(code, &quoted(words)),
        402 => Error::UsageLimit { message },
        404 if is_unknown_model(words) => Error::ModelNotFound { message },
        413 => Error::ContextLengthExceeded { message },
        429 => Error::RateLimited { retry_after: delay(words), message },
        500.. => Error::UpstreamUnavailable { message },
        _ => Error::TurnFailed { message },
    }
}

/// The upstream wants another key than ours (401), or does not want us at all (403), for which there are more reasons
/// than the login. What it says of our login is for the operator.
fn refused(code: u16, words: &str) -> Error {
    tracing::warn!(status = code, upstream = words, "the upstream refuses the server's own login");
    let quote = if code == 403 && !words.is_empty() { format!(": {words}") } else { String::new() };
    let remedy = match code {
        403 => "the operator must log in with an account that may use it, or mend what it names",
        _ => "the operator must log in again",
    };
    Error::EngineUnavailable {
        message: format!("the upstream refused the server's own login ({code}{quote}); {remedy}"),
    }
}

/// The most that is quoted of an upstream, in characters.
const QUOTED: usize = 200;

/// Words of the upstream on one line, without what may be a key.
fn quoted(words: &str) -> String {
    let words: Vec<&str> =
        words.split_whitespace().map(|word| if is_secret(word) { "…" } else { word }).collect();
    words.join(" ").chars().take(QUOTED).collect()
}

fn is_secret(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let starts = ["sk-", "sess-", "eyJ"].iter().any(|start| word.contains(start));
    starts || (word.len() >= 24 && word.contains(|c: char| c.is_ascii_digit()))
}

fn by_prefix(text: &str) -> Error {
    let message = text.to_owned();
    let starts = |prefix: &str| text.starts_with(prefix);
    if starts("exceeded retry limit, last status: 429") {
        Error::RateLimited { message: "the upstream's rate limit is reached".to_owned(), retry_after: None }
    } else if starts("rate limit exceeded") {
        Error::RateLimited { retry_after: delay(text), message }
    } else if starts("Quota exceeded")
        || starts("You've hit your usage limit")
        || starts("You’ve hit your usage limit")
    {
        Error::UsageLimit { message }
    } else if starts("Invalid prompt") {
        Error::Rejected { message }
    } else if text.contains("ran out of room in the model's context window") {
        Error::ContextLengthExceeded { message }
    } else if starts("Missing environment variable") {
        Error::EngineUnavailable {
            message: "the Codex CLI has no key for its upstream; the operator must set it".to_owned(),
        }
    } else if is_unknown_model(text) {
        Error::ModelNotFound { message }
    } else if is_trouble_upstream(text) {
        // The URL is the operator's business, here too.
        Error::UpstreamUnavailable { message: without_url(text) }
    } else {
        Error::TurnFailed { message: without_url(text) }
    }
}

fn is_trouble_upstream(text: &str) -> bool {
    const SIGNS: &[&str] = &[
        "stream disconnected before completion",
        "experiencing high demand",
        "Selected model is at capacity",
        "idle timeout waiting for SSE",
        "waiting for network",
        "Connection failed",
        "connection failed",
        "error sending request",
        "exceeded retry limit, last status: 5",
    ];
    SIGNS.iter().any(|sign| text.contains(sign))
}

fn is_unknown_model(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("model") && (lower.contains("does not exist") || lower.contains("not found"))
}

/// A message without the upstream's address, which is the operator's business.
pub(crate) fn without_url(text: &str) -> String {
    const MARKS: &[&str] = &[", url: ", " for url (", " (http://", " (https://"];
    let end = MARKS.iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    text[..end].to_owned()
}

/// `… try again in 1.5s`, or `1h20m`. None where a unit is not known.
pub(crate) fn delay(text: &str) -> Option<Duration> {
    let mut rest = text.split("try again in ").nth(1)?;
    let mut seconds = None;
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let (unit, behind) =
            behind.split_at(behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len()));
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
        rest = behind.trim_start();
    }
    Duration::try_from_secs_f64(seconds?).ok()
}

/// Reads what a process left behind that ended without a word about its turn.
pub(crate) fn of_exit(code: Option<i32>, stderr: &str) -> Error {
    tracing::warn!(exit_code = code, stderr = stderr.trim_end(), "codex ended without an end of its turn");
    let has = |sign: &str| stderr.contains(sign);
    if has("Input exceeds the maximum length") {
        return Error::PromptTooLarge {
            message: "the prompt exceeds the Codex CLI's limit of 1048576 characters".into(),
        };
    }
    let unavailable = |message: &str| Error::EngineUnavailable { message: message.to_owned() };
    if has("Not logged in") || has("not logged in") || has("codex login") {
        unavailable("the Codex CLI is not logged in; the operator must run `codex login`")
    } else if has("error: unexpected argument") || has("error: invalid value") {
        unavailable("the installed Codex CLI does not understand our options; `codex-api doctor` tells more")
    } else if has("Error loading config") || has("in `model_providers") {
        unavailable("the Codex CLI refuses its configuration; `codex-api doctor` tells more")
    } else if has("failed to initialize ") || has("Error finding codex home") {
        unavailable("the Codex CLI cannot begin a turn, perhaps for its home; `codex-api doctor` tells more")
    } else if has("Not inside a trusted directory") {
        unavailable(
            "the workspace is not a git repository; set CODEX_SKIP_GIT_REPO_CHECK=1 or another CODEX_WORKSPACE",
        )
    } else if code == Some(127) || code == Some(126) {
        unavailable("the Codex CLI cannot be executed; `codex-api doctor` tells more")
    } else {
        let how = match code {
            Some(0) => "ended without completing its turn".to_owned(),
            Some(code) => format!("ended with exit code {code} before its turn was over"),
            None => "was killed before its turn was over".to_owned(),
        };
        Error::TurnFailed { message: format!("the Codex CLI {how}") }
    }
}

#[cfg(test)]
mod tests;
