//! Converts messages to the contract's. Parts keep their indexes, so that the path in an error of the core is correct.

use super::{
    file::decode_file,
    image::decode_image,
    request::{File, ImageUrl, Message, Part, TextOr},
    tools::{convert_calls, truncate_for_error},
};
use crate::{
    http::error::ApiError,
    pb::{self, content_part},
};

/// Converts one message; `at` is its place in the request.
pub(in crate::http) fn convert_message(message: Message, at: &str) -> Result<pb::Message, ApiError> {
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

/// Converts a part, also with its name in the Responses API.
pub(in crate::http) fn content_part(
    part: Part,
    role: pb::Role,
    at: &str,
) -> Result<pb::ContentPart, ApiError> {
    let missing =
        |field: &str| ApiError::invalid(format!("{at}.{field}"), format!("{at}.{field} is missing"));
    match part.kind.as_str() {
        "text" | "input_text" | "output_text" => part.text.map(text_part).ok_or_else(|| missing("text")),
        "refusal" if role == pb::Role::Assistant => {
            part.refusal.map(text_part).ok_or_else(|| missing("refusal"))
        }
        // Thoughts of any model, with and without a readable text. Codex cannot take them. An empty text keeps the indexes.
        "thinking" | "redacted_thinking" | "thought" | "reasoning" | "reasoning_content"
        | "reasoning_text" | "summary_text"
            if role == pb::Role::Assistant =>
        {
            Ok(text_part(String::new()))
        }
        "image_url" | "input_image" => {
            let url = part.image_url.ok_or_else(|| match part.file_id {
                Some(_) => {
                    let error = format!("{at}: this server stores no files; send the image as `image_url`");
                    ApiError::unsupported(format!("{at}.file_id"), error)
                }
                None => missing("image_url"),
            })?;
            let url = ImageUrl { detail: url.detail.or(part.detail), ..url };
            let image = decode_image(url, &format!("{at}.image_url"))?;
            Ok(pb::ContentPart { part: Some(content_part::Part::Image(image)) })
        }
        "file" => {
            let file = part.file.ok_or_else(|| missing("file"))?;
            file_part(file, &format!("{at}.file"))
        }
        "input_file" => {
            let Part { filename, file_data, file_id, file_url, .. } = part;
            file_part(part.file.unwrap_or(File { filename, file_data, file_id, file_url }), at)
        }
        other => {
            let error = format!(
                "{at}: parts of type `{}` are not supported here; use `text`, `image_url` or `file`",
                truncate_for_error(other)
            );
            Err(ApiError::unsupported(at, error))
        }
    }
}

fn file_part(file: File, at: &str) -> Result<pb::ContentPart, ApiError> {
    Ok(pb::ContentPart { part: Some(content_part::Part::File(decode_file(file, at)?)) })
}

pub(in crate::http) fn text_part(text: String) -> pb::ContentPart {
    pb::ContentPart { part: Some(content_part::Part::Text(text)) }
}
