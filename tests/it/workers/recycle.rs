//! The pool replaces workers past their limit of turns, age or memory.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;

use super::{assert_twenty_turns_succeed, one_worker, open_stream, short_turn, within, worker_home, workers};
use crate::{
    eventually,
    support::{Codex, TIMEOUT, chat_request, http::body, with_app},
};

/// Sends turns in sequence from several clients while the pool replaces workers.
async fn assert_recycling_loses_no_turn(codex: Codex, clients: usize, at_least: usize) {
    with_app(one_worker(codex).workers(2).env("CODEX_WORKER_MAX_TURNS", "5"), async |app| {
        let (model, text) = short_turn(codex);
        // A turn that is longer than the life time of its worker.
        let long = match codex {
            Codex::Fake => ("fake:stream:150:20", "hi"),
            Codex::Real => ("gpt-5.5", r#"@@{"tokens":150,"delay_ms":20}@@"#),
        };
        let mut grpc = app.grpc().await;
        let long = async move {
            let answer = grpc.chat(chat_request(long.0, long.1)).await.unwrap().into_inner();
            assert!(!answer.choices[0].text.is_empty());
        };
        let (app_, observed) = (app, std::sync::Mutex::new(BTreeSet::new()));
        let many = join_all((0..clients).map(async |_| {
            loop {
                let answer = app_.complete(&body(model, text)).await;
                assert_eq!(answer["choices"][0]["message"]["content"], "01234", "{answer}");
                let mut observed = observed.lock().unwrap();
                observed.extend(workers(app_).iter().map(|pid| pid.as_raw_nonzero()));
                if observed.len() >= at_least {
                    break;
                }
            }
        }));
        within(TIMEOUT, "turns during the replacements", Box::pin(async { tokio::join!(long, many) })).await;
        eventually!("the retired workers have exited", workers(app).len() == 2);
    })
    .await;
}

#[tokio::test]
async fn worker_of_the_fake_past_its_turn_limit_is_replaced_without_losing_turns() {
    assert_recycling_loses_no_turn(Codex::Fake, 8, 8).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_of_the_real_cli_past_its_turn_limit_is_replaced_without_losing_turns() {
    assert_recycling_loses_no_turn(Codex::Real, 4, 6).await;
}

#[tokio::test]
async fn worker_past_its_age_limit_finishes_its_turns_and_removes_its_home() {
    with_app(one_worker(Codex::Fake).env("CODEX_WORKER_MAX_SECONDS", "2"), async |app| {
        let old = workers(app)[0];
        let home = worker_home(old);
        assert!(home.is_dir());
        let running = open_stream(app, 1, ("fake:stream:100000:20", "hi")).await;
        eventually!("a new worker runs", workers(app).len() >= 2);
        assert_twenty_turns_succeed(app, Codex::Fake).await;
        assert!(workers(app).contains(&old), "the old worker finishes its turn");
        drop(running);
        eventually!("the old worker has exited", !workers(app).contains(&old));
        eventually!("its home is removed", !home.exists());
    })
    .await;
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn worker_past_its_memory_limit_is_replaced() {
    with_app(one_worker(Codex::Fake).env("CODEX_WORKER_MAX_MEMORY_MB", "100"), async |app| {
        let old = workers(app);
        app.chat(chat_request("fake:memory:150", "hi")).await;
        eventually!("the worker is replaced", workers(app).iter().all(|pid| !old.contains(pid)));
        within(Duration::from_secs(2), "the next turns", assert_twenty_turns_succeed(app, Codex::Fake)).await;
    })
    .await;
}
