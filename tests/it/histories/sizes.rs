//! What reaches the model besides the conversation, in bytes, and what becomes of a conversation that is longer than
//! the model's window. The README has the figures.

use codex_api::pb::{self, chat_event::Event};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    support::{
        TestApp, ask,
        grpc::{all, kind},
        http::{body, notices, streamed},
        with_app,
    },
    tools::real_workers,
};

/// Bytes of the one request that a line of two words is to the model.
async fn size(app: &TestApp, model: &str) -> usize {
    let before = app.asked();
    let body =
        json!({"model": model, "messages": [{"role": "user", "content": r#"Hello! @@{"text":"Hi."}@@"#}]});
    app.complete(&body).await;
    assert_eq!(app.asked(), before + 1, "{model}");
    app.seen().body.to_string().len()
}

/// One that the CLI knows, one whose requests have another form, one that it does not know.
const MODELS: [&str; 3] = ["gpt-5.5", "gpt-5.6-sol", "gpt-5-codex"];

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn chat_request_stays_below_3_kb() {
    with_app(real_workers().profile("chat"), async |app| {
        for model in MODELS {
            let bytes = size(app, model).await;
            assert!(bytes < 3_000, "{model}: {bytes} bytes");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn agent_request_has_the_documented_size() {
    with_app(real_workers(), async |app| {
        for model in MODELS {
            let bytes = size(app, model).await;
            assert!((26_000..36_000).contains(&bytes), "{model}: {bytes} bytes");
        }
    })
    .await;
}

/// Longer than the 258,400 tokens that Codex takes for the window, at four bytes each.
fn long() -> pb::ChatRequest {
    ask("", &format!(r#"{} @@{{"text":"done"}}@@"#, WORDS.repeat(TIMES)))
}

const WORDS: &str = "wörd äöüß ";
const TIMES: usize = 90_000;

/// The notices that the HTTP door shows, in a stream and beside a whole answer.
async fn shown(app: &TestApp, model: &str) -> [Vec<String>; 2] {
    let text = format!(r#"{} @@{{"text":"done"}}@@"#, WORDS.repeat(TIMES));
    let body = body(model, &text);
    let streamed = app.post(&streamed(body.clone())).await.text().await.unwrap();
    let message = |notice: &Value| notice["message"].as_str().unwrap().to_owned();
    let whole = app.complete(&body).await;
    let whole = whole["codex"]["notices"].as_array().into_iter().flatten().map(message).collect();
    [notices(&streamed).iter().map(message).collect(), whole]
}

/// Texts of the notices, the answer, and how often the model was asked.
async fn told(app: &TestApp, model: &str) -> (Vec<String>, String, u64) {
    let before = app.asked();
    let request = pb::ChatRequest { model: model.into(), ..long() };
    let stream = app.grpc().await.stream_chat(request).await.unwrap().into_inner();
    let (mut notices, mut answer) = (Vec::new(), String::new());
    for event in all(stream).await.unwrap() {
        match event.event.unwrap() {
            Event::Notice(notice) => notices.push(notice.message),
            Event::TextDelta(delta) => answer.push_str(&delta.text),
            _ => {}
        }
    }
    (notices, answer, app.asked() - before)
}

const ALL_OF_IT: (&str, &str) = ("CODEX_MAX_PROMPT_CHARS", "1000000");

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn history_beyond_the_window_in_agent_is_compacted_with_a_notice() {
    with_app(real_workers().env(ALL_OF_IT.0, ALL_OF_IT.1), async |app| {
        for model in ["gpt-5.5", "gpt-5-codex"] {
            // The first question is for the summary.
            let (notices, _, asked) = told(app, model).await;
            let summary = notices.iter().filter(|notice| notice.contains("goes on with a summary")).count();
            assert_eq!((summary, asked), (1, 2), "{model}: {notices:?}");
            assert!(app.seen().body.to_string().len() < 200_000, "{model}");
            assert_eq!(
                shown(app, model).await,
                [notices.clone(), notices],
                "{model}: the other door says the same"
            );
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn history_beyond_the_window_in_chat_is_sent_whole() {
    with_app(real_workers().env(ALL_OF_IT.0, ALL_OF_IT.1).profile("chat"), async |app| {
        for model in ["gpt-5.5", "gpt-5-codex"] {
            let (notices, answer, asked) = told(app, model).await;
            assert_eq!((notices, answer.as_str(), asked), (vec![], "done", 1), "{model}");
            assert!(app.seen().body.to_string().len() > TIMES * WORDS.len(), "{model}: nothing is cut");
            assert_eq!(shown(app, model).await, [const { Vec::<String>::new() }; 2]);
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn history_beyond_a_guessed_window_is_refused() {
    with_app(real_workers().env(ALL_OF_IT.0, ALL_OF_IT.1).profile("chat"), async |app| {
        // Nobody told us that there is such a model.
        let request = pb::ChatRequest { model: "not-configured".into(), ..long() };
        let refused = app.grpc().await.chat(request).await.unwrap_err();
        assert_eq!(kind(&refused), (Code::InvalidArgument, "CONTEXT_LENGTH_EXCEEDED".into()));
    })
    .await;
}
