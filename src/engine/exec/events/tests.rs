use serde_json::Value;

use super::*;
use crate::pb::item::Kind;

fn push(translator: &mut Translator, line: &Value) -> Vec<TurnEvent> {
    translator.push(line.to_string().as_bytes()).unwrap()
}

fn one(line: &str) -> TurnEvent {
    let mut events = Translator::new(2, false).push(line.as_bytes()).unwrap();
    assert_eq!(events.len(), 1, "{line}");
    events.remove(0)
}

#[test]
fn push_message_and_completion_returns_text_and_usage() {
    let mut translator = Translator::new(2, false);
    let line = serde_json::json!({"type":"item.completed","item":{"id":"item_1","type":"agent_message","text":"hi ü"}});
    assert_eq!(
        push(&mut translator, &line),
        [TurnEvent::MessageStarted { is_final: false }, TurnEvent::Text("hi ü".into())]
    );
    let line = serde_json::json!({"type":"turn.completed","usage":{"input_tokens":21,"cached_input_tokens":9,
        "cache_write_input_tokens":0,"output_tokens":12,"reasoning_output_tokens":3}});
    let usage = pb::Usage {
        input_tokens: 21,
        cached_input_tokens: 9,
        output_tokens: 12,
        reasoning_output_tokens: 3,
        estimated: false,
    };
    assert_eq!(
        push(&mut translator, &line),
        [TurnEvent::Finished { reason: pb::FinishReason::Stop, usage: Some(Box::new(usage)) }]
    );
}

#[test]
fn push_duplicate_keys_unknown_events_and_garbage_is_tolerated() {
    let twice =
        r#"{"type":"item.completed","item":{"id":"item_5","type":"web_search","id":"ws_74","query":"q"}}"#;
    let TurnEvent::Item(item) = one(twice) else { panic!("expected an item") };
    assert_eq!(item.kind, Some(Kind::WebSearch(pb::WebSearch { query: "q".into() })));
    let hologram = r#"{"type":"item.completed","item":{"id":"item_6","type":"hologram"}}"#;
    let TurnEvent::Item(item) = one(hologram) else { panic!("expected an item") };
    assert_eq!((item.status(), item.kind), (pb::ItemStatus::Completed, None));

    let mut translator = Translator::new(2, false);
    for line in
        ["{\"type\":\"thread.started\"}", "not json", "", "[]", "3", "{\"type\":\"new.thing\"}", "\u{fffd}"]
    {
        assert!(translator.push(line.as_bytes()).unwrap().is_empty(), "{line}");
    }
    assert!(
        translator.push(b"{\"type\":\"item.completed\",\"item\":{\"text\":\"\xff\"}}").unwrap().is_empty()
    );
}

#[test]
fn push_actions_returns_items() {
    let line = r#"{"type":"item.completed","item":{"id":"item_2","type":"command_execution",
        "command":"ls","aggregated_output":"x\n","exit_code":3,"status":"failed"}}"#;
    let TurnEvent::Item(item) = one(line) else { panic!("expected an item") };
    assert_eq!(item.status(), pb::ItemStatus::Failed);
    let command =
        pb::CommandExecution { command: "ls".into(), aggregated_output: "x\n".into(), exit_code: Some(3) };
    assert_eq!(item.kind, Some(Kind::CommandExecution(command)));

    let line = r#"{"type":"item.started","item":{"id":"item_3","type":"todo_list",
        "items":[{"text":"a","completed":true}]}}"#;
    let TurnEvent::Item(item) = one(line) else { panic!("expected an item") };
    assert_eq!(item.status(), pb::ItemStatus::InProgress);
    let steps = vec![pb::todo_list::Step { text: "a".into(), completed: true }];
    assert_eq!(item.kind, Some(Kind::TodoList(pb::TodoList { steps })));

    let line = r#"{"type":"item.completed","item":{"id":"item_4","type":"mcp_tool_call","server":"t","tool":"e",
        "arguments":{"x":1},"result":null,"error":{"message":"no"},"status":"failed"}}"#;
    let TurnEvent::Item(item) = one(line) else { panic!("expected an item") };
    let Some(Kind::McpToolCall(call)) = item.kind else { panic!("expected a call") };
    assert_eq!(
        (call.arguments.as_str(), call.result.as_str(), call.error.as_str()),
        (r#"{"x":1}"#, "", "no")
    );
}

fn reconnecting(n: u32, reason: &str) -> String {
    serde_json::json!({"type":"error","message":format!("Reconnecting... {n}/5 ({reason})")}).to_string()
}

#[test]
fn push_retries_returns_notices_up_to_the_limit() {
    let mut translator = Translator::new(2, false);
    for n in 1..=2 {
        let events =
            translator.push(reconnecting(n, "stream disconnected before completion: x").as_bytes()).unwrap();
        let [TurnEvent::Notice(notice)] = events.as_slice() else { panic!("expected a notice") };
        assert_eq!(notice.kind(), pb::notice::Kind::Retry);
    }
    let error =
        translator.push(reconnecting(3, "stream disconnected before completion: x").as_bytes()).unwrap_err();
    assert_eq!(error.reason(), "UPSTREAM_UNAVAILABLE");
}

#[test]
fn push_websocket_retries_does_not_count_them() {
    let mut translator = Translator::new(0, false);
    let reason = "unexpected status 404 Not Found: x, url: ws://127.0.0.1:1/v1/responses";
    for n in 2..=5 {
        assert_eq!(translator.push(reconnecting(n, reason).as_bytes()).unwrap().len(), 1);
    }
    assert!(translator.push(reconnecting(1, "We’re currently experiencing high demand").as_bytes()).is_err());
}

#[test]
fn push_websocket_retries_without_a_url_does_not_count_them() {
    for reason in [
        "We’re currently experiencing high demand, which may cause temporary errors.",
        "stream disconnected before completion: WebSocket protocol error: Handshake not finished",
        "stream disconnected before completion: Connection closed normally",
    ] {
        let mut translator = Translator::new(1, false);
        for n in 2..=5 {
            assert_eq!(translator.push(reconnecting(n, reason).as_bytes()).unwrap().len(), 1, "{reason}");
        }
        let warning = serde_json::json!({"type": "item.completed", "item": {"id": "item_1", "type": "error",
            "message": format!("Falling back from WebSockets to HTTPS transport. {reason}")}});
        assert!(matches!(push(&mut translator, &warning)[..], [TurnEvent::Notice(_)]));
        // Over HTTPS, the limit holds.
        let busy = "We’re currently experiencing high demand";
        assert_eq!(translator.push(reconnecting(1, busy).as_bytes()).unwrap().len(), 1);
        assert!(translator.push(reconnecting(2, busy).as_bytes()).is_err());
    }
}

#[test]
fn push_notices_have_no_address_of_the_upstream() {
    let reason = "unexpected status 404 Not Found: x, url: ws://127.0.0.1:1/v1/responses";
    let [TurnEvent::Notice(notice)] =
        &Translator::new(2, false).push(reconnecting(2, reason).as_bytes()).unwrap()[..]
    else {
        panic!("a notice");
    };
    assert_eq!(notice.message, "Reconnecting... 2/5 (unexpected status 404 Not Found: x)");
}

#[test]
fn push_equal_message_without_an_action_between_is_a_repetition() {
    let message =
        serde_json::json!({"type":"item.completed","item":{"id":"i","type":"agent_message","text":"one"}});
    let command = serde_json::json!({"type":"item.completed","item":{"id":"c","type":"command_execution","command":"ls"}});
    let mut translator = Translator::new(0, true);
    let counts = [&message, &message, &command, &message].map(|line| push(&mut translator, line).len());
    assert_eq!(counts, [2, 0, 1, 2]);
    // Without a retry the model said it twice.
    let mut translator = Translator::new(1, false);
    let retry = serde_json::json!({"type": "error", "message": "Reconnecting... 1/1 (stream disconnected)"});
    let counts = [&message, &message, &retry, &message].map(|line| push(&mut translator, line).len());
    assert_eq!(counts, [2, 2, 1, 0]);
}

#[test]
fn push_items_of_a_repeated_response_are_skipped_until_an_action() {
    let item = |kind: &str, text: &str| serde_json::json!({"type": "item.completed", "item": {"id": "i", "type": kind, "text": text}});
    let response = [
        item("reasoning", "a"),
        item("reasoning", "b"),
        item("agent_message", "one"),
        item("agent_message", "two"),
    ];
    let command = serde_json::json!({"type": "item.completed", "item": {"id": "c", "type": "command_execution", "command": "ls"}});
    let mut translator = Translator::new(0, true);
    let mut counts = |lines: &[Value]| lines.iter().map(|line| push(&mut translator, line).len()).collect();
    let (new, skipped): (Vec<usize>, Vec<usize>) = (vec![1, 1, 2, 2], vec![0; 4]);
    for expected in [&new, &skipped, &skipped] {
        let got: Vec<usize> = counts(&response);
        assert_eq!(&got, expected);
    }
    let got: Vec<usize> = counts(&[command]);
    assert_eq!(got, [1]);
    let got: Vec<usize> = counts(&response);
    assert_eq!(got, new);
    // The answer is the last message, also if it was skipped.
    let end = TurnEvent::Finished { reason: pb::FinishReason::Stop, usage: None };
    assert!(translator.is_lossy(&end));
    assert_eq!(translator.recover(Some("two".into())).unwrap(), []);
}

#[test]
fn push_retry_after_content_filter_ends_the_turn() {
    let mut translator = Translator::new(5, false);
    let events = translator
        .push(reconnecting(1, "Incomplete response returned, reason: content_filter").as_bytes())
        .unwrap();
    assert_eq!(events, [TurnEvent::Finished { reason: pb::FinishReason::ContentFilter, usage: None }]);
}

#[test]
fn on_exit_during_a_retry_returns_the_reason_of_the_retry() {
    let mut translator = Translator::new(5, false);
    translator.push(reconnecting(1, "unexpected status 401 Unauthorized: no").as_bytes()).unwrap();
    assert_eq!(translator.on_exit(Some(1), "").reason(), "ENGINE_UNAVAILABLE");
    assert_eq!(Translator::new(5, false).on_exit(Some(0), "").reason(), "TURN_FAILED");
}

#[test]
fn recover_with_a_lost_message_returns_it() {
    let end = |line: &str| Translator::new(0, true).push(line.as_bytes()).unwrap().remove(0);
    let zero = end(r#"{"type":"turn.completed","usage":{"input_tokens":0,"output_tokens":0}}"#);
    let counted = end(r#"{"type":"turn.completed","usage":{"input_tokens":9,"output_tokens":1}}"#);
    assert_eq!(zero, TurnEvent::Finished { reason: pb::FinishReason::Stop, usage: None });

    let empty = Translator::new(0, true);
    assert!(empty.is_lossy(&zero) && empty.is_lossy(&counted));
    let text = |t: &str| vec![TurnEvent::MessageStarted { is_final: false }, TurnEvent::Text(t.into())];
    assert_eq!(Translator::new(0, true).recover(Some("all".into())).unwrap(), text("all"));
    assert_eq!(Translator::new(0, true).recover(None).unwrap_err().reason(), "TURN_FAILED");

    let with_answer = || {
        let mut translator = Translator::new(0, true);
        let line = r#"{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"one"}}"#;
        translator.push(line.as_bytes()).unwrap();
        translator
    };
    assert!(!with_answer().is_lossy(&counted) && with_answer().is_lossy(&zero));
    assert_eq!(with_answer().recover(Some("one".into())).unwrap(), []);
    assert_eq!(with_answer().recover(Some("two".into())).unwrap(), text("two"));
}
