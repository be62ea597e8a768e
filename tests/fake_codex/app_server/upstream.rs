//! Requests to the upstream in the configuration of a thread, so that the capability probe of the server can inspect them.
//! Without such a provider, or with a scenario, no request is sent.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    act::{Act, answer},
    failures,
    script::{TurnInput, commands_run},
    wire::Usage,
};

/// The time limit of reads and writes. The requests block the whole process.
const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the base URL of the provider that the thread selects and configures.
pub(crate) fn base_url(thread_start: &Value) -> Option<String> {
    let provider = thread_start["modelProvider"].as_str()?;
    let url = &thread_start["config"][format!("model_providers.{provider}.base_url")];
    url.as_str().filter(|_| crate::env("FAKE_CODEX_SCENARIO").is_none()).map(str::to_owned)
}

/// The maximum number of responses of one turn.
const MAX_RESPONSES: usize = 4;

/// Runs a turn against the upstream and returns its acts. After calls, sends another request with their outputs.
pub(crate) fn acts(base_url: &str, model: &str, turn_input: &TurnInput) -> Vec<Act> {
    let mut request = request(model, turn_input);
    let mut acts = Vec::new();
    for _ in 0..MAX_RESPONSES {
        let items = match post(base_url, &request) {
            Ok((200, body)) => items(&body),
            Ok((401, _)) => return failed("401"),
            Ok((403, _)) => return failed("403"),
            Ok(_) => return failed("500"),
            Err(_) => return failed("connection"),
        };
        let Some(items) = items else { return failed("eof") };
        let calls: Vec<&Value> = items.iter().filter(|item| item["type"] == "function_call").collect();
        if calls.is_empty() {
            let text: String = items.iter().filter_map(|item| item["content"][0]["text"].as_str()).collect();
            acts.extend(answer(&text, Usage::new(1, 0, 1)));
            return acts;
        }
        let outputs = calls.iter().map(|call| {
            let output = output(call, commands_run(turn_input));
            json!({"type": "function_call_output", "call_id": call["call_id"], "output": output})
        });
        let outputs: Vec<Value> = outputs.collect();
        let items: Vec<Value> = items.iter().cloned().chain(outputs).collect();
        acts.extend(items.iter().cloned().map(Act::Raw));
        if let Some(input) = request["input"].as_array_mut() {
            input.extend(items);
        }
    }
    failed("eof")
}

/// Returns the output of a call. The only supported command prints a sum.
fn output(call: &Value, commands_run: bool) -> String {
    let arguments: Value =
        call["arguments"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let name = call["name"].as_str().unwrap_or_default();
    let command = arguments["cmd"].as_str().filter(|_| commands_run && name == "exec_command");
    let printed = command.and_then(|command| {
        let (before, sum) = command.strip_prefix("echo ")?.strip_suffix("))")?.split_once("$((")?;
        let (a, b) = sum.split_once('+')?;
        Some(format!("Output:\n{before}{}\n", a.parse::<u32>().ok()? + b.parse::<u32>().ok()?))
    });
    printed.unwrap_or_else(|| format!("unsupported call: {name}"))
}

fn failed(kind: &str) -> Vec<Act> {
    failures::from_kind(kind).map(Act::Fail).into_iter().collect()
}

/// Builds the upstream request with the client tools, and with `exec_command` if commands run.
fn request(model: &str, turn_input: &TurnInput) -> Value {
    let offered = turn_input.thread_start["dynamicTools"].as_array().into_iter().flatten();
    let mut tools: Vec<Value> = offered
        .map(|tool| json!({"type": "function", "name": tool["name"], "parameters": tool["inputSchema"]}))
        .collect();
    if commands_run(turn_input) {
        tools.push(json!({"type": "function", "name": "exec_command"}));
    }
    let mut request = json!({"model": model, "input": turn_input.items, "tools": tools, "stream": true,
                             "prompt_cache_key": turn_input.thread});
    if let Some(schema) = turn_input.turn_start.get("outputSchema").filter(|schema| schema.is_object()) {
        request["text"] = json!({"format": {"type": "json_schema", "strict": true, "schema": schema}});
    }
    request
}

fn post(base_url: &str, request: &Value) -> io::Result<(u16, String)> {
    let rest = base_url.strip_prefix("http://").ok_or(io::ErrorKind::Unsupported)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
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

/// Returns the items of a streamed answer, or `None` if the answer is incomplete.
fn items(body: &str) -> Option<Vec<Value>> {
    let events: Vec<Value> =
        body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    events.iter().find(|event| event["type"] == "response.completed")?;
    let done = events.into_iter().filter(|event| event["type"] == "response.output_item.done");
    Some(done.map(|mut event| event["item"].take()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{base_url, items, output};

    #[test]
    fn upstream_without_a_configured_provider_is_not_used() {
        let thread = |provider: Value| json!({"modelProvider": provider, "config": {"model_providers.gate.base_url": "http://127.0.0.1:1/a"}});
        assert_eq!(base_url(&thread(json!("gate"))).as_deref(), Some("http://127.0.0.1:1/a"));
        assert_eq!(base_url(&thread(json!("other"))), None);
        assert_eq!(base_url(&thread(Value::Null)), None);
    }

    #[test]
    fn items_of_an_incomplete_answer_are_none() {
        let item = json!({"type": "response.output_item.done", "item": {"content": [{"text": "hi"}]}});
        let end = json!({"type": "response.completed"});
        let whole = items(&format!("event: x\ndata: {item}\n\ndata: {end}\n\n"));
        assert_eq!(whole, Some(vec![json!({"content": [{"text": "hi"}]})]));
        assert_eq!(items(&format!("data: {item}\n\n")), None);
    }

    #[test]
    fn sum_is_printed_if_commands_run() {
        let call = |name: &str| json!({"name": name, "arguments": r#"{"cmd": "echo a-$((2+3))"}"#});
        assert_eq!(output(&call("exec_command"), true), "Output:\na-5\n");
        assert_eq!(output(&call("exec_command"), false), "unsupported call: exec_command");
        assert_eq!(output(&call("other"), true), "unsupported call: other");
    }
}
