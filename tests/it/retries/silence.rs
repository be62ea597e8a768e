//! Signs of life: streams that wait for a slot, silent streams, and slow answers that are not streamed.

use std::time::Duration;

use codex_api::pb::chat_event::Event;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TIMEOUT, chat_request,
        http::{body, chunks, streamed},
        with_app,
    },
};

both_engines!(stream_that_waits_for_its_slot_has_head_and_keep_alive);
async fn stream_that_waits_for_its_slot_has_head_and_keep_alive(engine: Engine) {
    let config = AppConfig::fake(engine).max_concurrency(1).max_queue(2).timeout_seconds(60.0);
    with_app(config, async |app| {
        let first = app.post(&streamed(body("fake:items", "hi"))).await;
        drop(first);
        eventually!("the slot is free", app.status().await.running_turns == 0);
        let running = tokio::spawn(app.post_future(&body("fake:hang", "hi")));
        eventually!("the slot is taken", app.status().await.running_turns == 1);

        // Both doors answer at once, although the first turn never ends.
        let mut http =
            timeout(TIMEOUT / 3, app.post(&streamed(body("fake:failed:401", "hi")))).await.unwrap();
        assert_eq!(http.status(), 200);
        assert_eq!(http.headers()["content-type"], "text/event-stream; charset=utf-8");
        let bytes = timeout(TIMEOUT / 3, http.chunk()).await.unwrap().unwrap().unwrap();
        assert_eq!(&bytes[..], b": keep-alive\n\n");
        let mut grpc = app.grpc().await;
        let events = timeout(TIMEOUT / 3, grpc.stream_chat(chat_request("fake:echo", "hi"))).await.unwrap();
        let mut events = events.unwrap().into_inner();
        let event = timeout(TIMEOUT / 3, events.message()).await.unwrap().unwrap().unwrap();
        assert!(matches!(event.event, Some(Event::Heartbeat(_))), "{event:?}");
        assert_eq!(event.sequence_number, 0);

        // A refusal that needs no slot keeps its status.
        let full = app.post(&streamed(body("fake:echo", "hi"))).await;
        assert_eq!(full.status(), 429);

        running.abort();
        let rest = timeout(TIMEOUT, http.text()).await.unwrap().unwrap();
        let (frames, done) = chunks(&rest);
        assert!(!done, "{rest}");
        let error = frames.last().unwrap();
        assert_eq!(error["error"]["code"], "engine_unavailable", "a failure is an error frame");
        let event = timeout(TIMEOUT, events.message()).await.unwrap().unwrap().unwrap();
        assert!(matches!(event.event, Some(Event::Started(_))), "{event:?}");
        assert_eq!(event.sequence_number, 1);
        while let Some(event) = events.message().await.unwrap() {
            assert!(!matches!(event.event, Some(Event::Heartbeat(_))));
        }
    })
    .await;
}

both_engines!(silent_stream_has_heartbeats_over_grpc_and_comments_over_http);
async fn silent_stream_has_heartbeats_over_grpc_and_comments_over_http(engine: Engine) {
    let config = AppConfig::fake(engine)
        .env("CODEX_GRPC_HEARTBEAT_SECONDS", "1")
        .env("CODEX_SSE_KEEPALIVE_SECONDS", "1")
        .timeout_seconds(30.0);
    with_app(config, async |app| {
        let request = chat_request("fake:acted:hang", "hi");
        let mut events = app.grpc().await.stream_chat(request).await.unwrap().into_inner();
        let mut heartbeats = 0;
        let mut next_number = 0;
        while heartbeats < 2 {
            let event = timeout(TIMEOUT, events.message()).await.unwrap().unwrap().unwrap();
            assert_eq!(event.sequence_number, next_number);
            next_number += 1;
            heartbeats += usize::from(matches!(event.event, Some(Event::Heartbeat(_))));
        }
        drop(events);
        let mut http = app.post(&streamed(body("fake:acted:hang", "hi"))).await;
        let mut text = String::new();
        while text.matches(": keep-alive\n\n").count() < 2 {
            let bytes = timeout(TIMEOUT, http.chunk()).await.unwrap().unwrap().unwrap();
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        assert!(!text.contains("heartbeat"), "{text}");
    })
    .await;
}

both_engines!(slow_answer_is_preceded_by_white_space_if_enabled);
async fn slow_answer_is_preceded_by_white_space_if_enabled(engine: Engine) {
    let config = AppConfig::fake(engine).env("CODEX_JSON_KEEPALIVE_SECONDS", "1").timeout_seconds(3.0);
    with_app(config, async |app| {
        let quick = app.post(&body("fake:failed:401", "hi")).await;
        assert_eq!(quick.status(), 503, "an early error keeps its status");
        let slow = app.post(&body("fake:slow:500", "hi")).await;
        assert_eq!(slow.status(), 200);
        let text = slow.text().await.unwrap();
        assert!(text.starts_with('\n'), "{text:?}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
        let expired = app.post(&body("fake:hang", "hi")).await;
        assert_eq!(expired.status(), 200);
        let error: Value = serde_json::from_str(&expired.text().await.unwrap()).unwrap();
        assert_eq!(error["error"]["code"], "timeout", "{error}");
        // A client that leaves ends its turn.
        let left = app.post(&body("fake:hang", "hi")).await;
        drop(left);
        let waited = async { eventually!("no turn runs", app.status().await.running_turns == 0) };
        timeout(Duration::from_secs(20), waited).await.unwrap();
    })
    .await;
}
