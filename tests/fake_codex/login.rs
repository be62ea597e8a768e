//! The login of the process. Like the real CLI, a process reads `auth.json` at its start and keeps what it found.

use std::sync::OnceLock;

use serde_json::Value;

use crate::{app_server::codex_home, env};

static LOGIN: OnceLock<String> = OnceLock::new();

/// Returns the key, or the account of the tokens, that the process found at its start. `none` without a login.
pub(crate) fn at_start() -> &'static str {
    LOGIN.get_or_init(|| read().unwrap_or_else(|| "none".to_owned()))
}

fn read() -> Option<String> {
    // Only `exec` reads the variable; the server removes it from the environment of a worker.
    if let Some(key) = env("CODEX_API_KEY").filter(|key| !key.is_empty()) {
        return Some(key);
    }
    let text = std::fs::read(format!("{}/auth.json", codex_home().ok()?)).ok()?;
    let file: Value = serde_json::from_slice(&text).ok()?;
    let key = file["OPENAI_API_KEY"].as_str().or_else(|| file["tokens"]["account_id"].as_str());
    key.map(str::to_owned)
}
