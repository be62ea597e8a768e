//! Classifies top-level parameters without a field in the contract. Some are refused, some are ignored and reported, and
//! some have no effect.

use serde_json::{Map, Value};

use crate::http::error::ApiError;

/// How the server treats a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Param {
    /// The value is the server's default behaviour.
    NoOp,
    /// The value has no effect; a response header reports the parameter.
    Ignored,
    /// The server cannot follow the value. The text contains the reason and the alternative.
    Refused(&'static str),
}

use Param::{Ignored, NoOp, Refused};

fn classify_param(name: &str, value: &Value) -> Param {
    match name {
        "functions" => Refused("`functions` is deprecated and not supported; send `tools`"),
        "function_call" => Refused("`function_call` is deprecated and not supported; send `tool_choice`"),
        "logprobs" if value != &Value::Bool(false) => Refused("Codex does not report log probabilities"),
        "top_logprobs" if value.as_f64() != Some(0.0) => Refused("Codex does not report log probabilities"),
        "logprobs" | "top_logprobs" => NoOp,
        "logit_bias" if value.as_object().is_some_and(Map::is_empty) => NoOp,
        "logit_bias" => Refused("Codex has no token biases; describe in a message what to avoid or prefer"),
        "audio" => Refused("Codex produces no audio"),
        "modalities" if is_text_only(value) => NoOp,
        "modalities" => Refused("Codex answers with text only; send `[\"text\"]` or nothing"),
        "web_search_options" => Refused(
            "only the operator can allow web search (CODEX_ENABLE_SEARCH); the agent then searches by itself",
        ),
        // Sampling hints, bookkeeping of the platform and fields of other servers do not change the answer.
        _ => Ignored,
    }
}

fn is_text_only(value: &Value) -> bool {
    value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "text"))
}

/// Maximum number of names in the response header.
const MAX_HEADER_NAMES: usize = 32;

/// Returns the names of the ignored parameters for a header, or an error for the first refused parameter.
pub(super) fn ignored_params(extra: &Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let mut names = Vec::new();
    for (name, value) in extra.iter().filter(|(_, value)| !value.is_null()) {
        match classify_param(name, value) {
            NoOp => {}
            Ignored => names.push(name),
            Refused(reason) => return Err(ApiError::unsupported(name, format!("{name}: {reason}"))),
        }
    }
    names.sort_unstable();
    Ok(names.into_iter().filter(|name| is_header_name(name)).take(MAX_HEADER_NAMES).cloned().collect())
}

/// Returns `true` for a name that a header's list can hold. Others are left out instead of escaped.
fn is_header_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ignored_of(body: &Value) -> Result<Vec<String>, ApiError> {
        ignored_params(body.as_object().unwrap())
    }

    #[test]
    fn ignored_params_hints_are_reported_but_no_ops_and_nulls_are_not() {
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
    fn ignored_params_unsupported_is_refused_by_name() {
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
    fn ignored_params_of_many_are_limited() {
        let many: Map<String, Value> = (0..1000).map(|n| (format!("p{n}"), json!(1))).collect();
        assert_eq!(ignored_params(&many).unwrap().len(), MAX_HEADER_NAMES);
    }
}
