//! The state of the scripted upstream: recorded requests, counters of `times`, open responses, the answer to upgrades. All
//! of it is bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

/// Maximum number of recorded requests.
const MAX_REQUESTS: usize = 256;
/// Maximum bytes of recorded bodies. The newest request is kept even if it is larger.
const MAX_BYTES: usize = 64 << 20;
/// Maximum number of `times` counters.
const MAX_COUNTERS: usize = 1024;
/// Headers that show how Codex was configured.
const HEADERS: &[&str] = &[
    "accept",
    "authorization",
    "chatgpt-account-id",
    "content-encoding",
    "content-type",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "originator",
    "session-id",
    "thread-id",
    "user-agent",
    "version",
    "x-codex-turn-metadata",
    "x-codex-turn-state",
    "x-openai-internal-codex-responses-lite",
];

/// The transport of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `POST /v1/responses`, answered with server-sent events.
    Http,
    /// A text frame of a WebSocket at `/v1/responses`.
    WebSocket,
}

/// The answer to an upgrade of `GET /v1/responses` to a WebSocket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// Accept it.
    #[default]
    Accept,
    /// Answer with this status and an error in OpenAI's shape.
    Refuse(StatusCode),
    /// Close the TCP connection without an answer.
    Drop,
    /// Never answer.
    Hang,
    /// Accept it, then send a close frame with this code.
    Close(u16),
}

/// The end of the open WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebSocketEnd {
    /// Send a close frame with this code.
    Close(u16),
    /// Reset the TCP connection.
    Reset,
    /// Keep the connection and send no more events.
    Silence,
}

/// A request of Codex.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Number of the request, from 1. Ids in its response contain it.
    pub number: u64,
    /// Index of the model call in its turn, from 0.
    pub round: usize,
    /// The transport of the request.
    pub transport: Transport,
    /// The relevant headers, by lower-case name. Those of a WebSocket are the headers of its upgrade.
    pub headers: BTreeMap<String, String>,
    /// The body. That of a WebSocket request is the frame without `type`; its `input` is the whole conversation: the input
    /// and output behind `previous_response_id`, then the input of the frame.
    pub body: Arc<Value>,
}

impl Recorded {
    /// Returns whether the request is a warm-up (`generate: false`), which Codex sends first on each WebSocket.
    pub fn is_warm_up(&self) -> bool {
        self.transport == Transport::WebSocket && self.body["generate"] == false
    }

    /// Records a request with its relevant headers.
    pub(super) fn new(
        number: u64,
        round: usize,
        transport: Transport,
        headers: &HeaderMap,
        body: Arc<Value>,
    ) -> Self {
        let headers = HEADERS
            .iter()
            .filter_map(|&name| {
                let value = String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned();
                Some((name.to_owned(), value))
            })
            .collect();
        Self { number, round, transport, headers, body }
    }
}

/// The shared state of one upstream.
#[derive(Debug, Default)]
pub(super) struct State {
    records: Mutex<Records>,
    numbers: AtomicU64,
    open: AtomicUsize,
    upgrade: Mutex<Upgrade>,
    websocket_end: watch::Sender<Option<WebSocketEnd>>,
    models: Mutex<Vec<Value>>,
}

#[derive(Debug, Default)]
struct Records {
    requests: VecDeque<(usize, Recorded)>,
    bytes: usize,
    counters: VecDeque<(String, u64)>,
    upgrades: usize,
}

impl State {
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn record(&self, size: usize, request: Recorded) {
        let mut records = self.records();
        records.bytes += size;
        records.requests.push_back((size, request));
        while records.requests.len() > MAX_REQUESTS
            || (records.bytes > MAX_BYTES && records.requests.len() > 1)
        {
            let Some((size, _)) = records.requests.pop_front() else { break };
            records.bytes -= size;
        }
    }

    pub(super) fn recorded(&self) -> Vec<Recorded> {
        self.records().requests.iter().map(|(_, request)| request.clone()).collect()
    }

    /// Increments the counter of `key` and returns it.
    pub(super) fn count(&self, key: &str) -> u64 {
        let mut records = self.records();
        if let Some((_, count)) = records.counters.iter_mut().find(|(known, _)| known == key) {
            *count += 1;
            return *count;
        }
        if records.counters.len() == MAX_COUNTERS {
            records.counters.pop_front();
        }
        records.counters.push_back((key.to_owned(), 1));
        1
    }

    pub(super) fn clear(&self) {
        *self.records() = Records::default();
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn set_upgrade(&self, upgrade: Upgrade) {
        *lock(&self.upgrade) = upgrade;
    }

    /// Counts an attempt to upgrade and returns the answer to it.
    pub(super) fn next_upgrade(&self) -> Upgrade {
        self.records().upgrades += 1;
        *lock(&self.upgrade)
    }

    pub(super) fn upgrades(&self) -> usize {
        self.records().upgrades
    }

    /// Ends the WebSockets whose receiver of [`State::websocket_end`] exists.
    pub(super) fn end_websockets(&self, end: WebSocketEnd) {
        self.websocket_end.send_replace(Some(end));
    }

    /// Returns a receiver that changes when the WebSockets must end.
    pub(super) fn websocket_end(&self) -> watch::Receiver<Option<WebSocketEnd>> {
        self.websocket_end.subscribe()
    }

    pub(super) fn set_models(&self, models: Vec<Value>) {
        *lock(&self.models) = models;
    }

    pub(super) fn models(&self) -> Vec<Value> {
        lock(&self.models).clone()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }
}

/// Locks a part of the state. A panic cannot leave it inconsistent.
fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts as an open response until it is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<State>);

impl Open {
    pub(super) fn new(state: Arc<State>) -> Self {
        state.open.fetch_add(1, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(number: u64) -> Recorded {
        Recorded::new(number, 0, Transport::Http, &HeaderMap::new(), Arc::new(json!({})))
    }

    #[test]
    fn recorded_requests_are_bounded_in_number_and_bytes() {
        let state = State::default();
        for number in 0..300 {
            state.record(10, request(number));
        }
        let kept = state.recorded();
        assert_eq!((kept.len(), kept[0].number, kept[255].number), (256, 44, 299));

        state.record(MAX_BYTES + 1, request(300));
        assert_eq!(state.recorded().iter().map(|r| r.number).collect::<Vec<_>>(), [300]);
        state.record(1, request(301));
        assert_eq!(state.recorded().iter().map(|r| r.number).collect::<Vec<_>>(), [301]);
        state.clear();
        assert!(state.recorded().is_empty());
    }

    #[test]
    fn count_by_key_is_bounded() {
        let state = State::default();
        assert_eq!((state.count("a"), state.count("b"), state.count("a")), (1, 1, 2));
        for i in 0..MAX_COUNTERS {
            state.count(&i.to_string());
        }
        assert_eq!(state.records().counters.len(), MAX_COUNTERS);
        assert_eq!(state.count("a"), 1, "the oldest counter is removed first");
    }
}
