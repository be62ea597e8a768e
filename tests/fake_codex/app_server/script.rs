//! The acts of every scenario.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    act::{Act, Answer, answer, message, split_words},
    conversation,
    failures::{self, Failure},
    history,
    items::{self, UNKNOWN_MODEL},
    scenario::{Scenario, SecondAnswer},
    tools,
    version::Release,
    wire::{Usage, unix_ms},
};
use crate::{items::GARBAGE, play};

/// The input of a turn.
#[derive(Debug)]
pub(crate) struct TurnInput {
    pub(crate) release: Release,
    /// The items of the thread.
    pub(crate) items: Vec<Value>,
    /// The parameters of `thread/start` and `turn/start`.
    pub(crate) thread_start: Value,
    pub(crate) turn_start: Value,
    pub(crate) cwd: String,
    /// The number of loaded threads.
    pub(crate) threads: usize,
    /// The effort, which stays for the next turns of the thread.
    pub(crate) effort: String,
    /// The number of former turns of the thread.
    pub(crate) turns: usize,
    /// The number of `thread/backgroundTerminals/clean` of the thread.
    pub(crate) cleans: usize,
    /// The id of the thread.
    pub(crate) thread: String,
}

#[cfg(test)]
impl TurnInput {
    /// Returns the input of a turn with the client tool `f`.
    pub(crate) fn of_items(items: &[Value]) -> Self {
        Self {
            release: Release::V169,
            items: items.to_vec(),
            thread_start: json!({"dynamicTools": [{"name": "f", "inputSchema": {}}]}),
            turn_start: json!({}),
            cwd: "/".to_owned(),
            threads: 1,
            effort: "low".to_owned(),
            turns: 0,
            cleans: 0,
            thread: String::new(),
        }
    }
}

/// The usage of most turns, equal to that of `exec`.
const DEFAULT_USAGE: Usage = Usage::new(100, 40, 5);

/// Returns the acts of a turn.
pub(crate) fn acts(scenario: &Scenario, turn_input: &TurnInput) -> Vec<Act> {
    match scenario {
        Scenario::Echo | Scenario::Overloaded(_) | Scenario::MuteStart | Scenario::MuteInject => {
            answer(&history::last_user_text(&turn_input.items), DEFAULT_USAGE)
        }
        Scenario::UnknownModel => {
            let mut acts = vec![Act::Notify("warning", json!({"message": UNKNOWN_MODEL}))];
            acts.extend(answer(&history::last_user_text(&turn_input.items), DEFAULT_USAGE));
            acts
        }
        Scenario::Limits(percent) => {
            let mut acts = vec![account_limits(*percent, 7200)];
            acts.extend(answer(&history::last_user_text(&turn_input.items), DEFAULT_USAGE));
            acts
        }
        Scenario::UsageLimit(seconds) => {
            let mut acts = vec![account_limits(100, *seconds)];
            acts.extend(failures::from_kind("429-usage-limit").map(Act::Fail));
            acts
        }
        Scenario::Report => one_message(vec![report(turn_input).to_string()]),
        Scenario::Login { after_text } => match crate::login::request() {
            Ok(name) => one_message(vec![name]),
            Err(kind) => {
                failures::from_kind(kind).map(|failure| fail(&failure, *after_text)).unwrap_or_default()
            }
        },
        Scenario::Text(chars) => one_message(digits(*chars)),
        Scenario::Stream(count, every) => open_message(Act::Stream { left: *count, every: *every }),
        Scenario::Flood(bytes) => open_message(Act::Flood { left: *bytes }),
        Scenario::Slow(pause) => slow(*pause),
        Scenario::Gated(pipe) => {
            let mut acts = message(split_words("before"), None);
            acts.push(Act::Gate(pipe.clone()));
            with_answer(acts, "after")
        }
        Scenario::Commentary => {
            let mut acts = message(split_words("First I look."), Some("commentary"));
            acts.extend(message(split_words("Then I think."), Some("commentary")));
            acts.extend(message(split_words("The final answer."), Some("final_answer")));
            acts.extend([Act::Response(DEFAULT_USAGE), Act::ReportUsage, Act::Finish]);
            acts
        }
        Scenario::Items => with_answer(items::every(&turn_input.cwd), "the end"),
        Scenario::Compaction => {
            let item = json!({"type": "contextCompaction", "id": "compaction_1"});
            let acts = vec![
                Act::Started(item.clone()),
                Act::Response(DEFAULT_USAGE),
                Act::ReportUsage,
                Act::Pause(Duration::from_millis(20)),
                Act::Completed(item),
            ];
            with_answer(acts, "the answer after compaction")
        }
        Scenario::Reasoning => {
            let summary = ["**Pondering**", "\n\n", "what ", "to ", "say"].map(str::to_owned).to_vec();
            let mut acts = vec![Act::Reasoning { summary, raw: None }];
            acts.push(Act::Reasoning {
                summary: vec!["still ".to_owned(), "pondering".to_owned()],
                raw: Some("raw thoughts"),
            });
            acts.extend(answer("final answer", Usage { reasoning: 7, ..DEFAULT_USAGE }));
            acts
        }
        Scenario::Usage => usage(&turn_input.cwd),
        Scenario::Tools { calls, style } => {
            let outputs = history::last_outputs(&turn_input.items);
            if outputs.is_empty() {
                tools::call_acts(&offered(turn_input), *calls, *style, &turn_input.cwd)
            } else {
                tools::answer_acts(&outputs)
            }
        }
        Scenario::Acted(failure) => {
            let mut acts = items::command("cmd_1", &turn_input.cwd, "echo fine", "fine\n", 0);
            acts.extend(failure.as_ref().map_or_else(|| vec![Act::Hang], |failure| fail(failure, false)));
            acts
        }
        Scenario::Failed { failure, after_text } => fail(failure, *after_text),
        Scenario::Reconnect(times, end) => reconnect(*times, end.as_ref(), turn_input.release),
        Scenario::ReconnectForever => endless_retries(turn_input.release),
        Scenario::SilentRetry(second) => silent_retry(*second, turn_input.release),
        Scenario::WebSocketRefused => websocket_refused(turn_input.release),
        Scenario::Replay(times) => replay(*times, turn_input.release),
        Scenario::Hang { after_text: true } | Scenario::Deaf { after_text: true } => text_then(Act::Hang),
        Scenario::Hang { after_text: false } | Scenario::Deaf { after_text: false } | Scenario::MuteTurn => {
            vec![Act::Hang]
        }
        Scenario::Grandchild => vec![Act::Grandchild, Act::Hang],
        Scenario::Die => {
            text_then(Act::Exit { code: 1, stderr: "Error: the scenario `die` ends the process\n" })
        }
        Scenario::Crash => vec![Act::Exit { code: 101, stderr: play::CRASH }],
        Scenario::Exit0 => vec![Act::Exit { code: 0, stderr: "" }],
        Scenario::Stop => text_then(Act::Stop),
        Scenario::CloseStdin => text_then(Act::CloseStdin),
        Scenario::Garbage => with_answer(vec![Act::Bytes(garbage())], "the answer among garbage"),
        Scenario::BadUtf8 => {
            let mut bytes = br#"{"method":"warning","params":{"message":"caf"#.to_vec();
            bytes.extend_from_slice(b"\xe9 \xff\"}}\n\xff\xfe\x00\n");
            with_answer(vec![Act::Bytes(bytes)], "the answer after bad bytes")
        }
        Scenario::LongLine(bytes) => {
            let item = items::command_item(
                "cmd_long",
                &turn_input.cwd,
                "yes",
                "completed",
                Some((&play::digits(*bytes), 0)),
            );
            with_answer(vec![Act::Completed(item)], "the answer after a long line")
        }
        Scenario::Babble(bytes) => {
            let mut babble = vec![b'x'; *bytes];
            babble.push(b'\n');
            with_answer(vec![Act::Bytes(babble)], "the answer after babble")
        }
        Scenario::Stderr(bytes) => with_answer(vec![Act::Stderr(*bytes)], "the answer with much stderr"),
        Scenario::Transcript => one_message(split_words(&conversation::transcript(turn_input))),
        Scenario::Directives => conversation::acts(turn_input),
        Scenario::Approval => approval(&turn_input.cwd),
        Scenario::Memory(mebibytes) => {
            with_answer(vec![Act::Leak(mebibytes << 20)], "the answer after growing")
        }
    }
}

/// A turn of one message whose text is written by `act`.
fn open_message(act: Act) -> Vec<Act> {
    vec![Act::Open(None), act, Act::Close, Act::Response(DEFAULT_USAGE), Act::ReportUsage, Act::Finish]
}

/// Returns whether commands run: the shell tool is enabled for thread and process, and the thread has an environment or the
/// mode is `careless`.
pub(crate) fn commands_run(turn_input: &TurnInput) -> bool {
    let careless = crate::env("FAKE_CODEX_APP_SERVER").as_deref() == Some("careless");
    let enabled_for_process = || !std::env::args().any(|argument| argument == "features.shell_tool=false");
    let enabled = turn_input.thread_start["config"]["features.shell_tool"]
        .as_bool()
        .unwrap_or_else(enabled_for_process);
    enabled && (careless || turn_input.thread_start["environments"] != json!([]))
}

/// Returns the tools for the model. Like the real CLI, drops tools with the name of a built-in tool.
pub(crate) fn offered(turn_input: &TurnInput) -> Vec<Value> {
    let tools = turn_input.thread_start["dynamicTools"].as_array().into_iter().flatten();
    tools.filter(|tool| tool["name"] != "exec_command" && tool["name"] != "write_stdin").cloned().collect()
}

/// Returns the acts of a turn with one message in these deltas.
fn one_message(pieces: Vec<String>) -> Vec<Act> {
    let mut acts = message(pieces, None);
    acts.extend([Act::Response(DEFAULT_USAGE), Act::ReportUsage, Act::Finish]);
    acts
}

fn with_answer(mut acts: Vec<Act>, text: &str) -> Vec<Act> {
    acts.extend(answer(text, DEFAULT_USAGE));
    acts
}

/// Returns one delta of text, then the act.
fn text_then(act: Act) -> Vec<Act> {
    vec![Act::Open(None), Act::Delta("begun ".to_owned()), act, Act::Hang]
}

/// Returns digits in deltas of sixteen characters, so that a test detects a missing delta.
fn digits(chars: usize) -> Vec<String> {
    let text = play::digits(chars);
    text.as_bytes().chunks(16).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
}

fn slow(pause: Duration) -> Vec<Act> {
    let paused_message = |number: usize| {
        let mut acts = vec![Act::Pause(pause)];
        acts.extend(message(split_words(&format!("message {number}")), None));
        acts
    };
    let mut acts: Vec<Act> = (0..5).flat_map(paused_message).collect();
    acts.extend([Act::Response(DEFAULT_USAGE), Act::ReportUsage, Act::Finish]);
    acts
}

/// Returns three responses whose total usage is that of `fake:usage` of `exec`.
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
        acts.push(Act::ReportUsage);
    }
    acts.extend(answer("counted", counts(500, 450, 5, 25, 9)));
    acts
}

/// Reports the limits of the account: a window of 5 hours that begins again after `seconds`, and one of a week.
fn account_limits(used_percent: usize, seconds: usize) -> Act {
    let now = usize::try_from(unix_ms() / 1000).unwrap_or_default();
    let window = |used: usize, minutes: usize, resets_at: usize| json!({"usedPercent": used, "windowDurationMins": minutes, "resetsAt": resets_at});
    let limits = json!({"limitId": "codex", "limitName": null, "normalModelSlug": null,
                        "primary": window(used_percent, 300, now + seconds),
                        "secondary": window(13, 10_080, now + 500_000),
                        "credits": {"hasCredits": true, "unlimited": false, "balance": "12.50"},
                        "individualLimit": null, "spendControlReached": null, "planType": "pro",
                        "rateLimitReachedType": null});
    Act::NotifyAll("account/rateLimits/updated", json!({"rateLimits": limits}))
}

fn fail(failure: &Failure, after_text: bool) -> Vec<Act> {
    let mut acts = Vec::new();
    if after_text {
        acts.push(Act::Open(None));
        acts.extend(split_words("some text before").into_iter().map(Act::Delta));
    }
    if let Some(partial) = failure.partial {
        // The real CLI delivers the received part of an incomplete answer.
        acts.extend(message(split_words(partial), None));
        acts.extend([Act::Unfinished(DEFAULT_USAGE), Act::ReportUsage]);
    }
    acts.push(Act::Fail(failure.clone()));
    acts
}

fn reconnect(times: usize, end: Option<&Failure>, release: Release) -> Vec<Act> {
    let cause = end.cloned().or_else(|| failures::from_kind("503"));
    let mut acts = Vec::new();
    for time in 1..=times {
        let error = cause.as_ref().map(|cause| cause.retry(&format!("{time}/5"), release));
        acts.push(Act::Retry(error.unwrap_or_default()));
        acts.push(Act::Pause(Duration::from_millis(20)));
    }
    match end {
        Some(failure) => acts.extend(fail(failure, false)),
        None => acts.extend(answer("the answer after reconnecting", DEFAULT_USAGE)),
    }
    acts
}

/// Returns 300 retries, which last longer than any test.
fn endless_retries(release: Release) -> Vec<Act> {
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

/// Returns broken attempts that each start over, like the real CLI, and then an answer.
fn replay(times: usize, release: Release) -> Vec<Act> {
    let cut =
        "stream disconnected before completion: Transport error: network error: error decoding response body";
    let mut acts = Vec::new();
    for time in 1..=times {
        acts.extend([Act::Open(None), Act::Delta("one ".to_owned()), Act::Delta("two ".to_owned())]);
        acts.push(Act::Retry(failures::retry(&format!("{time}/5"), Value::Null, cut, release)));
        acts.push(Act::Pause(Duration::from_millis(20)));
    }
    acts.extend(answer("one two three", DEFAULT_USAGE));
    acts
}

/// Returns an attempt that breaks off without a report, as over a WebSocket, and another attempt.
fn silent_retry(second: SecondAnswer, release: Release) -> Vec<Act> {
    let text = "one two three four";
    let broken = || vec![Act::Open(None), Act::Delta("one ".to_owned()), Act::Delta("two ".to_owned())];
    let (mut acts, rest) = match second {
        SecondAnswer::Same => (broken(), answer(text, DEFAULT_USAGE)),
        SecondAnswer::Other => (broken(), answer("one or two", DEFAULT_USAGE)),
        SecondAnswer::Filtered => {
            let reason =
                "stream disconnected before completion: Incomplete response returned, reason: content_filter";
            let mut again = message(split_words(text), None);
            again.push(Act::Retry(failures::retry("2/5", Value::Null, reason, release)));
            again.push(Act::Hang);
            (message(split_words(text), None), again)
        }
    };
    acts.push(Act::Pause(Duration::from_millis(20)));
    acts.extend(rest);
    acts
}

/// Returns all attempts at a WebSocket that a proxy refuses, and the answer over HTTPS.
fn websocket_refused(release: Release) -> Vec<Act> {
    let retry = |number: u32| {
        let attempt = format!("{number}/5");
        Act::Retry(failures::retry(&attempt, json!(403), crate::failures::WEBSOCKET_REFUSED, release))
    };
    let mut acts: Vec<Act> = (2..=5).map(retry).collect();
    acts.push(Act::Notify("warning", json!({"message": crate::failures::FALLBACK})));
    with_answer(acts, "the answer over HTTPS")
}

fn garbage() -> Vec<u8> {
    let more = [
        r#"{"method":"item/agentMessage/delta"}"#,
        r#"{"method":"turn/completed","params":{}}"#,
        r#"{"method":"item/started","params":{"threadId":5,"item":null}}"#,
        r#"{"id":999999999,"result":{}}"#,
        r#"{"id":"unknown request","error":{"code":1,"message":"x"}}"#,
    ];
    GARBAGE.iter().chain(&more).flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// Returns three requests to the client, and an answer with the responses.
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
        Act::Request(
            "item/commandExecution/requestApproval",
            json!({"kind": "command", "itemId": "cmd_ask", "startedAtMs": 0, "environmentId": "local", "reason": "need",
                   "command": line, "cwd": cwd, "commandActions": [{"type": "unknown", "command": "touch esc"}],
                   "proposedExecpolicyAmendment": ["touch", "esc"], "availableDecisions": ["accept", "cancel"]}),
        ),
        Act::Request(
            "item/tool/requestUserInput",
            json!({"itemId": "call_ask", "isBlocking": true, "questions": [question], "autoResolutionMs": null}),
        ),
        Act::Request("item/hologram/request", json!({"depth": 3})),
        Act::Await(Box::new(move |answers: Vec<Answer>| {
            let answered: serde_json::Map<String, Value> =
                answers.into_iter().map(|answer| (answer.method.to_owned(), answer.answer)).collect();
            with_answer(vec![Act::Completed(declined)], &Value::Object(answered).to_string())
        })),
    ]
}

/// Returns the input of the thread and the process.
fn report(turn_input: &TurnInput) -> Value {
    let argv: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let mut env: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    env.sort();
    json!({
        "instructions": turn_input.thread_start["developerInstructions"],
        "base": turn_input.thread_start["baseInstructions"],
        "items": turn_input.items,
        "seen": history::sent_to_model(&turn_input.items),
        "thread_start": turn_input.thread_start,
        "turn_start": turn_input.turn_start,
        "argv": argv,
        "env": env,
        "cwd": turn_input.cwd,
        "threads": turn_input.threads,
        "turns": turn_input.turns,
        "cleans": turn_input.cleans,
    })
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
