//! Calls of Codex's own tools in the same response as calls of the client's: each runs once, and the next request has
//! them together with the client's results.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    MODEL, followed_by, function, real_workers, request,
    routes::{Outcome, ROUTES, Route, tool_result},
    script,
    upstream_request::{assistant, call, output, reasoning, user},
};
use crate::support::{AppConfig, TestApp, with_app};

/// A command that leaves a line in `ran` each time.
fn command(cmd: &str) -> Value {
    json!({"name": "exec_command", "arguments": {"cmd": format!("echo line >> ran; {cmd}"), "login": false}})
}

fn client_call(argument: &str) -> Value {
    json!({"name": "f", "arguments": {"a": argument}})
}

fn patch(file: &str) -> String {
    format!("*** Begin Patch\n*** Add File: {file}\n+hi\n*** End Patch\n")
}

/// A server whose commands run without a sandbox.
fn unsandboxed() -> AppConfig {
    real_workers().sandbox("danger-full-access")
}

fn file(app: &TestApp, name: &str) -> PathBuf {
    app.home.path().join("work").join(name)
}

/// Returns the number of command runs since the last call of this function.
fn command_runs(app: &TestApp) -> usize {
    let lines = std::fs::read_to_string(file(app, "ran")).unwrap_or_default().lines().count();
    drop(std::fs::remove_file(file(app, "ran")));
    lines
}

/// Returns the id of a call of Codex's own tool by its index in the response.
fn codex_call_id(app: &TestApp, index: usize) -> String {
    format!("call_s0_{}_{index}", app.upstream_request_count())
}

/// Asks twice, the second time with results of the client's calls; returns the first outcome and the ids of Codex's
/// calls.
async fn call_and_answer(app: &TestApp, way: Route, body: &Value) -> (Outcome, Vec<String>) {
    let first = app.turn(way, body).await;
    assert_eq!(first.finish_reason, "tool_calls", "{way:?}");
    let own = (0..5).map(|index| codex_call_id(app, index)).collect();
    let results = first.calls.iter().map(|call| tool_result(call, format!("result {}", call.arguments)));
    let more: Vec<Value> = [first.message()].into_iter().chain(results).collect();
    let second = app.turn(way, &followed_by(body, &more)).await;
    assert_eq!(second.text, "done", "{way:?}");
    (first, own)
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
    for way in ROUTES {
        let (first, own) = call_and_answer(app, way, &body).await;
        assert_eq!(first.called(), [("f", r#"{"a":"1"}"#), ("f", r#"{"a":"2"}"#)], "{way:?}");
        assert_eq!(first.text, "Let me see.");
        assert_eq!(command_runs(app), 2, "{way:?}: each command once, and to its end");
        let seen = app.last_upstream_request();
        let arguments = |index: usize| steps[0]["calls"][index]["arguments"].to_string();
        let (a, b) = (&first.calls[0].id, &first.calls[1].id);
        assert_eq!([&own[1], &own[3]], [a, b]);
        let answers: Vec<Value> = seen.items[seen.items.len() - 4..][..2].to_vec();
        assert_eq!(command_output(&answers[0]), "first\nlate\n", "{way:?}");
        assert_eq!(command_output(&answers[1]), "second\n", "{way:?}");
        assert!(answers[1]["output"].as_str().unwrap().contains("exited with code 3"));
        seen.assert_ends_with_items(&[
            user(&prompt),
            reasoning("all at once", app.upstream_request_count() - 1),
            assistant("Let me see."),
            call("exec_command", &arguments(0), &own[0]),
            call("f", r#"{"a":"1"}"#, a),
            call("exec_command", &arguments(2), &own[2]),
            call("f", r#"{"a":"2"}"#, b),
            output(&own[0], answers[0]["output"].clone()),
            output(&own[2], answers[1]["output"].clone()),
            result_item(a, "1"),
            result_item(b, "2"),
        ]);
    }
    }).await;
}

/// Codex makes patches when nothing else runs, and the client's call does until it is answered: which of both begins
/// is a race.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn patch_beside_a_client_call_reports_its_outcome_to_the_model() {
    with_app(unsandboxed(), async |app| {
    let made = json!({"name": "apply_patch", "custom": patch("made")});
    for (calls, at) in [(json!([made, client_call("1")]), 0), (json!([client_call("1"), made]), 1)] {
        let prompt = script(&json!([{"calls": calls}, {"text": "done"}]));
        let body = request(MODEL, &prompt, &[function("f", "a")]);
        for way in [Route::Sse, Route::Unary] {
            let (first, own) = call_and_answer(app, way, &body).await;
            assert_eq!(first.called(), [("f", r#"{"a":"1"}"#)], "{way:?}");
            let seen = app.last_upstream_request();
            let said = seen.items[seen.items.len() - 2]["output"].clone();
            let words = said.as_str().unwrap_or_else(|| panic!("{way:?} {at} {}", json!(seen.items[2..])));
            if std::fs::remove_file(file(app, "made")).is_ok() {
                assert!(words.contains("Success") || words.starts_with("Stopped "), "{words}");
            } else {
                // On a busy machine it may have begun and no more.
                assert!(words.starts_with("Not run: ") || words.starts_with("Stopped "), "{words}");
            }
            let id = &first.calls[0].id;
            let patched = json!({"type": "custom_tool_call", "name": "apply_patch", "input": patch("made"),
                "call_id": own[at]});
            let mut calls = [patched, call("f", r#"{"a":"1"}"#, id)];
            calls.rotate_left(at);
            let answer = json!({"type": "custom_tool_call_output", "call_id": own[at], "output": said});
            seen.assert_ends_with_items(&[&[user(&prompt)], &calls[..], &[answer, result_item(id, "1")]].concat());
        }
    }
    }).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn commands_stay_in_the_history_if_the_client_edits_the_message() {
    with_app(unsandboxed(), async |app| {
        let steps = json!([
            {"reasoning": "step one", "text": "First.", "calls": [command("echo own")]},
            {"reasoning": "step two", "text": "Then.", "calls": [client_call("1"), command("echo beside")]},
            {"text": "done"},
        ]);
        let prompt = script(&steps);
        let body = request(MODEL, &prompt, &[function("f", "a")]);
        let first = app.turn(Route::Http, &body).await;
        assert_eq!(command_runs(app), 2);
        let number = app.upstream_request_count();
        let [made] = &first.calls[..] else { panic!("{first:?}") };
        let mut message = first.message();
        message["content"] = "In short.".into();
        assert_eq!(
            app.turn(Route::Http, &followed_by(&body, &[message.clone(), tool_result(made, "r")])).await.text,
            "done"
        );
        assert_eq!(command_runs(app), 0, "nothing is done again");
        let (one, two) = (format!("call_s0_{}_0", number - 1), format!("call_s1_{number}_1"));
        let arguments = |step: usize, index: usize| steps[step]["calls"][index]["arguments"].to_string();
        let seen = app.last_upstream_request();
        let said = |id: &str| {
            let answer = seen
                .items
                .iter()
                .find(|item| item["type"] == "function_call_output" && item["call_id"] == id);
            answer.unwrap_or_else(|| panic!("{id} has no output: {}", json!(seen.items)))["output"].clone()
        };
        let did = [
            call("exec_command", &arguments(0, 0), &one),
            output(&one, said(&one)),
            call("exec_command", &arguments(1, 1), &two),
            output(&two, said(&two)),
        ];
        let expected = [
            &[user(&prompt), reasoning("step one", number - 1)],
            &did[..2],
            &[reasoning("step two", number)],
            &did[2..],
            &[assistant("In short."), call("f", r#"{"a":"1"}"#, &made.id), output(&made.id, "r")],
        ];
        seen.assert_ends_with_items(&expected.concat());

        message["tool_calls"][0]["function"]["arguments"] = r#"{"a":"9"}"#.into();
        assert_eq!(
            app.turn(Route::Stream, &followed_by(&body, &[message, tool_result(made, "r")])).await.text,
            "done"
        );
        let expected = [
            &[user(&prompt)],
            &did[..],
            &[assistant("In short."), call("f", r#"{"a":"9"}"#, &made.id), output(&made.id, "r")],
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
        let (first, own) = call_and_answer(app, Route::Http, &body).await;
        assert_eq!((first.called(), command_runs(app)), (vec![("f", r#"{"a":"1"}"#)], 1));
        let seen = app.last_upstream_request();
        let said = seen.items[seen.items.len() - 2]["output"].clone();
        let id = &first.calls[0].id;
        seen.assert_ends_with_items(&[
            user(&prompt),
            call("f", r#"{"a":"1"}"#, id),
            call("exec_command", &steps[0]["calls"][1]["arguments"].to_string(), &own[1]),
            output(&own[1], said),
            result_item(id, "1"),
        ]);
    })
    .await;
}

/// Codex's own tool keeps its name; the client's function of that name has another one for the model.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn client_function_named_as_a_codex_tool_gets_its_own_calls_only() {
    with_app(unsandboxed(), async |app| {
        let of_client = json!({"name": "client_exec_command", "arguments": {"a": "1"}});
        for steps in [
            json!([{"calls": [command("echo own")]}, {"calls": [of_client]}, {"text": "done"}]),
            json!([{"calls": [command("echo own"), of_client]}, {"text": "done"}]),
        ] {
            let body = request(MODEL, &script(&steps), &[function("exec_command", "a")]);
            for way in ROUTES {
                let (first, _) = call_and_answer(app, way, &body).await;
                assert_eq!(first.called(), [("exec_command", r#"{"a":"1"}"#)], "{way:?}");
                assert_eq!(command_runs(app), 1, "{way:?}: Codex ran its own, once");
                let seen = app.last_upstream_request();
                assert!(seen.functions().contains(&"exec_command"), "Codex's own is offered as well");
                let called = seen.items.iter().filter(|item| item["type"] == "function_call");
                let called: Vec<&str> = called.map(|item| item["name"].as_str().unwrap()).collect();
                assert_eq!(called, ["exec_command", "client_exec_command"], "{way:?}");
            }
        }
    })
    .await;
}

/// A tool of an MCP server, or of another group of Codex, may have the name of a client's function: its calls have a
/// namespace, the client's have none.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn call_in_a_namespace_is_not_sent_to_the_client() {
    with_app(unsandboxed(), async |app| {
        for namespace in ["mcp__server", "multi_agent_v1", "somebody"] {
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
