use serde_json::{Value, json};

use super::{TestClient, methods};
use crate::app_server::version::Release;

fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "name": name, "description": "", "inputSchema": {}});
    json!({"dynamicTools": [tool("f"), tool("g")]})
}

/// Returns the text of the last message of a turn.
fn answer(lines: &[Value]) -> &str {
    let end = lines.iter().rfind(|line| line["method"] == "turn/completed").expect("an end");
    end["params"]["turn"]["items"][0]["text"].as_str().unwrap_or_default()
}

fn raw_items(lines: &[Value]) -> Vec<Value> {
    let raw = lines.iter().filter(|line| line["method"] == "rawResponseItem/completed");
    raw.map(|line| line["params"]["item"].clone()).collect()
}

fn turn_id(lines: &[Value]) -> Value {
    lines[0]["result"]["turn"]["id"].clone()
}

fn result(id: u64, text: &str) -> Value {
    let content = json!([{"type": "inputText", "text": text}]);
    json!({"id": id, "result": {"contentItems": content, "success": true}})
}

/// Starts a turn that is parked at two calls.
fn parked(client: &mut TestClient) -> (String, Value) {
    let thread = client.thread("fake:directives", &tools());
    client.inject(&thread, "@@think hm@@@@text Let me see@@@@call f {}@@@@call g {}@@@@then@@@@transcript@@");
    let lines = client.turn(&thread);
    assert_eq!(methods(&lines).last(), Some(&"rawResponse/completed"));
    (thread, turn_id(&lines))
}

#[test]
fn next_turn_gets_all_earlier_items() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:transcript", &json!({}));
    client.inject(&thread, "one");
    assert_eq!(answer(&client.turn(&thread)), "effort: low\nuser: one");
    client.inject(&thread, "two");
    let lines = client.call("turn/start", &json!({"threadId": thread, "input": [], "effort": "high"}));
    assert_eq!(answer(&lines), "effort: high\nuser: one\nassistant: effort: low user: one\nuser: two");
    client.inject(&thread, "three");
    let lines = client.call("turn/start", &json!({"threadId": thread, "input": [], "effort": null}));
    assert!(answer(&lines).starts_with("effort: high\n"), "{}", answer(&lines));
}

#[test]
fn usage_adds_up_over_turns() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:echo", &json!({}));
    for turns in 1..=3 {
        client.inject(&thread, "x");
        let lines = client.turn(&thread);
        let usage = lines.iter().find(|line| line["method"] == "thread/tokenUsage/updated").expect("usage");
        let usage = &usage["params"]["tokenUsage"];
        assert_eq!(usage["total"]["inputTokens"], 100 * turns);
        assert_eq!(usage["last"]["inputTokens"], 100);
        let response = lines.iter().find(|line| line["method"] == "rawResponse/completed").expect("usage");
        assert_eq!(response["params"]["usage"]["inputTokens"], 100);
    }
}

#[test]
fn parked_turn_continues_with_outputs_and_injected_items() {
    let mut client = TestClient::ready(Release::V169);
    let (thread, turn) = parked(&mut client);
    let refused = client.response("turn/start", &json!({"threadId": thread, "input": []}));
    assert_eq!(refused["error"]["code"], -32603);
    assert_eq!(refused["error"]["message"], "failed to submit turn input: EmptyInput");
    let items = json!([user("and Rome?"), {"type": "message", "role": "developer", "content": []}]);
    let lines = client.call("thread/inject_items", &json!({"threadId": thread, "items": items}));
    assert_eq!(methods(&lines), ["(answer)"]);
    // The second call is answered first. Its output waits for that of the first one.
    assert_eq!(methods(&client.send(&result(1, "two"))), ["item/completed"]);
    let lines = client.send(&result(0, "one"));
    let raw = raw_items(&lines);
    let outputs: Vec<&Value> = raw.iter().map(|item| &item["output"]).take(2).collect();
    assert_eq!(outputs, ["one", "two"]);
    assert_eq!((&raw[2]["role"], &raw[3]["role"]), (&json!("user"), &json!("developer")));
    assert_eq!(
        methods(&lines)[..4],
        [
            "item/completed",
            "rawResponseItem/completed",
            "rawResponseItem/completed",
            "thread/tokenUsage/updated"
        ]
    );
    let end = lines.last().expect("an end");
    assert_eq!((&end["method"], &end["params"]["turn"]["id"]), (&json!("turn/completed"), &turn));
    // The new user message has no directive.
    assert!(answer(&lines).starts_with("8 items "), "{}", answer(&lines));
    client.inject(&thread, "@@transcript@@");
    let lines = client.turn(&thread);
    assert_eq!(
        answer(&lines).lines().skip(3).collect::<Vec<_>>(),
        [
            "assistant: Let me see",
            "call 1: f({})",
            "call 2: g({})",
            "output 1: one",
            "output 2: two",
            "user: and Rome?",
            "developer: ",
            answer(&lines).lines().nth(10).expect("the former answer"),
            "user: @@transcript@@",
        ]
    );
}

#[test]
fn interrupted_parked_turn_keeps_outputs_and_drops_injected_items() {
    let mut client = TestClient::ready(Release::V169);
    let (thread, turn) = parked(&mut client);
    client.inject(&thread, "lost");
    client.send(&result(0, "one"));
    let lines = client.call("turn/interrupt", &json!({"threadId": thread, "turnId": turn}));
    assert_eq!(lines.last().expect("an end")["params"]["turn"]["status"], "interrupted");
    client.inject(&thread, "@@transcript@@");
    let lines = client.turn(&thread);
    let answer: Vec<&str> = answer(&lines).lines().skip(6).collect();
    assert_eq!(answer[..1], ["output 1: one"]);
    assert!(answer[1].starts_with("output 2: dynamic tool call was cancelled"), "{answer:?}");
    assert!(answer[2].starts_with("user: <turn_aborted>"), "{answer:?}");
    assert_eq!(answer[3..], ["user: @@transcript@@"]);
}

#[test]
fn own_calls_run_while_the_turn_is_parked() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client
        .thread("fake:directives", &json!({"environments": null, "dynamicTools": tools()["dynamicTools"]}));
    client.inject(&thread, "@@run one@@@@call f {}@@@@run two@@@@then@@@@transcript@@");
    let mut lines = client.turn(&thread);
    assert_eq!(
        methods(&lines)[methods(&lines).len() - 3..],
        ["rawResponse/completed", "item/started", "item/started"]
    );
    // The time of the pause has passed.
    lines = client.resume(&thread);
    let delta = "item/commandExecution/outputDelta";
    assert_eq!(
        methods(&lines),
        [delta, "item/completed", delta, "item/completed", "rawResponseItem/completed"]
    );
    lines = client.send(&result(0, "r"));
    assert_eq!(raw_items(&lines).len(), 3);
    let answer: Vec<&str> = answer(&lines).lines().skip(3).collect();
    assert_eq!(
        answer,
        [
            r#"call 1: exec_command({"cmd":"one"})"#,
            "call 2: f({})",
            r#"call 3: exec_command({"cmd":"two"})"#,
            "output 1: Process exited with code 0 Output: ran one ",
            "output 2: r",
            "output 3: Process exited with code 0 Output: ran two ",
        ]
    );
}

#[test]
fn items_injected_during_a_turn_steer_it() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:directives", &json!({}));
    client.inject(&thread, "@@text first@@@@wait 60000@@");
    let turn = turn_id(&client.turn(&thread));
    client.inject(&thread, "@@transcript@@");
    let refused = client.response("turn/start", &json!({"threadId": thread, "input": []}));
    assert_eq!(refused["error"]["code"], -32603);
    let lines = client.resume(&thread);
    let methods = methods(&lines);
    assert_eq!(methods.iter().filter(|method| **method == "rawResponse/completed").count(), 2);
    assert_eq!(lines.last().expect("an end")["params"]["turn"]["id"], turn);
    let answer: Vec<&str> = answer(&lines).lines().skip(2).collect();
    assert_eq!(answer, ["assistant: first", "user: @@transcript@@"]);
}

#[test]
fn broken_turns_lose_their_text() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:directives", &json!({}));
    for text in ["@@cut one two@@", "@@fail@@"] {
        client.inject(&thread, text);
        let lines = client.turn(&thread);
        assert_eq!(lines.last().expect("an end")["params"]["turn"]["status"], "failed");
    }
    client.inject(&thread, "@@transcript@@");
    let lines = client.turn(&thread);
    assert_eq!(
        answer(&lines).lines().skip(1).collect::<Vec<_>>(),
        ["user: @@cut one two@@", "user: @@fail@@", "user: @@transcript@@"]
    );
}

#[test]
fn thread_without_a_subscriber_is_gone() {
    let mut client = TestClient::ready(Release::V169);
    let thread = client.thread("fake:echo", &json!({}));
    client.inject(&thread, "x");
    client.turn(&thread);
    assert_eq!(client.response("thread/loaded/list", &json!({}))["result"]["data"], json!([thread]));
    let clean = |client: &mut TestClient| {
        client.response("thread/backgroundTerminals/clean", &json!({"threadId": thread}))
    };
    assert_eq!(clean(&mut client)["result"], json!({}));
    client.call("thread/unsubscribe", &json!({"threadId": thread}));
    let why = format!("thread not found: {thread}");
    let start = client.response("turn/start", &json!({"threadId": thread, "input": []}));
    for refused in [client.inject(&thread, "x"), start, clean(&mut client)] {
        assert_eq!(refused["error"]["code"], -32600);
        assert_eq!(refused["error"]["message"], json!(why));
    }
}
