//! Converts the parts of a content to the contract's. Parts keep their indexes, so that the path in an error of the core is
//! correct.

use super::{
    file::decode_file,
    image::decode_image,
    tools::truncate_for_error,
    types::{File, ImageUrl, Part},
};
use crate::{
    http::error::ApiError,
    pb::{self, content_part},
};

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
