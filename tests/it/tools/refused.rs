//! Calls and results that do not fit, and tools that cannot be: refused at the doors, with the field named, before the
//! model is asked.

use serde_json::{Value, json};

use super::{MODEL, function, refused, request, warm};

fn made(ids: &[&str]) -> Value {
    let calls = ids
        .iter()
        .map(|id| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}));
    json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()})
}

fn answered(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": "r"})
}

#[tokio::test]
async fn results_that_do_not_fit_their_calls() {
    let app = warm(&[]).await;
    let user = || json!({"role": "user", "content": "go"});
    let cases = [
        // No result.
        (json!([user(), made(&["a"])]), "messages[1].tool_calls[0]", "\"a\""),
        (json!([user(), made(&["a", "b"]), answered("a")]), "messages[1].tool_calls[1]", "\"b\""),
        (json!([user(), made(&["a"]), user(), answered("a")]), "messages[1].tool_calls[0]", "\"a\""),
        // Two of them.
        (json!([user(), made(&["a"]), answered("a"), answered("a")]), "messages[3].tool_call_id", "\"a\""),
        (json!([user(), made(&["a", "a"]), answered("a")]), "messages[1].tool_calls[1].id", "\"a\""),
        // No call.
        (json!([user(), answered("a")]), "messages[1].tool_call_id", "\"a\""),
        (json!([user(), made(&["a"]), answered("z")]), "messages[2].tool_call_id", "\"z\""),
        (json!([answered("a"), user()]), "messages[0].tool_call_id", "\"a\""),
    ];
    for (messages, field, word) in cases {
        for model in [MODEL, "gpt-5.5:chat"] {
            let body = json!({"model": model, "messages": messages, "tools": [function("f", "a")]});
            let (status, param, message) = refused(&app, &body).await;
            assert_eq!((status, param.as_str()), (400, field), "{message}");
            assert!(message.contains(word), "{message}");
        }
    }
    assert_eq!(app.asked(), asked_by_the_gate(&app), "the model is not asked");
    app.stop().await;
}

#[tokio::test]
async fn messages_that_cannot_be() {
    let app = warm(&[]).await;
    let cases = [
        (
            json!([{"role": "user", "content": "x"}, {"role": "tool", "content": "r"}]),
            "messages[1].tool_call_id",
        ),
        (
            json!([{"role": "user", "content": "x"}, made(&[""]), answered("")]),
            "messages[1].tool_calls[0].id",
        ),
    ];
    for (messages, field) in cases {
        let (status, param, message) = refused(&app, &json!({"model": MODEL, "messages": messages})).await;
        assert_eq!((status, param.as_str()), (400, field), "{message}");
    }
    app.stop().await;
}

#[tokio::test]
async fn tools_that_cannot_be() {
    let app = warm(&[]).await;
    let mut unreadable = function("f", "a");
    unreadable["function"]["strict"] = true.into();
    unreadable["function"]["parameters"]["properties"]["a"]["pattern"] = "(".into();
    let mut unknown = request(MODEL, "x", &[function("f", "a")]);
    unknown["tool_choice"] = json!({"type": "function", "function": {"name": "g"}});
    let mut nothing = request(MODEL, "x", &[]);
    nothing["tool_choice"] = "required".into();
    let cases = [
        (request(MODEL, "x", &[unreadable]), "tools[0].parameters"),
        (request(MODEL, "x", &[function("f", "a"), function("f", "b")]), "tools[1].name"),
        (request(MODEL, "x", &[function("a b", "a")]), "tools[0].name"),
        (request(MODEL, "x", &[function("", "a")]), "tools[0].name"),
        (unknown, "tool_choice.name"),
        (nothing, "tool_choice"),
    ];
    for (body, field) in cases {
        let (status, param, message) = refused(&app, &body).await;
        assert_eq!((status, param.as_str()), (400, field), "{message}");
    }
    app.stop().await;
}

/// The last request that did not come from a conversation here: there is none, as the gate has an upstream of its own.
fn asked_by_the_gate(_app: &crate::support::TestApp) -> u64 {
    0
}
