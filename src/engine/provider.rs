//! Which upstream the CLI asks and how patiently, as configuration values: the same for both engines.

use std::fs;

use super::home;
use crate::config::Codex;

/// Features of the CLI that we switch off, where the installed one has them: endless retries; files with the
/// environment's secrets; a clone of the plugin marketplace for each run; work that goes on when its turn is over, which
/// nobody could stop, count or wait for (sub-agents; goals, which also need threads that are stored).
pub(super) const SWITCHED_OFF: &[&str] =
    &["unbounded_connection_retries", "shell_snapshot", "plugins", "multi_agent", "multi_agent_v2", "goals"];

/// Id of the provider that the scripted upstream goes by.
const SCRIPTED: &str = "codex-api-scripted";

/// The values to set: dotted key and TOML value.
pub(super) fn settings(codex: &Codex) -> Vec<(String, String)> {
    let text = |text: &str| toml::Value::from(text).to_string();
    let mut settings = Vec::new();
    let mut set = |key: String, value: String| settings.push((key, value));
    if let Some(upstream) = &codex.scripted_upstream {
        let key = |name: &str| format!("model_providers.{SCRIPTED}.{name}");
        set("model_provider".into(), text(SCRIPTED));
        set(key("name"), text("scripted upstream"));
        set(key("base_url"), text(&upstream.base_url));
        set(key("wire_api"), text("responses"));
        set(key("experimental_bearer_token"), text("scripted"));
    }
    // The built-in providers cannot be changed; there, the engine counts the retries.
    let id = if codex.scripted_upstream.is_some() { Some(SCRIPTED.to_owned()) } else { configured(codex) };
    if let Some(id) = id {
        set(format!("model_providers.{id}.request_max_retries"), codex.upstream_retries.to_string());
        // A stream that breaks is not asked for again: the model would repeat what the client already has.
        set(format!("model_providers.{id}.stream_max_retries"), "0".into());
    }
    settings
}

/// The provider that the user's configuration chooses, if it is one that can be changed by options.
pub(super) fn configured(codex: &Codex) -> Option<String> {
    let config = fs::read_to_string(home::codex_home(&home::environment(codex))?.join("config.toml")).ok()?;
    let config: toml::Table = config.parse().ok()?;
    let id = config.get("model_provider")?.as_str()?;
    let own = config.get("model_providers")?.as_table()?.contains_key(id);
    // Only ids that can stand in a dotted key as they are.
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    (own && plain).then(|| id.to_owned())
}
