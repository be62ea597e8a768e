//! Workers that fail to start, and a CLI that is replaced under a running server.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use super::{
    assert_twenty_turns_succeed, endless_turn, health, one_worker, open_stream, signal_workers, within,
    workers,
};
use crate::{
    eventually,
    support::{AppConfig, Codex, Engine, TestApp, chat_request, executable, http::body, with_app},
};

/// A codex that a test replaces or removes.
pub(super) struct ReplaceableCodex(TempDir, Codex);

impl ReplaceableCodex {
    pub(super) fn new() -> Self {
        Self::wrapping(Codex::Fake)
    }

    /// Creates a script that runs the fake or the real codex.
    fn wrapping(codex: Codex) -> Self {
        let new = Self(tempfile::tempdir().unwrap(), codex);
        new.install("");
        new
    }

    pub(super) fn remove(&self) {
        fs::remove_file(self.bin()).unwrap();
    }

    pub(super) fn bin(&self) -> String {
        self.0.path().join("codex").display().to_string()
    }

    /// Installs a codex that first runs these shell commands. Each start of an app-server adds a line to `starts`.
    pub(super) fn install(&self, before: &str) {
        let codex = executable(self.1);
        let (starts, new) = (self.0.path().join("starts"), self.0.path().join("new"));
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *app-server*) echo x >> '{}';; esac\n{before}\nexec '{}' \"$@\"\n",
            starts.display(),
            codex.display()
        );
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, self.bin()).unwrap();
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.0.path().join("starts")).map_or(0, |lines| lines.lines().count())
    }
}

/// A drain interrupts turns before it stops their workers, so that Codex stops their commands.
#[tokio::test]
async fn turns_cancelled_by_a_drain_are_interrupted() {
    let codex = ReplaceableCodex::new();
    let log = codex.0.path().join("requests");
    codex.install(&format!(
        r#"case "$*" in *app-server*) tee -a '{}' | '{}' "$@"; exit ;; esac"#,
        log.display(),
        executable(Codex::Fake).display()
    ));
    with_app(one_worker(Codex::Fake).codex_bin(codex.bin()).drain_seconds(0.0), async |app| {
        let turns = [
            open_stream(app, 0, endless_turn(Codex::Fake)).await,
            open_stream(app, 1, endless_turn(Codex::Fake)).await,
        ];
        let interrupts = || fs::read_to_string(&log).unwrap().matches("turn/interrupt").count();
        let before = interrupts();
        app.begin_drain();
        for turn in turns {
            assert_eq!(turn.error_reason().await, "SHUTTING_DOWN");
        }
        app.wait_until_stopped().await;
        assert!(interrupts() >= before + 2, "{}", interrupts());
    })
    .await;
}

pub(super) async fn is_unhealthy(app: &TestApp) -> bool {
    health(app).await.0 == 503
}

/// What callers see of a worker that exits at its start.
const EXITED: &str = "the app-server exited at its start; `codex-api doctor` and the log have its output";

#[tokio::test]
async fn worker_failing_to_start_is_reported_and_retried() {
    for mode in ["dies", "garbage"] {
        let codex = ReplaceableCodex::new();
        with_app(one_worker(Codex::Fake).codex_bin(codex.bin()), async |app| {
            assert_twenty_turns_succeed(app, Codex::Fake).await;
            assert_eq!(health(app).await.0, 200);
            codex.install(&format!("export FAKE_CODEX_APP_SERVER={mode}"));
            let (before, began) = (codex.starts(), Instant::now());
            signal_workers(app, Signal::KILL);
            eventually!("health reports the failure", is_unhealthy(app).await);
            if mode == "dies" {
                eventually!("health reports the cause", health(app).await.1.to_string().contains(EXITED));
                let (code, error) = app.http_error(&body("fake:text:5", "hi")).await;
                assert_eq!((code, error["code"].as_str()), (503, Some("engine_unavailable")), "{error}");
                assert!(error["message"].as_str().unwrap().contains(EXITED), "{error}");
                // Its output is for the operator.
                assert!(!error.to_string().contains("ends the process"), "{error}");
                // The delays between the attempts are 250 ms, 500 ms, 1 s, …
                eventually!("the start is retried", codex.starts() - before >= 4);
                assert!(began.elapsed().as_millis() >= 1750, "{:?}", began.elapsed());
            }
            codex.install("");
            eventually!("health recovers", health(app).await.0 == 200);
            assert_twenty_turns_succeed(app, Codex::Fake).await;
        })
        .await;
    }
}

#[tokio::test]
async fn worker_failing_its_handshake_is_killed() {
    let codex = ReplaceableCodex::new();
    with_app(
        one_worker(Codex::Fake).codex_bin(codex.bin()).env("CODEX_SUBPROCESS_STREAM_LIMIT", "100000"),
        async |app| {
            let before = codex.starts();
            // One line beyond the limit, and then no reply.
            codex.install(
                r#"case "$*" in
        *app-server*) echo 'no further output' >&2; head -c 120000 /dev/zero | tr '\0' x; exec sleep 120 ;;
        esac"#,
            );
            signal_workers(app, Signal::KILL);
            eventually!("health reports the cause", health(app).await.1.to_string().contains(EXITED));
            eventually!("the start is retried", codex.starts() - before >= 2);
            codex.install("");
            eventually!("health recovers", health(app).await.0 == 200);
            assert_twenty_turns_succeed(app, Codex::Fake).await;
        },
    )
    .await;
}

#[tokio::test]
async fn start_failure_reports_a_fixed_sentence() {
    let codex = ReplaceableCodex::new();
    with_app(one_worker(Codex::Fake).codex_bin(codex.bin()), async |app| {
        let stderr = r"Error: the disk is full\n\nStack backtrace:\n   0: <unknown>\n   8: <unknown>\n";
        codex.install(&format!("case \"$*\" in *app-server*) printf '{stderr}' >&2; exit 1;; esac"));
        signal_workers(app, Signal::KILL);
        eventually!("health reports the cause", {
            let reason = health(app).await.1["reason"].to_string();
            assert!(!reason.contains("unknown") && !reason.contains("disk"), "{reason}");
            reason.contains(EXITED)
        });
        codex.install("");
        eventually!("health recovers", health(app).await.0 == 200);
    })
    .await;
}

#[tokio::test]
async fn unwritable_home_is_reported_by_health() {
    for config in [AppConfig::fake(Engine::AppServer).automatic_engine(), AppConfig::fake(Engine::Exec)] {
        with_app(config.env("CODEX_HOME", "/proc"), async |app| {
            let (status, report) = health(app).await;
            assert_eq!(status, 503, "{report}");
            let reason = report["reason"].as_str().unwrap();
            assert!(reason.contains("cannot write in its home") && !reason.contains("/proc"), "{report}");
        })
        .await;
    }
}

#[tokio::test]
async fn repeatedly_exiting_worker_is_replaced_with_back_off() {
    let codex = ReplaceableCodex::new();
    with_app(one_worker(Codex::Fake).codex_bin(codex.bin()), async |app| {
        let (before, began) = (codex.starts(), Instant::now());
        for _ in 0..4 {
            let (code, _) = app.http_error(&body("fake:crash", "hi")).await;
            assert_eq!(code, 502);
        }
        // The delays between four exits are 250 ms, 500 ms and 1 s.
        assert!(began.elapsed().as_millis() >= 1750, "{:?}", began.elapsed());
        assert!(codex.starts() - before <= 4);
        assert_twenty_turns_succeed(app, Codex::Fake).await;
    })
    .await;
}

#[tokio::test]
async fn changed_cli_is_probed_and_gets_its_own_catalog() {
    let codex = ReplaceableCodex::new();
    with_app(one_worker(Codex::Fake).codex_bin(codex.bin()), async |app| {
        assert_eq!(app.status().await.codex_version, "0.169.0");
        let first = catalog_of(app);

        codex.install("export FAKE_CODEX_VERSION=0.170.0");
        signal_workers(app, Signal::KILL);
        eventually!("the new version runs", app.status().await.codex_version == "0.170.0");
        assert_twenty_turns_succeed(app, Codex::Fake).await;
        assert_ne!(catalog_of(app), first, "the new CLI has its own catalog");

        // This version runs commands without an environment, so it is refused.
        codex.install("export FAKE_CODEX_VERSION=0.110.0");
        signal_workers(app, Signal::KILL);
        eventually!("the old version is refused", is_unhealthy(app).await);
        let (code, _) = app.http_error(&body("fake:text:5", "hi")).await;
        assert_eq!(code, 503);
        eventually!("no worker runs", workers(app).is_empty());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn worker_of_the_old_cli_keeps_its_catalog_after_a_change() {
    let codex = ReplaceableCodex::wrapping(Codex::Real);
    with_app(one_worker(Codex::Real).codex_bin(codex.bin()).workers(2).sandbox("workspace-write"), async |app| {
    // Each worker has a folder that contains the folders of its turns.
    let step =
        json!([{"calls": [{"name": "exec_command", "arguments": {"cmd": "dirname $TMPDIR >> folders"}}]}]);
    let prompt = format!("@@{step}@@");
    eventually!("both workers run turns", {
        join_all((0..2).map(|_| app.chat(chat_request("gpt-5.5", &prompt)))).await;
        let folders = fs::read_to_string(app.home.path().join("work/folders")).unwrap();
        folders.lines().collect::<BTreeSet<_>>().len() == 2
    });
    let before = codex.starts();
    // A catalog with an unknown format, and an app-server that does not start.
    codex.install(
        r#"case "$*" in
        "debug models") echo '{"models": [{"slug": "gpt-9", "unknown": "format"}]}'; exit ;;
        *app-server*) echo 'not yet' >&2; exit 1 ;;
        esac"#,
    );
    kill_process(workers(app)[0], Signal::KILL).unwrap();
    eventually!("the new CLI is started", codex.starts() > before);
    eventually!("one worker is left", workers(app).len() == 1);
    // The worker reads its catalogs at every `thread/start` and could not parse those of the new CLI.
    for model in ["gpt-5.5", "gpt-5.5:chat"] {
        assert_eq!(app.chat(chat_request(model, r#"@@{"text":"01234"}@@"#)).await, "01234");
    }
    }).await;
}

/// Returns the model list of the HTTP door.
async fn listed_models(app: &TestApp) -> String {
    reqwest::get(app.url("/v1/models")).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn model_list_follows_the_installed_cli() {
    let codex = ReplaceableCodex::new();
    with_app(one_worker(Codex::Fake).codex_bin(codex.bin()), async |app| {
        let first = listed_models(app).await;
        assert!(first.contains("gpt-6-sol") && !first.contains("gpt-9.9"), "{first}");
        codex.install(&format!(
            r#"case "$*" in "debug models") '{}' "$@" | sed 's/gpt-6-sol/gpt-9.9/g'; exit ;; esac"#,
            executable(Codex::Fake).display()
        ));
        eventually!("the new model list is served", listed_models(app).await.contains("gpt-9.9"));
    })
    .await;
}

#[tokio::test]
async fn model_list_with_a_mute_worker_is_answered_in_time() {
    let codex = ReplaceableCodex::new();
    with_app(one_worker(Codex::Fake).codex_bin(codex.bin()), async |app| {
        let before = codex.starts();
        codex.install("export FAKE_CODEX_APP_SERVER=mute");
        signal_workers(app, Signal::KILL);
        eventually!("the mute worker is started", codex.starts() > before);
        let many = join_all((0..5).map(|_| listed_models(app)));
        within(Duration::from_secs(9), "all five requests are answered", many).await;
    })
    .await;
}

/// Returns whether a command line is that of a worker. Its supervisor may outlive the catalog, so it is excluded.
fn is_worker(line: &str) -> bool {
    line.contains("model_catalog_json") && !line.contains(" supervise ")
}

/// Returns the catalog file of a running worker.
pub(super) fn catalog_of(app: &TestApp) -> std::path::PathBuf {
    let line = app.processes().into_iter().find(|line| is_worker(line)).unwrap();
    let rest = line.split("model_catalog_json=").nth(1).unwrap();
    let path = rest.split_whitespace().next().unwrap().trim_matches('"');
    assert!(Path::new(path).is_file(), "{line}");
    path.into()
}
