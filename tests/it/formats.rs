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
        // A caller that gets the answer as a whole gets the object behind an example.
        let text = "Like {\"key\": \"value\"}, {x}:\n```json\n{\"a\": 1, \"b\": [\"two\"]}\n```";
        let body = json_mode("gpt-5.5", &script(&json!([{"text": text}])));
        assert_eq!(content(app, &body).await, "{\"a\": 1, \"b\": [\"two\"]}");
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

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    usage_of_a_repeated_answer_is_the_sum_of_all_turns
);
async fn usage_of_a_repeated_answer_is_the_sum_of_all_turns(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let usage = |input: u64, output: u64| json!({"input": input, "cached": 10, "output": output});
        let steps = json!([{"note": format!("{engine:?}"), "text": "no object", "times": 1, "usage": usage(1_000, 20),
            "then": {"text": "{\"a\": 1}", "usage": usage(300, 4)}}]);
        let completion = app.complete(&json_mode("gpt-5.5", &script(&steps))).await;
        assert_eq!(completion["choices"][0]["message"]["content"], "{\"a\": 1}");
        let usage = &completion["usage"];
        assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(1_300), &json!(24)), "{usage}");
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 20, "{usage}");
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    answer_after_a_command_is_not_asked_for_again
);
async fn answer_after_a_command_is_not_asked_for_again(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let call = json!({"name": "exec_command", "arguments": {"cmd": "true"}});
        let steps = json!([{"calls": [call]}, {"text": "no object"}]);
        let map = json!({"type": "object", "additionalProperties": {"type": "integer"}});
        for body in [json_mode("gpt-5.5", &script(&steps)), request(&script(&steps), &json!(null), &map)] {
            let before = app.upstream().requests().len();
            let (status, error) = app.http_error(&body).await;
            assert!(error["message"].as_str().unwrap().contains("JSON"), "{status} {error}");
            assert_eq!(app.upstream().requests().len(), before + 2, "{error}");
        }
    })
    .await;
}

/// Returns schemas as pydantic, instructor and zod write them.
#[rustfmt::skip]
fn schemas_of_libraries() -> Vec<Value> {
    let object = |properties: Value| json!({"type": "object", "title": "M", "properties": properties});
    let point = json!({"type": "object", "title": "P", "properties": {"x": {"type": "number", "title": "X"},
        "label": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null}}, "required": ["x"]});
    let pet = |kind: &str| {
        json!({"type": "object", "properties": {"kind": {"const": kind, "type": "string", "default": kind},
            "name": {"type": "string"}}, "required": ["kind", "name"]})
    };
    vec![
        object(
            json!({"age": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": null, "title": "Age"}}),
        ),
        object(
            json!({"level": {"enum": [1, 2, 3], "type": "integer", "title": "Level"}, "one": {"const": 1}}),
        ),
        object(json!({"mixed": {"enum": ["a", 1, null, true]}})),
        json!({"type": "object", "properties": {"counts": {"type": "object", "additionalProperties": {"type": "integer"}}},
            "required": ["counts"]}),
        json!({"type": "object", "properties": {"points": {"type": "array", "items": {"$ref": "#/$defs/P"}, "minItems": 1}},
            "required": ["points"], "$defs": {"P": point}}),
        json!({"type": "object", "properties": {"at": {"anyOf": [{"$ref": "#/$defs/P"}, {"type": "null"}], "default": null},
            "deep": {"type": "object", "properties": {"p": {"allOf": [{"$ref": "#/$defs/P"}], "description": "d"}}}},
            "$defs": {"P": point}}),
        object(
            json!({"when": {"type": "string", "format": "date-time"}, "link": {"type": "string", "format": "uri"},
            "price": {"anyOf": [{"type": "number"}, {"type": "string"}]}}),
        ),
        object(json!({"n": {"type": "integer", "minimum": 3, "maximum": 9, "exclusiveMinimum": 2}})),
        object(json!({"code": {"type": "string", "pattern": "^[a-z]+$"}})),
        json!({"type": "object", "required": ["pet"], "properties": {"pet": {"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
            "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}}}},
            "$defs": {"Cat": pet("cat"), "Dog": pet("dog")}}),
        object(json!({"pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2, "maxItems": 2}})),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "examples": [{"a": "x"}],
            "properties": {"a": {"type": "string", "examples": ["x"], "default": "y", "title": "A"}},
            "additionalProperties": false, "required": ["a"]}),
        json!({"$ref": "#/definitions/M", "definitions": {"M": point}}),
        json!({"type": "object"}),
    ]
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    schemas_of_client_libraries_are_answered
);
async fn schemas_of_client_libraries_are_answered(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let mut mistakes = Vec::new();
        for schema in schemas_of_libraries() {
            let validator = jsonschema::validator_for(&schema).unwrap();
            // The scripted model does not follow instructions, so that it gets its answer where the server validates.
            let has = |keyword: &str| schema.to_string().contains(keyword);
            let told = match () {
                () if has("counts") => Some(json!({"counts": {"a": 1}})),
                () if has("prefixItems") => Some(json!({"pair": [1, "a"]})),
                () if has("uri") => Some(json!({"when": "2026-01-01T00:00:00Z", "link": "https://a.b/c"})),
                () => None,
            };
            let prompt =
                told.map_or("hi".to_owned(), |answer| script(&json!([{"text": answer.to_string()}])));
            let response = app.post(&request(&prompt, &json!(null), &schema)).await;
            let status = response.status();
            let body: Value = response.json().await.unwrap();
            let text = body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
            let answer: Value = serde_json::from_str(text).unwrap_or_default();
            if status != 200 || !validator.is_valid(&answer) {
                mistakes.push(format!("{schema}: {status} {body}"));
            }
        }
        assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn json_answer_streams_as_soon_as_its_phase_is_known() {
    with_app(AppConfig::real(Engine::AppServer), async |app| {
        let answer = "{\"a\": \"one two three\", \"b\": \"four five\"}";
        let steps = |phase: Value| {
            json!([{"messages": [{"text": "I look.", "phase": "commentary"},
                {"text": answer, "phase": phase, "delay_ms": 50}]}])
        };
        let schema =
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
        for (phase, is_streamed) in [(json!("final_answer"), true), (json!(null), false)] {
            let prompt = script(&steps(phase));
            let mut with_tools = json_mode("gpt-5.5:chat", &prompt);
            with_tools["tools"] = json!([tool]);
            for body in [json_mode("gpt-5.5", &prompt), request(&prompt, &json!(null), &schema), with_tools] {
                let streamed = deltas(app, body).await;
                assert_eq!(streamed.concat(), answer);
                assert_eq!(streamed.len() > 3, is_streamed, "{streamed:?}");
            }
        }
    })
    .await;
}

/// Returns schemas that are costly to read, and whether they must be refused.
fn pathological_schemas() -> Vec<(String, bool)> {
    let names: Vec<String> = (0..30_000).map(|i| format!("{i}")).collect();
    let properties: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!({}))).collect();
    let patterns: Vec<Value> = (0..300)
        .map(|i| json!({"type": "string", "minLength": 1, "pattern": format!("^\\p{{L}}{{160}}{i}$")}))
        .collect();
    let deep = |depth: usize| format!("{}{{}}{}", "{\"items\":".repeat(depth), "}".repeat(depth));
    vec![
        (json!({"type": "object", "properties": properties, "required": names}).to_string(), false),
        (deep(10_000), true),
        (deep(120), false),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})
                .to_string(),
            true,
        ),
        (json!({"anyOf": patterns}).to_string(), true),
        (json!({"enum": (0..100_000).collect::<Vec<u32>>()}).to_string(), false),
        (json!({"type": "object", "description": "x".repeat(1 << 20)}).to_string(), true),
    ]
}

#[tokio::test]
async fn pathological_schema_does_not_freeze_the_server() {
    with_app(AppConfig::fake(Engine::AppServer).max_prompt_chars(1 << 20), async |app| {
        for (index, (schema, is_refused)) in pathological_schemas().into_iter().enumerate() {
            let format = pb::JsonSchemaFormat { name: "n".into(), schema, ..Default::default() };
            let format = pb::ResponseFormat { format: Some(Format::JsonSchema(format)) };
            let request =
                pb::ChatRequest { response_format: Some(format), ..chat_request("fake:text:9", "hello") };
            let calls: Vec<_> = (0..4)
                .map(|_| {
                    let (grpc, request) = (app.grpc(), request.clone());
                    async move { grpc.await.chat(request).await }
                })
                .collect();
            let calls = futures_util::future::join_all(calls);
            let plain = json!({"model": "fake:echo", "messages": [{"role": "user", "content": "hi"}]});
            let other = app.complete(&plain);
            let both = tokio::time::timeout(std::time::Duration::from_secs(20), async {
                tokio::join!(calls, other)
            });
            let (answers, other) = both.await.unwrap_or_else(|_| panic!("schema {index} takes too long"));
            assert_eq!(other["choices"][0]["message"]["content"], "hi");
            for answer in answers {
                let error = answer.unwrap_err();
                let names_schema = format!("{error:?}").contains("response_format.json_schema.schema");
                let is_invalid = error.code() == tonic::Code::InvalidArgument;
                assert_eq!(names_schema, is_invalid, "schema {index}: {error:?}");
                assert!(is_invalid || !is_refused, "schema {index}: {error:?}");
            }
        }
    })
    .await;
}
