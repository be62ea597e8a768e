//! Bodies that real clients send: forms of other APIs, values that mean nothing, wrong values, files, junk.

mod files;
mod forms;
mod junk;
mod parameters;

use codex_api::pb;
use serde_json::{Value, json};

use crate::support::{
    Codex, Engine, TestApp,
    http::{answer_of_completion, body},
};

/// The model of the fake codex that reports its input.
fn reporting(engine: Engine) -> &'static str {
    match engine {
        Engine::Exec => "fake:echo",
        Engine::AppServer => "fake:report",
    }
}

/// Sends a conversation over HTTP and returns everything that the fake codex got from it.
async fn seen_by_codex(app: &TestApp, engine: Engine, messages: Value) -> String {
    let request = json!({"model": reporting(engine), "messages": messages});
    let text = answer_of_completion(&app.complete(&request).await).text;
    match engine {
        Engine::Exec => text,
        Engine::AppServer => serde_json::from_str::<Value>(&text).unwrap()["items"].to_string(),
    }
}

fn text_message(role: pb::Role, text: &str) -> pb::Message {
    let part = pb::ContentPart { part: Some(pb::content_part::Part::Text(text.into())) };
    pb::Message { role: role.into(), parts: vec![part], ..Default::default() }
}

/// Returns the request with other members.
fn with(mut request: Value, members: &Value) -> Value {
    request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    request
}

/// Returns a model and a prompt that are answered with `ok`.
fn ok_turn(codex: Codex) -> Value {
    match codex {
        Codex::Fake => body("fake:echo", "ok"),
        Codex::Real => body("gpt-5.5", r#"@@{"text":"ok"}@@"#),
    }
}
