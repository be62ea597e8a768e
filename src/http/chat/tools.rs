//! Functions of the client and how the model may use them, in the contract's words. Whether the engine can call them
//! at all is the core's to say.

use prost_types::{ListValue, Struct, value::Kind};
use serde_json::{Map, Value};

use super::request::{Tool, ToolCall};
use crate::{
    http::error::ApiError,
    pb::{self, tool_choice::Mode},
};

/// The functions that the client offers.
pub(super) fn tools(tools: Vec<Tool>) -> Result<Vec<pb::Tool>, ApiError> {
    tools.into_iter().enumerate().map(|(index, tool)| offered(tool, &format!("tools[{index}]"))).collect()
}

fn offered(tool: Tool, at: &str) -> Result<pb::Tool, ApiError> {
    let Tool { kind, function, .. } = tool;
    if kind != "function" {
        let what = format!("{at}: tools of type `{}` are not supported; use `function`", short(&kind));
        return Err(ApiError::unsupported(format!("{at}.type"), what));
    }
    let Some(function) = function else {
        return Err(ApiError::invalid(format!("{at}.function"), format!("{at}.function is missing")));
    };
    Ok(pb::Tool {
        name: function.name,
        description: function.description.unwrap_or_default(),
        parameters: function.parameters.map(to_struct),
        strict: function.strict.unwrap_or_default(),
    })
}

/// How the model may use them.
pub(super) fn choice(choice: &Value) -> Result<pb::ToolChoice, ApiError> {
    let mode = |mode: Mode| pb::ToolChoice { mode: mode.into(), name: String::new() };
    match choice {
        Value::String(word) if word == "auto" => Ok(mode(Mode::Auto)),
        Value::String(word) if word == "none" => Ok(mode(Mode::None)),
        Value::String(word) if word == "required" => Ok(mode(Mode::Required)),
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

/// The calls in an earlier message of the assistant.
pub(super) fn calls(calls: Vec<ToolCall>, at: &str) -> Result<Vec<pb::ToolCall>, ApiError> {
    calls
        .into_iter()
        .enumerate()
        .map(|(index, call)| {
            let at = format!("{at}.tool_calls[{index}]");
            if let Some(kind) = call.kind.filter(|kind| kind != "function") {
                let what =
                    format!("{at}: calls of type `{}` are not supported; use `function`", short(&kind));
                return Err(ApiError::unsupported(format!("{at}.type"), what));
            }
            let Some(function) = call.function else {
                return Err(ApiError::invalid(format!("{at}.function"), format!("{at}.function is missing")));
            };
            let arguments = function.arguments.unwrap_or_default();
            Ok(pb::ToolCall { id: call.id, name: function.name, arguments })
        })
        .collect()
}

/// A word of the caller's, short enough for an error text.
pub(super) fn short(word: &str) -> String {
    word.chars().take(64).collect()
}

/// Never deeper than the JSON parser goes.
fn to_struct(object: Map<String, Value>) -> Struct {
    Struct { fields: object.into_iter().map(|(name, value)| (name, to_value(value))).collect() }
}

fn to_value(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(bool) => Kind::BoolValue(bool),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(list) => Kind::ListValue(ListValue { values: list.into_iter().map(to_value).collect() }),
        Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    prost_types::Value { kind: Some(kind) }
}
