//! Client functions through the real CLI over the app-server engine: the calls at each door, and the items of the upstream
//! requests.

mod codex_calls;
pub mod contract;
mod edges;
mod loops;
mod refused;
mod replay;
pub mod routes;
mod schemas;
mod tool_choice;
pub mod upstream_request;

use serde_json::{Value, json};

use crate::support::{AppConfig, Engine, TestApp, grpc, http::streamed};

const MODEL: &str = "gpt-5.5";

/// Configures a server over the real CLI with the app-server engine.
pub fn real_workers() -> AppConfig {
    AppConfig::real(Engine::AppServer)
}

/// Profile and model of each case: the profile comes from the setting or from the suffix of the model.
const PROFILES: [(&str, &str); 3] = [("agent", "gpt-5.5"), ("chat", "gpt-5.5"), ("agent", "gpt-5.5:chat")];

/// Builds a function with one text argument.
fn function(name: &str, argument: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": format!("Does {name}."), "parameters": {
        "type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}}})
}

/// Builds a prompt with the steps of the scripted model.
pub fn script(steps: &Value) -> String {
    format!("Please. @@{steps}@@")
}

/// Builds a request of one user message with tools.
fn request(model: &str, prompt: &str, tools: &[Value]) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}], "tools": tools})
}

/// Returns the request with these messages appended.
fn followed_by(body: &Value, more: &[Value]) -> Value {
    let mut body = body.clone();
    body["messages"].as_array_mut().unwrap().extend(more.iter().cloned());
    body
}

/// Returns the HTTP status and the field name at each door. Asserts that a streamed request fails equally.
async fn refusal(app: &TestApp, body: &Value) -> (u16, String, String) {
    let (status, error) = app.http_error(body).await;
    assert_eq!(app.http_error(&streamed(body.clone())).await, (status, error.clone()));
    let grpc = app.grpc_error(contract::contract(body)).await;
    let param = error["param"].as_str().unwrap_or_default();
    let field = grpc::violated_field(&grpc);
    // The messages differ only in the field name.
    assert_eq!(grpc.message().replace(&field, param), error["message"].as_str().unwrap());
    (status, param.to_owned(), field)
}
