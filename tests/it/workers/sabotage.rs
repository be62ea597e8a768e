//! The real CLI behind a relay that goes wrong in the middle of twenty streams: a clear error for each of them, the
//! other worker's go on, and the next turns work. `tests/saboteur` is the relay.

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

/// Slow enough that forty of them leave the machine some time for the rest.
const ENDLESS: (&str, &str) = ("gpt-5.5", r#"@@{"tokens":100000,"delay_ms":100}@@"#);

/// Silence is noticed after six seconds, and one that talks but does not answer after nine. So is a closed pipe: the
/// containment process holds the same ends.
const NOTICED: Duration = Duration::from_secs(15);

/// The reason in the error of such a worker.
const KILLED_REASON: &str = "it did not answer";

/// The pool kills a worker that breaks the protocol immediately.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Two workers behind the saboteur.
struct Sabotaged<'a> {
    app: &'a TestApp,
    folder: &'a TempDir,
    workers: [u32; 2],
    /// Open streams by their worker.
    begun: [Vec<OpenStream>; 2],
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
        eventually!("both workers are there", started(folder).len() == 2);
        let workers = <[u32; 2]>::try_from(started(folder)).unwrap();
        let mut new = Self { app, folder, workers, begun: [Vec::new(), Vec::new()] };
        while new.begun.iter().any(|begun| begun.len() < STREAMS) {
            new.open_stream().await;
        }
        new
    }

    /// Opens one more stream.
    async fn open_stream(&mut self) {
        let before = self.turns();
        let number = self.begun.iter().map(Vec::len).sum();
        let stream = open_stream(self.app, number, ENDLESS).await;
        let place = self.turns().iter().zip(&before).position(|(now, before)| now > before);
        self.begun[place.expect("one of the two has it")].push(stream);
    }

    /// Returns the number of turns of each worker.
    fn turns(&self) -> [u64; 2] {
        self.workers.map(|pid| fs::metadata(self.file(pid, "turns")).unwrap().len())
    }

    fn file(&self, pid: u32, what: &str) -> PathBuf {
        self.folder.path().join(format!("{pid}.{what}"))
    }

    /// Sends an order to the saboteur of the first worker.
    fn sabotage_first_worker(&self, order: &str) {
        let mut orders =
            fs::OpenOptions::new().write(true).open(self.file(self.workers[0], "orders")).unwrap();
        writeln!(orders, "{order}").unwrap();
    }

    /// Asserts that the other worker's streams continue and the next turns succeed.
    async fn read_more_text_in_time(self) {
        let Self { app, begun: [first, mut second], .. } = self;
        join_all(second.iter_mut().map(OpenStream::read_more_text_in_time)).await;
        within(RECOVERY_LIMIT, "the next twenty turns", assert_twenty_turns_succeed(app, Codex::Real)).await;
        drop((first, second));
        eventually!("all is quiet", app.status().await.running_turns == 0);
        app.stop().await;
    }
}

/// Returns the process ids of all workers so far.
fn started(folder: &TempDir) -> Vec<u32> {
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.iter().filter_map(|name| name.strip_suffix(".turns")?.parse().ok()).collect()
}

/// Asserts that the first worker's streams end with an error that has the remedy.
async fn assert_first_worker_is_lost(order: &str, noticed: Duration, why: &str) {
    with_sabotage(async |mut all| {
        all.sabotage_first_worker(order);
        let lost = join_all(std::mem::take(&mut all.begun[0]).into_iter().map(OpenStream::failure));
        for (reason, words) in within(noticed, "twenty errors", lost).await {
            assert_eq!(reason, "WORKER_LOST");
            assert!(words.contains(why) && words.contains("try again"), "{words}");
        }
        let pid = all.workers[0];
        eventually!(
            "it is gone",
            !all.app.processes().iter().any(|line| line.starts_with(&format!("{pid}: ")))
        );
        all.read_more_text_in_time().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_writing_a_line_of_20_mb_is_replaced() {
    assert_first_worker_is_lost("long", AT_ONCE, "a line of more than").await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_with_closed_stdout_is_replaced() {
    assert_first_worker_is_lost("close-stdout", NOTICED, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_with_closed_stdin_is_replaced() {
    assert_first_worker_is_lost("close-stdin", NOTICED, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn silent_worker_is_replaced() {
    assert_first_worker_is_lost("mute", NOTICED, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_without_replies_is_replaced() {
    assert_first_worker_is_lost("deaf", NOTICED, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_writing_only_garbage_is_replaced() {
    assert_first_worker_is_lost("nonsense", NOTICED, KILLED_REASON).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn garbage_between_lines_leaves_the_turns_intact() {
    with_sabotage(async |mut all| {
        let before = all.turns();
        all.sabotage_first_worker("garbage");
        join_all(all.begun[0].iter_mut().map(OpenStream::read_more_text_in_time)).await;
        within(RECOVERY_LIMIT, "the next twenty turns", assert_twenty_turns_succeed(all.app, Codex::Real))
            .await;
        assert!(all.turns()[0] > before[0], "some of them on the same worker");
        assert_eq!(started(all.folder).len(), 2, "no worker was replaced");
        all.read_more_text_in_time().await;
    })
    .await;
}
