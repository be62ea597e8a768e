//! Turns that continue their thread over its WebSocket, and what becomes of a turn whose WebSocket is lost.

use std::time::{Duration, Instant};

use codex_api::demo::{Recorded, Transport, Upgrade, WebSocketEnd};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::logged_in;
use crate::support::{AppConfig, Engine, TestApp, UpstreamAs, with_app};

/// A conversation of a client.
struct Client<'a> {
    app: &'a TestApp,
    request: Value,
}

/// The answer to a message.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    /// Where the turn ran.
    thread: String,
    text: String,
}

impl<'a> Client<'a> {
    fn new(app: &'a TestApp, model: &str) -> Self {
        Self { app, request: json!({"model": model, "messages": []}) }
    }

    /// Appends a message, whose answer is `answer`, and sends the conversation. Appends the answer if there is one.
    async fn say(&mut self, answer: &str) -> Answer {
        let text = format!("Please. @@{}@@", json!({"text": answer}));
        self.send(json!({"role": "user", "content": text})).await
    }

    async fn send(&mut self, message: Value) -> Answer {
        let messages = self.request["messages"].as_array_mut().unwrap();
        messages.push(message);
        let response = self.app.post(&self.request).await;
        let status = response.status().as_u16();
        let thread =
            response.headers().get("x-codex-thread").map(|thread| thread.to_str().unwrap().to_owned());
        let answer: Value = response.json().await.unwrap();
        let message = answer["choices"][0]["message"].clone();
        let text = message["content"].as_str().unwrap_or_default().to_owned();
        if status == 200 {
            self.request["messages"].as_array_mut().unwrap().push(message);
        }
        Answer { status, thread: thread.unwrap_or_default(), text }
    }
}

fn right(thread: &str, text: &str) -> Answer {
    Answer { status: 200, thread: thread.into(), text: text.into() }
}

fn over_websocket() -> AppConfig {
    logged_in(Engine::AppServer, Transport::WebSocket).workers(1)
}

/// Returns the model calls without warm-ups.
fn calls(app: &TestApp) -> Vec<Recorded> {
    app.upstream().requests().into_iter().filter(|request| !request.is_warm_up()).collect()
}

/// Returns `true` if the request names the response that it continues, so that the frame has only what is new.
fn is_delta(request: &Recorded) -> bool {
    request.body["previous_response_id"].is_string()
}

/// Counts the client's messages in the conversation behind a request.
fn messages_of_client(request: &Recorded) -> usize {
    request.body["input"].to_string().matches("Please.").count()
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn continued_turn_sends_what_is_new_over_its_websocket() {
    for model in ["gpt-5.5:chat", "gpt-5.5:agent"] {
        with_app(over_websocket(), async |app| {
            let mut client = Client::new(app, model);
            for (turn, thread) in ["fresh", "continued", "continued", "continued"].iter().enumerate() {
                let text = format!("answer {turn}");
                assert_eq!(client.say(&text).await, right(thread, &text), "{model}");
            }
            assert_eq!(app.upstream().upgrades(), 1, "{model}");
            let calls = calls(app);
            assert_eq!(calls.len(), 4, "{model}");
            for (turn, call) in calls.iter().enumerate() {
                // The first turn continues the warm-up.
                assert!(is_delta(call), "{model}, turn {turn}");
                assert_eq!(messages_of_client(call), turn + 1, "{model}, turn {turn}");
            }
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn first_turn_continues_the_warm_up_unless_it_has_a_schema() {
    with_app(over_websocket(), async |app| {
        let parameters = json!({"type": "object", "properties": {}, "additionalProperties": false});
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
        let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": parameters}});
        for model in ["gpt-5.5:chat", "gpt-5.5:agent"] {
            for (field, value, expected) in [
                ("tools", &tools, true),
                ("reasoning_effort", &json!("low"), true),
                ("verbosity", &json!("low"), true),
                ("response_format", &schema, false),
            ] {
                app.upstream().clear();
                let mut client = Client::new(app, model);
                client.request[field] = value.clone();
                assert_eq!(client.say("an answer").await.status, 200, "{model} {field}");
                let calls = calls(app);
                assert_eq!(calls.iter().map(is_delta).collect::<Vec<_>>(), [expected], "{model} {field}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn websocket_that_is_lost_between_turns_is_replaced() {
    for end in [WebSocketEnd::Close(1001), WebSocketEnd::Reset] {
        with_app(over_websocket(), async |app| {
            let mut client = Client::new(app, "gpt-5.5:chat");
            assert_eq!(client.say("one").await, right("fresh", "one"), "{end:?}");
            app.upstream().end_websockets(end);
            assert_eq!(client.say("two").await, right("continued", "two"), "{end:?}");
            assert_eq!(client.say("three").await, right("continued", "three"), "{end:?}");
            assert_eq!(app.upstream().upgrades(), 2, "{end:?}");
            let calls = calls(app);
            assert!(calls.iter().all(|call| call.transport == Transport::WebSocket), "{end:?}");
            assert_eq!(calls.iter().map(is_delta).collect::<Vec<_>>(), [true, false, true], "{end:?}");
            assert_eq!(calls.iter().map(messages_of_client).collect::<Vec<_>>(), [1, 2, 3], "{end:?}");
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn websocket_that_cannot_be_replaced_leads_to_http() {
    with_app(over_websocket(), async |app| {
        let mut client = Client::new(app, "gpt-5.5:chat");
        assert_eq!(client.say("one").await, right("fresh", "one"));
        app.upstream().set_upgrade(Upgrade::Refuse(StatusCode::FORBIDDEN));
        app.upstream().end_websockets(WebSocketEnd::Close(1001));
        assert_eq!(client.say("two").await, right("continued", "two"));
        assert_eq!(client.say("three").await, right("continued", "three"));
        let attempts = app.upstream().upgrades();
        assert_eq!(Client::new(app, "gpt-5.5:chat").say("other").await, right("fresh", "other"));
        assert_eq!(app.upstream().upgrades(), attempts, "a new thread does not try the WebSocket");
        let transports: Vec<_> = calls(app).iter().map(|call| call.transport).collect();
        assert_eq!(transports, [Transport::WebSocket, Transport::Http, Transport::Http, Transport::Http]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn websocket_that_is_refused_with_400_after_it_worked_fails_three_turns() {
    with_app(over_websocket(), async |app| {
        let mut client = Client::new(app, "gpt-5.5:chat");
        assert_eq!(client.say("one").await, right("fresh", "one"));
        app.upstream().set_upgrade(Upgrade::Refuse(StatusCode::BAD_REQUEST));
        app.upstream().end_websockets(WebSocketEnd::Close(1001));
        let mut statuses = Vec::new();
        for _ in 0..4 {
            client.request["messages"].as_array_mut().unwrap().truncate(2);
            statuses.push(client.say("two").await.status);
        }
        assert_eq!(statuses, [400, 400, 400, 200]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn websocket_that_is_silent_costs_thirty_seconds() {
    with_app(over_websocket(), async |app| {
        let mut client = Client::new(app, "gpt-5.5:chat");
        assert_eq!(client.say("one").await, right("fresh", "one"));
        app.upstream().end_websockets(WebSocketEnd::Silence);
        let started = Instant::now();
        // The conversation goes on without its thread, on a fork.
        assert_eq!(client.say("two").await, right("forked", "two"));
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(30) && took < Duration::from_secs(50), "{took:?}");
        assert_eq!(client.say("three").await, right("continued", "three"));
        assert_eq!(app.upstream().upgrades(), 2);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn auto_selects_the_websocket_for_tools_of_clients_and_agents() {
    let config = AppConfig::real(Engine::AppServer)
        .upstream_as(UpstreamAs::OpenAiLogin)
        .env("CODEX_UPSTREAM_TRANSPORT", "auto");
    with_app(config, async |app| {
        let parameters = json!({"type": "object", "properties": {}, "additionalProperties": false});
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
        let mut client = Client::new(app, "gpt-5.5:chat");
        client.request["tools"] = tools;
        let steps = json!([{"calls": [{"name": "f"}]}, {"text": "done"}]);
        let message = json!({"role": "user", "content": format!("Please. @@{steps}@@")});
        assert_eq!(client.send(message).await, right("fresh", ""));
        let call = client.request["messages"][1]["tool_calls"][0]["id"].clone();
        let result = json!({"role": "tool", "tool_call_id": call, "content": "a result"});
        assert_eq!(client.send(result).await, right("continued", "done"));
        assert_eq!(Client::new(app, "gpt-5.5:chat").say("single").await, right("fresh", "single"));
        assert_eq!(Client::new(app, "gpt-5.5:agent").say("agent").await, right("fresh", "agent"));
        let found: Vec<_> = calls(app).iter().map(|call| (call.transport, is_delta(call))).collect();
        let websocket = (Transport::WebSocket, true);
        assert_eq!(found, [websocket, websocket, (Transport::Http, false), websocket]);
    })
    .await;
}
