//! The real CLI behind a relay (`tests/saboteur`) that fails during twenty streams. Each of the streams gets a clear
//! error, the streams of the other worker continue, and the next turns succeed.

use std::{fs, io::Write, path::PathBuf, time::Duration};

use futures_util::future::join_all;
use tempfile::TempDir;

use super::{
    OpenStream, STREAMS, assert_twenty_turns_succeed, lost::RECOVERY_LIMIT, one_worker, open_stream, within,
};
use crate::{
    eventually,
    support::{Codex, TestApp, example, executable, with_app},
};

/// An endless turn, slow enough that forty of them do not use the whole machine.
const ENDLESS: (&str, &str) = ("gpt-5.5", r#"@@{"tokens":100000,"delay_ms":100}@@"#);

/// Time until the pool kills an unresponsive worker. A silent worker is detected after six seconds, a worker with output
/// but without replies after nine. A closed pipe is detected in the same way, because the supervisor process holds the
/// same ends open.
const DETECTION_LIMIT: Duration = Duration::from_secs(15);

/// The reason in the error of an unresponsive worker.
const KILLED_REASON: &str = "it did not answer";

/// The pool kills a worker that breaks the protocol immediately.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(2);

/// Two workers behind the saboteur.
struct Sabotaged<'a> {
    app: &'a TestApp,
    folder: &'a TempDir,
    workers: [u32; 2],
    /// Open streams by their worker.
    streams: [Vec<OpenStream>; 2],
}

/// Runs a scenario with at least twenty streams on each of two sabotaged workers.
async fn with_sabotage(scenario: impl AsyncFnOnce(Sabotaged<'_>)) {
    let folder = tempfile::Builder::new().prefix("codex-api-sabotage-").tempdir().unwrap();
    let config = one_worker(Codex::Real)
        .workers(2)
        .codex_bin(example("saboteur"))
        .env("SABOTEUR_CODEX", executable(Codex::Real))
        .env("SABOTEUR_FOLDER", folder.path());
    with_app(config, async |app| scenario(Sabotaged::new(app, &folder).await).await).await;
}

impl<'a> Sabotaged<'a> {
    /// Opens at least twenty streams on each worker.
    async fn new(app: &'a TestApp, folder: &'a TempDir) -> Self {
        eventually!("both workers run", started_workers(folder).len() == 2);
        let workers = <[u32; 2]>::try_from(started_workers(folder)).unwrap();
        let mut sabotaged = Self { app, folder, workers, streams: [Vec::new(), Vec::new()] };
        while sabotaged.streams.iter().any(|streams| streams.len() < STREAMS) {
            sabotaged.open_stream().await;
        }
        sabotaged
    }

    /// Opens one more stream.
    async fn open_stream(&mut self) {
        let before = self.turn_counts();
        let number = self.streams.iter().map(Vec::len).sum();
        let stream = open_stream(self.app, number, ENDLESS).await;
        let worker = self.turn_counts().iter().zip(&before).position(|(now, before)| now > before);
        self.streams[worker.expect("one of the workers has the turn")].push(stream);
    }

    /// Returns the number of turns of each worker.
    fn turn_counts(&self) -> [u64; 2] {
        self.workers.map(|pid| fs::metadata(self.file(pid, "turns")).unwrap().len())
    }

    fn file(&self, pid: u32, extension: &str) -> PathBuf {
        self.folder.path().join(format!("{pid}.{extension}"))
    }

    /// Sends an order to the saboteur of the first worker.
    fn sabotage_first_worker(&self, order: &str) {
        let mut orders =
            fs::OpenOptions::new().write(true).open(self.file(self.workers[0], "orders")).unwrap();
        writeln!(orders, "{order}").unwrap();
    }

    /// Asserts that the other worker's streams continue and the next turns succeed.
    async fn assert_others_continue(self) {
        let Self { app, streams: [first, mut second], .. } = self;
        join_all(second.iter_mut().map(OpenStream::read_more_text_in_time)).await;
        within(RECOVERY_LIMIT, "the next twenty turns", assert_twenty_turns_succeed(app, Codex::Real)).await;
        drop((first, second));
        eventually!("no turn runs", app.status().await.running_turns == 0);
        app.stop().await;
    }
}

/// Returns the process ids of all started workers.
fn started_workers(folder: &TempDir) -> Vec<u32> {
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.iter().filter_map(|name| name.strip_suffix(".turns")?.parse().ok()).collect()
}

/// Asserts that the first worker's streams end with an error that has the remedy.
async fn assert_first_worker_is_lost(order: &str, limit: Duration, cause: &str) {
    with_sabotage(async |mut all| {
        all.sabotage_first_worker(order);
        let lost = join_all(std::mem::take(&mut all.streams[0]).into_iter().map(OpenStream::failure));
        for (reason, message) in within(limit, "twenty errors", lost).await {
            assert_eq!(reason, "FAILED_AFTER_EFFECTS");
            assert!(message.contains(cause) && message.contains("look before you repeat"), "{message}");
        }
        let pid = all.workers[0];
        eventually!(
            "the worker has exited",
            !all.app.processes().iter().any(|line| line.starts_with(&format!("{pid}: ")))
        );
        all.assert_others_continue().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_writing_a_line_of_20_mb_is_replaced() {
    assert_first_worker_is_lost("long", IMMEDIATE_LIMIT, "a line of more than").await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_with_closed_stdout_is_replaced() {
    assert_first_worker_is_lost("close-stdout", DETECTION_LIMIT, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_with_closed_stdin_is_replaced() {
    assert_first_worker_is_lost("close-stdin", DETECTION_LIMIT, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn silent_worker_is_replaced() {
    assert_first_worker_is_lost("mute", DETECTION_LIMIT, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_without_replies_is_replaced() {
    assert_first_worker_is_lost("deaf", DETECTION_LIMIT, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_writing_only_garbage_is_replaced() {
    assert_first_worker_is_lost("nonsense", DETECTION_LIMIT, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn garbage_between_lines_leaves_the_turns_intact() {
    with_sabotage(async |mut all| {
        let before = all.turn_counts();
        all.sabotage_first_worker("garbage");
        join_all(all.streams[0].iter_mut().map(OpenStream::read_more_text_in_time)).await;
        within(RECOVERY_LIMIT, "the next twenty turns", assert_twenty_turns_succeed(all.app, Codex::Real))
            .await;
        assert!(all.turn_counts()[0] > before[0], "some turns ran on the first worker");
        assert_eq!(started_workers(all.folder).len(), 2, "no worker was replaced");
        all.assert_others_continue().await;
    })
    .await;
}
