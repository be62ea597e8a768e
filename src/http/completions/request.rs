//! The body of a completion request as clients send it. Unknown fields are skipped, and an error contains the path of the
//! wrong value.

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::http::forms::{
    extra_params::{ExtraParams, Rule},
    objects::WithOthers,
    types::{StreamOptions, TextOr, integer_u32, limit_u32},
};

/// The parameters without a field in the contract.
const RULES: &[(&str, Rule)] = &[
    ("temperature", Rule::Number(0.0, 2.0)),
    ("top_p", Rule::Number(0.0, 1.0)),
    ("presence_penalty", Rule::Number(-2.0, 2.0)),
    ("frequency_penalty", Rule::Number(-2.0, 2.0)),
    ("seed", Rule::Integer),
    ("user", Rule::Text),
    ("messages", Rule::OtherRoute),
    ("input", Rule::OtherRoute),
    ("echo", Rule::Refused("the answer does not repeat the prompt; join both at the client")),
    ("logprobs", Rule::Refused("Codex does not report log probabilities")),
    (
        "logit_bias",
        Rule::RefusedObject("Codex has no token biases; describe in the prompt what to avoid or prefer"),
    ),
];

/// The whole body. `null` is the same as an absent field everywhere.
#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "a JSON object")]
pub(super) struct CompletionRequest {
    pub(super) model: Option<String>,
    pub(super) prompt: Option<TextOr<Prompt>>,
    pub(super) suffix: Option<String>,
    #[serde(default, deserialize_with = "limit_u32")]
    pub(super) max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "integer_u32")]
    pub(super) n: Option<u32>,
    #[serde(default, deserialize_with = "integer_u32")]
    pub(super) best_of: Option<u32>,
    pub(super) stop: Option<TextOr<String>>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    /// All other fields.
    #[serde(skip)]
    pub(super) extra: ExtraParams,
}

impl<'de> Deserialize<'de> for CompletionRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut extra = ExtraParams::new(RULES);
        let request = Self::deserialize(WithOthers { deserializer, others: &mut extra })?;
        Ok(Self { extra, ..request })
    }
}

/// One of several prompts, or a token.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompt {
    Text(String),
    Tokens(IgnoredAny),
}
