//! The bounds of kept threads: number, time, and what the status tells.

use codex_api::pb;
use serde_json::{Value, json};

use super::client::{Client, Reply};
use crate::{
    eventually,
    support::{AppConfig, Engine, TestApp, login, with_app},
    tools::routes::{Route, tool_result},
};

const MODEL: &str = "fake:directives";

fn config() -> AppConfig {
    AppConfig::fake(Engine::AppServer).workers(1)
}

/// Builds the first request of a conversation.
fn first(number: usize) -> Value {
    let question = json!({"role": "user", "content": format!("{number}: @@text Hello {number}.@@")});
    json!({"model": MODEL, "messages": [question]})
}

/// Builds the request that follows the answers so far.
fn next(number: usize, round: usize) -> Value {
    let mut body = first(number);
    for earlier in 0..=round {
        let text = if earlier == 0 { format!("Hello {number}.") } else { format!("round {earlier}") };
        let question = format!("@@text round {}@@", earlier + 1);
        let more =
            [json!({"role": "assistant", "content": text}), json!({"role": "user", "content": question})];
        body["messages"].as_array_mut().unwrap().extend(more);
    }
    body
}

/// Asks for the next round of a conversation and returns whether its thread was continued.
async fn is_continued(client: &Client, number: usize, round: usize) -> bool {
    let reply = client.send(Route::Http, &next(number, round)).await;
    assert_eq!(reply.answer().text, format!("round {}", round + 1));
    reply.is_continued()
}

async fn threads(app: &TestApp) -> pb::Threads {
    app.status().await.threads.unwrap()
}

/// Returns the number of threads that were let go for each reason that occurred.
fn evicted(threads: &pb::Threads) -> Vec<(&str, u64)> {
    let reasons = threads.evicted.iter().filter(|(_, count)| **count > 0);
    reasons.map(|(reason, count)| (reason.as_str(), *count)).collect()
}

/// Returns the number of threads that the worker has loaded, without that of this request.
async fn loaded(app: &TestApp) -> u64 {
    let body = json!({"model": "fake:report", "messages": [{"role": "user", "content": "report"}]});
    let completion = app.complete(&body).await;
    let report: Value =
        serde_json::from_str(completion["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    report["threads"].as_u64().unwrap() - 1
}

/// Returns `true` if the worker has no thread but those that the server keeps. The threads of reports are kept too.
async fn has_kept_threads_only(app: &TestApp) -> bool {
    let kept = threads(app).await;
    loaded(app).await <= u64::from(kept.kept + kept.parked)
}

#[tokio::test]
async fn threads_beyond_the_number_are_let_go_in_the_order_of_their_last_use() {
    with_app(config().env("CODEX_KEPT_THREADS", "4"), async |app| {
        let client = Client::new(app).await;
        for number in 0..20 {
            client.send(Route::Http, &first(number)).await.answer();
            let kept = threads(app).await;
            assert_eq!(kept.kept as usize, 4.min(number + 1));
            assert_eq!(
                kept.evicted.get("number").copied().unwrap_or_default() as usize,
                number.saturating_sub(3)
            );
        }
        // 16 is used again, so that 17 is the oldest now.
        assert!(is_continued(&client, 16, 0).await);
        client.send(Route::Http, &first(20)).await.answer();
        assert!(!is_continued(&client, 17, 0).await, "17 was let go, and its new thread replaces 18");
        for number in [19, 16, 20] {
            let round = usize::from(number == 16);
            assert!(is_continued(&client, number, round).await, "{number}");
        }
        assert!(!is_continued(&client, 18, 0).await);
        let kept = threads(app).await;
        assert_eq!((kept.kept, kept.parked, kept.continued_turns), (4, 0, 4), "{kept:?}");
        assert_eq!(kept.fresh_turns, 23, "{kept:?}");
        assert_eq!(evicted(&kept), [("number", 19)]);
        eventually!("the worker has no other thread", has_kept_threads_only(app).await);
    })
    .await;
}

#[tokio::test]
async fn thread_without_a_request_is_let_go_after_the_time() {
    with_app(config().env("CODEX_KEPT_THREAD_SECONDS", "1"), async |app| {
        let client = Client::new(app).await;
        for number in 0..5 {
            client.send(Route::Http, &first(number)).await.answer();
        }
        eventually!("every thread is let go", threads(app).await.kept == 0);
        assert_eq!(evicted(&threads(app).await), [("idle", 5)]);
        for number in 0..5 {
            assert!(!is_continued(&client, number, 0).await);
            assert!(is_continued(&client, number, 1).await);
        }
        eventually!("the worker has none of the threads", has_kept_threads_only(app).await);
    })
    .await;
}

#[tokio::test]
async fn thread_is_let_go_at_its_maximum_age() {
    with_app(config().env("CODEX_KEPT_THREAD_MAX_SECONDS", "1"), async |app| {
        let client = Client::new(app).await;
        client.send(Route::Http, &first(0)).await.answer();
        eventually!("the thread is let go", threads(app).await.kept == 0);
        assert_eq!(evicted(&threads(app).await), [("age", 1)]);
        assert!(!is_continued(&client, 0, 0).await);
    })
    .await;
}

/// Returns a request whose turn calls a tool, and the request with the result.
async fn call(client: &Client, number: usize) -> (Reply, Value) {
    let function = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let question = json!({"role": "user", "content": format!("{number}: @@call f {{\"n\":{number}}}@@ @@then@@ @@transcript@@")});
    let mut body = json!({"model": MODEL, "messages": [question], "tools": [function]});
    let reply = client.send(Route::Sse, &body).await;
    let answer = reply.answer();
    assert_eq!(answer.finish_reason, "tool_calls");
    let more = [answer.message(), tool_result(&answer.calls[0], format!("result {number}"))];
    body["messages"].as_array_mut().unwrap().extend(more);
    (reply, body)
}

#[tokio::test]
async fn call_without_a_result_is_let_go_after_the_time_and_answered_by_a_replay() {
    with_app(config().env("CODEX_PARKED_CALL_SECONDS", "1"), async |app| {
        let client = Client::new(app).await;
        let (_, body) = call(&client, 0).await;
        let kept = threads(app).await;
        assert_eq!((kept.kept, kept.parked), (0, 1));
        eventually!("the turn is let go", threads(app).await.parked == 0);
        assert_eq!(evicted(&threads(app).await), [("idle", 1)]);
        eventually!("the worker has no other thread", has_kept_threads_only(app).await);
        let replayed = client.send(Route::Sse, &body).await;
        assert_eq!(replayed.thread, "fresh");
        let (_, again) = call(&client, 0).await;
        let answered = client.send(Route::Sse, &again).await;
        assert_eq!(answered.thread, "continued");
        assert_eq!(replayed.answer().text, answered.answer().text);
    })
    .await;
}

#[tokio::test]
async fn conversation_beyond_the_size_is_not_kept() {
    let config = config().env("CODEX_KEPT_THREADS_MAX_MB", "2").max_prompt_chars(1_048_576);
    with_app(config, async |app| {
        let client = Client::new(app).await;
        client.send(Route::Http, &first(0)).await.answer();
        let large = format!("{} @@text Hello 1.@@", "x".repeat(1_000_000));
        let body = json!({"model": MODEL, "messages": [{"role": "user", "content": large}]});
        client.send(Route::Http, &body).await.answer();
        let kept = threads(app).await;
        assert_eq!((kept.kept, evicted(&kept)), (0, vec![("size", 2)]));
        assert!(!is_continued(&client, 0, 0).await);
    })
    .await;
}

#[tokio::test]
async fn drain_with_kept_threads_and_parked_calls_leaves_nothing() {
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        for number in 0..5 {
            client.send(Route::Http, &first(number)).await.answer();
            drop(call(&client, number).await);
        }
        let kept = threads(app).await;
        assert_eq!((kept.kept, kept.parked), (5, 5));
        // `with_app` asserts that no slot is used, and after the drain that no process and no file is left.
    })
    .await;
}

#[tokio::test]
async fn threads_with_mcp_servers_are_few() {
    let home = tempfile::tempdir().unwrap();
    login::write(home.path(), &login::key("sk-fake"));
    let servers = "[mcp_servers.files]\ncommand = \"true\"\n";
    std::fs::write(home.path().join("config.toml"), servers).unwrap();
    with_app(config().env("CODEX_HOME", home.path()), async |app| {
        let client = Client::new(app).await;
        for number in 0..6 {
            client.send(Route::Http, &first(number)).await.answer();
        }
        assert_eq!(threads(app).await.kept, 4);
        assert!(is_continued(&client, 5, 0).await && !is_continued(&client, 1, 0).await);
        // The profile `chat` has no servers.
        for number in 10..16 {
            let mut body = first(number);
            body["model"] = format!("{MODEL}:chat").into();
            client.send(Route::Http, &body).await.answer();
        }
        assert_eq!(threads(app).await.kept, 10);
    })
    .await;
}
