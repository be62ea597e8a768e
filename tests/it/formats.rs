//! The output schema in the upstream request of the real CLI.

use codex_api::pb::{self, response_format::Format};
use serde_json::{Value, json};

use crate::{
    both_engines,
    support::{AppConfig, Engine, TestApp, chat_request, http::streamed, with_app},
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
