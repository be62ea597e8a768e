//! JSON-RPC with one app-server over its stdio. One task owns both pipes; every call has a time limit; every request
//! of theirs is answered, tool calls excepted, which go to their turn. Knows threads as addresses, not what they mean.

mod pipes;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    delta::Delta,
    large::{self, Large},
    mailbox::{Letterbox, Mail},
    wire::{self, Incoming, RpcError},
};
use crate::engine::jsonl::Lines;

/// Calls under way in one worker; more of them make it refuse some.
const MAX_CALLS: usize = 64;

/// Lines on their way to the worker.
const OUTBOX: usize = 256;

/// Pauses before a call is made again that the worker was too busy for.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(180),
    Duration::from_millis(540),
];

/// Why a call has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// The app-server refused it.
    #[error("{}", .0.message)]
    Refused(RpcError),
    /// No answer in time: the worker is not to be trusted any more.
    #[error("the app-server did not answer {0} in time")]
    TimedOut(&'static str),
    /// The worker is gone.
    #[error("the app-server is gone: {0}")]
    Gone(Arc<str>),
}

/// Our end of the conversation; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Peer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    outbox: mpsc::Sender<Vec<u8>>,
    calls: Semaphore,
    next_id: AtomicU64,
    routes: Mutex<Routes>,
    gone: CancellationToken,
    /// Lines read so far: whoever speaks is alive.
    heard: AtomicU64,
}

#[derive(Debug, Default)]
struct Routes {
    pending: HashMap<u64, Pending>,
    threads: HashMap<String, Letterbox>,
    /// Why the worker is gone, once it is.
    last_words: Option<Arc<str>>,
}

#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Result<Value, CallError>>,
    /// With `thread/start`: who reads what is said of the thread that it makes.
    letterbox: Option<Letterbox>,
}

impl Peer {
    /// Starts the conversation. Its task lives in `tasks` and ends when a pipe does.
    pub(super) fn start(
        stdin: impl AsyncWrite + Unpin + Send + 'static,
        stdout: impl AsyncRead + Unpin + Send + 'static,
        line_limit: usize,
        tasks: &TaskTracker,
    ) -> Self {
        let (outbox, lines) = mpsc::channel(OUTBOX);
        let peer = Self(Arc::new(Shared {
            outbox,
            calls: Semaphore::new(MAX_CALLS),
            next_id: AtomicU64::new(1),
            routes: Mutex::default(),
            gone: CancellationToken::new(),
            heard: AtomicU64::new(0),
        }));
        let shared = Arc::clone(&peer.0);
        tasks.spawn(async move {
            let why = tokio::select! {
                why = pipes::write(stdin, lines) => why,
                why = pipes::read(Lines::new(stdout, line_limit), &shared) => why,
                () = shared.gone.cancelled() => "it no longer answered".to_owned(),
            };
            shared.close(&why);
        });
        peer
    }

    /// Makes a call and waits for its answer, `limit` at most from when it is its turn.
    pub(super) async fn call(
        &self,
        method: &'static str,
        params: &Value,
        limit: Duration,
    ) -> Result<Value, CallError> {
        self.call_for(method, params, limit, None).await
    }

    /// Makes a `thread/start`; what is said of the new thread goes to `letterbox` from its first word.
    pub(super) async fn call_for(
        &self,
        method: &'static str,
        params: &Value,
        limit: Duration,
        letterbox: Option<Letterbox>,
    ) -> Result<Value, CallError> {
        let mut pauses = BACKOFF.into_iter();
        loop {
            // The time that it waits for its turn is not the worker's: every call before it has a limit of its own.
            let turn = self.0.calls.acquire().await.map_err(|_| CallError::Gone(self.last_words()))?;
            let asked = timeout(limit, self.ask(method, params, letterbox.clone())).await;
            let answer = asked.map_err(|_| CallError::TimedOut(method))?;
            drop(turn);
            match (answer, pauses.next()) {
                (Err(CallError::Refused(error)), Some(pause)) if error.code == wire::OVERLOADED => {
                    sleep(pause).await;
                }
                (answer, _) => return answer,
            }
        }
    }

    /// Asks for a sign of life, past the calls that wait for their turn: they may be what hangs.
    pub(super) async fn pulse(&self) -> Result<(), CallError> {
        self.ask("thread/loaded/list", &json!({}), None).await.map(drop)
    }

    async fn ask(
        &self,
        method: &'static str,
        params: &Value,
        letterbox: Option<Letterbox>,
    ) -> Result<Value, CallError> {
        let gone = || CallError::Gone(self.last_words());
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let starts_thread = letterbox.is_some();
        {
            let mut routes = self.0.routes();
            if let Some(why) = &routes.last_words {
                return Err(CallError::Gone(Arc::clone(why)));
            }
            routes.pending.insert(id, Pending { answer, letterbox });
        }
        let mut waiting = Waiting { shared: &self.0, id, answered, starts_thread };
        self.0.outbox.send(wire::call(id, method, params)).await.map_err(|_| gone())?;
        (&mut waiting.answered).await.map_err(|_| gone())?
    }

    /// Sends a notification.
    pub(super) async fn notify(&self, method: &str) {
        // If the worker is gone, whoever calls next is told.
        drop(self.0.outbox.send(wire::notification(method)).await);
    }

    /// Answers a request of theirs.
    pub(super) async fn answer(&self, id: &Value, result: &Value) {
        drop(self.0.outbox.send(wire::answer(id, result)).await);
    }

    /// Nobody reads this thread any more.
    pub(super) fn forget_thread(&self, thread: &str) {
        self.0.routes().threads.remove(thread);
    }

    /// Ends the conversation.
    pub(super) fn hang_up(&self) {
        self.0.gone.cancel();
    }

    /// Waits for its end.
    pub(super) async fn gone(&self) {
        self.0.gone.cancelled().await;
    }

    /// How many lines it has said; more of them are a sign of life.
    pub(super) fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.0.gone.is_cancelled()
    }

    fn last_words(&self) -> Arc<str> {
        self.0.routes().last_words.clone().unwrap_or_else(|| "it ended".into())
    }
}

impl Shared {
    fn routes(&self) -> std::sync::MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    fn close(&self, why: &str) {
        let why: Arc<str> = why.into();
        let (pending, threads) = {
            let mut routes = self.routes();
            routes.last_words = Some(Arc::clone(&why));
            (std::mem::take(&mut routes.pending), std::mem::take(&mut routes.threads))
        };
        self.calls.close();
        self.gone.cancel();
        for (_, pending) in pending {
            drop(pending.answer.send(Err(CallError::Gone(Arc::clone(&why)))));
        }
        for (_, letterbox) in threads {
            letterbox.put(Mail::Gone(Arc::clone(&why)), 0);
        }
    }

    /// What a line means, and what is to be sent because of it.
    fn take(&self, line: &[u8]) -> Option<Vec<u8>> {
        if let known @ (Large::Echo | Large::Output { .. }) = large::whole(line) {
            self.put(known, 0);
            return None;
        }
        if let Some((thread, delta)) = Delta::of_line(line) {
            if let Some(letterbox) = self.letterbox(&thread) {
                letterbox.put(Mail::Delta(delta), line.len());
            }
            return None;
        }
        let Some(incoming) = wire::read(line) else {
            if !line.trim_ascii().is_empty() {
                tracing::warn!(
                    bytes = line.len(),
                    "an app-server printed a line that is not of its protocol"
                );
            }
            return None;
        };
        match (&incoming.method, &incoming.id) {
            (Some(_), Some(_)) => self.asked(incoming),
            (Some(_), None) => {
                self.told(incoming, line.len());
                None
            }
            (None, _) => self.answered(incoming),
        }
    }

    fn answered(&self, incoming: Incoming) -> Option<Vec<u8>> {
        let id = incoming.id.as_ref().and_then(Value::as_u64)?;
        let pending = {
            let mut routes = self.routes();
            let pending = routes.pending.remove(&id);
            if let Some(letterbox) = pending.as_ref().and_then(|pending| pending.letterbox.clone())
                && let Some(thread) = thread_of(&incoming)
                && !letterbox.is_closed()
            {
                routes.threads.insert(thread.to_owned(), letterbox);
            }
            pending
        };
        let abandoned = thread_of(&incoming).map(str::to_owned);
        let answer = match (incoming.result, incoming.error) {
            (_, Some(error)) => Err(CallError::Refused(error)),
            (result, None) => Ok(result.unwrap_or_default()),
        };
        let delivered = pending.is_some_and(|pending| pending.answer.send(answer).is_ok());
        // A thread that nobody waits for would stay in the worker's memory.
        let thread = abandoned.filter(|_| !delivered)?;
        self.routes().threads.remove(&thread);
        Some(self.unsubscribe(&thread))
    }

    fn told(&self, incoming: Incoming, bytes: usize) {
        let Some(letterbox) = incoming.thread().and_then(|thread| self.letterbox(thread)) else { return };
        let (method, params) = (incoming.method.unwrap_or_default(), incoming.params);
        let mail = match Delta::of(&method, &params) {
            Some(delta) => Mail::Delta(delta),
            // Of something that nobody reads.
            None if method.ends_with("elta") => return,
            None => Mail::Notification { method, params },
        };
        letterbox.put(mail, bytes);
    }

    fn letterbox(&self, thread: &str) -> Option<Letterbox> {
        self.routes().threads.get(thread).cloned()
    }

    /// Passes on what is left of a large line. False if nobody can be told that it is missing.
    fn put(&self, line: Large, limit: usize) -> bool {
        let (thread, mail) = match line {
            Large::Echo => return true,
            Large::Output { thread, params } => (thread, Mail::raw_item(params)),
            Large::Needed { thread: Some(thread) } => (thread, Mail::TooLong { limit }),
            Large::Needed { thread: None } => return false,
        };
        if let Some(letterbox) = self.letterbox(&thread) {
            letterbox.put(mail, 256);
        }
        true
    }

    fn asked(&self, incoming: Incoming) -> Option<Vec<u8>> {
        let id = incoming.id.clone().unwrap_or_default();
        match incoming.method.as_deref().unwrap_or_default() {
            "item/tool/call" => {
                let letterbox = incoming.thread().and_then(|thread| self.letterbox(thread));
                let call = serde_json::from_value::<wire::ToolCall>(incoming.params);
                let call = call.map(|call| Mail::ToolCall(wire::ToolCall { request: id.clone(), ..call }));
                let taken = letterbox.zip(call.ok()).is_some_and(|(letterbox, call)| letterbox.put(call, 0));
                (!taken).then(|| wire::refusal(&id))
            }
            // Nobody is there to be asked.
            "item/commandExecution/requestApproval" | "item/fileChange/requestApproval" => {
                Some(wire::answer(&id, &json!({"decision": "decline"})))
            }
            "applyPatchApproval" | "execCommandApproval" => {
                Some(wire::answer(&id, &json!({"decision": "denied"})))
            }
            "mcpServer/elicitation/request" => Some(wire::answer(&id, &json!({"action": "decline"}))),
            method => {
                tracing::debug!(method, "a request of the app-server is refused");
                Some(wire::refusal(&id))
            }
        }
    }

    fn unsubscribe(&self, thread: &str) -> Vec<u8> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        wire::call(id, "thread/unsubscribe", &json!({"threadId": thread}))
    }
}

/// The thread that an answer tells of.
fn thread_of(incoming: &Incoming) -> Option<&str> {
    thread_in(incoming.result.as_ref()?)
}

fn thread_in(answer: &Value) -> Option<&str> {
    answer.get("thread")?.get("id")?.as_str()
}

/// A call under way. One that is given up must not wait in the table for ever, nor leave a thread that nobody has.
struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
    answered: oneshot::Receiver<Result<Value, CallError>>,
    starts_thread: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.starts_thread {
            self.shared.routes().pending.remove(&self.id);
            return;
        }
        // An answer that is still to come finds nobody and lets its thread go. One that came just now is here.
        self.answered.close();
        let Ok(Ok(answer)) = self.answered.try_recv() else { return };
        if let Some(thread) = thread_in(&answer) {
            self.shared.routes().threads.remove(thread);
            drop(self.shared.outbox.try_send(self.shared.unsubscribe(thread)));
        }
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
