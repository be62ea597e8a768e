//! The lines of the app-server protocol, as far as we read them. One JSON object a line, no `jsonrpc` member.

use serde::Deserialize;
use serde_json::{Value, json};

/// A line from the app-server.
#[derive(Debug, Deserialize)]
pub(super) struct Incoming {
    /// A number of ours in a response; anything in a request of theirs.
    pub(super) id: Option<Value>,
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) params: Value,
    pub(super) result: Option<Value>,
    pub(super) error: Option<RpcError>,
}

/// Why a call was refused.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RpcError {
    pub(super) code: i64,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: Value,
}

/// `-32001`: too much is queued; to be asked again a little later.
pub(super) const OVERLOADED: i64 = -32001;

/// `item/tool/call`: the model calls a tool of the client.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolCall {
    /// The id of the request, to be echoed in an answer.
    #[serde(skip)]
    pub(super) request: Value,
    pub(super) call_id: String,
}

impl Incoming {
    /// The thread that a notification or request is about.
    pub(super) fn thread(&self) -> Option<&str> {
        let params = &self.params;
        params.get("threadId").or_else(|| params.get("thread")?.get("id"))?.as_str()
    }
}

/// A call as a line.
pub(super) fn call(id: u64, method: &str, params: &Value) -> Vec<u8> {
    line(&json!({"id": id, "method": method, "params": params}))
}

/// A notification as a line.
pub(super) fn notification(method: &str) -> Vec<u8> {
    line(&json!({"method": method}))
}

/// The answer to a request of theirs, as a line.
pub(super) fn answer(id: &Value, result: &Value) -> Vec<u8> {
    line(&json!({"id": id, "result": result}))
}

/// The refusal of a request of theirs, as a line.
pub(super) fn refusal(id: &Value) -> Vec<u8> {
    line(&json!({"id": id, "error": {"code": -32601, "message": "codex-api does not support this request"}}))
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}
