//! The Responses API over a WebSocket, as the built-in provider of the CLI uses it.

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use crate::{BenchResult, upstream};

/// The relevant members of a frame.
#[derive(Debug, Deserialize)]
struct Frame {
    /// `false` in the warm-up of a new connection.
    generate: Option<bool>,
}

/// Returns the key of the answer to an upgrade, or `None` for another request.
pub(crate) fn accept(head: &str) -> Option<String> {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    })?;
    Some(derive_accept_key(key.as_bytes()))
}

/// Answers each frame of a connection.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    accept: &str,
    counters: &upstream::Counters,
) -> BenchResult<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let number = counters.on_call(text.len())?;
        let frame: Frame = serde_json::from_str(&text)?;
        let is_warm_up = frame.generate == Some(false);
        for event in upstream::events(text.as_bytes(), number, is_warm_up) {
            socket.feed(Message::text(event)).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}
