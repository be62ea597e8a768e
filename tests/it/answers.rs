//! What clients expect of answers: a usage in every answer, streams of JSON lines, lists with the facts of the models.

use std::time::{Duration, Instant};

use codex_api::pb::{self, FinishReason, chat_event::Event};
use futures_util::StreamExt;
use reqwest::Client;
use serde_json::{Value, json};

use crate::{
    both_engines,
    support::{
        AppConfig, Engine, TestApp, chat_request,
        grpc::collect_events,
        http::{body, chunks, streamed},
        with_app,
    },
};

/// Returns the usages of the four routes of one request: gRPC unary, gRPC stream, HTTP, SSE.
async fn usages(app: &TestApp, request: pb::ChatRequest, http: &Value) -> Vec<(u64, u64, bool)> {
    let count = |usage: Option<pb::Usage>| {
        let usage = usage.expect("a usage over gRPC");
        (usage.input_tokens, usage.output_tokens, usage.estimated)
    };
    let unary = app.grpc().await.chat(request.clone()).await.unwrap().into_inner();
    let events = app.grpc().await.stream_chat(request).await.unwrap().into_inner();
    let events = collect_events(events).await.unwrap();
    let Some(Event::Completed(completed)) = events.last().unwrap().event.clone() else {
        panic!("{events:?}")
    };
    let whole = app.complete(http).await;
    let chunks = app.stream(http).await;
    let over_http = [&whole["usage"], &chunks.last().unwrap()["usage"]].map(|usage| {
        let number = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("{name} in {usage}"));
        assert_eq!(number("total_tokens"), number("prompt_tokens") + number("completion_tokens"));
        // The member is there only if it is true.
        let estimated = usage.get("codex_estimated").is_some_and(|value| *value == Value::Bool(true));
        assert_eq!(usage.get("codex_estimated").is_some(), estimated, "{usage}");
        (number("prompt_tokens"), number("completion_tokens"), estimated)
    });
    let mut all = vec![count(unary.usage), count(completed.usage)];
    all.extend(over_http);
    all
}

both_engines!(usage_of_a_cut_answer_is_always_there);
async fn usage_of_a_cut_answer_is_always_there(engine: Engine) {
    with_app(AppConfig::fake(engine).max_concurrency(4), async |app| {
        // `fake:slow` has `message 0`, `message 1` …, so that the turn runs on after the cut.
        let model = "fake:slow:400";
        for (n, stop, limit) in [(1, Some("age 1"), None), (2, Some("age 1"), None), (1, None, Some(3))] {
            let mut http = body(model, "hello world");
            let mut request = chat_request(model, "hello world");
            request.n = Some(n);
            http["n"] = n.into();
            if let Some(text) = stop {
                request.stop = vec![text.to_owned()];
                http["stop"] = text.into();
            }
            request.max_output_tokens = limit;
            http["max_tokens"] = limit.into();
            for (input, output, estimated) in usages(app, request, &http).await {
                assert!(estimated, "the turn did not report its usage");
                let (n, expected) = (u64::from(n), 3..=8);
                assert!(expected.contains(&(input / n)), "{input} tokens of two words");
                assert!(expected.contains(&(output / n)), "{output} tokens of the text before the cut");
            }
        }
    })
    .await;
}

both_engines!(usage_that_codex_reports_is_not_estimated);
async fn usage_that_codex_reports_is_not_estimated(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let model = "fake:usage";
        let codex = (1200, 50, false);
        assert_eq!(usages(app, chat_request(model, "x"), &body(model, "x")).await, [codex; 4]);
        // The upstream cuts the answer, and the turn may end without a usage.
        for (model, reason) in [
            ("fake:failed:incomplete-length", FinishReason::Length),
            ("fake:failed:incomplete-filter", FinishReason::ContentFilter),
        ] {
            let response = app.grpc().await.chat(chat_request(model, "x")).await.unwrap().into_inner();
            assert_eq!(response.choices[0].finish_reason(), reason);
            let all = usages(app, chat_request(model, "x"), &body(model, "x")).await;
            assert!(all.iter().all(|(input, output, _)| *input > 0 && *output > 0), "{model}: {all:?}");
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    usage_of_an_answer_that_the_real_cli_did_not_finish_is_estimated
);
async fn usage_of_an_answer_that_the_real_cli_did_not_finish_is_estimated(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let steps = json!([{"text": "one two three four STOP five"}]);
        let prompt = format!("@@{steps}@@");
        let mut request = chat_request("gpt-5.5", &prompt);
        request.stop = vec!["STOP".to_owned()];
        let mut http = body("gpt-5.5", &prompt);
        http["stop"] = "STOP".into();
        let all = usages(app, request, &http).await;
        assert!(all.iter().all(|(input, output, _)| *input > 0 && *output > 0), "{all:?}");

        let slow = json!([{"tokens": 40, "delay_ms": 400}]);
        let prompt = format!("@@{slow}@@");
        let mut request = chat_request("gpt-5.5", &prompt);
        request.max_output_tokens = Some(2);
        let mut http = body("gpt-5.5", &prompt);
        http["max_tokens"] = 2.into();
        for (input, output, estimated) in usages(app, request, &http).await {
            // `exec` reports a message at its end, just before the usage.
            assert!(estimated || engine == Engine::Exec);
            assert!(input > 5 && output > 0, "{input} {output}");
            assert!(!estimated || output <= 2, "{output}");
        }
    })
    .await;
}

both_engines!(streams_have_no_notices_unless_asked_for);
async fn streams_have_no_notices_unless_asked_for(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for model in ["gpt-5-codex", "fake:reconnect:2:ok", "fake:unknown-model"] {
            let text = app.post(&streamed(body(model, "x"))).await.text().await.unwrap();
            let is_data = |line: &str| line.is_empty() || line.starts_with("data: ");
            assert!(text.lines().all(is_data), "{model}: {text}");
            assert!(chunks(&text).1);
        }
        let text = app.stream_with_notices(&body("fake:reconnect:2:ok", "x")).await;
        assert_eq!(text.matches(": notice {\"kind\":\"retry\"").count(), 2, "{text}");
    })
    .await;
}

/// Reads a silent stream until `count` keep-alives have arrived.
async fn keep_alives(app: &TestApp, model: &str, form: &str, count: usize) -> Vec<String> {
    let request = Client::new().post(app.url("/v1/chat/completions")).header("x-codex-keepalive", form);
    let response = request.json(&streamed(body(model, "x"))).send().await.unwrap();
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    let is_keep_alive = |frame: &&str| frame.starts_with(": keep-alive") || frame.contains("\"delta\":{}");
    loop {
        let found: Vec<&str> = text.split_terminator("\n\n").filter(is_keep_alive).collect();
        if found.len() >= count {
            return found.into_iter().map(str::to_owned).collect();
        }
        text.push_str(std::str::from_utf8(&stream.next().await.expect("a frame").unwrap()).unwrap());
    }
}

both_engines!(keep_alives_of_a_silent_stream_have_the_form_of_the_request);
async fn keep_alives_of_a_silent_stream_have_the_form_of_the_request(engine: Engine) {
    let config = AppConfig::fake(engine).env("CODEX_SSE_KEEPALIVE_SECONDS", "1");
    with_app(config, async |app| {
        for frame in keep_alives(app, "fake:slow:8000", "chunk", 2).await {
            let chunk: Value = serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap();
            let choice = json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": null});
            assert_eq!(chunk["choices"], json!([choice]));
        }
        assert_eq!(keep_alives(app, "fake:slow:8000", "comment", 1).await, [": keep-alive"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn stream_that_waits_for_the_arguments_of_the_real_cli_is_alive() {
    let config = AppConfig::real(Engine::AppServer).env("CODEX_SSE_KEEPALIVE_SECONDS", "1");
    with_app(config, async |app| {
        let content = "0123456789".repeat(4);
        let call = json!({"name": "write_file", "arguments": {"content": content}});
        // The text begins the stream; without it the head waits for the first event, up to 10 s.
        let steps = json!([{"text": "I write.", "calls": [call], "arguments_delay_ms": 600}]);
        let mut request = streamed(body("gpt-5.5", &format!("@@{steps}@@")));
        request["tools"] = json!([{"type": "function", "function": {"name": "write_file", "parameters":
            {"type": "object", "properties": {"content": {"type": "string"}}}}}]);
        let begin = Instant::now();
        let text = app.post(&request).await.text().await.unwrap();
        assert!(begin.elapsed() > Duration::from_secs(3), "the arguments are slow");
        assert!(text.matches(": keep-alive\n\n").count() >= 2, "{text}");
        let (chunks, done) = chunks(&text);
        let calls: Vec<&Value> =
            chunks.iter().filter_map(|chunk| chunk.pointer("/choices/0/delta/tool_calls/0")).collect();
        assert!(done && calls.len() == 1, "{text}");
        let arguments: Value =
            serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(arguments["content"], content);
    })
    .await;
}

async fn get(app: &TestApp, path: &str) -> Value {
    let response = reqwest::get(app.url(path)).await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

/// Checks what pickers read of a model in the CLI's catalog.
fn assert_facts(model: &Value) {
    let created = model["created"].as_i64().unwrap();
    assert!(created > 1_750_000_000, "a date of this CLI: {model}");
    assert!(model["context_length"].as_u64().unwrap() > 100_000, "{model}");
    assert_eq!(model["context_length"], model["context_window"]);
    assert_eq!(model["context_length"], model["max_model_len"]);
    assert_eq!(model["architecture"]["input_modalities"], json!(["text", "image"]), "{model}");
    let efforts = model["codex"]["reasoning_efforts"].as_array().unwrap();
    assert!(efforts.contains(&"high".into()), "{model}");
    assert_eq!(model["codex"]["service_tiers"], json!(["priority"]));
    assert!(model["name"].as_str().unwrap().starts_with("GPT-"), "{model}");
}

both_engines!(model_list_has_the_facts_of_the_catalog);
async fn model_list_has_the_facts_of_the_catalog(engine: Engine) {
    let config = AppConfig::fake(engine).env("CODEX_MODEL_ALIASES", r#"{"gpt-4o":"gpt-5.5","mine":"other"}"#);
    with_app(config, async |app| assert_model_list(app, engine).await).await;
}

async fn assert_model_list(app: &TestApp, engine: Engine) {
    let list = get(app, "/v1/models").await;
    let models = list["data"].as_array().unwrap();
    let find =
        |id: &str| models.iter().find(|model| model["id"] == id).unwrap_or_else(|| panic!("{id} in {list}"));
    for id in ["gpt-5.5", "gpt-5-codex", "gpt-4o"] {
        assert_facts(find(id));
    }
    let other = find("other");
    assert_eq!((&other["created"], other.get("context_length")), (&find("gpt-5.5")["created"], None));
    match engine {
        // Profiles are listed where a request may select one.
        Engine::AppServer => {
            let chat = find("gpt-5.5:chat");
            assert_facts(chat);
            assert_eq!((&chat["codex"]["profile"], chat["codex"].get("target")), (&json!("chat"), None));
            assert_eq!(find("gpt-4o:agent")["codex"]["target"], "gpt-5.5");
        }
        Engine::Exec => assert!(models.iter().all(|model| !model["id"].as_str().unwrap().contains(':'))),
    }
    let mut ids: Vec<&str> = models.iter().map(|model| model["id"].as_str().unwrap()).collect();
    for model in models {
        let path = format!("/v1/models/{}", model["id"].as_str().unwrap());
        assert_eq!(&get(app, &path).await, model, "the list and the single model agree");
        let head = Client::new().head(app.url(&path)).send().await.unwrap();
        assert_eq!(
            (head.status().as_u16(), &head.headers()["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        assert_eq!(head.text().await.unwrap(), "");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), models.len(), "each name once");
    // Over gRPC a model is listed once, with its profiles.
    let over_grpc = app.grpc().await.list_models(pb::ListModelsRequest {}).await.unwrap().into_inner().models;
    assert!(over_grpc.iter().all(|model| !model.id.contains(':')), "{over_grpc:?}");
    let model = over_grpc.iter().find(|model| model.id == "gpt-5.5").unwrap();
    assert_eq!(model.context_window, find("gpt-5.5")["context_window"].as_u64().unwrap());
    assert!(model.created_unix_seconds > 0 && !model.description.is_empty() && model.max_output_tokens == 0);
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    model_list_has_the_facts_of_the_real_catalog
);
async fn model_list_has_the_facts_of_the_real_catalog(engine: Engine) {
    let config = AppConfig::real(engine).env("CODEX_MODEL_ALIASES", r#"{"gpt-4o":"gpt-5.5","mine":"other"}"#);
    with_app(config, async |app| assert_model_list(app, engine).await).await;
}

both_engines!(names_that_clients_choose_by_themselves_are_answered);
async fn names_that_clients_choose_by_themselves_are_answered(engine: Engine) {
    let config = AppConfig::fake(engine).env("CODEX_MODEL_ALIASES", r#"{"*":"gpt-5.5"}"#);
    with_app(config, async |app| {
        for model in ["gpt-5-nano", "gpt-4o-mini", "claude-sonnet-4", "text-davinci-003"] {
            let answer = app.complete(&body(model, "hello")).await;
            assert_eq!(answer["model"], model);
            assert_eq!(answer["choices"][0]["message"]["content"], engine.echo("hello"));
        }
    })
    .await;
}
