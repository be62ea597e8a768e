//! Parameters: values that mean nothing, wrong values, words for Codex, long prompts, profiles of aliases.

use codex_api::pb;
use serde_json::{Value, json};
use tonic::Code;

use super::{ok_turn, with};
use crate::{
    both_engines,
    support::{
        AppConfig, Codex, Engine, chat_request,
        grpc::{code_and_reason, violated_field},
        http::{answer_of_completion, body},
        with_app,
    },
};

both_engines!(values_that_mean_nothing_pass);
async fn values_that_mean_nothing_pass(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for members in [
            json!({"functions": [], "function_call": "none"}),
            json!({"function_call": "auto", "tools": [], "tool_choice": "auto"}),
            json!({"logprobs": false, "top_logprobs": 0, "logit_bias": {}}),
            json!({"top_logprobs": null, "audio": null, "modalities": ["text"], "web_search_options": null}),
            json!({"n": 1, "store": false, "stop": [], "stream_options": {}}),
            json!({"stop": null, "stream_options": {"include_usage": false}}),
            json!({"max_tokens": -1}),
            json!({"max_tokens": 0, "max_completion_tokens": -1.0}),
            json!({"service_tier": "auto", "reasoning_effort": "", "verbosity": ""}),
            json!({"service_tier": "default", "metadata": {}, "parallel_tool_calls": null}),
        ] {
            let response = app.post(&with(ok_turn(Codex::Fake), &members)).await;
            assert_eq!(response.status(), 200, "{members}");
            assert_eq!(response.headers().get("x-codex-ignored-params"), None, "{members}");
        }
        let limited = with(body("fake:text:50", "hi"), &json!({"max_tokens": 2.0}));
        assert_eq!(answer_of_completion(&app.complete(&limited).await).finish_reason, "length");
        let unlimited = pb::ChatRequest { max_output_tokens: Some(0), ..chat_request("fake:text:50", "hi") };
        assert_eq!(app.chat(unlimited).await.len(), 50);
    })
    .await;
}

#[tokio::test]
async fn body_after_a_byte_order_mark_is_read() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        let text = format!("\u{feff}{}", body("fake:text:5", "hi"));
        let request = reqwest::Client::new().post(app.url("/v1/chat/completions"));
        let response = request.header("content-type", "application/json").body(text).send().await.unwrap();
        assert_eq!(response.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn wrong_values_of_ignored_parameters_are_refused_by_name() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        for (name, value) in [
            ("temperature", json!(9)),
            ("temperature", json!("hot")),
            ("top_p", json!(-0.1)),
            ("presence_penalty", json!(2.1)),
            ("frequency_penalty", json!([])),
            ("seed", json!(0.5)),
            ("user", json!(1)),
            ("store", json!(1)),
            ("service_tier", json!("bogus")),
            ("service_tier", json!(1)),
            ("prompt_cache_key", json!("k".repeat(513))),
            ("max_tokens", json!(1.5)),
            ("stream_options", json!({"include_usage": true})),
        ] {
            let (status, error) = app.http_error(&with(ok_turn(Codex::Fake), &json!({name: value}))).await;
            assert_eq!((status, &error["param"]), (400, &json!(name)), "{value}: {error}");
            assert_eq!(error["type"], "invalid_request_error");
        }
        let hints = json!({"temperature": 1, "seed": 7, "user": "u", "prompt_cache_key": "k"});
        let response = app.post(&with(ok_turn(Codex::Fake), &hints)).await;
        assert_eq!(response.status(), 200);
        let ignored = &response.headers()["x-codex-ignored-params"];
        assert_eq!(ignored, "seed, temperature, user");
    })
    .await;
}

both_engines!(efforts_and_tiers_of_a_known_model_are_checked_at_both_doors);
async fn efforts_and_tiers_of_a_known_model_are_checked_at_both_doors(engine: Engine) {
    let aliases = ("CODEX_MODEL_ALIASES", r#"{"alias":"gpt-5.5"}"#);
    with_app(AppConfig::fake(engine).envs(&[aliases]), async |app| {
        app.chat(chat_request("fake:text:5", "the engine is ready")).await;
        for model in ["gpt-5.5", "alias"] {
            let request = with(body(model, "hi"), &json!({"reasoning_effort": "bogus"}));
            let (status, error) = app.http_error(&request).await;
            assert_eq!((status, &error["param"]), (400, &json!("reasoning_effort")), "{model}");
            assert!(error["message"].as_str().unwrap().contains("low, medium, high, xhigh"), "{error}");
            let request = pb::ChatRequest { reasoning_effort: "bogus".into(), ..chat_request(model, "hi") };
            let status = app.grpc_error(request).await;
            assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "INVALID_VALUE".into()));
            assert_eq!(violated_field(&status), "reasoning_effort");
        }
        for (model, effort) in [("gpt-5.5", "low"), ("gpt-5.5", "minimal"), ("fake:text:5", "bogus")] {
            let request = with(body(model, "hi"), &json!({"reasoning_effort": effort}));
            assert_eq!(app.post(&request).await.status(), 200, "{model} {effort}");
        }
        let request = pb::ChatRequest { service_tier: "bogus".into(), ..chat_request("gpt-5.5", "hi") };
        assert_eq!(violated_field(&app.grpc_error(request).await), "service_tier");
    })
    .await;
}

both_engines!(service_tier_is_passed_to_codex);
async fn service_tier_is_passed_to_codex(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for (tier, expected) in [("priority", Some("priority")), ("flex", Some("flex")), ("auto", None)] {
            let request = with(body("fake:report", "hi"), &json!({"service_tier": tier}));
            let report = answer_of_completion(&app.complete(&request).await).text;
            let report: Value = serde_json::from_str(&report).unwrap();
            let argument = expected.map(|tier| json!(format!("service_tier=\"{tier}\"")));
            match engine {
                Engine::Exec => {
                    let arguments = report["argv"].as_array().unwrap();
                    let found = arguments.iter().find(|a| a.as_str().unwrap().starts_with("service_tier="));
                    assert_eq!(found, argument.as_ref(), "{tier}");
                }
                Engine::AppServer => {
                    assert_eq!(report["thread_start"]["serviceTier"], json!(expected), "{tier}");
                }
            }
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    service_tier_reaches_the_upstream
);
async fn service_tier_reaches_the_upstream(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        for (tier, sent) in [("priority", json!("priority")), ("flex", json!("flex")), ("auto", Value::Null)]
        {
            let request = with(ok_turn(Codex::Real), &json!({"service_tier": tier}));
            assert_eq!(answer_of_completion(&app.complete(&request).await).text, "ok", "{tier}");
            let requests = app.upstream().requests();
            let last = requests.iter().rfind(|request| !request.is_warm_up()).unwrap();
            assert_eq!(last.body.get("service_tier").cloned().unwrap_or_default(), sent, "{tier}");
        }
    })
    .await;
}

both_engines!(long_prompt_is_refused_with_the_words_that_agents_search);
async fn long_prompt_is_refused_with_the_words_that_agents_search(engine: Engine) {
    with_app(AppConfig::fake(engine).max_prompt_chars(300), async |app| {
        app.chat(chat_request("fake:text:5", "the engine is ready")).await;
        let text = "x".repeat(301);
        let (status, error) = app.http_error(&body("gpt-5.5", &text)).await;
        assert_eq!((status, &error["code"]), (413, &json!("context_length_exceeded")));
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("This model's maximum context length is exceeded: "), "{message}");
        for part in
            ["300", "CODEX_MAX_PROMPT_CHARS", "272000 tokens", "Please reduce the length of the messages"]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
        let status = app.grpc_error(chat_request("gpt-5.5", &text)).await;
        assert_eq!(status.message(), message);
        // The upstream's error has the same beginning, and then its own words.
        let (status, error) = app.http_error(&body("fake:failed:400-context", "hi")).await;
        assert_eq!(status, 400);
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("This model's maximum context length is exceeded: "), "{message}");
        assert!(message.contains("ran out of room in the model's context window"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn wrong_key_is_refused_with_the_words_that_clients_search() {
    with_app(AppConfig::fake(Engine::Exec).token("secret-token"), async |app| {
        for key in [None, Some("wrong")] {
            let mut request = reqwest::Client::new().post(app.url("/v1/chat/completions"));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            let response = request.json(&ok_turn(Codex::Fake)).send().await.unwrap();
            assert_eq!(response.status(), 401);
            let error: Value = response.json().await.unwrap();
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains("Incorrect API key provided"), "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn body_of_another_route_is_refused_with_the_right_one() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        let request = json!({"model": "fake:echo", "instructions": "be kind",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]});
        let (status, error) = app.http_error(&request).await;
        assert_eq!((status, &error["param"]), (400, &json!("messages")));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("Responses API") && message.contains("/v1/responses"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn suffix_of_an_alias_target_selects_the_profile() {
    let aliases = r#"{"fast":"fake:report:chat"}"#;
    with_app(AppConfig::fake(Engine::AppServer).env("CODEX_MODEL_ALIASES", aliases), async |app| {
        for (model, environments) in [("fast", json!([])), ("fast:agent", Value::Null)] {
            let report = answer_of_completion(&app.complete(&body(model, "hi")).await).text;
            let report: Value = serde_json::from_str(&report).unwrap();
            assert_eq!(report["thread_start"]["model"], "fake:report", "{model}");
            assert_eq!(report["thread_start"]["environments"], environments, "{model}");
        }
    })
    .await;
}
