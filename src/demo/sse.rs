//! Plays acts: numbers the events, writes them as server-sent events, and waits between them.

use std::io;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use serde_json::Value;

use super::{
    plan::{self, Act, Acts},
    record::Open,
};

/// Maximum size of a chunk of events without a pause between them.
const CHUNK_BYTES: usize = 8 << 10;

/// Returns the body of a response that plays `acts`. Dropping the body stops the acts.
pub(super) fn body(acts: Acts, open: Open) -> Body {
    let player = Player { acts, sequence: 0, pending: BytesMut::new(), waiting: None, _open: open };
    Body::from_stream(stream::unfold(player, |mut player| async move {
        let chunk = player.next().await?;
        Some((chunk, player))
    }))
}

struct Player {
    acts: Acts,
    sequence: u64,
    pending: BytesMut,
    /// An act that must wait until earlier events are sent.
    waiting: Option<Act>,
    _open: Open,
}

impl Player {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let act = self.waiting.take().or_else(|| self.acts.next());
            match act {
                Some(Act::Event(name, data)) => {
                    self.write(name, data);
                    if self.pending.len() >= CHUNK_BYTES {
                        return self.flush();
                    }
                }
                act if !self.pending.is_empty() => {
                    self.waiting = act;
                    return self.flush();
                }
                Some(Act::Pause(time)) => tokio::time::sleep(time).await,
                Some(Act::Cut) => {
                    // hyper sends its buffer when the body is pending; an immediate error would discard the buffer.
                    tokio::task::yield_now().await;
                    self.acts = Box::new(std::iter::empty());
                    return Some(Err(io::Error::other("cut by the script")));
                }
                None => return None,
            }
        }
    }

    fn write(&mut self, name: &str, data: Value) {
        let data = plan::numbered(name, data, &mut self.sequence);
        self.pending.put_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
    }

    fn flush(&mut self) -> Option<io::Result<Bytes>> {
        Some(Ok(self.pending.split().freeze()))
    }
}
