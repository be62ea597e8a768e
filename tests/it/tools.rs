//! Functions of the client, through the real CLI on the warm engine: what the client is told over each door, and what
//! reaches the model, item by item.

mod beside;
mod choices;
pub mod contract;
mod edges;
mod loops;
mod refused;
mod replay;
mod schemas;
pub mod seen;
pub mod ways;

use serde_json::{Value, json};

use crate::support::{AppConfig, Engine, TestApp, grpc, http::streamed};

const MODEL: &str = "gpt-5.5";

/// A server on the warm engine.
pub fn real_workers() -> AppConfig {
    AppConfig::real(Engine::AppServer)
}

/// The two profiles, by the setting and by the model's suffix.
const PROFILES: [(&str, &str); 3] = [("agent", "gpt-5.5"), ("chat", "gpt-5.5"), ("agent", "gpt-5.5:chat")];

/// A function with one text argument.
fn function(name: &str, argument: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": format!("Does {name}."), "parameters": {
        "type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}}})
}

/// A prompt that makes the model do these steps.
fn script(steps: &Value) -> String {
    format!("Please. @@{steps}@@")
}

/// A request of one user message with tools.
fn request(model: &str, prompt: &str, tools: &[Value]) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}], "tools": tools})
}

/// The request that goes on with these messages.
fn next(body: &Value, more: &[Value]) -> Value {
    let mut body = body.clone();
    body["messages"].as_array_mut().unwrap().extend(more.iter().cloned());
    body
}

/// A refusal that is the same streamed or not: the status, and the field as each door names it.
async fn refused(app: &TestApp, body: &Value) -> (u16, String, String) {
    let (status, error) = app.refused(body).await;
    assert_eq!(app.refused(&streamed(body.clone())).await, (status, error.clone()));
    let grpc = app.grpc_refused(contract::contract(body)).await;
    let param = error["param"].as_str().unwrap_or_default();
    let field = grpc::field(&grpc);
    // The same words, but for the field's name.
    assert_eq!(grpc.message().replace(&field, param), error["message"].as_str().unwrap());
    (status, param.to_owned(), field)
}
