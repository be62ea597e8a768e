//! The events of a turn, from an engine to the service.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, stream::BoxStream};
use tokio::sync::mpsc;

use crate::{error::Error, pb};

/// One event of a turn, in the contract's own messages, before the service numbers them.
///
/// An event has 24 bytes, because a tokio channel allocates 32 slots at once for every turn. Deltas are the frequent
/// case and stay unboxed. A text that was decoded without spare capacity becomes a `Box<str>` without a copy.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEvent {
    /// A message of the agent begins; its text follows in deltas.
    MessageStarted {
        /// The model says that no other message follows. A model may not say it.
        is_final: bool,
    },
    /// A delta of the current message.
    Text(Box<str>),
    /// A delta of the model's reasoning.
    Reasoning(Box<str>),
    /// A call of a client's tool.
    ToolCall(Box<pb::ToolCall>),
    /// An action of the agent.
    Item(Box<pb::Item>),
    /// A warning or a retry.
    Notice(Box<pb::Notice>),
    /// The end of the turn, exactly once.
    Finished {
        /// The reason for the end of the turn.
        reason: pb::FinishReason,
        /// Tokens of this turn, if Codex reported them.
        usage: Option<Box<pb::Usage>>,
    },
}

/// The sending end of [`Events::channel`]. The error is boxed to keep a slot of the channel small.
pub type EventSender = mpsc::Sender<Result<TurnEvent, Box<Error>>>;

/// The event stream of one turn. Ends with one [`TurnEvent::Finished`] or one error. Dropping it cancels the turn.
pub struct Events(Source);

enum Source {
    /// Read without a virtual call or a copy of the event.
    Channel(mpsc::Receiver<Result<TurnEvent, Box<Error>>>),
    Stream(BoxStream<'static, Result<TurnEvent, Error>>),
}

impl Events {
    /// Returns the two ends of a bounded channel of events.
    pub fn channel(capacity: usize) -> (EventSender, Self) {
        let (sender, receiver) = mpsc::channel(capacity);
        (sender, Self(Source::Channel(receiver)))
    }

    /// Wraps any stream of events.
    pub fn from_stream(events: impl Stream<Item = Result<TurnEvent, Error>> + Send + 'static) -> Self {
        Self(Source::Stream(Box::pin(events)))
    }
}

impl Stream for Events {
    type Item = Result<TurnEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Source::Channel(receiver) => {
                receiver.poll_recv(cx).map(|event| event.map(|event| event.map_err(|error| *error)))
            }
            Source::Stream(events) => events.as_mut().poll_next(cx),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    #[test]
    fn turn_event_in_a_channel_slot_takes_24_bytes() {
        assert_eq!(size_of::<Result<TurnEvent, Box<Error>>>(), 24);
    }

    #[tokio::test]
    async fn events_from_channel_and_stream_end_with_the_error() {
        let (sender, channel) = Events::channel(2);
        sender.try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
        sender.try_send(Err(Box::new(Error::Draining))).unwrap();
        drop(sender);
        let stream = stream::iter([Ok(TurnEvent::Text("a".into())), Err(Error::Draining)]);
        for mut events in [channel, Events::from_stream(stream)] {
            assert_eq!(events.next().await.unwrap().unwrap(), TurnEvent::Text("a".into()));
            assert!(matches!(events.next().await, Some(Err(Error::Draining))));
            assert!(events.next().await.is_none());
        }
    }
}
