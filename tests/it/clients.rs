//! The official SDKs for Python and Node and grpcio as clients of both doors. The checks are scripts in `tests/clients`.
//! The server runs the real CLI against the scripted upstream.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::{
    both_engines,
    support::{AppConfig, Engine, TestApp, with_app},
};

/// The time limit of a script. The scripts themselves exit after 300 s at the latest.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(330);

const TOKEN: &str = "a-token-for-tests";

/// Returns the path in a variable that `scripts/test.sh` sets.
fn installed_path(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run ./scripts/test.sh, which installs the clients and sets the variable"
        )
    })
}

/// Runs a script against a server with this engine.
async fn assert_script_passes(engine: Engine, interpreter: &str, script: &str) {
    with_app(AppConfig::real(engine).token(TOKEN), async |app| {
        let succeeded = script_succeeds(interpreter, script, app, None).await;
        assert!(succeeded, "{script} failed");
    })
    .await;
}

/// Runs a script against the app-server engine, which supports client tools. A second server with an empty cache acts
/// as the server after a restart.
async fn assert_tool_script_passes(interpreter: &str, script: &str) {
    let config = || AppConfig::real(Engine::AppServer).token(TOKEN);
    with_app(config(), async |app| {
        with_app(config(), async |restarted| {
            let succeeded = script_succeeds(interpreter, script, app, Some(restarted)).await;
            assert!(succeeded, "{script} failed");
        })
        .await;
    })
    .await;
}

/// Runs a script; returns whether its exit code is zero.
async fn script_succeeds(
    interpreter: &str,
    script: &str,
    app: &TestApp,
    restarted: Option<&TestApp>,
) -> bool {
    let interpreter = installed_path(interpreter);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut client = Command::new(interpreter);
    // Other variables of the machine could change the client, for example the address of a proxy.
    client.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    client.env("HOME", app.home.path()).env("PYTHONDONTWRITEBYTECODE", "1").env("API_KEY", TOKEN);
    client.env("BASE_URL", app.url("/v1")).env("GRPC_ADDR", app.grpc_address.to_string());
    client
        .env("STUBS_DIR", app.home.path().join("stubs"))
        .env("NODE_MODULES", installed_path("TEST_NODE_MODULES"));
    if let Some(restarted) = restarted {
        client.env("BASE_URL_RESTARTED", restarted.url("/v1"));
    }
    client.arg(&script).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(SCRIPT_TIMEOUT, client.output()).await;

    let output = output.expect("the script exits in time").expect("the script starts");
    let printed = [output.stdout, output.stderr].concat();
    eprintln!("{}", String::from_utf8_lossy(&printed));
    eprintln!("{} exited with {}", script.display(), output.status);
    output.status.success()
}

both_engines!(
    #[ignore = "needs the official clients and the real Codex CLI: run ./scripts/test.sh"]
    openai_python_passes_its_checks
);
async fn openai_python_passes_its_checks(engine: Engine) {
    assert_script_passes(engine, "TEST_PYTHON", "openai_python.py").await;
}

both_engines!(
    #[ignore = "needs the official clients and the real Codex CLI: run ./scripts/test.sh"]
    openai_python_does_not_repeat_a_command
);
async fn openai_python_does_not_repeat_a_command(engine: Engine) {
    let config = AppConfig::real(engine).token(TOKEN).sandbox("workspace-write").upstream_retries(0);
    with_app(config, async |app| {
        let before = app.last_request_number();
        assert!(script_succeeds("TEST_PYTHON", "retries_python.py", app, None).await, "the script failed");
        // The failure before an effect was asked three times; the turn with the command has two model calls.
        assert_eq!(app.model_calls_since(before), 3 + 2);
        let file = app.home.path().join("work/effects.txt");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "once\n");
    })
    .await;
}

both_engines!(
    #[ignore = "needs the official clients and the real Codex CLI: run ./scripts/test.sh"]
    openai_node_passes_its_checks
);
async fn openai_node_passes_its_checks(engine: Engine) {
    assert_script_passes(engine, "TEST_NODE", "openai_node.mjs").await;
}

both_engines!(
    #[ignore = "needs the official clients and the real Codex CLI: run ./scripts/test.sh"]
    grpc_python_passes_its_checks
);
async fn grpc_python_passes_its_checks(engine: Engine) {
    assert_script_passes(engine, "TEST_PYTHON", "grpc_python.py").await;
}

#[tokio::test]
#[ignore = "needs the official clients and the real Codex CLI: run ./scripts/test.sh"]
async fn openai_python_with_tools_passes_its_checks() {
    assert_tool_script_passes("TEST_PYTHON", "tools_python.py").await;
}

#[tokio::test]
#[ignore = "needs the official clients and the real Codex CLI: run ./scripts/test.sh"]
async fn openai_node_with_tools_passes_its_checks() {
    assert_tool_script_passes("TEST_NODE", "tools_node.mjs").await;
}

#[tokio::test]
#[ignore = "needs the official clients and the real Codex CLI: run ./scripts/test.sh"]
async fn openai_agents_with_tools_passes_its_checks() {
    assert_tool_script_passes("TEST_PYTHON", "agents_python.py").await;
}
