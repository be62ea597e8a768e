//! The body of a chat completion request as clients send it, including the forms of OpenAI's other APIs. Unknown fields are
//! skipped, and an error contains the path of the wrong value. `convert` interprets the fields.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::http::{
    counted,
    forms::{
        extra_params::{ExtraParams, RULES},
        objects::{WithOthers, objects},
        types::{
            Part, Reasoning, ResponseFormat, StreamOptions, TextOr, Tool, ToolChoice, integer_u32, limit_u32,
        },
    },
};

/// The whole body. `null` is the same as an absent field everywhere.
#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "a JSON object")]
pub(super) struct ChatCompletionRequest {
    pub(super) model: Option<String>,
    #[serde(default, deserialize_with = "counted::messages")]
    pub(super) messages: Option<Vec<Message>>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "integer_u32")]
    pub(super) n: Option<u32>,
    #[serde(default, deserialize_with = "limit_u32")]
    pub(super) max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "limit_u32")]
    pub(super) max_completion_tokens: Option<u32>,
    pub(super) stop: Option<TextOr<String>>,
    pub(super) reasoning_effort: Option<String>,
    pub(super) reasoning: Option<Reasoning>,
    pub(super) verbosity: Option<String>,
    pub(super) response_format: Option<ResponseFormat>,
    #[serde(default, deserialize_with = "counted::tools")]
    pub(super) tools: Option<Vec<Tool>>,
    pub(super) tool_choice: Option<ToolChoice>,
    pub(super) parallel_tool_calls: Option<bool>,
    #[serde(default, deserialize_with = "counted::metadata")]
    pub(super) metadata: Option<HashMap<String, String>>,
    pub(super) service_tier: Option<String>,
    pub(super) prompt_cache_key: Option<String>,
    /// All other fields.
    #[serde(skip)]
    pub(super) extra: ExtraParams,
}

impl<'de> Deserialize<'de> for ChatCompletionRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut extra = ExtraParams::new(RULES);
        let request = Self::deserialize(WithOthers { deserializer, others: &mut extra })?;
        Ok(Self { extra, ..request })
    }
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `role`")]
pub(super) struct Message {
    pub(super) role: String,
    pub(super) content: Option<TextOr<Part>>,
    pub(super) refusal: Option<String>,
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "counted::calls")]
    pub(super) tool_calls: Option<Vec<ToolCall>>,
    pub(super) tool_call_id: Option<String>,
    pub(super) function_call: Option<IgnoredAny>,
    pub(super) audio: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with an `id` and a `function`")]
pub(super) struct ToolCall {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) function: Option<CalledFunction>,
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `name` and `arguments`")]
pub(super) struct CalledFunction {
    pub(super) name: String,
    pub(super) arguments: Option<String>,
}

objects!(Message, ToolCall, CalledFunction);

#[cfg(test)]
mod tests;
