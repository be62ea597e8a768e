//! Whole conversations through both doors and the real CLI over the app-server engine: the upstream request has every
//! role, text, image, call and result. Tested with a table of histories and with random histories.

pub mod malformed;
mod random;
mod sizes;

use serde_json::{Value, json};

use crate::{
    eventually,
    support::{TestApp, http::streamed, with_app},
    tools::{
        contract::contract,
        real_workers,
        upstream_request::{UpstreamRequest, texts},
    },
};

/// A table of histories, which the unit tests of the engine use too.
const TABLE: &str = include_str!("../../fixtures/histories.json");

#[derive(Debug, Clone, Copy)]
enum Door {
    Grpc,
    Http,
}

const DOORS: [Door; 2] = [Door::Grpc, Door::Http];

/// Starts a turn and returns its upstream request. Drops the turn as soon as the upstream has the request.
async fn upstream_request_of(app: &TestApp, door: Door, body: &Value) -> UpstreamRequest {
    let before = app.last_request_number();
    match door {
        Door::Grpc => {
            let stream = app.grpc().await.stream_chat(contract(body)).await.unwrap();
            eventually!("the upstream has the request", app.model_calls_since(before) > 0);
            drop(stream);
        }
        Door::Http => {
            let response = app.post(&streamed(body.clone())).await;
            // The scripted answer is a text. A turn that requires a call therefore fails.
            let requires_call =
                matches!(&body["tool_choice"], Value::Object(_)) || body["tool_choice"] == "required";
            let expected = if requires_call { 502 } else { 200 };
            assert_eq!(response.status(), expected, "{:?}", response.text().await);
            eventually!("the upstream has the request", app.model_calls_since(before) > 0);
            drop(response);
        }
    }
    app.last_upstream_request()
}

/// Asserts that the upstream request has the conversation and the instructions. In the agent profile, Codex may add its
/// own instructions.
fn assert_sent(sent: &UpstreamRequest, items: &[Value], instructions: Option<&str>, is_chat: bool) {
    let added = sent.assert_ends_with_items(items);
    let developer: Vec<&str> =
        added.iter().filter(|item| item["role"] == "developer").flat_map(texts).collect();
    if is_chat {
        assert_eq!(
            (developer, added.len()),
            (Vec::from_iter(instructions), usize::from(instructions.is_some()))
        );
        assert_eq!(sent.body["instructions"].as_str().unwrap_or_default(), "");
    } else if let Some(instructions) = instructions {
        let times = developer.iter().filter(|text| **text == instructions).count();
        assert_eq!(times, 1, "one text has exactly the instructions: {developer:#?}");
    }
}

/// Selects the rows of the table with or without client tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    WithTools,
    WithoutTools,
}

/// Sends rows of the table through both doors to one model of a server.
async fn assert_table_reaches_the_model(rows: Rows, profile: &str, model: &str, is_chat: bool) {
    let table: Vec<Value> = serde_json::from_str(TABLE).unwrap();
    assert!(table.len() >= 30);
    let wanted = |row: &&Value| row.get("tools").is_some() == (rows == Rows::WithTools);
    let table: Vec<&Value> = table.iter().filter(wanted).collect();
    assert!(table.len() >= 5, "{rows:?}: {}", table.len());
    with_app(real_workers().profile(profile), async |app| {
        for row in table {
            for door in DOORS {
                let mut body = row.clone();
                for member in ["name", "items", "instructions"] {
                    body.as_object_mut().unwrap().remove(member);
                }
                body["model"] = model.into();
                eprintln!("{} ({model}, {door:?})", row["name"]);
                let sent = upstream_request_of(app, door, &body).await;
                assert_sent(&sent, row["items"].as_array().unwrap(), row["instructions"].as_str(), is_chat);
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn table_of_histories_in_agent_reaches_the_model() {
    assert_table_reaches_the_model(Rows::WithoutTools, "agent", "gpt-5.5", false).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn table_of_histories_in_chat_reaches_the_model() {
    assert_table_reaches_the_model(Rows::WithoutTools, "chat", "gpt-5.5", true).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn table_of_histories_with_the_chat_suffix_reaches_the_model() {
    assert_table_reaches_the_model(Rows::WithoutTools, "agent", "gpt-5.5:chat", true).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn table_of_histories_with_tools_reaches_the_model() {
    for (profile, model, is_chat) in
        [("agent", "gpt-5.5", false), ("chat", "gpt-5.5", true), ("agent", "gpt-5.5:chat", true)]
    {
        assert_table_reaches_the_model(Rows::WithTools, profile, model, is_chat).await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn agent_without_client_instructions_gets_codex_instructions_only() {
    // The instructions of Codex contain the home of the worker, so one worker runs both turns.
    with_app(real_workers().workers(1), async |app| {
        let developer_texts = async |messages: Value| {
            let body = json!({"model": "gpt-5.5", "messages": messages});
            let sent = upstream_request_of(app, Door::Http, &body).await;
            let developer = sent.items.iter().filter(|item| item["role"] == "developer");
            developer.flat_map(texts).map(str::to_owned).collect::<Vec<_>>()
        };
        let user = json!({"role": "user", "content": "hi"});
        let without = developer_texts(json!([user])).await;
        let mut with = developer_texts(json!([{"role": "system", "content": "Be kind."}, user])).await;
        with.retain(|text| text != "Be kind.");
        assert_eq!(with, without, "the instructions of Codex are the same");
    })
    .await;
}
