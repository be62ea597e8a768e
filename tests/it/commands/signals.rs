//! The exit of a server after one signal, two signals or SIGKILL, and the demo from end to end.

use std::time::Duration;

use codex_api::pb::codex_service_client::CodexServiceClient;
use reqwest::Response;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    both_engines, eventually,
    support::{
        Codex, Engine, TIMEOUT, chat_request,
        grpc::code_and_reason,
        http::{answer_of_chunks, body, chunks, streamed},
        program::{Program, RunningProgram},
    },
};

/// A PNG file with one pixel, in base64.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// Time limit of an exit: long enough for a busy machine, and much shorter than the longest drain grace of these tests.
const EXIT_LIMIT: Duration = Duration::from_secs(8);

/// Spawns a request with an image, so that its turn has a file.
fn spawn_turn(server: &RunningProgram, model: &str) -> JoinHandle<reqwest::Result<Response>> {
    let url = format!("data:image/png;base64,{PNG}");
    let content = json!([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": url}}]);
    let body = json!({"model": model, "messages": [{"role": "user", "content": content}]});
    tokio::spawn(reqwest::Client::new().post(server.url("/v1/chat/completions")).json(&body).send())
}

both_engines!(idle_server_after_a_signal_exits_with_zero);
async fn idle_server_after_a_signal_exits_with_zero(engine: Engine) {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Program::new(Codex::Fake, engine).serve(&["serve"]).await;
        assert_eq!(reqwest::get(server.url("/healthz")).await.unwrap().status(), 200);
        server.signal(signal);
        assert_eq!(server.exit_code(EXIT_LIMIT).await, Some(0), "{:?}", server.log());
        server.assert_nothing_is_left().await;
    }
}

#[tokio::test]
async fn server_after_a_hangup_drains() {
    let mut server = Program::new(Codex::Fake, Engine::Exec).serve(&["serve"]).await;
    server.signal(Signal::HUP);
    assert_eq!(server.exit_code(EXIT_LIMIT).await, Some(0), "{:?}", server.log());
    assert!(server.log_line("draining").is_some_and(|line| line["signal"] == "SIGHUP"), "{:?}", server.log());
}

#[cfg_attr(
    any(feature = "portable", not(target_os = "linux")),
    ignore = "only Linux tells without unsafe code whether a signal is ignored"
)]
#[tokio::test]
async fn server_that_ignores_hangups_outlives_one() {
    let mut server = Program::new(Codex::Fake, Engine::Exec).ignoring_hangup().serve(&["serve"]).await;
    server.signal(Signal::HUP);
    let answer = spawn_turn(&server, "fake:echo").await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    // A signal that was pending would be the first of the drain.
    server.signal(Signal::INT);
    assert_eq!(server.exit_code(EXIT_LIMIT).await, Some(0), "{:?}", server.log());
    assert!(server.log_line("draining").is_some_and(|line| line["signal"] == "SIGINT"), "{:?}", server.log());
}

both_engines!(
    #[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
    running_turns_past_the_drain_grace_are_cancelled
);
async fn running_turns_past_the_drain_grace_are_cancelled(engine: Engine) {
    let program = Program::new(Codex::Fake, engine).env("CODEX_DRAIN_SECONDS", "0.2");
    let mut server = program.serve(&[]).await;
    let turns = ["fake:grandchild", "fake:stubborn"].map(|model| spawn_turn(&server, model));
    let (processes, files) = match engine {
        // Two turns, each of a supervisor and the CLI.
        Engine::Exec => (4, 2),
        Engine::AppServer => (0, 0),
    };
    eventually!("both turns run", {
        let exec = server.turn_processes().into_iter().filter(|line| line.contains(" exec ")).count();
        let grandchild = server.turn_process("__fake-codex-grandchild", "");
        exec >= processes && grandchild.is_some() && server.running_turns().await == 2
    });
    assert_eq!(server.scratch_files().len(), files);
    server.signal(Signal::TERM);
    for turn in turns {
        let response = turn.await.unwrap().unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "shutting_down");
    }
    assert_eq!(server.exit_code(EXIT_LIMIT).await, Some(0), "{:?}", server.log());
    // Asserted without waiting: nothing may be left when the server exits.
    assert_eq!(server.processes(), Vec::<String>::new());
    assert!(server.scratch_files().is_empty());
}

both_engines!(request_after_sigterm_is_served_by_a_lame_duck);
async fn request_after_sigterm_is_served_by_a_lame_duck(engine: Engine) {
    let mut server = Program::new(Codex::Fake, engine).env("CODEX_LAME_DUCK_SECONDS", "5").serve(&[]).await;
    let connect = || async { Endpoint::new(server.url("")).unwrap().connect().await.unwrap() };
    let mut health = HealthClient::new(connect().await);
    eventually!("the server is ready", {
        let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
        status == ServingStatus::Serving
    });
    server.signal(Signal::TERM);
    eventually!("load balancers are told", {
        reqwest::get(server.url("/healthz")).await.unwrap().status() == 503
    });
    let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    // A new connection of a client whose load balancer has not noticed yet.
    let url = server.url("/v1/chat/completions");
    let answer = reqwest::Client::new().post(url).json(&body("fake:echo", "x")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut grpc = CodexServiceClient::new(connect().await);
    grpc.chat(chat_request("fake:echo", "x")).await.unwrap();
    assert_eq!(server.exit_code(EXIT_LIMIT).await, Some(0), "{:?}", server.log());
    // Each line of a request names its peer.
    let log = server.log();
    let turns: Vec<_> = log.iter().filter(|line| line.contains("turn ended")).collect();
    assert_eq!(turns.len(), 2, "{log:?}");
    assert!(turns.iter().all(|line| line.contains("\"peer\":\"127.0.0.1\"")), "{turns:?}");
    let refused = log.iter().find(|line| line.contains("/healthz")).unwrap();
    assert!(refused.contains("\"peer\":\"127.0.0.1\""), "{refused}");
}

both_engines!(second_signal_ends_the_drain_immediately);
async fn second_signal_ends_the_drain_immediately(engine: Engine) {
    let program = Program::new(Codex::Fake, engine).env("CODEX_DRAIN_SECONDS", "3600");
    let mut server = program.serve(&[]).await;
    let turn = spawn_turn(&server, "fake:hang");
    eventually!("the turn runs", server.running_turns().await == 1);
    server.signal(Signal::TERM);
    eventually!("the server drains", server.log_line("draining").is_some());
    server.signal(Signal::TERM);
    assert_eq!(turn.await.unwrap().unwrap().status(), 503);
    assert_eq!(server.exit_code(EXIT_LIMIT).await, Some(0), "{:?}", server.log());
    assert_eq!(server.processes(), Vec::<String>::new());
    assert!(server.scratch_files().is_empty());
}

both_engines!(
    #[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
    killed_server_leaves_no_process_and_no_file
);
async fn killed_server_leaves_no_process_and_no_file(engine: Engine) {
    let mut server = Program::new(Codex::Fake, engine).serve(&[]).await;
    let turn = spawn_turn(&server, "fake:grandchild");
    let files = match engine {
        Engine::Exec => 1,
        Engine::AppServer => 0,
    };
    eventually!("the grandchild runs", server.turn_process("__fake-codex-grandchild", "").is_some());
    assert_eq!(server.scratch_files().len(), files);
    server.signal(Signal::KILL);
    assert_eq!(server.exit_code(EXIT_LIMIT).await, None);
    assert!(turn.await.unwrap().is_err());
    server.assert_nothing_is_left().await;
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn killed_supervisor_fails_its_turn_and_leaves_no_process() {
    let mut server = Program::new(Codex::Fake, Engine::Exec).serve(&[]).await;
    let turn = spawn_turn(&server, "fake:grandchild");
    // A count would include the processes of a probe, which has a supervisor of its own.
    eventually!("the grandchild runs", server.turn_process("__fake-codex-grandchild", "").is_some());
    let supervisor = server.turn_process(" supervise ", " exec ").unwrap();
    let pid = supervisor.split(':').next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    // Without a kill, the grandchild would exit after two minutes.
    let answer = tokio::time::timeout(TIMEOUT, turn).await.expect("the turn fails in time");
    assert_eq!(answer.unwrap().unwrap().status(), 502);
    eventually!("the grandchild is killed", server.turn_processes().is_empty());
    // The server still serves turns.
    let answer = spawn_turn(&server, "fake:echo").await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(EXIT_LIMIT).await, Some(0), "{:?}", server.log());
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    ten_turns_of_the_real_cli_are_cancelled_by_a_drain
);
async fn ten_turns_of_the_real_cli_are_cancelled_by_a_drain(engine: Engine) {
    let program = Program::new(Codex::Real, engine)
        .env("CODEX_MAX_CONCURRENCY", "10")
        .env("CODEX_DRAIN_SECONDS", "0.2");
    let mut server = program.serve(&["serve", "--demo"]).await;
    let prompt = r#"@@{"tokens":100000,"delay_ms":50}@@"#;
    let http = (0..5).map(|_| {
        let request = streamed(body("gpt-5.5", prompt));
        let url = server.url("/v1/chat/completions");
        tokio::spawn(async move {
            reqwest::Client::new().post(url).json(&request).send().await.unwrap().text().await.unwrap()
        })
    });
    let http: Vec<JoinHandle<String>> = http.collect();
    let address = format!("http://{}", server.address);
    let grpc = (0..5).map(|_| {
        let address = address.clone();
        tokio::spawn(async move {
            let channel = tonic::transport::Channel::from_shared(address).unwrap().connect().await.unwrap();
            let mut client = CodexServiceClient::new(channel);
            let mut stream = client.stream_chat(chat_request("gpt-5.5", prompt)).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok::<(), tonic::Status>(())
        })
    });
    let grpc: Vec<JoinHandle<Result<(), tonic::Status>>> = grpc.collect();
    let running = match engine {
        // Ten turns with one supervisor each.
        Engine::Exec => 20,
        Engine::AppServer => 0,
    };
    eventually!(
        "all turns run",
        server.running_turns().await == 10 && server.turn_processes().len() >= running
    );
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(EXIT_LIMIT).await, Some(0), "{:?}", server.log());
    server.assert_nothing_is_left().await;
    for answer in http {
        let answer = answer.await.unwrap();
        assert!(answer.contains("shutting_down") && !answer.contains("[DONE]"), "{answer}");
    }
    for answer in grpc {
        let status = answer.await.unwrap().unwrap_err();
        assert_eq!(code_and_reason(&status), (tonic::Code::Unavailable, "SHUTTING_DOWN".into()), "{status}");
    }
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    demo_without_an_account_answers
);
async fn demo_without_an_account_answers(engine: Engine) {
    let mut server = Program::new(Codex::Real, engine).serve(&["serve", "--demo"]).await;
    let health: Value = reqwest::get(server.url("/healthz")).await.unwrap().json().await.unwrap();
    assert_eq!((&health["ok"], &health["demo"]), (&json!(true), &json!(true)), "{health}");
    assert!(server.log_line("demo: ").is_some(), "the log has a line about the demo: {:?}", server.log());

    let stream = async |text: &str| {
        // Like the curl example in the help: without a model.
        let mut request = streamed(body("", text));
        request.as_object_mut().unwrap().remove("model");
        let url = server.url("/v1/chat/completions");
        let response = reqwest::Client::new().post(url).json(&request).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let (chunks, done) = chunks(&response.text().await.unwrap());
        assert!(done, "{chunks:?}");
        for chunk in &chunks {
            assert!(chunk["system_fingerprint"].as_str().unwrap().starts_with("demo-codex-"), "{chunk}");
        }
        answer_of_chunks(&chunks)
    };
    let canned = stream("Hello, are you there?").await;
    assert!(canned.text.contains("Hello, are you there?"), "the answer quotes the prompt: {canned:?}");
    assert_eq!(canned.finish_reason, "stop");
    assert_eq!(stream("@@ {\"text\": \"the scripted text\"} @@").await.text, "the scripted text");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    server.assert_nothing_is_left().await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    demo_uses_the_selected_transport
);
async fn demo_uses_the_selected_transport(engine: Engine) {
    // HTTP ignores the frame, so the answer shows the transport.
    let refusal =
        json!({"type": "error", "status": 400, "error": {"message": "over the WebSocket", "code": "x"}});
    let steps =
        [json!({"text": "whole", "delay_ms": 1}), json!({"text": "over HTTP", "ws": {"frame": refusal}})];
    for (transport, expected) in [
        ("websocket", [(200, "whole"), (400, "over the WebSocket")]),
        ("https", [(200, "whole"), (200, "over HTTP")]),
    ] {
        let program = Program::new(Codex::Real, engine).env("CODEX_UPSTREAM_TRANSPORT", transport);
        let mut server = program.serve(&["serve", "--demo"]).await;
        for (step, (status, text)) in steps.iter().zip(expected) {
            let request = body("gpt-5.5", &format!("@@{step}@@"));
            let url = server.url("/v1/chat/completions");
            let response = reqwest::Client::new().post(url).json(&request).send().await.unwrap();
            assert_eq!(response.status(), status, "{transport}");
            let answer: Value = response.json().await.unwrap();
            let content = answer["choices"][0]["message"]["content"].as_str();
            let found = content.or(answer["error"]["message"].as_str()).unwrap();
            assert!(
                if status == 200 { found == text } else { found.contains(text) },
                "{transport}: {answer}"
            );
        }
        server.signal(Signal::TERM);
        assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
        server.assert_nothing_is_left().await;
    }
}
