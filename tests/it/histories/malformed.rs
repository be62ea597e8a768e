//! Tool calls without exactly one result. Both engines refuse them over both doors before a turn runs.

use serde_json::{Value, json};

use crate::{
    both_engines,
    support::{AppConfig, Engine, grpc, http::streamed, with_app},
    tools::contract::contract,
};

pub fn user() -> Value {
    json!({"role": "user", "content": "go"})
}

pub fn calls(ids: &[&str]) -> Value {
    let call =
        |id: &&str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    json!({"role": "assistant", "content": null, "tool_calls": ids.iter().map(call).collect::<Vec<_>>()})
}

pub fn result(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": "r"})
}

/// Returns histories with calls that do not have exactly one result, each with the field of its refusal.
pub fn cases() -> [(Value, &'static str); 8] {
    [
        // No result.
        (json!([user(), calls(&["a"])]), "messages[1].tool_calls[0]"),
        (json!([user(), calls(&["a", "b"]), result("a")]), "messages[1].tool_calls[1]"),
        (json!([user(), calls(&["a"]), user(), result("a")]), "messages[1].tool_calls[0]"),
        // Two results.
        (json!([user(), calls(&["a"]), result("a"), result("a")]), "messages[3].tool_call_id"),
        (json!([user(), calls(&["a", "a"]), result("a")]), "messages[1].tool_calls[1].id"),
        // No call.
        (json!([user(), result("a")]), "messages[1].tool_call_id"),
        (json!([user(), calls(&["a"]), result("z")]), "messages[2].tool_call_id"),
        (json!([result("a"), user()]), "messages[0].tool_call_id"),
    ]
}

both_engines!(malformed_history_is_refused_with_the_field);
async fn malformed_history_is_refused_with_the_field(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for (messages, field) in cases() {
            let body = json!({"messages": messages});
            let (status, error) = app.http_error(&body).await;
            assert_eq!((status, &error["param"]), (400, &json!(field)), "{messages}");
            assert_eq!(app.http_error(&streamed(body.clone())).await, (status, error), "{messages}");
            let status = app.grpc_error(contract(&body)).await;
            assert_eq!(
                (status.code(), grpc::violated_field(&status).as_str()),
                (tonic::Code::InvalidArgument, field)
            );
        }
    })
    .await;
}
