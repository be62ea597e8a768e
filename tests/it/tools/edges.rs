//! Edge cases of calls: broken upstream responses, unknown functions, many tools, every model.

use serde_json::{Value, json};

use super::{
    MODEL,
    contract::contract,
    followed_by, function, real_workers, request,
    routes::{ROUTES, Route, tool_result},
    script,
    upstream_request::{call, output, user},
};
use crate::support::{WebSocketLimit, with_app};

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn functions_reach_every_model_and_are_called() {
    with_app(real_workers(), async |app| {
        let models: Value = reqwest::get(app.url("/v1/models")).await.unwrap().json().await.unwrap();
        // The name of a model, and the model that it stands for.
        let mut names: Vec<(String, String)> = models["data"]
            .as_array()
            .unwrap()
            .iter()
            // The names with a profile are entries too.
            .filter(|model| !model["id"].as_str().unwrap().contains(':'))
            .map(|model| {
                let id = model["id"].as_str().unwrap();
                (id.to_owned(), model["codex"]["target"].as_str().unwrap_or(id).to_owned())
            })
            .collect();
        assert!(names.len() >= 3, "{names:?}");
        names.push(("an-unknown-model".to_owned(), "an-unknown-model".to_owned()));
        let prompt = script(&json!([{"calls": [{"name": "f", "arguments": {"a": "1"}}]}, {"text": "done"}]));
        for (name, target) in names {
            for model in [name.clone(), format!("{name}:chat")] {
                let body = request(&model, &prompt, &[function("f", "a")]);
                let first = app.turn(Route::Sse, &body).await;
                assert_eq!(first.called(), [("f", r#"{"a":"1"}"#)], "{model}");
                let sent = app.last_upstream_request();
                assert_eq!(sent.body["model"], target.as_str());
                assert!(sent.functions().contains(&"f"), "{model}: {:?}", sent.functions());
                let id = &first.calls[0].id;
                let second = app
                    .turn(
                        Route::Unary,
                        &followed_by(&body, &[first.message(), tool_result(&first.calls[0], "r")]),
                    )
                    .await;
                assert_eq!(second.text, "done", "{model}");
                app.last_upstream_request().assert_ends_with_items(&[
                    user(&prompt),
                    call("f", r#"{"a":"1"}"#, id),
                    output(id, "r"),
                ]);
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn broken_response_after_a_call_is_retried() {
    with_app(real_workers(), async |app| {
        let step = json!({"calls": [{"name": "f", "arguments": {"a": "1"}}], "eof": true});
        let again = json!({"calls": [{"name": "f", "arguments": {"a": "2"}}]});
        let body = request(MODEL, &script(&json!([step, again])), &[function("f", "a")]);
        for route in ROUTES {
            let outcome = app.turn(route, &body).await;
            // The client receives only the second call. The model gets an output that the first call was not run.
            assert_eq!(outcome.calls.len(), 1, "{route:?}");
            let requests = app.upstream().requests();
            let last = format!("{:?}", requests.last().unwrap());
            assert!(last.contains("Not run: the response broke off"), "{route:?}: {last}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn broken_response_after_a_call_without_retries_fails() {
    let config = real_workers().upstream_retries(0);
    let config = config.without_websocket(WebSocketLimit::FallbackRepeatsTheRequest);
    with_app(config, async |app| {
        let step = json!({"calls": [{"name": "f", "arguments": {"a": "1"}}], "eof": true});
        let body = request(MODEL, &script(&json!([step, {"text": "never"}])), &[function("f", "a")]);
        let (status, error) = app.http_error(&body).await;
        assert_eq!((status, &error["code"]), (503, &json!("upstream_unavailable")), "{error}");
        let grpc = app.grpc().await.chat(contract(&body)).await.unwrap_err();
        assert_eq!(grpc.message(), error["message"].as_str().unwrap());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn call_in_an_incomplete_response_is_dropped() {
    with_app(real_workers(), async |app| {
        for model in [MODEL, "gpt-5.5:chat"] {
            let step = json!({"text": "Let me", "calls": [{"name": "f", "arguments": {"a": "1"}}],
            "incomplete": "max_output_tokens"});
            let body = request(model, &script(&json!([step, {"text": "never"}])), &[function("f", "a")]);
            for route in [Route::Stream, Route::Http] {
                let outcome = app.turn(route, &body).await;
                assert_eq!(
                    (outcome.text.as_str(), outcome.finish_reason.as_str()),
                    ("Let me", "length"),
                    "{route:?}"
                );
                assert_eq!(outcome.calls, [], "{route:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn call_of_an_unknown_function_is_not_sent_to_the_client() {
    with_app(real_workers(), async |app| {
        let steps = json!([
            {"calls": [{"name": "unknown", "arguments": {"a": "1"}}]},
            {"calls": [{"name": "f", "arguments": {"a": "1"}}]},
            {"text": "done"},
        ]);
        for model in [MODEL, "gpt-5.5:chat"] {
            let body = request(model, &script(&steps), &[function("f", "a")]);
            for route in ROUTES {
                let first = app.turn(route, &body).await;
                assert_eq!(first.called(), [("f", r#"{"a":"1"}"#)], "{route:?}");
                let output = app.last_upstream_request().items.last().unwrap()["output"].to_string();
                assert!(output.contains("unsupported call"), "{output}");
                let more = [first.message(), tool_result(&first.calls[0], "r")];
                assert_eq!(app.turn(route, &followed_by(&body, &more)).await.text, "done", "{route:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn many_tools_with_large_schemas_reach_the_model() {
    with_app(real_workers().max_prompt_chars(1_048_576), async |app| {
        let tools: Vec<Value> = (0..128)
            .map(|number| {
                let mut tool = function(&format!("tool_{number}"), "a");
                let long = "x".repeat(1_000);
                for field in 0..4 {
                    tool["function"]["parameters"]["properties"][format!("field_{field}")] =
                        json!({"type": "string", "description": long, "default": "a"});
                }
                tool
            })
            .collect();
        let prompt = script(&json!([{"calls": [{"name": "tool_127", "arguments": {"a": "1"}}]}]));
        for model in [MODEL, "gpt-5.5:chat"] {
            let body = request(model, &prompt, &tools);
            for route in ROUTES {
                assert_eq!(
                    app.turn(route, &body).await.called(),
                    [("tool_127", r#"{"a":"1"}"#)],
                    "{route:?}"
                );
                let sent = app.last_upstream_request();
                let offered = sent.functions().into_iter().filter(|name| name.starts_with("tool_")).count();
                assert_eq!(offered, 128, "{route:?}");
                let description = sent.function("tool_5")["description"].as_str().unwrap();
                assert!(
                    description.contains(r#""default":"a""#),
                    "a keyword that Codex drops is in the description"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn unreadable_call_beside_a_strict_violation_returns_to_the_model() {
    let mut strict = function("f", "a");
    strict["function"]["strict"] = true.into();
    for broken in [r#"{"a": 1e999}"#, r#"{"a": "\ud800"}"#] {
        let steps = json!([
            {"calls": [{"name": "f", "arguments": broken}, {"name": "f", "arguments": {"a": 5}}]},
            {"calls": [{"name": "f", "arguments": {"a": "5"}}]},
        ]);
        with_app(real_workers().timeout_seconds(20.0), async |app| {
            for model in [MODEL, "gpt-5.5:chat"] {
                let body = request(model, &script(&steps), std::slice::from_ref(&strict));
                for route in [Route::Unary, Route::Sse] {
                    assert_eq!(
                        app.turn(route, &body).await.called(),
                        [("f", r#"{"a":"5"}"#)],
                        "{route:?} {broken}"
                    );
                }
            }
        })
        .await;
    }
}

/// A client could not return results for two calls with one id, or for a call without an id.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn duplicate_and_empty_call_ids_are_replaced() {
    with_app(real_workers(), async |app| {
        let f_call = |id: &str, argument: &str| json!({"name": "f", "id": id, "arguments": {"a": argument}});
        // The scripted upstream derives the step from the first id, which is kept.
        let calls = [f_call("call_s0_x", "1"), f_call("call_s0_x", "2"), f_call("", "3"), f_call("", "4")];
        let prompt = script(&json!([{"calls": calls}, {"text": "done"}]));
        for model in [MODEL, "gpt-5.5:chat"] {
            let body = request(model, &prompt, &[function("f", "a")]);
            for route in ROUTES {
                let first = app.turn(route, &body).await;
                let arguments = ["1", "2", "3", "4"].map(|argument| format!(r#"{{"a":"{argument}"}}"#));
                assert_eq!(
                    first.called(),
                    arguments.each_ref().map(|text| ("f", text.as_str())),
                    "{route:?}"
                );
                let ids: Vec<&str> = first.calls.iter().map(|call| call.id.as_str()).collect();
                assert_eq!(ids[0], "call_s0_x");
                let mut distinct = ids.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert!(distinct.len() == 4 && !distinct.contains(&""), "{ids:?}");
                let results = first.calls.iter().map(|call| tool_result(call, call.arguments.as_str()));
                let more: Vec<Value> = [first.message()].into_iter().chain(results).collect();
                assert_eq!(app.turn(route, &followed_by(&body, &more)).await.text, "done", "{route:?}");
                let calls = first.calls.iter().map(|received| call("f", &received.arguments, &received.id));
                let outputs = first.calls.iter().map(|call| output(&call.id, call.arguments.as_str()));
                app.last_upstream_request().assert_ends_with_items(
                    &[user(&prompt)].into_iter().chain(calls).chain(outputs).collect::<Vec<_>>(),
                );
            }
        }
    })
    .await;
}
