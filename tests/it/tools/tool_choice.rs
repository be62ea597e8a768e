//! Features without a parameter in Codex: tool choice, strict schemas, and function names that Codex reserves.

use codex_api::pb::{self, chat_event::Event};
use serde_json::{Value, json};
use tonic::Code;

use super::{
    MODEL, PROFILES,
    contract::contract,
    followed_by, function, real_workers, request,
    routes::{ROUTES, Route, tool_result},
    script,
    upstream_request::{assistant, call, output, reasoning, user},
};
use crate::support::{
    TestApp,
    grpc::{code_and_reason, collect_events},
    http::streamed,
    with_app,
};

fn with_parameter(mut body: Value, parameter: &str, value: Value) -> Value {
    body[parameter] = value;
    body
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn parallel_tool_calls_off_keeps_one_call_in_answer_and_history() {
    let steps = json!([
        {"reasoning": "both", "calls": [{"name": "f", "arguments": {"a": "1"}}, {"name": "f", "arguments": {"a": "2"}}]},
        {"text": "done"},
    ]);
    let prompt = script(&steps);
    for (profile, model) in PROFILES {
        with_app(real_workers().profile(profile), async |app| {
            let body = with_parameter(
                request(model, &prompt, &[function("f", "a")]),
                "parallel_tool_calls",
                false.into(),
            );
            for route in ROUTES {
                let first = app.turn(route, &body).await;
                assert_eq!(first.called(), [("f", r#"{"a":"1"}"#)], "{route:?}");
                assert!(app.last_upstream_request().instructions().contains("one at a time"), "{route:?}");
                let number = app.last_request_number();
                let id = &first.calls[0].id;
                let second = app
                    .turn(route, &followed_by(&body, &[first.message(), tool_result(&first.calls[0], "r")]))
                    .await;
                assert_eq!(second.text, "done");
                let expected = [
                    user(&prompt),
                    reasoning("both", number),
                    call("f", r#"{"a":"1"}"#, id),
                    output(id, "r"),
                ];
                app.last_upstream_request().assert_ends_with_items(&expected);
            }
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn tool_choice_none_offers_no_function() {
    with_app(real_workers(), async |app| {
        let prompt = script(&json!({"text": "no tools"}));
        for model in [MODEL, "gpt-5.5:chat"] {
            let body =
                with_parameter(request(model, &prompt, &[function("f", "a")]), "tool_choice", "none".into());
            for route in ROUTES {
                let outcome = app.turn(route, &body).await;
                assert_eq!((outcome.text.as_str(), outcome.calls.len()), ("no tools", 0), "{route:?}");
                assert!(!app.last_upstream_request().functions().contains(&"f"), "{route:?}");
            }
        }
    })
    .await;
}

/// Asserts that an answer without the required call fails over all routes with a status, before any text.
async fn assert_missing_call_fails(app: &TestApp, body: &Value, message: &str) {
    let answers = [
        json!({"text": "I will not."}),
        json!({"reasoning": "Should I?", "text": "I will not.", "delay_ms": 10}),
        json!({"messages": [{"text": "No.", "phase": "commentary"}, {"text": "I will not."}]}),
    ];
    for answer in answers {
        let messages = json!([{"role": "user", "content": script(&answer)}]);
        let body = with_parameter(body.clone(), "messages", messages);
        let (status, error) = app.http_error(&body).await;
        assert_eq!((status, &error["code"]), (502, &json!("turn_failed")), "{error}");
        assert_eq!(error["message"], message);
        assert_eq!(app.http_error(&streamed(body.clone())).await, (status, error), "{answer}");
        let refused = app.grpc_error(contract(&body)).await;
        assert_eq!(
            (code_and_reason(&refused), refused.message()),
            ((Code::Aborted, "TURN_FAILED".to_owned()), message),
            "{answer}"
        );
        let stream = app.grpc().await.stream_chat(contract(&body)).await;
        let first = match stream {
            Ok(stream) => stream.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        assert_eq!(first.unwrap_err().message(), message, "no event precedes the error: {answer}");
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn tool_choice_required_without_a_call_fails() {
    with_app(real_workers(), async |app| {
        for model in [MODEL, "gpt-5.5:chat"] {
            let prompt =
                script(&json!([{"calls": [{"name": "f", "arguments": {"a": "1"}}]}, {"text": "done"}]));
            let tools = [function("f", "a"), function("g", "b")];
            let body = with_parameter(request(model, &prompt, &tools), "tool_choice", "required".into());
            for route in ROUTES {
                let outcome = app.turn(route, &body).await;
                assert_eq!(outcome.called(), [("f", r#"{"a":"1"}"#)], "{route:?}");
                assert!(
                    app.last_upstream_request()
                        .instructions()
                        .contains("must call at least one of the application's functions (`f`, `g`)")
                );
            }
            assert_missing_call_fails(
                app,
                &body,
                "tool_choice requires a tool call, but the model answered without one",
            )
            .await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn tool_choice_required_with_text_delivers_text_and_call() {
    with_app(real_workers(), async |app| {
    let steps =
        json!({"reasoning": "hm", "text": "Let me look.", "calls": [{"name": "f", "arguments": {"a": "1"}}]});
    for model in [MODEL, "gpt-5.5:chat"] {
        let body = request(model, &script(&steps), &[function("f", "a")]);
        let body = with_parameter(body, "tool_choice", "required".into());
        for route in ROUTES {
            let outcome = app.turn(route, &body).await;
            assert_eq!(
                (outcome.text.as_str(), outcome.called()),
                ("Let me look.", vec![("f", r#"{"a":"1"}"#)]),
                "{route:?}"
            );
        }
        let stream = app.grpc().await.stream_chat(contract(&body)).await.unwrap();
        let events: Vec<Event> =
            collect_events(stream.into_inner()).await.unwrap().into_iter().filter_map(|event| event.event).collect();
        let text = pb::TextDelta { text: "Let me look.".into() };
        let text_at = events.iter().position(|event| *event == Event::TextDelta(text.clone())).unwrap();
        assert!(matches!(events[text_at + 1], Event::ToolCall(_)), "the text is one delta directly before the call: {events:?}");
        assert!(matches!(events[0], Event::Started(_)) && text_at > 1, "reasoning precedes the text: {events:?}");
    }
    // An answer that a limit of the client ends is valid without a call.
    let prompt = script(&json!({"text": "one two three four"}));
    let body = with_parameter(request(MODEL, &prompt, &[function("f", "a")]), "tool_choice", "required".into());
    let body = with_parameter(body, "stop", "three".into());
    let cut = app.complete(&body).await;
    assert_eq!(cut["choices"][0]["message"]["content"], "one two ", "{cut}");
    let chunks = app.stream(&body).await;
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "one two ");
    }).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn tool_choice_with_a_name_offers_that_function_only() {
    with_app(real_workers(), async |app| {
        let named = json!({"type": "function", "function": {"name": "g"}});
        for model in [MODEL, "gpt-5.5:chat"] {
            let prompt = script(&json!([{"calls": [{"name": "g", "arguments": {"b": "1"}}]}]));
            let tools = [function("f", "a"), function("g", "b")];
            let body = with_parameter(request(model, &prompt, &tools), "tool_choice", named.clone());
            for route in ROUTES {
                let outcome = app.turn(route, &body).await;
                assert_eq!(outcome.called(), [("g", r#"{"b":"1"}"#)], "{route:?}");
                let sent = app.last_upstream_request();
                assert!(
                    sent.functions().contains(&"g") && !sent.functions().contains(&"f"),
                    "{:?}",
                    sent.functions()
                );
                assert!(sent.instructions().contains("must call the application's function `g`"));
            }
            assert_missing_call_fails(
                app,
                &body,
                "tool_choice requires a call of `g`, but the model answered without one",
            )
            .await;
        }
    })
    .await;
}

fn strict_tool() -> Value {
    let mut tool = function("book", "day");
    tool["function"]["strict"] = true.into();
    tool["function"]["parameters"]["properties"]["day"]["pattern"] = "^[A-Z]".into();
    tool["function"]["parameters"]["additionalProperties"] = false.into();
    tool
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn strict_arguments_against_the_schema_return_to_the_model() {
    let (wrong, right) = (r#"{"day":"monday"}"#, r#"{"day":"Monday"}"#);
    let book = |arguments: &str| json!({"name": "book", "arguments": arguments});
    let usage = json!({"input": 10, "cached": 4, "output": 3, "reasoning": 1});
    let steps = json!([
        {"reasoning": "first", "calls": [book(wrong), book(right)], "usage": usage},
        {"reasoning": "again", "calls": [book(right)], "usage": usage},
        {"text": "booked"},
    ]);
    let prompt = script(&steps);
    for (profile, model) in PROFILES {
        with_app(real_workers().profile(profile), async |app| {
            let body = request(model, &prompt, &[strict_tool()]);
            for route in ROUTES {
                let first = app.turn(route, &body).await;
                assert_eq!(first.called(), [("book", right)], "{route:?}: only the valid call");
                assert_eq!(first.usage, [20, 8, 6, 2], "{route:?}: both model calls");
                let number = app.last_request_number();
                let sent = app.last_upstream_request();
                // A keyword that Codex drops is in the description.
                let description = sent.function("book")["description"].as_str().unwrap();
                assert!(description.contains(r#""pattern":"^[A-Z]""#), "{description}");
                let ids = [0, 1].map(|index| format!("call_s0_{}_{index}", number - 1));
                let error_output =
                    sent.items.iter().find(|item| item["type"] == "function_call_output").unwrap()["output"]
                        .clone();
                let error_text = error_output.to_string();
                assert!(error_text.contains("do not match its schema at /day"), "{error_text}");
                let asks_to_repeat = |item: &Value| item["output"].to_string().contains("Repeat this call");
                assert!(sent.items.iter().any(asks_to_repeat), "{}", json!(sent.items));
                let repeat = sent.items.last().unwrap()["output"].clone();
                let corrected = [
                    user(&prompt),
                    reasoning("first", number - 1),
                    call("book", wrong, &ids[0]),
                    call("book", right, &ids[1]),
                    output(&ids[0], error_output),
                    output(&ids[1], repeat),
                ];
                sent.assert_ends_with_items(&corrected);

                let id = &first.calls[0].id;
                let second = app
                    .turn(route, &followed_by(&body, &[first.message(), tool_result(&first.calls[0], "ok")]))
                    .await;
                assert_eq!(second.text, "booked", "{route:?}");
                let answered = [reasoning("again", number), call("book", right, id), output(id, "ok")];
                app.last_upstream_request().assert_ends_with_items(&[&corrected[..], &answered].concat());
            }
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn strict_arguments_always_against_the_schema_fail_the_turn() {
    with_app(real_workers(), async |app| {
        let wrong = json!({"calls": [{"name": "book", "arguments": {"day": 1}}]});
        let prompt = script(&json!([wrong, wrong, wrong, wrong, {"text": "never"}]));
        let body = request(MODEL, &prompt, &[strict_tool()]);
        let (status, error) = app.http_error(&body).await;
        assert_eq!((status, &error["code"]), (502, &json!("turn_failed")));
        assert!(error["message"].as_str().unwrap().contains("keeps breaking the schema"), "{error}");
        let grpc = app.grpc().await.chat(contract(&body)).await.unwrap_err();
        assert_eq!(grpc.message(), error["message"].as_str().unwrap());

        let loose = request(MODEL, &prompt, &[function("book", "day")]);
        for route in ROUTES {
            assert_eq!(app.turn(route, &loose).await.called(), [("book", r#"{"day":1}"#)], "{route:?}");
        }
    })
    .await;
}

/// Tests a schema whose validation takes 2^13 steps per item, and a recursive schema. The cost of the recursive one would
/// double with each level of the arguments without cached results.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn strict_arguments_beyond_the_budget_fail_the_turn() {
    with_app(real_workers(), async |app| {
        let mut tree = strict_tool();
        tree["function"]["parameters"] =
            json!({"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}});
        let nested = |depth: usize| (0..depth).fold(json!({}), |value, _| json!({"a": value}));
        let book = |arguments: Value| json!({"calls": [{"name": "book", "arguments": arguments}]});
        for depth in [3, 60] {
            let body =
                request(MODEL, &script(&json!([book(nested(depth)), {"text": "never"}])), &[tree.clone()]);
            for route in ROUTES {
                let expected = nested(depth).to_string();
                assert_eq!(app.turn(route, &body).await.called(), [("book", expected.as_str())], "{route:?}");
            }
        }

        let mut expensive = strict_tool();
        let mut defs = json!({"d13": {"type": "object"}});
        for level in 0..13 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            defs[format!("d{level}")] = json!({"anyOf": [next, next]});
        }
        expensive["function"]["parameters"] = json!({"type": "object", "$defs": defs,
        "properties": {"a": {"type": "array", "items": {"not": {"$ref": "#/$defs/d0"}}}}});
        let items = |count: usize| json!({"a": vec!["x"; count]});
        let body = request(MODEL, &script(&json!([book(items(3)), {"text": "never"}])), &[expensive.clone()]);
        assert_eq!(app.turn(Route::Http, &body).await.called(), [("book", items(3).to_string().as_str())]);
        // The model cannot correct such a call, so the turn fails without another attempt.
        let before = app.last_request_number();
        let body = request(MODEL, &script(&json!([book(items(2_000)), {"text": "never"}])), &[expensive]);
        let (status, error) = app.http_error(&body).await;
        assert_eq!((status, &error["code"]), (502, &json!("turn_failed")));
        assert!(error["message"].as_str().unwrap().contains("cannot be checked"), "{error}");
        assert_eq!(app.model_calls_since(before), 1);
        let grpc = app.grpc().await.chat(contract(&body)).await.unwrap_err();
        assert_eq!(grpc.message(), error["message"].as_str().unwrap());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn arguments_without_json_return_to_the_model() {
    with_app(real_workers(), async |app| {
        let steps = json!([
            {"calls": [{"name": "f", "arguments": "{\"a\": "}]},
            {"calls": [{"name": "f", "arguments": {"a": "1"}}]},
        ]);
        for model in [MODEL, "gpt-5.5:chat"] {
            let body = request(model, &script(&steps), &[function("f", "a")]);
            for route in ROUTES {
                assert_eq!(app.turn(route, &body).await.called(), [("f", r#"{"a":"1"}"#)], "{route:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn client_function_named_as_a_codex_tool_is_called() {
    let steps = json!([
        {"reasoning": "run", "calls": [{"name": "client_exec_command", "arguments": {"cmd": "ls"}}]},
        {"text": "done"},
    ]);
    let prompt = script(&steps);
    for (profile, model) in PROFILES {
        with_app(real_workers().profile(profile), async |app| {
            let body =
                request(model, &prompt, &[function("exec_command", "cmd"), function("mcp__a__b", "x")]);
            for route in ROUTES {
                let first = app.turn(route, &body).await;
                assert_eq!(
                    first.called(),
                    [("exec_command", r#"{"cmd":"ls"}"#)],
                    "{route:?}: the name of the client"
                );
                let sent = app.last_upstream_request();
                let description = sent.function("client_exec_command")["description"].as_str().unwrap();
                assert_eq!(
                    description,
                    "Does exec_command.\n\nThis is the application's function `exec_command`."
                );
                assert!(sent.functions().contains(&"client_mcp__a__b"));
                let number = app.last_request_number();
                let id = &first.calls[0].id;
                app.turn(
                    route,
                    &followed_by(&body, &[first.message(), tool_result(&first.calls[0], "a.txt")]),
                )
                .await;
                let expected = [
                    user(&prompt),
                    reasoning("run", number),
                    call("client_exec_command", r#"{"cmd":"ls"}"#, id),
                    output(id, "a.txt"),
                ];
                app.last_upstream_request().assert_ends_with_items(&expected);
            }
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn several_choices_have_separate_calls() {
    with_app(real_workers().profile("chat"), async |app| {
        let prompt = script(
            &json!([{"text": "a", "calls": [{"name": "f", "arguments": {"a": "1"}}]}, {"text": "done"}]),
        );
        let body = with_parameter(request(MODEL, &prompt, &[function("f", "a")]), "n", 2.into());
        let completion = app.complete(&body).await;
        let ids: Vec<&Value> = completion["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| {
                assert_eq!(choice["finish_reason"], "tool_calls");
                &choice["message"]["tool_calls"][0]["id"]
            })
            .collect();
        assert_eq!(ids.len(), 2);
        assert_ne!(ids[0], ids[1]);
        let response =
            app.grpc().await.chat(pb::ChatRequest { n: Some(2), ..contract(&body) }).await.unwrap();
        assert!(response.get_ref().choices.iter().all(|choice| choice.tool_calls.len() == 1));

        // The client continues with the second choice.
        let message = completion["choices"][1]["message"].clone();
        let answered = json!({"role": "tool", "tool_call_id": ids[1], "content": "r"});
        let body = followed_by(&request(MODEL, &prompt, &[function("f", "a")]), &[message, answered]);
        assert_eq!(app.turn(Route::Http, &body).await.text, "done");
        let id = ids[1].as_str().unwrap();
        app.last_upstream_request().assert_ends_with_items(&[
            user(&prompt),
            assistant("a"),
            call("f", r#"{"a":"1"}"#, id),
            output(id, "r"),
        ]);
    })
    .await;
}
