use serde_json::{Value, json};

use super::{Release, Server, Setup};
use crate::app_server::{catalog, turn::Next};

/// A server and its output.
struct Talk {
    server: Server,
    id: u64,
}

impl Talk {
    fn new(release: Release) -> Self {
        let catalog = catalog::load(None).expect("the built-in catalog");
        Self { server: Server::new(release, Setup { catalog, model: None, unload: true }), id: 100 }
    }

    fn ready(release: Release) -> Self {
        let mut talk = Self::new(release);
        let client = json!({"name": "test", "version": "0"});
        talk.ask("initialize", &json!({"clientInfo": client, "capabilities": {"experimentalApi": true}}));
        talk
    }

    /// Sends a line, runs the ready turns, and returns the output.
    fn send(&mut self, line: &Value) -> Vec<Value> {
        let turns = self.server.take(line.to_string().as_bytes());
        for number in turns {
            let Server { world, threads, .. } = &mut self.server;
            let turn = threads.turn(number).expect("a turn");
            if turn.run(world) == Next::Done {
                threads.end(world, number);
            }
        }
        let bytes = std::mem::take(&mut self.server.world.out.bytes);
        let lines = bytes.split_inclusive(|b| *b == b'\n');
        lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
    }

    fn all(&mut self, method: &str, params: &Value) -> Vec<Value> {
        self.id += 1;
        self.send(&json!({"id": self.id, "method": method, "params": params}))
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        let lines = self.all(method, params);
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
        let answer = self.ask("thread/start", &params);
        answer["result"]["thread"]["id"].as_str().expect("a thread").to_owned()
    }

    fn inject(&mut self, thread: &str, text: &str) -> Value {
        let item =
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]});
        self.ask("thread/inject_items", &json!({"threadId": thread, "items": [item]}))
    }

    fn turn(&mut self, thread: &str) -> Vec<Value> {
        self.all("turn/start", &json!({"threadId": thread, "input": []}))
    }
}

#[test]
fn injected_items_are_sent_back_after_the_answer() {
    let mut talk = Talk::ready(Release::V169);
    let thread = talk.thread("fake:echo", &json!({}));
    let item = json!({"content": [{"type": "input_text", "text": "x"}], "type": "message", "role": "user"});
    let line =
        json!({"id": 7, "method": "thread/inject_items", "params": {"threadId": thread, "items": [item]}});
    talk.server.take(line.to_string().as_bytes());
    let said = String::from_utf8(std::mem::take(&mut talk.server.world.out.bytes)).expect("text");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], r#"{"id":7,"result":{}}"#);
    let head = format!(
        r#"{{"method":"rawResponseItem/completed","params":{{"threadId":"{thread}","turnId":"auto-compact-0","item":{{"type":"message","role":"user","content":[{{"#
    );
    assert!(lines[1].starts_with(&head), "{said}");
}

fn methods(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["method"].as_str().unwrap_or("(answer)")).collect()
}

#[test]
fn handshake_is_required_first_and_once() {
    let mut talk = Talk::new(Release::V169);
    assert_eq!(talk.ask("model/list", &json!({}))["error"]["message"], "Not initialized");
    assert_eq!(
        talk.ask("initialize", &json!({}))["error"]["message"],
        "Invalid request: missing field `clientInfo`"
    );
    let client = json!({"clientInfo": {"name": "gw", "version": "1"}});
    let agent = talk.ask("initialize", &client)["result"]["userAgent"].clone();
    assert!(agent.as_str().expect("text").starts_with("gw/0.169.0 ("), "{agent}");
    assert_eq!(talk.ask("initialize", &client)["error"]["message"], "Already initialized");
    assert!(talk.send(&json!({"method": "initialized"})).is_empty());
}

#[test]
fn echo_notifications_have_the_real_order() {
    let mut talk = Talk::ready(Release::V169);
    let thread = talk.thread("fake:echo", &json!({}));
    assert_eq!(talk.inject(&thread, "two words")["result"], json!({}));
    let lines = talk.turn(&thread);
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
    let unsubscribed = talk.all("thread/unsubscribe", &json!({"threadId": thread}));
    assert_eq!(methods(&unsubscribed), ["(answer)", "thread/status/changed", "thread/closed"]);
    assert_eq!(talk.ask("thread/loaded/list", &json!({}))["result"]["data"], json!([]));
    let again = talk.ask("thread/unsubscribe", &json!({"threadId": thread}));
    assert_eq!(again["result"]["status"], "notLoaded");
}

#[test]
fn call_waits_for_its_answer_or_an_interrupt() {
    let tools = json!({"dynamicTools": [{"type": "function", "name": "f", "description": "", "inputSchema": {
        "type": "object", "properties": {"city": {"type": "string"}}}}]});
    let mut talk = Talk::ready(Release::V169);
    let thread = talk.thread("fake:tools:2", &tools);
    talk.inject(&thread, "x");
    let lines = talk.turn(&thread);
    let raw = lines.iter().filter(|l| l["method"] == "rawResponseItem/completed");
    let raw: Vec<_> = raw.filter(|l| l["params"]["item"]["type"] == "function_call").collect();
    assert_eq!(raw[0]["params"]["item"]["arguments"], r#"{"city": "value 0"}"#);
    let calls: Vec<&Value> = lines.iter().filter(|l| l["method"] == "item/tool/call").collect();
    assert_eq!((&calls[0]["id"], &calls[1]["id"]), (&json!(0), &json!(1)));
    assert_eq!(calls[1]["params"]["arguments"], json!({"city": "value 1"}));
    assert_eq!(methods(&lines).last(), Some(&"rawResponse/completed"));
    let turn = lines[0]["result"]["turn"]["id"].clone();
    let lines = talk.all("turn/interrupt", &json!({"threadId": thread, "turnId": turn}));
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

    let thread = talk.thread("fake:tools", &tools);
    talk.turn(&thread);
    let answer = json!({"contentItems": [{"type": "inputText", "text": "25 C"}], "success": true});
    let lines = talk.send(&json!({"id": 2, "result": answer}));
    let end = lines.last().expect("an end");
    assert_eq!(end["params"]["turn"]["items"][0]["text"], "The tools say: 25 C");
}

#[test]
fn interrupt_without_the_turn_is_refused() {
    let mut talk = Talk::ready(Release::V169);
    let thread = talk.thread("fake:hang", &json!({}));
    let interrupt = |turn: &str| json!({"threadId": thread, "turnId": turn});
    assert_eq!(
        talk.ask("turn/interrupt", &interrupt("x"))["error"]["message"],
        "no active turn to interrupt"
    );
    let turn = talk.turn(&thread)[0]["result"]["turn"]["id"].as_str().expect("an id").to_owned();
    let wrong = talk.ask("turn/interrupt", &interrupt("x"));
    assert_eq!(wrong["error"]["message"], format!("expected active turn id x but found {turn}"));
    assert_eq!(talk.ask("turn/interrupt", &interrupt(&turn))["result"], json!({}));
}

#[test]
fn deaf_turn_and_mute_start_get_no_reply() {
    let mut talk = Talk::ready(Release::V169);
    let thread = talk.thread("fake:deaf", &json!({}));
    let turn = talk.turn(&thread)[0]["result"]["turn"]["id"].clone();
    assert!(talk.all("turn/interrupt", &json!({"threadId": thread, "turnId": turn})).is_empty());
    assert!(talk.all("thread/start", &json!({"model": "fake:mute-start"})).is_empty());
}

#[test]
fn overloaded_server_accepts_a_later_turn() {
    let mut talk = Talk::ready(Release::V169);
    let thread = talk.thread("fake:overloaded:1", &json!({}));
    assert_eq!(talk.turn(&thread)[0]["error"]["code"], -32001);
    assert_eq!(talk.turn(&thread)[0]["result"]["turn"]["status"], "inProgress");
}

#[test]
fn abandoned_turn_sends_nothing_and_ends() {
    let mut talk = Talk::ready(Release::V169);
    let thread = talk.thread("fake:hang", &json!({}));
    let turn = talk.turn(&thread)[0]["result"]["turn"]["id"].clone();
    let lines = talk.all("thread/unsubscribe", &json!({"threadId": thread}));
    assert_eq!(methods(&lines), ["(answer)"]);
    assert_eq!(talk.ask("thread/loaded/list", &json!({}))["result"]["data"], json!([thread]));
    let lines = talk.all("turn/interrupt", &json!({"threadId": thread, "turnId": turn}));
    let rest = ["(answer)", "thread/status/changed", "thread/status/changed", "thread/closed"];
    assert_eq!(methods(&lines), rest);
}

#[test]
fn old_releases_differ_in_their_answers() {
    let mut talk = Talk::ready(Release::V140);
    let started = talk.ask("thread/start", &json!({"ephemeral": true, "environments": []}));
    assert!(started["result"]["thread"].get("environments").is_none());
    let thread = talk.thread("fake:echo", &json!({}));
    let lines = talk.turn(&thread);
    assert!(!methods(&lines).contains(&"rawResponse/completed"));
    assert!(lines.iter().all(|line| line.get("emittedAtMs").is_none()));

    let mut talk = Talk::ready(Release::V110);
    let thread = talk.thread("fake:echo", &json!({}));
    let why = talk.inject(&thread, "x")["error"]["message"].as_str().expect("a refusal").to_owned();
    assert!(why.contains("unknown variant `thread/inject_items`"), "{why}");
    let lines = talk.turn(&thread);
    assert_eq!(methods(&lines), ["(answer)"]);
    let turn = &lines[0]["result"]["turn"]["id"];
    assert!(talk.all("turn/interrupt", &json!({"threadId": thread, "turnId": turn})).is_empty());

    let mut talk = Talk::ready(Release::V77);
    let started = talk.ask("thread/start", &json!({"ephemeral": true}));
    assert!(started["result"]["thread"]["path"].is_string());
}
