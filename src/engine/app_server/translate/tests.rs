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
    Translator::new(ToolSet::new(&turn).unwrap(), profile, 1)
}

fn plain() -> Translator {
    translator(Profile::Agent, vec![])
}

#[expect(clippy::needless_pass_by_value, reason = "the callers write their parameters in place")]
fn events(translator: &mut Translator, method: &str, params: Value) -> Vec<TurnEvent> {
    match Delta::of(method, &params) {
        Some(delta) => translator.delta(delta).events,
        None => push(translator, method, &params).unwrap().events,
    }
}

fn push(translator: &mut Translator, method: &str, params: &Value) -> Result<TranslatorOutput, Error> {
    translator.push(Notification::parse(method, params.clone()), TURN)
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
fn text_comes_as_it_is_made_and_what_was_not_streamed_comes_at_the_end() {
    let mut t = plain();
    let message = |text: &str| json!({"item": {"type": "agentMessage", "id": "m", "text": text}});
    assert_eq!(events(&mut t, "item/started", message("")), [TurnEvent::MessageStarted]);
    assert_eq!(events(&mut t, "item/agentMessage/delta", delta("hel")), [TurnEvent::Text("hel".into())]);
    assert_eq!(events(&mut t, "item/completed", message("hello")), [TurnEvent::Text("lo".into())]);
    assert_eq!(events(&mut t, "rawResponse/completed", usage(10, 3)), []);
    let step = push(&mut t, "turn/completed", &ended("completed")).unwrap();
    assert!(matches!(step.next, Action::Over));
    let [TurnEvent::Finished { reason: FinishReason::Stop, usage: Some(usage) }] = step.events.as_slice()
    else {
        panic!("{step:?}");
    };
    assert_eq!((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens), (10, 1, 3));
}

#[test]
fn usage_is_the_sum_of_the_model_calls_and_never_added_twice() {
    let mut t = plain();
    for n in 1..=3 {
        events(&mut t, "rawResponse/completed", usage(n, n));
        let total = json!({"tokenUsage": {"total": {"inputTokens": n * (n + 1) / 2, "outputTokens": n * (n + 1) / 2}}});
        events(&mut t, "thread/tokenUsage/updated", total);
    }
    let step = push(&mut t, "turn/completed", &ended("completed")).unwrap();
    let [TurnEvent::Finished { usage: Some(usage), .. }] = step.events.as_slice() else { panic!("{step:?}") };
    assert_eq!((usage.input_tokens, usage.output_tokens), (6, 6));
}

#[test]
fn a_retry_never_repeats_text() {
    let retry = json!({"willRetry": true, "error": {"message": "Reconnecting... 1/5",
        "additionalDetails": "stream disconnected before completion: x", "codexErrorInfo": "other"}});
    let mut t = plain();
    let [TurnEvent::Notice(notice)] = &events(&mut t, "error", retry.clone())[..] else { panic!("a notice") };
    assert_eq!(notice.kind(), pb::notice::Kind::Retry);
    assert_eq!(push(&mut t, "error", &retry).unwrap_err().reason(), "UPSTREAM_UNAVAILABLE");

    let mut t = plain();
    events(&mut t, "item/agentMessage/delta", delta("said"));
    assert_eq!(push(&mut t, "error", &retry).unwrap_err().reason(), "UPSTREAM_UNAVAILABLE");
}

#[test]
fn a_retry_never_repeats_thoughts() {
    let retry =
        json!({"willRetry": true, "error": {"message": "Reconnecting... 1/5", "codexErrorInfo": "other"}});
    let part = json!({"summaryIndex": 1});
    let mut t = plain();
    let thinks = |t: &mut Translator, text: &str| events(t, "item/reasoning/summaryTextDelta", delta(text));
    assert_eq!(thinks(&mut t, "one"), [TurnEvent::Reasoning("one".into())]);
    assert!(matches!(events(&mut t, "error", retry)[..], [TurnEvent::Notice(_)]));
    assert_eq!(thinks(&mut t, "one"), []);
    assert_eq!(events(&mut t, "item/reasoning/summaryPartAdded", part), []);
    events(&mut t, "rawResponse/completed", usage(1, 1));
    assert_eq!(thinks(&mut t, "two"), [TurnEvent::Reasoning("two".into())]);
}

#[test]
fn thoughts_of_their_own_are_paragraphs() {
    let mut t = plain();
    let mut think = |method: &str, item: &str, text: &str| {
        events(&mut t, &format!("item/reasoning/{method}"), json!({"itemId": item, "delta": text}))
    };
    let told = |text: &str| [TurnEvent::Reasoning(text.into())];
    assert_eq!(think("summaryTextDelta", "a", "o"), told("o"));
    assert_eq!(think("summaryTextDelta", "a", "ne"), told("ne"));
    assert_eq!(think("summaryTextDelta", "b", ""), []);
    assert_eq!(think("summaryTextDelta", "b", "two"), told("\n\ntwo"));
    assert_eq!(think("textDelta", "b", "raw"), told("\n\nraw"));
    assert_eq!(think("textDelta", "b", "!"), told("!"));
}

#[test]
fn a_codex_that_tells_no_ends_of_responses_may_retry_each_of_them() {
    let retry =
        json!({"willRetry": true, "error": {"message": "Reconnecting... 1/5", "codexErrorInfo": "other"}});
    let mut t = plain();
    for _ in 0..3 {
        events(&mut t, "error", retry.clone());
        events(&mut t, "item/agentMessage/delta", delta("said"));
        events(&mut t, "thread/tokenUsage/updated", json!({"tokenUsage": {"total": {}}}));
    }
    events(&mut t, "item/agentMessage/delta", delta("said"));
    assert_eq!(push(&mut t, "error", &retry).unwrap_err().reason(), "UPSTREAM_UNAVAILABLE");
}

#[test]
fn nothing_is_kept_of_a_turn_that_nobody_will_ask_for() {
    let item = || json!({"turnId": TURN, "item": {"type": "reasoning", "encrypted_content": "E"}});
    for (tools, kept) in [(vec![], 0), (vec![tool("get")], 1)] {
        let mut t = translator(Profile::Agent, tools);
        events(&mut t, "rawResponseItem/completed", item());
        assert_eq!(t.produced.take().len(), kept);
    }
}

#[test]
fn a_summary_in_place_of_the_history_is_never_silent() {
    let started = json!({"item": {"type": "contextCompaction", "id": "c"}});
    let mut chat = translator(Profile::Chat, vec![]);
    assert_eq!(push(&mut chat, "item/started", &started).unwrap_err().reason(), "CONTEXT_LENGTH_EXCEEDED");
    assert!(matches!(events(&mut plain(), "item/started", started)[..], [TurnEvent::Notice(_)]));
}

fn tool(name: &str) -> Tool {
    Tool { name: name.into(), ..Tool::default() }
}

fn wanted(id: &str) -> ToolCall {
    ToolCall { request: RequestId(json!(7)), call_id: id.into() }
}

/// The model's call, as a raw item.
fn call(id: &str, tool: &str, arguments: &str) -> Value {
    let item = json!({"type": "function_call", "call_id": id, "name": tool, "arguments": arguments});
    json!({"turnId": TURN, "item": item})
}

#[test]
fn calls_are_handed_over_when_their_response_is_complete() {
    let mut t = translator(Profile::Agent, vec![tool("get"), tool("put")]);
    let reasoning = json!({"type": "reasoning", "encrypted_content": "E"});
    events(&mut t, "rawResponseItem/completed", json!({"turnId": TURN, "item": reasoning.clone()}));
    // What was injected is told too, under another turn's id; what is no JSON goes back by itself.
    events(
        &mut t,
        "rawResponseItem/completed",
        json!({"turnId": "auto-compact-0", "item": {"type": "message"}}),
    );
    let (one, broken, two) =
        (call("c1", "get", "{\"a\": 1}"), call("c0", "get", "{"), call("c2", "put", "{}"));
    for item in [&one, &broken, &two] {
        events(&mut t, "rawResponseItem/completed", item.clone());
    }
    // Codex may ask for a result before or after the end of the response.
    assert!(matches!(t.called(wanted("c1")).next, Action::Read));
    let items = vec![reasoning, one["item"].clone(), broken["item"].clone(), two["item"].clone()];
    let step = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    let [TurnEvent::ToolCall(one), TurnEvent::ToolCall(two), TurnEvent::Finished { reason, usage: Some(_) }] =
        step.events.as_slice()
    else {
        panic!("{step:?}");
    };
    assert_eq!((one.id.as_str(), one.arguments.as_str()), ("c1", "{\"a\": 1}"));
    assert_eq!((two.name.as_str(), two.arguments.as_str()), ("put", "{}"));
    assert_eq!(*reason, FinishReason::ToolCalls);
    let Action::HandOver { calls, items: produced } = step.next else { panic!("handed over") };
    let ids: Vec<&str> = calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!((ids, produced), (vec!["c1", "c2"], items));
}

#[test]
fn arguments_that_break_a_strict_schema_go_back_to_the_model() {
    let mut t = translator(Profile::Agent, vec![strict()]);
    let wrong = || call("c1", "get", "{\"city\": 5}");
    for early in [true, false] {
        events(&mut t, "rawResponseItem/completed", wrong());
        if early {
            t.called(wanted("c1"));
        }
        let mut step = response_checked(&mut t).unwrap();
        if !early {
            assert!(matches!(step.next, Action::Read));
            step = t.called(wanted("c1"));
        }
        let Action::Answer(answers) = step.next else { panic!("{step:?}") };
        assert_eq!((&answers[0].0, answers[0].1.success), (&RequestId(json!(7)), false));
    }
    events(&mut t, "rawResponseItem/completed", wrong());
    assert_eq!(response_checked(&mut t).unwrap_err().reason(), "TURN_FAILED");
}

/// Ends a response whose calls are to be checked.
fn response_checked(t: &mut Translator) -> Result<TranslatorOutput, Error> {
    let step = push(t, "rawResponse/completed", &usage(5, 5))?;
    let Action::Check(calls) = step.next else { panic!("{step:?}") };
    let verdicts = validate_calls::validate_now(&t.tools(), calls, None)?;
    t.checked(verdicts)
}

#[test]
fn calls_that_codex_sends_back_itself_are_not_waited_for() {
    // A half of a letter is no JSON that Codex can read, but a number may be as large as it likes.
    for (first, asked) in [(r#"{"city": "\ud800"}"#, false), (r#"{"city": 1e999}"#, true)] {
        let mut t = translator(Profile::Agent, vec![strict()]);
        events(&mut t, "rawResponseItem/completed", call("c1", "get", first));
        events(&mut t, "rawResponseItem/completed", call("c2", "get", r#"{"city": 5}"#));
        t.called(wanted("c2"));
        let mut step = response_checked(&mut t).unwrap();
        if asked {
            assert!(matches!(step.next, Action::Read));
            step = t.called(wanted("c1"));
        }
        let Action::Answer(answers) = step.next else { panic!("{first}: {step:?}") };
        assert_eq!(answers.len(), 1 + usize::from(asked));
    }
}

#[test]
fn a_correction_does_not_wait_for_ever() {
    for asked in [0, 1] {
        let mut t = translator(Profile::Agent, vec![strict()]);
        for id in ["c1", "c2"] {
            events(&mut t, "rawResponseItem/completed", call(id, "get", r#"{"city": 5}"#));
        }
        response_checked(&mut t).unwrap();
        if asked == 1 {
            assert!(matches!(t.called(wanted("c2")).next, Action::Read));
        }
        // Codex asks for no more, whyever.
        assert_eq!(t.patience(), Some(QUIET));
        let Action::Answer(answers) = t.quiet().next else { panic!("answers") };
        assert_eq!(answers.len(), asked);
        assert_eq!(t.patience(), None);
    }
}

/// `{"type": "object", "properties": {"city": {"type": "string"}}}`
fn strict() -> Tool {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    Tool { strict: true, parameters: Parameters::Json(schema.to_string()), ..tool("get") }
}

#[test]
fn failures_are_told_once_by_the_end_of_the_turn() {
    let mut t = plain();
    let error = json!({"willRetry": false, "error": {"message": "x", "codexErrorInfo": "serverOverloaded"}});
    assert_eq!(events(&mut t, "error", error), []);
    assert_eq!(push(&mut t, "turn/completed", &ended("failed")).unwrap_err().reason(), "TURN_FAILED");
    assert_eq!(
        push(&mut plain(), "turn/completed", &ended("interrupted")).unwrap_err().reason(),
        "TURN_FAILED"
    );
}

#[test]
fn calls_of_a_response_that_breaks_off_are_answered_and_those_of_a_slow_one_handed_over() {
    for broken in [true, false] {
        let mut t = translator(Profile::Agent, vec![tool("get")]);
        events(&mut t, "rawResponseItem/completed", call("c1", "get", "{}"));
        assert!(t.patience().is_none());
        t.called(wanted("c1"));
        assert_eq!(t.patience(), Some(QUIET));
        let Action::Answer(answers) = t.quiet().next else { panic!("answers") };
        assert_eq!((answers.len(), &answers[0].0, answers[0].1.success), (1, &RequestId(json!(7)), false));
        assert!(t.patience().is_none());
        if broken {
            let error = json!({"error": {"message": "x", "codexErrorInfo": "other"}, "willRetry": true});
            push(&mut t, "error", &error).unwrap();
        }
        let step = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
        assert_eq!(matches!(step.next, Action::HandOver { .. }), !broken, "{step:?}");
    }
}

/// Something about one of Codex's own commands.
fn command(id: &str) -> Value {
    json!({"item": {"type": "commandExecution", "id": id, "command": "ls", "status": "inProgress"}})
}

fn output(id: &str, text: &str) -> Value {
    json!({"turnId": TURN, "item": {"type": "function_call_output", "call_id": id, "output": text}})
}

/// A translator that has heard of a response with a call of the client's and these of Codex's own.
fn beside(own: &[&str]) -> Translator {
    let mut t = translator(Profile::Agent, vec![tool("get")]);
    events(&mut t, "rawResponseItem/completed", call("c1", "get", "{}"));
    t.called(wanted("c1"));
    for id in own {
        events(&mut t, "rawResponseItem/completed", call(id, "exec_command", "{}"));
    }
    t
}

#[test]
fn codexs_own_calls_beside_the_clients_come_to_their_end_first() {
    let mut t = beside(&["own", "blocked"]);
    let step = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert!(matches!(step.next, Action::Read) && step.events.is_empty(), "{step:?}");
    // Nobody is to answer the client's call in the meantime.
    assert_eq!(t.patience(), Some(NOT_BEGUN));
    push(&mut t, "item/started", &command("own")).unwrap();
    assert_eq!(t.patience(), Some(RUNNING));
    let step = push(&mut t, "item/completed", &command("own")).unwrap();
    assert!(matches!(step.next, Action::Read), "{step:?}");
    // The other one cannot begin.
    assert_eq!(t.patience(), Some(NOT_BEGUN));
    assert!(matches!(t.quiet().next, Action::Interrupt));
    assert_eq!(t.patience(), Some(ENDING));
    for (id, text) in [("c1", "cancelled"), ("own", "files"), ("blocked", "aborted by user after 2.0s")] {
        events(&mut t, "rawResponseItem/completed", output(id, text));
    }
    let step = push(&mut t, "turn/completed", &ended("interrupted")).unwrap();
    assert!(matches!(step.events[..], [TurnEvent::ToolCall(_), TurnEvent::Finished { .. }]), "{step:?}");
    let Action::HandOver { items, .. } = step.next else { panic!("handed over") };
    let said =
        |id: &str| items.iter().rfind(|item| item["call_id"] == id).unwrap()["output"].as_str().unwrap();
    assert_eq!(said("own"), "files");
    assert!(said("blocked").starts_with("Not run"), "{}", said("blocked"));
}

#[test]
fn what_is_answered_needs_no_interrupt_and_a_worker_that_does_not_obey_is_not_waited_for() {
    let mut t = beside(&["own"]);
    events(&mut t, "rawResponseItem/completed", output("own", "files"));
    let step = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert!(matches!(step.next, Action::HandOver { .. }), "{step:?}");

    let mut t = beside(&["own"]);
    push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    push(&mut t, "item/started", &command("own")).unwrap();
    let step = push(&mut t, "item/completed", &command("own")).unwrap();
    assert!(matches!(step.next, Action::Interrupt), "{step:?}");
    assert!(
        matches!(step.events[..], [TurnEvent::Item(_)]),
        "the client is told of it all the same: {step:?}"
    );
    // A worker that does not obey takes nothing from the client.
    assert!(matches!(t.quiet().next, Action::HandOver { .. }));

    // What has ended before the response has may still be without its output.
    let mut t = beside(&["own"]);
    push(&mut t, "item/completed", &command("own")).unwrap();
    let step = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert!(matches!(step.next, Action::Interrupt), "{step:?}");

    // A tool of an MCP server that has the name of a client's one.
    let mut t = translator(Profile::Agent, vec![tool("get")]);
    let mut mcp = call("own", "get", "{}");
    mcp["item"]["namespace"] = "mcp__server".into();
    events(&mut t, "rawResponseItem/completed", mcp);
    let step = push(&mut t, "rawResponse/completed", &usage(5, 5)).unwrap();
    assert!(matches!(step.next, Action::Read) && step.events.is_empty(), "{step:?}");
}
