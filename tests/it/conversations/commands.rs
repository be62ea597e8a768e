//! Commands of the agent and their temporary folder, in threads that are kept.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client::Client;
use crate::{
    eventually,
    support::{AppConfig, Engine, TestApp, processes, with_app},
    tools::{
        routes::{ROUTES, Route, tool_result},
        script,
    },
};

const MODEL: &str = "gpt-5.5";

const WRITING: [&str; 2] = ["workspace-write", "danger-full-access"];

fn config(sandbox: &str) -> AppConfig {
    AppConfig::real(Engine::AppServer).workers(1).sandbox(sandbox)
}

fn command(cmd: &str) -> Value {
    json!({"name": "exec_command", "arguments": {"cmd": cmd, "login": false}})
}

/// Builds a request of one user message, for a turn with commands.
fn request(commands: &[Value]) -> Value {
    let steps = json!([{"calls": commands}, {"text": "done"}]);
    json!({"model": MODEL, "messages": [{"role": "user", "content": script(&steps)}]})
}

/// Appends the answer and a next turn with commands.
fn next(body: &Value, commands: &[Value]) -> Value {
    let mut body = body.clone();
    let question = request(commands)["messages"][0].clone();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.extend([json!({"role": "assistant", "content": "done"}), question]);
    body
}

fn work(app: &TestApp, file: &str) -> PathBuf {
    app.home.path().join("work").join(file)
}

/// Returns the texts of the outputs in the last upstream request.
fn outputs(app: &TestApp) -> String {
    let items = app.last_upstream_request().items;
    let outputs = items.iter().filter(|item| item["type"] == "function_call_output");
    outputs.map(|item| item["output"].to_string()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn background_commands_end_with_their_turn_although_the_thread_is_kept() {
    for sandbox in WRITING {
        with_app(config(sandbox), async |app| {
            let client = Client::new(app).await;
            // Each number is the name of a process. The first is a child in the background, the second the CLI's own
            // background terminal.
            let (child, terminal) = ("31415.1", "31415.2");
            let detached = format!("setsid sleep {child} > /dev/null 2>&1 & echo started");
            let mut waiting = command(&format!("sleep {terminal}"));
            waiting["arguments"]["yield_time_ms"] = 250.into();
            let mut body = request(&[command(&detached), waiting.clone()]);
            for (round, route) in ROUTES.into_iter().enumerate().take(2) {
                let reply = client.send(route, &body).await;
                assert_eq!(reply.answer().text, "done", "{sandbox}");
                assert_eq!(reply.is_continued(), round > 0, "{sandbox}");
                assert!(outputs(app).contains("started"), "{sandbox}: {}", outputs(app));
                for name in [child, terminal] {
                    eventually!(
                        "the command has ended",
                        processes::with_argument(&format!("sleep\0{name}")).is_empty()
                    );
                }
                assert_eq!(app.status().await.threads.unwrap().kept, 1, "{sandbox}");
                body = next(&body, &[command(&detached), waiting.clone()]);
            }
        })
        .await;
    }
}

/// Returns the temporary folder of a new conversation's commands, and its first request.
async fn folder_of_conversation(app: &TestApp, client: &Client) -> (PathBuf, Value) {
    let body = request(&[command("echo $TMPDIR > folder; echo kept > $TMPDIR/note")]);
    assert_eq!(client.send(Route::Http, &body).await.answer().text, "done");
    let folder = std::fs::read_to_string(work(app, "folder")).unwrap();
    (Path::new(folder.trim()).to_owned(), body)
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn temporary_folder_lives_as_long_as_the_thread() {
    for sandbox in WRITING {
        let app_config = || config(sandbox).env("CODEX_KEPT_THREADS", "1");
        let drained = with_app(app_config(), async |app| {
            let client = Client::new(app).await;
            let (folder, body) = folder_of_conversation(app, &client).await;
            assert!(folder.join("note").exists(), "{sandbox}");
            let body = next(&body, &[command("cat $TMPDIR/note")]);
            let reply = client.send(Route::Http, &body).await;
            assert!(reply.is_continued(), "{sandbox}");
            assert!(outputs(app).contains("kept"), "{sandbox}: {}", outputs(app));
            assert!(folder.join("note").exists(), "{sandbox}");
            // Another conversation takes its place.
            let (other, _) = folder_of_conversation(app, &client).await;
            assert_ne!(other, folder);
            eventually!("the folder is removed with its thread", !folder.exists());
            assert!(other.join("note").exists());
            other
        })
        .await;
        assert!(!drained.exists(), "{sandbox}");

        with_app(config(sandbox).env("CODEX_KEPT_THREAD_SECONDS", "1"), async |app| {
            let client = Client::new(app).await;
            let (folder, _) = folder_of_conversation(app, &client).await;
            eventually!("the folder is removed after the time", !folder.exists());
            assert_eq!(app.status().await.threads.unwrap().evicted["idle"], 1);
        })
        .await;
    }
}

/// Builds a request of a turn whose first response has a command and a call of the client.
fn beside(cmd: &str) -> Value {
    let call = json!({"name": "f", "arguments": {"a": "1"}});
    let steps = json!([{"reasoning": "both", "calls": [command(cmd), call]}, {"text": "done"}]);
    let function = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    json!({"model": MODEL, "tools": [function], "messages": [{"role": "user", "content": script(&steps)}]})
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn command_beside_a_call_goes_on_while_the_turn_waits() {
    with_app(config("danger-full-access"), async |app| {
        let client = Client::new(app).await;
        for (index, route) in ROUTES.into_iter().enumerate() {
            let body = beside("echo first; sleep 1; echo late; echo line >> ran");
            let reply = client.send(route, &body).await;
            let answer = reply.answer();
            assert_eq!(answer.called(), [("f", r#"{"a":"1"}"#)], "{route:?}");
            assert!(
                !work(app, "ran").exists(),
                "{route:?}: the client gets its call before the command ends"
            );
            let number = app.last_request_number();
            if index % 2 == 0 {
                eventually!("the command ends", work(app, "ran").exists());
                eventually!("the slot is free", app.status().await.running_turns == 0);
                assert_eq!(app.status().await.threads.unwrap().parked, 1);
            }
            let mut next = body.clone();
            let more = [answer.message(), tool_result(&answer.calls[0], "result")];
            next["messages"].as_array_mut().unwrap().extend(more);
            let reply = client.send(route, &next).await;
            assert!(reply.is_continued() && reply.answer().text == "done", "{route:?}: {reply:?}");
            assert_eq!(app.model_calls_since(number), 1);
            let outputs = outputs(app);
            assert!(outputs.contains("late") && outputs.contains("result"), "{route:?}: {outputs}");
            let runs = std::fs::read_to_string(work(app, "ran")).unwrap();
            assert_eq!(runs.lines().count(), 1, "{route:?}: the command ran once");
            std::fs::remove_file(work(app, "ran")).unwrap();
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn drain_while_a_command_runs_beside_a_parked_call_leaves_no_process() {
    for sandbox in WRITING {
        with_app(config(sandbox), async |app| {
            let client = Client::new(app).await;
            let reply = client.send(Route::Sse, &beside("sleep 31415.3")).await;
            assert_eq!(reply.answer().finish_reason, "tool_calls");
            let running = || processes::with_argument("sleep\u{0}31415.3");
            eventually!("the command runs", !running().is_empty());
            app.stop().await;
            eventually!("the command has ended", running().is_empty());
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn patch_beside_a_parked_call_reaches_the_model() {
    with_app(config("danger-full-access"), async |app| {
        let client = Client::new(app).await;
        let patch = "*** Begin Patch\n*** Add File: new\n+hi\n*** End Patch\n";
        let call = json!({"name": "f", "arguments": {"a": "1"}});
        let steps = json!([{"calls": [call, {"name": "apply_patch", "custom": patch}]}, {"text": "done"}]);
        let mut body = beside("true");
        body["messages"][0]["content"] = script(&steps).into();
        let reply = client.send(Route::Http, &body).await;
        let answer = reply.answer();
        let more = [answer.message(), tool_result(&answer.calls[0], "result")];
        body["messages"].as_array_mut().unwrap().extend(more);
        let reply = client.send(Route::Http, &body).await;
        assert!(reply.is_continued() && reply.answer().text == "done", "{reply:?}");
        assert_eq!(std::fs::read_to_string(work(app, "new")).unwrap(), "hi\n");
        let items = app.last_upstream_request().items;
        let of_patch = items.iter().filter(|item| item["type"] == "custom_tool_call_output");
        assert_eq!(of_patch.count(), 1);
    })
    .await;
}
