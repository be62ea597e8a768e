//! Routes the lines of an app-server. Results go to pending calls, and messages go to the queues of their threads.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    client::MAX_CALLS_IN_FLIGHT,
    delta::Delta,
    large_lines::{self, LargeLine},
    protocol::{
        self, ApprovalResult, ElicitationResult, Incoming, Notification, RequestId, RpcError, ServerRequest,
        UnsubscribeThread,
    },
    thread_queue::{ThreadMessage, ThreadSender},
};
use crate::engine::RateLimits;

/// Weight in bytes of a message that stands for a large line.
const LARGE_LINE_WEIGHT: usize = 256;

/// The shared state of a connection. The task that owns the pipes updates the state, and clients wait for changes.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) outbox: mpsc::Sender<Vec<u8>>,
    pub(super) call_permits: Semaphore,
    pub(super) closed: CancellationToken,
    next_call_id: AtomicU64,
    state: Mutex<DispatchState>,
    lines_received: AtomicU64,
    rate_limits: Arc<RateLimits>,
}

/// The part of a [`Dispatcher`] behind the lock.
#[derive(Debug, Default)]
pub(super) struct DispatchState {
    pub(super) pending: HashMap<u64, PendingCall>,
    pub(super) threads: HashMap<String, ThreadSender>,
    /// Set once the connection is closed.
    pub(super) close_reason: Option<CloseReason>,
}

/// A call whose result has not arrived.
#[derive(Debug)]
pub(super) struct PendingCall {
    pub(super) result: oneshot::Sender<Result<Value, CallError>>,
    /// The queue of the thread that a `thread/start` creates. `None` for other calls.
    pub(super) queue: Option<ThreadSender>,
}

/// The reason why a call has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The app-server refused the call.
    #[error("{}", .0.message)]
    Refused(RpcError),
    /// No result came in time. The worker should be replaced.
    #[error("the app-server did not answer {0} in time")]
    TimedOut(&'static str),
    /// The connection is closed.
    #[error("the app-server is unavailable: {0}")]
    Closed(CloseReason),
}

/// The reason why a connection is closed. The texts follow the name of the process.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CloseReason {
    /// The standard output of the process ended.
    #[error("it exited")]
    Exited,
    /// [`RpcClient::close`] closed the connection, because no answer came in time.
    ///
    /// [`RpcClient::close`]: super::client::RpcClient::close
    #[error("it did not answer")]
    NoAnswer,
    /// The task that owns the pipes ended without a reason of its own: it panicked, or the runtime shuts down.
    #[error("the server's task for it ended")]
    TaskEnded,
    /// A write to the standard input of the process failed.
    #[error("writing to it failed: {0}")]
    Write(Arc<io::Error>),
    /// A read from the standard output of the process failed.
    #[error("reading from it failed: {0}")]
    Read(Arc<io::Error>),
    /// The outbox was full when the app-server sent a request.
    #[error("it sends requests faster than it reads responses")]
    OutboxFull,
    /// A line had more bytes than the limit, and its turn is unknown.
    #[error("it printed a line of more than {limit} bytes (CODEX_SUBPROCESS_STREAM_LIMIT)")]
    LineTooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

impl Dispatcher {
    pub(super) fn new(outbox: mpsc::Sender<Vec<u8>>, rate_limits: Arc<RateLimits>) -> Self {
        Self {
            outbox,
            call_permits: Semaphore::new(MAX_CALLS_IN_FLIGHT),
            closed: CancellationToken::new(),
            next_call_id: AtomicU64::new(1),
            state: Mutex::default(),
            lines_received: AtomicU64::new(0),
            rate_limits,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, DispatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_call_id(&self) -> u64 {
        self.next_call_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn count_line(&self) {
        self.lines_received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lines_received(&self) -> u64 {
        self.lines_received.load(Ordering::Relaxed)
    }

    /// Fails all pending calls and closes all threads.
    pub(super) fn close(&self, reason: &CloseReason) {
        let (pending, threads) = {
            let mut state = self.state();
            state.close_reason = Some(reason.clone());
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.threads))
        };
        self.call_permits.close();
        self.closed.cancel();
        for (_, call) in pending {
            drop(call.result.send(Err(CallError::Closed(reason.clone()))));
        }
        for (_, queue) in threads {
            queue.send(ThreadMessage::Closed(reason.clone()), 0);
        }
    }

    /// Routes a line, and returns the line to send in response.
    pub(super) fn on_line(&self, line: &[u8]) -> Option<Vec<u8>> {
        if let large @ (LargeLine::Echo | LargeLine::OmittedOutput { .. }) = large_lines::classify_line(line)
        {
            self.on_large_line(large, 0);
            return None;
        }
        if let Some((thread_id, delta)) = Delta::from_line(line) {
            if let Some(queue) = self.queue(&thread_id) {
                queue.send(ThreadMessage::Delta(delta), line.len());
            }
            return None;
        }
        let Some(incoming) = Incoming::parse(line) else {
            if !line.trim_ascii().is_empty() {
                tracing::warn!(bytes = line.len(), "app-server printed an unknown line");
            }
            return None;
        };
        match (&incoming.method, &incoming.id) {
            (Some(_), Some(_)) => self.on_request(incoming),
            (Some(_), None) => {
                self.on_notification(incoming, line.len());
                None
            }
            (None, _) => self.on_response(incoming),
        }
    }

    fn on_response(&self, incoming: Incoming) -> Option<Vec<u8>> {
        let id = incoming.id.as_ref().and_then(Value::as_u64)?;
        let thread_id = incoming.result.as_ref().and_then(protocol::started_thread_id);
        let pending = {
            let mut state = self.state();
            let pending = state.pending.remove(&id);
            if let Some(queue) = pending.as_ref().and_then(|call| call.queue.clone())
                && let Some(thread_id) = &thread_id
                && !queue.is_closed()
            {
                state.threads.insert(thread_id.clone(), queue);
            }
            pending
        };
        let result = match (incoming.result, incoming.error) {
            (_, Some(error)) => Err(CallError::Refused(error)),
            (result, None) => Ok(result.unwrap_or_default()),
        };
        let delivered = pending.is_some_and(|call| call.result.send(result).is_ok());
        // A thread of an abandoned call would stay in the memory of the worker.
        let thread_id = thread_id.filter(|_| !delivered)?;
        self.state().threads.remove(&thread_id);
        Some(self.unsubscribe_line(&thread_id))
    }

    fn on_notification(&self, incoming: Incoming, bytes: usize) {
        if incoming.method.as_deref() == Some(protocol::RATE_LIMITS_UPDATED) {
            self.rate_limits.update(protocol::limits_reading(incoming.params), SystemTime::now());
            return;
        }
        let Some(queue) = incoming.thread_id().and_then(|thread_id| self.queue(thread_id)) else { return };
        let (method, params) = (incoming.method.unwrap_or_default(), incoming.params);
        let message = match Delta::from_notification(&method, &params) {
            Some(delta) => ThreadMessage::Delta(delta),
            // No turn reads deltas of other kinds, such as `item/plan/delta`.
            None if method.ends_with("elta") => return,
            None => ThreadMessage::Notification(Notification::parse(&method, params)),
        };
        queue.send(message, bytes);
    }

    fn on_request(&self, incoming: Incoming) -> Option<Vec<u8>> {
        let queue = incoming.thread_id().and_then(|thread_id| self.queue(thread_id));
        let id = RequestId(incoming.id.unwrap_or_default());
        let method = incoming.method.unwrap_or_default();
        match ServerRequest::parse(id.clone(), &method, incoming.params) {
            ServerRequest::ToolCall(call) => {
                let message = call.map(ThreadMessage::ToolCall);
                let sent = queue.zip(message).is_some_and(|(queue, message)| queue.send(message, 0));
                (!sent).then(|| protocol::refusal_line(&id))
            }
            // No user can approve anything or answer a question.
            ServerRequest::Approval => Some(protocol::result_line(&id, &ApprovalResult::DECLINE)),
            ServerRequest::LegacyApproval => Some(protocol::result_line(&id, &ApprovalResult::DENIED)),
            ServerRequest::Elicitation => Some(protocol::result_line(&id, &ElicitationResult::DECLINE)),
            ServerRequest::Unknown => {
                tracing::debug!(method, "unsupported app-server request refused");
                Some(protocol::refusal_line(&id))
            }
        }
    }

    /// Queues the message that stands for a large line. Returns `false` if the line may belong to any thread.
    pub(super) fn on_large_line(&self, line: LargeLine, limit: usize) -> bool {
        let (thread_id, message) = match line {
            LargeLine::Echo => return true,
            LargeLine::OmittedOutput { thread, item } => {
                (thread, ThreadMessage::Notification(Notification::RawResponseItemCompleted(item)))
            }
            LargeLine::Needed { thread: Some(thread) } => (thread, ThreadMessage::TooLong { limit }),
            LargeLine::Needed { thread: None } => return false,
        };
        if let Some(queue) = self.queue(&thread_id) {
            queue.send(message, LARGE_LINE_WEIGHT);
        }
        true
    }

    fn queue(&self, thread_id: &str) -> Option<ThreadSender> {
        self.state().threads.get(thread_id).cloned()
    }

    pub(super) fn unsubscribe_line(&self, thread_id: &str) -> Vec<u8> {
        protocol::call_line(self.next_call_id(), &UnsubscribeThread { thread_id })
    }
}
