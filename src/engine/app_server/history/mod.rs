//! Converts a conversation to the initial history of a thread. The history has instructions and items of the Responses
//! API, and each message keeps its role.

pub(crate) mod response_item;
pub(crate) mod turn_cache;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt::Write,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use self::turn_cache::{CachedTurn, Position, TurnCache};
use super::{
    rpc::protocol::{ContentPart, FunctionOutput, RawItem},
    tools::ToolSet,
};
use crate::{
    engine::{Format, Image, ImageKind, Message, Part, Role, Turn, notice::JSON_OBJECT_INSTRUCTION},
    error::Error,
    pb,
};

/// Maximum length of a call id that the upstream accepts. Clients may send longer ids from other services.
const MAX_UPSTREAM_CALL_ID_BYTES: usize = 64;

/// Maximum size of a conversation that is converted on the runtime's thread: bytes of texts and images, and messages.
const MAX_INLINE_BYTES: usize = 256 << 10;
const MAX_INLINE_MESSAGES: usize = 256;

/// The initial history of a thread.
#[derive(Debug, PartialEq)]
pub(super) struct InitialHistory {
    /// For `thread/start.developerInstructions`.
    pub(super) developer_instructions: Option<String>,
    /// For `thread/inject_items`. Never empty, because Codex refuses an empty list.
    pub(super) items: Vec<RawItem>,
}

impl InitialHistory {
    /// Builds the history of a turn and returns the turn with the history. Builds a large history on a blocking thread,
    /// so that other streams of the runtime's thread do not wait.
    ///
    /// Cancel safe. A build that has begun runs to its end, and the result is dropped.
    pub(super) async fn build(
        turn: Turn,
        tools: Arc<ToolSet>,
        cache: Arc<TurnCache>,
    ) -> Result<(Turn, Self), Error> {
        let parts = turn.messages.iter().flat_map(|message| &message.parts);
        let bytes = parts.map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Image(image) => image.data.len(),
        });
        let is_large = turn.messages.len() > MAX_INLINE_MESSAGES || bytes.sum::<usize>() > MAX_INLINE_BYTES;
        let build = move || {
            let history = Self::new(&turn, &tools, &cache);
            (turn, history)
        };
        if is_large { spawn_blocking(build).await.map_err(Error::internal) } else { Ok(build()) }
    }

    fn new(turn: &Turn, tools: &ToolSet, cache: &TurnCache) -> Self {
        let instructs = |message: &&Message| matches!(message.role, Role::System | Role::Developer);
        let leading = turn.messages.iter().take_while(instructs).count();
        let (lead, rest) = turn.messages.split_at(leading);
        let mut instructions: Vec<String> =
            lead.iter().map(joined_text).filter(|text| !text.is_empty()).collect();
        let mut position = cache.start_of(turn);
        for message in lead {
            position.pass(message);
        }
        let inserted = HashMap::new();
        let mut builder = ItemsBuilder { tools, cache, position, items: Vec::new(), inserted };
        for message in rest {
            builder.add(message);
            builder.position.pass(message);
        }
        let mut items = builder.items;
        if items.is_empty() {
            items.push(match instructions.pop() {
                Some(last) => input_message("developer", last),
                None => input_message("user", String::new()),
            });
        }
        instructions.extend(tools.instructions());
        if turn.format == Format::JsonObject {
            instructions.push(JSON_OBJECT_INSTRUCTION.to_owned());
        }
        let developer_instructions = (!instructions.is_empty()).then(|| instructions.join("\n\n"));
        Self { developer_instructions, items }
    }
}

struct ItemsBuilder<'a> {
    tools: &'a ToolSet,
    cache: &'a TurnCache,
    /// The position of the next message.
    position: Position,
    items: Vec<RawItem>,
    /// The cached turns whose items are in the list, by address.
    inserted: HashMap<*const CachedTurn, Arc<CachedTurn>>,
}

impl ItemsBuilder<'_> {
    fn add(&mut self, message: &Message) {
        match message.role {
            // Codex drops items with the role `system` without an error.
            Role::System | Role::Developer => {
                let text = joined_text(message);
                if !text.is_empty() {
                    self.items.push(input_message("developer", text));
                }
            }
            Role::User => {
                let mut content = content(message.name.as_deref(), &message.parts, ContentPart::InputText);
                if content.is_empty() {
                    content.push(ContentPart::InputText(String::new()));
                }
                self.items.push(RawItem::message("user", content));
            }
            Role::Assistant => self.add_assistant(message),
            Role::Tool => {
                let call_id = upstream_call_id(message.tool_call_id.as_deref().unwrap_or_default());
                self.items.push(RawItem::function_call_output(&call_id, function_output(&message.parts)));
            }
        }
    }

    fn add_assistant(&mut self, message: &Message) {
        if let Some(cached) = self.cached_turn(message) {
            self.inserted.insert(Arc::as_ptr(&cached), Arc::clone(&cached));
            let calls_unchanged = has_same_calls(message, &cached);
            if calls_unchanged && has_same_text(message, &cached) {
                let calls = message.tool_calls.iter().map(|call| (call.id.as_str(), call)).collect();
                let items = cached.items.iter().map(|item| self.with_alias(item, &calls));
                let items: Vec<RawItem> = items.collect();
                self.items.extend(items);
                return;
            }
            // The client's version of the message and calls replaces the cached version. The work of Codex's own tools
            // stays, because a model that does not see this work repeats it. Reasoning is useless without its calls.
            let calls: HashSet<&str> =
                message.tool_calls.iter().chain(&cached.calls).map(|call| call.id.as_str()).collect();
            let is_client_call = |item: &RawItem| item.call_id().is_some_and(|id| calls.contains(id));
            let keep = |item: &&RawItem| match item.kind() {
                "message" => false,
                "reasoning" => calls_unchanged,
                _ => !is_client_call(item),
            };
            self.items.extend(cached.items.iter().filter(keep).cloned());
        }
        if message.parts.iter().any(|part| !matches!(part, Part::Text(text) if text.is_empty())) {
            let content = content(message.name.as_deref(), &message.parts, ContentPart::OutputText);
            self.items.push(RawItem::message("assistant", content));
        }
        for call in &message.tool_calls {
            // The upstream requires JSON. Some clients send an empty text for a call without arguments.
            let arguments = if call.arguments.is_empty() { "{}" } else { &call.arguments };
            let (call_id, alias) = (upstream_call_id(&call.id), self.tools.alias(&call.name));
            self.items.push(RawItem::function_call(&call_id, &alias, arguments));
        }
    }

    /// Returns the turn that ended with at least one of these calls. Returns `None` if the list already contains the
    /// turn's items, because some clients make a message of each call.
    fn cached_turn(&self, message: &Message) -> Option<Arc<CachedTurn>> {
        let key = self.position.key();
        let cached = message.tool_calls.iter().find_map(|call| self.cache.get(key, &call.id))?;
        (!self.inserted.contains_key(&Arc::as_ptr(&cached))).then_some(cached)
    }

    /// Returns a cached item with the alias that this turn gives to the client's tool.
    fn with_alias(&self, item: &RawItem, calls: &HashMap<&str, &pb::ToolCall>) -> RawItem {
        let mut item = item.clone();
        let call = item.call_id().and_then(|id| calls.get(id));
        if let Some(call) = call {
            item.set_call_id(&upstream_call_id(&call.id));
            item.set_name(&self.tools.alias(&call.name));
        }
        item
    }
}

/// Returns `true` if the client sends the calls back unchanged, except for whitespace and the order of members.
fn has_same_calls(message: &Message, cached: &CachedTurn) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text).ok();
    let is_same = |cached: &pb::ToolCall, sent: &pb::ToolCall| {
        cached.id == sent.id
            && cached.name == sent.name
            && (cached.arguments == sent.arguments
                || json(&cached.arguments).is_some_and(|cached| json(&sent.arguments) == Some(cached)))
    };
    let (cached, sent) = (&cached.calls, &message.tool_calls);
    cached.len() == sent.len() && cached.iter().zip(sent).all(|(cached, sent)| is_same(cached, sent))
}

/// Returns `true` if the client sends the text back unchanged, except for whitespace. An omitted text counts as unchanged,
/// because many clients omit the text beside calls.
fn has_same_text(message: &Message, cached: &CachedTurn) -> bool {
    let sent: String = message.parts.iter().flat_map(|part| text_of(part).split_whitespace()).collect();
    if sent.is_empty() {
        return true;
    }
    let messages = cached.items.iter().filter(|item| item.kind() == "message");
    let cached: String = messages.flat_map(RawItem::content_texts).flat_map(str::split_whitespace).collect();
    sent == cached
}

fn text_of(part: &Part) -> &str {
    match part {
        Part::Text(text) => text,
        Part::Image(_) => "",
    }
}

/// Returns the text of a message without images, with the name of its author.
fn joined_text(message: &Message) -> String {
    let texts: Vec<&str> = message.parts.iter().map(text_of).filter(|text| !text.is_empty()).collect();
    match &message.name {
        Some(name) if !texts.is_empty() => format!("{name}: {}", texts.join("\n")),
        Some(_) | None => texts.join("\n"),
    }
}

/// Returns the parts as content without empty texts. The author's name precedes the first text.
fn content(
    name: Option<&str>,
    parts: &[Part],
    text_part: impl Fn(String) -> ContentPart,
) -> Vec<ContentPart> {
    let mut name = name;
    let mut content = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) if text.is_empty() => {}
            Part::Text(text) => content.push(text_part(match name.take() {
                Some(name) => format!("{name}: {text}"),
                None => text.clone(),
            })),
            Part::Image(image) => content.push(ContentPart::InputImage(data_url(image))),
        }
    }
    // A message that has only images still needs the name.
    if let Some(name) = name.filter(|_| !content.is_empty()) {
        content.insert(0, text_part(format!("{name}:")));
    }
    content
}

/// Returns the output of a function. A result with a single text becomes plain text.
fn function_output(parts: &[Part]) -> FunctionOutput {
    match parts {
        [] => FunctionOutput::Text(String::new()),
        [Part::Text(text)] => FunctionOutput::Text(text.clone()),
        parts => match content(None, parts, ContentPart::InputText) {
            content if content.is_empty() => FunctionOutput::Text(String::new()),
            content => FunctionOutput::Content(content),
        },
    }
}

fn input_message(role: &str, text: String) -> RawItem {
    RawItem::message(role, vec![ContentPart::InputText(text)])
}

/// Returns an image as a `data:` URL. Encodes directly into the URL, because an image may have many megabytes.
fn data_url(image: &Image) -> String {
    let kind = match image.kind {
        ImageKind::Png => "png",
        ImageKind::Jpeg => "jpeg",
        ImageKind::Webp => "webp",
        ImageKind::Gif => "gif",
    };
    let mut url = format!("data:image/{kind};base64,");
    url.reserve_exact(image.data.len().div_ceil(3) * 4);
    STANDARD.encode_string(&image.data, &mut url);
    url
}

/// Returns the call's id, or a hash of the id if the id is too long for the upstream.
fn upstream_call_id(id: &str) -> Cow<'_, str> {
    if id.len() <= MAX_UPSTREAM_CALL_ID_BYTES {
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
