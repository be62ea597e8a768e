//! From the body of a chat completion request to the contract's `ChatRequest`. What the contract itself rules
//! (limits, roles, unknown models) is left to the core.

use super::{
    extra_params,
    messages::message,
    request,
    request::{ChatCompletionRequest, ResponseFormat, TextOr},
    tools,
};
use crate::{
    http::{error::ApiError, field_names::FieldNames},
    pb::{self, response_format::Format, tool_choice::Mode},
};

/// What the client asked for.
#[derive(Debug, PartialEq)]
pub(super) struct ConvertedRequest {
    /// The turn.
    pub(super) request: pb::ChatRequest,
    /// How the answer is sent; whole when absent.
    pub(super) stream: Option<Streamed>,
    /// What the client called things.
    pub(super) words: FieldNames,
    /// Parameters that made no difference.
    pub(super) ignored: Vec<String>,
}

/// How a stream is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streamed {
    /// Whether usage comes at the end.
    pub(super) include_usage: bool,
}

impl ConvertedRequest {
    /// Translates a body, or says which parameter cannot be.
    pub(super) fn of(wire: ChatCompletionRequest) -> Result<Self, ApiError> {
        let mut ignored = extra_params::ignored(&wire.extra)?;
        let stream = streamed(wire.stream, wire.stream_options.as_ref())?;
        let (max_output_tokens, max_name) = match (wire.max_completion_tokens, wire.max_tokens) {
            (Some(newer), _) => (Some(newer), "max_completion_tokens"),
            (None, older) => (older, "max_tokens"),
        };
        let (nested_effort, summary) =
            wire.reasoning.map_or((None, None), |reasoning| (reasoning.effort, reasoning.summary));
        let (effort, effort_name) = match (wire.reasoning_effort, nested_effort) {
            (Some(effort), _) => (effort, "reasoning_effort"),
            (None, nested) => (nested.unwrap_or_default(), "reasoning.effort"),
        };
        let messages = wire.messages.unwrap_or_default();
        if messages.is_empty() {
            return Err(ApiError::invalid("messages", "messages must be a list of at least one message"));
        }
        let words = FieldNames {
            max_output_tokens: max_name,
            reasoning_effort: effort_name,
            string_contents: messages.iter().map(|m| matches!(m.content, Some(TextOr::Text(_)))).collect(),
        };
        if let Some(schema) = wire.response_format.as_ref().and_then(|format| format.json_schema.as_ref()) {
            // Codex has no place for the one and knows no other way than the other.
            let described = schema.description.as_ref().is_some_and(|text| !text.is_empty());
            let given = [("description", described), ("strict", schema.strict == Some(false))];
            let given = given.into_iter().filter(|(_, given)| *given);
            ignored.extend(given.map(|(name, _)| format!("response_format.json_schema.{name}")));
        }
        let tools = tools::tools(wire.tools.unwrap_or_default())?;
        let choice = wire.tool_choice.as_ref().map(tools::choice).transpose()?;
        let request = pb::ChatRequest {
            model: wire.model.unwrap_or_default(),
            messages: messages
                .into_iter()
                .enumerate()
                .map(|(index, wire)| message(wire, &format!("messages[{index}]")))
                .collect::<Result<_, _>>()?,
            // Without tools these two words ask for nothing, and many clients always send one of them.
            tool_choice: choice.filter(|c| !tools.is_empty() || !matches!(c.mode(), Mode::Auto | Mode::None)),
            parallel_tool_calls: wire.parallel_tool_calls.filter(|_| !tools.is_empty()),
            tools,
            response_format: wire.response_format.map(format).transpose()?,
            reasoning_effort: effort,
            stop: match wire.stop {
                None => Vec::new(),
                Some(TextOr::Text(text)) => vec![text],
                Some(TextOr::List(list)) => list,
            },
            max_output_tokens,
            n: wire.n,
            metadata: wire.metadata.unwrap_or_default(),
            agent: None,
            verbosity: wire.verbosity.unwrap_or_default(),
            timeout: None,
            reasoning_summary: summary.unwrap_or_default(),
        };
        Ok(Self { request, stream, words, ignored })
    }
}

fn streamed(
    stream: Option<bool>,
    options: Option<&request::StreamOptions>,
) -> Result<Option<Streamed>, ApiError> {
    let include_usage = options.and_then(|options| options.include_usage).unwrap_or_default();
    match (stream.unwrap_or_default(), options) {
        (true, _) => Ok(Some(Streamed { include_usage })),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid(
            "stream_options",
            "stream_options is only allowed together with `stream: true`",
        )),
    }
}

fn format(wire: ResponseFormat) -> Result<pb::ResponseFormat, ApiError> {
    let format = match (wire.kind.as_str(), wire.json_schema) {
        ("text", _) => Format::Text(pb::TextFormat {}),
        ("json_object", _) => Format::JsonObject(pb::JsonObjectFormat {}),
        ("json_schema", Some(wire)) => {
            let Some(schema) = wire.schema else {
                let param = "response_format.json_schema.schema";
                return Err(ApiError::invalid(param, format!("{param} is missing")));
            };
            Format::JsonSchema(pb::JsonSchemaFormat {
                name: wire.name.unwrap_or_default(),
                description: wire.description.unwrap_or_default(),
                schema: Box::<str>::from(schema).into(),
            })
        }
        ("json_schema", None) => {
            let param = "response_format.json_schema";
            return Err(ApiError::invalid(param, format!("{param} is missing")));
        }
        (other, _) => {
            let what = format!(
                "response_format.type: `{}` is not one of text, json_object, json_schema",
                tools::short(other)
            );
            return Err(ApiError::invalid("response_format.type", what));
        }
    };
    Ok(pb::ResponseFormat { format: Some(format) })
}

#[cfg(test)]
mod tests;
