//! A network or an upstream that refuses the WebSocket in any form: turns use HTTP, and later turns do so from the start.

use codex_api::demo::{Transport, Upgrade};
use reqwest::StatusCode;
use serde_json::Value;

use crate::support::{AppConfig, Engine, TestApp, UpstreamAs, http::body, with_app};

fn logged_in(engine: Engine) -> AppConfig {
    AppConfig::real(engine).upstream_as(UpstreamAs::OpenAiLogin)
}

/// Runs a turn. Returns the status, and the text or the error, and asserts that the caller sees no address.
async fn turn(app: &TestApp) -> (u16, String) {
    let response = app.post(&body("gpt-5.5", r#"@@{"text":"the answer"}@@"#)).await;
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    for address in ["127.0.0.1", "ws://", "http://"] {
        assert!(!answer.to_string().contains(address), "{answer}");
    }
    match answer["choices"][0]["message"]["content"].as_str() {
        Some(text) => (status, text.to_owned()),
        None => (status, answer["error"].to_string()),
    }
}

/// Runs two turns behind an upgrade that gets this answer. Asserts that the second turn does not try it again, unless Codex
/// does not report the answer.
async fn refused(engine: Engine, upgrade: Upgrade, settings: &[&str]) {
    for setting in settings {
        let config = logged_in(engine).env("CODEX_UPSTREAM_TRANSPORT", setting);
        with_app(config, async |app| {
            let upstream = app.upstream();
            upstream.set_upgrade(upgrade);
            let right = (200, "the answer".to_owned());
            let first = turn(app).await;
            let attempts = upstream.upgrades();
            assert!(attempts > 0, "{setting}");
            // Codex does not fall back by itself if the answer is 400.
            if upgrade == Upgrade::Refuse(StatusCode::BAD_REQUEST) {
                assert!(first == right || first.0 == 400, "{setting}: {first:?}");
            } else {
                assert_eq!(first, right, "{setting}");
            }
            assert_eq!(turn(app).await, right, "{setting}");
            // Codex does not report a 426, which costs one attempt.
            let again = usize::from(upgrade == Upgrade::Refuse(StatusCode::UPGRADE_REQUIRED));
            assert_eq!(upstream.upgrades() - attempts, again * attempts, "{setting}");
            let requests = upstream.requests();
            assert!(requests.iter().all(|request| request.transport == Transport::Http), "{setting}");
        })
        .await;
    }
}

/// Expands the answers to an upgrade to a test for each engine.
macro_rules! forms {
    ($($form:ident: $upgrade:expr, $settings:expr;)*) => {
        $(mod $form {
            use super::*;

            #[tokio::test]
            #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
            async fn exec() {
                refused(Engine::Exec, $upgrade, $settings).await;
            }

            #[tokio::test]
            #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
            async fn app_server() {
                refused(Engine::AppServer, $upgrade, $settings).await;
            }
        })*
    };
}

const BOTH: &[&str] = &["websocket", "auto"];

forms! {
    upgrade_answered_with_400_fails_at_most_one_turn: Upgrade::Refuse(StatusCode::BAD_REQUEST), BOTH;
    upgrade_answered_with_403_leads_to_http: Upgrade::Refuse(StatusCode::FORBIDDEN), BOTH;
    upgrade_answered_with_404_leads_to_http: Upgrade::Refuse(StatusCode::NOT_FOUND), BOTH;
    upgrade_answered_with_405_leads_to_http: Upgrade::Refuse(StatusCode::METHOD_NOT_ALLOWED), BOTH;
    upgrade_answered_with_426_leads_to_http: Upgrade::Refuse(StatusCode::UPGRADE_REQUIRED), BOTH;
    upgrade_answered_with_500_leads_to_http: Upgrade::Refuse(StatusCode::INTERNAL_SERVER_ERROR), BOTH;
    upgrade_answered_with_502_leads_to_http: Upgrade::Refuse(StatusCode::BAD_GATEWAY), BOTH;
    upgrade_answered_with_503_leads_to_http: Upgrade::Refuse(StatusCode::SERVICE_UNAVAILABLE), BOTH;
    upgrade_that_is_dropped_leads_to_http: Upgrade::Drop, BOTH;
    upgrade_that_is_never_answered_leads_to_http: Upgrade::Hang, &["websocket"];
    websocket_closed_at_once_leads_to_http: Upgrade::Close(1008), BOTH;
    websocket_ended_at_once_leads_to_http: Upgrade::Close(1000), BOTH;
}

mod default_transport_never_tries_a_websocket {
    use super::*;

    async fn turns_use_http(engine: Engine) {
        with_app(logged_in(engine), async |app| {
            assert_eq!(turn(app).await, (200, "the answer".to_owned()));
            assert_eq!(app.upstream().upgrades(), 0);
            assert_eq!(app.upstream().requests().len(), 1);
        })
        .await;
    }

    #[tokio::test]
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    async fn exec() {
        turns_use_http(Engine::Exec).await;
    }

    #[tokio::test]
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    async fn app_server() {
        turns_use_http(Engine::AppServer).await;
    }
}
