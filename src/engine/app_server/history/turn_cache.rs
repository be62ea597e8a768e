//! A cache of turns that ended with calls of client tools. The client's next request has the calls and their results, but
//! neither the reasoning nor the work of Codex's own tools. The cache keeps both as raw items, so that the model sees them
//! again. The cache is bounded by count, size and age. The least recently used turn is evicted first.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::response_item::{heap_size, heap_size_of_call, sanitize_items};
use crate::{
    engine::{Message, Part, Role, Turn, app_server::rpc::protocol::RawItem},
    pb,
};

/// Maximum time that a request waits for the end of a parked turn.
const MAX_END_TIME: Duration = Duration::from_secs(12);

/// Maximum time since the last use of a turn. After this time the turn is evicted.
const MAX_IDLE_AGE: Duration = Duration::from_secs(3600);

/// The cached turns by conversation and call id. Shared by all turns of the engine.
#[derive(Debug)]
pub(crate) struct TurnCache {
    max_turns: usize,
    max_bytes: usize,
    hasher: RandomState,
    index: Mutex<LruIndex>,
}

/// Identifies a position in a conversation: caller, model, profile, instructions and the last text of the user. Some
/// upstreams number their call ids from zero in every conversation, so an id alone could return the reasoning of another
/// conversation or model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConversationKey(u64);

/// A position in a conversation. Moves forward in time proportional to the passed messages, so that the keys of all
/// positions take linear time.
#[derive(Debug)]
pub(crate) struct Position {
    random: RandomState,
    /// State after the instructions before the position.
    instructions: DefaultHasher,
    /// Hash of the last message of the user.
    user: Option<u64>,
}

impl Position {
    /// Moves behind a message. The key includes only the size of an image.
    pub(crate) fn pass(&mut self, message: &Message) {
        match message.role {
            Role::System | Role::Developer => fingerprint(message).hash(&mut self.instructions),
            Role::User => self.user = Some(self.random.hash_one(fingerprint(message))),
            Role::Assistant | Role::Tool => {}
        }
    }

    /// Returns the key of the position.
    pub(crate) fn key(&self) -> ConversationKey {
        let mut hasher = self.instructions.clone();
        self.user.hash(&mut hasher);
        ConversationKey(hasher.finish())
    }
}

/// A cached turn.
#[derive(Debug)]
pub(crate) struct CachedTurn {
    /// The client's calls, as the client received them.
    pub(crate) calls: Vec<pb::ToolCall>,
    /// The items of the model and of Codex's own tools. They can be injected once the client's tools have the aliases of
    /// the new turn.
    pub(crate) items: Vec<RawItem>,
    /// Set if the turn may still be open in Codex.
    parking: Option<Parking>,
}

/// A turn that is open in Codex until the client's results arrive. A request that cannot go on there ends it first, so that
/// the cache has what Codex's own calls did meanwhile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parking {
    ended: CancellationToken,
    settled: CancellationToken,
}

/// Settles a parking when the turn goes on or has ended.
#[derive(Debug)]
pub(crate) struct ParkingGuard(Parking);

impl Parking {
    /// Returns the guard for the task of the turn.
    pub(crate) fn guard(&self) -> ParkingGuard {
        ParkingGuard(self.clone())
    }

    /// Ends the turn and waits until the cache has its last items, at most for `limit`.
    async fn end(&self, limit: Duration) {
        self.ended.cancel();
        if timeout(limit, self.settled.cancelled()).await.is_err() {
            tracing::warn!("parked turn did not end in time");
        }
    }
}

impl ParkingGuard {
    /// Completes when the turn must end.
    pub(crate) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }
}

impl Drop for ParkingGuard {
    fn drop(&mut self) {
        self.0.settled.cancel();
    }
}

#[derive(Debug, Default)]
struct LruIndex {
    /// By last use, oldest first.
    turns: BTreeMap<u64, Entry>,
    by_call: HashMap<(ConversationKey, String), u64>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    key: ConversationKey,
    turn: Arc<CachedTurn>,
    bytes: usize,
    last_used: Instant,
}

impl TurnCache {
    /// Creates a cache of `max_turns` turns and `max_bytes` bytes.
    pub(crate) fn new(max_turns: usize, max_bytes: usize) -> Self {
        Self { max_turns, max_bytes, hasher: RandomState::new(), index: Mutex::default() }
    }

    /// Returns the key of the position after all messages of a turn.
    pub(crate) fn key(&self, turn: &Turn) -> ConversationKey {
        let mut position = self.start_of(turn);
        for message in &turn.messages {
            position.pass(message);
        }
        position.key()
    }

    /// Returns the position before the first message of a turn.
    pub(crate) fn start_of(&self, turn: &Turn) -> Position {
        let mut instructions = self.hasher.build_hasher();
        (&turn.caller, &turn.model, turn.profile.as_str()).hash(&mut instructions);
        Position { random: self.hasher.clone(), instructions, user: None }
    }

    /// Ends the parked turns of a conversation, because it goes on elsewhere.
    pub(crate) async fn end_parked(&self, turn: &Turn) {
        for parking in self.parkings(turn) {
            parking.end(MAX_END_TIME).await;
        }
    }

    fn parkings(&self, turn: &Turn) -> Vec<Parking> {
        let mut parkings = Vec::new();
        if !turn.messages.iter().any(|message| message.role == Role::Tool) {
            return parkings;
        }
        let mut position = self.start_of(turn);
        for message in &turn.messages {
            let key = position.key();
            let cached = message.tool_calls.iter().find_map(|call| self.get(key, &call.id));
            let parking = cached.and_then(|cached| cached.parking.clone());
            parkings.extend(parking.filter(|parking| !parking.settled.is_cancelled()));
            position.pass(message);
        }
        parkings
    }

    /// Caches a turn that ended with `calls`, as `insert` does, and is still open in Codex.
    pub(crate) fn insert_parked(
        &self,
        key: ConversationKey,
        calls: &[pb::ToolCall],
        items: Vec<RawItem>,
    ) -> Parking {
        let parking = Parking::default();
        self.insert_turn(key, calls, items, Some(parking.clone()));
        parking
    }

    /// Caches a turn that ended with `calls`. `items` are all raw items since the turn began, in order. Drops the turn if
    /// `calls` is empty or the turn exceeds the size of the cache.
    pub(crate) fn insert(&self, key: ConversationKey, calls: &[pb::ToolCall], items: Vec<RawItem>) {
        self.insert_turn(key, calls, items, None);
    }

    fn insert_turn(
        &self,
        key: ConversationKey,
        calls: &[pb::ToolCall],
        items: Vec<RawItem>,
        parking: Option<Parking>,
    ) {
        let Some(items) = sanitize_items(calls, items) else { return };
        let bytes = items.iter().map(heap_size).chain(calls.iter().map(heap_size_of_call)).sum::<usize>();
        if calls.is_empty() || self.max_turns == 0 || bytes > self.max_bytes {
            return;
        }
        let turn = Arc::new(CachedTurn { calls: calls.to_vec(), items, parking });
        let mut index = self.index();
        index.evict_expired();
        while index.turns.len() >= self.max_turns || index.bytes + bytes > self.max_bytes {
            index.evict_oldest();
        }
        index.insert(key, turn, bytes);
    }

    /// Appends items to a turn that ended with `calls`: outputs of Codex's own calls that arrived later. Does nothing if the
    /// cache no longer has the turn.
    pub(crate) fn append(&self, key: ConversationKey, calls: &[pb::ToolCall], items: Vec<RawItem>) {
        let Some(first) = calls.first().filter(|_| !items.is_empty()) else { return };
        let Some(turn) = self.get(key, &first.id) else { return };
        let all = turn.items.iter().cloned().chain(items).collect();
        self.insert(key, calls, all);
    }

    /// Returns the turn that made the call with this id.
    pub(crate) fn get(&self, key: ConversationKey, call_id: &str) -> Option<Arc<CachedTurn>> {
        let mut index = self.index();
        index.evict_expired();
        let last_use = *index.by_call.get(&(key, call_id.to_owned()))?;
        let Entry { key, turn, bytes, .. } = index.turns.remove(&last_use)?;
        index.bytes -= bytes;
        index.insert(key, Arc::clone(&turn), bytes);
        Some(turn)
    }

    fn index(&self) -> MutexGuard<'_, LruIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LruIndex {
    fn insert(&mut self, key: ConversationKey, turn: Arc<CachedTurn>, bytes: usize) {
        self.clock += 1;
        for call in &turn.calls {
            self.by_call.insert((key, call.id.clone()), self.clock);
        }
        self.bytes += bytes;
        self.turns.insert(self.clock, Entry { key, turn, bytes, last_used: Instant::now() });
    }

    fn evict_expired(&mut self) {
        while self
            .turns
            .first_key_value()
            .is_some_and(|(_, oldest)| oldest.last_used.elapsed() > MAX_IDLE_AGE)
        {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let Some((last_use, Entry { key, turn, bytes, .. })) = self.turns.pop_first() else { return };
        self.bytes -= bytes;
        for call in &turn.calls {
            let by_call = (key, call.id.clone());
            // A later turn may have reused the id.
            if self.by_call.get(&by_call) == Some(&last_use) {
                self.by_call.remove(&by_call);
            }
        }
    }
}

/// Returns the texts of a message and the sizes of its images. A client may leave out white space at the end later.
fn fingerprint(message: &Message) -> Vec<(&str, usize)> {
    let last = message.parts.len().saturating_sub(1);
    let parts = message.parts.iter().enumerate().map(|(index, part)| match part {
        Part::Text(text) if index == last => (text.trim_end(), 0),
        Part::Text(text) => (text.as_str(), 0),
        Part::Image(image) => ("", image.data.len()),
    });
    parts.collect()
}

#[cfg(test)]
mod tests;
