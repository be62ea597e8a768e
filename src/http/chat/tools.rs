//! Converts tools, the tool choice and earlier tool calls to the contract's. The core refuses tools where the engine
//! cannot call them.

use serde_json::Value;

use super::request::{Tool, ToolCall};
use crate::{
    http::error::ApiError,
    pb::{self, tool_choice::Mode},
};

/// Converts the functions that the client offers.
pub(super) fn convert_tools(tools: Vec<Tool>) -> Result<Vec<pb::Tool>, ApiError> {
    tools
        .into_iter()
        .enumerate()
        .map(|(index, tool)| convert_tool(tool, &format!("tools[{index}]")))
        .collect()
}

fn convert_tool(tool: Tool, at: &str) -> Result<pb::Tool, ApiError> {
    let Tool { kind, function, .. } = tool;
    if kind != "function" {
        let error =
            format!("{at}: tools of type `{}` are not supported; use `function`", truncate_for_error(&kind));
        return Err(ApiError::unsupported(format!("{at}.type"), error));
    }
    let Some(function) = function else {
        return Err(ApiError::invalid(format!("{at}.function"), format!("{at}.function is missing")));
    };
    Ok(pb::Tool {
        name: function.name,
        description: function.description.unwrap_or_default(),
        strict: function.strict.unwrap_or_default(),
        parameters_json: function.parameters.map(Box::<str>::from).map(String::from).unwrap_or_default(),
        ..pb::Tool::default()
    })
}

/// Converts the tool choice.
pub(super) fn convert_tool_choice(choice: &Value) -> Result<pb::ToolChoice, ApiError> {
    let mode = |mode: Mode| pb::ToolChoice { mode: mode.into(), name: String::new() };
    match choice {
        Value::String(name) if name == "auto" => Ok(mode(Mode::Auto)),
        Value::String(name) if name == "none" => Ok(mode(Mode::None)),
        Value::String(name) if name == "required" => Ok(mode(Mode::Required)),
        Value::Object(object) if object.get("type").is_some_and(|kind| kind == "function") => {
            match choice.pointer("/function/name").and_then(Value::as_str) {
                Some(name) => Ok(pb::ToolChoice { mode: Mode::Named.into(), name: name.to_owned() }),
                None => Err(ApiError::invalid(
                    "tool_choice.function.name",
                    "tool_choice.function.name must be the name of one of `tools`",
                )),
            }
        }
        Value::Object(object) if object.contains_key("type") => {
            Err(ApiError::unsupported("tool_choice.type", "tool_choice.type: only `function` is supported"))
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => Err(ApiError::invalid(
            "tool_choice",
            "tool_choice must be `auto`, `none`, `required` or \
                 `{\"type\": \"function\", \"function\": {\"name\": …}}`",
        )),
    }
}

/// Converts the calls in an earlier message of the assistant.
pub(super) fn convert_calls(calls: Vec<ToolCall>, at: &str) -> Result<Vec<pb::ToolCall>, ApiError> {
    calls
        .into_iter()
        .enumerate()
        .map(|(index, call)| {
            let at = format!("{at}.tool_calls[{index}]");
            if let Some(kind) = call.kind.filter(|kind| kind != "function") {
                let error = format!(
                    "{at}: calls of type `{}` are not supported; use `function`",
                    truncate_for_error(&kind)
                );
                return Err(ApiError::unsupported(format!("{at}.type"), error));
            }
            let Some(function) = call.function else {
                return Err(ApiError::invalid(format!("{at}.function"), format!("{at}.function is missing")));
            };
            let arguments = function.arguments.unwrap_or_default();
            Ok(pb::ToolCall { id: call.id, name: function.name, arguments })
        })
        .collect()
}

/// Truncates a value of the client's to 64 characters for an error text.
pub(super) fn truncate_for_error(value: &str) -> String {
    value.chars().take(64).collect()
}
