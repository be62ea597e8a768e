//! Converts a conversation to the initial history of a thread, or its new messages to the items that a kept thread lacks.
//! The items are those of the Responses API, and each message keeps its role.

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
    rpc::protocol::{ContentPart, FunctionOutput, RawItem, ToolCallContent, ToolCallResult},
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
        let is_large = is_large(&turn.messages);
        let build = move || {
            let history = Self::new(&turn, &tools, &cache);
            (turn, history)
        };
        inline_or_blocking(is_large, build).await
    }

    fn new(turn: &Turn, tools: &ToolSet, cache: &TurnCache) -> Self {
        let (lead, rest) = split_instructions(turn);
        let mut position = cache.start_of(turn);
        for message in lead {
            position.pass(message);
        }
        let inserted = HashMap::new();
        let mut builder =
            ItemsBuilder { tools, cache, position, items: Vec::new(), inserted, text_from: None };
        for message in rest {
            builder.add(message);
            builder.position.pass(message);
        }
        let mut items = builder.items;
        if items.is_empty() {
            items.push(match instruction_texts(turn).pop() {
                Some(last) => input_message("developer", last),
                None => input_message("user", String::new()),
            });
        }
        Self { items }
    }
}

/// Runs work that is linear in a conversation, on a blocking thread if the conversation is large.
///
/// Cancel safe. Work that has begun runs to its end, and the result is dropped.
pub(super) async fn inline_or_blocking<T: Send + 'static>(
    is_large: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    if is_large { spawn_blocking(work).await.map_err(Error::internal) } else { Ok(work()) }
}

/// Returns `true` if work that is linear in these messages must run on a blocking thread.
pub(super) fn is_large(messages: &[Message]) -> bool {
    let bytes = || messages.iter().map(content_bytes).sum::<usize>();
    messages.len() > MAX_INLINE_MESSAGES || bytes() > MAX_INLINE_BYTES
}

/// Returns the size of the texts and images of a message.
pub(super) fn content_bytes(message: &Message) -> usize {
    let parts = message.parts.iter().map(|part| match part {
        Part::Text(text) => text.len(),
        Part::Image(image) => image.data.len(),
    });
    parts.sum()
}

/// Returns the text for `thread/start.developerInstructions`.
pub(super) fn developer_instructions(turn: &Turn, tools: &ToolSet) -> Option<String> {
    let (_, rest) = split_instructions(turn);
    let mut instructions = instruction_texts(turn);
    let has_items = rest.iter().any(|message| match message.role {
        Role::System | Role::Developer => !joined_text(message).is_empty(),
        Role::Assistant => !message.tool_calls.is_empty() || has_content(message),
        Role::User | Role::Tool => true,
    });
    if !has_items {
        // The last one becomes the only item, because Codex refuses an empty history.
        instructions.pop();
    }
    instructions.extend(tools.instructions());
    if turn.format == Format::JsonObject {
        instructions.push(JSON_OBJECT_INSTRUCTION.to_owned());
    }
    (!instructions.is_empty()).then(|| instructions.join("\n\n"))
}

/// Divides the messages into the leading instructions and the rest.
fn split_instructions(turn: &Turn) -> (&[Message], &[Message]) {
    let instructs = |message: &&Message| matches!(message.role, Role::System | Role::Developer);
    turn.messages.split_at(turn.messages.iter().take_while(instructs).count())
}

fn instruction_texts(turn: &Turn) -> Vec<String> {
    split_instructions(turn).0.iter().map(joined_text).filter(|text| !text.is_empty()).collect()
}

/// The new messages of a conversation whose thread has all others.
#[derive(Debug, Default)]
pub(super) struct NewItems {
    /// The results of client calls, by the client's ids.
    pub(super) results: Vec<(String, ToolCallResult)>,
    /// The messages behind the results, for `thread/inject_items`.
    pub(super) items: Vec<RawItem>,
}

impl NewItems {
    /// Converts the messages behind the last answer. Returns `None` if a result follows a message, because Codex sends the
    /// results first.
    pub(super) fn of(messages: &[Message]) -> Option<Self> {
        let mut new = Self::default();
        for message in messages {
            match message.role {
                Role::Tool if new.items.is_empty() => {
                    let id = message.tool_call_id.clone().unwrap_or_default();
                    new.results.push((id, ToolCallResult::success(tool_content(&message.parts))));
                }
                Role::Tool | Role::Assistant => return None,
                Role::System | Role::Developer | Role::User => new.items.extend(input_item(message)),
            }
        }
        Some(new)
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
    /// Index of the first item of the assistant's texts directly before. Some clients make a message of the text and one of
    /// the calls.
    text_from: Option<usize>,
}

impl ItemsBuilder<'_> {
    fn add(&mut self, message: &Message) {
        if message.role != Role::Assistant {
            self.text_from = None;
        }
        match message.role {
            Role::System | Role::Developer | Role::User => self.items.extend(input_item(message)),
            Role::Assistant => self.add_assistant(message),
            Role::Tool => {
                let call_id = upstream_call_id(message.tool_call_id.as_deref().unwrap_or_default());
                self.items.push(RawItem::function_call_output(&call_id, function_output(&message.parts)));
            }
        }
    }

    fn add_assistant(&mut self, message: &Message) {
        let text_from = self.text_from.take();
        if message.tool_calls.is_empty() {
            self.text_from = text_from.or(Some(self.items.len()));
        }
        if let Some(cached) = self.cached_turn(message) {
            self.inserted.insert(Arc::as_ptr(&cached), Arc::clone(&cached));
            let calls_unchanged = has_same_calls(message, &cached);
            if calls_unchanged && has_same_text(message, &cached) {
                let calls = message.tool_calls.iter().map(|call| (call.id.as_str(), call)).collect();
                let items = cached.items.iter().map(|item| self.with_alias(item, &calls));
                let mut items: Vec<RawItem> = items.collect();
                if let Some(from) = text_from.filter(|_| joined_text(message).is_empty()) {
                    let told = self.items.get(from..).unwrap_or_default();
                    if message_text(told) == message_text(&items) {
                        self.items.truncate(from);
                    } else {
                        items.retain(|item| item.kind() != "message");
                    }
                }
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
        if has_content(message) {
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

/// Returns the item of a message of the user, the application or the operator, or `None` for empty instructions.
fn input_item(message: &Message) -> Option<RawItem> {
    if message.role != Role::User {
        let text = joined_text(message);
        // Codex drops items with the role `system` without an error.
        return (!text.is_empty()).then(|| input_message("developer", text));
    }
    let mut content = content(message.name.as_deref(), &message.parts, ContentPart::InputText);
    if content.is_empty() {
        content.push(ContentPart::InputText(String::new()));
    }
    Some(RawItem::message("user", content))
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
    sent.is_empty() || sent == message_text(&cached.items)
}

/// Returns the text of the messages among items, without whitespace.
fn message_text(items: &[RawItem]) -> String {
    let messages = items.iter().filter(|item| item.kind() == "message");
    messages.flat_map(RawItem::content_texts).flat_map(str::split_whitespace).collect()
}

fn has_content(message: &Message) -> bool {
    message.parts.iter().any(|part| !matches!(part, Part::Text(text) if text.is_empty()))
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

/// Returns the output of a function as Codex takes the result of a call.
fn tool_content(parts: &[Part]) -> Vec<ToolCallContent> {
    match function_output(parts) {
        FunctionOutput::Text(text) => vec![ToolCallContent::InputText { text }],
        FunctionOutput::Content(content) => content.into_iter().map(ToolCallContent::from).collect(),
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
