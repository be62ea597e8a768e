//! Whole conversations through both doors and the real CLI over `app_server`: the model gets every role, word, image,
//! call and result, for a table of histories and for random ones.

mod malformed;
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

/// The unit tests of the engine use the same table.
const TABLE: &str = include_str!("../../fixtures/histories.json");

#[derive(Debug, Clone, Copy)]
enum Door {
    Grpc,
    Http,
}

const DOORS: [Door; 2] = [Door::Grpc, Door::Http];

/// Returns the upstream request of a turn, which the client drops as soon as the upstream has the request.
async fn upstream_request_of(app: &TestApp, door: Door, body: &Value) -> UpstreamRequest {
    let before = app.upstream_request_count();
    match door {
        Door::Grpc => {
            let stream = app.grpc().await.stream_chat(contract(body)).await.unwrap();
            eventually!("the upstream has the request", app.upstream_request_count() > before);
            drop(stream);
        }
        Door::Http => {
            let response = app.post(&streamed(body.clone())).await;
            // The scripted answer to such a prompt is a text, which is none where a call is demanded.
            let demanded =
                matches!(&body["tool_choice"], Value::Object(_)) || body["tool_choice"] == "required";
            let expected = if demanded { 502 } else { 200 };
            assert_eq!(response.status(), expected, "{:?}", response.text().await);
            eventually!("the upstream has the request", app.upstream_request_count() > before);
            drop(response);
        }
    }
    app.last_upstream_request()
}

/// Asserts that the upstream request has this conversation and these instructions, and beyond them only those of Codex.
fn assert_shown(seen: &UpstreamRequest, items: &[Value], instructions: Option<&str>, alone: bool) {
    let own = seen.assert_ends_with_items(items);
    let told: Vec<&str> = own.iter().filter(|item| item["role"] == "developer").flat_map(texts).collect();
    if alone {
        assert_eq!((told, own.len()), (Vec::from_iter(instructions), usize::from(instructions.is_some())));
        assert_eq!(seen.body["instructions"].as_str().unwrap_or_default(), "");
    } else if let Some(instructions) = instructions {
        let times = told.iter().filter(|text| **text == instructions).count();
        assert_eq!(times, 1, "told once, and alone: {told:#?}");
    }
}

/// Rows of the table with or without tools of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    WithTools,
    WithoutTools,
}

/// Sends rows of the table through both doors to one model of a server.
async fn assert_table_reaches_the_model(rows: Rows, profile: &str, model: &str, alone: bool) {
    let table: Vec<Value> = serde_json::from_str(TABLE).unwrap();
    assert!(table.len() >= 30);
    let wanted = |row: &&Value| row.get("tools").is_some() == (rows == Rows::WithTools);
    let table: Vec<&Value> = table.iter().filter(wanted).collect();
    assert!(table.len() >= 5, "{rows:?}: {}", table.len());
    with_app(real_workers().profile(profile), async |app| {
        for row in table {
            for door in DOORS {
                let mut body = row.clone();
                for ours in ["name", "items", "instructions"] {
                    body.as_object_mut().unwrap().remove(ours);
                }
                body["model"] = model.into();
                eprintln!("{} ({model}, {door:?})", row["name"]);
                let seen = upstream_request_of(app, door, &body).await;
                assert_shown(&seen, row["items"].as_array().unwrap(), row["instructions"].as_str(), alone);
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
    for (profile, model, alone) in
        [("agent", "gpt-5.5", false), ("chat", "gpt-5.5", true), ("agent", "gpt-5.5:chat", true)]
    {
        assert_table_reaches_the_model(Rows::WithTools, profile, model, alone).await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn agent_without_client_instructions_gets_codex_instructions_only() {
    // The agent is told where its worker lives.
    with_app(real_workers().workers(1), async |app| {
        let told = async |messages: Value| {
            let body = json!({"model": "gpt-5.5", "messages": messages});
            let seen = upstream_request_of(app, Door::Http, &body).await;
            let developer = seen.items.iter().filter(|item| item["role"] == "developer");
            developer.flat_map(texts).map(str::to_owned).collect::<Vec<_>>()
        };
        let user = json!({"role": "user", "content": "hi"});
        let without = told(json!([user])).await;
        let mut with = told(json!([{"role": "system", "content": "Be kind."}, user])).await;
        with.retain(|text| text != "Be kind.");
        assert_eq!(with, without, "nothing else changes");
    })
    .await;
}
