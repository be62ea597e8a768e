//! How the real CLI reaches the scripted upstream.

use std::path::Path;

use codex_api::demo::Transport;

/// How the real CLI reaches the scripted upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpstreamAs {
    /// As a provider of its own, like `serve --demo`: over HTTP, without a login.
    #[default]
    Provider,
    /// As OpenAI: the home of the CLI has an API key, and `openai_base_url` is the address of the upstream. The CLI uses a
    /// WebSocket first.
    OpenAiLogin,
}

impl UpstreamAs {
    /// Writes the configuration and the login of the CLI.
    pub fn write_home(self, codex_home: &Path, base_url: &str) {
        if self == Self::Provider {
            return;
        }
        let origin = base_url.strip_suffix("/v1").unwrap();
        // The last three settings keep the CLI from asking chatgpt.com.
        let config = format!(
            "openai_base_url = \"{base_url}\"\nchatgpt_base_url = \"{origin}/backend-api/\"\n\
             check_for_update_on_startup = false\n[analytics]\nenabled = false\n"
        );
        std::fs::write(codex_home.join("config.toml"), config).unwrap();
        let login = r#"{"auth_mode":"apikey","OPENAI_API_KEY":"sk-test"}"#;
        std::fs::write(codex_home.join("auth.json"), login).unwrap();
    }
}

/// What differs over the WebSocket, so that a test or one of its assertions does not hold there. Every difference is here.
#[derive(Debug, Clone, Copy)]
pub enum WebSocketLimit {
    /// Codex sends no notification before its first retry over a WebSocket. `upstream::cuts` has the WebSocket's behaviour.
    FirstRetryIsSilent,
    /// After the last attempt over the WebSocket, Codex falls back to HTTP and starts to count again. With
    /// `CODEX_UPSTREAM_RETRIES=0` it sends the request twice.
    FallbackRepeatsTheRequest,
}

/// The variable of the tests' environment that selects how the real CLI reaches the scripted upstream.
const TEST_UPSTREAM: &str = "CODEX_TEST_UPSTREAM";

/// Returns the form and the transport that `CODEX_TEST_UPSTREAM` selects for tests that do not select their own.
pub(super) fn selected() -> (UpstreamAs, Option<Transport>) {
    match std::env::var(TEST_UPSTREAM).as_deref() {
        Err(_) | Ok("" | "provider") => (UpstreamAs::Provider, None),
        Ok("login-https") => (UpstreamAs::OpenAiLogin, Some(Transport::Http)),
        Ok("login-websocket") => (UpstreamAs::OpenAiLogin, Some(Transport::WebSocket)),
        Ok(other) => panic!("{TEST_UPSTREAM} is {other:?}, not provider, login-https or login-websocket"),
    }
}
