//! The body of a request for a response as clients send it. Unknown fields are skipped, and an error contains the path of
//! the wrong value. `convert` interprets the fields.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use crate::http::{
    counted,
    forms::{
        extra_params::{ExtraParams, Rule},
        objects::{WithOthers, objects},
        types::{Part, Reasoning, ResponseFormat, TextOr, Tool, ToolChoice, limit_u32},
    },
};

/// The parameters without a field in the contract.
const RULES: &[(&str, Rule)] = &[
    ("temperature", Rule::Number(0.0, 2.0)),
    ("top_p", Rule::Number(0.0, 1.0)),
    ("presence_penalty", Rule::Number(-2.0, 2.0)),
    ("frequency_penalty", Rule::Number(-2.0, 2.0)),
    ("max_tool_calls", Rule::Integer),
    ("user", Rule::Text),
    ("safety_identifier", Rule::Text),
    ("prompt_cache_retention", Rule::Text),
    ("store", Rule::Switch),
    ("messages", Rule::OtherRoute),
    ("top_logprobs", Rule::Refused("Codex does not report log probabilities")),
    (
        "previous_response_id",
        Rule::Refused("this server stores no responses; send the whole conversation as `input`"),
    ),
    (
        "conversation",
        Rule::Refused("this server stores no conversations; send the whole conversation as `input`"),
    ),
    (
        "background",
        Rule::Refused("this server stores no responses, so none can be fetched later; send `stream: true`"),
    ),
    ("prompt", Rule::RefusedObject("this server stores no prompts; send `instructions` and `input`")),
];

/// The whole body. `null` is the same as an absent field everywhere.
#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "a JSON object")]
pub(super) struct ResponseRequest {
    pub(super) model: Option<String>,
    pub(super) input: Option<Input>,
    pub(super) instructions: Option<String>,
    pub(super) stream: Option<bool>,
    /// Has only `include_obfuscation`, which this server never adds.
    #[serde(rename = "stream_options")]
    pub(super) _stream_options: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "counted::tools")]
    pub(super) tools: Option<Vec<Tool>>,
    pub(super) tool_choice: Option<ToolChoice>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) text: Option<TextOptions>,
    pub(super) reasoning: Option<Reasoning>,
    #[serde(default, deserialize_with = "limit_u32")]
    pub(super) max_output_tokens: Option<u32>,
    #[serde(default, deserialize_with = "counted::metadata")]
    pub(super) metadata: Option<HashMap<String, String>>,
    pub(super) service_tier: Option<String>,
    pub(super) prompt_cache_key: Option<String>,
    pub(super) truncation: Option<String>,
    #[serde(default, deserialize_with = "counted::includes")]
    pub(super) include: Option<Vec<String>>,
    /// All other fields.
    #[serde(skip)]
    pub(super) extra: ExtraParams,
}

impl<'de> Deserialize<'de> for ResponseRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut extra = ExtraParams::new(RULES);
        let request = Self::deserialize(WithOthers { deserializer, others: &mut extra })?;
        Ok(Self { extra, ..request })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `format`")]
pub(super) struct TextOptions {
    pub(super) format: Option<ResponseFormat>,
    pub(super) verbosity: Option<String>,
}

/// A text of the user, or items.
#[derive(Debug)]
pub(super) enum Input {
    Text(String),
    Items(Vec<InputItem>),
}

/// One item, of any type.
#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `type` or a `role`")]
pub(super) struct InputItem {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
    pub(super) role: Option<String>,
    pub(super) content: Option<TextOr<Part>>,
    pub(super) call_id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) arguments: Option<String>,
    pub(super) output: Option<TextOr<Part>>,
}

objects!(TextOptions, InputItem);

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputVisitor;
        impl<'de> Visitor<'de> for InputVisitor {
            type Value = Input;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of items")
            }

            fn visit_str<E>(self, text: &str) -> Result<Input, E> {
                Ok(Input::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Input, E> {
                Ok(Input::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Input, A::Error> {
                counted::entries(counted::List::Messages, list).map(Input::Items)
            }
        }
        deserializer.deserialize_any(InputVisitor)
    }
}
