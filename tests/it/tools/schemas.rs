//! The schema of a tool in the upstream request, in both forms of the contract.

use codex_api::pb;
use serde_json::{Value, json};

use super::{
    MODEL,
    contract::{contract, to_struct},
    function, real_workers, request,
    routes::{ROUTES, Route},
    script,
};
use crate::support::{TestApp, with_app};

/// Returns a schema with keys in a non-alphabetical order and with integers that a double cannot represent.
fn schema() -> Value {
    json!({"type": "object",
        "properties": {
            "zone": {"type": "string", "enum": ["z", "a"]},
            "count": {"enum": [9_007_199_254_740_993_u64, 18_446_744_073_709_551_615_u64], "type": "integer"},
            "at": {"type": "object", "properties": {"y": {"type": "integer"}, "b": {"type": "string"}},
                "required": ["y", "b"]},
        },
        "required": ["zone", "count", "at"], "additionalProperties": false})
}

fn tool(schema: &Value) -> Value {
    let mut tool = function("f", "a");
    tool["function"]["parameters"] = schema.clone();
    tool
}

fn call_script() -> String {
    script(&json!([{"calls": [{"name": "f", "arguments": {}}]}]))
}

/// Returns the schema in the last upstream request.
fn sent_parameters(app: &TestApp) -> Value {
    app.last_upstream_request().function("f")["parameters"].clone()
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn parameters_json_reaches_the_model_with_order_and_integers() {
    with_app(real_workers(), async |app| {
        let mut lossy = schema();
        lossy["properties"]["count"]["minimum"] = 9_007_199_254_740_993_u64.into();
        for model in [MODEL, "gpt-5.5:chat"] {
            for route in ROUTES {
                app.turn(route, &request(model, &call_script(), &[tool(&schema())])).await;
                let parameters = sent_parameters(app);
                assert_eq!(parameters, schema(), "{route:?}: all values, including the integers");
                assert_eq!(parameters["required"].to_string(), r#"["zone","count","at"]"#);
                // Codex 0.169 sorts the properties, although the engine sends them in their order.
                let properties: Vec<&String> = parameters["properties"].as_object().unwrap().keys().collect();
                assert_eq!(
                    properties,
                    ["at", "count", "zone"],
                    "Codex keeps the order now: update the comment of `parameters_json`"
                );
                // A keyword that Codex drops puts the whole schema into the description, in its order.
                app.turn(route, &request(model, &call_script(), &[tool(&lossy)])).await;
                let description = app.last_upstream_request().function("f")["description"].to_string();
                let text = serde_json::to_string(&lossy.to_string()).unwrap();
                assert!(description.contains(text.trim_matches('"')), "{route:?}: {description}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn parameters_struct_reaches_the_model() {
    with_app(real_workers(), async |app| {
        let mut request = contract(&request(MODEL, &call_script(), &[tool(&schema())]));
        #[expect(deprecated, reason = "clients of the first contract")]
        let deprecated = pb::Tool {
            parameters: schema().as_object().map(to_struct),
            parameters_json: String::new(),
            ..request.tools[0].clone()
        };
        request.tools = vec![deprecated];
        let response = app.grpc().await.chat(request).await.unwrap().into_inner();
        assert_eq!(response.choices[0].tool_calls.len(), 1);
        let sent = sent_parameters(app);
        assert_eq!(sent["properties"]["zone"], schema()["properties"]["zone"]);
        assert_eq!(sent["required"], schema()["required"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn strict_schema_near_the_limits_is_accepted_by_every_choice() {
    with_app(real_workers().profile("chat"), async |app| {
        let mut large = tool(&schema());
        large["function"]["strict"] = true.into();
        for number in 0..2_000 {
            large["function"]["parameters"]["properties"][format!("p{number}")] =
                json!({"type": "string", "minLength": number});
        }
        let arguments = json!({"zone": "a", "count": 9_007_199_254_740_993_u64, "at": {"y": 1, "b": ""}});
        let prompt = script(&json!([{"calls": [{"name": "f", "arguments": arguments}]}]));
        let mut body = request(MODEL, &prompt, &[large]);
        assert_eq!(app.turn(Route::Sse, &body).await.called(), [("f", arguments.to_string().as_str())]);
        body["n"] = 2.into();
        let completion = app.complete(&body).await;
        for choice in completion["choices"].as_array().unwrap() {
            assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], arguments.to_string());
        }
    })
    .await;
}
