//! Calls and their results, as the client receives them and as the next upstream request has them, over all routes and
//! in both profiles.

use serde_json::{Value, json};

use super::{
    MODEL, PROFILES, followed_by, function, real_workers, request,
    routes::{ROUTES, Route, tool_result},
    script,
    upstream_request::{assistant, call, output, reasoning, user},
};
use crate::support::with_app;

const COMMAND: &str = r#"{"cmd":"echo from codex","login":false}"#;

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn call_and_result_lead_to_the_answer() {
    // Spaces, key order and digits of the arguments must not change.
    let arguments = r#"{ "zone": 12345678901234567890,  "city" : "Zürich 世界"}"#;
    let steps = json!([
        {"reasoning": "I should look", "text": "Let me look.",
            "calls": [{"name": "get_weather", "arguments": arguments}],
            "usage": {"input": 120, "cached": 100, "output": 17, "reasoning": 3}},
        {"text": "It is warm.", "usage": {"input": 150, "cached": 120, "output": 5, "reasoning": 0}},
    ]);
    let prompt = script(&steps);
    for (profile, model) in PROFILES {
        with_app(real_workers().profile(profile), async |app| {
            let is_chat = profile == "chat" || model.ends_with(":chat");
            let body = request(model, &prompt, &[function("get_weather", "city")]);
            for (index, route) in ROUTES.into_iter().enumerate() {
                let first = app.turn(route, &body).await;
                let number = app.last_request_number();
                assert_eq!(first.text, "Let me look.", "{route:?}");
                assert_eq!(first.called(), [("get_weather", arguments)], "{route:?}");
                assert_eq!(first.finish_reason, "tool_calls", "{route:?}");
                assert_eq!(first.usage, [120, 100, 17, 3], "{route:?}");
                assert_eq!(app.last_upstream_request().functions().contains(&"exec_command"), !is_chat);

                // The result may come over another route.
                let result_route = ROUTES[(index + 1) % ROUTES.len()];
                let id = &first.calls[0].id;
                let second = app
                    .turn(
                        result_route,
                        &followed_by(&body, &[first.message(), tool_result(&first.calls[0], "25 C")]),
                    )
                    .await;
                assert_eq!((second.text.as_str(), second.calls.len()), ("It is warm.", 0), "{route:?}");
                assert_eq!(second.finish_reason, "stop");
                assert_eq!(second.usage, [150, 120, 5, 0]);
                let sent = app.last_upstream_request();
                let added = sent.assert_ends_with_items(&[
                    user(&prompt),
                    reasoning("I should look", number),
                    assistant("Let me look."),
                    call("get_weather", arguments, id),
                    output(id, "25 C"),
                ]);
                assert_eq!(added.is_empty(), is_chat, "the chat profile adds nothing");
            }
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn parallel_calls_with_results_in_another_order_reach_the_model() {
    let steps = json!([
        {"reasoning": "Both", "calls": [
            {"name": "get_weather", "arguments": {"city": "Rome"}},
            {"name": "get_time", "arguments": {"zone": "CET"}},
            {"name": "get_weather", "arguments": {"city": "Oslo"}},
        ], "usage": {"input": 30, "cached": 0, "output": 33, "reasoning": 1}},
        {"text": "done"},
    ]);
    let prompt = script(&steps);
    // The order is that of the request; a parked turn has that of the calls.
    with_app(real_workers().env("CODEX_KEPT_THREADS", "0"), async |app| {
        for model in [MODEL, "gpt-5.5:chat"] {
            let body =
                request(model, &prompt, &[function("get_weather", "city"), function("get_time", "zone")]);
            for route in ROUTES {
                let first = app.turn(route, &body).await;
                let number = app.last_request_number();
                let expected = [
                    ("get_weather", r#"{"city":"Rome"}"#),
                    ("get_time", r#"{"zone":"CET"}"#),
                    ("get_weather", r#"{"city":"Oslo"}"#),
                ];
                assert_eq!(first.called(), expected, "{route:?}");
                assert_eq!((first.text.as_str(), first.finish_reason.as_str()), ("", "tool_calls"));
                assert_eq!(first.usage, [30, 0, 33, 1], "{route:?}");

                let [a, b, c] = &first.calls[..] else { panic!("{first:?}") };
                let results = [
                    first.message(),
                    tool_result(c, "-3 C"),
                    tool_result(a, "25 C"),
                    tool_result(b, "12:00"),
                ];
                let second = app.turn(route, &followed_by(&body, &results)).await;
                assert_eq!(second.text, "done", "{route:?}");
                app.last_upstream_request().assert_ends_with_items(&[
                    user(&prompt),
                    reasoning("Both", number),
                    call("get_weather", expected[0].1, &a.id),
                    call("get_time", expected[1].1, &b.id),
                    call("get_weather", expected[2].1, &c.id),
                    output(&c.id, "-3 C"),
                    output(&a.id, "25 C"),
                    output(&b.id, "12:00"),
                ]);
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn several_rounds_keep_their_reasoning() {
    let steps = json!([
        {"reasoning": "one", "calls": [{"name": "step", "arguments": {"n": "1"}}]},
        {"reasoning": "two", "text": "And on.", "calls": [{"name": "step", "arguments": {"n": "2"}}]},
        {"calls": [{"name": "step", "arguments": {"n": "3"}}]},
        {"text": "there"},
    ]);
    let prompt = script(&steps);
    with_app(real_workers(), async |app| {
        let mut body = request(MODEL, &prompt, &[function("step", "n")]);
        let mut expected = vec![user(&prompt)];
        let rounds = [
            (Route::Sse, Some("one"), None),
            (Route::Unary, Some("two"), Some("And on.")),
            (Route::Http, None, None),
        ];
        for (round, (route, thought, text)) in (1..).zip(rounds) {
            let outcome = app.turn(route, &body).await;
            app.last_upstream_request().assert_ends_with_items(&expected);
            let number = app.last_request_number();
            let client_call = &outcome.calls[0];
            expected.extend(thought.map(|thought| reasoning(thought, number)));
            expected.extend(text.map(assistant));
            expected.push(call("step", &format!(r#"{{"n":"{round}"}}"#), &client_call.id));
            expected.push(output(&client_call.id, format!("result {round}")));
            body =
                followed_by(&body, &[outcome.message(), tool_result(client_call, format!("result {round}"))]);
        }
        let last = app.turn(Route::Stream, &body).await;
        assert_eq!((last.text.as_str(), last.finish_reason.as_str()), ("there", "stop"));
        app.last_upstream_request().assert_ends_with_items(&expected);

        // The user continues the conversation. The items of the earlier rounds do not change.
        let more = [
            json!({"role": "assistant", "content": "there"}),
            json!({"role": "user", "content": "@@{\"text\":\"well\"}@@"}),
        ];
        expected.extend([assistant("there"), user("@@{\"text\":\"well\"}@@")]);
        assert_eq!(app.turn(Route::Http, &followed_by(&body, &more)).await.text, "well");
        app.last_upstream_request().assert_ends_with_items(&expected);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn agent_with_client_tools_uses_its_own_tools() {
    let usage = |input: u64| json!({"input": input, "cached": 1, "output": 2, "reasoning": 1});
    let steps = json!([
        {"reasoning": "files first", "calls": [{"name": "exec_command", "arguments": COMMAND}], "usage": usage(10)},
        {"reasoning": "now ask", "calls": [{"name": "ask_boss", "arguments": {"what": "x"}}], "usage": usage(20)},
        {"text": "ready", "usage": usage(40)},
    ]);
    let prompt = script(&steps);
    with_app(real_workers().sandbox("danger-full-access"), async |app| {
        let body = request(MODEL, &prompt, &[function("ask_boss", "what")]);
        for route in ROUTES {
            let first = app.turn(route, &body).await;
            let number = app.last_request_number();
            assert_eq!(first.called(), [("ask_boss", r#"{"what":"x"}"#)], "{route:?}: only the client call");
            assert_eq!(first.usage, [30, 2, 4, 2], "{route:?}: the sum of both model calls");
            // The output of the command in the upstream request.
            let printed = app.last_upstream_request().items.last().unwrap()["output"].clone();
            assert!(printed.as_str().unwrap().contains("from codex"), "{printed}");

            let client_call = &first.calls[0];
            let second = app
                .turn(route, &followed_by(&body, &[first.message(), tool_result(client_call, "go")]))
                .await;
            assert_eq!((second.text.as_str(), second.usage), ("ready", [40, 1, 2, 1]), "{route:?}");
            let codex_id = format!("call_s0_{}_0", number - 1);
            app.last_upstream_request().assert_ends_with_items(&[
                user(&prompt),
                reasoning("files first", number - 1),
                call("exec_command", COMMAND, &codex_id),
                output(&codex_id, printed),
                reasoning("now ask", number),
                call("ask_boss", r#"{"what":"x"}"#, &client_call.id),
                output(&client_call.id, "go"),
            ]);
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn streamed_calls_are_openai_deltas() {
    let steps = json!([{"text": "Wait.", "calls": [{"name": "f", "arguments": " {} "}, {"name": "f", "arguments": {"a": "ü"}}]}]);
    with_app(real_workers().profile("chat"), async |app| {
        let chunks = app.stream(&request(MODEL, &script(&steps), &[function("f", "a")])).await;
        let choices: Vec<&Value> = chunks.iter().filter_map(|chunk| chunk["choices"].get(0)).collect();
        assert_eq!(choices[0]["delta"], json!({"role": "assistant", "content": "", "refusal": null}));
        let with_calls = choices.iter().filter(|choice| choice["delta"]["tool_calls"].is_array());
        let deltas: Vec<&Value> = with_calls.map(|choice| &choice["delta"]).collect();
        let id = |index: usize| deltas[index]["tool_calls"][0]["id"].clone();
        let expected = |index: usize, arguments: &str| {
            json!({"tool_calls": [{"index": index, "id": id(index), "type": "function",
            "function": {"name": "f", "arguments": arguments}}]})
        };
        assert_eq!(deltas, [&expected(0, " {} "), &expected(1, r#"{"a":"ü"}"#)]);
        assert_ne!(id(0), id(1));
        let end = choices.last().unwrap();
        assert_eq!((&end["delta"], &end["finish_reason"]), (&json!({}), &json!("tool_calls")));
        let usage = chunks.last().unwrap();
        assert_eq!((&usage["choices"], usage["usage"]["completion_tokens"].as_u64()), (&json!([]), Some(21)));

        // An answer without text has null content.
        let steps = json!([{"calls": [{"name": "f"}]}]);
        let chunks = app.stream(&request(MODEL, &script(&steps), &[function("f", "a")])).await;
        let first = &chunks[0]["choices"][0]["delta"];
        assert_eq!(first, &json!({"role": "assistant", "content": null, "refusal": null}));
    })
    .await;
}
