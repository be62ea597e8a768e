//! What an app-server says of one thread, on its way to the turn that reads it. Bounded in bytes: text of a slow
//! reader is joined, and beyond the bound the turn fails instead of the worker's memory growing or its neighbours
//! waiting.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::sync::Notify;

use super::{delta::Delta, protocol};

/// Most bytes of one thread that wait to be read.
const LIMIT: usize = 16 << 20;

/// One thing said of a thread.
#[derive(Debug)]
pub(crate) enum ThreadMessage {
    /// A piece of text.
    Delta(Delta),
    /// Any other notification.
    Notification {
        /// Its method.
        method: String,
        /// Its parameters.
        params: Value,
    },
    /// The model calls a tool of the client. Never answered: the turn ends instead.
    ToolCall(protocol::ToolCall),
    /// The worker is gone.
    Gone(Arc<str>),
    /// More was said than could be kept.
    Overflow,
    /// Something was said in a line that was too long to be read.
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

impl ThreadMessage {
    /// A raw item of the model that was looked at already.
    pub(crate) fn raw_item(params: Value) -> Self {
        Self::Notification { method: "rawResponseItem/completed".to_owned(), params }
    }
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct ThreadReceiver(Arc<Dispatcher>);

/// The worker's end.
#[derive(Debug, Clone)]
pub(crate) struct ThreadSender(Arc<Dispatcher>);

#[derive(Debug, Default)]
struct Dispatcher {
    queue: Mutex<Queue>,
    arrived: Notify,
    overflowed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    mail: VecDeque<(usize, ThreadMessage)>,
    bytes: usize,
    closed: bool,
    overflowed: bool,
    /// It has overflowed before, or was told that something is missing.
    lossy: bool,
}

/// A pair of ends.
pub(crate) fn pair() -> (ThreadSender, ThreadReceiver) {
    let shared = Arc::new(Dispatcher::default());
    (ThreadSender(Arc::clone(&shared)), ThreadReceiver(shared))
}

impl ThreadSender {
    /// Puts mail in; false if nobody will read it. `bytes` is what it weighs.
    pub(crate) fn put(&self, mail: ThreadMessage, bytes: usize) -> bool {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return false;
        }
        if !queue.overflowed {
            queue.push(mail, bytes);
            if queue.overflowed {
                self.0.overflowed.notify_one();
            }
        }
        drop(queue);
        self.0.arrived.notify_one();
        true
    }

    /// Whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}

impl Queue {
    fn push(&mut self, mut mail: ThreadMessage, bytes: usize) {
        self.lossy |= matches!(mail, ThreadMessage::TooLong { .. });
        if let ThreadMessage::Delta(delta) = mail {
            let Err(other) = self.join(delta) else { return };
            mail = ThreadMessage::Delta(other);
        }
        if self.bytes + bytes > LIMIT {
            (self.overflowed, self.lossy) = (true, true);
            self.mail.clear();
            self.mail.push_back((0, ThreadMessage::Overflow));
            return;
        }
        self.bytes += bytes;
        self.mail.push_back((bytes, mail));
    }

    /// Appends a delta to the one before it, if both belong to the same text; gives it back if not.
    fn join(&mut self, delta: Delta) -> Result<(), Delta> {
        let added = delta.text.len();
        match self.mail.back_mut() {
            Some((weight, ThreadMessage::Delta(last))) if self.bytes + added <= LIMIT => {
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
    /// The next thing said.
    pub(crate) async fn next(&mut self) -> ThreadMessage {
        loop {
            if let Some(mail) = self.try_next() {
                return mail;
            }
            self.0.arrived.notified().await;
        }
    }

    /// Ends when more was said than could be kept; for a reader that is itself not read. Once for each time.
    pub(crate) async fn overflow(&self) {
        self.0.overflowed.notified().await;
    }

    /// Whether something was said that can no longer be read.
    pub(crate) fn lost_some(&self) -> bool {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).lossy
    }

    fn try_next(&mut self) -> Option<ThreadMessage> {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, mail) = queue.mail.pop_front()?;
        if queue.mail.is_empty() {
            // Most turns say nothing most of the time.
            queue.mail = VecDeque::new();
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        if matches!(mail, ThreadMessage::Overflow) {
            // Who knows of it may still want to hear the end.
            (queue.overflowed, queue.bytes) = (false, 0);
        }
        Some(mail)
    }
}

impl Drop for ThreadReceiver {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        queue.mail.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(item: &str, delta: &str) -> ThreadMessage {
        let params = json!({"itemId": item, "delta": delta});
        ThreadMessage::Delta(Delta::of("item/agentMessage/delta", &params).unwrap())
    }

    async fn next_delta(mailbox: &mut ThreadReceiver) -> String {
        let ThreadMessage::Delta(delta) = mailbox.next().await else { panic!("no delta") };
        delta.text
    }

    #[tokio::test]
    async fn deltas_that_wait_are_joined_and_others_keep_their_order() {
        let (letterbox, mut mailbox) = pair();
        for mail in
            [text("a", "1"), text("a", "2"), text("b", "3"), ThreadMessage::Gone("x".into()), text("b", "4")]
        {
            assert!(letterbox.put(mail, 50));
        }
        assert_eq!(next_delta(&mut mailbox).await, "12");
        assert_eq!(next_delta(&mut mailbox).await, "3");
        assert!(matches!(mailbox.next().await, ThreadMessage::Gone(_)));
        assert_eq!(next_delta(&mut mailbox).await, "4");
        drop(mailbox);
        assert!(!letterbox.put(text("a", "5"), 50));
    }

    #[tokio::test]
    async fn too_much_is_an_overflow_and_nothing_else() {
        let (letterbox, mut mailbox) = pair();
        let item = || ThreadMessage::Notification { method: "item/completed".into(), params: json!({}) };
        for _ in 0..3 {
            letterbox.put(item(), LIMIT / 2);
        }
        assert!(matches!(mailbox.next().await, ThreadMessage::Overflow));
        mailbox.overflow().await;
        assert!(letterbox.put(item(), LIMIT), "there is room again");
        assert!(matches!(mailbox.next().await, ThreadMessage::Notification { .. }));
    }

    #[tokio::test]
    async fn text_that_is_joined_is_bounded_too() {
        let (letterbox, mut mailbox) = pair();
        let megabyte = "x".repeat(1 << 20);
        for _ in 0..20 {
            letterbox.put(text("a", &megabyte), megabyte.len());
        }
        mailbox.overflow().await;
        assert!(matches!(mailbox.next().await, ThreadMessage::Overflow));
    }
}
