//! Converts messages to the contract's.

use super::request::{Message, ToolCall};
use crate::{
    http::{
        error::ApiError,
        forms::{
            content::{content_part, text_part},
            tools::truncate_for_error,
            types::TextOr,
        },
    },
    pb,
};

/// Converts one message; `at` is its place in the request.
pub(super) fn convert_message(message: Message, at: &str) -> Result<pb::Message, ApiError> {
    let role = role(&message.role, at)?;
    if message.function_call.is_some() {
        let error = format!("{at}.function_call is deprecated and not supported; send `tool_calls`");
        return Err(ApiError::unsupported(format!("{at}.function_call"), error));
    }
    if message.audio.is_some() {
        let error = format!("{at}.audio: this server stores no audio; send the text as `content`");
        return Err(ApiError::unsupported(format!("{at}.audio"), error));
    }
    let mut parts = match message.content {
        None => Vec::new(),
        Some(TextOr::Text(text)) => vec![text_part(text)],
        Some(TextOr::List(list)) => {
            let numbered = list.into_iter().enumerate();
            numbered
                .map(|(index, part)| content_part(part, role, &format!("{at}.content[{index}]")))
                .collect::<Result<_, _>>()?
        }
    };
    // OpenAI's field for the text of a refusal by the model.
    parts.extend(message.refusal.filter(|_| role == pb::Role::Assistant).map(text_part));
    Ok(pb::Message {
        role: role.into(),
        parts,
        name: message.name.unwrap_or_default(),
        tool_calls: convert_calls(message.tool_calls.unwrap_or_default(), at)?,
        tool_call_id: message.tool_call_id.unwrap_or_default(),
    })
}

fn role(name: &str, at: &str) -> Result<pb::Role, ApiError> {
    let param = format!("{at}.role");
    match name {
        "system" => Ok(pb::Role::System),
        "developer" => Ok(pb::Role::Developer),
        "user" => Ok(pb::Role::User),
        "assistant" => Ok(pb::Role::Assistant),
        "tool" => Ok(pb::Role::Tool),
        "function" => {
            let error = format!(
                "{param}: `function` is deprecated and not supported; send `tool` with `tool_call_id`"
            );
            Err(ApiError::unsupported(param, error))
        }
        other => {
            let error = format!(
                "{param}: `{}` is not one of system, developer, user, assistant, tool",
                truncate_for_error(other)
            );
            Err(ApiError::invalid(param, error))
        }
    }
}

/// Converts the calls in an earlier message of the assistant.
fn convert_calls(calls: Vec<ToolCall>, at: &str) -> Result<Vec<pb::ToolCall>, ApiError> {
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
