//! JSON-RPC with one app-server over its stdio. One task owns both pipes. Every call has a time limit, and every
//! request of the app-server gets a response, except tool calls, which go to their turn.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    dispatch::{CallError, CloseReason, Dispatcher, PendingCall},
    io,
    protocol::{self, ForkThread, ListLoadedThreads, Method, RequestId, StartThread, ThreadStarted},
    thread_queue::ThreadSender,
};
use crate::{
    engine::{RateLimits, process::lines::LineReader},
    task::catch_panic,
};

/// Maximum number of calls in flight on one worker. An app-server refuses some calls beyond this number.
pub(super) const MAX_CALLS_IN_FLIGHT: usize = 64;

/// Capacity of the queue of lines to the worker.
const OUTBOX_LINES: usize = 256;

/// Delays before the retries of a call that the worker refused as overloaded.
const OVERLOAD_BACKOFF: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(180),
    Duration::from_millis(540),
];

/// A handle to the connection with an app-server. Clones share the connection.
#[derive(Debug, Clone)]
pub(crate) struct RpcClient(Arc<Dispatcher>);

impl RpcClient {
    /// Starts the task that owns both pipes and updates `rate_limits`. The task runs in `tasks` until a pipe breaks or the client is closed.
    pub(crate) fn start(
        stdin: impl AsyncWrite + Unpin + Send + 'static,
        stdout: impl AsyncRead + Unpin + Send + 'static,
        line_limit: usize,
        rate_limits: Arc<RateLimits>,
        tasks: &TaskTracker,
    ) -> Self {
        let (outbox, lines) = mpsc::channel(OUTBOX_LINES);
        let dispatcher = Arc::new(Dispatcher::new(outbox, rate_limits));
        let shared = Arc::clone(&dispatcher);
        tasks.spawn(async move {
            // A panic of the task also closes the connection, otherwise the worker would seem to be idle.
            let _closed = CloseOnDrop(Arc::clone(&shared));
            let reason = catch_panic("worker pipes", async {
                tokio::select! {
                    reason = io::write(stdin, lines) => reason,
                    reason = io::read(LineReader::new(stdout, line_limit), &shared) => reason,
                    () = shared.closed.cancelled() => CloseReason::NoAnswer,
                }
            });
            if let Some(reason) = reason.await {
                shared.close(&reason);
            }
        });
        Self(dispatcher)
    }

    /// Sends a call and waits for the result. `limit` applies to each attempt and excludes the wait for a permit.
    pub(crate) async fn call<M: Method>(&self, params: &M, limit: Duration) -> Result<M::Result, CallError> {
        self.call_with_retries(params, limit, None).await
    }

    /// Sends a `thread/start`. All messages about the new thread go to `queue`, including the first message.
    pub(crate) async fn start_thread(
        &self,
        params: &StartThread<'_>,
        limit: Duration,
        queue: ThreadSender,
    ) -> Result<ThreadStarted, CallError> {
        self.call_with_retries(params, limit, Some(queue)).await
    }

    /// Sends a `thread/fork`. Otherwise like [`RpcClient::start_thread`].
    pub(crate) async fn fork_thread(
        &self,
        params: &ForkThread<'_>,
        limit: Duration,
        queue: ThreadSender,
    ) -> Result<ThreadStarted, CallError> {
        self.call_with_retries(params, limit, Some(queue)).await
    }

    async fn call_with_retries<M: Method>(
        &self,
        params: &M,
        limit: Duration,
        queue: Option<ThreadSender>,
    ) -> Result<M::Result, CallError> {
        let mut delays = OVERLOAD_BACKOFF.into_iter();
        loop {
            // The wait for a permit has no limit of its own, because every call that holds a permit has a limit.
            let permit = self.0.call_permits.acquire().await.map_err(|_| self.closed_error())?;
            let attempt = timeout(limit, self.call_once(params, queue.clone())).await;
            let result = attempt.map_err(|_| CallError::TimedOut(M::NAME))?;
            drop(permit);
            match (result, delays.next()) {
                (Err(CallError::Refused(error)), Some(delay)) if error.is_overloaded() => sleep(delay).await,
                (result, _) => {
                    return result.map(|result| serde_json::from_value(result).unwrap_or_default());
                }
            }
        }
    }

    /// Sends the cheapest call and waits for the result, without a limit. Pings do not wait behind other calls, because
    /// the other calls may hang.
    pub(crate) async fn ping(&self) -> Result<(), CallError> {
        self.call_once(&ListLoadedThreads {}, None).await.map(drop)
    }

    async fn call_once<M: Method>(
        &self,
        params: &M,
        queue: Option<ThreadSender>,
    ) -> Result<Value, CallError> {
        let id = self.0.next_call_id();
        let (sender, result) = oneshot::channel();
        let starts_thread = queue.is_some();
        {
            let mut state = self.0.state();
            if let Some(reason) = &state.close_reason {
                return Err(CallError::Closed(reason.clone()));
            }
            state.pending.insert(id, PendingCall { result: sender, queue });
        }
        let mut guard = PendingCallGuard { dispatcher: &self.0, id, result, starts_thread };
        let line = protocol::call_line(id, params);
        self.0.outbox.send(line).await.map_err(|_| self.closed_error())?;
        (&mut guard.result).await.map_err(|_| self.closed_error())?
    }

    /// Sends a notification. Does nothing if the connection is closed, because the next call reports that.
    pub(crate) async fn notify(&self, method: &'static str) {
        drop(self.0.outbox.send(protocol::notification_line(method)).await);
    }

    /// Sends the result of a request of the app-server. Does nothing if the connection is closed.
    pub(crate) async fn respond(&self, request: &RequestId, result: &impl Serialize) {
        drop(self.0.outbox.send(protocol::result_line(request, result)).await);
    }

    /// Drops all further messages about a thread.
    pub(crate) fn forget_thread(&self, thread_id: &str) {
        self.0.state().threads.remove(thread_id);
    }

    /// Closes the connection. Pending calls fail, and the threads get [`ThreadMessage::Closed`].
    ///
    /// [`ThreadMessage::Closed`]: super::thread_queue::ThreadMessage::Closed
    pub(crate) fn close(&self) {
        self.0.closed.cancel();
    }

    /// Completes when the connection is closed. Returns the reason.
    pub(crate) async fn closed(&self) -> CloseReason {
        self.0.closed.cancelled().await;
        // Without a reason, `close` was called, and the task of the pipes has not noticed yet.
        self.0.state().close_reason.clone().unwrap_or(CloseReason::NoAnswer)
    }

    /// Returns whether the connection is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    /// Returns the number of lines received so far. A growing number shows that the app-server makes progress.
    pub(crate) fn lines_received(&self) -> u64 {
        self.0.lines_received()
    }

    fn closed_error(&self) -> CallError {
        CallError::Closed(self.0.state().close_reason.clone().unwrap_or(CloseReason::Exited))
    }
}

/// Closes a connection when the task that owns its pipes ends, for any reason.
struct CloseOnDrop(Arc<Dispatcher>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if !self.0.closed.is_cancelled() || self.0.state().close_reason.is_none() {
            self.0.close(&CloseReason::TaskEnded);
        }
    }
}

/// A guard for a call in flight. On drop, the guard removes the pending entry, and unsubscribes from a thread whose
/// `thread/start` was abandoned.
struct PendingCallGuard<'a> {
    dispatcher: &'a Dispatcher,
    id: u64,
    result: oneshot::Receiver<Result<Value, CallError>>,
    starts_thread: bool,
}

impl Drop for PendingCallGuard<'_> {
    fn drop(&mut self) {
        if !self.starts_thread {
            self.dispatcher.state().pending.remove(&self.id);
            return;
        }
        // The entry stays: `on_response` unsubscribes when the result of an abandoned call arrives later. A result that
        // arrived before the drop is still in the channel.
        self.result.close();
        let Ok(Ok(result)) = self.result.try_recv() else { return };
        if let Some(thread_id) = protocol::started_thread_id(&result) {
            self.dispatcher.state().threads.remove(&thread_id);
            drop(self.dispatcher.outbox.try_send(self.dispatcher.unsubscribe_line(&thread_id)));
        }
    }
}

#[cfg(test)]
mod tests;
