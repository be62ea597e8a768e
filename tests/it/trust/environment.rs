//! Without an environment, no command runs, for every version of Codex and every engine that `auto` selects.
//! `scripts/compat.sh` runs these tests with old versions too.

use std::path::PathBuf;

use codex_api::pb;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    AppConfig, Codex, Engine, TIMEOUT, chat_request,
    grpc::code_and_reason,
    program::{Program, RunningProgram},
    with_app,
};

/// Returns a call of every command or patch tool of any Codex version. Each call would create a file of its name in the
/// workspace.
fn codex_tool_calls() -> Vec<(&'static str, Value)> {
    let touch = |name: &str| format!("touch {name}");
    vec![
        ("exec_command", json!({"arguments": {"cmd": touch("exec_command")}})),
        ("shell", json!({"arguments": {"command": ["touch", "shell"]}})),
        ("shell_command", json!({"arguments": {"command": touch("shell_command")}})),
        ("local_shell", json!({"arguments": {"command": ["touch", "local_shell"]}})),
        ("apply_patch", json!({"custom": "*** Begin Patch\n*** Add File: apply_patch\n+x\n*** End Patch\n"})),
    ]
}

/// Calls all of these tools. Returns the created files, and whether the server refused the turns. With a key, a turn of the
/// profile `chat` starts on a fork, whose environment is open until it is closed.
async fn run_codex_tools(config: AppConfig, model: &str, key: &str) -> (Vec<String>, bool) {
    with_app(config.sandbox("danger-full-access"), async |app| {
        let mut refused = Vec::new();
        for (name, mut call) in codex_tool_calls() {
            call["name"] = name.into();
            let prompt = format!("@@{}@@", json!([{"calls": [call]}, {"text": "done"}]));
            let request =
                pb::ChatRequest { prompt_cache_key: key.to_owned(), ..chat_request(model, &prompt) };
            let answer = app.grpc().await.chat(request).await;
            if let Err(status) = &answer {
                // The CLI supports neither the request nor the setting.
                let (_, reason) = code_and_reason(status);
                let refusals = ["UNSUPPORTED_PARAMETER", "ENGINE_UNAVAILABLE"];
                assert!(refusals.contains(&reason.as_str()), "{name}: {status:?}");
            }
            refused.push(answer.is_err());
        }
        assert!(refused.iter().all(|one| *one == refused[0]), "all or no turns are refused: {refused:?}");
        let files: PathBuf = app.home.path().join("work");
        let files = std::fs::read_dir(files).unwrap().map(|file| file.unwrap().file_name());
        let files = files.map(|name| name.into_string().unwrap()).collect();
        (files, refused[0])
    })
    .await
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn chat_model_calling_codex_tools_runs_nothing() {
    let auto = || AppConfig::real(Engine::AppServer).automatic_engine();
    for (profile, model) in [("chat", "gpt-5.5"), ("agent", "gpt-5.5:chat")] {
        for key in ["", "k"] {
            let (files, refused) = run_codex_tools(auto().profile(profile), model, key).await;
            assert_eq!(files, Vec::<String>::new(), "{profile} {model} {key}, refused: {refused}");
        }
    }
    // The control case: an agent runs commands.
    let (files, refused) = run_codex_tools(auto(), "gpt-5.5", "k").await;
    assert!(!files.is_empty() && !refused, "an agent acts: {files:?}");
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn engine_rejected_by_auto_cannot_be_forced() {
    let program = || Program::new(Codex::Real, Engine::AppServer);
    let auto = program().env("CODEX_ENGINE", "auto").serve(&["serve", "--demo"]).await;
    let health: Value = reqwest::get(auto.url("/healthz")).await.unwrap().json().await.unwrap();
    // For scripts/compat.sh.
    eprintln!("auto takes {}", health["engine"]);
    if health["engine"] == "exec" {
        let ended = program().env("CODEX_ENGINE", "app-server").run(&["serve", "--demo"]).await;
        assert!(
            ended.code != Some(0) && ended.stderr.contains("CODEX_ENGINE=app-server cannot be used"),
            "{ended:?}"
        );
    } else {
        assert_eq!(health["engine"], "app-server");
        let named = program().env("CODEX_ENGINE", "app-server").serve(&["serve", "--demo"]).await;
        let health: Value = reqwest::get(named.url("/healthz")).await.unwrap().json().await.unwrap();
        assert_eq!(health["ok"], true, "{health}");
        stop_program(named).await;
    }
    stop_program(auto).await;
}

async fn stop_program(mut server: RunningProgram) {
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    server.assert_nothing_is_left().await;
}
