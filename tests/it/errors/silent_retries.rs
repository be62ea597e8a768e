//! Retries that Codex does not report, or that concern only a WebSocket.

use serde_json::{Value, json};

use codex_api::pb;

use crate::{
    both_engines,
    support::{
        AppConfig, Engine, TestApp, chat_request,
        grpc::{answers, collect_events},
        http::{answer_of_chunks, answer_of_completion, body, streamed},
        with_app,
    },
};

/// Returns text and finish reason over both doors, unary and streamed.
async fn texts(app: &TestApp, request: Value, grpc_request: pb::ChatRequest) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let mut add = |text: &str, reason: &str| texts.push((text.to_owned(), reason.to_lowercase()));
    let whole = app.complete(&request).await;
    let choice = &whole["choices"][0];
    add(choice["message"]["content"].as_str().unwrap(), choice["finish_reason"].as_str().unwrap());
    assert_eq!(answer_of_completion(&whole), answer_of_chunks(&app.stream(&streamed(request)).await));

    let mut client = app.grpc().await;
    let unary = client.chat(grpc_request.clone()).await.unwrap().into_inner();
    let choice = &unary.choices[0];
    add(&choice.text, choice.finish_reason().as_str_name().trim_start_matches("FINISH_REASON_"));
    let events = collect_events(client.stream_chat(grpc_request).await.unwrap().into_inner()).await.unwrap();
    for (text, reason) in answers(&events) {
        add(&text, reason.as_str_name().trim_start_matches("FINISH_REASON_"));
    }
    texts
}

#[tokio::test]
async fn silently_repeated_answer_is_delivered_once() {
    with_app(AppConfig::fake(Engine::AppServer), async |app| {
        for (model, reason) in
            [("fake:silent-retry:same", "stop"), ("fake:silent-retry:filtered", "content_filter")]
        {
            let texts = texts(app, body(model, "hi"), chat_request(model, "hi")).await;
            let expected = ("one two three four".to_owned(), reason.to_owned());
            assert_eq!(texts, vec![expected; 3], "{model}");
        }
    })
    .await;
}

#[tokio::test]
async fn call_of_a_silently_broken_response_is_delivered_once_or_not_at_all() {
    with_app(AppConfig::fake(Engine::AppServer), async |app| {
        let tool = json!({"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}});
        for (model, calls, text, reason) in [
            ("fake:tools-broken", 1, None, "tool_calls"),
            ("fake:tools-broken-text", 0, Some("no call is needed"), "stop"),
        ] {
            let mut request = body(model, "hi");
            request["tools"] = json!([tool]);
            let (whole, chunks) =
                tokio::join!(app.complete(&request), async { app.stream(&streamed(request.clone())).await });
            let choice = &whole["choices"][0];
            let called = choice["message"]["tool_calls"].as_array().map_or(0, Vec::len);
            assert_eq!(
                (called, choice["message"]["content"].as_str(), choice["finish_reason"].as_str().unwrap()),
                (calls, text, reason),
                "{whole}"
            );
            let deltas = || chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
            let called: usize =
                deltas().filter_map(|delta| delta["tool_calls"].as_array()).map(Vec::len).sum();
            let got: String = deltas().filter_map(|delta| delta["content"].as_str()).collect();
            assert_eq!((called, &*got), (calls, text.unwrap_or_default()), "{chunks:?}");
        }
    })
    .await;
}

both_engines!(refused_websocket_leads_to_the_answer_over_https);
async fn refused_websocket_leads_to_the_answer_over_https(engine: Engine) {
    with_app(AppConfig::fake(engine).upstream_retries(0), async |app| {
        let model = "fake:websocket-refused";
        let texts = texts(app, body(model, "hi"), chat_request(model, "hi")).await;
        assert_eq!(texts, vec![("the answer over HTTPS".to_owned(), "stop".to_owned()); 3]);
        let answer = app.complete(&body(model, "hi")).await;
        let notices = answer["codex"]["notices"].as_array().unwrap();
        assert_eq!(notices.len(), 5, "{answer}");
        assert!(!answer.to_string().contains("127.0.0.1"), "{answer}");
        assert!(answer.to_string().contains("blocked by a proxy"), "{answer}");
    })
    .await;
}
