//! What to do with each line of an app-server: the calls that wait, the threads and their queues.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    delta::Delta,
    large_lines::{self, LargeLine},
    protocol::{self, Incoming, RpcError},
    thread_queue::{ThreadMessage, ThreadSender},
};

#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) outbox: mpsc::Sender<Vec<u8>>,
    pub(crate) calls: Semaphore,
    pub(crate) next_id: AtomicU64,
    pub(crate) routes: Mutex<DispatchState>,
    pub(crate) gone: CancellationToken,
    /// Lines read so far: whoever speaks is alive.
    pub(crate) heard: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct DispatchState {
    pub(crate) pending: HashMap<u64, Pending>,
    pub(crate) threads: HashMap<String, ThreadSender>,
    /// Why the worker is gone, once it is.
    pub(crate) last_words: Option<Arc<str>>,
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) answer: oneshot::Sender<Result<Value, CallError>>,
    /// With `thread/start`: who reads what is said of the thread that it makes.
    pub(crate) letterbox: Option<ThreadSender>,
}

/// Why a call has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
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

impl Dispatcher {
    pub(crate) fn routes(&self) -> std::sync::MutexGuard<'_, DispatchState> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn close(&self, why: &str) {
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
            letterbox.put(ThreadMessage::Gone(Arc::clone(&why)), 0);
        }
    }

    /// What a line means, and what is to be sent because of it.
    pub(crate) fn take(&self, line: &[u8]) -> Option<Vec<u8>> {
        if let known @ (LargeLine::Echo | LargeLine::Output { .. }) = large_lines::whole(line) {
            self.put(known, 0);
            return None;
        }
        if let Some((thread, delta)) = Delta::of_line(line) {
            if let Some(letterbox) = self.letterbox(&thread) {
                letterbox.put(ThreadMessage::Delta(delta), line.len());
            }
            return None;
        }
        let Some(incoming) = protocol::read(line) else {
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

    pub(crate) fn answered(&self, incoming: Incoming) -> Option<Vec<u8>> {
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

    pub(crate) fn told(&self, incoming: Incoming, bytes: usize) {
        let Some(letterbox) = incoming.thread().and_then(|thread| self.letterbox(thread)) else { return };
        let (method, params) = (incoming.method.unwrap_or_default(), incoming.params);
        let mail = match Delta::of(&method, &params) {
            Some(delta) => ThreadMessage::Delta(delta),
            // Of something that nobody reads.
            None if method.ends_with("elta") => return,
            None => ThreadMessage::Notification { method, params },
        };
        letterbox.put(mail, bytes);
    }

    pub(crate) fn letterbox(&self, thread: &str) -> Option<ThreadSender> {
        self.routes().threads.get(thread).cloned()
    }

    /// Passes on what is left of a large line. False if nobody can be told that it is missing.
    pub(crate) fn put(&self, line: LargeLine, limit: usize) -> bool {
        let (thread, mail) = match line {
            LargeLine::Echo => return true,
            LargeLine::Output { thread, params } => (thread, ThreadMessage::raw_item(params)),
            LargeLine::Needed { thread: Some(thread) } => (thread, ThreadMessage::TooLong { limit }),
            LargeLine::Needed { thread: None } => return false,
        };
        if let Some(letterbox) = self.letterbox(&thread) {
            letterbox.put(mail, 256);
        }
        true
    }

    pub(crate) fn asked(&self, incoming: Incoming) -> Option<Vec<u8>> {
        let id = incoming.id.clone().unwrap_or_default();
        match incoming.method.as_deref().unwrap_or_default() {
            "item/tool/call" => {
                let letterbox = incoming.thread().and_then(|thread| self.letterbox(thread));
                let call = serde_json::from_value::<protocol::ToolCall>(incoming.params);
                let call = call
                    .map(|call| ThreadMessage::ToolCall(protocol::ToolCall { request: id.clone(), ..call }));
                let taken = letterbox.zip(call.ok()).is_some_and(|(letterbox, call)| letterbox.put(call, 0));
                (!taken).then(|| protocol::refusal(&id))
            }
            // Nobody is there to be asked.
            "item/commandExecution/requestApproval" | "item/fileChange/requestApproval" => {
                Some(protocol::answer(&id, &json!({"decision": "decline"})))
            }
            "applyPatchApproval" | "execCommandApproval" => {
                Some(protocol::answer(&id, &json!({"decision": "denied"})))
            }
            "mcpServer/elicitation/request" => Some(protocol::answer(&id, &json!({"action": "decline"}))),
            method => {
                tracing::debug!(method, "a request of the app-server is refused");
                Some(protocol::refusal(&id))
            }
        }
    }

    pub(crate) fn unsubscribe(&self, thread: &str) -> Vec<u8> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        protocol::call(id, "thread/unsubscribe", &json!({"threadId": thread}))
    }
}

/// The thread that an answer tells of.
fn thread_of(incoming: &Incoming) -> Option<&str> {
    thread_in(incoming.result.as_ref()?)
}

pub(crate) fn thread_in(answer: &Value) -> Option<&str> {
    answer.get("thread")?.get("id")?.as_str()
}
