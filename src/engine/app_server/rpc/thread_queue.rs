//! The queue of messages about one thread, from the connection to the turn that reads them. The queue is bounded in
//! bytes and joins buffered deltas of the same text. A full queue fails its turn, because otherwise the memory would
//! grow or other turns would wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    delta::Delta,
    dispatch::CloseReason,
    protocol::{Notification, ToolCall},
};

/// Maximum number of buffered bytes of one thread.
pub(crate) const MAX_BUFFERED_BYTES: usize = 16 << 20;

/// A message about one thread.
#[derive(Debug)]
pub(crate) enum ThreadMessage {
    /// A piece of text.
    Delta(Delta),
    /// Any other notification.
    Notification(Notification),
    /// A request for the result of a client tool. The turn responds or ends, because the dispatcher never responds.
    ToolCall(ToolCall),
    /// The connection is closed.
    Closed(CloseReason),
    /// The queue exceeded its bound and was emptied.
    Overflow,
    /// A line was longer than the limit and was skipped.
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

/// The receiving half of a thread queue, which the turn owns.
#[derive(Debug)]
pub(crate) struct ThreadReceiver(Arc<Shared>);

/// The sending half of a thread queue.
#[derive(Debug, Clone)]
pub(crate) struct ThreadSender(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Notify,
    overflowed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(usize, ThreadMessage)>,
    bytes: usize,
    closed: bool,
    overflowed: bool,
    /// A message was lost by an overflow or a skipped line.
    lossy: bool,
}

/// Creates a queue.
pub(crate) fn pair() -> (ThreadSender, ThreadReceiver) {
    let shared = Arc::new(Shared::default());
    (ThreadSender(Arc::clone(&shared)), ThreadReceiver(shared))
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThreadSender {
    /// Appends a message that counts as `bytes` towards the bound. Returns `false` if the receiver is dropped.
    pub(crate) fn send(&self, message: ThreadMessage, bytes: usize) -> bool {
        let mut queue = self.0.queue();
        if queue.closed {
            return false;
        }
        if !queue.overflowed {
            queue.push(message, bytes);
            if queue.overflowed {
                self.0.overflowed.notify_one();
            }
        }
        drop(queue);
        self.0.arrived.notify_one();
        true
    }

    /// Returns whether the receiver is dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.queue().closed
    }
}

impl Queue {
    fn push(&mut self, mut message: ThreadMessage, bytes: usize) {
        self.lossy |= matches!(message, ThreadMessage::TooLong { .. });
        if let ThreadMessage::Delta(delta) = message {
            let Err(other) = self.join(delta) else { return };
            message = ThreadMessage::Delta(other);
        }
        if self.bytes + bytes > MAX_BUFFERED_BYTES {
            (self.overflowed, self.lossy) = (true, true);
            self.messages.clear();
            self.messages.push_back((0, ThreadMessage::Overflow));
            return;
        }
        self.bytes += bytes;
        self.messages.push_back((bytes, message));
    }

    /// Appends a delta to the last message if both belong to the same text. Returns the delta otherwise.
    fn join(&mut self, delta: Delta) -> Result<(), Delta> {
        let added = delta.text.len();
        match self.messages.back_mut() {
            Some((weight, ThreadMessage::Delta(last))) if self.bytes + added <= MAX_BUFFERED_BYTES => {
                last.join(delta)?;
                *weight += added;
                self.bytes += added;
                Ok(())
            }
            _ => Err(delta),
        }
    }
}

impl ThreadReceiver {
    /// Waits for the next message. Cancel safe.
    pub(crate) async fn recv(&mut self) -> ThreadMessage {
        loop {
            if let Some(message) = self.try_recv() {
                return message;
            }
            self.0.arrived.notified().await;
        }
    }

    /// Completes when the queue exceeds its bound, once per overflow. Used by a turn whose event channel is full.
    pub(crate) async fn overflow(&self) {
        self.0.overflowed.notified().await;
    }

    /// Returns whether a message was lost by an overflow or a skipped line.
    pub(crate) fn is_lossy(&self) -> bool {
        self.0.queue().lossy
    }

    fn try_recv(&mut self) -> Option<ThreadMessage> {
        let mut queue = self.0.queue();
        let (bytes, message) = queue.messages.pop_front()?;
        if queue.messages.is_empty() {
            // Most turns wait for the model most of the time and should hold no buffer during the wait.
            queue.messages = VecDeque::new();
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        if matches!(message, ThreadMessage::Overflow) {
            // A turn that failed because of the overflow still waits for its `turn/completed`.
            (queue.overflowed, queue.bytes) = (false, 0);
        }
        Some(message)
    }
}

impl Drop for ThreadReceiver {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        queue.messages.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(item: &str, delta: &str) -> ThreadMessage {
        let params = json!({"itemId": item, "delta": delta});
        ThreadMessage::Delta(Delta::from_notification("item/agentMessage/delta", &params).unwrap())
    }

    async fn next_delta(receiver: &mut ThreadReceiver) -> String {
        let ThreadMessage::Delta(delta) = receiver.recv().await else { panic!("no delta") };
        delta.text
    }

    #[tokio::test]
    async fn send_delta_while_deltas_wait_joins_them_and_keeps_the_order() {
        let (sender, mut receiver) = pair();
        for message in [
            text("a", "1"),
            text("a", "2"),
            text("b", "3"),
            ThreadMessage::Closed(CloseReason::Exited),
            text("b", "4"),
        ] {
            assert!(sender.send(message, 50));
        }
        assert_eq!(next_delta(&mut receiver).await, "12");
        assert_eq!(next_delta(&mut receiver).await, "3");
        assert!(matches!(receiver.recv().await, ThreadMessage::Closed(_)));
        assert_eq!(next_delta(&mut receiver).await, "4");
        drop(receiver);
        assert!(!sender.send(text("a", "5"), 50));
    }

    #[tokio::test]
    async fn send_beyond_the_bound_yields_one_overflow() {
        let (sender, mut receiver) = pair();
        let item = || ThreadMessage::Notification(Notification::parse("item/completed", json!({})));
        for _ in 0..3 {
            sender.send(item(), MAX_BUFFERED_BYTES / 2);
        }
        assert!(matches!(receiver.recv().await, ThreadMessage::Overflow));
        receiver.overflow().await;
        assert!(sender.send(item(), MAX_BUFFERED_BYTES), "the emptied queue accepts messages");
        assert!(matches!(receiver.recv().await, ThreadMessage::Notification(_)));
    }

    #[tokio::test]
    async fn send_delta_that_is_joined_counts_toward_the_bound() {
        let (sender, mut receiver) = pair();
        let megabyte = "x".repeat(1 << 20);
        for _ in 0..20 {
            sender.send(text("a", &megabyte), megabyte.len());
        }
        receiver.overflow().await;
        assert!(matches!(receiver.recv().await, ThreadMessage::Overflow));
    }
}
