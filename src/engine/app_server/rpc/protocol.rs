//! The lines of the app-server protocol, as far as we read them. One JSON object a line, no `jsonrpc` member.

use serde::Deserialize;
use serde_json::{Value, json};

/// A line from the app-server.
#[derive(Debug, Deserialize)]
pub(crate) struct Incoming {
    /// A number of ours in a response; anything in a request of theirs.
    pub(crate) id: Option<Value>,
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) params: Value,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<RpcError>,
}

/// What is read of a request that cannot be read whole, because the model has nested too much into it.
#[derive(Deserialize)]
struct Request {
    id: Value,
    method: String,
    params: Addressed,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Addressed {
    thread_id: String,
    call_id: String,
}

/// A line, if it is one of the protocol.
pub(crate) fn read(line: &[u8]) -> Option<Incoming> {
    if let Ok(incoming) = serde_json::from_slice(line) {
        return Some(incoming);
    }
    parse(line).and_then(|value| serde_json::from_value(value).ok()).or_else(|| {
        let Request { id, method, params } = serde_json::from_slice(line).ok()?;
        let params = json!({"threadId": params.thread_id, "callId": params.call_id});
        Some(Incoming { id: Some(id), method: Some(method), params, result: None, error: None })
    })
}

/// JSON as Codex understands it, which takes numbers of any size. Those that are too large for us become texts.
pub(crate) fn parse(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json).ok().or_else(|| serde_json::from_slice(&with_numbers_quoted(json)?).ok())
}

/// The same with numbers that are too large as texts; none if there are none.
fn with_numbers_quoted(json: &[u8]) -> Option<Vec<u8>> {
    let mut quoted = Vec::new();
    let mut done = 0;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let rest = &json[at..];
        at += match byte {
            b'"' => text_length(rest),
            b'-' | b'0'..=b'9' => {
                let length = rest.iter().take_while(|byte| b"+-.0123456789Ee".contains(byte)).count();
                let number = std::str::from_utf8(&rest[..length]).unwrap_or_default();
                if number.parse().is_ok_and(f64::is_infinite) {
                    quoted.extend_from_slice(&json[done..at]);
                    quoted.extend_from_slice(format!("\"{number}\"").as_bytes());
                    done = at + length;
                }
                length
            }
            _ => 1,
        };
    }
    quoted.extend_from_slice(&json[done..]);
    (done > 0).then_some(quoted)
}

/// Bytes of the text that begins here, quotes included.
fn text_length(json: &[u8]) -> usize {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 2)
}

/// Why a call was refused.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) data: Value,
}

/// `-32001`: too much is queued; to be asked again a little later.
pub(crate) const OVERLOADED: i64 = -32001;

/// `item/tool/call`: the model calls a tool of the client.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolCall {
    /// The id of the request, to be echoed in an answer.
    #[serde(skip)]
    pub(crate) request: Value,
    pub(crate) call_id: String,
}

impl Incoming {
    /// The thread that a notification or request is about.
    pub(crate) fn thread(&self) -> Option<&str> {
        let params = &self.params;
        params.get("threadId").or_else(|| params.get("thread")?.get("id"))?.as_str()
    }
}

/// A call as a line.
pub(crate) fn call(id: u64, method: &str, params: &Value) -> Vec<u8> {
    line(&json!({"id": id, "method": method, "params": params}))
}

/// A notification as a line.
pub(crate) fn notification(method: &str) -> Vec<u8> {
    line(&json!({"method": method}))
}

/// The answer to a request of theirs, as a line.
pub(crate) fn answer(id: &Value, result: &Value) -> Vec<u8> {
    line(&json!({"id": id, "result": result}))
}

/// The refusal of a request of theirs, as a line.
pub(crate) fn refusal(id: &Value) -> Vec<u8> {
    line(&json!({"id": id, "error": {"code": -32601, "message": "codex-api does not support this request"}}))
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_are_read() {
        for (text, expected) in [
            (r#"{"a":1e+999}"#, json!({"a": "1e+999"})),
            (
                r#"[-1E999,1e5,"1e999","\"1e999",{"1e999":2}]"#,
                json!(["-1E999", 1e5, "1e999", "\"1e999", {"1e999": 2}]),
            ),
            (r#"{"a":1e999"#, Value::Null),
            (r#"{"a":1e999,"b":"\ud800"}"#, Value::Null),
            ("1e999", json!("1e999")),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_or_default(), expected, "{text}");
        }
        let long = "9".repeat(400);
        assert_eq!(parse(long.as_bytes()), Some(json!(long)));
    }

    #[test]
    fn a_request_that_nests_too_much_is_answered_all_the_same() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let params = format!(r#"{{"threadId":"t","turnId":"u","callId":"c","arguments":{{"a":{deep}}}}}"#);
        let read =
            read(format!(r#"{{"method":"item/tool/call","id":3,"params":{params}}}"#).as_bytes()).unwrap();
        assert_eq!((read.id, read.method.as_deref()), (Some(json!(3)), Some("item/tool/call")));
        assert_eq!(read.params, json!({"threadId": "t", "callId": "c"}));
        assert!(super::read(b"nonsense").is_none() && super::read(b"[1]").is_none());
    }
}
