use serde_json::{Value, json};

use super::*;

fn event(number: u64, event: Event) -> Result<pb::ResponseEvent, Status> {
    Ok(pb::ResponseEvent { sequence_number: number, event: Some(event) })
}

fn response() -> pb::Response {
    pb::Response {
        id: "resp_1".into(),
        created_unix_seconds: 7,
        status: pb::ResponseStatus::InProgress.into(),
        settings: Some(pb::ResponseSettings { model: "m".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn message(status: pb::ResponseStatus, text: &str) -> pb::OutputItem {
    let message = pb::OutputMessage { text: text.into(), phase: pb::MessagePhase::FinalAnswer.into() };
    pb::OutputItem {
        id: "msg_1".into(),
        status: status.into(),
        item: Some(pb::output_item::Item::Message(message)),
    }
}

/// Encodes events. Returns the names and the data of the frames, and whether `[DONE]` follows.
fn encode(events: Vec<Result<pb::ResponseEvent, Status>>) -> (Vec<(String, Value)>, bool) {
    let (mut encoder, mut out) = (FrameEncoder::new(vec![0]), BytesMut::new());
    for event in events {
        encoder.push(event, &mut out);
    }
    let text = String::from_utf8(out.to_vec()).unwrap();
    let mut frames: Vec<&str> = text.split("\n\n").filter(|frame| !frame.is_empty()).collect();
    let done = frames.pop_if(|last| *last == "data: [DONE]").is_some();
    assert_eq!(done, encoder.is_ended() && frames.iter().all(|frame| !frame.contains("event: error")));
    let frame = |frame: &str| {
        let (name, data) = frame.split_once('\n').unwrap();
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), data)
    };
    (frames.into_iter().map(frame).collect(), done)
}

fn text(text: &str) -> pb::ResponseTextEvent {
    pb::ResponseTextEvent { item_id: "msg_1".into(), text: text.into(), ..Default::default() }
}

fn part(text: &str) -> pb::ContentPartEvent {
    pb::ContentPartEvent { item_id: "msg_1".into(), text: text.into(), ..Default::default() }
}

fn item(item: pb::OutputItem) -> Box<pb::ResponseItemEvent> {
    Box::new(pb::ResponseItemEvent { output_index: 0, item: Some(item) })
}

#[test]
fn frames_of_a_message_have_all_members() {
    let done = message(pb::ResponseStatus::Completed, "ab");
    let usage = pb::Usage { input_tokens: 5, cached_input_tokens: 2, output_tokens: 3, ..Default::default() };
    let completed = pb::Response {
        status: pb::ResponseStatus::Completed.into(),
        output: vec![done.clone()],
        usage: Some(usage),
        completed_unix_seconds: 9,
        ..response()
    };
    let (frames, is_done) = encode(vec![
        event(0, Event::Created(Box::new(response()))),
        event(1, Event::InProgress(Box::new(response()))),
        event(0, Event::Heartbeat(pb::Heartbeat {})),
        event(2, Event::OutputItemAdded(item(message(pb::ResponseStatus::InProgress, "")))),
        event(3, Event::ContentPartAdded(part(""))),
        event(4, Event::OutputTextDelta(text("ab"))),
        event(0, Event::Notice(pb::Notice::default())),
        event(5, Event::OutputTextDone(text("ab"))),
        event(6, Event::ContentPartDone(part("ab"))),
        event(7, Event::OutputItemDone(item(done))),
        event(8, Event::Completed(Box::new(completed))),
    ]);
    assert!(is_done);
    for (number, (name, data)) in frames.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
    }
    let frame = |at: usize| (frames[at].0.as_str(), frames[at].1.clone());
    let created = &frames[0].1["response"];
    assert_eq!(created["status"], "in_progress");
    assert_eq!((&created["usage"], &created["completed_at"]), (&Value::Null, &Value::Null));
    let part = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
    assert_eq!(
        frame(3),
        (
            "response.content_part.added",
            json!({"type": "response.content_part.added", "sequence_number": 3, "item_id": "msg_1",
                   "output_index": 0, "content_index": 0, "part": part})
        )
    );
    assert_eq!(
        frame(4),
        (
            "response.output_text.delta",
            json!({"type": "response.output_text.delta", "sequence_number": 4, "item_id": "msg_1",
                   "output_index": 0, "content_index": 0, "delta": "ab", "logprobs": []})
        )
    );
    let whole = json!({"type": "output_text", "text": "ab", "annotations": [], "logprobs": []});
    let message = json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                         "content": [whole], "phase": "final_answer"});
    assert_eq!(frames[7].1["item"], message);
    let completed = &frames[8].1["response"];
    assert_eq!(completed["output"], json!([message]));
    assert_eq!(completed["completed_at"], 9);
    assert_eq!(
        completed["usage"],
        json!({"input_tokens": 5, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
               "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 8})
    );
}

#[test]
fn failure_in_the_stream_is_an_error_and_a_failed_response() {
    let (frames, done) = encode(vec![
        event(0, Event::Created(Box::new(response()))),
        event(1, Event::OutputItemDone(item(message(pb::ResponseStatus::Completed, "a")))),
        Err(Error::RateLimited { message: "slow down".into(), retry_after: None }.into()),
    ]);
    assert!(!done);
    let [_, _, (error_name, error), (failed_name, failed)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((error_name.as_str(), failed_name.as_str()), ("error", "response.failed"));
    assert_eq!((&error["sequence_number"], &failed["sequence_number"]), (&json!(2), &json!(3)));
    assert_eq!((&error["code"], &error["error"]["code"]), (&json!("rate_limit_exceeded"), &error["code"]));
    assert_eq!(error["message"], error["error"]["message"]);
    let response = &failed["response"];
    assert_eq!((&response["status"], &response["id"]), (&json!("failed"), &json!("resp_1")));
    assert_eq!(response["error"]["code"], "rate_limit_exceeded");
    assert_eq!(response["output"].as_array().unwrap().len(), 1);
    // A request that waited for its slot has no response yet.
    let (frames, _) = encode(vec![event(0, Event::Heartbeat(pb::Heartbeat {})), Err(Error::Draining.into())]);
    assert_eq!(frames.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["error"]);
}

#[test]
fn calls_and_reasoning_have_the_members_of_their_kind() {
    let summary = |summary: &str, status: pb::ResponseStatus| pb::OutputItem {
        id: "rs_1".into(),
        status: status.into(),
        item: Some(pb::output_item::Item::Reasoning(pb::Reasoning { summary: summary.into() })),
    };
    let call = pb::FunctionCall { call_id: "c".into(), name: "f".into(), arguments: "{}".into() };
    let call = pb::OutputItem {
        id: "fc_1".into(),
        status: pb::ResponseStatus::Completed.into(),
        item: Some(pb::output_item::Item::FunctionCall(call)),
    };
    let (frames, _) = encode(vec![
        event(0, Event::OutputItemAdded(item(summary("", pb::ResponseStatus::InProgress)))),
        event(1, Event::ReasoningSummaryPartAdded(part(""))),
        event(2, Event::ReasoningSummaryTextDelta(text("hm"))),
        event(3, Event::ReasoningSummaryTextDone(text("hm"))),
        event(4, Event::ReasoningSummaryPartDone(part("hm"))),
        event(5, Event::OutputItemDone(item(summary("hm", pb::ResponseStatus::Completed)))),
        event(6, Event::FunctionCallArgumentsDelta(text("{}"))),
        event(7, Event::FunctionCallArgumentsDone(text("{}"))),
        event(8, Event::OutputItemDone(item(call))),
    ]);
    let data = |at: usize| &frames[at].1;
    assert_eq!(
        data(0)["item"],
        json!({"type": "reasoning", "id": "rs_1", "status": "in_progress", "summary": []})
    );
    assert_eq!(data(1)["part"], json!({"type": "summary_text", "text": ""}));
    assert_eq!((&data(2)["summary_index"], &data(2)["delta"]), (&json!(0), &json!("hm")));
    assert_eq!((&data(3)["text"], data(3).get("logprobs")), (&json!("hm"), None));
    assert_eq!(data(5)["item"]["summary"], json!([{"type": "summary_text", "text": "hm"}]));
    assert_eq!((&data(6)["delta"], data(6).get("content_index")), (&json!("{}"), None));
    assert_eq!((&data(7)["arguments"], data(7).get("text")), (&json!("{}"), None));
    assert_eq!(
        data(8)["item"],
        json!({"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "c", "name": "f", "arguments": "{}"})
    );
}
