//! What the model produced in turns that ended at a client's tool call: reasoning, text and calls as raw items of the
//! Responses API, so that the next request can show them to it again. Bounded; forgets what was not used for longest,
//! and what was not used for an hour.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    engine::{Message, Part, Role, Turn},
    pb,
};

/// How long a turn is remembered that nobody asks for.
const AGE: Duration = Duration::from_secs(3600);

/// Remembers interrupted turns under the client's call ids. Cheap to ask, safe to share.
#[derive(Debug)]
pub(crate) struct TurnCache {
    max_turns: usize,
    max_bytes: usize,
    hasher: RandomState,
    shelf: Mutex<LruIndex>,
}

/// Where in which conversation a turn stands: with which model, profile and instructions, after which words of the
/// user. Some upstreams number their call ids from zero in every conversation; nobody is to be shown what was thought in
/// another one, and no model what another has thought. Callers are all the same: there is one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConversationKey(u64);

/// One remembered turn.
#[derive(Debug)]
pub(crate) struct CachedTurn {
    /// The client's calls in it, as the client was told them.
    pub(crate) calls: Vec<pb::ToolCall>,
    /// Everything that the model and Codex's own tools produced, ready to be injected but for the names of the client's
    /// tools, which may need another alias now.
    pub(crate) items: Vec<Value>,
}

#[derive(Debug, Default)]
struct LruIndex {
    /// By last use, oldest first.
    turns: BTreeMap<u64, Entry>,
    index: HashMap<(ConversationKey, String), u64>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    place: ConversationKey,
    turn: Arc<CachedTurn>,
    bytes: usize,
    used: Instant,
}

impl TurnCache {
    pub(crate) fn new(max_turns: usize, max_bytes: usize) -> Self {
        Self { max_turns, max_bytes, hasher: RandomState::new(), shelf: Mutex::default() }
    }

    /// The place behind so many messages of a turn. Pictures count by their size only.
    pub(crate) fn place(&self, turn: &Turn, messages: usize) -> ConversationKey {
        let before = turn.messages.get(..messages).unwrap_or(&turn.messages);
        let instructs = |message: &&Message| matches!(message.role, Role::System | Role::Developer);
        let instructions: Vec<Vec<(&str, usize)>> = before.iter().filter(instructs).map(told).collect();
        let asked = before.iter().rfind(|message| message.role == Role::User).map(told);
        ConversationKey(self.hasher.hash_one((&turn.model, turn.profile.as_str(), instructions, asked)))
    }

    /// Remembers a turn that was interrupted for `calls`. `items` are the raw items that the model and its own tools
    /// produced since the turn began, in order.
    pub(crate) fn remember(&self, place: ConversationKey, calls: &[pb::ToolCall], items: Vec<Value>) {
        let Some(items) = injectable(calls, items) else { return };
        let bytes = items.iter().map(weight).chain(calls.iter().map(weight_of_call)).sum::<usize>();
        if calls.is_empty() || self.max_turns == 0 || bytes > self.max_bytes {
            return;
        }
        let turn = Arc::new(CachedTurn { calls: calls.to_vec(), items });
        let mut shelf = self.shelf();
        shelf.forget_aged();
        while shelf.turns.len() >= self.max_turns || shelf.bytes + bytes > self.max_bytes {
            shelf.forget_oldest();
        }
        shelf.put(place, turn, bytes);
    }

    /// The turn in which the call with this id was made.
    pub(crate) fn recall(&self, place: ConversationKey, call_id: &str) -> Option<Arc<CachedTurn>> {
        let mut shelf = self.shelf();
        shelf.forget_aged();
        let used = *shelf.index.get(&(place, call_id.to_owned()))?;
        let Entry { place, turn, bytes, .. } = shelf.turns.remove(&used)?;
        shelf.bytes -= bytes;
        shelf.put(place, Arc::clone(&turn), bytes);
        Some(turn)
    }

    fn shelf(&self) -> MutexGuard<'_, LruIndex> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LruIndex {
    fn put(&mut self, place: ConversationKey, turn: Arc<CachedTurn>, bytes: usize) {
        self.clock += 1;
        for call in &turn.calls {
            self.index.insert((place, call.id.clone()), self.clock);
        }
        self.bytes += bytes;
        self.turns.insert(self.clock, Entry { place, turn, bytes, used: Instant::now() });
    }

    fn forget_aged(&mut self) {
        while self.turns.first_key_value().is_some_and(|(_, oldest)| oldest.used.elapsed() > AGE) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((used, Entry { place, turn, bytes, .. })) = self.turns.pop_first() else { return };
        self.bytes -= bytes;
        for call in &turn.calls {
            let key = (place, call.id.clone());
            // Another turn may have taken the name since.
            if self.index.get(&key) == Some(&used) {
                self.index.remove(&key);
            }
        }
    }
}

/// What a message says.
fn told(message: &Message) -> Vec<(&str, usize)> {
    let told = message.parts.iter().map(|part| match part {
        Part::Text(text) => (text.as_str(), 0),
        Part::Image(image) => ("", image.data.len()),
    });
    told.collect()
}

/// The items as they may be injected. Nothing if a call is not among them: then what the model did is not what the
/// client was told (in code mode calls have no items of their own).
fn injectable(calls: &[pb::ToolCall], items: Vec<Value>) -> Option<Vec<Value>> {
    let client: HashSet<&str> = calls.iter().map(|call| call.id.as_str()).collect();
    let is_clients =
        |item: &Value| kind(item) == "function_call" && call_id(item).is_some_and(|id| client.contains(id));
    if items.iter().filter(|item| is_clients(item)).count() != calls.len() {
        return None;
    }
    let ids = |suffix: &str| -> HashSet<String> {
        let matching = items.iter().filter(|item| kind(item).ends_with(suffix));
        matching.filter_map(|item| call_id(item).map(str::to_owned)).collect()
    };
    let (called, answered) = (ids("_call"), ids("_output"));
    let kept = items.into_iter().filter_map(|item| {
        let clients = is_clients(&item);
        let id = call_id(&item).map(str::to_owned);
        let keep = match kind(&item) {
            "reasoning" => item.get("encrypted_content").is_some_and(Value::is_string),
            "message" => item["role"] == "assistant" && item["content"] != json!([]),
            // A call that was not answered never came to its end, unless the client is to answer it.
            "function_call" | "custom_tool_call" | "local_shell_call" | "tool_search_call" => {
                clients || id.is_some_and(|id| answered.contains(&id) && !client.contains(id.as_str()))
            }
            "function_call_output" | "custom_tool_call_output" | "tool_search_output" => {
                id.is_some_and(|id| called.contains(&id) && !client.contains(id.as_str()))
            }
            "web_search_call" => true,
            _ => false,
        };
        keep.then(|| stripped(item))
    });
    let mut kept: Vec<Value> = kept.collect();
    // The upstream refuses thoughts that nothing follows.
    while kept.last().is_some_and(|item| kind(item) == "reasoning") {
        kept.pop();
    }
    Some(kept)
}

/// Without what belongs to the response that an item came with, and without what says nothing.
fn stripped(item: Value) -> Value {
    let Value::Object(item) = item else { return item };
    let kind = item.get("type").and_then(Value::as_str).unwrap_or_default();
    // These cannot be read without it.
    let needs_status = matches!(kind, "local_shell_call" | "tool_search_output" | "web_search_call");
    let keep = |name: &str, value: &Value| match name {
        "id" | "internal_chat_message_metadata_passthrough" => false,
        "status" => needs_status,
        _ => !value.is_null(),
    };
    let kept: Map<String, Value> =
        item.clone().into_iter().filter(|(name, value)| keep(name, value)).collect();
    Value::Object(kept)
}

/// The type of an item.
pub(crate) fn kind(item: &Value) -> &str {
    item.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The id of the call that an item is, or answers.
pub(crate) fn call_id(item: &Value) -> Option<&str> {
    item.get("call_id").and_then(Value::as_str)
}

/// Memory that an item takes, in bytes: nearly, and rather too much than too little. A small object takes far more
/// than its text would.
pub(crate) fn weight(item: &Value) -> usize {
    /// What the allocator adds to each block.
    const BLOCK: usize = 16;
    /// Eleven members.
    const ELEVEN: usize = 11 * (size_of::<String>() + size_of::<Value>()) + BLOCK;
    let inner = match item {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity() + BLOCK,
        Value::Array(list) => list.iter().map(weight).sum::<usize>() + BLOCK,
        Value::Object(members) => {
            // They lie in a table that may be little more than half full.
            let table = members.len().div_ceil(6) * ELEVEN;
            table + members.iter().map(|(name, value)| name.capacity() + BLOCK + weight(value)).sum::<usize>()
        }
    };
    size_of::<Value>() + inner
}

fn weight_of_call(call: &pb::ToolCall) -> usize {
    // The id is in the index, too.
    size_of::<pb::ToolCall>() + 2 * (call.id.len() + 64) + call.name.len() + call.arguments.len()
}

#[cfg(test)]
mod tests;
