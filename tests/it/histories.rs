//! Whole conversations through both doors and the real CLI on the warm engine: every role, word, picture, call and
//! result that the model is shown, for a table of histories and for random ones.

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
        seen::{Seen, texts},
    },
};

/// Also what the engine's own tests go by.
const TABLE: &str = include_str!("../fixtures/histories.json");

#[derive(Debug, Clone, Copy)]
enum Door {
    Grpc,
    Http,
}

const DOORS: [Door; 2] = [Door::Grpc, Door::Http];

/// What reaches the model of a request. Nobody waits for the answer: the turn is left as soon as the model is asked.
async fn seen(app: &TestApp, door: Door, body: &Value) -> Seen {
    let before = app.asked();
    match door {
        Door::Grpc => {
            let stream = app.grpc().await.stream_chat(contract(body)).await.unwrap();
            eventually!("the model is asked", app.asked() > before);
            drop(stream);
        }
        Door::Http => {
            let response = app.post(&streamed(body.clone())).await;
            // The scripted answer to such a prompt is a text, which is none where a call is demanded.
            let demanded =
                matches!(&body["tool_choice"], Value::Object(_)) || body["tool_choice"] == "required";
            let expected = if demanded { 502 } else { 200 };
            assert_eq!(response.status(), expected, "{:?}", response.text().await);
            eventually!("the model is asked", app.asked() > before);
            drop(response);
        }
    }
    app.seen()
}

/// Asserts that the model is shown this conversation and told these instructions, and nothing else but Codex's own.
fn shown(seen: &Seen, items: &[Value], instructions: Option<&str>, alone: bool) {
    let own = seen.ends_with(items);
    let told: Vec<&str> = own.iter().filter(|item| item["role"] == "developer").flat_map(texts).collect();
    if alone {
        assert_eq!((told, own.len()), (Vec::from_iter(instructions), usize::from(instructions.is_some())));
        assert_eq!(seen.body["instructions"].as_str().unwrap_or_default(), "");
    } else if let Some(instructions) = instructions {
        let times = told.iter().filter(|text| **text == instructions).count();
        assert_eq!(times, 1, "told once, and alone: {told:#?}");
    }
}

/// Which rows of the table: those that need tools of the client, or the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    WithTools,
    WithoutTools,
}

/// Rows of the table, through both doors, to one model of a server.
async fn the_table(rows: Rows, profile: &str, model: &str, alone: bool) {
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
                let seen = seen(app, door, &body).await;
                shown(&seen, row["items"].as_array().unwrap(), row["instructions"].as_str(), alone);
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn table_of_histories_in_agent_reaches_the_model() {
    the_table(Rows::WithoutTools, "agent", "gpt-5.5", false).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn table_of_histories_in_chat_reaches_the_model() {
    the_table(Rows::WithoutTools, "chat", "gpt-5.5", true).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn table_of_histories_with_the_chat_suffix_reaches_the_model() {
    the_table(Rows::WithoutTools, "agent", "gpt-5.5:chat", true).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn table_of_histories_with_tools_reaches_the_model() {
    for (profile, model, alone) in
        [("agent", "gpt-5.5", false), ("chat", "gpt-5.5", true), ("agent", "gpt-5.5:chat", true)]
    {
        the_table(Rows::WithTools, profile, model, alone).await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn agent_without_client_instructions_gets_codex_instructions_only() {
    // The agent is told where its worker lives.
    with_app(real_workers().workers(1), async |app| {
        let told = async |messages: Value| {
            let body = json!({"model": "gpt-5.5", "messages": messages});
            let seen = seen(app, Door::Http, &body).await;
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
