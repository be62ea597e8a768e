//! Tests every phase with every input for the next phase and the output.

use serde_json::json;

use super::*;
use crate::engine::{Parameters, Tool, Turn, app_server::tools::call::InvalidArguments};

fn tools() -> ToolSet {
    let strict = Tool {
        name: "strict".into(),
        strict: true,
        parameters: Parameters::Json(r#"{"type": "object"}"#.into()),
        ..Tool::default()
    };
    let plain = Tool { name: "plain".into(), ..Tool::default() };
    ToolSet::new(&Turn { tools: [strict, plain].into(), parallel_tool_calls: true, ..Turn::default() })
        .unwrap()
}

fn call(id: &str, alias: &str) -> Call {
    Call { id: id.into(), codex_id: id.into(), alias: alias.into(), arguments: "{}".into() }
}

fn plain(id: &str) -> Call {
    call(id, "plain")
}

fn request(call_id: &str) -> LoopInput<'static> {
    LoopInput::ToolRequest(ToolCall { request: RequestId(json!(call_id)), call_id: call_id.into() })
}

fn success() -> ToolCallResult {
    ToolCallResult::success(Vec::new())
}

fn invalid() -> Result<(), InvalidArguments> {
    Err(InvalidArguments("wrong".into()))
}

/// Describes a phase by its name and the ids of its calls.
fn describe_phase(phase: &Phase) -> String {
    let ids = |calls: &[Call]| calls.iter().map(|call| &*call.id).collect::<Vec<_>>().join(" ");
    match phase {
        Phase::Streaming(calls) => format!("Streaming({})", ids(calls)),
        Phase::Validating => "Validating".to_owned(),
        Phase::Correcting(calls) => {
            let calls: Vec<Call> = calls.iter().map(|(call, _)| call.clone()).collect();
            format!("Correcting({})", ids(&calls))
        }
        Phase::AwaitingCodexCalls(calls) => format!("AwaitingCodexCalls({})", ids(calls)),
        Phase::Interrupting(calls) => format!("Interrupting({})", ids(calls)),
        Phase::Parked(calls) => format!("Parked({})", ids(calls)),
        Phase::Answering(results) => {
            let calls: Vec<Call> = results.iter().map(|(call, _)| call.clone()).collect();
            format!("Answering({})", ids(&calls))
        }
        Phase::Ended => "Ended".to_owned(),
    }
}

/// Describes an output by its name and the ids of its calls or requests.
fn describe_output(output: &LoopOutput) -> String {
    let ids = |calls: &[Call]| calls.iter().map(|call| &*call.id).collect::<Vec<_>>().join(" ");
    match output {
        LoopOutput::Wait => "Wait".to_owned(),
        LoopOutput::Respond(results) => {
            let mut ids: Vec<&str> = results.iter().map(|(id, _)| id.0.as_str().unwrap()).collect();
            ids.sort_unstable();
            format!("Respond({})", ids.join(" "))
        }
        LoopOutput::Validate(calls) => format!("Validate({})", ids(calls)),
        LoopOutput::Interrupt => "Interrupt".to_owned(),
        LoopOutput::HandOver(calls) => format!("HandOver({})", ids(calls)),
        LoopOutput::Park(calls) => format!("Park({})", ids(calls)),
    }
}

/// The initial phases of the table. The call `x` of Codex's own tools is open, and the call `r` is running.
fn phases() -> [(&'static str, Phase); 8] {
    [
        ("Streaming", Phase::Streaming(vec![plain("a")])),
        ("Validating", Phase::Validating),
        ("Correcting", Phase::Correcting(vec![(plain("a"), invalid())])),
        ("AwaitingCodexCalls", Phase::AwaitingCodexCalls(vec![plain("a")])),
        ("Interrupting", Phase::Interrupting(vec![plain("a")])),
        ("Ended", Phase::Ended),
        ("Parked", Phase::Parked(vec![plain("a")])),
        ("Answering", Phase::Answering(vec![(plain("a"), ToolCallResult::failure("r".into()))])),
    ]
}

/// Makes one transition of a loop that has the open call `x` of Codex's own tools and the request for `q`.
fn transition(phase: Phase, input: LoopInput<'_>) -> String {
    let mut tool_loop = ToolLoop { phase, ..ToolLoop::default() };
    let item = json!({"type": "function_call", "call_id": "x", "name": "exec_command"}).into();
    tool_loop.codex_calls.on_item(&item);
    let LoopInput::ToolRequest(open) = request("q") else { unreachable!() };
    tool_loop.requests.insert(open);
    match tool_loop.push(input, &tools()) {
        Ok(output) => format!("{} {}", describe_phase(&tool_loop.phase), describe_output(&output)),
        Err(error) => format!("{} {}", describe_phase(&tool_loop.phase), error.reason()),
    }
}

#[test]
fn every_input_in_every_phase_makes_the_transition_of_the_table() {
    let output = RawItem::output_of_call("function_call_output", "x", "done");
    let other = RawItem::from(json!({"type": "function_call", "call_id": "y", "name": "exec_command"}));
    // One column for each phase, in the order of `phases`.
    type Row<'a> = (&'a str, &'a dyn Fn() -> LoopInput<'a>, [&'a str; 8]);
    let table: [Row<'_>; 17] = [
        (
            "client call",
            &|| LoopInput::ClientCall(plain("b")),
            [
                "Streaming(a b) Wait",
                "Validating Wait",
                "Streaming(b) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "another call of Codex's own",
            &|| LoopInput::CodexItem(&other),
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "output of the last call of Codex's own",
            &|| LoopInput::CodexItem(&output),
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "Interrupting(a) Interrupt",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "start of a call of Codex's own",
            &|| LoopInput::CodexStatus { id: "x", finished: false },
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "end of the last call of Codex's own",
            &|| LoopInput::CodexStatus { id: "x", finished: true },
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "Interrupting(a) Interrupt",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "end of another action",
            &|| LoopInput::CodexStatus { id: "z", finished: true },
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "end of the response",
            &|| LoopInput::ResponseCompleted,
            [
                "AwaitingCodexCalls(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "failure of the response",
            &|| LoopInput::ResponseFailed,
            [
                "Streaming() Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "Interrupting(a) Interrupt",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "request for a call",
            &|| request("a"),
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Streaming() Respond(a)",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Streaming() Respond(a)",
            ],
        ),
        (
            "request for another call",
            &|| request("b"),
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "idle",
            &|| LoopInput::Idle,
            [
                "Streaming(a) Respond(q)",
                "Validating Respond(q)",
                "Streaming() Respond()",
                "Interrupting(a) Interrupt",
                "Ended HandOver(a)",
                "Ended Wait",
                "Parked(a) Wait",
                "Ended Interrupt",
            ],
        ),
        (
            "valid verdicts",
            &|| LoopInput::Verdicts(vec![(plain("v"), Ok(()))]),
            [
                "Streaming(a) Wait",
                "AwaitingCodexCalls(v) Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "invalid verdict",
            &|| LoopInput::Verdicts(vec![(plain("v"), invalid())]),
            [
                "Streaming(a) Wait",
                "Correcting(v) Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "invalid verdict of a requested call",
            &|| LoopInput::Verdicts(vec![(plain("q"), invalid())]),
            [
                "Streaming(a) Wait",
                "Streaming() Respond(q)",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Parked(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "end of the turn",
            &|| LoopInput::TurnEnded,
            [
                "Ended Wait",
                "Ended Wait",
                "Ended Wait",
                "Ended HandOver(a)",
                "Ended HandOver(a)",
                "Ended Wait",
                "Ended Wait",
                "Ended Wait",
            ],
        ),
        (
            "results of the client",
            &|| LoopInput::Results(vec![("b".into(), success()), ("a".into(), success())]),
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Answering(a) Wait",
                "Answering(a) Wait",
            ],
        ),
        (
            "interrupt of the parked turn",
            &|| LoopInput::Abandoned,
            [
                "Streaming(a) Wait",
                "Validating Wait",
                "Correcting(a) Wait",
                "AwaitingCodexCalls(a) Wait",
                "Interrupting(a) Wait",
                "Ended Wait",
                "Interrupting(a) Wait",
                "Answering(a) Wait",
            ],
        ),
    ];
    for (name, input, expected) in table {
        for ((phase_name, phase), expected) in phases().into_iter().zip(expected) {
            assert_eq!(transition(phase, input()), expected, "{name} in {phase_name}");
        }
    }
}

#[test]
fn loop_that_parks_leaves_the_turn_open_and_answers_each_requested_call() {
    let mut tool_loop =
        ToolLoop { phase: Phase::Streaming(vec![plain("a"), plain("b")]), ..ToolLoop::new(true) };
    let mut push = |input| {
        let output = tool_loop.push(input, &tools()).unwrap();
        format!("{} {}", describe_phase(&tool_loop.phase), describe_output(&output))
    };
    assert_eq!(push(request("b")), "Streaming(a b) Wait");
    assert_eq!(push(LoopInput::ResponseCompleted), "Parked(a b) Park(a b)");
    let results = vec![("a".into(), success()), ("b".into(), success())];
    assert_eq!(push(LoopInput::Results(results)), "Answering(a) Respond(b)");
    assert_eq!(push(request("a")), "Streaming() Respond(a)");
    assert_eq!(push(LoopInput::ClientCall(plain("c"))), "Streaming(c) Wait");
}

#[test]
fn loop_that_drops_a_call_does_not_park() {
    let tool = Tool { name: "plain".into(), ..Tool::default() };
    let turn = Turn { tools: [tool].into(), parallel_tool_calls: false, ..Turn::default() };
    let single = ToolSet::new(&turn).unwrap();
    for (calls, expected) in [(vec![plain("a")], "Park(a)"), (vec![plain("a"), plain("b")], "HandOver(a b)")]
    {
        let mut tool_loop = ToolLoop { phase: Phase::Streaming(calls), ..ToolLoop::new(true) };
        let output = tool_loop.push(LoopInput::ResponseCompleted, &single).unwrap();
        assert_eq!(describe_output(&output), expected);
    }
}

#[test]
fn response_completed_with_strict_calls_validates_them() {
    let phase = Phase::Streaming(vec![plain("a"), call("s", "strict")]);
    assert_eq!(transition(phase, LoopInput::ResponseCompleted), "Validating Validate(a s)");
}

#[test]
fn response_completed_without_calls_waits() {
    assert_eq!(transition(Phase::default(), LoopInput::ResponseCompleted), "Streaming() Wait");
}

#[test]
fn accepted_calls_are_handed_over_once_codex_calls_have_their_output() {
    let accept = |prepare: &dyn Fn(&mut ToolLoop)| {
        let mut tool_loop = ToolLoop { phase: Phase::Streaming(vec![plain("a")]), ..ToolLoop::default() };
        prepare(&mut tool_loop);
        let output = tool_loop.push(LoopInput::ResponseCompleted, &tools()).unwrap();
        format!("{} {}", describe_phase(&tool_loop.phase), describe_output(&output))
    };
    let open = |tool_loop: &mut ToolLoop| {
        let item = json!({"type": "function_call", "call_id": "x", "name": "exec_command"}).into();
        tool_loop.codex_calls.on_item(&item);
    };
    assert_eq!(accept(&|_| {}), "Ended HandOver(a)");
    assert_eq!(accept(&open), "AwaitingCodexCalls(a) Wait");
    let finished = |tool_loop: &mut ToolLoop| {
        open(tool_loop);
        tool_loop.codex_calls.on_status("x", true);
    };
    assert_eq!(accept(&finished), "Interrupting(a) Interrupt");
}

#[test]
fn invalid_verdict_after_the_last_correction_fails_and_ends_the_loop() {
    let mut tool_loop = ToolLoop::default();
    for round in 0..=MAX_CORRECTIONS {
        tool_loop.phase = Phase::Validating;
        let verdicts = LoopInput::Verdicts(vec![(plain("v"), invalid())]);
        let output = tool_loop.push(verdicts, &tools());
        assert_eq!(output.is_err(), round == MAX_CORRECTIONS);
    }
    assert!(matches!(tool_loop.phase, Phase::Ended));
}

#[test]
fn idle_timeout_depends_on_the_phase_and_on_running_calls() {
    let timeout = |phase: Phase, requested: bool, running: bool| {
        let mut tool_loop = ToolLoop { phase, ..ToolLoop::default() };
        let item = json!({"type": "function_call", "call_id": "x", "name": "exec_command"}).into();
        tool_loop.codex_calls.on_item(&item);
        if requested {
            tool_loop.push(request("q"), &tools()).unwrap();
        }
        if running {
            tool_loop.push(LoopInput::CodexStatus { id: "x", finished: false }, &tools()).unwrap();
        }
        tool_loop.idle_timeout()
    };
    let table = [
        ("Streaming", false, false, None),
        ("Streaming", true, false, Some(REQUEST_IDLE_TIMEOUT)),
        ("Validating", false, false, None),
        ("Validating", true, false, Some(REQUEST_IDLE_TIMEOUT)),
        ("Correcting", false, false, Some(REQUEST_IDLE_TIMEOUT)),
        ("AwaitingCodexCalls", true, false, Some(NOT_STARTED_IDLE_TIMEOUT)),
        ("AwaitingCodexCalls", true, true, Some(RUNNING_IDLE_TIMEOUT)),
        ("Interrupting", true, true, Some(INTERRUPT_IDLE_TIMEOUT)),
        ("Ended", true, true, None),
    ];
    for (name, requested, running, expected) in table {
        let (_, phase) = phases().into_iter().find(|(phase_name, _)| *phase_name == name).unwrap();
        assert_eq!(timeout(phase, requested, running), expected, "{name} {requested} {running}");
    }
}
