//! Programs that are not ours as clients of both doors: the official SDKs for Python and Node, and grpcio. What they
//! check is in `tests/clients`; the server runs the real CLI against the scripted upstream.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::support::TestApp;

/// The scripts give up by themselves after 300 s.
const PATIENCE: Duration = Duration::from_secs(330);

const TOKEN: &str = "a-token-for-tests";

/// What `scripts/test.sh` has installed.
fn installed(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run ./scripts/test.sh, which installs the clients and says where they are"
        )
    })
}

/// Runs one script against a server of its own; it says what is wrong by its output and its exit code.
async fn run(interpreter: &str, script: &str) {
    let interpreter = installed(interpreter);
    let app = TestApp::real(&[("CODEX_GATEWAY_TOKEN", TOKEN)]).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut client = Command::new(interpreter);
    // Nothing of the machine's: a proxy's address, say, would lead the client astray.
    client.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    client.env("HOME", app.home.path()).env("PYTHONDONTWRITEBYTECODE", "1").env("API_KEY", TOKEN);
    client.env("BASE_URL", app.url("/v1")).env("GRPC_ADDR", app.grpc_address.to_string());
    client
        .env("STUBS_DIR", app.home.path().join("stubs"))
        .env("NODE_MODULES", installed("TEST_NODE_MODULES"));
    client.arg(&script).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, client.output()).await;

    let output = output.expect("the client ends in time").expect("the client starts");
    let said = [output.stdout, output.stderr].concat();
    eprintln!("{}", String::from_utf8_lossy(&said));
    app.stop().await;
    assert!(output.status.success(), "{} ended with {}", script.display(), output.status);
}

#[tokio::test]
async fn openai_python() {
    run("TEST_PYTHON", "openai_python.py").await;
}

#[tokio::test]
async fn openai_node() {
    run("TEST_NODE", "openai_node.mjs").await;
}

#[tokio::test]
async fn grpc_python() {
    run("TEST_PYTHON", "grpc_python.py").await;
}
