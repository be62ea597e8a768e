//! A CLI that never answers its probe.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use codex_api::pb;
use tonic::Code;

use crate::support::{
    AppConfig, Codex, Engine, chat_request, executable, grpc::code_and_reason, http::body, with_app,
};

/// Maximum time of an answer that must not wait for the probe, which gives up after 20 s.
const SOON: Duration = Duration::from_secs(8);

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

async fn requests_end_at_their_deadline(engine: Engine, command: &str) {
    let folder = tempfile::tempdir().unwrap();
    let config = AppConfig::fake(engine).codex_bin(hanging_cli(folder.path(), command));
    with_app(config, async |app| {
        let started = Instant::now();
        let status = app.status().await;
        assert!(!status.ready && status.reason.contains("being probed"), "{status:?}");
        let health = reqwest::get(app.url("/healthz")).await.unwrap();
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
        assert!(reqwest::get(app.url("/v1/models")).await.unwrap().status().is_success());
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
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
