//! Converts tools and the tool choice to the contract's. The core refuses tools where the engine
//! cannot call them.

use super::types::{Function, Tool, ToolChoice, ToolChoiceObject};
use crate::{
    http::error::ApiError,
    pb::{self, tool_choice::Mode},
};

/// Converts the functions that the client offers.
pub(in crate::http) fn convert_tools(tools: Vec<Tool>) -> Result<Vec<pb::Tool>, ApiError> {
    tools
        .into_iter()
        .enumerate()
        .map(|(index, tool)| convert_tool(tool, &format!("tools[{index}]")))
        .collect()
}

fn convert_tool(tool: Tool, at: &str) -> Result<pb::Tool, ApiError> {
    let Tool { kind, function, name, description, parameters, strict } = tool;
    if let Some(kind) = kind.filter(|kind| kind != "function") {
        let error =
            format!("{at}: tools of type `{}` are not supported; use `function`", truncate_for_error(&kind));
        return Err(ApiError::unsupported(format!("{at}.type"), error));
    }
    let flat = name.map(|name| Function { name, description, parameters, strict });
    let Some(function) = function.or(flat) else {
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

/// Converts the tool choice. Besides OpenAI's forms, takes those of its Responses API and of Anthropic's API.
pub(in crate::http) fn convert_tool_choice(choice: ToolChoice) -> Result<pb::ToolChoice, ApiError> {
    let (word, is_object) = match choice {
        ToolChoice::Word(word) => (word, false),
        ToolChoice::Object(ToolChoiceObject { kind, function, name, .. }) => {
            let name = function.and_then(|function| function.name).or(name);
            match kind.as_deref() {
                None | Some("function" | "tool") => return named(name),
                Some(_) => (kind.unwrap_or_default(), true),
            }
        }
    };
    let mode = match word.as_str() {
        "auto" => Mode::Auto,
        "none" => Mode::None,
        "required" | "any" => Mode::Required,
        _ if is_object => {
            let error = "tool_choice.type: only `function`, `auto`, `none` and `required` are supported";
            return Err(ApiError::unsupported("tool_choice.type", error));
        }
        _ => {
            return Err(ApiError::invalid(
                "tool_choice",
                "tool_choice must be `auto`, `none`, `required` or \
                 `{\"type\": \"function\", \"function\": {\"name\": …}}`",
            ));
        }
    };
    Ok(pb::ToolChoice { mode: mode.into(), name: String::new() })
}

fn named(name: Option<String>) -> Result<pb::ToolChoice, ApiError> {
    match name {
        Some(name) => Ok(pb::ToolChoice { mode: Mode::Named.into(), name }),
        None => Err(ApiError::invalid(
            "tool_choice.function.name",
            "tool_choice.function.name must be the name of one of `tools`",
        )),
    }
}

/// Truncates a value of the client's to 64 characters for an error text.
pub(in crate::http) fn truncate_for_error(value: &str) -> String {
    value.chars().take(64).collect()
}
