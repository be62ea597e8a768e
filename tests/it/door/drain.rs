//! The drain of a server: running turns complete, waiting and new turns are refused, idle connections cause no delay.

use std::time::{Duration, Instant};

use codex_api::pb::chat_event::Event;
use futures_util::{StreamExt, stream};
use prost::Message as _;
use serde_json::Value;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TestApp, chat_request,
        grpc::{answers, code_and_reason, collect_events},
        http::{answer_of_chunks, body, chunks, streamed},
        staged::{GATED_ANSWER, GatedCodex},
        wire::{Wire, head},
        with_app,
    },
};

both_engines!(drain_with_idle_connections_ends_immediately);
async fn drain_with_idle_connections_ends_immediately(engine: Engine) {
    with_app(AppConfig::fake(engine).env("CODEX_HEADER_TIMEOUT_SECONDS", "3600"), async |app| {
        let mut health = HealthClient::new(app.channel().await);
        let watch =
            health.watch(HealthCheckRequest { service: "codex.v1.CodexService".into() }).await.unwrap();
        let mut watch = watch.into_inner();
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
        let mut half = Wire::open(app.address).await;
        half.send("POST /v1/chat/completions HTTP/1.1\r\nhost: local").await;
        let mut silent = Wire::open(app.address).await;
        silent.send("").await;
        // A connection that has served a request and is idle now.
        let mut idle = Wire::open(app.address).await;
        idle.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(idle.response().await.status, 200);

        let began = Instant::now();
        app.begin_drain();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        app.wait_until_stopped().await;
        assert!(began.elapsed() < Duration::from_secs(6), "the drain took {:?}", began.elapsed());
        drop((half, silent, idle));
    })
    .await;
}

both_engines!(drain_finishes_running_turns_and_refuses_the_others);
async fn drain_finishes_running_turns_and_refuses_the_others(engine: Engine) {
    let mut staged = GatedCodex::new(engine);
    with_app(AppConfig::fake(engine).codex_bin(staged.bin()).max_concurrency(2), async |app| {
        // One turn runs at each door.
        let mut grpc = app.grpc().await;
        let mut running =
            grpc.stream_chat(chat_request(&staged.gated_model(), "x")).await.unwrap().into_inner();
        let mut text = String::new();
        while text.is_empty() {
            if let Some(Event::TextDelta(delta)) = running.message().await.unwrap().unwrap().event {
                text = delta.text;
            }
        }
        let mut sse = app.post(&streamed(body(&staged.gated_model(), "x"))).await;
        let first = sse.chunk().await.unwrap().unwrap();
        // One turn waits at each door.
        let mut waiting = JoinSet::new();
        let (url, waits) = (app.url("/v1/chat/completions"), body("fake:echo", "x"));
        waiting.spawn(async move {
            let response = reqwest::Client::new().post(url).json(&waits).send().await.unwrap();
            let (status, after) = (response.status().as_u16(), response.headers()["retry-after"].clone());
            let error = response.json::<Value>().await.unwrap()["error"]["code"].clone();
            (status, after.to_str().unwrap().to_owned(), error.as_str().unwrap().to_owned())
        });
        let mut other = app.grpc().await;
        waiting.spawn(async move {
            let (code, reason) =
                code_and_reason(&other.chat(chat_request("fake:echo", "x")).await.unwrap_err());
            (u16::try_from(code as i32).unwrap(), "1".into(), reason.to_lowercase())
        });
        eventually!("two turns run and two wait", {
            let status = app.status().await;
            (status.running_turns, status.waiting_turns) == (2, 2)
        });
        // At each door, one client has sent a part of a request on a connection that has served another request.
        let mut kept = Wire::open(app.address).await;
        kept.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(kept.response().await.status, 200);
        let late_body = body("fake:echo", "late").to_string();
        kept.send(head(late_body.len(), "expect: 100-continue\r\n")).await;
        assert_eq!(kept.response().await.status, 100);

        let (call, called) = open_unfinished_call(app).await;

        app.begin_drain();
        let mut refused = waiting.join_all().await;
        refused.sort_unstable();
        let unavailable = u16::try_from(Code::Unavailable as i32).unwrap();
        let shutting_down = |status| (status, "1".to_owned(), "shutting_down".to_owned());
        assert_eq!(refused, [shutting_down(unavailable), shutting_down(503)]);
        kept.send(late_body).await;
        let answer = kept.response().await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{answer:?}");
        assert!(answer.body.contains("shutting_down"), "{answer:?}");
        drop(call);
        let answer = called.await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14", "{answer:?}");
        assert_eq!(answer.headers()["grpc-message"], "the%20server%20is%20shutting%20down");
        // A new call on the connection of a running one, and a new connection.
        grpc.chat(chat_request("fake:echo", "x")).await.unwrap_err();
        let error = reqwest::get(app.url("/healthz")).await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");

        staged.open_gate(2);
        let rest = collect_events(running).await.unwrap();
        assert_eq!(text + &answers(&rest)[0].0, GATED_ANSWER);
        let text = String::from_utf8(first.to_vec()).unwrap() + &sse.text().await.unwrap();
        let (chunks, done) = chunks(&text);
        assert!(done, "{text}");
        assert_eq!(answer_of_chunks(&chunks).text, GATED_ANSWER);
        app.wait_until_stopped().await;
    })
    .await;
}

both_engines!(
    #[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
    turn_past_the_drain_grace_is_cancelled
);
async fn turn_past_the_drain_grace_is_cancelled(engine: Engine) {
    with_app(AppConfig::fake(engine).drain_seconds(0.2), async |app| {
        let mut running =
            app.grpc().await.stream_chat(chat_request("fake:grandchild", "x")).await.unwrap().into_inner();
        let stream = streamed(body("fake:slow:60000", "x"));
        let response = app.post(&stream);
        eventually!("the turns run", app.processes().len() >= 3);
        let ended = async {
            loop {
                match running.message().await {
                    Ok(event) => assert!(event.is_some(), "the stream ended without an error"),
                    Err(status) => break status,
                }
            }
        };
        let (status, response, ()) = tokio::join!(ended, response, async {
            eventually!("both turns run", app.status().await.running_turns == 2);
            app.begin_drain();
        });
        assert_eq!(code_and_reason(&status), (Code::Unavailable, "SHUTTING_DOWN".into()));
        assert_eq!(response.status(), 503);
        app.wait_until_stopped().await;
    })
    .await;
}

type Answer = reqwest::Result<reqwest::Response>;

/// Opens a call whose message lacks its last byte. Dropping the returned sender sends the byte.
async fn open_unfinished_call(app: &TestApp) -> (oneshot::Sender<()>, JoinHandle<Answer>) {
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    assert_eq!(client.get(app.url("/healthz")).send().await.unwrap().status(), 200);
    let mut message = chat_request("fake:echo", "late").encode_to_vec();
    message.splice(0..0, u32::try_from(message.len()).unwrap().to_be_bytes());
    message.insert(0, 0);
    let last = message.pop().unwrap();
    let (call, dropped) = oneshot::channel::<()>();
    let (started, has_started) = oneshot::channel::<()>();
    let rest = async move {
        drop(started);
        let _dropped = dropped.await;
        Ok::<_, std::io::Error>(vec![last])
    };
    let body = stream::once(async { Ok(message) }).chain(stream::once(rest));
    let request = client
        .post(app.url("/codex.v1.CodexService/Chat"))
        .header("content-type", "application/grpc")
        .body(reqwest::Body::wrap_stream(body));
    let answer = tokio::spawn(request.send());
    let _started = has_started.await;
    // The response to a later request on the same connection proves that the server has received the call.
    assert_eq!(client.get(app.url("/healthz")).send().await.unwrap().status(), 200);
    (call, answer)
}
