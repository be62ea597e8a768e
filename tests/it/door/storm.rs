//! Many calls, opened and cancelled together on one connection.

use std::time::Duration;

use codex_api::pb::chat_event::Event;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TIMEOUT, TestApp, chat_request,
        grpc::{answers, code_and_reason, collect_events},
        http::{answer_of_chunks, body, chunks, streamed},
        staged::{GATED_ANSWER, GatedCodex},
        with_app,
    },
};

const CALLS: usize = 1_000;

/// The number of answered calls before all are cancelled. At that time some calls have ended, some run, some wait, and
/// some have not reached the server.
const ANSWERED: usize = 100;

/// Configures a server where three calls run beside the survivor, eight wait, and the rest are refused.
fn config(engine: Engine, staged: &GatedCodex) -> AppConfig {
    AppConfig::fake(engine).max_concurrency(4).max_queue(8).codex_bin(staged.bin())
}

/// Sends calls and drops each after a millisecond; the client resets many before the server has accepted them.
async fn cancel_within_a_millisecond(
    calls: impl Iterator<Item = impl Future<Output: Send> + Send + 'static>,
) {
    let calls: JoinSet<_> = calls.map(|call| timeout(Duration::from_millis(1), call)).collect();
    timeout(TIMEOUT, calls.join_all()).await.unwrap();
}

async fn assert_nothing_is_left(app: &TestApp) {
    eventually!("no turn is left", {
        let status = app.status().await;
        status.running_turns + status.waiting_turns == 0
    });
    eventually!("no process is left", app.turn_processes().is_empty());
    assert_eq!(app.chat(chat_request("fake:echo", "again")).await, app.echo("again"));
}

both_engines!(cancelled_grpc_calls_leave_other_streams_intact);
async fn cancelled_grpc_calls_leave_other_streams_intact(engine: Engine) {
    let mut staged = GatedCodex::new(engine);
    with_app(config(engine, &staged), async |app| {
        let client = app.grpc().await;
        let mut survivor =
            client.clone().stream_chat(chat_request(&staged.gated_model(), "x")).await.unwrap().into_inner();
        while !matches!(survivor.message().await.unwrap().unwrap().event.unwrap(), Event::TextDelta(_)) {}

        let call = |number: usize| {
            let mut client = client.clone();
            async move {
                match number % 2 {
                    0 => client.stream_chat(chat_request("fake:hang", "x")).await.map(drop),
                    _ => client.chat(chat_request("fake:hang", "x")).await.map(drop),
                }
            }
        };
        cancel_within_a_millisecond((0..CALLS).map(call)).await;
        let mut calls: FuturesUnordered<_> = (0..CALLS).map(call).collect();
        let mut refused = 0;
        while refused < ANSWERED {
            // The future drops a started stream, so that another call gets its slot.
            if let Err(status) = calls.next().await.unwrap() {
                assert_eq!(
                    code_and_reason(&status),
                    (Code::ResourceExhausted, "OVERLOADED".into()),
                    "{status:?}"
                );
                refused += 1;
            }
        }
        drop(calls);

        staged.open_gate(1);
        let rest = collect_events(survivor).await.unwrap();
        assert_eq!(answers(&rest)[0].0, "\n\nafter");
        // The connection still serves calls.
        let response = client.clone().chat(chat_request("fake:echo", "same connection")).await.unwrap();
        assert_eq!(response.into_inner().choices[0].text, engine.echo("same connection"));
        assert_nothing_is_left(app).await;
    })
    .await;
}

both_engines!(cancelled_http_calls_leave_other_streams_intact);
async fn cancelled_http_calls_leave_other_streams_intact(engine: Engine) {
    let mut staged = GatedCodex::new(engine);
    with_app(config(engine, &staged), async |app| {
        let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let post = |model: &str, stream: bool| {
            let body = body(model, "x");
            let body = if stream { streamed(body) } else { body };
            client.post(app.url("/v1/chat/completions")).json(&body).send()
        };
        let mut survivor = post(&staged.gated_model(), true).await.unwrap();
        let mut received = String::new();
        while !received.contains("before") {
            received.push_str(std::str::from_utf8(&survivor.chunk().await.unwrap().unwrap()).unwrap());
        }

        let call = |number: usize| post("fake:hang", number.is_multiple_of(2));
        cancel_within_a_millisecond((0..CALLS).map(call)).await;
        let mut calls: FuturesUnordered<_> = (0..CALLS).map(call).collect();
        let (mut refused, mut held) = (0, Vec::new());
        while refused < ANSWERED {
            let answer = calls.next().await.unwrap().unwrap();
            if answer.status() == 200 {
                // A stream that runs or waits for its slot. Dropping it would let another call in.
                held.push(answer);
                continue;
            }
            assert_eq!(answer.status(), 429);
            // Up to 9 turns are before this one, and few turns were measured.
            let delay: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=23).contains(&delay), "{delay}");
            refused += 1;
        }
        // Three calls run beside the survivor, and eight wait.
        assert!(held.len() <= 11, "{}", held.len());
        drop((calls, held));

        staged.open_gate(1);
        while let Some(chunk) = survivor.chunk().await.unwrap() {
            received.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let (chunks, done) = chunks(&received);
        assert!(done, "{received}");
        assert_eq!(answer_of_chunks(&chunks).text, GATED_ANSWER);
        assert_nothing_is_left(app).await;
    })
    .await;
}
