//! The real CLI with the login of its built-in provider, which reaches the upstream over a WebSocket or over HTTP.

mod cuts;
mod kept;
mod refresh;
mod refused;
mod tls_roots;
mod transports;

use codex_api::demo::{Transport, Upgrade};
use reqwest::StatusCode;

use crate::support::{AppConfig, Engine, TestApp, UpstreamAs, with_app};

/// Expands a scenario, `async fn NAME(engine: Engine, transport: Transport)`, to a test for each engine and transport.
macro_rules! both_transports {
    ($scenario:ident) => {
        both_transports!($scenario, [exec = Exec, app_server = AppServer]);
    };
    ($scenario:ident, [$($engine:ident = $Engine:ident),*]) => {
        mod $scenario {
            $(mod $engine {
                use codex_api::demo::Transport;
                use $crate::support::Engine;

                #[tokio::test]
                #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
                async fn websocket() {
                    super::super::$scenario(Engine::$Engine, Transport::WebSocket).await;
                }

                #[tokio::test]
                #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
                async fn http() {
                    super::super::$scenario(Engine::$Engine, Transport::Http).await;
                }
            })*
        }
    };
}
use both_transports;

/// Configures a server over the real CLI with an API key of OpenAI.
fn logged_in(engine: Engine, transport: Transport) -> AppConfig {
    AppConfig::real(engine).upstream_as(UpstreamAs::OpenAiLogin).upstream_transport(transport)
}

/// Runs a scenario and asserts that the CLI has used this transport, with the key of its login. A WebSocket that fails may
/// lead to HTTP.
async fn with_login(config: AppConfig, transport: Transport, scenario: impl AsyncFnOnce(&TestApp)) {
    with_app(config, async |app| {
        if transport == Transport::Http {
            // The answer upon which the CLI uses HTTP at once, if it tries a WebSocket.
            app.upstream().set_upgrade(Upgrade::Refuse(StatusCode::UPGRADE_REQUIRED));
        }
        scenario(app).await;
        let requests = app.upstream().requests();
        let of_websocket =
            requests.iter().filter(|request| request.transport == Transport::WebSocket).count();
        match transport {
            Transport::Http => assert_eq!(of_websocket, 0),
            Transport::WebSocket => assert!(of_websocket > 0),
        }
        for request in requests {
            assert_eq!(request.headers["authorization"], "Bearer sk-test");
        }
    })
    .await;
}
