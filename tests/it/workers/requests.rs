//! Requests of a worker get a reply, its refusals are retried, and its buffered output is bounded.

use futures_util::StreamExt;
use serde_json::Value;

use super::{one_worker, resident_kb, workers};
use crate::{
    eventually,
    support::{Codex, TestApp, chat_request, grpc::code_and_reason, http::body, wire::Wire, with_app},
};

#[tokio::test]
async fn worker_requests_are_all_answered() {
    with_app(one_worker(Codex::Fake), async |app| {
        let answers: Value =
            serde_json::from_str(&app.chat(chat_request("fake:approval", "hi")).await).unwrap();
        let answers = answers.as_object().unwrap();
        assert_eq!(answers["item/commandExecution/requestApproval"]["decision"], "decline");
        let refused = answers.iter().filter(|(_, answer)| answer["error"]["code"] == -32601).count();
        assert_eq!(refused, answers.len() - 1, "all other requests are refused: {answers:?}");
    })
    .await;
}

#[tokio::test]
async fn overloaded_worker_is_retried_with_a_limit() {
    with_app(one_worker(Codex::Fake), async |app| {
        assert_eq!(app.chat(chat_request("fake:overloaded:3", "at last")).await, "at last");
        // The retries are limited.
        let status = app.grpc().await.chat(chat_request("fake:overloaded:100", "hi")).await.unwrap_err();
        assert_eq!(code_and_reason(&status), (tonic::Code::ResourceExhausted, "OVERLOADED".into()));
        let (code, error) = app.http_error(&body("fake:overloaded:100", "hi")).await;
        assert_eq!((code, error["type"].as_str()), (429, Some("rate_limit_error")), "{error}");
    })
    .await;
}

#[tokio::test]
async fn overload_of_one_choice_is_not_retryable_after_another_ran() {
    with_app(one_worker(Codex::Fake), async |app| {
        let mut both = body("fake:overloaded:100", "hi");
        both["n"] = 2.into();
        let response = app.post(&both).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-should-retry"]),
            (502, &"false".parse().unwrap())
        );
        assert!(!response.headers().contains_key("retry-after"));
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "turn_failed");
    })
    .await;
}

/// Opens a stream and reads the head of its response only.
async fn open_unread_stream(app: &TestApp, model: &str) -> Wire {
    let mut wire = Wire::open_with_small_window(app.address).await;
    let mut request = body(model, "hi");
    request["stream"] = true.into();
    wire.post(&request).await;
    assert_eq!(wire.response().await.status, 200);
    wire
}

#[tokio::test]
async fn unread_flood_is_bounded_and_other_turns_continue() {
    with_app(one_worker(Codex::Fake), async |app| {
        let worker = workers(app);
        let before = resident_kb(std::process::id());
        // Two floods, each larger than the buffer of one client.
        let unread = [
            open_unread_stream(app, "fake:flood:60000000").await,
            open_unread_stream(app, "fake:flood:60000000").await,
        ];
        let mut other_turn =
            app.grpc().await.stream_chat(chat_request("fake:stream:200:5", "hi")).await.unwrap().into_inner();
        while other_turn.next().await.is_some_and(|event| event.is_ok()) {}
        eventually!("both floods have ended", app.status().await.running_turns == 0);
        let grown = resident_kb(std::process::id()).saturating_sub(before);
        assert!(grown < 200 << 10, "{grown} kB more");
        drop(unread);
        assert_eq!(app.chat(chat_request("fake:text:5", "hi")).await, "01234");
        assert_eq!(workers(app), worker, "the worker was not replaced");
    })
    .await;
}
