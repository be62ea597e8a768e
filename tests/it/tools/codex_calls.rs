//! Calls of Codex tools in the same response as calls of client tools. Each Codex call runs once, and the next upstream
//! request has its output together with the results of the client.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    MODEL, followed_by, function, real_workers, request,
    routes::{Outcome, ROUTES, Route, tool_result},
    script,
    upstream_request::{assistant, call, output, reasoning, user},
};
use crate::{
    eventually,
    support::{AppConfig, TestApp, with_app},
};

/// Builds a call of `exec_command` that appends a line to the file `ran`.
fn command(cmd: &str) -> Value {
    json!({"name": "exec_command", "arguments": {"cmd": format!("echo line >> ran; {cmd}"), "login": false}})
}

fn client_call(argument: &str) -> Value {
    json!({"name": "f", "arguments": {"a": argument}})
}

fn patch(file: &str) -> String {
    format!("*** Begin Patch\n*** Add File: {file}\n+hi\n*** End Patch\n")
}

/// Configures a server whose commands run without a sandbox, and whose turns end at the client's calls.
fn unsandboxed() -> AppConfig {
    real_workers().sandbox("danger-full-access").env("CODEX_KEPT_THREADS", "0")
}

fn file(app: &TestApp, name: &str) -> PathBuf {
    app.home.path().join("work").join(name)
}

/// Returns the number of command runs since the last call of this function.
fn command_runs(app: &TestApp) -> usize {
    let lines = lines(app);
    drop(std::fs::remove_file(file(app, "ran")));
    lines
}

fn lines(app: &TestApp) -> usize {
    std::fs::read_to_string(file(app, "ran")).unwrap_or_default().lines().count()
}

/// Returns the id of a Codex call by the number of its request and its index in the response.
fn codex_call_id(number: u64, index: usize) -> String {
    format!("call_s0_{number}_{index}")
}

/// Sends the request, and again with the results of the client calls. Returns the first outcome and the ids of the Codex
/// calls.
async fn call_and_answer(app: &TestApp, route: Route, body: &Value) -> (Outcome, Vec<String>) {
    let first = app.turn(route, body).await;
    assert_eq!(first.finish_reason, "tool_calls", "{route:?}");
    let number = app.last_request_number();
    let codex_ids = (0..5).map(|index| codex_call_id(number, index)).collect();
    let results = first.calls.iter().map(|call| tool_result(call, format!("result {}", call.arguments)));
    let more: Vec<Value> = [first.message()].into_iter().chain(results).collect();
    let second = app.turn(route, &followed_by(body, &more)).await;
    assert_eq!(second.text, "done", "{route:?}");
    (first, codex_ids)
}

fn result_item(id: &str, argument: &str) -> Value {
    output(id, format!("result {{\"a\":\"{argument}\"}}"))
}

/// Returns the output of a command without the text that Codex adds.
fn command_output(item: &Value) -> &str {
    let output = item["output"].as_str().unwrap();
    output.split_once("Output:\n").unwrap_or_else(|| panic!("{output}")).1
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn commands_around_client_calls_run_once() {
    with_app(unsandboxed(), async |app| {
    let steps = json!([
        {"reasoning": "all at once", "text": "Let me see.", "calls": [
            command("echo first; sleep 0.5; echo late"), client_call("1"), command("sleep 0.3; echo second; exit 3"), client_call("2")]},
        {"text": "done"},
    ]);
    let prompt = script(&steps);
    let body = request(MODEL, &prompt, &[function("f", "a")]);
    for route in ROUTES {
        let (first, codex_ids) = call_and_answer(app, route, &body).await;
        let number = codex_ids[0].split('_').nth(2).unwrap().parse().unwrap();
        assert_eq!(first.called(), [("f", r#"{"a":"1"}"#), ("f", r#"{"a":"2"}"#)], "{route:?}");
        assert_eq!(first.text, "Let me see.");
        assert_eq!(command_runs(app), 2, "{route:?}: each command runs once, to its end");
        let sent = app.last_upstream_request();
        let arguments = |index: usize| steps[0]["calls"][index]["arguments"].to_string();
        let (a, b) = (&first.calls[0].id, &first.calls[1].id);
        assert_eq!([&codex_ids[1], &codex_ids[3]], [a, b]);
        let answers: Vec<Value> = sent.items[sent.items.len() - 4..][..2].to_vec();
        assert_eq!(command_output(&answers[0]), "first\nlate\n", "{route:?}");
        assert_eq!(command_output(&answers[1]), "second\n", "{route:?}");
        assert!(answers[1]["output"].as_str().unwrap().contains("exited with code 3"));
        sent.assert_ends_with_items(&[
            user(&prompt),
            reasoning("all at once", number),
            assistant("Let me see."),
            call("exec_command", &arguments(0), &codex_ids[0]),
            call("f", r#"{"a":"1"}"#, a),
            call("exec_command", &arguments(2), &codex_ids[2]),
            call("f", r#"{"a":"2"}"#, b),
            output(&codex_ids[0], answers[0]["output"].clone()),
            output(&codex_ids[2], answers[1]["output"].clone()),
            result_item(a, "1"),
            result_item(b, "2"),
        ]);
    }
    }).await;
}

/// Codex applies a patch only while no other tool runs, and the client call runs until it has a result. Which of the two
/// starts first is a race.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn patch_beside_a_client_call_reports_its_outcome_to_the_model() {
    with_app(unsandboxed(), async |app| {
    let patch_call = json!({"name": "apply_patch", "custom": patch("made")});
    for (calls, at) in [(json!([patch_call, client_call("1")]), 0), (json!([client_call("1"), patch_call]), 1)] {
        let prompt = script(&json!([{"calls": calls}, {"text": "done"}]));
        let body = request(MODEL, &prompt, &[function("f", "a")]);
        for route in [Route::Sse, Route::Unary] {
            let (first, codex_ids) = call_and_answer(app, route, &body).await;
            assert_eq!(first.called(), [("f", r#"{"a":"1"}"#)], "{route:?}");
            let sent = app.last_upstream_request();
            let patch_output = sent.items[sent.items.len() - 2]["output"].clone();
            let text = patch_output.as_str().unwrap_or_else(|| panic!("{route:?} {at} {}", json!(sent.items[2..])));
            if std::fs::remove_file(file(app, "made")).is_ok() {
                assert!(text.contains("Success") || text.starts_with("Stopped "), "{text}");
            } else {
                // On a busy machine the patch may have started without changing a file.
                assert!(text.starts_with("Not run: ") || text.starts_with("Stopped "), "{text}");
            }
            let id = &first.calls[0].id;
            let patched = json!({"type": "custom_tool_call", "name": "apply_patch", "input": patch("made"),
                "call_id": codex_ids[at]});
            let mut calls = [patched, call("f", r#"{"a":"1"}"#, id)];
            calls.rotate_left(at);
            let answer = json!({"type": "custom_tool_call_output", "call_id": codex_ids[at], "output": patch_output});
            sent.assert_ends_with_items(&[&[user(&prompt)], &calls[..], &[answer, result_item(id, "1")]].concat());
        }
    }
    }).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn commands_stay_in_the_history_if_the_client_edits_the_message() {
    // A parked turn is ended first, and its outputs are not lost.
    for kept in ["0", "64"] {
        commands_stay(unsandboxed().env("CODEX_KEPT_THREADS", kept)).await;
    }
}

async fn commands_stay(config: AppConfig) {
    with_app(config, async |app| {
        let steps = json!([
            {"reasoning": "step one", "text": "First.", "calls": [command("echo own")]},
            {"reasoning": "step two", "text": "Then.", "calls": [client_call("1"), command("echo beside")]},
            {"text": "done"},
        ]);
        let prompt = script(&steps);
        let body = request(MODEL, &prompt, &[function("f", "a")]);
        let first = app.turn(Route::Http, &body).await;
        eventually!("both commands ran", lines(app) == 2);
        assert_eq!(command_runs(app), 2);
        let number = app.last_request_number();
        let [client_call] = &first.calls[..] else { panic!("{first:?}") };
        let mut message = first.message();
        message["content"] = "In short.".into();
        assert_eq!(
            app.turn(Route::Http, &followed_by(&body, &[message.clone(), tool_result(client_call, "r")]))
                .await
                .text,
            "done"
        );
        assert_eq!(command_runs(app), 0, "no command runs again");
        let (one, two) = (format!("call_s0_{}_0", number - 1), format!("call_s1_{number}_1"));
        let arguments = |step: usize, index: usize| steps[step]["calls"][index]["arguments"].to_string();
        let sent = app.last_upstream_request();
        let output_of = |id: &str| {
            let answer = sent
                .items
                .iter()
                .find(|item| item["type"] == "function_call_output" && item["call_id"] == id);
            answer.unwrap_or_else(|| panic!("{id} has no output: {}", json!(sent.items)))["output"].clone()
        };
        let codex_items = [
            call("exec_command", &arguments(0, 0), &one),
            output(&one, output_of(&one)),
            call("exec_command", &arguments(1, 1), &two),
            output(&two, output_of(&two)),
        ];
        let expected = [
            &[user(&prompt), reasoning("step one", number - 1)],
            &codex_items[..2],
            &[reasoning("step two", number)],
            &codex_items[2..],
            &[
                assistant("In short."),
                call("f", r#"{"a":"1"}"#, &client_call.id),
                output(&client_call.id, "r"),
            ],
        ];
        sent.assert_ends_with_items(&expected.concat());

        message["tool_calls"][0]["function"]["arguments"] = r#"{"a":"9"}"#.into();
        assert_eq!(
            app.turn(Route::Stream, &followed_by(&body, &[message, tool_result(client_call, "r")]))
                .await
                .text,
            "done"
        );
        let expected = [
            &[user(&prompt)],
            &codex_items[..],
            &[
                assistant("In short."),
                call("f", r#"{"a":"9"}"#, &client_call.id),
                output(&client_call.id, "r"),
            ],
        ];
        app.last_upstream_request().assert_ends_with_items(&expected.concat());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn call_beyond_the_single_one_is_dropped_alone() {
    with_app(unsandboxed(), async |app| {
        let steps =
            json!([{"calls": [client_call("1"), command("echo own"), client_call("2")]}, {"text": "done"}]);
        let prompt = script(&steps);
        let mut body = request(MODEL, &prompt, &[function("f", "a")]);
        body["parallel_tool_calls"] = false.into();
        let (first, codex_ids) = call_and_answer(app, Route::Http, &body).await;
        assert_eq!((first.called(), command_runs(app)), (vec![("f", r#"{"a":"1"}"#)], 1));
        let sent = app.last_upstream_request();
        let patch_output = sent.items[sent.items.len() - 2]["output"].clone();
        let id = &first.calls[0].id;
        sent.assert_ends_with_items(&[
            user(&prompt),
            call("f", r#"{"a":"1"}"#, id),
            call("exec_command", &steps[0]["calls"][1]["arguments"].to_string(), &codex_ids[1]),
            output(&codex_ids[1], patch_output),
            result_item(id, "1"),
        ]);
    })
    .await;
}

/// The model gets the Codex tool under its name and the client function of that name under another name.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn client_function_named_as_a_codex_tool_gets_its_own_calls_only() {
    with_app(unsandboxed(), async |app| {
        let client_call = json!({"name": "client_exec_command", "arguments": {"a": "1"}});
        for steps in [
            json!([{"calls": [command("echo own")]}, {"calls": [client_call]}, {"text": "done"}]),
            json!([{"calls": [command("echo own"), client_call]}, {"text": "done"}]),
        ] {
            let body = request(MODEL, &script(&steps), &[function("exec_command", "a")]);
            for route in ROUTES {
                let (first, _) = call_and_answer(app, route, &body).await;
                assert_eq!(first.called(), [("exec_command", r#"{"a":"1"}"#)], "{route:?}");
                assert_eq!(command_runs(app), 1, "{route:?}: Codex ran its own command once");
                let sent = app.last_upstream_request();
                assert!(sent.functions().contains(&"exec_command"), "the Codex tool is offered too");
                let called = sent.items.iter().filter(|item| item["type"] == "function_call");
                let called: Vec<&str> = called.map(|item| item["name"].as_str().unwrap()).collect();
                assert_eq!(called, ["exec_command", "client_exec_command"], "{route:?}");
            }
        }
    })
    .await;
}

/// A tool of an MCP server or of another tool group of Codex may have the name of a client function. Its calls have a
/// namespace, and calls of client functions have none.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn call_in_a_namespace_is_not_sent_to_the_client() {
    with_app(unsandboxed(), async |app| {
        for namespace in ["mcp__server", "multi_agent_v1", "other_namespace"] {
            let other = json!({"name": "f", "namespace": namespace, "arguments": {"b": 2}});
            for steps in [
                json!([{"calls": [other]}, {"calls": [client_call("1")]}, {"text": "done"}]),
                json!([{"calls": [other, client_call("1")]}, {"text": "done"}]),
            ] {
                let body = request(MODEL, &script(&steps), &[function("f", "a")]);
                let (first, _) = call_and_answer(app, Route::Sse, &body).await;
                assert_eq!(first.called(), [("f", r#"{"a":"1"}"#)], "{namespace}");
            }
        }
    })
    .await;
}
