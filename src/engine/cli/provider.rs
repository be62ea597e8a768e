//! The CLI's model provider and its retries, as configuration values for both engines.

use std::{ffi::OsString, fs};

use super::{
    environment,
    probe::CliInfo,
    user_config::{UserConfig, is_bare_key},
};
use crate::config::Codex;

/// Features that the server disables if the CLI has them.
///
/// - `unbounded_connection_retries` retries without end.
/// - `shell_snapshot` writes the environment's secrets to files.
/// - `plugins` clones the plugin marketplace in each run.
/// - `multi_agent`, `multi_agent_v2` and `goals` work beyond the end of a turn, which cannot be stopped or counted.
///   Goals also need stored threads.
const DISABLED_FEATURES: &[&str] =
    &["unbounded_connection_retries", "shell_snapshot", "plugins", "multi_agent", "multi_agent_v2", "goals"];

/// The feature that offers the connectors of the ChatGPT account to the model. A thread also waits for their server.
pub(crate) const APPS: &str = "apps";

/// Provider id of the scripted upstream.
const SCRIPTED_PROVIDER: &str = "codex-api-scripted";

/// Returns the features that are disabled in every profile.
pub(crate) fn disabled_features(codex: &Codex, installed: &CliInfo) -> impl Iterator<Item = &'static str> {
    let apps = (!codex.apps).then_some(APPS);
    let features = DISABLED_FEATURES.iter().copied().chain(apps);
    features.filter(|feature| installed.features.contains_key(*feature))
}

/// Returns dotted keys and TOML values for `-c`. `stream_retries` limits the retries of an interrupted response.
pub(crate) fn settings(codex: &Codex, stream_retries: u32) -> Vec<(String, String)> {
    let text = |text: &str| toml::Value::from(text).to_string();
    let mut settings = Vec::new();
    let mut set = |key: String, value: String| settings.push((key, value));
    if let Some(upstream) = &codex.scripted_upstream {
        let key = |name: &str| format!("model_providers.{SCRIPTED_PROVIDER}.{name}");
        set("model_provider".into(), text(SCRIPTED_PROVIDER));
        set(key("name"), text("scripted upstream"));
        set(key("base_url"), text(&upstream.base_url));
        set(key("wire_api"), text("responses"));
        set(key("experimental_bearer_token"), text("scripted"));
    }
    // The built-in providers cannot be configured; for them the engine counts the retries.
    let id = if codex.scripted_upstream.is_some() {
        Some(SCRIPTED_PROVIDER.to_owned())
    } else {
        configured(codex)
    };
    if let Some(id) = id {
        set(format!("model_providers.{id}.request_max_retries"), codex.upstream_retries.to_string());
        set(format!("model_providers.{id}.stream_max_retries"), stream_retries.to_string());
    }
    settings
}

/// Returns the id of the user's own provider, if `config.toml` selects one and flags can configure it.
pub(crate) fn configured(codex: &Codex) -> Option<String> {
    let config = UserConfig::load(codex);
    let id = config.model_provider()?;
    (config.provider(id).is_some() && is_bare_key(id)).then(|| id.to_owned())
}

/// The selected provider reads its key from a variable that is not set, so that every turn would fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provider {provider} of config.toml reads its key from {variable}, which is not set")]
pub(crate) struct MissingKey {
    provider: String,
    variable: String,
}

/// Checks that the variable with the key of the selected provider is set.
pub(crate) fn check_key(codex: &Codex) -> Result<(), MissingKey> {
    match missing_key(codex) {
        Some(missing) => Err(missing),
        None => Ok(()),
    }
}

fn missing_key(codex: &Codex) -> Option<MissingKey> {
    if codex.scripted_upstream.is_some() {
        return None;
    }
    let config = UserConfig::load(codex);
    // A profile of the CLI may select another provider.
    if config.selects_profile() {
        return None;
    }
    let id = config.model_provider()?;
    let variable = config.provider(id)?.get("env_key")?.as_str()?;
    let env = environment::environment(codex);
    let is_set =
        env.get(&OsString::from(variable)).is_some_and(|key| !key.to_string_lossy().trim().is_empty());
    // The CLI also reads the `.env` file in its home.
    let dotenv = environment::codex_home(&env).and_then(|home| fs::read_to_string(home.join(".env")).ok());
    let sets_variable = |line: &str| {
        let line = line.trim();
        line.strip_prefix("export ").unwrap_or(line).trim_start().starts_with(variable)
    };
    if is_set || dotenv.is_some_and(|text| text.lines().any(sets_variable)) {
        return None;
    }
    Some(MissingKey { provider: id.to_owned(), variable: variable.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn check_key_with_an_unset_variable_names_provider_and_variable() {
        let home = tempfile::tempdir().unwrap();
        let check = |config: &str, key: Option<&str>| {
            fs::write(home.path().join("config.toml"), config).unwrap();
            let mut env: std::collections::BTreeMap<OsString, OsString> =
                [("CODEX_HOME".into(), home.path().into())].into();
            env.extend(key.map(|key| ("REC_KEY".into(), key.into())));
            missing_key(&Config::load(Sources { env, ..Sources::default() }).unwrap().codex)
        };
        let rec = "model_provider = \"rec\"\n[model_providers.rec]\nname = \"r\"\nenv_key = \"REC_KEY\"\n";
        for empty in [None, Some(""), Some("  ")] {
            let message = check(rec, empty).unwrap().to_string();
            assert!(message.contains("provider rec") && message.contains("REC_KEY"), "{message}");
        }
        assert_eq!(check(rec, Some("k")), None);
        assert_eq!(check(&rec.replace("env_key = \"REC_KEY\"", ""), None), None);
        assert_eq!(check("", None), None);
        assert_eq!(
            check(&format!("profile = \"p\"\n{rec}"), None),
            None,
            "the profile may select another provider"
        );
        fs::write(home.path().join(".env"), "export REC_KEY=k\n").unwrap();
        assert_eq!(check(rec, None), None, "the CLI reads its .env");
    }
}
