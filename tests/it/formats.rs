//! The output schema in the upstream request of the real CLI.

use codex_api::pb::{self, response_format::Format};
use serde_json::{Value, json};

use crate::{
    both_engines,
    support::{AppConfig, Engine, TestApp, chat_request, grpc, http::streamed, with_app},
    tools::script,
};

/// Returns a schema whose keys are not in alphabetical order. The order matters, because a model writes earlier keys
/// first and bases later ones on them.
fn schema() -> Value {
    let inner = json!({"type": "object", "properties": {"y": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["y", "b"], "additionalProperties": false});
    json!({"type": "object", "properties": {"reasoning": {"type": "string"}, "answer": inner, "also": {"type": "null"}},
        "required": ["reasoning", "answer", "also"], "additionalProperties": false})
}

/// Asserts that the last upstream request has the schema with the same key order.
fn assert_upstream_request_has_the_schema(app: &TestApp) {
    let requests = app.upstream().requests();
    let format = &requests.last().unwrap().body["text"]["format"];
    assert_eq!(format["type"], "json_schema");
    assert_eq!(format["schema"].to_string(), schema().to_string());
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    output_schema_reaches_the_model_with_its_key_order
);
async fn output_schema_reaches_the_model_with_its_key_order(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let format = json!({"name": "verdict", "description": "MINE", "schema": schema()});
        let body = json!({"model": "gpt-5.5", "messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_schema", "json_schema": format}});
        for body in [body.clone(), streamed(body)] {
            let response = app.post(&body).await;
            assert_eq!(response.status(), 200);
            let ignored = response.headers()["x-codex-ignored-params"].to_str().unwrap().to_owned();
            assert_eq!(ignored, "response_format.json_schema.description");
            response.bytes().await.unwrap();
            assert_upstream_request_has_the_schema(app);
        }

        let format = pb::JsonSchemaFormat {
            name: "verdict".into(),
            schema: schema().to_string(),
            ..Default::default()
        };
        let format = pb::ResponseFormat { format: Some(Format::JsonSchema(format)) };
        let request = pb::ChatRequest { response_format: Some(format), ..chat_request("gpt-5.5", "hello") };
        let answer = app.grpc().await.chat(request).await.unwrap().into_inner();
        assert_upstream_request_has_the_schema(app);
        // The scripted model answers in the order of the schema.
        let text = &answer.choices[0].text;
        let keys: Vec<String> =
            serde_json::from_str::<serde_json::Map<String, Value>>(text).unwrap().keys().cloned().collect();
        assert_eq!(keys, ["reasoning", "answer", "also"], "{text}");
    })
    .await;
}

fn request(prompt: &str, strict: &Value, schema: &Value) -> Value {
    json!({"model": "gpt-5.5", "messages": [{"role": "user", "content": prompt}], "response_format":
        {"type": "json_schema", "json_schema": {"name": "n", "strict": strict, "schema": schema}}})
}

fn json_mode(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}],
        "response_format": {"type": "json_object"}})
}

/// Returns the deltas of the text of a streamed answer.
async fn deltas(app: &TestApp, body: Value) -> Vec<String> {
    let chunks = app.stream(&streamed(body)).await;
    let deltas = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    deltas.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

async fn content(app: &TestApp, body: &Value) -> String {
    let completion = app.complete(body).await;
    completion["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// Returns schemas outside of the strict subset, each with an equivalent inside of it.
fn loose_schemas() -> Vec<Value> {
    vec![
        // As pydantic writes them.
        json!({"title": "Order", "type": "object", "properties": {"id": {"title": "Id", "type": "integer"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null},
            "line": {"$ref": "#/$defs/Line", "description": "the line"}, "tag": {"type": "string", "default": "x"}},
            "required": ["id", "line"], "$defs": {"Line": {"type": "object", "properties":
                {"sku": {"type": "string", "format": "uuid"}, "count": {"type": "integer", "minimum": 1}}, "required": ["sku"]}}}),
        json!({"type": "object", "properties": {"level": {"enum": [1, 2]},
            "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 0}}, "required": ["level"]}),
        json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}),
        json!({"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"]},
            {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]}]}),
        json!({"type": "object", "properties": {"s": {"allOf": [{"type": "string", "minLength": 2}]}}}),
    ]
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    loose_schema_is_accepted_and_its_answer_matches_it
);
async fn loose_schema_is_accepted_and_its_answer_matches_it(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        for schema in loose_schemas() {
            let validator = jsonschema::validator_for(&schema).unwrap();
            for strict in [json!(null), json!(false)] {
                let body = request("hi", &strict, &schema);
                let text = content(app, &body).await;
                assert_eq!(deltas(app, body).await.concat(), text, "{schema}");
                let answer: Value = serde_json::from_str(&text).unwrap();
                assert!(validator.is_valid(&answer), "{schema}: {answer}");
            }
            let requests = app.upstream().requests();
            assert_eq!(requests.last().unwrap().body["text"]["format"]["strict"], true);
        }
        let (status, error) = app.http_error(&request("hi", &json!(true), &loose_schemas()[0])).await;
        assert_eq!(status, 400, "{error}");

        let format = pb::JsonSchemaFormat {
            name: "n".into(),
            schema: loose_schemas()[0].to_string(),
            ..Default::default()
        };
        let format = pb::ResponseFormat { format: Some(Format::JsonSchema(format)) };
        let request = pb::ChatRequest { response_format: Some(format), ..chat_request("gpt-5.5", "hello") };
        app.grpc().await.chat(request.clone()).await.unwrap();
        let stream = app.grpc().await.stream_chat(request).await.unwrap().into_inner();
        let events = grpc::collect_events(stream).await.unwrap();
        let text = &grpc::answers(&events)[0].0;
        assert!(serde_json::from_str::<Value>(text).unwrap()["id"].is_i64(), "{text}");
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    open_map_is_validated_and_asked_for_again
);
async fn open_map_is_validated_and_asked_for_again(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let schema = json!({"type": "object", "additionalProperties": {"type": "integer"}});
        let wrong = json!({"note": format!("{engine:?}"), "text": "{\"a\": \"x\"}", "times": 1,
            "then": {"text": "```json\n{\"a\": 1}\n```"}});
        assert_eq!(
            content(app, &request(&script(&json!([wrong])), &json!(false), &schema)).await,
            "{\"a\": 1}"
        );
        assert_eq!(app.upstream().requests().len(), 2);

        let never = request(&script(&json!([{"text": "never"}])), &json!(false), &schema);
        let (status, error) = app.http_error(&never).await;
        assert!(error["message"].as_str().unwrap().contains("is not JSON"), "{status} {error}");
        assert_eq!(app.upstream().requests().len(), 2 + 3);
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    json_mode_answers_with_the_object_alone
);
async fn json_mode_answers_with_the_object_alone(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        for text in ["```json\n{\"a\": 1}\n```", "Here {it} is: {\"a\": 1} Done.", "{\"a\": 1}"] {
            let body = json_mode("gpt-5.5", &script(&json!([{"text": text}])));
            assert_eq!(content(app, &body).await, "{\"a\": 1}", "{text}");
            assert_eq!(deltas(app, body).await.concat(), "{\"a\": 1}", "{text}");
        }
        let later = json!([{"text": "no object", "times": 1, "then": {"text": "{}"}}]);
        assert_eq!(content(app, &json_mode("gpt-5.5", &script(&later))).await, "{}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn json_answer_of_the_chat_profile_is_streamed() {
    with_app(AppConfig::real(Engine::AppServer), async |app| {
        let text = "```json\n{\"a\": 1, \"b\": \"one two three\", \"c\": null}\n```";
        let body = json_mode("gpt-5.5:chat", &script(&json!([{"text": text, "delay_ms": 50}])));
        let streamed = deltas(app, body.clone()).await;
        assert!(streamed.len() > 3, "{streamed:?}");
        assert_eq!(streamed.concat(), content(app, &body).await);

        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "string"}}});
        let plain = "{\"a\": 1, \"b\": \"one two three\", \"c\": null}";
        let mut body = request(&script(&json!([{"text": plain, "delay_ms": 50}])), &json!(false), &schema);
        body["model"] = json!("gpt-5.5:chat");
        let streamed = deltas(app, body).await;
        assert!(streamed.len() > 3, "{streamed:?}");
        assert_eq!(streamed.concat(), "{\"a\": 1, \"b\": \"one two three\"}");
    })
    .await;
}
