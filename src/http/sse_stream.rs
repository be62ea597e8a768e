//! The body of a stream of server-sent events: the frames of ready events in one piece, and keep-alives while the stream is
//! silent.

use std::{convert::Infallible, future::poll_fn};

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use tonic::Status;

use super::sse::{KEEP_ALIVE, KeepAlive};

/// Maximum number of events in one piece.
const MAX_READY_EVENTS: usize = 64;

/// Encodes the events of one stream as frames. Owned by its body.
pub(super) trait Encode {
    /// The contract's event.
    type Event;

    /// Writes the frames of an event, or of the failure that ends the stream.
    fn push(&mut self, event: Result<Self::Event, Status>, out: &mut BytesMut);

    /// Ends a stream that lacks its last event.
    fn cut(&mut self, out: &mut BytesMut);

    /// Returns whether the last frame was written.
    fn is_ended(&self) -> bool;
}

/// Returns the body. Owns the events: dropping it cancels the turn. Keep-alives are comments.
pub(super) fn body<E: Encode + Send>(
    encoder: E,
    events: impl Stream<Item = Result<E::Event, Status>> + Send,
    keep_alive: Option<KeepAlive>,
) -> impl Body<Data = Bytes, Error = Infallible> + Send
where
    E::Event: Send,
{
    StreamBody::new(pieces(encoder, events, keep_alive).map(|piece| Ok(Frame::data(piece))))
}

fn pieces<E: Encode + Send>(
    mut encoder: E,
    events: impl Stream<Item = Result<E::Event, Status>> + Send,
    mut keep_alive: Option<KeepAlive>,
) -> impl Stream<Item = Bytes> + Send
where
    E::Event: Send,
{
    stream! {
        let mut events = Box::pin(events.ready_chunks(MAX_READY_EVENTS));
        let mut out = BytesMut::new();
        while !encoder.is_ended() {
            let due = async {
                match &mut keep_alive {
                    Some(keep_alive) => drop(poll_fn(|cx| keep_alive.poll_due(cx)).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ready = events.next() => match ready {
                    Some(ready) => {
                        for event in ready {
                            if !encoder.is_ended() {
                                encoder.push(event, &mut out);
                            }
                        }
                    }
                    None => encoder.cut(&mut out),
                },
                () = due => out.extend_from_slice(KEEP_ALIVE),
            }
            if !out.is_empty() {
                if let Some(keep_alive) = &mut keep_alive {
                    keep_alive.reset();
                }
                yield out.split().freeze();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::stream;
    use http_body_util::BodyExt;

    use super::*;
    use crate::config::KeepAliveForm;

    /// Writes each number, and ends with 9.
    struct Digits(bool);

    impl Encode for Digits {
        type Event = u8;

        fn push(&mut self, event: Result<u8, Status>, out: &mut BytesMut) {
            let text = event.map_or("error".to_owned(), |digit| digit.to_string());
            self.0 = text == "9" || text == "error";
            out.extend_from_slice(text.as_bytes());
        }

        fn cut(&mut self, out: &mut BytesMut) {
            self.0 = true;
            out.extend_from_slice(b"cut");
        }

        fn is_ended(&self) -> bool {
            self.0
        }
    }

    async fn whole(events: Vec<Result<u8, Status>>) -> String {
        let collected = body(Digits(false), stream::iter(events), None).collect().await;
        let Ok(collected) = collected;
        String::from_utf8(collected.to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn body_ends_with_the_last_event_an_error_or_a_cut() {
        assert_eq!(whole(vec![Ok(1), Ok(9), Ok(2)]).await, "19");
        assert_eq!(whole(vec![Ok(1), Err(Status::internal("x")), Ok(2)]).await, "1error");
        assert_eq!(whole(vec![Ok(1)]).await, "1cut");
    }

    #[tokio::test]
    async fn body_joins_ready_events_to_one_piece() {
        let mut body = Box::pin(body(Digits(false), stream::iter((1..=9).map(Ok)), None));
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame, "123456789");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn silent_body_has_comments() {
        let events = stream::once(async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            Ok(9)
        });
        let keep_alive = KeepAlive::new(Duration::from_secs(10), KeepAliveForm::Comment);
        let Ok(collected) = body(Digits(false), events, Some(keep_alive)).collect().await;
        assert_eq!(collected.to_bytes(), ": keep-alive\n\n: keep-alive\n\n9");
    }
}
