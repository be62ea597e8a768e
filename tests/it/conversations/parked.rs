//! Turns that wait in the real CLI for the results of a client's calls.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{client::Client, player::PNG};
use crate::{
    eventually,
    support::{AppConfig, Engine, TestApp, with_app},
    tools::{
        routes::{Outcome, ROUTES, Route, tool_result},
        script,
        upstream_request::{assistant, call, output, reasoning, user},
    },
};

const MODEL: &str = "gpt-5.5";
const MODELS: [&str; 2] = [MODEL, "gpt-5.5:chat"];

fn config() -> AppConfig {
    AppConfig::real(Engine::AppServer).workers(1)
}

/// Builds a request of one user message with the function `f`.
fn request(model: &str, steps: &Value) -> Value {
    let function = json!({"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "string"}}}}});
    json!({"model": model, "tools": [function], "messages": [{"role": "user", "content": script(steps)}]})
}

fn followed_by(body: &Value, more: &[Value]) -> Value {
    let mut body = body.clone();
    body["messages"].as_array_mut().unwrap().extend(more.iter().cloned());
    body
}

fn client_call(argument: &str) -> Value {
    json!({"name": "f", "arguments": {"a": argument}})
}

fn two_calls() -> Value {
    json!([
        {"reasoning": "secret", "text": "Let me look.", "calls": [client_call("1"), client_call("2")]},
        {"text": "done"},
    ])
}

/// Sends a request that ends with calls. Returns the answer and the number of its upstream request.
async fn calls(app: &TestApp, client: &Client, route: Route, body: &Value) -> (Outcome, u64) {
    let reply = client.send(route, body).await;
    let answer = reply.answer().clone();
    assert_eq!(answer.finish_reason, "tool_calls", "{route:?}");
    (answer, app.last_request_number())
}

/// Returns the answer and results, in the order of a client.
fn answered(answer: &Outcome, contents: &[Value]) -> Vec<Value> {
    let results = answer.calls.iter().zip(contents).map(|(call, content)| tool_result(call, content.clone()));
    [answer.message()].into_iter().chain(results).collect()
}

async fn parked(app: &TestApp) -> u32 {
    app.status().await.threads.unwrap().parked
}

/// The items of the two calls, before their outputs.
fn calls_of(prompt: &str, answer: &Outcome, number: u64) -> Vec<Value> {
    let [a, b] = &answer.calls[..] else { panic!("{answer:?}") };
    vec![
        user(prompt),
        reasoning("secret", number),
        assistant("Let me look."),
        call("f", r#"{"a":"1"}"#, &a.id),
        call("f", r#"{"a":"2"}"#, &b.id),
    ]
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn results_of_any_form_continue_the_turn_in_one_model_call() {
    let (text, picture) = (
        |text: &str| json!({"type": "text", "text": text}),
        json!({"type": "image_url", "image_url": {"url": PNG}}),
    );
    let (input_text, input_image) = (
        |text: &str| json!({"type": "input_text", "text": text}),
        json!({"type": "input_image", "image_url": PNG}),
    );
    let forms = [
        (json!("25 C"), json!("25 C")),
        (json!(""), json!("")),
        (json!([text("one")]), json!("one")),
        (json!([text("one"), text("two")]), json!([input_text("one"), input_text("two")])),
        (json!([picture]), json!([input_image])),
        (json!([text("here:"), picture]), json!([input_text("here:"), input_image])),
    ];
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        for model in MODELS {
            for (index, (content, expected)) in forms.iter().enumerate() {
                let route = ROUTES[index % 4];
                for words in [None, Some("And now?")] {
                    let body = request(model, &two_calls());
                    let prompt = body["messages"][0]["content"].as_str().unwrap();
                    let (first, number) = calls(app, &client, route, &body).await;
                    assert_eq!(parked(app).await, 1);
                    let mut more = answered(&first, &[content.clone(), json!("plain")]);
                    // The client may send the results in any order.
                    more[1..].reverse();
                    more.extend(words.map(|words| json!({"role": "user", "content": words})));
                    let reply = client.send(ROUTES[(index + 1) % 4], &followed_by(&body, &more)).await;
                    assert!(reply.is_continued(), "{model} {content} {words:?}: {reply:?}");
                    assert_eq!(app.model_calls_since(number), 1, "{model} {content} {words:?}");
                    let mut items = calls_of(prompt, &first, number);
                    items.push(output(&first.calls[0].id, expected.clone()));
                    items.push(output(&first.calls[1].id, "plain"));
                    items.extend(words.map(user));
                    app.last_upstream_request().assert_ends_with_items(&items);
                    if words.is_none() {
                        assert_eq!(reply.answer().text, "done");
                    }
                    // The conversation goes on in the thread.
                    more.push(json!({"role": "assistant", "content": reply.answer().text}));
                    more.push(json!({"role": "user", "content": "@@{\"text\":\"bye\"}@@"}));
                    let last = client.send(route, &followed_by(&body, &more)).await;
                    assert!(last.is_continued(), "{model} {content} {words:?}");
                    assert_eq!(last.answer().text, "bye");
                    items.push(assistant(&reply.answer().text));
                    items.push(user("@@{\"text\":\"bye\"}@@"));
                    app.last_upstream_request().assert_ends_with_items(&items);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn request_with_some_results_is_refused_and_the_turn_waits_for_all() {
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        for route in ROUTES {
            let body = request(MODEL, &two_calls());
            let (first, number) = calls(app, &client, route, &body).await;
            let all = answered(&first, &[json!("1"), json!("2")]);
            let some = client.send(route, &followed_by(&body, &all[..2])).await;
            assert!(some.outcome.is_err(), "{some:?}");
            assert_eq!(parked(app).await, 1);
            let reply = client.send(route, &followed_by(&body, &all)).await;
            assert!(reply.is_continued() && reply.answer().text == "done", "{reply:?}");
            assert_eq!(app.model_calls_since(number), 1);
        }
    })
    .await;
}

/// Asserts that results to a turn that no longer waits lead to the same items by a replay.
async fn assert_replayed(app: &TestApp, client: &Client, route: Route, body: &Value, first: &(Outcome, u64)) {
    let (first, number) = first;
    let prompt = body["messages"][0]["content"].as_str().unwrap();
    let more = answered(first, &[json!("1"), json!("2")]);
    let reply = client.send(route, &followed_by(body, &more)).await;
    assert_eq!((&*reply.thread, &*reply.answer().text), ("fresh", "done"));
    let mut items = calls_of(prompt, first, *number);
    items.extend([output(&first.calls[0].id, "1"), output(&first.calls[1].id, "2")]);
    app.last_upstream_request().assert_ends_with_items(&items);
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn late_results_are_replayed() {
    with_app(config().env("CODEX_PARKED_CALL_SECONDS", "1"), async |app| {
        let client = Client::new(app).await;
        for (index, route) in ROUTES.into_iter().enumerate() {
            let body = request(MODELS[index % 2], &two_calls());
            let first = calls(app, &client, route, &body).await;
            eventually!("the turn is let go", parked(app).await == 0);
            assert_replayed(app, &client, route, &body, &first).await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn results_after_the_loss_of_the_worker_are_replayed() {
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        for (model, route) in [(MODEL, Route::Sse), ("gpt-5.5:chat", Route::Unary)] {
            let body = request(model, &two_calls());
            let first = calls(app, &client, route, &body).await;
            let before = app.workers();
            for pid in &before {
                kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
            }
            eventually!("the turn is let go", parked(app).await == 0);
            eventually!("another worker runs", app.workers().iter().any(|pid| !before.contains(pid)));
            assert_replayed(app, &client, route, &body, &first).await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn slot_is_free_while_a_turn_waits() {
    with_app(config().max_concurrency(1).max_queue(0), async |app| {
        let client = Client::new(app).await;
        for route in ROUTES {
            let body = request(MODEL, &two_calls());
            let (first, _) = calls(app, &client, route, &body).await;
            eventually!("the slot is free", app.status().await.running_turns == 0);
            let other =
                json!({"model": MODEL, "messages": [{"role": "user", "content": "@@{\"text\":\"hi\"}@@"}]});
            assert_eq!(client.send(route, &other).await.answer().text, "hi");
            eventually!("the slot is free", app.status().await.running_turns == 0);
            let more = answered(&first, &[json!("1"), json!("2")]);
            let reply = client.send(route, &followed_by(&body, &more)).await;
            assert!(reply.is_continued() && reply.answer().text == "done", "{reply:?}");
            eventually!("the slot is free", app.status().await.running_turns == 0);
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn routing_token_of_the_upstream_is_sent_again_within_the_turn_only() {
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        let mut steps = two_calls();
        steps[0]["headers"] = json!({"x-codex-turn-state": "sticky"});
        let body = request(MODEL, &steps);
        let (first, _) = calls(app, &client, Route::Sse, &body).await;
        let state = || {
            let requests = app.upstream().requests();
            requests.last().unwrap().headers.get("x-codex-turn-state").cloned()
        };
        assert_eq!(state(), None);
        let mut more = answered(&first, &[json!("1"), json!("2")]);
        assert!(client.send(Route::Sse, &followed_by(&body, &more)).await.is_continued());
        assert_eq!(state().as_deref(), Some("sticky"));
        more.extend([
            json!({"role": "assistant", "content": "done"}),
            json!({"role": "user", "content": "More"}),
        ]);
        assert!(client.send(Route::Sse, &followed_by(&body, &more)).await.is_continued());
        assert_eq!(state(), None);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn client_that_leaves_while_it_gets_the_calls_leaves_no_turn() {
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        let long = json!({"name": "f", "arguments": {"a": "x".repeat(80)}});
        let step = json!([{"text": "Let me look.", "calls": [client_call("1"), long], "arguments_delay_ms": 30}, {"text": "done"}]);
        let body = request(MODEL, &step);
        for _ in 0..5 {
            client.leave(&body).await;
        }
        eventually!("every slot is free", app.status().await.running_turns == 0);
        assert_eq!(parked(app).await, 0);
        // The calls of a whole answer arrive all at once.
        for delay in [0, 5, 10, 20, 40, 80, 160] {
            let body = request(MODEL, &two_calls());
            let call = client.send(Route::Http, &body);
            drop(tokio::time::timeout(std::time::Duration::from_millis(delay), call).await);
        }
        eventually!("every slot is free", app.status().await.running_turns == 0);
        // Nobody has the calls of an abandoned request, so it begins again.
        let (first, _) = calls(app, &client, Route::Http, &request(MODEL, &two_calls())).await;
        let more = answered(&first, &[json!("1"), json!("2")]);
        let reply = client.send(Route::Http, &followed_by(&request(MODEL, &two_calls()), &more)).await;
        assert!(reply.is_continued() && reply.answer().text == "done", "{reply:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn format_and_effort_of_a_turn_do_not_stick() {
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        for (model, route) in MODELS.into_iter().zip([Route::Unary, Route::Sse]) {
            let schema = json!({"type": "object", "properties": {"a": {"type": "string"}},
                "required": ["a"], "additionalProperties": false});
            let plain = json!({"model": model, "messages": [{"role": "user", "content": "@@{\"schema_answer\":true}@@"}]});
            let mut first = plain.clone();
            first["reasoning_effort"] = "high".into();
            first["response_format"] =
                json!({"type": "json_schema", "json_schema": {"name": "s", "strict": true, "schema": schema}});
            let answer = client.send(route, &first).await.answer().text.clone();
            let sent = app.last_upstream_request().body;
            assert_eq!((&sent["text"]["format"]["type"], &sent["reasoning"]["effort"]), (&json!("json_schema"), &json!("high")));
            let more = [json!({"role": "assistant", "content": answer}), json!({"role": "user", "content": "@@{\"text\":\"bye\"}@@"})];
            let reply = client.send(route, &followed_by(&plain, &more)).await;
            assert!(reply.is_continued(), "{reply:?}");
            let continued = app.last_upstream_request().body;
            // A first request without both.
            let other = json!({"model": model, "messages": [{"role": "user", "content": "@@{\"text\":\"hi\"}@@"}]});
            assert_eq!(client.send(route, &other).await.thread, "fresh");
            let fresh = app.last_upstream_request().body;
            for member in ["text", "reasoning"] {
                assert_eq!(continued[member], fresh[member], "{member}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn results_with_other_options_run_on_a_fresh_thread() {
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        for (model, route) in MODELS.into_iter().zip([Route::Unary, Route::Http]) {
            let schema = json!({"type": "object", "properties": {"a": {"type": "string"}},
                "required": ["a"], "additionalProperties": false});
            let format =
                json!({"type": "json_schema", "json_schema": {"name": "s", "strict": true, "schema": schema}});
            for (name, value, end) in [
                ("response_format", &format, json!({"schema_answer": true})),
                ("reasoning_effort", &json!("low"), json!({"text": "done"})),
            ] {
                let body = request(model, &json!([{"calls": [client_call("1")]}, end]));
                let (first, _) = calls(app, &client, route, &body).await;
                let mut next = followed_by(&body, &answered(&first, &[json!("a result")]));
                next[name] = value.clone();
                let reply = client.send(route, &next).await;
                assert_eq!(reply.thread, "fresh", "{name}");
                let sent = app.last_upstream_request();
                sent.assert_ends_with_items(&[
                    user(body["messages"][0]["content"].as_str().unwrap()),
                    call("f", r#"{"a":"1"}"#, &first.calls[0].id),
                    output(&first.calls[0].id, "a result"),
                ]);
                let is_schema = sent.body["text"]["format"]["type"] == "json_schema";
                assert_eq!(is_schema, name == "response_format");
                assert_eq!(sent.body["reasoning"]["effort"] == "low", name == "reasoning_effort", "{}", sent.body["reasoning"]);
                assert_eq!(parked(app).await, 0);
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn command_that_goes_on_beside_a_call_takes_no_slot() {
    with_app(config().sandbox("danger-full-access").max_concurrency(1).max_queue(0), async |app| {
        let client = Client::new(app).await;
        let command = json!({"name": "exec_command",
            "arguments": {"cmd": "sleep 300", "yield_time_ms": 500, "login": false}});
        let body = request(MODEL, &json!([{"calls": [client_call("1"), command]}, {"text": "done"}]));
        let (first, _) = calls(app, &client, Route::Http, &body).await;
        eventually!("the slot is free", app.status().await.running_turns == 0);
        let other =
            json!({"model": MODEL, "messages": [{"role": "user", "content": "@@{\"text\":\"hi\"}@@"}]});
        assert_eq!(client.send(Route::Http, &other).await.answer().text, "hi");
        eventually!("the slot is free", app.status().await.running_turns == 0);
        let reply =
            client.send(Route::Http, &followed_by(&body, &answered(&first, &[json!("a result")]))).await;
        assert!(reply.is_continued() && reply.answer().text == "done", "{reply:?}");
        eventually!("the command ends with its turn", app.turn_processes().is_empty());
    })
    .await;
}
