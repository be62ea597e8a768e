//! The one thing that the fake asks: the upstream that a thread's configuration names, so that a server finds out what
//! would be asked in its name. Without such a provider, or with a scenario, nobody is asked.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    act::{Act, answer},
    failures,
    script::Given,
    wire::Usage,
};

/// Nobody here waits longer; all else stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// The base URL of the provider that the thread names and brings along.
pub(crate) fn named(thread_start: &Value) -> Option<String> {
    let provider = thread_start["modelProvider"].as_str()?;
    let url = &thread_start["config"][format!("model_providers.{provider}.base_url")];
    url.as_str().filter(|_| crate::env("FAKE_CODEX_SCENARIO").is_none()).map(str::to_owned)
}

/// The acts of a turn that asks there.
pub(crate) fn acts(base_url: &str, model: &str, given: &Given) -> Vec<Act> {
    match post(base_url, &request(model, given)) {
        Ok((200, body)) => match text(&body) {
            Some(text) => answer(&text, Usage::new(1, 0, 1)),
            None => failed("eof"),
        },
        Ok((401, _)) => failed("401"),
        Ok(_) => failed("500"),
        Err(_) => failed("connection"),
    }
}

fn failed(kind: &str) -> Vec<Act> {
    failures::of(kind).map(Act::Fail).into_iter().collect()
}

/// What the model would be sent: the client's tools, and Codex's own where there is an environment to act in.
fn request(model: &str, given: &Given) -> Value {
    let offered = given.thread_start["dynamicTools"].as_array().into_iter().flatten();
    let mut tools: Vec<Value> = offered
        .map(|tool| json!({"type": "function", "name": tool["name"], "parameters": tool["inputSchema"]}))
        .collect();
    if given.thread_start["environments"] != json!([]) {
        tools.push(json!({"type": "function", "name": "exec_command"}));
    }
    let mut request = json!({"model": model, "input": given.items, "tools": tools, "stream": true});
    if let Some(schema) = given.turn_start.get("outputSchema").filter(|schema| schema.is_object()) {
        request["text"] = json!({"format": {"type": "json_schema", "strict": true, "schema": schema}});
    }
    request
}

fn post(base_url: &str, request: &Value) -> io::Result<(u16, String)> {
    let rest = base_url.strip_prefix("http://").ok_or(io::ErrorKind::Unsupported)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let body = request.to_string();
    let length = body.len();
    let head = format!(
        "POST /{path}/responses HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// The text of a streamed answer that is complete.
fn text(body: &str) -> Option<String> {
    let events: Vec<Value> =
        body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    events.iter().find(|event| event["type"] == "response.completed")?;
    let items = events.iter().filter(|event| event["type"] == "response.output_item.done");
    Some(items.filter_map(|event| event["item"]["content"][0]["text"].as_str()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{named, text};

    #[test]
    fn only_a_provider_that_is_brought_along_is_asked() {
        let thread = |provider: Value| json!({"modelProvider": provider, "config": {"model_providers.gate.base_url": "http://127.0.0.1:1/a"}});
        assert_eq!(named(&thread(json!("gate"))).as_deref(), Some("http://127.0.0.1:1/a"));
        assert_eq!(named(&thread(json!("other"))), None);
        assert_eq!(named(&thread(Value::Null)), None);
    }

    #[test]
    fn an_answer_is_one_when_it_is_complete() {
        let item = json!({"type": "response.output_item.done", "item": {"content": [{"text": "hi"}]}});
        let end = json!({"type": "response.completed"});
        assert_eq!(text(&format!("event: x\ndata: {item}\n\ndata: {end}\n\n")).as_deref(), Some("hi"));
        assert_eq!(text(&format!("data: {item}\n\n")), None);
    }
}
