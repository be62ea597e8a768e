//! A worker dies or no longer answers: a clear error for each of its turns, and the next ones work.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;

use super::{Begun, begin, signal_all, twenty, twenty_work, warm, within, workers};
use crate::{
    eventually,
    support::{Codex, SOON, TestApp, ask, grpc::kind, http::body},
};

/// The next turns after the errors.
pub const NEXT: Duration = Duration::from_secs(2);

async fn all_lost(begun: Vec<Begun>) {
    for reason in join_all(begun.into_iter().map(Begun::error)).await {
        assert_eq!(reason, "WORKER_LOST");
    }
}

async fn twenty_lose_their_worker(codex: Codex, signal: Signal, noticed: Duration) {
    let app = warm(codex, &[]).await;
    let before = workers(&app);
    let begun = twenty(&app, codex).await;
    signal_all(&app, signal);
    within(noticed, "twenty errors", all_lost(begun)).await;
    within(NEXT, "the next twenty turns", twenty_work(&app, codex)).await;
    eventually!("the lost worker is gone", workers(&app).iter().all(|pid| !before.contains(pid)));
    assert_eq!(workers(&app).len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn killed_in_the_middle_of_twenty_streams() {
    twenty_lose_their_worker(Codex::Fake, Signal::KILL, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn the_real_cli_killed_in_the_middle_of_twenty_streams() {
    twenty_lose_their_worker(Codex::Real, Signal::KILL, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn stopped_in_the_middle_of_twenty_streams() {
    twenty_lose_their_worker(Codex::Fake, Signal::STOP, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_real_cli_stopped_in_the_middle_of_twenty_streams() {
    twenty_lose_their_worker(Codex::Real, Signal::STOP, Duration::from_secs(5)).await;
}

/// One turn does something to the worker; the twenty beside it are told, and the next twenty work.
async fn one_takes_all_with_it(settings: &[(&str, &str)], culprit: &str, noticed: Duration) {
    let app = warm(Codex::Fake, settings).await;
    let before = workers(&app);
    let begun = twenty(&app, Codex::Fake).await;
    let mut grpc = app.grpc().await;
    let own = async {
        let status = grpc.chat(ask(culprit, "hi")).await.unwrap_err();
        assert_eq!(kind(&status).1, "WORKER_LOST", "{status}");
        status
    };
    let ((), status) = within(noticed, culprit, async { tokio::join!(all_lost(begun), own) }).await;
    assert!(status.message().contains("try again"), "{status}");
    let silent = status.message().contains("gone: it no longer answered; ");
    assert!(silent || culprit != "fake:stop", "{status}");
    within(NEXT, "the next twenty turns", twenty_work(&app, Codex::Fake)).await;
    eventually!("the lost worker is gone", workers(&app).iter().all(|pid| !before.contains(pid)));
    app.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_takes_its_turns_with_it() {
    for culprit in ["fake:die", "fake:crash", "fake:exit0"] {
        one_takes_all_with_it(&[], culprit, Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_worker_that_stops_itself() {
    one_takes_all_with_it(&[], "fake:stop", Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_line_of_twenty_megabytes() {
    one_takes_all_with_it(&[], "fake:longline:20000000", Duration::from_secs(15)).await;
}

#[tokio::test]
async fn a_worker_that_no_longer_reads() {
    one_takes_all_with_it(&[], "fake:close-stdin", Duration::from_secs(15)).await;
}

#[tokio::test]
async fn a_worker_that_never_answers_a_call() {
    // All at once, each on a server of its own: each waits for the time limit of one call.
    let each = ["fake:mute-start", "fake:mute-inject", "fake:mute-turn"];
    join_all(each.map(async |culprit| {
        let app = warm(Codex::Fake, &[]).await;
        let neighbour = begin(&app, 0, ("fake:stream:100000:20", "hi")).await;
        let (code, error) = within(SOON, culprit, app.refused(&body(culprit, "hi"))).await;
        assert_eq!((code, error["code"].as_str()), (502, Some("worker_lost")), "{error}");
        assert_eq!(neighbour.error().await, "WORKER_LOST");
        within(NEXT, "the next turns", twenty_work(&app, Codex::Fake)).await;
        app.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn a_worker_that_does_not_obey_an_interrupt_is_replaced() {
    let app = warm(Codex::Fake, &[]).await;
    let before = workers(&app);
    let mut grpc = app.grpc().await;
    let call = tokio::spawn(async move { grpc.chat(ask("fake:deaf", "hi")).await });
    eventually!("it runs", app.status().await.running_turns == 1);
    let neighbour = begin(&app, 0, ("fake:stream:100000:20", "hi")).await;
    call.abort();
    assert_eq!(neighbour.error().await, "WORKER_LOST");
    eventually!("its slot is free", app.status().await.running_turns == 0);
    within(NEXT, "the next turns", twenty_work(&app, Codex::Fake)).await;
    eventually!("the deaf worker is gone", workers(&app).iter().all(|pid| !before.contains(pid)));
    app.stop().await;
}

#[tokio::test]
async fn garbage_between_the_lines_harms_nobody() {
    let app = warm(Codex::Fake, &[]).await;
    let before = workers(&app);
    let begun = twenty(&app, Codex::Fake).await;
    assert_eq!(app.chat(ask("fake:garbage", "hi")).await, "the answer among garbage");
    assert_eq!(app.chat(ask("fake:badutf8", "hi")).await, "the answer after bad bytes");
    assert_eq!(app.chat(ask("fake:stderr:1000000", "hi")).await, "the answer beside much chatter");
    twenty_work(&app, Codex::Fake).await;
    assert_eq!(workers(&app), before, "the worker is the same");
    drop(begun);
    eventually!("all is quiet", app.status().await.running_turns == 0);
    app.stop().await;
}

#[tokio::test]
async fn a_worker_that_works_hard_is_not_taken_for_dead() {
    let app: TestApp = warm(Codex::Fake, &[("CODEX_MAX_CONCURRENCY", "64")]).await;
    let before = workers(&app);
    // Megabytes as fast as they are read, and calls enough that the sign of life has to wait for none of them.
    let floods = join_all((0..12).map(async |_| {
        let answer = app.complete(&body("fake:flood:3000000", "hi")).await;
        assert_eq!(answer["choices"][0]["message"]["content"].as_str().map(str::len), Some(3_000_000));
    }));
    tokio::join!(floods, twenty_work(&app, Codex::Fake));
    assert_eq!(workers(&app), before);
    app.stop().await;
}

#[tokio::test]
async fn another_worker_is_there_while_one_is_lost() {
    let app = warm(Codex::Fake, &[("CODEX_WORKERS", "2")]).await;
    eventually!("both are there", workers(&app).len() == 2);
    let stopped = workers(&app)[0];
    rustix::process::kill_process(stopped, Signal::STOP).unwrap();
    // Turns that reach the stopped one before it is found out are started again on the other one.
    within(Duration::from_secs(5), "twenty turns", twenty_work(&app, Codex::Fake)).await;
    eventually!("it is replaced", !workers(&app).contains(&stopped) && workers(&app).len() == 2);
    app.stop().await;
}
