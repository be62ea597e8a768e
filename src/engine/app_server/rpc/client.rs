//! JSON-RPC with one app-server over its stdio. One task owns both pipes; every call has a time limit; every request
//! of theirs is answered, tool calls excepted, which go to their turn. Knows threads as addresses, not what they mean.

use std::{
    sync::{
        Arc, Mutex,
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
    dispatch::{CallError, Dispatcher, Pending, thread_in},
    io, protocol,
    thread_queue::ThreadSender,
};
use crate::engine::process::lines::LineReader;

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

/// Our end of the conversation; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct RpcClient(Arc<Dispatcher>);

impl RpcClient {
    /// Starts the conversation. Its task lives in `tasks` and ends when a pipe does.
    pub(crate) fn start(
        stdin: impl AsyncWrite + Unpin + Send + 'static,
        stdout: impl AsyncRead + Unpin + Send + 'static,
        line_limit: usize,
        tasks: &TaskTracker,
    ) -> Self {
        let (outbox, lines) = mpsc::channel(OUTBOX);
        let peer = Self(Arc::new(Dispatcher {
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
                why = io::write(stdin, lines) => why,
                why = io::read(LineReader::new(stdout, line_limit), &shared) => why,
                () = shared.gone.cancelled() => "it no longer answered".to_owned(),
            };
            shared.close(&why);
        });
        peer
    }

    /// Makes a call and waits for its answer, `limit` at most from when it is its turn.
    pub(crate) async fn call(
        &self,
        method: &'static str,
        params: &Value,
        limit: Duration,
    ) -> Result<Value, CallError> {
        self.call_for(method, params, limit, None).await
    }

    /// Makes a `thread/start`; what is said of the new thread goes to `letterbox` from its first word.
    pub(crate) async fn call_for(
        &self,
        method: &'static str,
        params: &Value,
        limit: Duration,
        letterbox: Option<ThreadSender>,
    ) -> Result<Value, CallError> {
        let mut pauses = BACKOFF.into_iter();
        loop {
            // The time that it waits for its turn is not the worker's: every call before it has a limit of its own.
            let turn = self.0.calls.acquire().await.map_err(|_| CallError::Gone(self.last_words()))?;
            let asked = timeout(limit, self.ask(method, params, letterbox.clone())).await;
            let answer = asked.map_err(|_| CallError::TimedOut(method))?;
            drop(turn);
            match (answer, pauses.next()) {
                (Err(CallError::Refused(error)), Some(pause)) if error.code == protocol::OVERLOADED => {
                    sleep(pause).await;
                }
                (answer, _) => return answer,
            }
        }
    }

    /// Asks for a sign of life, past the calls that wait for their turn: they may be what hangs.
    pub(crate) async fn pulse(&self) -> Result<(), CallError> {
        self.ask("thread/loaded/list", &json!({}), None).await.map(drop)
    }

    async fn ask(
        &self,
        method: &'static str,
        params: &Value,
        letterbox: Option<ThreadSender>,
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
        let mut waiting = PendingCallGuard { shared: &self.0, id, answered, starts_thread };
        self.0.outbox.send(protocol::call(id, method, params)).await.map_err(|_| gone())?;
        (&mut waiting.answered).await.map_err(|_| gone())?
    }

    /// Sends a notification.
    pub(crate) async fn notify(&self, method: &str) {
        // If the worker is gone, whoever calls next is told.
        drop(self.0.outbox.send(protocol::notification(method)).await);
    }

    /// Answers a request of theirs.
    pub(crate) async fn answer(&self, id: &Value, result: &Value) {
        drop(self.0.outbox.send(protocol::answer(id, result)).await);
    }

    /// Nobody reads this thread any more.
    pub(crate) fn forget_thread(&self, thread: &str) {
        self.0.routes().threads.remove(thread);
    }

    /// Ends the conversation.
    pub(crate) fn hang_up(&self) {
        self.0.gone.cancel();
    }

    /// Waits for its end.
    pub(crate) async fn gone(&self) {
        self.0.gone.cancelled().await;
    }

    /// How many lines it has said; more of them are a sign of life.
    pub(crate) fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.gone.is_cancelled()
    }

    fn last_words(&self) -> Arc<str> {
        self.0.routes().last_words.clone().unwrap_or_else(|| "it ended".into())
    }
}

/// A call under way. One that is given up must not wait in the table for ever, nor leave a thread that nobody has.
struct PendingCallGuard<'a> {
    shared: &'a Dispatcher,
    id: u64,
    answered: oneshot::Receiver<Result<Value, CallError>>,
    starts_thread: bool,
}

impl Drop for PendingCallGuard<'_> {
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
mod tests;
