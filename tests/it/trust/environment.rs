//! Where no environment is asked for, nothing is run, whichever Codex is installed and whatever engine `auto` makes of
//! it: `scripts/compat.sh` runs this with old ones too.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    AppConfig, Codex, Engine, SOON, ask,
    grpc::kind,
    program::{Program, Served},
    with_app,
};

/// Every way to act that any Codex offers its model; each would leave a file of its own name in the workspace.
fn acts() -> Vec<(&'static str, Value)> {
    let touch = |name: &str| format!("touch {name}");
    vec![
        ("exec_command", json!({"arguments": {"cmd": touch("exec_command")}})),
        ("shell", json!({"arguments": {"command": ["touch", "shell"]}})),
        ("shell_command", json!({"arguments": {"command": touch("shell_command")}})),
        ("local_shell", json!({"arguments": {"command": ["touch", "local_shell"]}})),
        ("apply_patch", json!({"custom": "*** Begin Patch\n*** Add File: apply_patch\n+x\n*** End Patch\n"})),
    ]
}

/// What a model that tries all of them has done in the workspace, and whether the turns were refused.
async fn done(config: AppConfig, model: &str) -> (Vec<String>, bool) {
    with_app(config.sandbox("danger-full-access"), async |app| {
        let mut refused = Vec::new();
        for (name, mut call) in acts() {
            call["name"] = name.into();
            let prompt = format!("@@{}@@", json!([{"calls": [call]}, {"text": "done"}]));
            let answer = app.grpc().await.chat(ask(model, &prompt)).await;
            if let Err(status) = &answer {
                // What the request asks for, or what the operator has set, cannot be had.
                let (_, reason) = kind(status);
                let refusals = ["UNSUPPORTED_PARAMETER", "ENGINE_UNAVAILABLE"];
                assert!(refusals.contains(&reason.as_str()), "{name}: {status:?}");
            }
            refused.push(answer.is_err());
        }
        assert!(refused.iter().all(|one| *one == refused[0]), "all or none: {refused:?}");
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
        let (files, refused) = done(auto().profile(profile), model).await;
        assert_eq!(files, Vec::<String>::new(), "{profile} {model}, refused: {refused}");
    }
    // Otherwise this would say nothing.
    let (files, refused) = done(auto(), "gpt-5.5").await;
    assert!(!files.is_empty() && !refused, "an agent acts: {files:?}");
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn engine_rejected_by_auto_cannot_be_forced() {
    let program = || Program::new(Codex::Real, Engine::AppServer);
    let auto = program().set("CODEX_ENGINE", "auto").serve(&["serve", "--demo"]).await;
    let health: Value = reqwest::get(auto.url("/healthz")).await.unwrap().json().await.unwrap();
    // For scripts/compat.sh.
    eprintln!("auto takes {}", health["engine"]);
    if health["engine"] == "exec" {
        let ended = program().set("CODEX_ENGINE", "app-server").run(&["serve", "--demo"]).await;
        assert!(
            ended.code != Some(0) && ended.stderr.contains("CODEX_ENGINE=app-server cannot be used"),
            "{ended:?}"
        );
    } else {
        assert_eq!(health["engine"], "app-server");
        let named = program().set("CODEX_ENGINE", "app-server").serve(&["serve", "--demo"]).await;
        let health: Value = reqwest::get(named.url("/healthz")).await.unwrap().json().await.unwrap();
        assert_eq!(health["ok"], true, "{health}");
        end(named).await;
    }
    end(auto).await;
}

async fn end(mut server: Served) {
    server.signal(Signal::TERM);
    assert_eq!(server.code(SOON).await, Some(0));
    server.nothing_is_left().await;
}
