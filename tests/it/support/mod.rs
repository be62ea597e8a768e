//! The test harness: servers in the process of the tests or in a separate process, over the fake codex or the real CLI;
//! clients for both doors; checks that no process, file or slot is left.

pub mod app;
pub mod config;
pub mod engines;
pub mod grpc;
pub mod http;
pub mod login;
pub mod processes;
pub mod program;
pub mod staged;
pub mod tls;
pub mod upstream;
pub mod wire;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use codex_api::pb;

pub use app::{TestApp, with_app};
pub use config::AppConfig;
pub use engines::Engine;
pub use upstream::{UpstreamAs, WebSocketLimit};

/// The time limit of every wait. An operation that exceeds it is considered hanging.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Polls a condition until it holds. Panics after [`TIMEOUT`].
#[macro_export]
macro_rules! eventually {
    ($description:literal, $condition:expr) => {{
        let waited = tokio::time::timeout($crate::support::TIMEOUT, async {
            let mut pause = std::time::Duration::from_millis(1);
            while !$condition {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_millis(50));
            }
        });
        assert!(waited.await.is_ok(), "not within the time limit: {}", $description);
    }};
}

/// Expands a scenario, `async fn NAME(engine: Engine)`, to the tests `NAME::exec` and `NAME::app_server`.
#[macro_export]
macro_rules! both_engines {
    ($(#[$attribute:meta])* $scenario:ident) => {
        mod $scenario {
            use $crate::support::Engine;

            $(#[$attribute])*
            #[tokio::test]
            async fn exec() {
                super::$scenario(Engine::Exec).await;
            }

            $(#[$attribute])*
            #[tokio::test]
            async fn app_server() {
                super::$scenario(Engine::AppServer).await;
            }
        }
    };
}

/// The codex that a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codex {
    /// `tests/fake_codex`: the model's name is the scenario.
    Fake,
    /// The installed CLI with the scripted upstream: a directive in the prompt is the scenario.
    Real,
}

/// Returns the path of a codex.
pub fn executable(codex: Codex) -> PathBuf {
    match codex {
        Codex::Fake => example("fake-codex"),
        Codex::Real => std::env::var_os("CODEX_BIN").map(PathBuf::from).expect(
            "CODEX_BIN is not set: run ./scripts/test.sh, which installs the real Codex CLI for the tests",
        ),
    }
}

/// Returns the number of cases of a random test: `CODEX_TEST_CASES`, or a default for the whole suite.
pub fn cases(default: u32) -> u32 {
    std::env::var("CODEX_TEST_CASES").map_or(default, |cases| cases.parse().expect("a number"))
}

/// Returns the path of a program that `Cargo.toml` lists as an example.
pub fn example(name: &str) -> PathBuf {
    // Cargo puts examples beside the folder of the test binaries.
    let target = Path::new(env!("CARGO_BIN_EXE_codex-api")).parent().unwrap();
    let program = target.join("examples").join(name);
    assert!(
        program.exists(),
        "{name} is not built: run `cargo build --example fake-codex --example saboteur`, or `cargo test` without --test"
    );
    program
}

/// Builds a request of one user message.
pub fn chat_request(model: &str, text: &str) -> pb::ChatRequest {
    let part = pb::ContentPart { part: Some(pb::content_part::Part::Text(text.into())) };
    let message = pb::Message { role: pb::Role::User.into(), parts: vec![part], ..Default::default() };
    pb::ChatRequest { model: model.into(), messages: vec![message], ..Default::default() }
}
