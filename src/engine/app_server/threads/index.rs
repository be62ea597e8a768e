//! The index of kept threads. A thread's task waits for its next turn; the index holds the other end of its channel. Taking
//! a thread removes it, so that a thread has one owner at a time. Dropping the channel evicts the thread: its task
//! releases it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::conversation::ConversationKey;
use crate::engine::{Eviction, ThreadCounts};

/// Bytes that a thread of the app-server occupies beside its history, and per ten bytes of it (0.169, `docs/app-server-engine.md`).
const THREAD_BYTES: usize = 1 << 20;
const BYTES_PER_TEN_HISTORY_BYTES: usize = 23;

/// The bounds of the threads of one worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexLimits {
    /// Maximum number of threads. 0 keeps none.
    pub(crate) threads: usize,
    /// Maximum estimated memory in bytes.
    pub(crate) bytes: usize,
}

/// The kept threads of all workers. `N` is the next turn of a thread.
#[derive(Debug)]
pub(crate) struct ThreadIndex<N> {
    limits: IndexLimits,
    state: Mutex<State<N>>,
}

/// The place of one thread in the index.
#[derive(Debug)]
pub(crate) struct Entry<N> {
    /// The keys under which the thread is found.
    pub(crate) keys: Vec<ConversationKey>,
    /// Identifies the worker.
    pub(crate) worker: usize,
    /// Size of the thread's history.
    pub(crate) history_bytes: usize,
    /// Maximum number of threads with the same limit on the same worker, if lower than the limit of the index.
    pub(crate) max_threads: usize,
    /// The thread waits for the results of a client's calls.
    pub(crate) is_parked: bool,
    /// Takes the next turn.
    pub(crate) next: oneshot::Sender<N>,
}

/// Identifies an entry. A later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryId(u64);

#[derive(Debug)]
struct State<N> {
    /// By the time of the last turn, oldest first.
    entries: BTreeMap<EntryId, Entry<N>>,
    by_key: HashMap<ConversationKey, EntryId>,
    last_id: u64,
    counts: ThreadCounts,
}

impl<N> Entry<N> {
    fn memory(&self) -> usize {
        THREAD_BYTES + self.history_bytes.saturating_mul(BYTES_PER_TEN_HISTORY_BYTES) / 10
    }
}

impl<N> ThreadIndex<N> {
    /// Creates an empty index.
    pub(crate) fn new(limits: IndexLimits) -> Self {
        let state = State {
            entries: BTreeMap::new(),
            by_key: HashMap::new(),
            last_id: 0,
            counts: ThreadCounts::default(),
        };
        Self { limits, state: Mutex::new(state) }
    }

    /// Returns `true` if the index keeps threads at all.
    pub(crate) const fn is_enabled(&self) -> bool {
        self.limits.threads > 0
    }

    /// Returns the id of an entry that may be inserted later.
    pub(crate) fn new_id(&self) -> EntryId {
        let mut state = self.state();
        state.last_id += 1;
        EntryId(state.last_id)
    }

    /// Inserts a thread. Evicts the threads of the same worker whose last turn is the longest ago, as far as the bounds
    /// demand it.
    pub(crate) fn insert(&self, id: EntryId, entry: Entry<N>) {
        let mut state = self.state();
        for key in &entry.keys {
            if let Some(other) = state.by_key.get(key).copied() {
                state.evict(other, Eviction::Duplicate);
            }
        }
        let (worker, max_of_kind) = (entry.worker, entry.max_threads);
        for key in &entry.keys {
            state.by_key.insert(*key, id);
        }
        state.entries.insert(id, entry);
        // Threads with a limit of their own are counted among themselves, so that they do not displace the others.
        while state.of_worker(worker).filter(|(_, entry)| entry.max_threads == max_of_kind).count()
            > max_of_kind
        {
            state.evict_oldest(Eviction::Number, |entry| {
                entry.worker == worker && entry.max_threads == max_of_kind
            });
        }
        while state.of_worker(worker).count() > self.limits.threads {
            state.evict_oldest(Eviction::Number, |entry| entry.worker == worker);
        }
        while state.of_worker(worker).map(|(_, entry)| entry.memory()).sum::<usize>() > self.limits.bytes {
            state.evict_oldest(Eviction::Size, |entry| entry.worker == worker);
        }
    }

    /// Takes the thread of a conversation. The caller must send the next turn or drop the sender.
    pub(crate) fn take(&self, key: &ConversationKey) -> Option<oneshot::Sender<N>> {
        let mut state = self.state();
        let id = state.by_key.get(key).copied()?;
        state.remove(id).map(|entry| entry.next)
    }

    /// Removes a thread and counts the reason. Returns `false` if the thread was taken, evicted or never inserted; then its
    /// channel decides.
    pub(crate) fn remove(&self, id: EntryId, reason: Eviction) -> bool {
        let mut state = self.state();
        let is_found = state.entries.contains_key(&id);
        state.evict(id, reason);
        is_found
    }

    /// Changes the counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut ThreadCounts)) {
        change(&mut self.state().counts);
    }

    /// Returns the number of threads now, and what became of turns and threads so far.
    pub(crate) fn counts(&self) -> ThreadCounts {
        let state = self.state();
        let parked = state.entries.values().filter(|entry| entry.is_parked).count();
        let mut counts = state.counts;
        (counts.kept, counts.parked) = (state.entries.len() - parked, parked);
        counts
    }

    fn state(&self) -> MutexGuard<'_, State<N>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N> State<N> {
    fn remove(&mut self, id: EntryId) -> Option<Entry<N>> {
        let entry = self.entries.remove(&id)?;
        for key in &entry.keys {
            if self.by_key.get(key) == Some(&id) {
                self.by_key.remove(key);
            }
        }
        Some(entry)
    }

    fn of_worker(&self, worker: usize) -> impl Iterator<Item = (&EntryId, &Entry<N>)> {
        self.entries.iter().filter(move |(_, entry)| entry.worker == worker)
    }

    /// Evicts the entry whose last turn is the longest ago.
    fn evict_oldest(&mut self, reason: Eviction, is_candidate: impl Fn(&Entry<N>) -> bool) {
        let oldest = self.entries.iter().find(|(_, entry)| is_candidate(entry)).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.evict(id, reason);
        }
    }

    fn evict(&mut self, id: EntryId, reason: Eviction) {
        let Some(entry) = self.remove(id) else { return };
        self.counts.record_eviction(reason);
        tracing::debug!(reason = reason.as_str(), parked = entry.is_parked, "kept thread evicted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        AnswerDigest, Message, Part, Role, Turn, app_server::threads::conversation::Conversation,
    };

    fn key(text: &str) -> ConversationKey {
        let message = Message {
            role: Role::User,
            name: None,
            parts: vec![Part::Text(text.into())],
            tool_calls: Vec::new(),
            tool_call_id: None,
        };
        let turn = Turn { messages: vec![message], ..Turn::default() };
        Conversation::of(&turn, b"").keys_with(&AnswerDigest::default()).remove(0)
    }

    fn index(threads: usize, bytes: usize) -> ThreadIndex<u32> {
        ThreadIndex::new(IndexLimits { threads, bytes })
    }

    /// Inserts a thread and returns the end of its task.
    fn insert(
        index: &ThreadIndex<u32>,
        text: &str,
        worker: usize,
        history_bytes: usize,
    ) -> (EntryId, oneshot::Receiver<u32>) {
        let (next, task) = oneshot::channel();
        let id = index.new_id();
        let entry = Entry {
            keys: vec![key(text)],
            worker,
            history_bytes,
            max_threads: usize::MAX,
            is_parked: false,
            next,
        };
        index.insert(id, entry);
        (id, task)
    }

    fn is_evicted(task: &mut oneshot::Receiver<u32>) -> bool {
        matches!(task.try_recv(), Err(oneshot::error::TryRecvError::Closed))
    }

    #[test]
    fn take_returns_a_thread_once() {
        let index = index(4, usize::MAX);
        let (_, mut task) = insert(&index, "a", 0, 0);
        assert!(index.take(&key("b")).is_none());
        index.take(&key("a")).unwrap().send(7).unwrap();
        assert_eq!(task.try_recv(), Ok(7));
        assert!(index.take(&key("a")).is_none());
        assert_eq!(index.counts(), ThreadCounts::default());
    }

    #[test]
    fn insert_beyond_the_number_evicts_the_oldest_of_the_same_worker() {
        let index = index(2, usize::MAX);
        let (_, mut other) = insert(&index, "other", 1, 0);
        let (_, mut a) = insert(&index, "a", 0, 0);
        let (_, mut b) = insert(&index, "b", 0, 0);
        assert!(!is_evicted(&mut a) && !is_evicted(&mut b));
        let (_, mut c) = insert(&index, "c", 0, 0);
        assert!(is_evicted(&mut a) && !is_evicted(&mut b) && !is_evicted(&mut c) && !is_evicted(&mut other));
        assert!(index.take(&key("a")).is_none());
        assert_eq!(
            (index.counts().kept, index.counts().evicted().map(|(_, count)| count).sum::<u64>()),
            (3, 1)
        );
    }

    #[test]
    fn insert_beyond_the_size_evicts_the_oldest_and_a_thread_that_is_too_large() {
        let index = index(64, 8 << 20);
        let (_, mut a) = insert(&index, "a", 0, 1 << 20);
        let (_, mut b) = insert(&index, "b", 0, 1 << 20);
        assert!(!is_evicted(&mut a) && !is_evicted(&mut b));
        let (_, mut c) = insert(&index, "c", 0, 1 << 20);
        assert!(is_evicted(&mut a) && !is_evicted(&mut b) && !is_evicted(&mut c));
        let (_, mut d) = insert(&index, "d", 0, 8 << 20);
        assert!(is_evicted(&mut b) && is_evicted(&mut c) && is_evicted(&mut d));
        assert_eq!(index.counts().kept, 0);
    }

    #[test]
    fn insert_of_the_same_conversation_evicts_the_former_thread() {
        let index = index(64, usize::MAX);
        let (former, mut first) = insert(&index, "a", 0, 0);
        let (id, mut second) = insert(&index, "a", 1, 0);
        assert!(is_evicted(&mut first) && !is_evicted(&mut second));
        assert!(!index.remove(former, Eviction::Idle));
        assert!(index.remove(id, Eviction::Idle) && is_evicted(&mut second));
        assert!(index.take(&key("a")).is_none());
    }

    #[test]
    fn threads_with_a_limit_of_their_own_evict_each_other_only() {
        let index = index(64, usize::MAX);
        let (_, mut other) = insert(&index, "other", 0, 0);
        let mut limited: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|text| {
                let (next, task) = oneshot::channel();
                let keys = vec![key(text)];
                let entry =
                    Entry { keys, worker: 0, history_bytes: 0, max_threads: 2, is_parked: true, next };
                index.insert(index.new_id(), entry);
                task
            })
            .collect();
        let evicted: Vec<bool> = limited.iter_mut().map(is_evicted).collect();
        assert_eq!((evicted, is_evicted(&mut other)), (vec![true, false, false], false));
        assert_eq!((index.counts().kept, index.counts().parked), (1, 2));
    }
}
