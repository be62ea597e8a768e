//! Failures after a command of the agent, and the same failures before it.

use std::time::Duration;

use codex_api::{error::RETRY_PUSHBACK, pb::chat_event::Event};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt;

use super::{assert_forbids_retry, assert_http_forbids_retry};
use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TIMEOUT, TestApp, WebSocketLimit, chat_request,
        grpc::code_and_reason,
        http::{body, chunks, streamed},
        with_app,
    },
};

/// Kinds of failures that are retryable before an effect, or whose status SDKs retry, with their reasons.
const FAILURES: &[(&str, &str)] = &[
    ("429-delay", "RATE_LIMIT_EXCEEDED"),
    ("429-usage-limit", "INSUFFICIENT_QUOTA"),
    ("500", "UPSTREAM_UNAVAILABLE"),
    ("503-capacity", "UPSTREAM_UNAVAILABLE"),
    ("cut", "UPSTREAM_UNAVAILABLE"),
    ("connection", "UPSTREAM_UNAVAILABLE"),
    ("401", "ENGINE_UNAVAILABLE"),
];

both_engines!(failure_after_a_command_is_not_offered_for_retry);
async fn failure_after_a_command_is_not_offered_for_retry(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for (kind, cause) in FAILURES {
            let model = format!("fake:acted:{kind}");
            assert_forbids_retry(&app.grpc_error(chat_request(&model, "hi")).await, cause);
            assert_http_forbids_retry(app.post(&body(&model, "hi")).await).await;
            // The head of a stream is sent with the command's event or not yet.
            let mut events =
                app.grpc().await.stream_chat(chat_request(&model, "hi")).await.unwrap().into_inner();
            let status = loop {
                match events.message().await {
                    Ok(event) => assert!(event.is_some(), "{kind}: the stream ended without an error"),
                    Err(status) => break status,
                }
            };
            assert_forbids_retry(&status, cause);
            let response = app.post(&streamed(body(&model, "hi"))).await;
            assert_eq!(response.status(), 200);
            let (frames, done) = chunks(&response.text().await.unwrap());
            assert!(!done);
            assert_eq!(frames.last().unwrap()["error"]["code"], "failed_after_effects", "{frames:?}");
        }
    })
    .await;
}

both_engines!(failure_before_an_effect_is_offered_for_retry);
async fn failure_before_an_effect_is_offered_for_retry(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for (kind, code, http, delay) in [
            ("429-delay", Code::ResourceExhausted, 429, None),
            ("503", Code::Unavailable, 503, Some(5)),
            ("503-capacity", Code::Unavailable, 503, Some(5)),
            ("500", Code::Unavailable, 503, Some(5)),
        ] {
            let model = format!("fake:failed:{kind}");
            let status = app.grpc_error(chat_request(&model, "hi")).await;
            assert_eq!(status.code(), code, "{status}");
            let wait = status.get_error_details().retry_info().and_then(|info| info.retry_delay).unwrap();
            assert!(delay.is_none_or(|seconds| wait == Duration::from_secs(seconds)), "{status}");
            let pushback = status.metadata().get(RETRY_PUSHBACK).unwrap().to_str().unwrap();
            assert_eq!(pushback, wait.as_millis().to_string());
            let response = app.post(&body(&model, "hi")).await;
            assert_eq!(response.status(), http);
            assert!(response.headers().contains_key("retry-after"), "{kind}");
            assert!(!response.headers().contains_key("x-should-retry"), "{kind}");
        }
    })
    .await;
}

/// `codex exec` reports that it lost events, which may have been those of a command.
#[tokio::test]
async fn failure_after_lost_events_is_not_offered_for_retry() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        for (kind, cause) in FAILURES {
            let model = format!("fake:lagged:{kind}");
            assert_forbids_retry(&app.grpc_error(chat_request(&model, "hi")).await, cause);
            assert_http_forbids_retry(app.post(&body(&model, "hi")).await).await;
        }
    })
    .await;
}

/// Opens a stream of a turn and waits until its command has ended.
async fn act(app: &TestApp, model: &str, prompt: &str) -> tonic::Streaming<codex_api::pb::ChatEvent> {
    let mut events = app.grpc().await.stream_chat(chat_request(model, prompt)).await.unwrap().into_inner();
    loop {
        let event = timeout(TIMEOUT, events.message()).await.unwrap().unwrap().expect("a command");
        if matches!(event.event, Some(Event::Item(_))) {
            return events;
        }
    }
}

async fn error_of(mut events: tonic::Streaming<codex_api::pb::ChatEvent>) -> tonic::Status {
    loop {
        match timeout(TIMEOUT, events.message()).await.unwrap() {
            Ok(event) => assert!(event.is_some(), "the stream ended without an error"),
            Err(status) => return status,
        }
    }
}

both_engines!(drain_after_a_command_is_not_offered_for_retry);
async fn drain_after_a_command_is_not_offered_for_retry(engine: Engine) {
    with_app(AppConfig::fake(engine).drain_seconds(0.2).max_concurrency(4), async |app| {
        let stream = act(app, "fake:acted:hang", "hi").await;
        let unary = tokio::spawn(app.post_future(&body("fake:acted:hang", "hi")));
        let idle = tokio::spawn(app.post_future(&body("fake:hang", "hi")));
        eventually!("the turns run", app.status().await.running_turns == 3);
        // The second turn's command begins at once; its event is not visible to a unary caller.
        act(app, "fake:acted:hang", "hi").await;
        app.begin_drain();
        assert_forbids_retry(&error_of(stream).await, "SHUTTING_DOWN");
        assert_http_forbids_retry(unary.await.unwrap()).await;
        let idle = idle.await.unwrap();
        assert_eq!(idle.status(), 503);
        assert!(idle.headers().contains_key("retry-after") && !idle.headers().contains_key("x-should-retry"));
        app.wait_until_stopped().await;
    })
    .await;
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn lost_worker_is_offered_for_retry_only_in_the_chat_profile() {
    with_app(AppConfig::fake(Engine::AppServer).workers(1), async |app| {
        for model in ["fake:hang-after-text", "fake:acted:hang"] {
            let mut events =
                app.grpc().await.stream_chat(chat_request(model, "hi")).await.unwrap().into_inner();
            while !matches!(
                events.message().await.unwrap().unwrap().event,
                Some(Event::TextDelta(_) | Event::Item(_))
            ) {}
            kill_workers(app);
            assert_forbids_retry(&error_of(events).await, "WORKER_LOST");
        }
        let mut events = app
            .grpc()
            .await
            .stream_chat(chat_request("fake:hang-after-text:chat", "hi"))
            .await
            .unwrap()
            .into_inner();
        while !matches!(events.message().await.unwrap().unwrap().event, Some(Event::TextDelta(_))) {}
        kill_workers(app);
        let status = error_of(events).await;
        assert_eq!(code_and_reason(&status), (Code::Unavailable, "WORKER_LOST".into()));
        assert_eq!(status.metadata().get(RETRY_PUSHBACK).unwrap(), "1000");
    })
    .await;
}

fn kill_workers(app: &TestApp) {
    for pid in app.workers() {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    }
}

/// Returns a directive for a command that appends to a file of the workspace, followed by `then`.
fn append_then(app: &TestApp, name: &str, then: &Value) -> (String, std::path::PathBuf) {
    let file = app.home.path().join("work").join(name);
    let command = json!({"cmd": format!("echo once >> {name}")});
    let call = json!({"calls": [{"name": "exec_command", "arguments": command}]});
    (format!("@@{}@@", json!([call, then])), file)
}

/// Starts a turn at each door, waits until its command has written, does `end`, and asserts that nothing may repeat the
/// turns.
async fn assert_end_after_a_command_forbids_retry(app: &TestApp, cause: &str, end: impl Fn(&TestApp)) {
    let endless = json!({"tokens": 100_000, "delay_ms": 20});
    let prompts = ["unary.txt", "streamed.txt", "http.txt"].map(|name| append_then(app, name, &endless));
    let [(unary, _), (streamed_prompt, _), (http, _)] = &prompts;
    let mut client = app.grpc().await;
    let request = chat_request("gpt-5.5", unary);
    let unary = tokio::spawn(async move { client.chat(request).await.unwrap_err() });
    let http = tokio::spawn(app.post_future(&body("gpt-5.5", http)));
    let stream = act(app, "gpt-5.5", streamed_prompt).await;
    let written = |file: &std::path::PathBuf| std::fs::read_to_string(file).unwrap_or_default();
    eventually!("the commands have written", prompts.iter().all(|(_, file)| written(file) == "once\n"));
    end(app);
    assert_forbids_retry(&error_of(stream).await, cause);
    assert_forbids_retry(&unary.await.unwrap(), cause);
    assert_http_forbids_retry(http.await.unwrap()).await;
    for (_, file) in &prompts {
        assert_eq!(written(file), "once\n", "{}", file.display());
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn command_before_the_loss_of_a_real_worker_runs_once() {
    let config = AppConfig::real(Engine::AppServer).sandbox("workspace-write").workers(1).max_concurrency(4);
    with_app(config, async |app| {
        assert_end_after_a_command_forbids_retry(app, "WORKER_LOST", kill_workers).await;
        // The next turn runs on a new worker, and no turn of the old one runs again.
        let answer = app.chat(chat_request("gpt-5.5", r#"@@{"text":"next"}@@"#)).await;
        assert_eq!(answer, "next");
        let file = app.home.path().join("work/unary.txt");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "once\n");
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    command_before_a_drain_of_the_real_cli_runs_once
);
async fn command_before_a_drain_of_the_real_cli_runs_once(engine: Engine) {
    let config = AppConfig::real(engine).sandbox("workspace-write").max_concurrency(4).drain_seconds(0.2);
    with_app(config, async |app| {
        assert_end_after_a_command_forbids_retry(app, "SHUTTING_DOWN", TestApp::begin_drain).await;
        app.wait_until_stopped().await;
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    command_before_an_upstream_error_runs_once
);
async fn command_before_an_upstream_error_runs_once(engine: Engine) {
    let config = AppConfig::real(engine).sandbox("workspace-write").upstream_retries(0);
    with_app(config.without_websocket(WebSocketLimit::FallbackRepeatsTheRequest), async |app| {
        for (then, cause) in [
            (json!({"status": 429}), "RATE_LIMIT_EXCEEDED"),
            (json!({"status": 500}), "UPSTREAM_UNAVAILABLE"),
            (json!({"text": "a b c d", "cut_after": 2}), "UPSTREAM_UNAVAILABLE"),
        ] {
            let (prompt, file) = append_then(app, "effects.txt", &then);
            let _ = std::fs::remove_file(&file);
            let before = app.last_request_number();
            assert_http_forbids_retry(app.post(&body("gpt-5.5", &prompt)).await).await;
            assert_eq!(app.model_calls_since(before), 2, "{then}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "once\n", "{then}");
            let status = app.grpc().await.chat(chat_request("gpt-5.5", &prompt)).await.unwrap_err();
            assert_forbids_retry(&status, cause);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "once\nonce\n", "one per request: {then}");
        }
    })
    .await;
}
