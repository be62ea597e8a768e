//! Flattens a conversation to one prompt: `ROLE: text`, with an empty line between messages. Images are collected in
//! order.

use crate::engine::{Format, Image, Message, Part, Role, Turn, notice::JSON_OBJECT_INSTRUCTION};

/// The input of the CLI.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// The text for stdin.
    pub(super) text: String,
    /// The images, in the order in which the text names them.
    pub(super) images: Vec<Image>,
}

impl Prompt {
    /// Flattens the messages of a turn.
    pub(super) fn new(turn: &Turn) -> Self {
        let mut prompt = Self::default();
        for message in &turn.messages {
            prompt.push_message(message);
        }
        if turn.format == Format::JsonObject {
            prompt.push_block("DEVELOPER", JSON_OBJECT_INSTRUCTION);
        }
        prompt
    }

    fn push_message(&mut self, message: &Message) {
        let mut text = String::new();
        for part in &message.parts {
            match part {
                Part::Text(piece) => text.push_str(piece),
                Part::Image(image) => {
                    self.images.push(image.clone());
                    text.push_str(&format!("[image {}]", self.images.len()));
                }
            }
        }
        for call in &message.tool_calls {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("[called {}({}) as {}]", call.name, call.arguments, call.id));
        }
        let role = match message.role {
            Role::System => "SYSTEM",
            Role::Developer => "DEVELOPER",
            Role::User => "USER",
            Role::Assistant => "ASSISTANT",
            Role::Tool => "TOOL",
        };
        match message.name.as_ref().or(message.tool_call_id.as_ref()) {
            Some(name) => self.push_block(&format!("{role} ({name})"), &text),
            None => self.push_block(role, &text),
        }
    }

    fn push_block(&mut self, label: &str, text: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        self.text.push_str(label);
        self.text.push_str(": ");
        self.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::ImageKind, pb};

    fn message(role: Role, text: &str) -> Message {
        Message {
            role,
            name: None,
            parts: vec![Part::Text(text.into())],
            tool_calls: vec![],
            tool_call_id: None,
        }
    }

    #[test]
    fn new_with_roles_and_names_labels_each_message() {
        let mut named = message(Role::User, "who am I?");
        named.name = Some("ann".into());
        let turn = Turn {
            messages: vec![
                message(Role::System, "be kind"),
                message(Role::User, "hi"),
                message(Role::Assistant, "hello"),
                named,
            ],
            ..Turn::default()
        };
        let prompt = Prompt::new(&turn);
        assert_eq!(prompt.text, "SYSTEM: be kind\n\nUSER: hi\n\nASSISTANT: hello\n\nUSER (ann): who am I?");
    }

    #[test]
    fn new_with_images_and_calls_inserts_placeholders() {
        let image = Image { data: bytes::Bytes::from_static(b"x"), kind: ImageKind::Png };
        let mut with_image = message(Role::User, "look: ");
        with_image.parts.push(Part::Image(image));
        with_image.parts.push(Part::Text(" nice?".into()));
        let mut call = message(Role::Assistant, "");
        call.tool_calls =
            vec![pb::ToolCall { id: "c1".into(), name: "get".into(), arguments: "{\"a\":1}".into() }];
        let mut result = message(Role::Tool, "42");
        result.tool_call_id = Some("c1".into());
        let turn =
            Turn { messages: vec![with_image, call, result], format: Format::JsonObject, ..Turn::default() };
        let prompt = Prompt::new(&turn);
        assert_eq!(prompt.images.len(), 1);
        let expected =
            "USER: look: [image 1] nice?\n\nASSISTANT: [called get({\"a\":1}) as c1]\n\nTOOL (c1): 42";
        let rest = prompt.text.strip_prefix(expected).unwrap();
        assert!(rest.starts_with("\n\nDEVELOPER: Answer with one JSON object"));
    }
}
