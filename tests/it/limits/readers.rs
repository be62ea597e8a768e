//! Clients that read slowly get everything; clients that have stopped reading are cut, and their turns end.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    eventually,
    support::{
        SOON, TestApp, ask,
        engines::echo,
        http::{body, chunks, streamed},
        staged::Staged,
        wire::{Wire, head},
    },
};

/// The shortest that there is.
const SHORT: (&str, &str) = ("CODEX_WRITE_TIMEOUT_SECONDS", "1");

#[tokio::test]
async fn a_client_that_has_stopped_reading_is_cut_and_its_turn_ends() {
    let staged = Staged::new();
    let app = TestApp::fake(&[SHORT, ("CODEX_BIN", &staged.bin())]).await;
    // One at each door. Neither hangs up: the server has to notice.
    let mut http = Wire::narrow(app.address).await;
    http.post(&streamed(body(Staged::flood(), "x"))).await;
    assert_eq!(http.response().await.status, 200);
    let mut grpc = app.grpc().await;
    let mut stream = grpc.stream_chat(ask(Staged::flood(), "x")).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    eventually!("both turns are gone", app.status().await.running_turns == 0);
    eventually!("their processes are gone", app.turn_processes().is_empty());
    // The call is reset, its neighbours on the same connection are not.
    let response = grpc.chat(ask("fake:echo", "same connection")).await.unwrap().into_inner();
    assert_eq!(response.choices[0].text, echo("same connection"));
    let status = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    // A warm worker says more than the server keeps for nobody before the time to write is over.
    assert!(matches!(status.code(), tonic::Code::Cancelled | tonic::Code::Aborted), "{status:?}");
    app.stop().await;
    drop(http);
}

#[tokio::test]
async fn a_client_that_has_stopped_reading_does_not_hold_up_the_drain() {
    let staged = Staged::new();
    let app = TestApp::fake(&[("CODEX_DRAIN_SECONDS", "1"), ("CODEX_BIN", &staged.bin())]).await;
    let mut grpc = app.grpc().await;
    let mut stream = grpc.stream_chat(ask(Staged::flood(), "x")).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    // Much longer than a test may take is the time that it has to read on.
    app.begin_drain();
    app.stopped().await;
}

#[tokio::test]
async fn a_client_that_reads_on_after_the_deadline_is_told_of_it() {
    let app = TestApp::fake(&[("CODEX_ENGINE", "app-server"), ("CODEX_TIMEOUT_SECONDS", "5")]).await;
    let mut wire = Wire::narrow(app.address).await;
    wire.post(&streamed(body("fake:stream:100000:1", "x"))).await;
    assert_eq!(wire.response().await.status, 200);
    // By then, what was said fills everything between the turn and us.
    eventually!("the turn is over", app.status().await.running_turns == 0);
    let mut said = Vec::new();
    while !said.ends_with(b"0\r\n\r\n") {
        let read = timeout(SOON, wire.0.read_buf(&mut said)).await.unwrap().unwrap();
        assert_ne!(read, 0, "cut after {} bytes", said.len());
    }
    let said = without_chunk_sizes(&said);
    assert!(said.ends_with("}\n\n") && !said.contains("[DONE]"), "{}", &said[said.len() - 500..]);
    let last = said.rsplit("data: ").next().unwrap();
    let error = serde_json::from_str::<serde_json::Value>(last).unwrap();
    assert_eq!(error["error"]["code"], "timeout", "{error}");
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    // Some six seconds in all: twice what a silent client has.
    let app = TestApp::fake(&[("CODEX_WRITE_TIMEOUT_SECONDS", "3")]).await;
    let text = read_slowly(&app, &body("fake:text:2000000", "x"), Duration::from_millis(30)).await;
    assert!(text == "0123456789".repeat(200_000), "{} characters", text.len());
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything_of_the_real_cli() {
    let app = TestApp::real(&[("CODEX_WRITE_TIMEOUT_SECONDS", "2")]).await;
    // Each token is an event of some 250 bytes, if it comes alone.
    let expected = (0..10_000).map(|n| format!("tok{n}")).collect::<Vec<_>>().join(" ");
    let request = body("gpt-5.5", r#"@@{"tokens":10000}@@"#);
    let text = read_slowly(&app, &request, Duration::from_millis(20)).await;
    assert!(text == expected, "{} characters", text.len());
    app.stop().await;
}

/// The text of an answer that is read 10 KiB at a time.
async fn read_slowly(app: &TestApp, request: &serde_json::Value, pace: Duration) -> String {
    let mut wire = Wire::narrow(app.address).await;
    wire.post(&streamed(request.clone())).await;
    assert_eq!(wire.response().await.status, 200);
    let mut pace = tokio::time::interval(pace);
    let mut said = Vec::new();
    let mut piece = vec![0; 10 * 1024];
    while !said.ends_with(b"0\r\n\r\n") {
        pace.tick().await;
        let read = timeout(SOON, wire.0.read(&mut piece)).await.unwrap().unwrap();
        assert_ne!(read, 0, "cut after {} bytes", said.len());
        said.extend_from_slice(&piece[..read]);
    }
    let (chunks, done) = chunks(&without_chunk_sizes(&said));
    assert!(done);
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

/// The body of a response in HTTP/1.1's chunked encoding.
fn without_chunk_sizes(mut bytes: &[u8]) -> String {
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

#[tokio::test]
async fn clients_that_send_nothing_more_of_a_body_are_told_so() {
    let app = TestApp::fake(&[("CODEX_BODY_TIMEOUT_SECONDS", "1")]).await;
    let clients = ["", "{", r#"{"model":"fake:echo""#].map(async |begun| {
        let mut wire = Wire::open(app.address).await;
        wire.send(head(1000, "") + begun).await;
        wire.response().await
    });
    for answer in join_all(clients).await {
        assert_eq!(answer.status, 408);
        assert!(answer.body.contains("body_timeout"), "{answer:?}");
    }
    app.stop().await;
}
