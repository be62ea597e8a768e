//! Every failure of an engine over both doors: the gRPC status with its reason, and the OpenAI error.

mod broken_responses;
mod foreign_texts;
mod silent_retries;

use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use codex_api::pb::notice;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Codex, Engine, TIMEOUT, TestApp, WebSocketLimit, chat_request,
        http::{body, notices},
        program::Program,
        with_app,
    },
};

/// A failure and its expected errors at both doors.
struct Row {
    /// A scenario of the fake codex, or a prompt for the real CLI.
    scenario: &'static str,
    grpc: Code,
    reason: &'static str,
    http: u16,
    kind: &'static str,
    code: &'static str,
    /// Whether the app-server engine delivers text before the failure. `exec` delivers whole messages, so no text.
    after_text: bool,
}

const fn row_after_text(scenario: &'static str, grpc: Grpc, http: Http) -> Row {
    Row { after_text: true, ..row(scenario, grpc, http) }
}

const fn row(
    scenario: &'static str,
    (grpc, reason): (Code, &'static str),
    (http, kind, code): (u16, &'static str, &'static str),
) -> Row {
    Row { scenario, grpc, reason, http, kind, code, after_text: false }
}

type Grpc = (Code, &'static str);
type Http = (u16, &'static str, &'static str);

const BAD: Grpc = (Code::InvalidArgument, "UPSTREAM_REJECTED");
const BAD_HTTP: Http = (400, "invalid_request_error", "upstream_rejected");
const CONTEXT: Grpc = (Code::InvalidArgument, "CONTEXT_LENGTH_EXCEEDED");
const CONTEXT_HTTP: Http = (400, "invalid_request_error", "context_length_exceeded");
const MODEL: Grpc = (Code::NotFound, "MODEL_NOT_FOUND");
const MODEL_HTTP: Http = (404, "invalid_request_error", "model_not_found");
const ENGINE: Grpc = (Code::FailedPrecondition, "ENGINE_UNAVAILABLE");
const ENGINE_HTTP: Http = (503, "server_error", "engine_unavailable");
const RATE: Grpc = (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED");
const RATE_HTTP: Http = (429, "rate_limit_error", "rate_limit_exceeded");
const QUOTA: Grpc = (Code::ResourceExhausted, "INSUFFICIENT_QUOTA");
const QUOTA_HTTP: Http = (429, "insufficient_quota", "insufficient_quota");
const UPSTREAM: Grpc = (Code::Unavailable, "UPSTREAM_UNAVAILABLE");
const UPSTREAM_HTTP: Http = (503, "server_error", "upstream_unavailable");
const TURN: Grpc = (Code::Aborted, "TURN_FAILED");
const TURN_HTTP: Http = (502, "server_error", "turn_failed");
// The agent may have acted before the loss.
const LOST: Grpc = (Code::Aborted, "FAILED_AFTER_EFFECTS");
const LOST_HTTP: Http = (502, "server_error", "failed_after_effects");

const FAKE: &[Row] = &[
    row("fake:failed:400", BAD, BAD_HTTP),
    row("fake:failed:422", BAD, BAD_HTTP),
    row("fake:failed:400-model", MODEL, MODEL_HTTP),
    row("fake:failed:404-model", MODEL, MODEL_HTTP),
    row("fake:failed:400-unsupported-model", MODEL, MODEL_HTTP),
    row("fake:failed:403-model", MODEL, MODEL_HTTP),
    row("fake:failed:404-retired-model", MODEL, MODEL_HTTP),
    row("fake:failed:404", TURN, TURN_HTTP),
    row("fake:failed:400-context", CONTEXT, CONTEXT_HTTP),
    row("fake:failed:400-context-json", CONTEXT, CONTEXT_HTTP),
    row("fake:failed:sse-context", CONTEXT, CONTEXT_HTTP),
    row("fake:failed:413", CONTEXT, CONTEXT_HTTP),
    row("fake:failed:401", ENGINE, ENGINE_HTTP),
    row("fake:failed:403", ENGINE, ENGINE_HTTP),
    row("fake:failed:missing-env-key", ENGINE, ENGINE_HTTP),
    row("fake:not-logged-in", ENGINE, ENGINE_HTTP),
    row("fake:failed:429", RATE, RATE_HTTP),
    row("fake:failed:sse-rate-limit", RATE, RATE_HTTP),
    row("fake:failed:429-delay", RATE, RATE_HTTP),
    row("fake:failed:429-quota", QUOTA, QUOTA_HTTP),
    row("fake:failed:429-usage-limit", QUOTA, QUOTA_HTTP),
    row("fake:failed:402", QUOTA, QUOTA_HTTP),
    row("fake:failed:500", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:502", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:503", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:503-capacity", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:sse-server-error", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:cut", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:eof", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:idle", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:connection", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:429-not-included", QUOTA, QUOTA_HTTP),
    row("fake:failed:refresh", ENGINE, ENGINE_HTTP),
    row("fake:failed:403-websocket", UPSTREAM, UPSTREAM_HTTP),
    row("fake:reconnect:3:500", UPSTREAM, UPSTREAM_HTTP),
    row("fake:reconnect-forever", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:sse-invalid-prompt", TURN, TURN_HTTP),
];

/// Failures of the exec engine only.
const FAKE_EXEC: &[Row] = &[
    row("fake:old", ENGINE, ENGINE_HTTP),
    row("fake:config-error", ENGINE, ENGINE_HTTP),
    row("fake:crash", TURN, TURN_HTTP),
    row("fake:exit0", TURN, TURN_HTTP),
    row("fake:longline:9000000", TURN, TURN_HTTP),
    row(
        "fake:prompt-too-large",
        (Code::InvalidArgument, "PROMPT_TOO_LARGE"),
        (413, "invalid_request_error", "context_length_exceeded"),
    ),
];

/// Failures of the app-server engine only. A worker that exits loses its turns.
const FAKE_APP_SERVER: &[Row] = &[
    row("fake:crash", LOST, LOST_HTTP),
    row("fake:exit0", LOST, LOST_HTTP),
    row("fake:longline:9000000", TURN, TURN_HTTP),
    row("fake:babble:9000000", LOST, LOST_HTTP),
    row("fake:failed:529", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:sse-overloaded", UPSTREAM, UPSTREAM_HTTP),
    row("fake:failed:sse-cyber", BAD, BAD_HTTP),
    row_after_text("fake:die", LOST, LOST_HTTP),
    row_after_text("fake:failed-after-text:500", UPSTREAM, UPSTREAM_HTTP),
    row_after_text("fake:failed-after-text:cut", UPSTREAM, UPSTREAM_HTTP),
    row_after_text("fake:replay:1", UPSTREAM, UPSTREAM_HTTP),
    row_after_text("fake:silent-retry:other", UPSTREAM, UPSTREAM_HTTP),
];

const REAL: &[Row] = &[
    row(r#"@@{"status":400,"body":{"error":{"message":"bad","code":"bad_param"}}}@@"#, BAD, BAD_HTTP),
    row(
        r#"@@{"status":404,"body":{"error":{"message":"The model 'x' does not exist","code":"model_not_found"}}}@@"#,
        MODEL,
        MODEL_HTTP,
    ),
    row(
        r#"@@{"status":400,"body":{"detail":"The 'x' model is not supported when using Codex with a ChatGPT account."}}@@"#,
        MODEL,
        MODEL_HTTP,
    ),
    row(
        r#"@@{"status":403,"body":{"error":{"message":"Project p does not have access to model x","code":"model_not_found"}}}@@"#,
        MODEL,
        MODEL_HTTP,
    ),
    row(
        r#"@@{"status":404,"body":{"error":{"message":"The model x has been deprecated","code":"model_not_found"}}}@@"#,
        MODEL,
        MODEL_HTTP,
    ),
    row(r#"@@{"failed":{"code":"context_length_exceeded","message":"too long"}}@@"#, CONTEXT, CONTEXT_HTTP),
    row(r#"@@{"status":401,"body":{"error":{"message":"wrong key"}}}@@"#, ENGINE, ENGINE_HTTP),
    row(r#"@@{"status":403,"body":{"error":{"message":"no"}}}@@"#, ENGINE, ENGINE_HTTP),
    row(
        r#"@@{"status":429,"body":{"error":{"message":"slow","code":"rate_limit_exceeded"}}}@@"#,
        RATE,
        RATE_HTTP,
    ),
    row(
        r#"@@{"failed":{"code":"rate_limit_exceeded","message":"Rate limit. Please try again in 1.5s."}}@@"#,
        RATE,
        RATE_HTTP,
    ),
    row(
        r#"@@{"status":429,"body":{"error":{"message":"x","code":"insufficient_quota"}}}@@"#,
        QUOTA,
        QUOTA_HTTP,
    ),
    row(r#"@@{"status":500}@@"#, UPSTREAM, UPSTREAM_HTTP),
    row(r#"@@{"status":503,"body":"<html>busy</html>"}@@"#, UPSTREAM, UPSTREAM_HTTP),
    row_after_text(r#"@@{"text":"a b c d","cut_after":2}@@"#, UPSTREAM, UPSTREAM_HTTP),
    row_after_text(r#"@@{"text":"a b c d","eof":true}@@"#, UPSTREAM, UPSTREAM_HTTP),
    row(r#"@@{"failed":{"code":"server_error","message":"oops"}}@@"#, UPSTREAM, UPSTREAM_HTTP),
];

/// Sends the request over all four routes and compares each error with its row.
async fn assert_failure(app: &TestApp, row: &Row, model: &str, text: &str) {
    let context = format!("{} {text}", row.scenario);
    let mut grpc = app.grpc().await;
    let unary = grpc.chat(chat_request(model, text)).await.expect_err(&context);
    assert_status(&unary, row, &context);
    let streamed = match grpc.stream_chat(chat_request(model, text)).await {
        Ok(stream) => {
            let mut stream = stream.into_inner();
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{context}: the stream ended without an error"),
                    Err(status) => break status,
                }
            }
        }
        Err(status) => status,
    };
    assert_status(&streamed, row, &context);

    let (status, error) = app.http_error(&body(model, text)).await;
    assert_error_body(status, &error, row, &context);
    let mut streaming = body(model, text);
    streaming["stream"] = true.into();
    if row.after_text && app.engine == Engine::AppServer {
        let (chunks, done) = app.stream_until_end(&streaming).await;
        assert!(!done, "{context}: {chunks:?}");
        let (last, earlier) = chunks.split_last().unwrap();
        assert_error_body(row.http, &last["error"], row, &context);
        assert!(
            earlier.iter().any(|chunk| chunk["choices"][0]["delta"]["content"].is_string()),
            "{context}: {earlier:?}"
        );
        return;
    }
    // A failure before the first text is a status for a streamed request too.
    let (status, error) = app.http_error(&streaming).await;
    assert_error_body(status, &error, row, &context);
}

fn assert_status(status: &Status, row: &Row, context: &str) {
    assert_eq!(status.code(), row.grpc, "{context}: {status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (row.reason, "codex-api"), "{context}");
    assert!(
        !status.message().contains("127.0.0.1"),
        "{context}: the message contains an internal URL: {status:?}"
    );
}

fn assert_error_body(status: u16, error: &Value, row: &Row, context: &str) {
    assert_eq!(status, row.http, "{context}: {error}");
    assert_eq!(error["type"], row.kind, "{context}: {error}");
    assert_eq!(error["code"], row.code, "{context}: {error}");
}

both_engines!(failures_of_the_fake_are_mapped_at_both_doors);
async fn failures_of_the_fake_are_mapped_at_both_doors(engine: Engine) {
    with_app(AppConfig::fake(engine).max_concurrency(4), async |app| {
        let engine_rows = match engine {
            Engine::Exec => FAKE_EXEC,
            Engine::AppServer => FAKE_APP_SERVER,
        };
        for row in FAKE.iter().chain(engine_rows) {
            assert_failure(app, row, row.scenario, "hi").await;
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    failures_of_the_real_cli_are_mapped_at_both_doors
);
async fn failures_of_the_real_cli_are_mapped_at_both_doors(engine: Engine) {
    with_app(AppConfig::real(engine).max_concurrency(4).upstream_retries(0), async |app| {
        for row in REAL {
            assert_failure(app, row, "gpt-5.5", row.scenario).await;
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    unreachable_upstream_fails_the_turn
);
async fn unreachable_upstream_fails_the_turn(engine: Engine) {
    with_app(AppConfig::real(engine).upstream_retries(1), async |app| {
        app.close_upstream();
        assert_failure(app, &row("unreachable upstream", UPSTREAM, UPSTREAM_HTTP), "gpt-5.5", "hello").await;
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    failed_request_of_the_real_cli_is_retried
);
async fn failed_request_of_the_real_cli_is_retried(engine: Engine) {
    with_app(AppConfig::real(engine).upstream_retries(2), async |app| {
        let prompt = r#"@@{"status":500,"times":1,"then":{"text":"healed"}}@@"#;
        let answer = app.complete(&body("gpt-5.5", prompt)).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "healed");
    })
    .await;
}

both_engines!(retry_notices_of_the_fake_are_delivered_at_both_doors);
async fn retry_notices_of_the_fake_are_delivered_at_both_doors(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let response =
            app.grpc().await.chat(chat_request("fake:reconnect:2:ok", "hi")).await.unwrap().into_inner();
        let retries: Vec<_> =
            response.notices.iter().filter(|n| n.message.starts_with("Reconnecting")).collect();
        assert_eq!(retries.len(), 2, "{:?}", response.notices);
        // The HTTP door delivers the same notices in members and comments that SDKs ignore.
        let request = body("fake:reconnect:2:ok", "hi");
        let whole = app.complete(&request).await;
        let stream = app.stream_with_notices(&request).await;
        for notices in [whole["codex"]["notices"].as_array().unwrap(), &notices(&stream)] {
            let kind_and_message =
                |notice: &Value| (notice["kind"] == "retry", notice["message"].as_str().unwrap().to_owned());
            let expected =
                response.notices.iter().map(|n| (n.kind() == notice::Kind::Retry, n.message.clone()));
            assert_eq!(
                notices.iter().map(kind_and_message).collect::<Vec<_>>(),
                expected.collect::<Vec<_>>()
            );
        }
    })
    .await;
}

both_engines!(incomplete_response_of_the_fake_is_delivered_with_its_finish_reason);
async fn incomplete_response_of_the_fake_is_delivered_with_its_finish_reason(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for (scenario, reason) in [("incomplete-length", "length"), ("incomplete-filter", "content_filter")] {
            let answer = app.complete(&body(&format!("fake:failed:{scenario}"), "hi")).await;
            assert_eq!(answer["choices"][0]["finish_reason"], reason);
            assert_eq!(answer["choices"][0]["message"]["content"], "the beginning of");
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    incomplete_response_of_the_real_cli_is_delivered_with_its_finish_reason
);
async fn incomplete_response_of_the_real_cli_is_delivered_with_its_finish_reason(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        for (incomplete, reason) in [("max_output_tokens", "length"), ("content_filter", "content_filter")] {
            let prompt = format!(r#"@@{{"text":"the beginning","incomplete":"{incomplete}"}}@@"#);
            let answer = app.complete(&body("gpt-5.5", &prompt)).await;
            assert_eq!(answer["choices"][0]["finish_reason"], reason, "{answer}");
            assert_eq!(answer["choices"][0]["message"]["content"], "the beginning");
        }
    })
    .await;
}

both_engines!(failure_after_the_first_text_ends_the_stream_without_done);
async fn failure_after_the_first_text_ends_the_stream_without_done(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        // The pause of `fake:slow` between two messages makes the deadline expire after the first text.
        let response = reqwest::Client::new()
            .post(app.url("/v1/chat/completions"))
            .header("x-codex-timeout-seconds", "0.5")
            .json(&serde_json::json!({"model": "fake:slow:400", "stream": true,
            "messages": [{"role": "user", "content": "hi"}]}))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(error["error"]["code"], "timeout", "{text}");
        assert!(!text.contains("[DONE]"));
    })
    .await;
}

both_engines!(deadline_of_each_kind_ends_the_turn);
async fn deadline_of_each_kind_ends_the_turn(engine: Engine) {
    with_app(AppConfig::fake(engine).timeout_seconds(1.0), async |app| {
        let (status, error) = app.http_error(&body("fake:hang", "hi")).await;
        assert_eq!((status, error["code"].as_str()), (504, Some("timeout")));

        let mut request = chat_request("fake:hang", "hi");
        request.timeout = Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 });
        let status = app.grpc().await.chat(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("the request's own timeout"), "{status:?}");

        // A client that sends `grpc-timeout` but does not enforce it.
        let mut call = tonic::Request::new(chat_request("fake:slow:150", "hi"));
        call.metadata_mut().insert("grpc-timeout", "400m".parse().unwrap());
        let mut stream = app.grpc().await.stream_chat(call).await.unwrap().into_inner();
        let status = loop {
            match stream.message().await {
                Ok(event) => assert!(event.is_some(), "the stream ended without an error"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded);
    })
    .await;
}

both_engines!(full_queue_refuses_with_a_retry_delay);
async fn full_queue_refuses_with_a_retry_delay(engine: Engine) {
    with_app(AppConfig::fake(engine).max_concurrency(1).max_queue(0), async |app| {
        let mut holder =
            app.grpc().await.stream_chat(chat_request("fake:slow:50", "hi")).await.unwrap().into_inner();
        holder.message().await.unwrap();
        let response = app.post(&body("fake:echo", "hi")).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(response.headers().contains_key("retry-after"));
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], "overloaded");
        let status = app.grpc().await.chat(chat_request("fake:echo", "hi")).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        assert!(delay.is_some_and(|delay| delay >= Duration::from_secs(1)), "{delay:?}");
        while holder.message().await.unwrap().is_some() {}
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    refused_login_is_logged_with_the_upstream_message
);
async fn refused_login_is_logged_with_the_upstream_message(engine: Engine) {
    let mut server = Program::new(Codex::Real, engine).serve(&["serve", "--demo"]).await;
    let http = reqwest::Client::new();
    for (status, text, in_answer) in [
        (401, "Missing scopes: api.write", false),
        (403, "Country, region, or territory not supported", true),
    ] {
        let prompt = format!(r#"@@{{"status":{status},"body":{{"error":{{"message":"{text}"}}}}}}@@"#);
        let request = http.post(server.url("/v1/chat/completions")).json(&body("gpt-5.5", &prompt));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let error: Value = response.json().await.unwrap();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("log in") && message.contains(text) == in_answer, "{message}");
        let logged = || server.log().iter().any(|line| line.contains("refuses") && line.contains(text));
        eventually!("the log has the upstream message", logged());
    }
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    rate_limit_carries_the_retry_delay_of_codex
);
async fn rate_limit_carries_the_retry_delay_of_codex(engine: Engine) {
    with_app(AppConfig::real(engine).upstream_retries(0), async |app| {
        let failed = r#"@@{"failed":{"code":"rate_limit_exceeded","message":"Please try again in 3.2s."}}@@"#;
        let refused =
            r#"@@{"status":429,"headers":{"retry-after":"7"},"body":{"error":{"message":"slow"}}}@@"#;
        for (prompt, expected) in [(failed, Some("4")), (refused, None)] {
            let response = app.post(&body("gpt-5.5", prompt)).await;
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            let delay = response.headers().get("retry-after").map(|delay| delay.to_str().unwrap());
            assert_eq!(delay, expected, "only `failed` carries a delay, see docs/errors.md");
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    rate_limit_with_a_long_delay_ends_the_turn_at_once
);
async fn rate_limit_with_a_long_delay_ends_the_turn_at_once(engine: Engine) {
    // Codex waits as long as the header says, and reports only that it retries. The test ends before the delay does.
    let step = r#"@@{"status":429,"headers":{"retry-after":"600"},"body":{"error":{"message":"slow","code":"rate_limit_exceeded"}}}@@"#;
    let config = AppConfig::real(engine).without_websocket(WebSocketLimit::FirstRetryIsSilent);
    with_app(config.upstream_retries(2).timeout_seconds(25.0), async |app| {
        let (status, error) = app.http_error(&body("gpt-5.5", step)).await;
        assert_eq!((status, &error["code"]), (429, &"rate_limit_exceeded".into()), "{error}");
        let requests = app.upstream().requests();
        assert_eq!(requests.iter().filter(|request| !request.is_warm_up()).count(), 1);
    })
    .await;
}
