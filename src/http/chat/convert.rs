//! Converts the body of a chat completion request into the contract's `ChatRequest`. The core validates sizes, roles and
//! model names.

use super::{
    messages::convert_message,
    request::{ChatCompletionRequest, Message},
};
use crate::{
    http::{
        error::ApiError,
        field_names::FieldNames,
        forms::{
            extra_params::ExtraParams,
            format::convert_format,
            tools::{convert_tool_choice, convert_tools},
            types::{ResponseFormat, StreamOptions, TextOr},
        },
    },
    pb::{self, tool_choice::Mode},
};

/// A chat completion request in the contract's terms, with the parameters that only this door needs.
#[derive(Debug, PartialEq)]
pub(super) struct ConvertedRequest {
    /// The request for the core.
    pub(super) request: pb::ChatRequest,
    /// Options of a streamed answer. `None` selects one JSON object.
    pub(super) stream: Option<Streaming>,
    /// The names that the client used, for errors.
    pub(super) field_names: FieldNames,
    /// Parameters without effect, for the response header.
    pub(super) ignored_params: Vec<String>,
}

/// Options of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streaming {
    /// Whether the last chunk has the usage.
    pub(super) include_usage: bool,
}

impl TryFrom<ChatCompletionRequest> for ConvertedRequest {
    type Error = ApiError;

    /// Converts a body. The error names the parameter that has no equivalent.
    fn try_from(mut wire: ChatCompletionRequest) -> Result<Self, ApiError> {
        let messages = wire.messages.unwrap_or_default();
        if messages.is_empty() {
            return Err(without_messages(&wire.extra));
        }
        let mut ignored_params = wire.extra.ignored()?;
        let stream = streaming(wire.stream, wire.stream_options.as_ref())?;
        let is_limit = |limit: &u32| *limit != 0;
        let (max_output_tokens, max_name) = match wire.max_completion_tokens.filter(is_limit) {
            Some(newer) => (Some(newer), "max_completion_tokens"),
            None => (wire.max_tokens.filter(is_limit), "max_tokens"),
        };
        let (nested_effort, summary) =
            wire.reasoning.map_or((None, None), |reasoning| (reasoning.effort, reasoning.summary));
        let (effort, effort_name) = match (wire.reasoning_effort, nested_effort) {
            (Some(effort), _) => (effort, "reasoning_effort"),
            (None, nested) => (nested.unwrap_or_default(), "reasoning.effort"),
        };
        let tools = wire.tools.unwrap_or_default();
        let field_names = FieldNames {
            max_output_tokens: max_name,
            reasoning_effort: effort_name,
            string_contents: messages.iter().map(|m| matches!(m.content, Some(TextOr::Text(_)))).collect(),
            flat_tools: tools.iter().map(|tool| tool.function.is_none()).collect(),
        };
        wire.response_format = wire.response_format.map(ResponseFormat::into_nested);
        if let Some(schema) = wire.response_format.as_ref().and_then(|format| format.json_schema.as_ref()) {
            // Codex has no parameter for a description.
            if schema.description.as_ref().is_some_and(|text| !text.is_empty()) {
                ignored_params.push("response_format.json_schema.description".to_owned());
            }
        }
        if messages.iter().any(chooses_detail) {
            ignored_params.push("messages[].content[].image_url.detail".to_owned());
        }
        let tools = convert_tools(tools)?;
        let choice = wire.tool_choice.map(convert_tool_choice).transpose()?;
        let request = pb::ChatRequest {
            model: wire.model.unwrap_or_default(),
            messages: messages
                .into_iter()
                .enumerate()
                .map(|(index, wire)| convert_message(wire, &format!("messages[{index}]")))
                .collect::<Result<_, _>>()?,
            // Many clients send `auto` or `none` also without tools, where both have no effect.
            tool_choice: choice.filter(|c| !tools.is_empty() || !matches!(c.mode(), Mode::Auto | Mode::None)),
            parallel_tool_calls: wire.parallel_tool_calls.filter(|_| !tools.is_empty()),
            tools,
            response_format: wire.response_format.map(convert_format).transpose()?,
            reasoning_effort: effort,
            stop: wire.stop.map(TextOr::into_texts).unwrap_or_default(),
            max_output_tokens,
            n: wire.n,
            metadata: wire.metadata.unwrap_or_default(),
            agent: None,
            verbosity: wire.verbosity.unwrap_or_default(),
            timeout: None,
            reasoning_summary: summary.unwrap_or_default(),
            service_tier: wire.service_tier.unwrap_or_default(),
            prompt_cache_key: wire.prompt_cache_key.unwrap_or_default(),
            user: wire.extra.user(),
            separate_messages: false,
        };
        Ok(Self { request, stream, field_names, ignored_params })
    }
}

/// Returns the error of a body without messages, which may be meant for another route.
fn without_messages(extra: &ExtraParams) -> ApiError {
    let text = if extra.has("input") {
        "messages: this is a body of the Responses API: send it to /v1/responses, or send `messages` instead of `input`"
    } else if extra.has("prompt") {
        "messages: this is a body of the Completions API: send it to /v1/completions, or send `messages` instead of `prompt`"
    } else {
        "messages must be a list of at least one message"
    };
    ApiError::invalid("messages", text)
}

/// Returns `true` if a client chose the resolution of an image. Codex chooses another one for some models.
fn chooses_detail(message: &Message) -> bool {
    let Some(TextOr::List(parts)) = &message.content else { return false };
    let mut details = parts.iter().filter_map(|part| {
        let url = part.image_url.as_ref()?;
        url.detail.as_deref().or(part.detail.as_deref())
    });
    details.any(|detail| !matches!(detail, "" | "auto"))
}

fn streaming(stream: Option<bool>, options: Option<&StreamOptions>) -> Result<Option<Streaming>, ApiError> {
    let include_usage = options.and_then(|options| options.include_usage).unwrap_or_default();
    match stream.unwrap_or_default() {
        true => Ok(Some(Streaming { include_usage })),
        false if include_usage => Err(ApiError::invalid(
            "stream_options",
            "stream_options.include_usage is only allowed together with `stream: true`",
        )),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests;
