//! The four routes (gRPC unary, gRPC stream, HTTP, SSE) return the same answer, over the fake codex and the real CLI.

use crate::{
    both_engines,
    support::{
        AppConfig, Engine, TestApp, chat_request,
        grpc::violated_field,
        http::{Answer, answer_of_chunks, answer_of_completion, body},
        with_app,
    },
};
use codex_api::pb::{self, chat_event::Event};
use serde_json::json;

fn answer_of_response(response: &pb::ChatResponse) -> Answer {
    Answer {
        text: response.choices[0].text.clone(),
        finish_reason: reason(response.choices[0].finish_reason()),
        usage: usage(response.usage),
    }
}

fn answer_of_events(events: &[pb::ChatEvent]) -> Answer {
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence_number).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    assert!(matches!(events[0].event, Some(Event::Started(_))), "{events:?}");
    let mut answer = Answer { text: String::new(), finish_reason: String::new(), usage: [0; 4] };
    for (index, event) in events.iter().enumerate() {
        match event.event.as_ref().unwrap() {
            Event::TextDelta(delta) => answer.text.push_str(&delta.text),
            Event::ChoiceFinished(finished) => answer.finish_reason = reason(finished.finish_reason()),
            Event::Completed(completed) => {
                assert_eq!(index, events.len() - 1, "`completed` is the last event");
                answer.usage = usage(completed.usage);
            }
            Event::Started(_)
            | Event::ReasoningDelta(_)
            | Event::ToolCall(_)
            | Event::Item(_)
            | Event::Heartbeat(_)
            | Event::MessageStarted(_)
            | Event::Notice(_) => {}
        }
    }
    answer
}

fn reason(reason: pb::FinishReason) -> String {
    reason.as_str_name().trim_start_matches("FINISH_REASON_").to_lowercase()
}

fn usage(usage: Option<pb::Usage>) -> [u64; 4] {
    let usage = usage.expect("usage is present");
    [usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_output_tokens]
}

/// Sends the request over all four routes and returns the answer, which must be equal.
async fn answer_over_all_routes(app: &TestApp, model: &str, text: &str) -> Answer {
    let mut grpc = app.grpc().await;
    let unary = answer_of_response(grpc.chat(chat_request(model, text)).await.unwrap().get_ref());
    let streamed = answer_of_events(&events(app, chat_request(model, text)).await);
    let http = answer_of_completion(&app.complete(&body(model, text)).await);
    let sse = answer_of_chunks(&app.stream(&body(model, text)).await);
    assert_eq!(unary, streamed, "gRPC unary and stream");
    assert_eq!(unary, http, "gRPC and HTTP");
    assert_eq!(unary, sse, "gRPC and SSE");
    unary
}

async fn events(app: &TestApp, request: pb::ChatRequest) -> Vec<pb::ChatEvent> {
    let mut stream = app.grpc().await.stream_chat(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        events.push(event);
    }
    events
}

both_engines!(answer_of_the_fake_is_equal_over_all_four_routes);
async fn answer_of_the_fake_is_equal_over_all_four_routes(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let answer = answer_over_all_routes(app, "fake:echo", "wörld 🌍 \u{202e}x").await;
        assert_eq!(answer.text, engine.echo("wörld 🌍 \u{202e}x"));
        assert_eq!(answer.finish_reason, "stop");
        let answer = answer_over_all_routes(app, "fake:usage", "x").await;
        assert!(answer.usage.iter().all(|count| *count > 0), "{answer:?}");
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    answer_of_the_real_cli_is_equal_over_all_four_routes
);
async fn answer_of_the_real_cli_is_equal_over_all_four_routes(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let prompt =
            r#"@@[{"text":"Grüße, 世界 🌍","usage":{"input":120,"cached":100,"output":7,"reasoning":3}}]@@"#;
        let answer = answer_over_all_routes(app, "gpt-5.5", prompt).await;
        let expected =
            Answer {
                text: "Grüße, 世界 🌍".into(), finish_reason: "stop".into(), usage: [120, 100, 7, 3]
            };
        assert_eq!(answer, expected);
    })
    .await;
}

/// The output of a turn besides its answer.
#[derive(Debug, PartialEq)]
struct Extras {
    reasoning: String,
    /// Finished items of the agent, once each.
    items: Vec<pb::Item>,
    notices: Vec<pb::Notice>,
}

impl Extras {
    fn from_events(events: Vec<pb::ChatEvent>) -> Self {
        let mut extras = Self { reasoning: String::new(), items: Vec::new(), notices: Vec::new() };
        for event in events {
            match event.event.unwrap() {
                Event::ReasoningDelta(delta) => extras.reasoning.push_str(&delta.text),
                Event::Item(item) if item.status() != pb::ItemStatus::InProgress => extras.items.push(*item),
                Event::Notice(notice) => extras.notices.push(notice),
                _ => {}
            }
        }
        extras
    }
}

/// Sends a request to the fake codex over all routes and returns answer and extras, which must be equal.
async fn extras_over_all_routes(engine: Engine, model: &str) -> (Answer, Extras) {
    with_app(AppConfig::fake(engine), async |app| {
        let answer = answer_over_all_routes(app, model, "x").await;
        let extras = Extras::from_events(events(app, chat_request(model, "x")).await);
        let unary = app.grpc().await.chat(chat_request(model, "x")).await.unwrap().into_inner();
        let reasoning = unary.choices[0].reasoning.clone();
        assert_eq!(Extras { reasoning, items: unary.items, notices: unary.notices }, extras, "{model}: gRPC");
        let http = app.complete(&body(model, "x")).await;
        let reasoning = http["choices"][0]["message"]["reasoning_content"].as_str().unwrap_or_default();
        assert_eq!(reasoning, extras.reasoning, "{model}: HTTP");
        let chunks = app.stream(&body(model, "x")).await;
        let reasoning = |chunk: &serde_json::Value| {
            chunk.pointer("/choices/0/delta/reasoning_content")?.as_str().map(str::to_owned)
        };
        assert_eq!(chunks.iter().filter_map(reasoning).collect::<String>(), extras.reasoning, "{model}: SSE");
        (answer, extras)
    })
    .await
}

both_engines!(several_messages_are_joined_to_one_text_over_all_routes);
async fn several_messages_are_joined_to_one_text_over_all_routes(engine: Engine) {
    let (answer, _) = extras_over_all_routes(engine, "fake:commentary").await;
    assert_eq!(answer.text, "First I look.\n\nThen I think.\n\nThe final answer.");
}

both_engines!(reasoning_is_delivered_over_all_routes);
async fn reasoning_is_delivered_over_all_routes(engine: Engine) {
    let (answer, extras) = extras_over_all_routes(engine, "fake:reasoning").await;
    assert_eq!(answer.text, "final answer");
    assert!(extras.reasoning.contains("what to say") && extras.reasoning.contains("still"), "{extras:?}");
}

both_engines!(agent_items_are_delivered_once_over_all_routes);
async fn agent_items_are_delivered_once_over_all_routes(engine: Engine) {
    let (answer, extras) = extras_over_all_routes(engine, "fake:items").await;
    assert!(answer.text.ends_with("the end"), "{answer:?}");
    assert!(extras.items.len() >= 4, "{extras:?}");
    for item in &extras.items {
        let again = extras.items.iter().filter(|other| other.id == item.id && other.kind == item.kind);
        assert_eq!(again.count(), 1, "delivered once: {item:?}");
    }
}

both_engines!(compaction_notice_is_delivered_over_all_routes);
async fn compaction_notice_is_delivered_over_all_routes(engine: Engine) {
    if engine == Engine::Exec {
        return; // `codex exec` does not report compaction.
    }
    let (answer, extras) = extras_over_all_routes(engine, "fake:compaction").await;
    assert!(!answer.text.is_empty(), "{answer:?}");
    assert!(!extras.notices.is_empty(), "{extras:?}");
}

/// Returns the requested summary and the reasoning, which must be equal at both doors.
async fn reasoning_at_both_doors(app: &TestApp, summary: &str) -> String {
    let prompt = r#"@@{"reasoning":"so it is","text":"hi"}@@"#;
    let (mut grpc, mut http) = (chat_request("gpt-5.5", prompt), body("gpt-5.5", prompt));
    grpc.reasoning_summary = summary.into();
    if !summary.is_empty() {
        http["reasoning"] = json!({"summary": summary});
    }
    let requested_summary = || {
        let requests = app.upstream().requests();
        requests.last().unwrap().body["reasoning"]["summary"].as_str().unwrap_or("none").to_owned()
    };
    let grpc_reasoning = app.grpc().await.chat(grpc).await.unwrap().into_inner().choices[0].reasoning.clone();
    let over_grpc = requested_summary();
    let answer = app.complete(&http).await;
    let reasoning = answer["choices"][0]["message"]["reasoning_content"].as_str().unwrap_or_default();
    assert_eq!((grpc_reasoning.as_str(), over_grpc), (reasoning, requested_summary()));
    format!("{}: {grpc_reasoning}", requested_summary())
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    reasoning_summary_follows_the_request_and_the_setting
);
async fn reasoning_summary_follows_the_request_and_the_setting(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
    for (summary, expected) in [
        ("", "auto: so it is"),
        ("concise", "concise: so it is"),
        ("detailed", "detailed: so it is"),
        ("none", "none: "),
    ] {
        assert_eq!(reasoning_at_both_doors(app, summary).await, expected);
    }
    let long = pb::ChatRequest { reasoning_summary: "long".into(), ..chat_request("gpt-5.5", "hi") };
    assert_eq!(violated_field(&app.grpc_error(long).await), "reasoning_summary");
    let long = json!({"model": "gpt-5.5", "messages": [{"role": "user", "content": "hi"}], "reasoning": {"summary": "long"}});
    let (status, error) = app.http_error(&long).await;
    assert_eq!((status, &error["param"]), (400, &json!("reasoning.summary")), "{error}");
    }).await;

    with_app(AppConfig::real(engine).env("CODEX_MODEL_REASONING_SUMMARY", "none"), async |app| {
        assert_eq!(reasoning_at_both_doors(app, "").await, "none: ");
        assert_eq!(reasoning_at_both_doors(app, "auto").await, "auto: so it is");
    })
    .await;
}
