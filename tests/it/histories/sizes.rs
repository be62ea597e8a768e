//! The size of an upstream request without its conversation, and conversations longer than the window of the model.

use codex_api::pb::{self, chat_event::Event};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    support::{
        TestApp, UpstreamAs, chat_request,
        grpc::{code_and_reason, collect_events},
        http::{body, notices},
        with_app,
    },
    tools::real_workers,
};

/// Returns the bytes of the upstream request for a prompt of two words.
async fn request_bytes(app: &TestApp, model: &str) -> usize {
    let before = app.last_request_number();
    let body =
        json!({"model": model, "messages": [{"role": "user", "content": r#"Hello! @@{"text":"Hi."}@@"#}]});
    app.complete(&body).await;
    assert_eq!(app.model_calls_since(before), 1, "{model}");
    app.last_upstream_request().body.to_string().len()
}

/// A model of the catalog, a model with another request form, and a model unknown to the CLI.
const MODELS: [&str; 3] = ["gpt-5.5", "gpt-5.6-sol", "gpt-5-codex"];

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn chat_request_stays_below_3_kb() {
    with_app(real_workers().profile("chat"), async |app| {
        for model in MODELS {
            let bytes = request_bytes(app, model).await;
            assert!(bytes < 3_000, "{model}: {bytes} bytes");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn agent_request_has_the_documented_size() {
    let config = real_workers();
    // Codex adds metadata to the items that it sends to OpenAI.
    let metadata = if config.upstream_as == UpstreamAs::OpenAiLogin { 1_500 } else { 0 };
    with_app(config, async |app| {
        for model in MODELS {
            let bytes = request_bytes(app, model).await;
            assert!((26_000..36_000 + metadata).contains(&bytes), "{model}: {bytes} bytes");
        }
    })
    .await;
}

/// Builds a prompt beyond 258,400 tokens of four bytes, which is the window that Codex assumes.
fn long_request() -> pb::ChatRequest {
    chat_request("", &format!(r#"{} @@{{"text":"done"}}@@"#, TEXT.repeat(TIMES)))
}

const TEXT: &str = "wörd äöüß ";
const TIMES: usize = 90_000;

/// Returns the notices of the HTTP door, from a stream and from a whole answer.
async fn http_notices(app: &TestApp, model: &str) -> [Vec<String>; 2] {
    let text = format!(r#"{} @@{{"text":"done"}}@@"#, TEXT.repeat(TIMES));
    let body = body(model, &text);
    let streamed = app.stream_with_notices(&body).await;
    let message = |notice: &Value| notice["message"].as_str().unwrap().to_owned();
    let whole = app.complete(&body).await;
    let whole = whole["codex"]["notices"].as_array().into_iter().flatten().map(message).collect();
    [notices(&streamed).iter().map(message).collect(), whole]
}

/// Returns the texts of the notices, the answer and the number of upstream requests.
async fn grpc_notices(app: &TestApp, model: &str) -> (Vec<String>, String, usize) {
    let before = app.last_request_number();
    let request = pb::ChatRequest { model: model.into(), ..long_request() };
    let stream = app.grpc().await.stream_chat(request).await.unwrap().into_inner();
    let (mut notices, mut answer) = (Vec::new(), String::new());
    for event in collect_events(stream).await.unwrap() {
        match event.event.unwrap() {
            Event::Notice(notice) => notices.push(notice.message),
            Event::TextDelta(delta) => answer.push_str(&delta.text),
            _ => {}
        }
    }
    (notices, answer, app.model_calls_since(before))
}

const RAISED_PROMPT_LIMIT: (&str, &str) = ("CODEX_MAX_PROMPT_CHARS", "1000000");

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn history_beyond_the_window_in_agent_is_compacted_with_a_notice() {
    let config = real_workers().env(RAISED_PROMPT_LIMIT.0, RAISED_PROMPT_LIMIT.1);
    // Of 1.3 MB. OpenAI compacts for its logins, and Codex keeps more of the messages of the user.
    let kept = if config.upstream_as == UpstreamAs::OpenAiLogin { 400_000 } else { 200_000 };
    with_app(config, async |app| {
        for model in ["gpt-5.5", "gpt-5-codex"] {
            // The first upstream request asks for the summary.
            let (notices, _, requests) = grpc_notices(app, model).await;
            let summary = notices.iter().filter(|notice| notice.contains("continues with a summary")).count();
            assert_eq!((summary, requests), (1, 2), "{model}: {notices:?}");
            let bytes = app.last_upstream_request().body.to_string().len();
            assert!(bytes < kept, "{model}: {bytes} bytes");
            assert_eq!(
                http_notices(app, model).await,
                [notices.clone(), notices],
                "{model}: the HTTP door has the same notices"
            );
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn history_beyond_the_window_in_chat_is_sent_whole() {
    with_app(real_workers().env(RAISED_PROMPT_LIMIT.0, RAISED_PROMPT_LIMIT.1).profile("chat"), async |app| {
        for model in ["gpt-5.5", "gpt-5-codex"] {
            let (notices, answer, requests) = grpc_notices(app, model).await;
            assert_eq!((notices, answer.as_str(), requests), (vec![], "done", 1), "{model}");
            assert!(
                app.last_upstream_request().body.to_string().len() > TIMES * TEXT.len(),
                "{model}: nothing is cut"
            );
            assert_eq!(http_notices(app, model).await, [const { Vec::<String>::new() }; 2]);
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn history_beyond_a_guessed_window_is_refused() {
    with_app(real_workers().env(RAISED_PROMPT_LIMIT.0, RAISED_PROMPT_LIMIT.1).profile("chat"), async |app| {
        // The configuration does not list the model, so its window is a guess.
        let request = pb::ChatRequest { model: "not-configured".into(), ..long_request() };
        let refused = app.grpc().await.chat(request).await.unwrap_err();
        assert_eq!(code_and_reason(&refused), (Code::InvalidArgument, "CONTEXT_LENGTH_EXCEEDED".into()));
    })
    .await;
}
