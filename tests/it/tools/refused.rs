//! Unmatched calls and results, and invalid tools. Both doors refuse them with the field, before a request reaches the
//! model.

use serde_json::json;

use super::{MODEL, function, real_workers, refusal, request};
use crate::{
    histories::malformed::{calls, cases, result, user},
    support::with_app,
};

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn results_without_exactly_one_call_are_refused_with_the_field() {
    with_app(real_workers(), async |app| {
        for (messages, field) in cases() {
            for model in [MODEL, "gpt-5.5:chat"] {
                let body = json!({"model": model, "messages": messages, "tools": [function("f", "a")]});
                let expected = (400, field.to_owned(), field.to_owned());
                assert_eq!(refusal(app, &body).await, expected, "{messages}");
            }
        }
        assert_eq!(app.last_request_number(), 0, "no request reaches the model");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn invalid_tool_messages_are_refused_with_the_field() {
    with_app(real_workers(), async |app| {
        let mut nameless = calls(&["a"]);
        nameless["tool_calls"][0]["function"]["name"] = "".into();
        let mut user_with_call_id = user();
        user_with_call_id["tool_call_id"] = "a".into();
        let cases = [
            (json!([user(), {"role": "tool", "content": "r"}]), "messages[1].tool_call_id"),
            (json!([user(), calls(&[""]), result("")]), "messages[1].tool_calls[0]"),
            (json!([user(), nameless, result("a")]), "messages[1].tool_calls[0]"),
            (json!([user(), calls(&["a"]), result("a"), user_with_call_id]), "messages[3].tool_call_id"),
        ];
        for (messages, field) in cases {
            let body = json!({"model": MODEL, "messages": messages});
            assert_eq!(refusal(app, &body).await, (400, field.to_owned(), field.to_owned()), "{messages}");
        }
        assert_eq!(app.last_request_number(), 0, "no request reaches the model");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn invalid_tools_are_refused_with_the_field() {
    with_app(real_workers(), async |app| {
        let mut invalid_pattern = function("f", "a");
        invalid_pattern["function"]["strict"] = true.into();
        invalid_pattern["function"]["parameters"]["properties"]["a"]["pattern"] = "(".into();
        // A small schema that expands to 2^40 parts.
        let mut bomb = function("f", "a");
        bomb["function"]["strict"] = true.into();
        bomb["function"]["parameters"]["$ref"] = "#/$defs/d0".into();
        for level in 0..40 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            bomb["function"]["parameters"]["$defs"][format!("d{level}")] = json!({"anyOf": [next, next]});
        }
        bomb["function"]["parameters"]["$defs"]["d40"] = json!({"type": "object"});
        // 300 patterns, whose compilation would take 15 s and 2.3 GB.
        let mut patterns = function("f", "a");
        patterns["function"]["strict"] = true.into();
        for number in 0..300 {
            patterns["function"]["parameters"]["properties"][format!("p{number}")] =
                json!({"type": "string", "pattern": format!(r"^\p{{L}}{{160}}{number}")});
        }
        let mut unknown = request(MODEL, "x", &[function("f", "a")]);
        unknown["tool_choice"] = json!({"type": "function", "function": {"name": "g"}});
        let mut no_tools = request(MODEL, "x", &[]);
        no_tools["tool_choice"] = "required".into();
        let twice = [function("f", "a"), function("f", "b")];
        let cases = [
            (
                request(MODEL, "x", &[invalid_pattern]),
                "tools[0].function.parameters",
                "tools[0].parameters_json",
            ),
            (request(MODEL, "x", &[bomb]), "tools[0].function.parameters", "tools[0].parameters_json"),
            (request(MODEL, "x", &[patterns]), "tools[0].function.parameters", "tools[0].parameters_json"),
            (request(MODEL, "x", &twice), "tools[1].function.name", "tools[1].name"),
            (request(MODEL, "x", &[function("a b", "a")]), "tools[0].function.name", "tools[0].name"),
            (request(MODEL, "x", &[function("", "a")]), "tools[0].function.name", "tools[0].name"),
            (unknown, "tool_choice", "tool_choice"),
            (no_tools, "tool_choice", "tool_choice"),
        ];
        for (body, param, field) in cases {
            assert_eq!(refusal(app, &body).await, (400, param.to_owned(), field.to_owned()), "{body}");
        }
        assert_eq!(app.last_request_number(), 0, "no request reaches the model");
    })
    .await;
}
