use serde_json::{Value, json};

use super::*;
use crate::engine::{
    Message, Parameters, Part, Role, Tool, Turn,
    app_server::{rpc::protocol::RequestId, tools::validate_calls},
};

const TURN: &str = "turn-1";

fn translator(profile: Profile, tools: Vec<Tool>) -> Translator {
    let message = Message {
        role: Role::User,
        name: None,
        parts: vec![Part::Text("hi".into())],
        tool_calls: vec![],
        tool_call_id: None,
    };
    let turn =
        Turn { tools: tools.into(), messages: vec![message], parallel_tool_calls: true, ..Turn::default() };
    Translator::new(TranslatedTurn {
        id: TURN.to_owned(),
        tools: Arc::new(ToolSet::new(&turn).unwrap()),
        profile,
        max_retries: 1,
        parks: false,
        used_before: pb::Usage::default(),
    })
}

fn agent() -> Translator {
    translator(Profile::Agent, vec![])
}

fn push(translator: &mut Translator, method: &str, params: &Value) -> Result<TranslatorOutput, Error> {
    translator.push(match Delta::from_notification(method, params) {
        Some(delta) => Input::Delta(delta),
        None => Input::Notification(Notification::parse(method, params.clone())),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the callers write their parameters in place")]
fn event(translator: &mut Translator, method: &str, params: Value) -> Option<TurnEvent> {
    push(translator, method, &params).unwrap().event
}

/// Pushes Codex's request for the result of a call.
fn request(translator: &mut Translator, call_id: &str) -> Action {
    let request = ToolCall { request: RequestId(json!(7)), call_id: call_id.into() };
    translator.push(Input::ToolRequest(request)).unwrap().action
}

fn idle(translator: &mut Translator) -> Action {
    translator.push(Input::Idle).unwrap().action
}

fn delta(text: &str) -> Value {
    json!({"itemId": "m", "delta": text})
}

fn usage(input: u64, output: u64) -> Value {
    json!({"usage": {"inputTokens": input, "cachedInputTokens": 1, "outputTokens": output, "reasoningOutputTokens": 2}})
}

fn ended(status: &str) -> Value {
    json!({"turn": {"status": status, "error": {"message": "x", "codexErrorInfo": "other"}}})
}

#[test]
fn message_is_final_if_its_phase_says_so_at_its_start() {
    for (phase, is_final) in [
        (json!("final_answer"), true),
        (json!("commentary"), false),
        (json!(null), false),
        (json!("new"), false),
        (json!(3), false),
    ] {
        let mut t = agent();
        let started = json!({"item": {"type": "agentMessage", "id": "m", "text": "", "phase": phase}});
        let output = push(&mut t, "item/started", &started).unwrap();
        assert_eq!((output.starts_message, output.is_final), (true, is_final), "{phase}");
        // The next message may repeat this one, so that it starts with its first text.
        let completed = json!({"item": {"type": "agentMessage", "id": "m", "text": "a", "phase": phase}});
        push(&mut t, "item/completed", &completed).unwrap();
        let output = push(&mut t, "item/started", &started).unwrap();
        assert!(!output.starts_message);
        let output = push(&mut t, "item/agentMessage/delta", &delta("b")).unwrap();
        assert_eq!((output.starts_message, output.is_final), (true, is_final), "{phase}");
    }
}

#[test]
fn message_with_missing_deltas_yields_the_suffix_at_its_end() {
    let mut t = agent();
    let message = |text: &str| json!({"item": {"type": "agentMessage", "id": "m", "text": text}});
    assert!(push(&mut t, "item/started", &message("")).unwrap().starts_message);
    assert_eq!(event(&mut t, "item/agentMessage/delta", delta("hel")), Some(TurnEvent::Text("hel".into())));
    assert_eq!(event(&mut t, "item/completed", message("hello")), Some(TurnEvent::Text("lo".into())));
    assert_eq!(event(&mut t, "rawResponse/completed", usage(10, 3)), None);
    let output = push(&mut t, "turn/completed", &ended("completed")).unwrap();
    assert!(matches!(output.action, Action::Complete));
    let Some(TurnEvent::Finished { reason: FinishReason::Stop, usage: Some(usage) }) = output.event else {
        panic!("{output:?}");
    };
    assert_eq!((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens), (10, 1, 3));
}

#[test]
fn usage_of_several_model_calls_is_summed_once() {
    let mut t = agent();
    for n in 1..=3 {
        event(&mut t, "rawResponse/completed", usage(n, n));
        let total = json!({"tokenUsage": {"total": {"inputTokens": n * (n + 1) / 2, "outputTokens": n * (n + 1) / 2}}});
        event(&mut t, "thread/tokenUsage/updated", total);
    }
    let output = push(&mut t, "turn/completed", &ended("completed")).unwrap();
    let Some(TurnEvent::Finished { usage: Some(usage), .. }) = output.event else { panic!("{output:?}") };
    assert_eq!((usage.input_tokens, usage.output_tokens), (6, 6));
}

#[test]
fn retry_after_text_fails_the_turn() {
    let retry = json!({"willRetry": true, "error": {"message": "Reconnecting... 1/5",
        "additionalDetails": "stream disconnected before completion: x", "codexErrorInfo": "other"}});
    let mut t = agent();
    let Some(TurnEvent::Notice(notice)) = event(&mut t, "error", retry.clone()) else { panic!("a notice") };
    assert_eq!(notice.kind(), pb::notice::Kind::Retry);
    assert_eq!(push(&mut t, "error", &retry).unwrap_err().reason(), "UPSTREAM_UNAVAILABLE");

    let mut t = agent();
    event(&mut t, "item/agentMessage/delta", delta("text"));
    assert_eq!(push(&mut t, "error", &retry).unwrap_err().reason(), "UPSTREAM_UNAVAILABLE");
}

#[test]
fn retry_after_reasoning_delivers_only_what_follows_it() {
    let retry =
        json!({"willRetry": true, "error": {"message": "Reconnecting... 1/5", "codexErrorInfo": "other"}});
    let part = json!({"summaryIndex": 1});
    let mut t = agent();
    let reason = |t: &mut Translator, text: &str| event(t, "item/reasoning/summaryTextDelta", delta(text));
    assert_eq!(reason(&mut t, "one"), Some(TurnEvent::Reasoning("one".into())));
    assert!(matches!(event(&mut t, "error", retry), Some(TurnEvent::Notice(_))));
    assert_eq!(reason(&mut t, "one"), None);
    assert_eq!(
        event(&mut t, "item/reasoning/summaryPartAdded", part),
        Some(TurnEvent::Reasoning("\n\n".into()))
    );
    event(&mut t, "rawResponse/completed", usage(1, 1));
    assert_eq!(reason(&mut t, "two"), Some(TurnEvent::Reasoning("two".into())));
}

/// Pushes recorded notifications (method and params, one per line). Returns the text that the client gets, with `|` at each
/// start of a message, and the result of the last notification.
fn replay(t: &mut Translator, lines: &str) -> (String, Result<TranslatorOutput, Error>) {
    let mut text = String::new();
    let mut last = Ok(TranslatorOutput::default());
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (method, params) = line.split_once(' ').unwrap();
        let output = match push(t, method, &serde_json::from_str(params).unwrap()) {
            Ok(output) => output,
            Err(error) => return (text, Err(error)),
        };
        if output.starts_message {
            text.push('|');
        }
        if let Some(TurnEvent::Text(new)) = &output.event {
            text.push_str(new);
        }
        last = Ok(output);
    }
    (text, last)
}

/// Notifications of 0.169 about a WebSocket that closes behind two words, without the members that are not read.
const BROKEN: &str = r#"
    item/started {"item": {"type": "agentMessage", "id": "msg_resp_3", "text": ""}, "turnId": "turn-1"}
    item/agentMessage/delta {"turnId": "turn-1", "itemId": "msg_resp_3", "delta": "one "}
    item/agentMessage/delta {"turnId": "turn-1", "itemId": "msg_resp_3", "delta": "two "}
"#;

const REPEATED: &str = r#"
    item/started {"item": {"type": "agentMessage", "id": "msg_resp_5", "text": ""}, "turnId": "turn-1"}
    item/agentMessage/delta {"turnId": "turn-1", "itemId": "msg_resp_5", "delta": "one "}
    item/agentMessage/delta {"turnId": "turn-1", "itemId": "msg_resp_5", "delta": "two "}
    item/agentMessage/delta {"turnId": "turn-1", "itemId": "msg_resp_5", "delta": "three "}
    item/agentMessage/delta {"turnId": "turn-1", "itemId": "msg_resp_5", "delta": "four"}
    item/completed {"item": {"type": "agentMessage", "id": "msg_resp_5", "text": "one two three four"}, "turnId": "turn-1"}
    rawResponseItem/completed {"turnId": "turn-1", "item": {"type": "message", "id": "msg_resp_5", "role": "assistant", "content": [{"type": "output_text", "text": "one two three four"}]}}
"#;

const COMPLETED: &str = r#"
    rawResponse/completed {"turnId": "turn-1", "responseId": "resp_5", "usage": {"inputTokens": 100, "cachedInputTokens": 40, "outputTokens": 4}}
    thread/tokenUsage/updated {"turnId": "turn-1", "tokenUsage": {"total": {"inputTokens": 100, "outputTokens": 4}}}
    turn/completed {"turn": {"id": "turn-1", "status": "completed", "error": null}}
"#;

#[test]
fn silent_retry_delivers_the_answer_once() {
    let whole = format!("{BROKEN}{REPEATED}{COMPLETED}");
    let twice = format!("{BROKEN}{BROKEN}{REPEATED}{COMPLETED}");
    let fallback = r#"warning {"threadId": "t", "message": "Falling back from WebSockets to HTTPS transport. stream disconnected before completion: websocket closed by server before response.completed"}"#;
    let over_https = format!("{BROKEN}{fallback}{REPEATED}{COMPLETED}");
    for lines in [whole, twice, over_https] {
        let (text, end) = replay(&mut agent(), &lines);
        assert_eq!(text, "|one two three four");
        assert!(matches!(end.unwrap().event, Some(TurnEvent::Finished { reason: FinishReason::Stop, .. })));
    }
    let other = format!("{BROKEN}{}", REPEATED.replace("two", "2"));
    let (text, end) = replay(&mut agent(), &other);
    assert_eq!((&*text, end.unwrap_err().reason()), ("|one two ", "UPSTREAM_UNAVAILABLE"));
}

#[test]
fn content_filter_after_silent_retries_delivers_the_text_once() {
    let filtered = r#"error {"error": {"message": "Reconnecting... 2/5", "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": null}}, "additionalDetails": "stream disconnected before completion: Incomplete response returned, reason: content_filter"}, "willRetry": true, "turnId": "turn-1"}"#;
    let first = REPEATED.replace("msg_resp_5", "msg_resp_3");
    let (text, end) = replay(&mut agent(), &format!("{first}{REPEATED}{filtered}"));
    assert_eq!(text, "|one two three four");
    let end = end.unwrap().event;
    assert!(matches!(end, Some(TurnEvent::Finished { reason: FinishReason::ContentFilter, .. })), "{end:?}");
}

#[test]
fn refused_websocket_is_no_retry_of_the_response() {
    let refused = |number: u32, reason: &str| {
        json!({"willRetry": true, "error": {"message": format!("Reconnecting... {number}/5"), "additionalDetails": reason,
            "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": null}}}})
    };
    let url = "unexpected status 403 Forbidden: <html>blocked by proxy</html>, url: ws://127.0.0.1:48778/v1/responses";
    let mut t = agent();
    for number in 2..=5 {
        let Some(TurnEvent::Notice(notice)) = event(&mut t, "error", refused(number, url)) else {
            panic!("{number}");
        };
        assert!(
            !notice.message.contains("127.0.0.1") && notice.message.contains("blocked by proxy"),
            "{notice:?}"
        );
    }
    let fallback = json!({"message": format!("Falling back from WebSockets to HTTPS transport. {url}")});
    let Some(TurnEvent::Notice(notice)) = event(&mut t, "warning", fallback) else { panic!("a notice") };
    assert!(!notice.message.contains("127.0.0.1"), "{notice:?}");
    // Over HTTPS, the limit holds.
    let busy = "unexpected status 503 Service Unavailable: busy, url: http://127.0.0.1:48778/v1/responses";
    assert!(matches!(event(&mut t, "error", refused(1, busy)), Some(TurnEvent::Notice(_))));
    let error = push(&mut t, "error", &refused(2, busy)).unwrap_err();
    assert_eq!(
        (error.reason(), &*error.to_string()),
        ("UPSTREAM_UNAVAILABLE", "the upstream answered 503: busy")
    );
}

#[test]
fn call_of_a_silently_broken_response_is_dropped() {
    let answer = REPEATED;
    for again in [true, false] {
        let mut t = translator(Profile::Agent, vec![tool("get")]);
        event(&mut t, "rawResponseItem/completed", call("c1", "get", "{}"));
        request(&mut t, "c1");
        assert!(matches!(idle(&mut t), Action::Respond(_)));
        // Codex reports the output only after the end of the response, which was not complete.
        event(&mut t, "rawResponseItem/completed", output_of("c1", "Not run"));
        if again {
            event(&mut t, "rawResponseItem/completed", call("c2", "get", "{}"));
            let output = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
            let Action::HandOver(hand_over) = output.action else { panic!("{output:?}") };
            let ids: Vec<&str> = hand_over.calls.iter().map(|call| call.id.as_str()).collect();
            assert_eq!(ids, ["c2"]);
        } else {
            let (text, end) = replay(&mut t, &format!("{answer}{COMPLETED}"));
            assert_eq!(text, "|one two three four");
            let end = end.unwrap().event;
            assert!(matches!(end, Some(TurnEvent::Finished { reason: FinishReason::Stop, .. })), "{end:?}");
        }
    }
}

#[test]
fn command_of_a_silently_broken_response_is_reported() {
    let mut t = agent();
    event(&mut t, "rawResponseItem/completed", call("own", "exec_command", "{}"));
    assert!(matches!(event(&mut t, "item/started", command("own")), Some(TurnEvent::Item(_))));
    assert!(matches!(event(&mut t, "item/completed", command("own")), Some(TurnEvent::Item(_))));
    event(&mut t, "rawResponseItem/completed", output_of("own", "files"));
    let (text, end) = replay(&mut t, &format!("{REPEATED}{COMPLETED}"));
    assert_eq!(text, "|one two three four");
    assert!(end.is_ok());
}

#[test]
fn reasoning_of_another_item_or_kind_starts_a_paragraph() {
    let mut t = agent();
    let mut reason = |method: &str, item: &str, text: &str| {
        event(&mut t, &format!("item/reasoning/{method}"), json!({"itemId": item, "delta": text}))
    };
    let reasoning = |text: &str| Some(TurnEvent::Reasoning(text.into()));
    assert_eq!(reason("summaryTextDelta", "a", "o"), reasoning("o"));
    assert_eq!(reason("summaryTextDelta", "a", "ne"), reasoning("ne"));
    assert_eq!(reason("summaryTextDelta", "b", ""), None);
    assert_eq!(reason("summaryTextDelta", "b", "two"), reasoning("\n\ntwo"));
    assert_eq!(reason("textDelta", "b", "raw"), reasoning("\n\nraw"));
    assert_eq!(reason("textDelta", "b", "!"), reasoning("!"));
}

#[test]
fn retry_without_reported_completions_counts_for_each_response() {
    let retry =
        json!({"willRetry": true, "error": {"message": "Reconnecting... 1/5", "codexErrorInfo": "other"}});
    let mut t = agent();
    for _ in 0..3 {
        event(&mut t, "error", retry.clone());
        event(&mut t, "item/agentMessage/delta", delta("text"));
        event(&mut t, "thread/tokenUsage/updated", json!({"tokenUsage": {"total": {}}}));
    }
    event(&mut t, "item/agentMessage/delta", delta("text"));
    assert_eq!(push(&mut t, "error", &retry).unwrap_err().reason(), "UPSTREAM_UNAVAILABLE");
}

#[test]
fn raw_items_without_client_tools_are_dropped() {
    let item = || json!({"turnId": TURN, "item": {"type": "reasoning", "encrypted_content": "E"}});
    for (tools, kept) in [(vec![], 0), (vec![tool("get")], 1)] {
        let mut t = translator(Profile::Agent, tools);
        event(&mut t, "rawResponseItem/completed", item());
        assert_eq!(t.raw_items.take().len(), kept);
    }
}

#[test]
fn compaction_fails_a_chat_turn_and_notifies_an_agent_turn() {
    let started = json!({"item": {"type": "contextCompaction", "id": "c"}});
    let mut chat = translator(Profile::Chat, vec![]);
    assert_eq!(push(&mut chat, "item/started", &started).unwrap_err().reason(), "CONTEXT_LENGTH_EXCEEDED");
    assert!(matches!(event(&mut agent(), "item/started", started), Some(TurnEvent::Notice(_))));
}

fn tool(name: &str) -> Tool {
    Tool { name: name.into(), ..Tool::default() }
}

/// A call of the model, as a raw item.
fn call(id: &str, tool: &str, arguments: &str) -> Value {
    let item = json!({"type": "function_call", "call_id": id, "name": tool, "arguments": arguments});
    json!({"turnId": TURN, "item": item})
}

#[test]
fn calls_of_a_complete_response_are_handed_over() {
    let mut t = translator(Profile::Agent, vec![tool("get"), tool("put")]);
    let reasoning = json!({"type": "reasoning", "encrypted_content": "E"});
    event(&mut t, "rawResponseItem/completed", json!({"turnId": TURN, "item": reasoning.clone()}));
    // Codex echoes injected items under another turn's id. Codex itself rejects calls whose arguments are not JSON.
    let echo = json!({"turnId": "auto-compact-0", "item": {"type": "message"}});
    event(&mut t, "rawResponseItem/completed", echo);
    let (one, broken, two) =
        (call("c1", "get", "{\"a\": 1}"), call("c0", "get", "{"), call("c2", "put", "{}"));
    for item in [&one, &broken, &two] {
        event(&mut t, "rawResponseItem/completed", item.clone());
    }
    // Codex may request a result before or after the end of the response.
    assert!(matches!(request(&mut t, "c1"), Action::Continue));
    let items = [reasoning, one["item"].clone(), broken["item"].clone(), two["item"].clone()];
    let output = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert_eq!(output.event, None);
    let Action::HandOver(hand_over) = output.action else { panic!("handed over") };
    let ids: Vec<&str> = hand_over.calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!((ids, &hand_over.items), (vec!["c1", "c2"], &items.map(RawItem::from).to_vec()));
    let events: Vec<TurnEvent> = hand_over.into_events().collect();
    let [TurnEvent::ToolCall(one), TurnEvent::ToolCall(two), TurnEvent::Finished { reason, usage: Some(_) }] =
        events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!((one.id.as_str(), one.arguments.as_str()), ("c1", "{\"a\": 1}"));
    assert_eq!((two.name.as_str(), two.arguments.as_str()), ("put", "{}"));
    assert_eq!(*reason, FinishReason::ToolCalls);
}

#[test]
fn invalid_strict_call_is_rejected_until_the_limit_of_corrections() {
    let mut t = translator(Profile::Agent, vec![strict()]);
    let wrong = || call("c1", "get", "{\"city\": 5}");
    for early in [true, false] {
        event(&mut t, "rawResponseItem/completed", wrong());
        if early {
            request(&mut t, "c1");
        }
        let mut action = complete_and_validate(&mut t).unwrap().action;
        if !early {
            assert!(matches!(action, Action::Continue));
            action = request(&mut t, "c1");
        }
        let Action::Respond(results) = action else { panic!("{action:?}") };
        assert_eq!((&results[0].0, results[0].1.success), (&RequestId(json!(7)), false));
    }
    event(&mut t, "rawResponseItem/completed", wrong());
    assert_eq!(complete_and_validate(&mut t).unwrap_err().reason(), "TURN_FAILED");
}

/// Completes a response with strict calls and validates them.
fn complete_and_validate(t: &mut Translator) -> Result<TranslatorOutput, Error> {
    let output = push(t, "rawResponse/completed", &usage(5, 5))?;
    let Action::Validate(calls) = output.action else { panic!("{output:?}") };
    let verdicts = validate_calls::validate_now(&t.tools, calls, None)?;
    t.push(Input::Verdicts(verdicts))
}

#[test]
fn call_that_codex_rejects_itself_does_not_delay_a_correction() {
    // Codex cannot read half of a surrogate pair, but reads a number of any size.
    for (first, requested) in [(r#"{"city": "\ud800"}"#, false), (r#"{"city": 1e999}"#, true)] {
        let mut t = translator(Profile::Agent, vec![strict()]);
        event(&mut t, "rawResponseItem/completed", call("c1", "get", first));
        event(&mut t, "rawResponseItem/completed", call("c2", "get", r#"{"city": 5}"#));
        request(&mut t, "c2");
        let mut action = complete_and_validate(&mut t).unwrap().action;
        if requested {
            assert!(matches!(action, Action::Continue));
            action = request(&mut t, "c1");
        }
        let Action::Respond(results) = action else { panic!("{first}: {action:?}") };
        assert_eq!(results.len(), 1 + usize::from(requested));
    }
}

#[test]
fn correction_without_all_requests_times_out() {
    for requested in [0, 1] {
        let mut t = translator(Profile::Agent, vec![strict()]);
        for id in ["c1", "c2"] {
            event(&mut t, "rawResponseItem/completed", call(id, "get", r#"{"city": 5}"#));
        }
        complete_and_validate(&mut t).unwrap();
        if requested == 1 {
            assert!(matches!(request(&mut t, "c2"), Action::Continue));
        }
        assert_eq!(t.idle_timeout(), Some(tool_loop::REQUEST_IDLE_TIMEOUT));
        let Action::Respond(results) = idle(&mut t) else { panic!("results") };
        assert_eq!(results.len(), requested);
        assert_eq!(t.idle_timeout(), None);
    }
}

/// `{"type": "object", "properties": {"city": {"type": "string"}}}`
fn strict() -> Tool {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    Tool { strict: true, parameters: Parameters::Json(schema.to_string()), ..tool("get") }
}

#[test]
fn error_without_retry_is_reported_by_the_end_of_the_turn() {
    let mut t = agent();
    let error = json!({"willRetry": false, "error": {"message": "x", "codexErrorInfo": "serverOverloaded"}});
    assert_eq!(event(&mut t, "error", error), None);
    assert_eq!(push(&mut t, "turn/completed", &ended("failed")).unwrap_err().reason(), "TURN_FAILED");
    let interrupted = push(&mut agent(), "turn/completed", &ended("interrupted"));
    assert_eq!(interrupted.unwrap_err().reason(), "TURN_FAILED");
}

#[test]
fn calls_of_a_broken_response_are_rejected_and_those_of_a_slow_one_handed_over() {
    for broken in [true, false] {
        let mut t = translator(Profile::Agent, vec![tool("get")]);
        event(&mut t, "rawResponseItem/completed", call("c1", "get", "{}"));
        assert!(t.idle_timeout().is_none());
        request(&mut t, "c1");
        assert_eq!(t.idle_timeout(), Some(tool_loop::REQUEST_IDLE_TIMEOUT));
        let Action::Respond(results) = idle(&mut t) else { panic!("results") };
        assert_eq!((results.len(), &results[0].0, results[0].1.success), (1, &RequestId(json!(7)), false));
        assert!(t.idle_timeout().is_none());
        if broken {
            let error = json!({"error": {"message": "x", "codexErrorInfo": "other"}, "willRetry": true});
            push(&mut t, "error", &error).unwrap();
        }
        let output = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
        assert_eq!(matches!(output.action, Action::HandOver(_)), !broken, "{output:?}");
    }
}

/// An item of one of Codex's own commands.
fn command(id: &str) -> Value {
    json!({"item": {"type": "commandExecution", "id": id, "command": "ls", "status": "inProgress"}})
}

fn output_of(id: &str, text: &str) -> Value {
    json!({"turnId": TURN, "item": {"type": "function_call_output", "call_id": id, "output": text}})
}

/// Returns a translator of a response with the client call `c1` and these calls of Codex's own tools.
fn with_codex_calls(ids: &[&str]) -> Translator {
    let mut t = translator(Profile::Agent, vec![tool("get")]);
    event(&mut t, "rawResponseItem/completed", call("c1", "get", "{}"));
    request(&mut t, "c1");
    for id in ids {
        event(&mut t, "rawResponseItem/completed", call(id, "exec_command", "{}"));
    }
    t
}

#[test]
fn hand_over_waits_for_codex_calls_and_has_their_outputs() {
    let mut t = with_codex_calls(&["own", "blocked"]);
    let output = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert!(matches!(output.action, Action::Continue) && output.event.is_none(), "{output:?}");
    // The client's call stays unanswered in the meantime.
    assert_eq!(t.idle_timeout(), Some(tool_loop::NOT_STARTED_IDLE_TIMEOUT));
    push(&mut t, "item/started", &command("own")).unwrap();
    assert_eq!(t.idle_timeout(), Some(tool_loop::RUNNING_IDLE_TIMEOUT));
    let output = push(&mut t, "item/completed", &command("own")).unwrap();
    assert!(matches!(output.action, Action::Continue), "{output:?}");
    // The other call cannot start.
    assert_eq!(t.idle_timeout(), Some(tool_loop::NOT_STARTED_IDLE_TIMEOUT));
    assert!(matches!(idle(&mut t), Action::Interrupt));
    assert_eq!(t.idle_timeout(), Some(tool_loop::INTERRUPT_IDLE_TIMEOUT));
    for (id, text) in [("c1", "cancelled"), ("own", "files"), ("blocked", "aborted by user after 2.0s")] {
        event(&mut t, "rawResponseItem/completed", output_of(id, text));
    }
    let output = push(&mut t, "turn/completed", &ended("interrupted")).unwrap();
    let Action::HandOver(hand_over) = output.action else { panic!("handed over") };
    let text = |id: &str| {
        let item = hand_over.items.iter().rfind(|item| item.call_id() == Some(id)).unwrap();
        item.output().unwrap().to_owned()
    };
    assert_eq!(text("own"), "files");
    assert!(text("blocked").starts_with("Not run"), "{}", text("blocked"));
    let events: Vec<TurnEvent> = hand_over.into_events().collect();
    assert!(matches!(events[..], [TurnEvent::ToolCall(_), TurnEvent::Finished { .. }]), "{events:?}");
}

#[test]
fn hand_over_with_all_outputs_needs_no_interrupt() {
    let mut t = with_codex_calls(&["own"]);
    event(&mut t, "rawResponseItem/completed", output_of("own", "files"));
    let output = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert!(matches!(output.action, Action::HandOver(_)), "{output:?}");
}

#[test]
fn ignored_interrupt_hands_the_calls_over() {
    let mut t = with_codex_calls(&["own"]);
    push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    push(&mut t, "item/started", &command("own")).unwrap();
    let output = push(&mut t, "item/completed", &command("own")).unwrap();
    assert!(matches!(output.action, Action::Interrupt), "{output:?}");
    assert!(matches!(output.event, Some(TurnEvent::Item(_))), "the client gets the item too: {output:?}");
    assert!(matches!(idle(&mut t), Action::HandOver(_)));
}

#[test]
fn codex_call_finished_before_its_response_is_interrupted_for_its_output() {
    let mut t = with_codex_calls(&["own"]);
    push(&mut t, "item/completed", &command("own")).unwrap();
    let output = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert!(matches!(output.action, Action::Interrupt), "{output:?}");
}

#[test]
fn mcp_tool_with_the_name_of_a_client_tool_is_no_client_call() {
    let mut t = translator(Profile::Agent, vec![tool("get")]);
    let mut mcp = call("own", "get", "{}");
    mcp["item"]["namespace"] = "mcp__server".into();
    event(&mut t, "rawResponseItem/completed", mcp);
    let output = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert!(matches!(output.action, Action::Continue) && output.event.is_none(), "{output:?}");
}
