//! The acts of every scenario.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    act::{Act, Answer, answer, message, words},
    failures::{self, Failure},
    history,
    items::{self, UNKNOWN_MODEL},
    scenario::Scenario,
    tools,
    version::Release,
    wire::Usage,
};
use crate::{items::GARBAGE, play};

/// What a turn is given.
#[derive(Debug)]
pub(crate) struct TurnInput {
    pub(crate) release: Release,
    /// The items of the thread, as they came.
    pub(crate) items: Vec<Value>,
    /// The parameters of `thread/start` and `turn/start`.
    pub(crate) thread_start: Value,
    pub(crate) turn_start: Value,
    pub(crate) cwd: String,
    /// Threads that are loaded.
    pub(crate) threads: usize,
}

/// What most turns cost; the same as with `exec`.
const SOME: Usage = Usage::new(100, 40, 5);

/// The acts of a turn.
pub(crate) fn acts(scenario: &Scenario, given: &TurnInput) -> Vec<Act> {
    match scenario {
        Scenario::Echo | Scenario::Overloaded(_) | Scenario::MuteStart | Scenario::MuteInject => {
            answer(&history::last_user_text(&given.items), SOME)
        }
        Scenario::UnknownModel => {
            let mut acts = vec![Act::Notify("warning", json!({"message": UNKNOWN_MODEL}))];
            acts.extend(answer(&history::last_user_text(&given.items), SOME));
            acts
        }
        Scenario::Report => whole(vec![report(given).to_string()]),
        Scenario::Text(chars) => whole(digits(*chars)),
        Scenario::Stream(count, every) => {
            let stream = Act::Stream { left: *count, every: *every };
            vec![Act::Open(None), stream, Act::Close, Act::Response(SOME), Act::Settle, Act::Finish]
        }
        Scenario::Flood(bytes) => {
            let flood = Act::Flood { left: *bytes };
            vec![Act::Open(None), flood, Act::Close, Act::Response(SOME), Act::Settle, Act::Finish]
        }
        Scenario::Slow(pause) => slow(*pause),
        Scenario::Gated(pipe) => {
            let mut acts = message(words("before"), None);
            acts.push(Act::Gate(pipe.clone()));
            then(acts, "after")
        }
        Scenario::Commentary => {
            let mut acts = message(words("First I look."), Some("commentary"));
            acts.extend(message(words("Then I think."), Some("commentary")));
            acts.extend(message(words("The final answer."), Some("final_answer")));
            acts.extend([Act::Response(SOME), Act::Settle, Act::Finish]);
            acts
        }
        Scenario::Items => then(items::every(&given.cwd), "the end"),
        Scenario::Compaction => {
            let item = json!({"type": "contextCompaction", "id": "compaction_1"});
            let acts = vec![
                Act::Started(item.clone()),
                Act::Response(SOME),
                Act::Settle,
                Act::Pause(Duration::from_millis(20)),
                Act::Completed(item),
            ];
            then(acts, "the answer after compaction")
        }
        Scenario::Reasoning => {
            let summary = ["**Pondering**", "\n\n", "what ", "to ", "say"].map(str::to_owned).to_vec();
            let mut acts = vec![Act::Think { summary, raw: None }];
            acts.push(Act::Think {
                summary: vec!["still ".to_owned(), "pondering".to_owned()],
                raw: Some("raw thoughts"),
            });
            acts.extend(answer("final answer", Usage { reasoning: 7, ..SOME }));
            acts
        }
        Scenario::Usage => usage(&given.cwd),
        Scenario::Tools { calls, style } => {
            let outputs = history::last_outputs(&given.items);
            if outputs.is_empty() {
                tools::calling(&offered(given), *calls, *style, &given.cwd)
            } else {
                tools::answering(&outputs)
            }
        }
        Scenario::Failed { failure, after_text } => fail(failure, *after_text),
        Scenario::Reconnect(times, end) => reconnect(*times, end.as_ref(), given.release),
        Scenario::ReconnectForever => forever(given.release),
        Scenario::Replay(times) => replay(*times, given.release),
        Scenario::Hang { after_text: true } | Scenario::Deaf { after_text: true } => begun(Act::Hang),
        Scenario::Hang { after_text: false } | Scenario::Deaf { after_text: false } | Scenario::MuteTurn => {
            vec![Act::Hang]
        }
        Scenario::Grandchild => vec![Act::Grandchild, Act::Hang],
        Scenario::Die => begun(Act::Exit { code: 1, words: "Error: the fake was asked to die\n" }),
        Scenario::Crash => vec![Act::Exit { code: 101, words: play::CRASH }],
        Scenario::Exit0 => vec![Act::Exit { code: 0, words: "" }],
        Scenario::Stop => begun(Act::Stop),
        Scenario::CloseStdin => begun(Act::CloseStdin),
        Scenario::Garbage => then(vec![Act::Bytes(garbage())], "the answer among garbage"),
        Scenario::BadUtf8 => {
            let mut bytes = br#"{"method":"warning","params":{"message":"caf"#.to_vec();
            bytes.extend_from_slice(b"\xe9 \xff\"}}\n\xff\xfe\x00\n");
            then(vec![Act::Bytes(bytes)], "the answer after bad bytes")
        }
        Scenario::LongLine(bytes) => {
            let item = items::command_item(
                "cmd_long",
                &given.cwd,
                "yes",
                "completed",
                Some((&play::digits(*bytes), 0)),
            );
            then(vec![Act::Completed(item)], "the answer after a long line")
        }
        Scenario::Babble(bytes) => {
            let mut babble = vec![b'x'; *bytes];
            babble.push(b'\n');
            then(vec![Act::Bytes(babble)], "the answer after babble")
        }
        Scenario::Stderr(bytes) => then(vec![Act::Stderr(*bytes)], "the answer beside much chatter"),
        Scenario::Approval => approval(&given.cwd),
        Scenario::Memory(mebibytes) => then(vec![Act::Leak(mebibytes << 20)], "the answer of one who grows"),
    }
}

/// The tools that the model is shown: one with a built-in's name never is.
fn offered(given: &TurnInput) -> Vec<Value> {
    let tools = given.thread_start["dynamicTools"].as_array().into_iter().flatten();
    tools.filter(|tool| tool["name"] != "exec_command" && tool["name"] != "write_stdin").cloned().collect()
}

/// One message in these pieces.
fn whole(pieces: Vec<String>) -> Vec<Act> {
    let mut acts = message(pieces, None);
    acts.extend([Act::Response(SOME), Act::Settle, Act::Finish]);
    acts
}

fn then(mut acts: Vec<Act>, text: &str) -> Vec<Act> {
    acts.extend(answer(text, SOME));
    acts
}

/// One piece of text, then this.
fn begun(act: Act) -> Vec<Act> {
    vec![Act::Open(None), Act::Delta("begun ".to_owned()), act, Act::Hang]
}

/// Text in which a lost piece shows, sixteen characters a piece.
fn digits(chars: usize) -> Vec<String> {
    let text = play::digits(chars);
    text.as_bytes().chunks(16).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
}

fn slow(pause: Duration) -> Vec<Act> {
    let said = |number: usize| {
        let mut acts = vec![Act::Pause(pause)];
        acts.extend(message(words(&format!("message {number}")), None));
        acts
    };
    let mut acts: Vec<Act> = (0..5).flat_map(said).collect();
    acts.extend([Act::Response(SOME), Act::Settle, Act::Finish]);
    acts
}

/// Three responses whose sum is what `exec` reports for its `fake:usage`.
fn usage(cwd: &str) -> Vec<Act> {
    let counts = |input, cached, cache_write, output, reasoning| Usage {
        input,
        cached,
        cache_write,
        output,
        reasoning,
    };
    let mut acts = Vec::new();
    for (number, usage) in [counts(300, 200, 10, 10, 5), counts(400, 350, 15, 15, 6)].into_iter().enumerate()
    {
        acts.push(Act::Response(usage));
        acts.extend(items::command(&format!("cmd_{number}"), cwd, "true", "", 0));
        acts.push(Act::Settle);
    }
    acts.extend(answer("counted", counts(500, 450, 5, 25, 9)));
    acts
}

fn fail(failure: &Failure, after_text: bool) -> Vec<Act> {
    let mut acts = Vec::new();
    if after_text {
        acts.push(Act::Open(None));
        acts.extend(words("some text before").into_iter().map(Act::Delta));
    }
    if let Some(partial) = failure.partial {
        // An answer that the upstream cut short is told as far as it goes.
        acts.extend(message(words(partial), None));
        acts.extend([Act::Unfinished(SOME), Act::Settle]);
    }
    acts.push(Act::Fail(failure.clone()));
    acts
}

fn reconnect(times: usize, end: Option<&Failure>, release: Release) -> Vec<Act> {
    let cause = end.cloned().or_else(|| failures::named("503"));
    let mut acts = Vec::new();
    for time in 1..=times {
        let error = cause.as_ref().map(|cause| cause.retry(&format!("{time}/5"), release));
        acts.push(Act::Retry(error.unwrap_or_default()));
        acts.push(Act::Pause(Duration::from_millis(20)));
    }
    match end {
        Some(failure) => acts.extend(fail(failure, false)),
        None => acts.extend(answer("the answer after reconnecting", SOME)),
    }
    acts
}

/// For as long as anybody would test.
fn forever(release: Release) -> Vec<Act> {
    let error = failures::retry(
        "waiting for network",
        Value::Null,
        "Connection failed: error sending request",
        release,
    );
    let pauses = (0..).map(|time: u32| Duration::from_millis(50 << time.min(8)));
    let retries = pauses.take(300).flat_map(|pause| [Act::Retry(error.clone()), Act::Pause(pause)]);
    retries.collect()
}

/// The stream breaks and every attempt begins anew, as with the real one.
fn replay(times: usize, release: Release) -> Vec<Act> {
    let cut =
        "stream disconnected before completion: Transport error: network error: error decoding response body";
    let mut acts = Vec::new();
    for time in 1..=times {
        acts.extend([Act::Open(None), Act::Delta("one ".to_owned()), Act::Delta("two ".to_owned())]);
        acts.push(Act::Retry(failures::retry(&format!("{time}/5"), Value::Null, cut, release)));
        acts.push(Act::Pause(Duration::from_millis(20)));
    }
    acts.extend(answer("one two three", SOME));
    acts
}

fn garbage() -> Vec<u8> {
    let more = [
        r#"{"method":"item/agentMessage/delta"}"#,
        r#"{"method":"turn/completed","params":{}}"#,
        r#"{"method":"item/started","params":{"threadId":5,"item":null}}"#,
        r#"{"id":999999999,"result":{}}"#,
        r#"{"id":"not one of yours","error":{"code":1,"message":"x"}}"#,
    ];
    GARBAGE.iter().chain(&more).flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// Three requests; the answers are the text.
fn approval(cwd: &str) -> Vec<Act> {
    let line = "/bin/bash -lc 'touch esc'";
    let item = |status: &str| {
        let mut item = items::command_item("cmd_ask", cwd, "touch esc", status, None);
        item["processId"] = Value::Null;
        item["source"] = json!("agent");
        item
    };
    let declined = item("declined");
    let question = json!({"id": "q", "header": "h", "question": "q?", "isOther": false, "isSecret": false, "options": [
        {"label": "a", "description": "d"}, {"label": "b", "description": "d"}]});
    vec![
        Act::Started(item("inProgress")),
        Act::Ask(
            "item/commandExecution/requestApproval",
            json!({"kind": "command", "itemId": "cmd_ask", "startedAtMs": 0, "environmentId": "local", "reason": "need",
                   "command": line, "cwd": cwd, "commandActions": [{"type": "unknown", "command": "touch esc"}],
                   "proposedExecpolicyAmendment": ["touch", "esc"], "availableDecisions": ["accept", "cancel"]}),
        ),
        Act::Ask(
            "item/tool/requestUserInput",
            json!({"itemId": "call_ask", "isBlocking": true, "questions": [question], "autoResolutionMs": null}),
        ),
        Act::Ask("item/hologram/request", json!({"depth": 3})),
        Act::Await(Box::new(move |answers: Vec<Answer>| {
            let answered: serde_json::Map<String, Value> =
                answers.into_iter().map(|answer| (answer.method.to_owned(), answer.answer)).collect();
            then(vec![Act::Completed(declined)], &Value::Object(answered).to_string())
        })),
    ]
}

/// What the thread and the process were given.
fn report(given: &TurnInput) -> Value {
    let argv: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let mut env: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    env.sort();
    json!({
        "instructions": given.thread_start["developerInstructions"],
        "base": given.thread_start["baseInstructions"],
        "items": given.items,
        "seen": history::seen(&given.items),
        "thread_start": given.thread_start,
        "turn_start": given.turn_start,
        "argv": argv,
        "env": env,
        "cwd": given.cwd,
        "threads": given.threads,
    })
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
