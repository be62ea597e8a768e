//! The smallest upstream that a turn can be had with: one canned answer, calls for commands, one refusal. Lives for as
//! long as the gate looks; keeps what it was asked.

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
pub(crate) const ANSWERS: &str = "answers";

/// Below this one, commands are called for first.
pub(crate) const CALLS: &str = "calls";

/// Below this one, everything is refused with 401.
pub(crate) const REFUSES: &str = "refuses";

/// A command that does nothing, and what it prints: nobody who only repeats the command has printed that.
const COMMAND: &str = "echo codex-api-$((20000+2026))";
const PRINTED: &str = "codex-api-22026";

/// How many calls are made for it, under the names that it had in several versions.
const CALLS_MADE: usize = 3;

/// Most bytes of a request that are read.
const REQUEST_LIMIT: u64 = 4 << 20;

/// A listener on loopback; nothing runs unless [`serve`](Self::serve) is polled.
#[derive(Debug)]
pub(crate) struct Upstream {
    listener: TcpListener,
    address: SocketAddr,
    /// The paths and bodies of what was answered.
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Upstream {
    pub(crate) async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, asked: Arc::default() })
    }

    /// `base_url` of a provider.
    pub(crate) fn base_url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// What was asked below a path, in order.
    pub(crate) fn asked(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|(below, _)| below == path).map(|(_, body)| body.clone()).collect()
    }

    /// Answers for as long as it is polled, one connection after the other.
    pub(crate) async fn serve(&self) -> io::Result<()> {
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
        let below = path.trim_start_matches('/').split_once('/');
        let reply = if let Some((below @ (ANSWERS | CALLS), "responses")) = below {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let items = if below == CALLS && outputs(&body).next().is_none() { calls() } else { canned() };
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((below.to_owned(), body));
            http("200 OK", "text/event-stream", &response(items))
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
fn canned() -> Vec<Value> {
    let part = json!({"type": "output_text", "text": "{}", "annotations": []});
    vec![
        json!({"type": "message", "id": "msg_gate", "role": "assistant", "status": "completed", "content": [part]}),
    ]
}

fn calls() -> Vec<Value> {
    let calls: [(&str, Value); CALLS_MADE] = [
        ("exec_command", json!({"cmd": COMMAND, "login": false})),
        ("shell_command", json!({"command": COMMAND, "login": false})),
        ("shell", json!({"command": ["sh", "-c", COMMAND]})),
    ];
    let call = |(index, (name, arguments)): (usize, (&str, Value))| {
        json!({"type": "function_call", "id": format!("fc_gate_{index}"), "call_id": format!("call_gate_{index}"),
            "name": name, "arguments": arguments.to_string(), "status": "completed"})
    };
    calls.into_iter().enumerate().map(call).collect()
}

/// Whether a request tells that each of the calls came to nothing.
pub(crate) fn ran_nothing(request: &Value) -> bool {
    let outputs: Vec<String> = outputs(request).map(Value::to_string).collect();
    outputs.len() == CALLS_MADE && !outputs.iter().any(|output| output.contains(PRINTED))
}

fn outputs(request: &Value) -> impl Iterator<Item = &Value> {
    let items = request["input"].as_array().into_iter().flatten();
    items.filter(|item| item["type"] == "function_call_output")
}

/// A response of these items.
fn response(items: Vec<Value>) -> String {
    let usage = json!({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}});
    let whole = json!({"id": "resp_gate", "object": "response", "status": "completed", "output": [],
        "usage": usage});
    let mut events = vec![json!({"type": "response.created", "response": {"id": "resp_gate"}})];
    let done =
        |(index, item)| json!({"type": "response.output_item.done", "output_index": index, "item": item});
    events.extend(items.into_iter().enumerate().map(done));
    events.push(json!({"type": "response.completed", "response": whole}));
    let frame =
        |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(frame).collect()
}
