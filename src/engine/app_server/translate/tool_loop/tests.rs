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
    ToolSet::new(&Turn { tools: [strict, plain].into(), ..Turn::default() }).unwrap()
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
    }
}

/// The initial phases of the table. The call `x` of Codex's own tools is open, and the call `r` is running.
fn phases() -> [(&'static str, Phase); 6] {
    [
        ("Streaming", Phase::Streaming(vec![plain("a")])),
        ("Validating", Phase::Validating),
        ("Correcting", Phase::Correcting(vec![(plain("a"), invalid())])),
        ("AwaitingCodexCalls", Phase::AwaitingCodexCalls(vec![plain("a")])),
        ("Interrupting", Phase::Interrupting(vec![plain("a")])),
        ("Ended", Phase::Ended),
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
    type Row<'a> = (&'a str, &'a dyn Fn() -> LoopInput<'a>, [&'a str; 6]);
    let table: [Row<'_>; 15] = [
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
