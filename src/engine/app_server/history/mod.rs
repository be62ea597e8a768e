//! A conversation as what a fresh thread is opened with: instructions and items of the Responses API, each message in
//! its role.

pub(crate) mod turn_cache;

use std::{borrow::Cow, fmt::Write, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::turn_cache::{CachedTurn, TurnCache, kind};
use super::tools::ToolSet;
use crate::{
    engine::{Format, Image, ImageKind, Message, Part, Role, Turn},
    pb,
};

/// Longer ids of calls are refused upstream; clients bring such from other services.
const MAX_CALL_ID_BYTES: usize = 64;

/// Codex has no mode for it; a schema would force a shape that the caller did not give.
const JSON_OBJECT: &str = "Answer with one JSON object and nothing else: no fence, no comment.";

/// What a thread is opened with.
#[derive(Debug, PartialEq)]
pub(super) struct InitialHistory {
    /// For `thread/start.developerInstructions`.
    pub(super) developer_instructions: Option<String>,
    /// For `thread/inject_items`; never empty, because Codex refuses an empty list.
    pub(super) items: Vec<Value>,
}

impl InitialHistory {
    pub(super) fn of(turn: &Turn, tools: &ToolSet, memory: &TurnCache) -> Self {
        let instructs = |message: &&Message| matches!(message.role, Role::System | Role::Developer);
        let leading = turn.messages.iter().take_while(instructs).count();
        let (lead, rest) = turn.messages.split_at(leading);
        let mut instructions: Vec<String> = lead.iter().map(said).filter(|text| !text.is_empty()).collect();
        let mut items = Items { tools, memory, turn, list: Vec::new(), shown: Vec::new() };
        for (index, message) in rest.iter().enumerate() {
            items.add(message, leading + index);
        }
        let mut items = items.list;
        if items.is_empty() {
            items.push(match instructions.pop() {
                Some(last) => text_message("developer", "input_text", &last),
                None => text_message("user", "input_text", ""),
            });
        }
        instructions.extend(tools.instructions());
        instructions.extend((turn.format == Format::JsonObject).then(|| JSON_OBJECT.to_owned()));
        let developer_instructions = (!instructions.is_empty()).then(|| instructions.join("\n\n"));
        Self { developer_instructions, items }
    }
}

struct Items<'a> {
    tools: &'a ToolSet,
    memory: &'a TurnCache,
    turn: &'a Turn,
    list: Vec<Value>,
    /// What was remembered and is in the list.
    shown: Vec<Arc<CachedTurn>>,
}

impl Items<'_> {
    fn add(&mut self, message: &Message, index: usize) {
        match message.role {
            // Never `system`, which Codex drops without a word.
            Role::System | Role::Developer => {
                let text = said(message);
                if !text.is_empty() {
                    self.list.push(text_message("developer", "input_text", &text));
                }
            }
            Role::User => {
                let content = content(message.name.as_deref(), &message.parts, "input_text");
                let content = if content.is_empty() { vec![text("input_text", "")] } else { content };
                self.list.push(json!({"type": "message", "role": "user", "content": content}));
            }
            Role::Assistant => self.assistant(message, index),
            Role::Tool => self.list.push(json!({
                "type": "function_call_output",
                "call_id": call_id(message.tool_call_id.as_deref().unwrap_or_default()),
                "output": output(&message.parts),
            })),
        }
    }

    fn assistant(&mut self, message: &Message, index: usize) {
        if let Some(remembered) = self.remembered(message, index) {
            self.shown.push(Arc::clone(&remembered));
            let as_told = same_calls(message, &remembered);
            if as_told && same_text(message, &remembered) {
                let items = remembered.items.iter().map(|item| self.renamed(item, &message.tool_calls));
                let items: Vec<Value> = items.collect();
                self.list.extend(items);
                return;
            }
            // What the client says of its own part counts. What Codex did beside it has happened all the same: a model
            // that is not shown it does it again. Thoughts are of no use without the calls that they led to.
            let theirs = |item: &&Value| {
                turn_cache::call_id(item)
                    .is_some_and(|id| message.tool_calls.iter().any(|call| call.id == id))
            };
            let kept = |item: &&Value| match kind(item) {
                "message" => false,
                "reasoning" => as_told,
                _ => {
                    !theirs(item)
                        && remembered.calls.iter().all(|call| turn_cache::call_id(item) != Some(&*call.id))
                }
            };
            self.list.extend(remembered.items.iter().filter(kept).cloned());
        }
        let content = content(message.name.as_deref(), &message.parts, "output_text");
        if message.parts.iter().any(|part| !matches!(part, Part::Text(text) if text.is_empty())) {
            self.list.push(json!({"type": "message", "role": "assistant", "content": content}));
        }
        for call in &message.tool_calls {
            self.list.push(json!({
                "type": "function_call",
                "name": self.tools.alias(&call.name),
                // The upstream wants JSON; some clients send nothing for no arguments.
                "arguments": if call.arguments.is_empty() { "{}" } else { &call.arguments },
                "call_id": call_id(&call.id),
            }));
        }
    }

    /// The turn that ended with these calls, or with one of them, unless it was shown already: some clients make a
    /// message of each call.
    fn remembered(&self, message: &Message, index: usize) -> Option<Arc<CachedTurn>> {
        let place = self.memory.place(self.turn, index);
        let found = message.tool_calls.iter().find_map(|call| self.memory.recall(place, &call.id))?;
        (!self.shown.iter().any(|shown| Arc::ptr_eq(shown, &found))).then_some(found)
    }

    /// A remembered item, the client's functions under the names that this turn gives them.
    fn renamed(&self, item: &Value, calls: &[pb::ToolCall]) -> Value {
        let mut item = item.clone();
        if let Some(id) = item.get("call_id").and_then(Value::as_str)
            && let Some(call) = calls.iter().find(|call| call.id == id)
        {
            let (id, name) = (call_id(&call.id).into_owned(), self.tools.alias(&call.name).into_owned());
            item["call_id"] = Value::String(id);
            item["name"] = Value::String(name);
        }
        item
    }
}

/// Whether the client sends the calls as it got them, but for spaces and the order of members.
fn same_calls(message: &Message, remembered: &CachedTurn) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text).ok();
    let same = |ours: &pb::ToolCall, theirs: &pb::ToolCall| {
        ours.id == theirs.id
            && ours.name == theirs.name
            && (ours.arguments == theirs.arguments
                || json(&ours.arguments).is_some_and(|ours| json(&theirs.arguments) == Some(ours)))
    };
    let calls = (&remembered.calls, &message.tool_calls);
    calls.0.len() == calls.1.len() && calls.0.iter().zip(calls.1).all(|(ours, theirs)| same(ours, theirs))
}

/// Whether the client sends the text as it got it, but for spaces, or left it out, as many do beside calls.
fn same_text(message: &Message, remembered: &CachedTurn) -> bool {
    let theirs: String = message.parts.iter().map(text_of).collect();
    let messages = remembered.items.iter().filter(|item| kind(item) == "message");
    let parts = messages.filter_map(|item| item.get("content")?.as_array()).flatten();
    let ours: String = parts.filter_map(|part| part.get("text")?.as_str()).collect();
    let theirs: Vec<&str> = theirs.split_whitespace().collect();
    theirs.is_empty() || theirs.concat() == ours.split_whitespace().collect::<String>()
}

fn text_of(part: &Part) -> &str {
    match part {
        Part::Text(text) => text,
        Part::Image(_) => "",
    }
}

/// All text of a message that has no pictures.
fn said(message: &Message) -> String {
    let texts: Vec<&str> = message.parts.iter().map(text_of).filter(|text| !text.is_empty()).collect();
    match &message.name {
        Some(name) if !texts.is_empty() => format!("{name}: {}", texts.join("\n")),
        Some(_) | None => texts.join("\n"),
    }
}

/// Parts as content, empty texts left out; the speaker's name goes before the first text.
fn content(name: Option<&str>, parts: &[Part], kind: &str) -> Vec<Value> {
    let mut name = name;
    let mut content = Vec::new();
    for part in parts {
        match part {
            Part::Text(said) if said.is_empty() => {}
            Part::Text(said) => content.push(match name.take() {
                Some(name) => text(kind, &format!("{name}: {said}")),
                None => text(kind, said),
            }),
            Part::Image(image) => content.push(picture(image)),
        }
    }
    // Somebody who only shows pictures is still somebody.
    if let Some(name) = name.filter(|_| !content.is_empty()) {
        content.insert(0, text(kind, &format!("{name}:")));
    }
    content
}

/// A tool's result: the text itself where there is nothing but one text.
fn output(parts: &[Part]) -> Value {
    match parts {
        [] => json!(""),
        [Part::Text(text)] => json!(text),
        several => match content(None, several, "input_text") {
            empty if empty.is_empty() => json!(""),
            content => json!(content),
        },
    }
}

fn text_message(role: &str, kind: &str, said: &str) -> Value {
    json!({"type": "message", "role": role, "content": [text(kind, said)]})
}

fn text(kind: &str, text: &str) -> Value {
    json!({"type": kind, "text": text})
}

fn picture(image: &Image) -> Value {
    let kind = match image.kind {
        ImageKind::Png => "png",
        ImageKind::Jpeg => "jpeg",
        ImageKind::Webp => "webp",
        ImageKind::Gif => "gif",
    };
    json!({"type": "input_image", "image_url": format!("data:image/{kind};base64,{}", STANDARD.encode(&image.data))})
}

/// The call's id, or, if it is too long for the upstream, a name for it.
fn call_id(id: &str) -> Cow<'_, str> {
    if id.len() <= MAX_CALL_ID_BYTES {
        return Cow::Borrowed(id);
    }
    let mut short = String::from("call_");
    for byte in Sha256::digest(id.as_bytes()).iter().take(16) {
        // Writing to a string cannot fail.
        let _written = write!(short, "{byte:02x}");
    }
    Cow::Owned(short)
}

#[cfg(test)]
mod property_tests;

#[cfg(test)]
mod tests;
