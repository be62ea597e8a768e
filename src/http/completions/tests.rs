use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    error::Error,
    http::test_service::{TestService, USAGE, completed, config, finished, json as parsed, read, send, text},
    pb,
};

fn post(body: &Value) -> Request<Body> {
    Request::post("/v1/completions")
        .header(header::HOST, "localhost:8000")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn answer() -> pb::ChatResponse {
    let choice = pb::Choice {
        text: " world".into(),
        finish_reason: pb::FinishReason::Length.into(),
        ..Default::default()
    };
    pb::ChatResponse {
        id: "chatcmpl-1".into(),
        created_unix_seconds: 7,
        model: "m".into(),
        choices: vec![choice],
        usage: Some(USAGE),
        thread: pb::ThreadOrigin::Fresh.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn completion_is_the_text_of_a_chat() {
    let service = TestService::answering(Ok(answer()));
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 5, "stop": "\n", "temperature": 0.1});
    let response = send(&service, &config(), post(&body)).await;
    assert_eq!(response.headers()["x-codex-ignored-params"], "temperature");
    assert_eq!(response.headers()["x-codex-thread"], "fresh");
    let (status, body) = read(response).await;
    assert_eq!(status, StatusCode::OK);
    let body = parsed(&body);
    assert_eq!((&body["id"], &body["object"]), (&json!("cmpl-1"), &json!("text_completion")));
    assert_eq!(
        body["choices"],
        json!([{"text": " world", "index": 0, "logprobs": null, "finish_reason": "length"}])
    );
    assert_eq!(body["usage"]["total_tokens"], 120);
    let request = service.requests().remove(0).request;
    assert_eq!((request.max_output_tokens, request.stop), (Some(5), vec!["\n".to_owned()]));
    let [task, prompt] = &request.messages[..] else { panic!("{:?}", request.messages) };
    assert_eq!((task.role(), prompt.role()), (pb::Role::Developer, pb::Role::User));
}

#[tokio::test]
async fn completion_between_two_texts_has_both() {
    let service = TestService::answering(Ok(answer()));
    let body = json!({"prompt": ["fn f("], "suffix": ") {}"});
    assert_eq!(read(send(&service, &config(), post(&body)).await).await.0, StatusCode::OK);
    let request = service.requests().remove(0).request;
    let Some(pb::content_part::Part::Text(text)) = &request.messages[1].parts[0].part else { panic!() };
    assert_eq!(text, "<prefix>fn f(</prefix>\n<suffix>) {}</suffix>");
}

#[tokio::test]
async fn stream_has_texts_and_the_usage() {
    let events = vec![
        (0, text("a")),
        (0, text("b")),
        (0, finished(pb::FinishReason::Stop)),
        (0, completed(Some(USAGE))),
    ];
    let service = TestService::scripted(events);
    let body = json!({"prompt": "x", "stream": true, "stream_options": {"include_usage": true}});
    let (_, body) = read(send(&service, &config(), post(&body)).await).await;
    let mut frames: Vec<&str> = body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).collect();
    assert_eq!(frames.pop(), Some("[DONE]"));
    let chunks: Vec<Value> = frames.into_iter().map(parsed).collect();
    let texts: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["text"]).collect();
    assert_eq!(texts, [&json!("a"), &json!("b"), &json!(""), &Value::Null]);
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "stop");
    assert!(chunks[..3].iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == "cmpl-1"));
    assert_eq!(chunks[3]["usage"]["completion_tokens"], 20);
}

#[tokio::test]
async fn failure_in_the_stream_is_an_error_without_done() {
    let service = TestService::scripted(vec![(0, text("a")), (0, Err(Error::Draining.into()))]);
    let (_, body) =
        read(send(&service, &config(), post(&json!({"prompt": "x", "stream": true}))).await).await;
    assert!(body.contains("\"code\":\"shutting_down\"") && !body.contains("[DONE]"), "{body}");
}

#[tokio::test]
async fn what_the_server_cannot_do_is_refused_by_name() {
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [1, 2]}), "prompt"),
        (json!({"prompt": [[1], [2]]}), "prompt"),
        (json!({"prompt": ["a", "b"]}), "prompt"),
        (json!({"messages": []}), "prompt"),
        (json!({"prompt": "x", "echo": true}), "echo"),
        (json!({"prompt": "x", "logprobs": 3}), "logprobs"),
        (json!({"prompt": "x", "best_of": 3}), "best_of"),
    ] {
        let service = TestService::answering(Ok(answer()));
        let (status, text) = read(send(&service, &config(), post(&body)).await).await;
        assert_eq!(
            (status, &parsed(&text)["error"]["param"]),
            (StatusCode::BAD_REQUEST, &json!(param)),
            "{body}"
        );
    }
    let service = TestService::refusing(Error::invalid("messages[1].parts[0].text", "too long").into());
    let (_, text) = read(send(&service, &config(), post(&json!({"prompt": "x"}))).await).await;
    assert_eq!(parsed(&text)["error"]["param"], "prompt");
}
