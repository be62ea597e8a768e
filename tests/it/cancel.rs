//! Turns are cancelled when their client disconnects, and leave no process and no file.

use std::time::Duration;

use codex_api::pb::chat_event::Event;
use futures_util::{StreamExt, future::join_all};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TIMEOUT, TestApp, chat_request, grpc::code_and_reason, http::body, processes,
        staged::Gate, with_app,
    },
};

/// Opens a streamed turn over HTTP and waits until its response has begun.
async fn open_sse(app: &TestApp, model: &str, text: &str) -> impl futures_util::Stream + use<> {
    let mut request = body(model, text);
    request["stream"] = true.into();
    let response = app.post(&request).await;
    assert_eq!(response.status(), 200);
    Box::pin(response.bytes_stream())
}

/// Starts a turn and abandons it over one of four routes after a delay.
async fn abandon_turn(app: &TestApp, number: usize, (model, text): (&str, &str), delay: Duration) {
    let client = reqwest::Client::new();
    let mut request = body(model, text);
    match number % 4 {
        // HTTP disconnect before the answer.
        0 => {
            let call = client.post(app.url("/v1/chat/completions")).json(&request).send();
            drop(tokio::time::timeout(delay, call).await);
        }
        // HTTP disconnect during a stream.
        1 => {
            request["stream"] = true.into();
            let call = async {
                let response =
                    client.post(app.url("/v1/chat/completions")).json(&request).send().await.unwrap();
                response.bytes_stream().for_each(|_| async {}).await;
            };
            drop(tokio::time::timeout(delay, call).await);
        }
        // gRPC reset.
        2 => {
            let mut grpc = app.grpc().await;
            let call = async {
                if let Ok(stream) = grpc.stream_chat(chat_request(model, text)).await {
                    stream.into_inner().for_each(|_| async {}).await;
                }
            };
            drop(tokio::time::timeout(delay, call).await);
        }
        // Deadline.
        _ => {
            let mut request = chat_request(model, text);
            // The timeout must not be zero.
            request.timeout = Some((delay + Duration::from_nanos(1)).try_into().unwrap());
            app.grpc().await.chat(request).await.unwrap_err();
        }
    }
}

/// Returns a pseudo-random number, the same in every run.
fn pseudo_random(seed: usize) -> u64 {
    (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
}

async fn abandon_turns(app: &TestApp, count: usize, model: &'static str, text: &'static str) {
    // Eight concurrent turns, like several clients.
    let mut numbers = (0..count).collect::<Vec<_>>();
    while !numbers.is_empty() {
        let batch: Vec<usize> = numbers.drain(..numbers.len().min(8)).collect();
        let random = |n| Duration::from_millis(pseudo_random(n) % 120);
        join_all(batch.into_iter().map(|n| abandon_turn(app, n, (model, text), random(n)))).await;
    }
    assert_nothing_is_left(app).await;
}

async fn assert_nothing_is_left(app: &TestApp) {
    eventually!("every process has exited", app.turn_processes().is_empty());
    eventually!("the files are removed", app.scratch_files().is_empty());
    eventually!("every slot is free", app.status().await.running_turns == 0);
    assert_eq!(app.status().await.waiting_turns, 0);
}

both_engines!(
    #[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
    abandoned_turns_of_the_fake_leave_nothing_and_the_next_turn_succeeds
);
async fn abandoned_turns_of_the_fake_leave_nothing_and_the_next_turn_succeeds(engine: Engine) {
    with_app(AppConfig::fake(engine).max_concurrency(8), async |app| {
        abandon_turns(app, 100, "fake:hang", "hi").await;
        let model = match engine {
            // The grandchild runs in its own session.
            Engine::Exec => "fake:grandchild",
            // The turn ignores the interrupt, so its worker is replaced while other turns run on it.
            Engine::AppServer => "fake:deaf",
        };
        abandon_turns(app, 50, model, "hi").await;
        let answer = app.complete(&body("fake:echo", "still there?")).await;
        assert_eq!(answer["choices"][0]["message"]["content"], engine.echo("still there?"));
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    abandoned_turns_of_the_real_cli_leave_nothing_and_the_next_turn_succeeds
);
async fn abandoned_turns_of_the_real_cli_leave_nothing_and_the_next_turn_succeeds(engine: Engine) {
    with_app(AppConfig::real(engine).max_concurrency(8), async |app| {
        let (model, text) = ("gpt-5.5", r#"@@{"text":"a b c","hang_after_ms":60000}@@"#);
        abandon_turns(app, 192, model, text).await;
        // The same while the model answers: two turns per route. Those with a deadline end by their deadline.
        let upstream = app.upstream();
        let overdue = [3, 7].map(|n| abandon_turn(app, n, (model, text), Duration::from_secs(3)));
        let abandoned = async {
            let calls = [0, 1, 2, 4, 5, 6].map(|n| abandon_turn(app, n, (model, text), TIMEOUT));
            tokio::select! {
                _ = join_all(calls) => panic!("a turn ended before it was abandoned"),
                () = async { eventually!("the model answers all six turns", upstream.open_responses() >= 6) } => {}
            }
        };
        tokio::join!(join_all(overdue), abandoned);
        assert_nothing_is_left(app).await;
        eventually!("no response of the upstream is open", upstream.open_responses() == 0);
        let answer = app.complete(&body("gpt-5.5", r#"@@{"text":"still there"}@@"#)).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "still there");
    })
    .await;
}

#[tokio::test]
async fn process_tree_ignoring_signals_is_killed_after_the_grace() {
    with_app(AppConfig::fake(Engine::Exec).cancel_grace_seconds(0.3), async |app| {
        for scenario in ["fake:stubborn", "fake:grandchild", "fake:silent"] {
            let mut grpc = app.grpc().await;
            let call = tokio::spawn(async move { grpc.chat(chat_request(scenario, "hi")).await });
            eventually!("the turn runs", !app.processes().is_empty());
            eventually!("the turn has its slot", app.status().await.running_turns == 1);
            call.abort();
            eventually!("all its processes have exited", app.processes().is_empty());
            eventually!("the slot is free", app.status().await.running_turns == 0);
        }
    })
    .await;
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn worker_ignoring_an_interrupt_is_killed_with_its_children_after_the_grace() {
    with_app(AppConfig::fake(Engine::AppServer).workers(1).cancel_grace_seconds(0.3), async |app| {
        for scenario in ["fake:deaf-after-text", "fake:silent"] {
            eventually!("the worker runs", app.workers().len() == 1);
            let old = app.workers();
            // A second turn has a grandchild that ignores signals in its own session.
            let mut grpc = app.grpc().await;
            let other_turn =
                tokio::spawn(async move { grpc.chat(chat_request("fake:grandchild", "hi")).await });
            eventually!("the grandchild runs", !app.turn_processes().is_empty());
            let mut request = chat_request(scenario, "hi");
            request.timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
            let expired = app.grpc().await.chat(request).await.unwrap_err();
            assert_eq!(expired.code(), tonic::Code::DeadlineExceeded);
            let lost = tokio::time::timeout(TIMEOUT, other_turn).await.unwrap().unwrap().unwrap_err();
            assert_eq!(code_and_reason(&lost), (tonic::Code::Aborted, "FAILED_AFTER_EFFECTS".into()));
            eventually!(
                "the old worker has exited",
                app.workers().iter().all(|worker| !old.contains(worker))
            );
            eventually!("the grandchild has exited", app.turn_processes().is_empty());
            eventually!("the slots are free", app.status().await.running_turns == 0);
            assert_eq!(app.chat(chat_request("fake:echo", "next")).await, "next");
        }
    })
    .await;
}

#[tokio::test]
async fn slot_of_a_cancelled_turn_is_held_until_its_last_process_exits() {
    with_app(AppConfig::fake(Engine::Exec).max_concurrency(1).cancel_grace_seconds(1.0), async |app| {
        let mut grpc = app.grpc().await;
        let call = tokio::spawn(async move { grpc.chat(chat_request("fake:stubborn", "hi")).await });
        let is_first = |line: &String| line.contains("stubborn");
        eventually!("the turn runs", app.processes().iter().any(is_first));
        call.abort();
        drop(call.await);
        // The next turn waits for the slot, so the first turn has no process left when it starts. A heartbeat may come before.
        let mut grpc = app.grpc().await;
        let mut next = grpc.stream_chat(chat_request("fake:slow:20", "hi")).await.unwrap().into_inner();
        while !matches!(next.message().await.unwrap().unwrap().event, Some(Event::Started(_))) {}
        let running = app.processes();
        assert!(!running.iter().any(is_first), "{running:?}");
        let events: Vec<_> = next.collect().await;
        assert!(events.iter().all(Result::is_ok));
    })
    .await;
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn processes_of_a_finished_turn_are_killed() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        let answer = app.complete(&body("fake:orphan", "hi")).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        eventually!("the grandchild is killed", app.processes().is_empty());
        app.complete(&body("fake:after-end", "hi")).await;
        eventually!("the process that outlives its turn is killed", app.processes().is_empty());
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    command_without_a_sandbox_is_killed_with_its_turn
);
async fn command_without_a_sandbox_is_killed_with_its_turn(engine: Engine) {
    with_app(AppConfig::real(engine).sandbox("danger-full-access"), async |app| {
        // A command that ignores signals in its own session. The duration of `sleep` identifies it.
        let duration = format!("{}.{}", 97_000 + std::process::id() % 1000, 4321);
        let command = format!(
            "(trap '' INT TERM HUP; setsid nohup sleep {duration} >/dev/null 2>&1 & wait); sleep {duration}"
        );
        let step =
            json!([{"calls": [{"name": "exec_command", "arguments": {"cmd": command}}]}, {"text": "done"}]);
        let prompt = format!("@@{step}@@");

        let mut grpc = app.grpc().await;
        let call = tokio::spawn(async move { grpc.chat(chat_request("gpt-5.5", &prompt)).await });
        eventually!("the command runs", !processes::with_argument(&format!("sleep\0{duration}")).is_empty());
        call.abort();
        eventually!(
            "the command is killed",
            processes::with_argument(&format!("sleep\0{duration}")).is_empty()
        );

        // A successful turn that leaves the command behind.
        let command = format!("setsid nohup sleep {duration} >/dev/null 2>&1 & sleep 0.1");
        let step =
            json!([{"calls": [{"name": "exec_command", "arguments": {"cmd": command}}]}, {"text": "done"}]);
        let answer = app.complete(&body("gpt-5.5", &format!("@@{step}@@"))).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "done");
        eventually!(
            "the command is killed",
            processes::with_argument(&format!("sleep\0{duration}")).is_empty()
        );
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    command_with_a_cleared_environment_is_killed_with_its_turn
);
async fn command_with_a_cleared_environment_is_killed_with_its_turn(engine: Engine) {
    with_app(AppConfig::real(engine).sandbox("danger-full-access").workers(1), async |app| {
    let mut gate = Gate::in_folder(&app.home.path().join("work"));
    let duration = |number: u32| format!("{}.{number}", 98_000 + std::process::id() % 1000);
    let runs = |number: u32| !processes::with_argument(&format!("sleep\0{}", duration(number))).is_empty();
    let detached = |number: u32| format!("env -i setsid sleep {} >/dev/null 2>&1 & sleep 0.1", duration(number));
    let turn = async |command: String| {
        let step =
            json!([{"calls": [{"name": "exec_command", "arguments": {"cmd": command}}]}, {"text": "done"}]);
        let answer = app.complete(&body("gpt-5.5", &format!("@@{step}@@"))).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "done");
    };
    turn(detached(1)).await;
    eventually!("the command is killed", !runs(1));

    // The end of a turn must not kill the command of another running turn.
    let first = turn(format!("{}; read -r _ < gate", detached(2)));
    let other = async {
        eventually!("the command of the first turn runs", runs(2));
        turn(detached(3)).await;
        assert!(runs(2), "the command of the first turn still runs");
        gate.open();
    };
    tokio::join!(first, other);
    eventually!("both commands are killed at the end of the last turn", !runs(2) && !runs(3));
    }).await;
}

/// Builds a request with an image and a schema.
fn request_with_image_and_schema(model: &str) -> serde_json::Value {
    let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    // Codex gets a strict schema unchanged.
    let schema = json!({"type": "object", "properties": {"seen": {"type": "string"}}, "required": ["seen"],
        "additionalProperties": false});
    json!({"model": model, "messages": [{"role": "user", "content": [
        {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": png}}]}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}})
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn app_server_turn_with_an_image_and_a_schema_writes_no_files() {
    with_app(AppConfig::fake(Engine::AppServer), async |app| {
        let answer = app.complete(&request_with_image_and_schema("fake:report")).await;
        let report = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let report: serde_json::Value = serde_json::from_str(report).unwrap();
        let image = &report["items"][0]["content"][1];
        assert_eq!(image["type"], "input_image", "{report}");
        assert!(image["image_url"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"), "{image}");
        assert_eq!(report["turn_start"]["outputSchema"]["type"], "object");
        let call = tokio::spawn(app.post_future(&request_with_image_and_schema("fake:hang")));
        eventually!("the turn runs", app.status().await.running_turns == 1);
        assert_eq!(app.scratch_files(), Vec::<std::path::PathBuf>::new());
        call.abort();
    })
    .await;
}

#[tokio::test]
async fn exec_turn_with_an_image_and_a_schema_removes_its_files() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        let answer = app.complete(&request_with_image_and_schema("fake:report")).await;
        let report = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let report: serde_json::Value = serde_json::from_str(report).unwrap();
        assert_eq!(report["images"][0]["exists"], true, "{report}");
        assert!(
            report["schema"].as_str().is_some_and(|s| s.contains("object")) || report["schema"].is_object()
        );
        eventually!("the files are removed", app.scratch_files().is_empty());

        let call = tokio::spawn(app.post_future(&request_with_image_and_schema("fake:hang")));
        eventually!("the turn has its files", !app.scratch_files().is_empty());
        call.abort();
        eventually!("the files are removed", app.scratch_files().is_empty());
    })
    .await;
}

both_engines!(
    #[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
    drain_past_its_grace_cancels_running_turns
);
async fn drain_past_its_grace_cancels_running_turns(engine: Engine) {
    with_app(AppConfig::fake(engine).drain_seconds(0.3), async |app| {
        let mut calls = JoinSet::new();
        for scenario in ["fake:hang", "fake:grandchild"] {
            let mut grpc = app.grpc().await;
            calls.spawn(async move { grpc.chat(chat_request(scenario, "hi")).await });
        }
        eventually!("both turns run", app.status().await.running_turns == 2);
        let stopped = tokio::time::timeout(TIMEOUT, app.stop());
        let (stopped, outcomes) = tokio::join!(stopped, calls.join_all());
        stopped.expect("the drain ends");
        for outcome in outcomes {
            assert_eq!(outcome.unwrap_err().code(), tonic::Code::Unavailable);
        }
    })
    .await;
}

both_engines!(dropped_stream_cancels_its_turn);
async fn dropped_stream_cancels_its_turn(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        eventually!("all workers run", {
            let expected = match engine {
                Engine::Exec => 0,
                Engine::AppServer => std::thread::available_parallelism().unwrap().get().clamp(2, 8),
            };
            app.workers().len() == expected
        });
        let workers = app.workers();
        let stream = open_sse(app, "fake:slow:2000", "hi").await;
        assert_eq!(app.status().await.running_turns, 1);
        assert_eq!(app.turn_processes().is_empty(), engine == Engine::AppServer);
        drop(stream);
        eventually!("the turn has ended", app.status().await.running_turns == 0);
        eventually!("the process has exited", app.turn_processes().is_empty());
        assert_eq!(app.workers(), workers, "an interrupted turn does not replace its worker");
    })
    .await;
}
