use serde_json::{Value, json};

use super::{Release, Server, Setup};
use crate::app_server::{catalog, turn::Next};

#[path = "continued_tests.rs"]
mod continued;

/// A server and its output.
struct TestClient {
    server: Server,
    id: u64,
}

impl TestClient {
    fn new(release: Release) -> Self {
        let catalog = catalog::load(None).expect("the built-in catalog");
        Self { server: Server::new(release, Setup { catalog, model: None, unload: true }), id: 100 }
    }

    fn ready(release: Release) -> Self {
        let mut client = Self::new(release);
        let info = json!({"name": "test", "version": "0"});
        client
            .response("initialize", &json!({"clientInfo": info, "capabilities": {"experimentalApi": true}}));
        client
    }

    /// Sends a line, runs the ready turns, and returns the output.
    fn send(&mut self, line: &Value) -> Vec<Value> {
        let turns = self.server.on_line(line.to_string().as_bytes());
        self.run(turns)
    }

    /// Ends the pause of a thread's turn.
    fn resume(&mut self, thread: &str) -> Vec<Value> {
        let turn = self.server.threads.turn_of(thread).expect("a running turn").0;
        self.run(vec![turn])
    }

    fn run(&mut self, turns: Vec<u64>) -> Vec<Value> {
        for number in turns {
            let Server { context, threads, .. } = &mut self.server;
            let turn = threads.turn(number).expect("a turn");
            if turn.run(context) == Next::Done {
                threads.end_turn(context, number);
            }
        }
        let bytes = std::mem::take(&mut self.server.context.out.bytes);
        let lines = bytes.split_inclusive(|b| *b == b'\n');
        lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
    }

    fn call(&mut self, method: &str, params: &Value) -> Vec<Value> {
        self.id += 1;
        self.send(&json!({"id": self.id, "method": method, "params": params}))
    }

    fn response(&mut self, method: &str, params: &Value) -> Value {
        let lines = self.call(method, params);
        lines
            .into_iter()
            .find(|line| line["id"] == self.id && line.get("method").is_none())
            .unwrap_or_default()
    }

    fn thread(&mut self, model: &str, more: &Value) -> String {
        let mut params =
            json!({"model": model, "ephemeral": true, "environments": [], "experimentalRawEvents": true});
        for (name, value) in more.as_object().into_iter().flatten() {
            params[name] = value.clone();
        }
        let answer = self.response("thread/start", &params);
        answer["result"]["thread"]["id"].as_str().expect("a thread").to_owned()
    }

    fn inject(&mut self, thread: &str, text: &str) -> Value {
        let item =
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]});
        self.response("thread/inject_items", &json!({"threadId": thread, "items": [item]}))
    }

    fn turn(&mut self, thread: &str) -> Vec<Value> {
        self.call("turn/start", &json!({"threadId": thread, "input": []}))
    }
}

#[test]
fn injected_items_are_sent_back_after_the_answer() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:echo", &json!({}));
    let item = json!({"content": [{"type": "input_text", "text": "x"}], "type": "message", "role": "user"});
    let line =
        json!({"id": 7, "method": "thread/inject_items", "params": {"threadId": thread, "items": [item]}});
    client.server.on_line(line.to_string().as_bytes());
    let output = String::from_utf8(std::mem::take(&mut client.server.context.out.bytes)).expect("text");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], r#"{"id":7,"result":{}}"#);
    let head = format!(
        r#"{{"method":"rawResponseItem/completed","params":{{"threadId":"{thread}","turnId":"auto-compact-0","item":{{"type":"message","role":"user","content":[{{"#
    );
    assert!(lines[1].starts_with(&head), "{output}");
}

fn methods(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["method"].as_str().unwrap_or("(answer)")).collect()
}

#[test]
fn handshake_is_required_first_and_once() {
    let mut client = TestClient::new(Release::V169);
    assert_eq!(client.response("model/list", &json!({}))["error"]["message"], "Not initialized");
    assert_eq!(
        client.response("initialize", &json!({}))["error"]["message"],
        "Invalid request: missing field `clientInfo`"
    );
    let info = json!({"clientInfo": {"name": "gw", "version": "1"}});
    let agent = client.response("initialize", &info)["result"]["userAgent"].clone();
    assert!(agent.as_str().expect("text").starts_with("gw/0.169.0 ("), "{agent}");
    assert_eq!(client.response("initialize", &info)["error"]["message"], "Already initialized");
    assert!(client.send(&json!({"method": "initialized"})).is_empty());
}

#[test]
fn echo_notifications_have_the_real_order() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:echo", &json!({}));
    assert_eq!(client.inject(&thread, "two words")["result"], json!({}));
    let lines = client.turn(&thread);
    assert_eq!(
        methods(&lines),
        [
            "(answer)",
            "thread/status/changed",
            "turn/started",
            "item/started",
            "item/agentMessage/delta",
            "item/agentMessage/delta",
            "item/completed",
            "rawResponseItem/completed",
            "rawResponse/completed",
            "thread/tokenUsage/updated",
            "account/rateLimits/updated",
            "thread/status/changed",
            "turn/completed",
        ]
    );
    assert_eq!(lines[4]["params"]["delta"], "two ");
    assert_eq!(lines[6]["params"]["item"]["text"], "two words");
    assert_eq!(lines[12]["params"]["turn"]["items"][0]["text"], "two words");
    let unsubscribed = client.call("thread/unsubscribe", &json!({"threadId": thread}));
    assert_eq!(methods(&unsubscribed), ["(answer)", "thread/status/changed", "thread/closed"]);
    assert_eq!(client.response("thread/loaded/list", &json!({}))["result"]["data"], json!([]));
    let again = client.response("thread/unsubscribe", &json!({"threadId": thread}));
    assert_eq!(again["result"]["status"], "notLoaded");
}

#[test]
fn call_waits_for_its_answer_or_an_interrupt() {
    let tools = json!({"dynamicTools": [{"type": "function", "name": "f", "description": "", "inputSchema": {
        "type": "object", "properties": {"city": {"type": "string"}}}}]});
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:tools:2", &tools);
    client.inject(&thread, "x");
    let lines = client.turn(&thread);
    let raw = lines.iter().filter(|l| l["method"] == "rawResponseItem/completed");
    let raw: Vec<_> = raw.filter(|l| l["params"]["item"]["type"] == "function_call").collect();
    assert_eq!(raw[0]["params"]["item"]["arguments"], r#"{"city": "value 0"}"#);
    let calls: Vec<&Value> = lines.iter().filter(|l| l["method"] == "item/tool/call").collect();
    assert_eq!((&calls[0]["id"], &calls[1]["id"]), (&json!(0), &json!(1)));
    assert_eq!(calls[1]["params"]["arguments"], json!({"city": "value 1"}));
    assert_eq!(methods(&lines).last(), Some(&"rawResponse/completed"));
    let turn = lines[0]["result"]["turn"]["id"].clone();
    let lines = client.call("turn/interrupt", &json!({"threadId": thread, "turnId": turn}));
    assert_eq!(
        methods(&lines),
        [
            "item/completed",
            "item/completed",
            "rawResponseItem/completed",
            "rawResponseItem/completed",
            "thread/tokenUsage/updated",
            "account/rateLimits/updated",
            "rawResponseItem/completed",
            "(answer)",
            "thread/status/changed",
            "turn/completed",
        ]
    );
    assert_eq!(lines[9]["params"]["turn"]["status"], "interrupted");

    let thread = client.thread("fake:tools", &tools);
    client.turn(&thread);
    let answer = json!({"contentItems": [{"type": "inputText", "text": "25 C"}], "success": true});
    let lines = client.send(&json!({"id": 2, "result": answer}));
    let end = lines.last().expect("an end");
    assert_eq!(end["params"]["turn"]["items"][0]["text"], "The tools say: 25 C");
}

#[test]
fn interrupt_without_the_turn_is_refused() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:hang", &json!({}));
    let interrupt = |turn: &str| json!({"threadId": thread, "turnId": turn});
    assert_eq!(
        client.response("turn/interrupt", &interrupt("x"))["error"]["message"],
        "no active turn to interrupt"
    );
    let turn = client.turn(&thread)[0]["result"]["turn"]["id"].as_str().expect("an id").to_owned();
    let wrong = client.response("turn/interrupt", &interrupt("x"));
    assert_eq!(wrong["error"]["message"], format!("expected active turn id x but found {turn}"));
    assert_eq!(client.response("turn/interrupt", &interrupt(&turn))["result"], json!({}));
}

#[test]
fn interrupt_of_a_deaf_turn_and_mute_start_get_no_response() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:deaf", &json!({}));
    let turn = client.turn(&thread)[0]["result"]["turn"]["id"].clone();
    assert!(client.call("turn/interrupt", &json!({"threadId": thread, "turnId": turn})).is_empty());
    assert!(client.call("thread/start", &json!({"model": "fake:mute-start"})).is_empty());
}

#[test]
fn overloaded_server_accepts_a_later_turn() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:overloaded:1", &json!({}));
    assert_eq!(client.turn(&thread)[0]["error"]["code"], -32001);
    assert_eq!(client.turn(&thread)[0]["result"]["turn"]["status"], "inProgress");
}

#[test]
fn abandoned_turn_sends_nothing_and_ends() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:hang", &json!({}));
    let turn = client.turn(&thread)[0]["result"]["turn"]["id"].clone();
    let lines = client.call("thread/unsubscribe", &json!({"threadId": thread}));
    assert_eq!(methods(&lines), ["(answer)"]);
    assert_eq!(client.response("thread/loaded/list", &json!({}))["result"]["data"], json!([thread]));
    let lines = client.call("turn/interrupt", &json!({"threadId": thread, "turnId": turn}));
    let rest = ["(answer)", "thread/status/changed", "thread/status/changed", "thread/closed"];
    assert_eq!(methods(&lines), rest);
}

#[test]
fn old_releases_differ_in_their_answers() {
    let mut client = TestClient::ready(Release::V140);
    let started = client.response("thread/start", &json!({"ephemeral": true, "environments": []}));
    assert!(started["result"]["thread"].get("environments").is_none());
    let thread = client.thread("fake:echo", &json!({}));
    let lines = client.turn(&thread);
    assert!(!methods(&lines).contains(&"rawResponse/completed"));
    assert!(lines.iter().all(|line| line.get("emittedAtMs").is_none()));

    let mut client = TestClient::ready(Release::V110);
    let thread = client.thread("fake:echo", &json!({}));
    let why = client.inject(&thread, "x")["error"]["message"].as_str().expect("a refusal").to_owned();
    assert!(why.contains("unknown variant `thread/inject_items`"), "{why}");
    let lines = client.turn(&thread);
    assert_eq!(methods(&lines), ["(answer)"]);
    let turn = &lines[0]["result"]["turn"]["id"];
    assert!(client.call("turn/interrupt", &json!({"threadId": thread, "turnId": turn})).is_empty());

    let mut client = TestClient::ready(Release::V77);
    let started = client.response("thread/start", &json!({"ephemeral": true}));
    assert!(started["result"]["thread"]["path"].is_string());
}
