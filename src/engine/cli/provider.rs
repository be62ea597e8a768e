//! Which upstream the CLI asks and how patiently, as configuration values: the same for both engines.

use std::{ffi::OsString, fs};

use super::environment;
use crate::config::Codex;

/// Features of the CLI that we switch off, where the installed one has them: endless retries; files with the
/// environment's secrets; a clone of the plugin marketplace for each run; work that goes on when its turn is over, which
/// nobody could stop, count or wait for (sub-agents; goals, which also need threads that are stored).
pub(crate) const SWITCHED_OFF: &[&str] =
    &["unbounded_connection_retries", "shell_snapshot", "plugins", "multi_agent", "multi_agent_v2", "goals"];

/// Id of the provider that the scripted upstream goes by.
const SCRIPTED: &str = "codex-api-scripted";

/// The values to set: dotted key and TOML value. `stream_retries` is how often a response that broke off may be asked
/// for again.
pub(crate) fn settings(codex: &Codex, stream_retries: u32) -> Vec<(String, String)> {
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
        set(format!("model_providers.{id}.stream_max_retries"), stream_retries.to_string());
    }
    settings
}

/// The provider that the user's configuration chooses, if it is one that can be changed by options.
pub(crate) fn configured(codex: &Codex) -> Option<String> {
    let config = configuration(codex)?;
    let id = config.get("model_provider")?.as_str()?;
    let own = config.get("model_providers")?.as_table()?.contains_key(id);
    // Only ids that can stand in a dotted key as they are.
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    (own && plain).then(|| id.to_owned())
}

/// The user's configuration of the CLI.
fn configuration(codex: &Codex) -> Option<toml::Table> {
    let home = environment::codex_home(&environment::environment(codex))?;
    fs::read_to_string(home.join("config.toml")).ok()?.parse().ok()
}

/// What is wrong where the key of the chosen provider shall come from a variable that is not set: every turn would fail.
pub(crate) fn missing_key(codex: &Codex) -> Option<String> {
    if codex.scripted_upstream.is_some() {
        return None;
    }
    let config = configuration(codex)?;
    // A profile of the CLI may choose another provider.
    if config.contains_key("profile") {
        return None;
    }
    let id = config.get("model_provider")?.as_str()?;
    let name = config.get("model_providers")?.get(id)?.get("env_key")?.as_str()?;
    let env = environment::environment(codex);
    let set = env.get(&OsString::from(name)).is_some_and(|key| !key.to_string_lossy().trim().is_empty());
    // The CLI reads a `.env` of its own in its home.
    let own = environment::codex_home(&env).and_then(|home| fs::read_to_string(home.join(".env")).ok());
    let named = |line: &str| {
        let line = line.trim();
        line.strip_prefix("export ").unwrap_or(line).trim_start().starts_with(name)
    };
    if set || own.is_some_and(|text| text.lines().any(named)) {
        return None;
    }
    Some(format!("the provider {id} of config.toml takes its key from {name}, which is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn a_key_that_is_not_there_is_missed() {
        let home = tempfile::tempdir().unwrap();
        let trouble = |config: &str, key: Option<&str>| {
            fs::write(home.path().join("config.toml"), config).unwrap();
            let mut env: std::collections::BTreeMap<OsString, OsString> =
                [("CODEX_HOME".into(), home.path().into())].into();
            env.extend(key.map(|key| ("REC_KEY".into(), key.into())));
            missing_key(&Config::load(Sources { env, ..Sources::default() }).unwrap().codex)
        };
        let rec = "model_provider = \"rec\"\n[model_providers.rec]\nname = \"r\"\nenv_key = \"REC_KEY\"\n";
        for empty in [None, Some(""), Some("  ")] {
            let told = trouble(rec, empty).unwrap();
            assert!(told.contains("provider rec") && told.contains("REC_KEY"), "{told}");
        }
        assert_eq!(trouble(rec, Some("k")), None);
        assert_eq!(trouble(&rec.replace("env_key = \"REC_KEY\"", ""), None), None);
        assert_eq!(trouble("", None), None);
        assert_eq!(trouble(&format!("profile = \"p\"\n{rec}"), None), None, "it may have another provider");
        fs::write(home.path().join(".env"), "export REC_KEY=k\n").unwrap();
        assert_eq!(trouble(rec, None), None, "the CLI's own .env has it");
    }
}
