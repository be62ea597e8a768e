use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt, stream};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::Instant;

use super::*;
use crate::{
    config::KeepAliveForm,
    http::chat::chunks::ChunkOptions,
    http::test_service::{USAGE, completed, finished, framed, text},
    pb::FinishReason,
};

/// Returns the whole body of events that are pending once before each `true` in `pauses`.
fn body(events: Vec<(u32, Result<Event, Status>)>, choices: u32, pauses: Vec<bool>) -> String {
    let mut events = framed(events).into_iter();
    let first = events.next().unwrap().unwrap();
    let encoder =
        ChunkEncoder::new(first, choices, ChunkOptions { include_usage: true, notices: true }).unwrap();
    let pauses = pauses.into_iter().chain(std::iter::repeat(false));
    let mut events: VecDeque<_> = events.zip(pauses).collect();
    let events = stream::poll_fn(move |cx| {
        if events.front_mut().is_some_and(|(_, pause)| std::mem::take(pause)) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(events.pop_front().map(|(event, _)| event))
    });
    let mut body = SseBody::new(encoder, Box::pin(events), FieldNames::default(), None);
    let mut all = Vec::new();
    // Every pause wakes at once, so that repeated polls reach the end without a runtime.
    for _ in 0..10_000 {
        match body.frame().now_or_never() {
            None => {}
            Some(Some(frame)) => {
                let piece = frame.unwrap().into_data().unwrap();
                assert!(piece.ends_with(b"\n\n"), "a piece is whole events");
                all.extend_from_slice(&piece);
            }
            Some(None) => return String::from_utf8(all).unwrap(),
        }
    }
    panic!("the body has no end");
}

fn chunks(body: &str) -> Vec<Value> {
    let events = body.split_terminator("\n\n").filter(|event| !event.starts_with(": "));
    let events = events.map(|event| event.strip_prefix("data: ").unwrap());
    events.filter(|event| *event != "[DONE]").map(|event| serde_json::from_str(event).unwrap()).collect()
}

proptest! {
    /// Each answer has the same text for every split into deltas and ready batches, begins with its role and ends with
    /// one reason.
    #[test]
    fn sse_body_of_any_split_has_the_same_answers(
        deltas in prop::collection::vec((0u32..3, ".{1,8}"), 0..200),
        pauses in prop::collection::vec(any::<bool>(), 0..200),
    ) {
        let mut expected: BTreeMap<u64, String> = (0..3).map(|index| (index, String::new())).collect();
        for (index, delta) in &deltas {
            expected.get_mut(&u64::from(*index)).unwrap().push_str(delta);
        }
        let mut events: Vec<_> = deltas.iter().map(|(index, delta)| (*index, text(delta))).collect();
        events.extend((0..3).map(|index| (index, finished(FinishReason::Stop))));
        events.push((0, completed(Some(USAGE))));
        let body = body(events, 3, pauses);
        prop_assert!(body.ends_with("data: [DONE]\n\n"));

        let mut chunks = chunks(&body);
        let last = chunks.pop().unwrap();
        prop_assert_eq!(&last["choices"], &serde_json::json!([]));
        prop_assert_eq!(&last["usage"]["total_tokens"], 120);
        let mut read: BTreeMap<u64, String> = BTreeMap::new();
        let mut reasons = 0;
        for chunk in &chunks {
            prop_assert_eq!(&chunk["usage"], &Value::Null);
            let choice = &chunk["choices"][0];
            let index = choice["index"].as_u64().unwrap();
            if choice["delta"]["role"] == "assistant" {
                prop_assert!(read.insert(index, String::new()).is_none(), "the role comes once and first");
            } else if let Some(text) = choice["delta"]["content"].as_str() {
                read.get_mut(&index).unwrap().push_str(text);
            } else {
                prop_assert_eq!(&choice["finish_reason"], "stop");
                reasons += 1;
            }
        }
        prop_assert_eq!(reasons, 3);
        prop_assert_eq!(read, expected);
    }
}

#[test]
fn sse_body_continues_after_a_full_batch() {
    let mut events: Vec<_> = (0..3 * MAX_READY_EVENTS).map(|_| (0, text("a"))).collect();
    events.push((0, finished(FinishReason::Stop)));
    events.push((0, completed(None)));
    let body = body(events, 1, vec![]);
    assert_eq!(body.matches("\"content\":\"a\"").count(), 3 * MAX_READY_EVENTS);
    assert!(body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn sse_body_error_is_the_last_frame() {
    let failure = Status::from(Error::TurnFailed { message: "gave up".into() });
    let body = body(vec![(0, text("a")), (0, Err(failure)), (0, text("b"))], 1, vec![true, true, true]);
    let last = chunks(&body).pop().unwrap();
    assert_eq!(last["error"]["code"], "turn_failed");
    assert!(!body.contains("[DONE]") && !body.contains("\"b\""));
}

#[test]
fn sse_body_role_content_is_null_only_before_a_call() {
    let call = || Ok(Event::ToolCall(crate::pb::ToolCall { name: "f".into(), ..Default::default() }));
    let thought = || Ok(Event::ReasoningDelta(crate::pb::ReasoningDelta { text: "hm".into() }));
    let firsts = |body: &str| -> Vec<Value> {
        let firsts =
            chunks(body).into_iter().filter(|chunk| chunk["choices"][0]["delta"]["role"] == "assistant");
        firsts.map(|chunk| chunk["choices"][0]["delta"]["content"].clone()).collect()
    };
    let notice = || Ok(Event::Notice(crate::pb::Notice::default()));
    let mut events = vec![
        (0, notice()),
        (0, call()),
        (1, text("a")),
        (1, call()),
        (2, thought()),
        (2, call()),
        (0, text("b")),
    ];
    events.extend((0..3).map(|index| (index, finished(FinishReason::ToolCalls))));
    events.push((0, completed(None)));
    let body = body(events, 3, vec![]);
    assert_eq!(firsts(&body), [Value::Null, "".into(), "".into()]);

    // The roles are written before the first event is ready.
    let events = vec![(0, call()), (0, finished(FinishReason::ToolCalls)), (0, completed(None))];
    let body = self::body(events, 1, vec![true]);
    assert_eq!(firsts(&body), [Value::from("")]);
}

/// Returns a sender of events and their body, whose role chunks were read.
async fn channel_body(
    keep_alive: Option<sse::KeepAlive>,
) -> (tokio::sync::mpsc::Sender<Result<ChatEvent, Status>>, axum::response::Response) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let first = framed(vec![]).remove(0).unwrap();
    let encoder = ChunkEncoder::new(first, 1, ChunkOptions::default()).unwrap();
    let events = Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let mut response = sse::response(SseBody::new(encoder, events, FieldNames::default(), keep_alive));
    let roles = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(roles.starts_with(b"data: "));
    (sender, response)
}

#[tokio::test(start_paused = true)]
async fn sse_body_comment_follows_every_silence_and_delays_no_frame() {
    let keep_alive = sse::KeepAlive::new(Duration::from_secs(15), KeepAliveForm::Comment);
    let (sender, response) = channel_body(Some(keep_alive)).await;
    let mut body = response.into_body().into_data_stream();
    let start = Instant::now();
    // The paused clock advances only to the next timer.
    assert_eq!(body.next().await.unwrap().unwrap(), sse::KEEP_ALIVE);
    assert_eq!(body.next().await.unwrap().unwrap(), sse::KEEP_ALIVE);
    assert_eq!(start.elapsed().as_secs(), 30);
    tokio::time::advance(Duration::from_secs(14)).await;
    sender.send(framed(vec![(0, text("x"))]).remove(1)).await.unwrap();
    assert!(body.next().await.unwrap().unwrap().starts_with(b"data: "));
    assert_eq!(start.elapsed().as_secs(), 44);
    assert_eq!(body.next().await.unwrap().unwrap(), sse::KEEP_ALIVE);
    assert_eq!(start.elapsed().as_secs(), 59);
    drop(sender);
    assert!(body.next().await.unwrap().unwrap().starts_with(b"data: {\"error\""));
    assert!(body.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn sse_body_keep_alive_chunk_has_one_open_choice_and_an_empty_delta() {
    let keep_alive = sse::KeepAlive::new(Duration::from_secs(15), KeepAliveForm::Chunk);
    let (_sender, response) = channel_body(Some(keep_alive)).await;
    let mut body = response.into_body().into_data_stream();
    let frame = body.next().await.unwrap().unwrap();
    let text = std::str::from_utf8(&frame).unwrap();
    let chunk: Value = serde_json::from_str(text.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&chunk["id"], &chunk["model"]), (&"chatcmpl-1".into(), &"alias".into()));
    let choice = serde_json::json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": null}]);
    assert_eq!(chunk["choices"], choice);
}

#[tokio::test]
async fn sse_body_dropped_response_drops_the_events() {
    let (sender, response) = channel_body(None).await;
    assert!(!sender.is_closed());
    drop(response);
    assert!(sender.is_closed());
}
