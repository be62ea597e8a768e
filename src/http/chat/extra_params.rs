//! Top-level parameters that the contract has no place for: which are refused by name, which make no difference
//! and are only named, which ask for nothing.

use serde_json::{Map, Value};

use crate::http::error::ApiError;

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It asks for what happens anyway.
    Fulfilled,
    /// It makes no difference here, and the answer says so.
    Ignored,
    /// The answer would not be what was asked for: why not, and what to do instead.
    Refused(&'static str),
}

use Verdict::{Fulfilled, Ignored, Refused};

fn judge(name: &str, value: &Value) -> Verdict {
    match name {
        "functions" => Refused("`functions` is the old form of `tools`; send `tools`"),
        "function_call" => Refused("`function_call` is the old form of `tool_choice`; send `tool_choice`"),
        "logprobs" if value != &Value::Bool(false) => Refused("Codex does not tell log probabilities"),
        "top_logprobs" if value.as_f64() != Some(0.0) => Refused("Codex does not tell log probabilities"),
        "logprobs" | "top_logprobs" => Fulfilled,
        "logit_bias" if value.as_object().is_some_and(Map::is_empty) => Fulfilled,
        "logit_bias" => Refused("Codex takes no token biases; say in a message what to avoid or prefer"),
        "audio" => Refused("Codex makes no audio"),
        "modalities" if is_text_only(value) => Fulfilled,
        "modalities" => Refused("Codex answers with text only; send `[\"text\"]` or nothing"),
        "web_search_options" => Refused(
            "web search is the operator's to allow (CODEX_ENABLE_SEARCH); the agent then searches by itself",
        ),
        // Sampling hints, bookkeeping of the platform, fields of other servers: the answer is as good without.
        _ => Ignored,
    }
}

fn is_text_only(value: &Value) -> bool {
    value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "text"))
}

/// Most names in the header of the answer.
const MAX_NAMES: usize = 32;

/// The names of the parameters that are ignored, fit for a header; an error for the first that cannot be.
pub(super) fn ignored(extra: &Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let mut names = Vec::new();
    for (name, value) in extra.iter().filter(|(_, value)| !value.is_null()) {
        match judge(name, value) {
            Fulfilled => {}
            Ignored => names.push(name),
            Refused(why) => return Err(ApiError::unsupported(name, format!("{name}: {why}"))),
        }
    }
    names.sort_unstable();
    Ok(names.into_iter().filter(|name| is_plain(name)).take(MAX_NAMES).cloned().collect())
}

/// Whether a name can stand in a header's list; the others are not worth an escape.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ignored_of(body: &Value) -> Result<Vec<String>, ApiError> {
        ignored(body.as_object().unwrap())
    }

    #[test]
    fn hints_are_named_and_nothing_is_said_of_what_is_fulfilled_or_null() {
        for (body, names) in [
            (json!({}), &[][..]),
            (json!({"temperature": 0.2, "top_p": 1, "seed": 7}), &["seed", "temperature", "top_p"]),
            (json!({"temperature": null, "user": null}), &[]),
            (
                json!({"presence_penalty": 0, "frequency_penalty": 0, "top_k": 1, "min_p": 0}),
                &["frequency_penalty", "min_p", "presence_penalty", "top_k"],
            ),
            (json!({"store": true, "service_tier": "auto"}), &["service_tier", "store"]),
            (
                json!({"prediction": {}, "user": "u", "safety_identifier": "s"}),
                &["prediction", "safety_identifier", "user"],
            ),
            (
                json!({"prompt_cache_key": "k", "repetition_penalty": 1}),
                &["prompt_cache_key", "repetition_penalty"],
            ),
            (json!({"logprobs": false, "top_logprobs": 0, "logit_bias": {}}), &[]),
            (json!({"modalities": ["text"], "audio": null}), &[]),
            (json!({"x_unknown": 1, "a b": 2, "é": 3, "": 4, "line\nbreak": 5}), &["x_unknown"]),
        ] {
            assert_eq!(ignored_of(&body).unwrap(), names, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (name, value) in [
            ("functions", json!([])),
            ("function_call", json!("auto")),
            ("logprobs", json!(true)),
            ("top_logprobs", json!(2)),
            ("logit_bias", json!({"50256": -100})),
            ("audio", json!({"voice": "x"})),
            ("modalities", json!(["text", "audio"])),
            ("modalities", json!("audio")),
            ("web_search_options", json!({})),
        ] {
            let error = ignored_of(&json!({ "temperature": 1, name: value })).unwrap_err();
            let body = serde_json::to_value(error.body()).unwrap();
            assert_eq!(body["error"]["param"], name);
            assert_eq!(body["error"]["code"], "unsupported_parameter");
        }
    }

    #[test]
    fn the_header_stays_short() {
        let many: Map<String, Value> = (0..1000).map(|n| (format!("p{n}"), json!(1))).collect();
        assert_eq!(ignored(&many).unwrap().len(), MAX_NAMES);
    }
}
