//! Slow clients get the whole answer; stalled clients are disconnected and their turns cancelled.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TIMEOUT, TestApp, chat_request,
        http::{body, chunks, streamed},
        staged::GatedCodex,
        wire::{Wire, head},
        with_app,
    },
};

both_engines!(stalled_client_is_disconnected_and_its_turn_cancelled);
async fn stalled_client_is_disconnected_and_its_turn_cancelled(engine: Engine) {
    let staged = GatedCodex::new(engine);
    with_app(AppConfig::fake(engine).write_timeout_seconds(1.0).codex_bin(staged.bin()), async |app| {
        // One client at each door. Neither client disconnects, so the server has to detect the stall.
        let mut http = Wire::open_with_small_window(app.address).await;
        http.post(&streamed(body(staged.flood_model(), "x"))).await;
        assert_eq!(http.response().await.status, 200);
        let mut grpc = app.grpc().await;
        let mut stream =
            grpc.stream_chat(chat_request(staged.flood_model(), "x")).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        eventually!("both turns have ended", app.status().await.running_turns == 0);
        eventually!("their processes have exited", app.turn_processes().is_empty());
        // The stalled call is reset. Other calls on the same connection succeed.
        let response = grpc.chat(chat_request("fake:echo", "same connection")).await.unwrap().into_inner();
        assert_eq!(response.choices[0].text, engine.echo("same connection"));
        let status = loop {
            if let Err(status) = stream.message().await {
                break status;
            }
        };
        // With a warm worker, the output buffer overflows before the write timeout, so the code may be `Aborted`.
        assert!(matches!(status.code(), tonic::Code::Cancelled | tonic::Code::Aborted), "{status:?}");
        app.stop().await;
        drop(http);
    })
    .await;
}

both_engines!(stalled_client_does_not_delay_the_drain);
async fn stalled_client_does_not_delay_the_drain(engine: Engine) {
    let staged = GatedCodex::new(engine);
    with_app(AppConfig::fake(engine).drain_seconds(1.0).codex_bin(staged.bin()), async |app| {
        let mut grpc = app.grpc().await;
        let mut stream =
            grpc.stream_chat(chat_request(staged.flood_model(), "x")).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        // The write timeout has its default, which is longer than a test may take.
        app.begin_drain();
        app.wait_until_stopped().await;
    })
    .await;
}

#[tokio::test]
async fn client_reading_after_the_deadline_gets_the_timeout_error() {
    with_app(AppConfig::fake(Engine::AppServer).timeout_seconds(5.0), async |app| {
        let mut wire = Wire::open_with_small_window(app.address).await;
        wire.post(&streamed(body("fake:stream:100000:1", "x"))).await;
        assert_eq!(wire.response().await.status, 200);
        // At that time, the output has filled every buffer between the turn and this client.
        eventually!("the turn has ended", app.status().await.running_turns == 0);
        let mut received = Vec::new();
        while !received.ends_with(b"0\r\n\r\n") {
            let read = timeout(TIMEOUT, wire.0.read_buf(&mut received)).await.unwrap().unwrap();
            assert_ne!(read, 0, "cut after {} bytes", received.len());
        }
        let received = decode_chunked(&received);
        assert!(
            received.ends_with("}\n\n") && !received.contains("[DONE]"),
            "{}",
            &received[received.len() - 500..]
        );
        let last = received.rsplit("data: ").next().unwrap();
        let error = serde_json::from_str::<serde_json::Value>(last).unwrap();
        assert_eq!(error["error"]["code"], "timeout", "{error}");
    })
    .await;
}

both_engines!(slow_client_of_the_fake_gets_the_whole_answer);
async fn slow_client_of_the_fake_gets_the_whole_answer(engine: Engine) {
    // Reading takes about six seconds, twice the write timeout.
    with_app(AppConfig::fake(engine).write_timeout_seconds(3.0), async |app| {
        let text = read_slowly(app, &body("fake:text:2000000", "x"), Duration::from_millis(30)).await;
        assert!(text == "0123456789".repeat(200_000), "{} characters", text.len());
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    slow_client_of_the_real_cli_gets_the_whole_answer
);
async fn slow_client_of_the_real_cli_gets_the_whole_answer(engine: Engine) {
    with_app(AppConfig::real(engine).write_timeout_seconds(2.0), async |app| {
        // An event with a single token has about 250 bytes.
        let expected = (0..10_000).map(|n| format!("tok{n}")).collect::<Vec<_>>().join(" ");
        let request = body("gpt-5.5", r#"@@{"tokens":10000}@@"#);
        let text = read_slowly(app, &request, Duration::from_millis(20)).await;
        assert!(text == expected, "{} characters", text.len());
    })
    .await;
}

/// Reads an answer 10 KiB at a time.
async fn read_slowly(app: &TestApp, request: &serde_json::Value, pace: Duration) -> String {
    let mut wire = Wire::open_with_small_window(app.address).await;
    wire.post(&streamed(request.clone())).await;
    assert_eq!(wire.response().await.status, 200);
    let mut pace = tokio::time::interval(pace);
    let mut received = Vec::new();
    let mut piece = vec![0; 10 * 1024];
    while !received.ends_with(b"0\r\n\r\n") {
        pace.tick().await;
        let read = timeout(TIMEOUT, wire.0.read(&mut piece)).await.unwrap().unwrap();
        assert_ne!(read, 0, "cut after {} bytes", received.len());
        received.extend_from_slice(&piece[..read]);
    }
    let (chunks, done) = chunks(&decode_chunked(&received));
    assert!(done);
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

/// Decodes a body in the chunked encoding of HTTP/1.1.
fn decode_chunked(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return String::from_utf8(text).unwrap();
        }
        text.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
}

both_engines!(unfinished_body_is_refused_after_the_body_timeout);
async fn unfinished_body_is_refused_after_the_body_timeout(engine: Engine) {
    with_app(AppConfig::fake(engine).env("CODEX_BODY_TIMEOUT_SECONDS", "1"), async |app| {
        let clients = ["", "{", r#"{"model":"fake:echo""#].map(async |begun| {
            let mut wire = Wire::open(app.address).await;
            wire.send(head(1000, "") + begun).await;
            wire.response().await
        });
        for answer in join_all(clients).await {
            assert_eq!(answer.status, 408);
            assert!(answer.body.contains("body_timeout"), "{answer:?}");
        }
    })
    .await;
}
