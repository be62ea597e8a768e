//! The smallest upstream that a turn can be had with: one canned answer, one refusal. Lives for as long as the gate
//! looks; keeps what it was asked.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// Below this path everything is answered.
pub(super) const ANSWERS: &str = "answers";

/// Below this one, everything is refused with 401.
pub(super) const REFUSES: &str = "refuses";

/// Most bytes of a request that are read.
const REQUEST_LIMIT: u64 = 4 << 20;

/// A listener on loopback; nothing runs unless [`serve`](Self::serve) is polled.
#[derive(Debug)]
pub(super) struct Upstream {
    listener: TcpListener,
    address: SocketAddr,
    asked: Arc<Mutex<Option<Value>>>,
}

impl Upstream {
    pub(super) async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, asked: Arc::default() })
    }

    /// `base_url` of a provider.
    pub(super) fn base_url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// What the last request that was answered asked.
    pub(super) fn asked(&self) -> Option<Value> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers for as long as it is polled, one connection after the other.
    pub(super) async fn serve(&self) -> io::Result<()> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if let Err(error) = self.answer(stream).await {
                tracing::debug!(%error, "a connection of the gate's turn broke");
            }
        }
    }

    async fn answer(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream).take(REQUEST_LIMIT);
        let (mut path, mut length, mut line) = (String::new(), 0_usize, String::new());
        while stream.read_line(&mut line).await? > 0 && !line.trim().is_empty() {
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or_default();
            }
            line.clear();
        }
        let mut body = vec![0; length.min(usize::try_from(REQUEST_LIMIT).unwrap_or(0))];
        stream.read_exact(&mut body).await?;
        let reply = if path == format!("/{ANSWERS}/responses") {
            let asked = serde_json::from_slice(&body).ok();
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
            http("200 OK", "text/event-stream", &canned())
        } else if path.starts_with(&format!("/{REFUSES}/")) {
            http("401 Unauthorized", "application/json", r#"{"error":{"message":"the gate refuses"}}"#)
        } else {
            http("404 Not Found", "application/json", "{}")
        };
        let mut stream = stream.into_inner();
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await
    }
}

fn http(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// A whole answer: `{}`, which is also JSON by any schema without demands.
fn canned() -> String {
    let part = json!({"type": "output_text", "text": "{}", "annotations": []});
    let item = json!({"type": "message", "id": "msg_gate", "role": "assistant", "status": "completed",
        "content": [part]});
    let usage = json!({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}});
    let response = json!({"id": "resp_gate", "object": "response", "status": "completed", "output": [],
        "usage": usage});
    let events = [
        json!({"type": "response.created", "response": {"id": "resp_gate"}}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": response}),
    ];
    let frame =
        |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(frame).collect()
}
