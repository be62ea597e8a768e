use http::StatusCode;
use serde_json::{Value, json};
use tonic::Status;

use crate::{
    error::Error,
    http::test_service::{TestService, config, json, read, response_request, send},
    pb::{self, response_event::Event},
};

fn response() -> pb::Response {
    let message = pb::OutputMessage { text: "hi".into(), ..Default::default() };
    let item = pb::OutputItem {
        id: "msg_1".into(),
        status: pb::ResponseStatus::Completed.into(),
        item: Some(pb::output_item::Item::Message(message)),
    };
    pb::Response {
        id: "resp_1".into(),
        created_unix_seconds: 7,
        status: pb::ResponseStatus::Completed.into(),
        settings: Some(pb::ResponseSettings { model: "m".into(), ..Default::default() }),
        output: vec![item],
        usage: Some(pb::Usage::default()),
        thread: pb::ThreadOrigin::Continued.into(),
        ..Default::default()
    }
}

fn event(number: u64, event: Event) -> Result<pb::ResponseEvent, Status> {
    Ok(pb::ResponseEvent { sequence_number: number, event: Some(event) })
}

/// The members of a response that Open Responses requires to be something.
const NEVER_NULL: [&str; 14] = [
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "store",
    "background",
    "service_tier",
    "metadata",
];

/// The members that may be `null` and must be present.
const PRESENT: [&str; 17] = [
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "reasoning",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
];

fn assert_has_all_members(response: &Value) {
    for name in NEVER_NULL {
        assert!(response.get(name).is_some_and(|value| !value.is_null()), "{name}: {response}");
    }
    for name in PRESENT {
        assert!(response.get(name).is_some(), "{name}: {response}");
    }
}

#[tokio::test]
async fn whole_response_has_every_member_and_the_headers() {
    let service = TestService::responding(Ok(response()), Vec::new());
    let body = json!({"model": "m", "input": "hello", "temperature": 0.5, "instructions": "brief"});
    let answer = send(&service, &config(), response_request(body.to_string())).await;
    assert_eq!(answer.headers()["x-codex-thread"], "continued");
    assert_eq!(answer.headers()["x-codex-ignored-params"], "temperature");
    let (status, body) = read(answer).await;
    assert_eq!(status, StatusCode::OK);
    let body = json(&body);
    assert_has_all_members(&body);
    assert_eq!(
        (&body["object"], &body["status"], &body["store"]),
        (&json!("response"), &json!("completed"), &json!(false))
    );
    assert_eq!(body["output"][0]["content"][0]["text"], "hi");
    let request = service.response_requests().remove(0);
    assert_eq!(request.settings.unwrap().instructions, "brief");
}

#[tokio::test]
async fn stream_has_named_frames_and_ends_with_done() {
    let begun = pb::Response { output: Vec::new(), usage: None, ..response() };
    let events = vec![
        event(0, Event::Created(Box::new(begun.clone()))),
        event(1, Event::InProgress(Box::new(begun))),
        event(2, Event::Completed(Box::new(response()))),
    ];
    let service = TestService::responding(Ok(response()), events);
    let body = json!({"input": "hello", "stream": true});
    let answer = send(&service, &config(), response_request(body.to_string())).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(answer.headers()["x-codex-thread"], "continued");
    let (_, body) = read(answer).await;
    let frames: Vec<&str> = body.trim_end().split("\n\n").collect();
    let [created, in_progress, completed, "data: [DONE]"] = frames[..] else { panic!("{body}") };
    for (frame, name) in [
        (created, "response.created"),
        (in_progress, "response.in_progress"),
        (completed, "response.completed"),
    ] {
        let data = frame.strip_prefix(&format!("event: {name}\ndata: ")).unwrap_or_else(|| panic!("{frame}"));
        assert_has_all_members(&json(data)["response"]);
    }
}

#[tokio::test]
async fn error_before_the_first_event_is_a_status_with_the_clients_names() {
    let status = || Status::from(Error::invalid("input[0].message.parts[0].text", "too long"));
    for stream in [false, true] {
        let service = TestService::responding(Err(status()), vec![Err(status())]);
        let body = json!({"stream": stream, "input": [
            {"type": "reasoning", "summary": []}, {"role": "user", "content": [{"type": "input_text", "text": "x"}]}]});
        let (code, body) = read(send(&service, &config(), response_request(body.to_string())).await).await;
        assert_eq!(code, StatusCode::BAD_REQUEST);
        assert_eq!(json(&body)["error"]["param"], "input[1].content[0].text");
    }
    let service = TestService::responding(Ok(response()), Vec::new());
    let body = json!({"input": "x", "stream": true});
    let (code, body) = read(send(&service, &config(), response_request(body.to_string())).await).await;
    assert_eq!(
        (code, &json(&body)["error"]["code"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("internal_error"))
    );
}

#[tokio::test]
async fn stream_without_its_last_event_ends_with_an_error() {
    let events = vec![event(0, Event::Created(Box::new(response())))];
    let service = TestService::responding(Ok(response()), events);
    let body = json!({"input": "x", "stream": true});
    let (_, body) = read(send(&service, &config(), response_request(body.to_string())).await).await;
    assert!(body.contains("event: error\n") && body.contains("event: response.failed\n"), "{body}");
    assert!(!body.contains("[DONE]"), "{body}");
}
