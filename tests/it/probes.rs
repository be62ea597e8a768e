//! A CLI that never answers its probe.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use codex_api::pb;
use tonic::Code;

use crate::{
    both_engines,
    support::{
        AppConfig, Codex, Engine, chat_request, executable, grpc::code_and_reason, http::body, with_app,
    },
};

/// Maximum time of an answer that must not wait for the CLI, which gets 20 s. A status waits for 150 ms, a list for 1 s; the
/// rest is for busy machines.
const SOON: Duration = Duration::from_secs(3);

/// Writes a program that hangs on one command of the CLI, and is the fake otherwise.
fn hanging_cli(folder: &Path, command: &str) -> PathBuf {
    let program = folder.join("codex");
    let fake = executable(Codex::Fake);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *'{command}'*) exec sleep 600;; esac\nexec '{}' \"$@\"\n",
        fake.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

async fn soon<T>(what: &str, answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, answer).await.unwrap_or_else(|_| panic!("{what} waits for the CLI"))
}

async fn requests_end_at_their_deadline(engine: Engine, command: &str) {
    let folder = tempfile::tempdir().unwrap();
    let config = AppConfig::fake(engine).codex_bin(hanging_cli(folder.path(), command));
    with_app(config, async |app| {
        let status = soon("the status", app.status()).await;
        assert!(!status.ready && status.reason.contains("being probed"), "{status:?}");
        let health = soon("the health", reqwest::get(app.url("/healthz"))).await.unwrap();
        assert_eq!(health.status(), 503);
        let request = reqwest::Client::new()
            .post(app.url("/v1/chat/completions"))
            .header("x-codex-timeout-seconds", "1")
            .json(&body("fake:text", "hi"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 504, "{}", response.text().await.unwrap());
        let timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let request = pb::ChatRequest { timeout, ..chat_request("fake:text", "hi") };
        let error = app.grpc_error(request).await;
        assert_eq!(code_and_reason(&error), (Code::DeadlineExceeded, "TIMEOUT".into()));
        let list = soon("the list", reqwest::get(app.url("/v1/models"))).await.unwrap();
        assert!(list.status().is_success());
    })
    .await;
}

#[tokio::test]
async fn exec_with_a_hanging_version_answers_at_the_deadline() {
    requests_end_at_their_deadline(Engine::Exec, "--version").await;
}

#[tokio::test]
async fn app_server_with_a_hanging_version_answers_at_the_deadline() {
    requests_end_at_their_deadline(Engine::AppServer, "--version").await;
}

#[tokio::test]
async fn app_server_that_never_answers_initialize_answers_at_the_deadline() {
    requests_end_at_their_deadline(Engine::AppServer, "app-server").await;
}

#[tokio::test]
async fn app_server_whose_catalog_hangs_answers_at_the_deadline() {
    requests_end_at_their_deadline(Engine::AppServer, "debug models").await;
}

#[tokio::test]
async fn exec_whose_catalog_hangs_still_runs_turns() {
    let folder = tempfile::tempdir().unwrap();
    let config = AppConfig::fake(Engine::Exec).codex_bin(hanging_cli(folder.path(), "debug models"));
    with_app(config, async |app| {
        assert!(soon("the status", app.status()).await.ready);
        let list = soon("the list", reqwest::get(app.url("/v1/models"))).await.unwrap();
        assert!(list.status().is_success());
        let answer = app.complete(&body("fake:text:5", "hi")).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "01234");
    })
    .await;
}

both_engines!(cli_replaced_by_one_that_hangs_delays_no_status);
async fn cli_replaced_by_one_that_hangs_delays_no_status(engine: Engine) {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = hanging_cli(folder.path(), "no such command");
    with_app(AppConfig::fake(engine).codex_bin(program.clone()), async |app| {
        assert!(app.status().await.ready);
        fs::rename(hanging_cli(other.path(), "--version"), &program).unwrap();
        for _ in 0..3 {
            // The last known state.
            assert!(soon("the status", app.status()).await.ready);
            let health = soon("the health", reqwest::get(app.url("/healthz"))).await.unwrap();
            assert_eq!(health.status(), 200);
        }
        let request = reqwest::Client::new()
            .post(app.url("/v1/chat/completions"))
            .header("x-codex-timeout-seconds", "1")
            .json(&body("fake:echo", "hi"));
        let response = soon("the request", request.send()).await.unwrap();
        let expected = match engine {
            Engine::Exec => 504,
            // The workers of the former program still run.
            Engine::AppServer => 200,
        };
        assert_eq!(response.status(), expected, "{}", response.text().await.unwrap());
    })
    .await;
}
