//! A CLI that is installed, removed or replaced while the server runs. The server selects the engine again, and no turn
//! is lost.

use std::os::unix::fs::symlink;

use codex_api::pb;
use serde_json::{Value, json};

use super::{
    assert_twenty_turns_succeed, health, open_stream, signal_workers,
    start::{ReplaceableCodex, catalog_of},
    workers,
};
use crate::{
    eventually,
    support::{AppConfig, Codex, Engine, TestApp, chat_request, executable, http::body, with_app},
};
use rustix::process::Signal;

const OLD_VERSION: &str = "export FAKE_CODEX_VERSION=0.110.0";

/// Configures a server that selects its engine.
fn automatic(codex: Codex) -> AppConfig {
    AppConfig::new(codex, Engine::AppServer).automatic_engine().workers(1)
}

/// Returns the engine of a ready server.
async fn running_engine(app: &TestApp) -> Option<String> {
    let status = app.status().await;
    status.ready.then_some(status.engine)
}

async fn runs(app: &TestApp, engine: &str) -> bool {
    running_engine(app).await.as_deref() == Some(engine)
}

/// Builds a request with a client function.
fn with_tool(model: &str, text: &str) -> Value {
    let mut body = body(model, text);
    body["tools"] =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    body
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn cli_installed_later_is_used_by_the_best_engine() {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("codex");
    with_app(automatic(Codex::Real).codex_bin(bin.to_str().unwrap()), async |app| {
        let (status, report) = health(app).await;
        assert_eq!((status, report["engine"].as_str()), (503, Some("auto")), "{report}");
        let reason = report["reason"].as_str().unwrap();
        assert!(reason.contains("CODEX_BIN") && !reason.contains(bin.to_str().unwrap()), "{report}");
        // Without an engine, support for tools is unknown. The error is not a mistake of the client.
        let script = r#"@@[{"calls":[{"name":"f","arguments":{}}]},{"text":"done"}]@@"#;
        let (status, error) = app.http_error(&with_tool("gpt-5.5", script)).await;
        assert_eq!((status, &error["code"]), (503, &json!("engine_unavailable")), "{error}");

        symlink(executable(Codex::Real), &bin).unwrap();
        eventually!("the best engine runs", runs(app, "app-server").await);
        assert_eq!(app.status().await.max_running_turns, 32, "the default limit of the app-server engine");
        let answer = app.complete(&with_tool("gpt-5.5", script)).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{answer}");
        let models =
            app.grpc().await.list_models(pb::ListModelsRequest {}).await.unwrap().into_inner().models;
        assert!(models.len() > 3, "the models of the CLI are listed: {models:?}");
    })
    .await;
}

#[tokio::test]
async fn cli_upgrade_and_downgrade_select_the_engine_again() {
    let codex = ReplaceableCodex::new();
    codex.install(OLD_VERSION);
    with_app(automatic(Codex::Fake).codex_bin(codex.bin()), async |app| {
        assert_eq!(running_engine(app).await.as_deref(), Some("exec"));
        assert_eq!(app.status().await.max_running_turns, 2);
        assert_eq!(app.http_error(&with_tool("fake:tools", "x")).await.0, 400);

        codex.install("");
        eventually!("the better engine runs", runs(app, "app-server").await);
        assert_eq!(app.status().await.max_running_turns, 32);
        assert_twenty_turns_succeed(app, Codex::Fake).await;
        let answer = app.complete(&with_tool("fake:tools", "x")).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{answer}");

        // Running workers continue. A new worker would be of a CLI that runs commands without an environment, so none starts.
        codex.install(OLD_VERSION);
        assert_twenty_turns_succeed(app, Codex::Fake).await;
        assert_eq!(running_engine(app).await.as_deref(), Some("app-server"));
        assert_eq!(app.status().await.codex_version, "0.169.0");
        signal_workers(app, Signal::KILL);
        eventually!("the other engine runs", runs(app, "exec").await);
        let status = app.status().await;
        assert_eq!((status.codex_version.as_str(), status.max_running_turns), ("0.110.0", 2));
        assert_eq!(app.chat(chat_request("fake:text:5", "x")).await, "01234");
        eventually!("no worker runs", workers(app).is_empty());

        codex.install("");
        eventually!("the better engine runs again", runs(app, "app-server").await);
        assert_twenty_turns_succeed(app, Codex::Fake).await;
    })
    .await;
}

#[tokio::test]
async fn chat_profile_without_its_engine_is_unavailable_until_the_upgrade() {
    let codex = ReplaceableCodex::new();
    codex.install(OLD_VERSION);
    with_app(automatic(Codex::Fake).codex_bin(codex.bin()).profile("chat"), async |app| {
        let assert_unavailable = async || {
            let (status, report) = health(app).await;
            let (code, error) = app.http_error(&body("fake:text:5", "x")).await;
            assert_eq!((code, &error["code"]), (503, &json!("engine_unavailable")), "{error}");
            for text in [report["reason"].as_str().unwrap(), error["message"].as_str().unwrap()] {
                assert!(text.contains("0.110.0") && !text.contains(":chat"), "{text}");
            }
            assert_eq!(status, 503, "{report}");
            report["reason"].as_str().unwrap().to_owned()
        };
        assert!(assert_unavailable().await.starts_with("CODEX_PROFILE=chat needs the app-server engine"));

        codex.install("");
        eventually!("the app-server engine runs", runs(app, "app-server").await);
        assert_twenty_turns_succeed(app, Codex::Fake).await;

        codex.install(OLD_VERSION);
        signal_workers(app, Signal::KILL);
        eventually!("the engine is unavailable", running_engine(app).await.is_none());
        eventually!(
            "health has the version in its reason",
            health(app).await.1["reason"].to_string().contains("0.110.0")
        );
        assert_unavailable().await;
    })
    .await;
}

#[tokio::test]
async fn cli_update_replaces_workers_without_losing_turns() {
    let codex = ReplaceableCodex::new();
    with_app(automatic(Codex::Fake).codex_bin(codex.bin()).workers(2), async |app| {
        eventually!("both workers run", workers(app).len() == 2);
        let (old, catalog) = (workers(app), catalog_of(app));
        let running = open_stream(app, 1, ("fake:stream:100000:20", "hi")).await;

        // During an update by npm, the CLI is missing for a moment.
        codex.remove();
        assert_twenty_turns_succeed(app, Codex::Fake).await;
        assert_eq!(health(app).await.0, 200);
        codex.install("export FAKE_CODEX_VERSION=0.170.0");
        eventually!("the new version runs", app.status().await.codex_version == "0.170.0");
        eventually!("both workers are new", {
            assert_twenty_turns_succeed(app, Codex::Fake).await;
            workers(app).iter().filter(|pid| !old.contains(pid)).count() == 2
        });
        eventually!("one old worker is left, which finishes its turn", workers(app).len() == 3);
        drop(running);
        eventually!("the old workers have exited", workers(app).iter().all(|pid| !old.contains(pid)));
        assert_ne!(catalog_of(app), catalog, "the new CLI has its own catalog");
        assert!(!catalog.exists(), "the old catalog is removed");
    })
    .await;
}

#[tokio::test]
async fn exec_turn_after_a_cli_change_uses_the_new_cli() {
    let codex = ReplaceableCodex::new();
    with_app(AppConfig::fake(Engine::Exec).codex_bin(codex.bin()), async |app| {
        assert_eq!(app.status().await.codex_version, "0.169.0");
        codex.install("export FAKE_CODEX_VERSION=0.140.0");
        assert_eq!(app.status().await.codex_version, "0.140.0");
        codex.remove();
        let status = app.status().await;
        assert!(!status.ready && status.reason.contains("CODEX_BIN"), "{status:?}");
        codex.install("");
        eventually!("the CLI is available again", app.status().await.ready);
        assert_eq!(app.chat(chat_request("fake:text:5", "x")).await, "01234");
    })
    .await;
}
