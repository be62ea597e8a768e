//! A turn that nobody waits for any more is gone, with everything it started.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    eventually,
    support::{
        SOON, TestApp, ask,
        engines::{Engine, echo, engine},
        grpc::kind,
        http::body,
        processes,
        staged::Authenticator,
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

/// A turn is given up in one of four ways, after a while.
async fn give_up(app: &TestApp, number: usize, (model, text): (&str, &str), while_: Duration) {
    let client = reqwest::Client::new();
    let mut request = body(model, text);
    match number % 4 {
        // HTTP hang-up before the answer.
        0 => {
            let call = client.post(app.url("/v1/chat/completions")).json(&request).send();
            drop(tokio::time::timeout(while_, call).await);
        }
        // HTTP hang-up, streamed.
        1 => {
            request["stream"] = true.into();
            let call = async {
                let response =
                    client.post(app.url("/v1/chat/completions")).json(&request).send().await.unwrap();
                response.bytes_stream().for_each(|_| async {}).await;
            };
            drop(tokio::time::timeout(while_, call).await);
        }
        // gRPC reset.
        2 => {
            let mut grpc = app.grpc().await;
            let call = async {
                if let Ok(stream) = grpc.stream_chat(ask(model, text)).await {
                    stream.into_inner().for_each(|_| async {}).await;
                }
            };
            drop(tokio::time::timeout(while_, call).await);
        }
        // Deadline.
        _ => {
            let mut request = ask(model, text);
            // Not zero.
            request.timeout = Some((while_ + Duration::from_nanos(1)).try_into().unwrap());
            app.grpc().await.chat(request).await.unwrap_err();
        }
    }
}

/// A number that looks random and is the same in every run.
fn fastrand(seed: usize) -> u64 {
    (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
}

async fn give_up_many(app: &TestApp, count: usize, model: &'static str, text: &'static str) {
    // Eight at a time, as many clients would.
    let mut numbers = (0..count).collect::<Vec<_>>();
    while !numbers.is_empty() {
        let batch: Vec<usize> = numbers.drain(..numbers.len().min(8)).collect();
        let random = |n| Duration::from_millis(fastrand(n) % 120);
        join_all(batch.into_iter().map(|n| give_up(app, n, (model, text), random(n)))).await;
    }
    nothing_is_left(app).await;
}

async fn nothing_is_left(app: &TestApp) {
    eventually!("every process is gone", app.turn_processes().is_empty());
    eventually!("their files are gone", app.scratch_files().is_empty());
    eventually!("every slot is free", app.status().await.running_turns == 0);
    assert_eq!(app.status().await.waiting_turns, 0);
}

#[tokio::test]
async fn a_hundred_and_fifty_turns_given_up_leave_nothing_and_the_next_one_works() {
    let app = TestApp::fake(&[("CODEX_MAX_CONCURRENCY", "8")]).await;
    give_up_many(&app, 100, "fake:hang", "hi").await;
    let worse = match engine() {
        // With a grandchild that has to be found.
        Engine::Exec => "fake:grandchild",
        // Deaf to the interrupt: its worker is replaced, under whatever else runs on it.
        Engine::AppServer => "fake:deaf",
    };
    give_up_many(&app, 50, worse, "hi").await;
    let answer = app.complete(&body("fake:echo", "still there?")).await;
    assert_eq!(answer["choices"][0]["message"]["content"], echo("still there?"));
    app.stop().await;
}

#[tokio::test]
async fn two_hundred_turns_of_the_real_cli_given_up_leave_nothing_and_the_next_one_works() {
    let app = TestApp::real(&[("CODEX_MAX_CONCURRENCY", "8")]).await;
    let (model, text) = ("gpt-5.5", r#"@@{"text":"a b c","hang_after_ms":60000}@@"#);
    give_up_many(&app, 192, model, text).await;
    // And while the model answers: two in each way, of which those with a deadline end by it.
    let upstream = app.upstream.as_ref().unwrap();
    let overdue = [3, 7].map(|n| give_up(&app, n, (model, text), Duration::from_secs(3)));
    let given_up = async {
        let calls = [0, 1, 2, 4, 5, 6].map(|n| give_up(&app, n, (model, text), SOON));
        tokio::select! {
            _ = join_all(calls) => panic!("they end when they are given up"),
            () = async { eventually!("the model answers them", upstream.open_responses() >= 6) } => {}
        }
    };
    tokio::join!(join_all(overdue), given_up);
    nothing_is_left(&app).await;
    eventually!("the upstream is left alone", upstream.open_responses() == 0);
    let answer = app.complete(&body("gpt-5.5", r#"@@{"text":"still there"}@@"#)).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "still there");
    app.stop().await;
}

#[tokio::test]
async fn children_and_grandchildren_that_ignore_signals_are_dead_after_the_grace() {
    let settings = [("CODEX_ENGINE", "exec"), ("CODEX_CANCEL_GRACE_SECONDS", "0.3")];
    let app = TestApp::fake(&settings).await;
    for scenario in ["fake:stubborn", "fake:grandchild", "fake:silent"] {
        let mut grpc = app.grpc().await;
        let call = tokio::spawn(async move { grpc.chat(ask(scenario, "hi")).await });
        eventually!("the turn runs", !app.processes().is_empty());
        eventually!("it has its slot", app.status().await.running_turns == 1);
        call.abort();
        eventually!("all of it is dead", app.processes().is_empty());
        eventually!("its slot is free", app.status().await.running_turns == 0);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_worker_that_ignores_an_interrupt_is_dead_after_the_grace_and_with_it_what_it_started() {
    let settings =
        [("CODEX_ENGINE", "app-server"), ("CODEX_WORKERS", "1"), ("CODEX_CANCEL_GRACE_SECONDS", "0.3")];
    let app = TestApp::fake(&settings).await;
    for scenario in ["fake:deaf-after-text", "fake:silent"] {
        eventually!("there is a worker", app.workers().len() == 1);
        let old = app.workers();
        // A neighbour, whose grandchild is deaf and in a session of its own.
        let mut grpc = app.grpc().await;
        let neighbour = tokio::spawn(async move { grpc.chat(ask("fake:grandchild", "hi")).await });
        eventually!("the grandchild lives", !app.turn_processes().is_empty());
        let mut request = ask(scenario, "hi");
        request.timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
        let given_up = app.grpc().await.chat(request).await.unwrap_err();
        assert_eq!(given_up.code(), tonic::Code::DeadlineExceeded);
        let lost = tokio::time::timeout(SOON, neighbour).await.unwrap().unwrap().unwrap_err();
        assert_eq!(kind(&lost), (tonic::Code::Unavailable, "WORKER_LOST".into()));
        eventually!("the worker is dead", app.workers().iter().all(|worker| !old.contains(worker)));
        eventually!("and the grandchild", app.turn_processes().is_empty());
        eventually!("their slots are free", app.status().await.running_turns == 0);
        assert_eq!(app.chat(ask("fake:echo", "and now?")).await, "and now?");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_slot_is_kept_until_the_last_process_is_gone() {
    let settings =
        [("CODEX_ENGINE", "exec"), ("CODEX_MAX_CONCURRENCY", "1"), ("CODEX_CANCEL_GRACE_SECONDS", "1")];
    let app = TestApp::fake(&settings).await;
    let mut grpc = app.grpc().await;
    let call = tokio::spawn(async move { grpc.chat(ask("fake:stubborn", "hi")).await });
    eventually!("the turn runs", !app.processes().is_empty());
    call.abort();
    drop(call.await);
    // The next turn waits for the slot: when it answers, nothing of the first can be alive.
    let mut grpc = app.grpc().await;
    let next = grpc.stream_chat(ask("fake:slow:20", "hi")).await.unwrap();
    let alive = app.processes();
    assert!(!alive.iter().any(|line| line.contains("stubborn")), "{alive:?}");
    let events: Vec<_> = next.into_inner().collect().await;
    assert!(events.iter().all(Result::is_ok));
    app.stop().await;
}

#[tokio::test]
async fn what_a_finished_turn_leaves_behind_is_swept() {
    let app = TestApp::fake(&[("CODEX_ENGINE", "exec")]).await;
    let answer = app.complete(&body("fake:orphan", "hi")).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    eventually!("the orphan is gone", app.processes().is_empty());
    app.complete(&body("fake:after-end", "hi")).await;
    eventually!("who stays after its end is sent away", app.processes().is_empty());
    app.stop().await;
}

#[tokio::test]
async fn in_danger_mode_the_commands_of_the_real_cli_die_with_their_turn() {
    let app = TestApp::real(&[("CODEX_SANDBOX", "danger-full-access")]).await;
    // A command in a session of its own, deaf to signals; the number is its name.
    let name = format!("{}.{}", 97_000 + std::process::id() % 1000, 4321);
    let command =
        format!("(trap '' INT TERM HUP; setsid nohup sleep {name} >/dev/null 2>&1 & wait); sleep {name}");
    let step =
        json!([{"calls": [{"name": "exec_command", "arguments": {"cmd": command}}]}, {"text": "done"}]);
    let prompt = format!("@@{step}@@");

    let mut grpc = app.grpc().await;
    let call = tokio::spawn(async move { grpc.chat(ask("gpt-5.5", &prompt)).await });
    eventually!("the command runs", !processes::named(&format!("sleep\0{name}")).is_empty());
    call.abort();
    eventually!("the command is dead", processes::named(&format!("sleep\0{name}")).is_empty());

    // The same when the turn ends well and leaves it behind.
    let command = format!("setsid nohup sleep {name} >/dev/null 2>&1 & sleep 0.1");
    let step =
        json!([{"calls": [{"name": "exec_command", "arguments": {"cmd": command}}]}, {"text": "done"}]);
    let answer = app.complete(&body("gpt-5.5", &format!("@@{step}@@"))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "done");
    eventually!("the command is dead", processes::named(&format!("sleep\0{name}")).is_empty());
    app.stop().await;
}

#[tokio::test]
async fn in_danger_mode_who_clears_the_environment_does_not_escape_either() {
    let settings = [("CODEX_SANDBOX", "danger-full-access"), ("CODEX_WORKERS", "1")];
    let app = TestApp::real(&settings).await;
    let mut gate = Authenticator::in_folder(&app.home.path().join("work"));
    let name = |number: u32| format!("{}.{number}", 98_000 + std::process::id() % 1000);
    let alive = |number: u32| !processes::named(&format!("sleep\0{}", name(number))).is_empty();
    let leave = |number: u32| format!("env -i setsid sleep {} >/dev/null 2>&1 & sleep 0.1", name(number));
    let turn = async |command: String| {
        let step =
            json!([{"calls": [{"name": "exec_command", "arguments": {"cmd": command}}]}, {"text": "done"}]);
        let answer = app.complete(&body("gpt-5.5", &format!("@@{step}@@"))).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "done");
    };
    turn(leave(1)).await;
    eventually!("it is dead", !alive(1));

    // One of a neighbour that still runs is not taken for ours.
    let neighbour = turn(format!("{}; read -r _ < gate", leave(2)));
    let ours = async {
        eventually!("the neighbour's runs", alive(2));
        turn(leave(3)).await;
        assert!(alive(2), "it is the neighbour's");
        gate.open();
    };
    tokio::join!(neighbour, ours);
    eventually!("with the last turn that may have started them, all are dead", !alive(2) && !alive(3));
    app.stop().await;
}

/// A request with an image and a schema.
fn furnished(model: &str) -> serde_json::Value {
    let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    json!({"model": model, "messages": [{"role": "user", "content": [
        {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": png}}]}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}})
}

#[tokio::test]
async fn a_warm_worker_needs_no_files_for_a_turn() {
    let app = TestApp::fake(&[("CODEX_ENGINE", "app-server")]).await;
    let answer = app.complete(&furnished("fake:report")).await;
    let report = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    let image = &report["items"][0]["content"][1];
    assert_eq!(image["type"], "input_image", "{report}");
    assert!(image["image_url"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"), "{image}");
    assert_eq!(report["turn_start"]["outputSchema"]["type"], "object");
    let call = tokio::spawn(app.post_later(&furnished("fake:hang")));
    eventually!("the turn runs", app.status().await.running_turns == 1);
    assert_eq!(app.scratch_files(), Vec::<std::path::PathBuf>::new());
    call.abort();
    app.stop().await;
}

#[tokio::test]
async fn files_live_exactly_as_long_as_their_turn() {
    let app = TestApp::fake(&[("CODEX_ENGINE", "exec")]).await;
    let answer = app.complete(&furnished("fake:report")).await;
    let report = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    assert_eq!(report["images"][0]["exists"], true, "{report}");
    assert!(report["schema"].as_str().is_some_and(|s| s.contains("object")) || report["schema"].is_object());
    eventually!("the files are gone", app.scratch_files().is_empty());

    let hanging = furnished("fake:hang");
    let call = app.post(&hanging);
    drop(tokio::time::timeout(Duration::from_millis(300), call).await);
    eventually!("the files are gone", app.scratch_files().is_empty());
    app.stop().await;
}

#[tokio::test]
async fn a_drain_whose_patience_is_over_ends_the_turns() {
    let app = TestApp::fake(&[("CODEX_DRAIN_SECONDS", "0.3")]).await;
    let mut calls = JoinSet::new();
    for scenario in ["fake:hang", "fake:grandchild"] {
        let mut grpc = app.grpc().await;
        calls.spawn(async move { grpc.chat(ask(scenario, "hi")).await });
    }
    eventually!("both run", app.status().await.running_turns == 2);
    let stopped = tokio::time::timeout(SOON, app.stop());
    let (stopped, outcomes) = tokio::join!(stopped, calls.join_all());
    stopped.expect("the drain ends");
    for outcome in outcomes {
        assert_eq!(outcome.unwrap_err().code(), tonic::Code::Unavailable);
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_its_turn_at_once() {
    let app = TestApp::fake(&[]).await;
    eventually!("all workers are there", {
        let wanted = match engine() {
            Engine::Exec => 0,
            Engine::AppServer => std::thread::available_parallelism().unwrap().get().clamp(2, 8),
        };
        app.workers().len() == wanted
    });
    let workers = app.workers();
    let stream = open_sse(&app, "fake:slow:2000", "hi").await;
    assert_eq!(app.status().await.running_turns, 1);
    assert_eq!(app.turn_processes().is_empty(), engine() == Engine::AppServer);
    drop(stream);
    eventually!("the turn is over", app.status().await.running_turns == 0);
    eventually!("its process is gone", app.turn_processes().is_empty());
    assert_eq!(app.workers(), workers, "a turn that obeys costs no worker");
    app.stop().await;
}
