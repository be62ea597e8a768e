//! Many calls, opened and cancelled at once on one connection.

use std::time::Duration;

use codex_api::pb::chat_event::Event;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, SOON, TestApp, ask,
        grpc::{all, answers, kind},
        http::{body, chunks, folded, streamed},
        staged::{GATED_ANSWER, Staged},
        with_app,
    },
};

const CALLS: usize = 1_000;

/// How many of the calls are answered before all are cancelled: some are then over, some run, some wait, and some
/// have not been seen by the server.
const ANSWERED: usize = 100;

/// Three calls run beside the one that survives, eight wait, the rest are refused.
fn config(engine: Engine, staged: &Staged) -> AppConfig {
    AppConfig::fake(engine).max_concurrency(4).max_queue(8).codex_bin(staged.bin())
}

/// Many of them are reset before the server has accepted them.
async fn cancelled_at_once(calls: impl Iterator<Item = impl Future<Output: Send> + Send + 'static>) {
    let calls: JoinSet<_> = calls.map(|call| timeout(Duration::from_millis(1), call)).collect();
    timeout(SOON, calls.join_all()).await.unwrap();
}

async fn settled(app: &TestApp) {
    eventually!("no turn is left", {
        let status = app.status().await;
        status.running_turns + status.waiting_turns == 0
    });
    eventually!("no process is left", app.turn_processes().is_empty());
    assert_eq!(app.chat(ask("fake:echo", "again")).await, app.echo("again"));
}

both_engines!(cancelled_grpc_calls_leave_other_streams_intact);
async fn cancelled_grpc_calls_leave_other_streams_intact(engine: Engine) {
    let mut staged = Staged::new(engine);
    with_app(config(engine, &staged), async |app| {
        let client = app.grpc().await;
        let mut survivor = client.clone().stream_chat(ask(&staged.gated(), "x")).await.unwrap().into_inner();
        while !matches!(survivor.message().await.unwrap().unwrap().event.unwrap(), Event::TextDelta(_)) {}

        let call = |number: usize| {
            let mut client = client.clone();
            async move {
                match number % 2 {
                    0 => client.stream_chat(ask("fake:hang", "x")).await.map(drop),
                    _ => client.chat(ask("fake:hang", "x")).await.map(drop),
                }
            }
        };
        cancelled_at_once((0..CALLS).map(call)).await;
        let mut calls: FuturesUnordered<_> = (0..CALLS).map(call).collect();
        let mut refused = 0;
        while refused < ANSWERED {
            // A stream that has begun is dropped by its future, so that others get its place.
            if let Err(status) = calls.next().await.unwrap() {
                assert_eq!(kind(&status), (Code::ResourceExhausted, "OVERLOADED".into()), "{status:?}");
                refused += 1;
            }
        }
        drop(calls);

        staged.let_go_on(1);
        let rest = all(survivor).await.unwrap();
        assert_eq!(answers(&rest)[0].0, "\n\nafter");
        // The connection is as good as before.
        let response = client.clone().chat(ask("fake:echo", "same connection")).await.unwrap();
        assert_eq!(response.into_inner().choices[0].text, engine.echo("same connection"));
        settled(app).await;
    })
    .await;
}

both_engines!(cancelled_http_calls_leave_other_streams_intact);
async fn cancelled_http_calls_leave_other_streams_intact(engine: Engine) {
    let mut staged = Staged::new(engine);
    with_app(config(engine, &staged), async |app| {
        let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let post = |model: &str, stream: bool| {
            let body = body(model, "x");
            let body = if stream { streamed(body) } else { body };
            client.post(app.url("/v1/chat/completions")).json(&body).send()
        };
        let mut survivor = post(&staged.gated(), true).await.unwrap();
        let mut said = String::new();
        while !said.contains("before") {
            said.push_str(std::str::from_utf8(&survivor.chunk().await.unwrap().unwrap()).unwrap());
        }

        let call = |number: usize| post("fake:hang", number.is_multiple_of(2));
        cancelled_at_once((0..CALLS).map(call)).await;
        let mut calls: FuturesUnordered<_> = (0..CALLS).map(call).collect();
        for _ in 0..ANSWERED {
            let answer = calls.next().await.unwrap().unwrap();
            assert_eq!(answer.status(), 429);
            assert_eq!(answer.headers()["retry-after"], "1");
        }
        drop(calls);

        staged.let_go_on(1);
        while let Some(chunk) = survivor.chunk().await.unwrap() {
            said.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let (chunks, done) = chunks(&said);
        assert!(done, "{said}");
        assert_eq!(folded(&chunks).text, GATED_ANSWER);
        settled(app).await;
    })
    .await;
}
