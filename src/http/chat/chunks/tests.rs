use serde_json::{Value, json};

use super::*;

fn event(choice_index: u32, event: Event) -> pb::ChatEvent {
    pb::ChatEvent { id: "chatcmpl-1".into(), choice_index, event: Some(event), ..pb::ChatEvent::default() }
}

fn started(choices: u32, include_usage: bool) -> ChunkEncoder {
    let first = event(0, Event::Started(pb::Started::default()));
    ChunkEncoder::new(first, choices, ChunkOptions { include_usage, notices: true }).unwrap()
}

fn delta(text: &str) -> Event {
    Event::TextDelta(pb::TextDelta { text: text.into() })
}

fn finished() -> Event {
    Event::ChoiceFinished(pb::ChoiceFinished { finish_reason: pb::FinishReason::Stop.into() })
}

fn completed() -> Event {
    Event::Completed(pb::Completed {
        usage: Some(pb::Usage { input_tokens: 1, ..pb::Usage::default() }),
        ..pb::Completed::default()
    })
}

/// Returns the JSON of the frames that `write` writes. A comment is returned as text.
fn frames(write: impl FnOnce(&mut BytesMut)) -> Vec<Value> {
    let mut out = BytesMut::new();
    write(&mut out);
    let text = std::str::from_utf8(&out).unwrap();
    let parse = |frame: &str| match frame.strip_prefix("data: ") {
        Some(json) => serde_json::from_str(json).unwrap(),
        None => Value::from(frame),
    };
    text.split_terminator("\n\n").map(parse).collect()
}

fn push(encoder: &mut ChunkEncoder, event: pb::ChatEvent) -> Vec<Value> {
    frames(|out| encoder.push(event, out).unwrap())
}

fn error(encoder: &mut ChunkEncoder, event: pb::ChatEvent) -> Status {
    let mut out = BytesMut::new();
    let status = encoder.push(event, &mut out).unwrap_err();
    assert!(out.is_empty(), "{out:?}");
    status
}

/// Returns the choices of a chunk that finishes one answer.
fn finish(index: u32) -> Value {
    json!([{"index": index, "delta": {}, "logprobs": null, "finish_reason": "stop"}])
}

#[test]
fn chunk_encoder_role_chunks_are_written_once_for_every_answer() {
    let mut encoder = started(2, false);
    let roles = frames(|out| encoder.role_chunks(|index| index == 1, out));
    let role = |index: u32, content: Value| {
        let delta = json!({"role": "assistant", "content": content, "refusal": null});
        json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": null}])
    };
    let choices: Vec<_> = roles.iter().map(|chunk| chunk["choices"].clone()).collect();
    assert_eq!(choices, [role(0, "".into()), role(1, Value::Null)]);
    assert!(frames(|out| encoder.role_chunks(|_| false, out)).is_empty());
}

#[test]
fn chunk_encoder_completed_needs_every_answer_finished() {
    let mut encoder = started(2, true);
    assert_eq!(push(&mut encoder, event(1, finished()))[0]["choices"], finish(1));
    assert!(!encoder.is_complete());
    assert_eq!(push(&mut encoder, event(0, finished()))[0]["choices"], finish(0));
    let usage = push(&mut encoder, event(0, completed()));
    assert_eq!((usage.len(), &usage[0]["usage"]["prompt_tokens"]), (1, &json!(1)));
    assert!(encoder.is_complete());
    error(&mut encoder, event(0, completed()));
}

#[test]
fn chunk_encoder_usage_is_absent_unless_requested() {
    let mut encoder = started(1, false);
    let chunk = push(&mut encoder, event(0, finished())).remove(0);
    assert!(chunk.get("usage").is_none());
    assert!(push(&mut encoder, event(0, completed())).is_empty());
    assert!(encoder.is_complete());
}

#[test]
fn chunk_encoder_event_out_of_order_is_an_internal_error() {
    let not_started = ChunkEncoder::new(event(0, delta("a")), 1, ChunkOptions::default()).unwrap_err();
    assert_eq!(not_started.code(), tonic::Code::Internal);
    for wrong in [
        event(0, Event::Started(pb::Started::default())),
        event(1, delta("no such answer")),
        event(0, completed()),
    ] {
        assert_eq!(error(&mut started(1, false), wrong).code(), tonic::Code::Internal);
    }
    let mut encoder = started(1, false);
    push(&mut encoder, event(0, finished()));
    // A second finish reason makes clients drop content.
    error(&mut encoder, event(0, finished()));
    error(&mut encoder, event(0, delta("late")));
}

#[test]
fn chunk_encoder_event_without_an_openai_frame_writes_no_chunk() {
    let mut encoder = started(1, false);
    for silent in [event(0, Event::Item(Box::default())), pb::ChatEvent::default()] {
        assert!(push(&mut encoder, silent).is_empty());
    }
    // A notice is written as a comment.
    let notice = push(&mut encoder, event(0, Event::Notice(pb::Notice::default())));
    assert!(matches!(&notice[..], [Value::String(text)] if text.starts_with(": notice ")), "{notice:?}");
}
