//! Validates the messages of a request, one by one and together.

use super::{check_length, file, too_many};
use crate::{
    config::Limits,
    engine::{Image, ImageKind, MAX_CALL_ID_BYTES, Message, Part, Role},
    error::Error,
    pb::{self, content_part},
};

/// Factor between the pixels of one image and of all images of a request. With the defaults, eight photographs of 12
/// megapixels fit.
const MAX_LARGEST_IMAGES: u64 = 2;

/// Validates all messages, and their numbers of parts, calls, images and pixels.
pub(super) fn validate_all(messages: Vec<pb::Message>, limits: &Limits) -> Result<Vec<Message>, Error> {
    if messages.is_empty() {
        return Err(Error::invalid("messages", "at least one message is required"));
    }
    check_counts(&messages, limits.lists.messages)?;
    let mut pixels = 0;
    let checked: Vec<Message> = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| validate(message, &format!("messages[{index}]"), limits, &mut pixels))
        .collect::<Result<_, _>>()?;
    let images = checked.iter().flat_map(|m| &m.parts).filter(|part| matches!(part, Part::Image(_))).count();
    if images > limits.max_images {
        return Err(Error::invalid(
            "messages",
            format!("{images} images are more than the {} allowed (CODEX_MAX_IMAGES)", limits.max_images),
        ));
    }
    Ok(checked)
}

/// Checks the numbers of messages, parts and calls. Each costs memory and time here and in Codex, also if it is empty.
fn check_counts(messages: &[pb::Message], max: usize) -> Result<(), Error> {
    let parts = |message: &pb::Message| message.parts.len();
    let calls = |message: &pb::Message| message.tool_calls.len();
    let counts = [
        (messages.len(), "messages"),
        (messages.iter().map(parts).sum(), "content parts"),
        (messages.iter().map(calls).sum(), "tool calls"),
    ];
    match counts.into_iter().find(|(count, _)| *count > max) {
        Some((count, what)) => Err(too_many("messages", count, what, max, "CODEX_MAX_MESSAGES")),
        None => Ok(()),
    }
}

/// Returns the number of characters of a message that count for the limit of the prompt.
pub(super) fn chars(message: &Message) -> usize {
    let text = message.parts.iter().map(|part| match part {
        Part::Text(text) => text.chars().count(),
        Part::Image(_) => 0,
    });
    let calls = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.chars().count());
    text.sum::<usize>() + calls.sum::<usize>()
}

fn validate(message: pb::Message, field: &str, limits: &Limits, pixels: &mut u64) -> Result<Message, Error> {
    let role = match pb::Role::try_from(message.role) {
        Ok(pb::Role::System) => Role::System,
        Ok(pb::Role::Developer) => Role::Developer,
        Ok(pb::Role::User) => Role::User,
        Ok(pb::Role::Assistant) => Role::Assistant,
        Ok(pb::Role::Tool) => Role::Tool,
        Ok(pb::Role::Unspecified) => {
            return Err(Error::invalid(format!("{field}.role"), "a role is required"));
        }
        Err(_) => return Err(Error::invalid(format!("{field}.role"), "not a known role")),
    };
    check_length(&format!("{field}.name"), &message.name, 64)?;
    check_length(&format!("{field}.tool_call_id"), &message.tool_call_id, MAX_CALL_ID_BYTES)?;
    if (role == Role::Tool) == message.tool_call_id.is_empty() {
        let rule = "required in messages of the role tool, and only there";
        return Err(Error::invalid(format!("{field}.tool_call_id"), rule));
    }
    if role != Role::Assistant && !message.tool_calls.is_empty() {
        return Err(Error::invalid(
            format!("{field}.tool_calls"),
            "only an assistant message can have calls",
        ));
    }
    for (index, call) in message.tool_calls.iter().enumerate() {
        if call.id.is_empty() || call.name.is_empty() {
            let field = format!("{field}.tool_calls[{index}]");
            return Err(Error::invalid(field, "a call needs an id and a function name"));
        }
        check_length(&format!("{field}.tool_calls[{index}].id"), &call.id, MAX_CALL_ID_BYTES)?;
    }
    // Clients send the empty result of a tool as `null` or `[]` too, and the answer of a model that only thought.
    let is_empty_text = match role {
        Role::Tool => message.parts.is_empty(),
        Role::Assistant => message.parts.is_empty() && message.tool_calls.is_empty(),
        Role::System | Role::Developer | Role::User => false,
    };
    if message.parts.is_empty() && message.tool_calls.is_empty() && !is_empty_text {
        return Err(Error::invalid(format!("{field}.parts"), "a message needs content"));
    }
    let parts = message.parts.into_iter().enumerate();
    let parts = parts.map(|(i, p)| part(p, role, &format!("{field}.parts[{i}]"), limits, pixels));
    let empty = is_empty_text.then(|| Ok(Part::Text(String::new())));
    Ok(Message {
        parts: parts.chain(empty).collect::<Result<_, _>>()?,
        role,
        name: Some(message.name).filter(|name| !name.is_empty()),
        tool_calls: message.tool_calls,
        tool_call_id: Some(message.tool_call_id).filter(|id| !id.is_empty()),
    })
}

/// Validates a part and adds its pixels to `pixels`.
fn part(
    part: pb::ContentPart,
    role: Role,
    field: &str,
    limits: &Limits,
    pixels: &mut u64,
) -> Result<Part, Error> {
    let image = match part.part {
        Some(content_part::Part::Text(text)) => return Ok(Part::Text(text)),
        Some(content_part::Part::Image(image)) => image,
        Some(content_part::Part::File(file)) => {
            let field = format!("{field}.file");
            if role == Role::Assistant {
                return Err(Error::invalid(field, "files are not allowed in messages of the role assistant"));
            }
            return file::text(&file, &field).map(Part::Text);
        }
        None => return Err(Error::invalid(field, "a part needs text, an image or a file")),
    };
    let field = format!("{field}.image");
    if !matches!(role, Role::User | Role::Tool) {
        return Err(Error::invalid(field, "images are allowed in messages of the roles user and tool only"));
    }
    if !matches!(image.detail.as_str(), "" | "auto" | "low" | "high" | "original") {
        return Err(Error::invalid(format!("{field}.detail"), "expected auto, low, high or original"));
    }
    if image.data.len() > limits.max_image_bytes {
        let (bytes, max) = (image.data.len(), limits.max_image_bytes);
        let message = format!("{bytes} bytes are more than {max} (CODEX_MAX_IMAGE_BYTES)");
        return Err(Error::invalid(field, message));
    }
    let kind = ImageKind::detect(&image.data).ok_or_else(|| {
        Error::invalid(&field, "not a complete PNG, JPEG, WebP or GIF file, judged by its content")
    })?;
    check_pixels(kind.pixels(&image.data), &field, limits.max_image_pixels, pixels)?;
    Ok(Part::Image(Image { data: image.data, kind }))
}

/// Checks the pixels of an image and adds them to those of the images before it.
fn check_pixels(image: Option<u64>, field: &str, max: u64, sum: &mut u64) -> Result<(), Error> {
    let Some(image) = image else {
        return Err(Error::invalid(field, "the width and height of the image cannot be read"));
    };
    if image > max {
        let message = format!("{image} pixels are more than the {max} allowed (CODEX_MAX_IMAGE_PIXELS)");
        return Err(Error::invalid(field, message));
    }
    *sum += image;
    let max = max.saturating_mul(MAX_LARGEST_IMAGES);
    if *sum > max {
        let message = format!(
            "with this image, the images have {sum} pixels, more than the {max} allowed for all together (twice \
             CODEX_MAX_IMAGE_PIXELS)"
        );
        return Err(Error::invalid(field, message));
    }
    Ok(())
}
