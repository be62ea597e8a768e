//! The CLI's model provider and its retries, as configuration values for both engines.

use std::{ffi::OsString, fs, time::Duration};

use super::{
    environment,
    probe::CliInfo,
    user_config::{UserConfig, is_bare_key},
};
use crate::{
    config::{Codex, UpstreamTransport},
    engine::Check,
};

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

/// Time limit of a WebSocket's connect. Codex's default of 15 seconds, in each attempt, delays the fallback to HTTPS.
const WEBSOCKET_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum silence of a WebSocket within a response, the default of Codex. A model that reasons with a high effort may send
/// nothing for minutes, and pings do not count (0.169), so a shorter limit repeats responses that are fine. A lost connection
/// costs as much, see [`thread_transport`](super::thread_transport).
pub(crate) const WEBSOCKET_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Former names of disabled features, with the names today. The CLI still accepts a former name in `config.toml`, whatever
/// the value of the name today is.
const FORMER_NAMES: &[(&str, &str)] = &[("connectors", APPS), ("collab", "multi_agent")];

/// Returns the features that are disabled in every profile.
pub(crate) fn disabled_features(codex: &Codex, installed: &CliInfo) -> Vec<&'static str> {
    let apps = (!codex.apps).then_some(APPS);
    let features: Vec<&str> = DISABLED_FEATURES.iter().copied().chain(apps).collect();
    let user = UserConfig::load(codex);
    // The CLI warns of a former name in each turn, so the name is set only if the user has set it.
    let is_former = |(name, today): &&(&str, &str)| features.contains(today) && user.sets_feature(name);
    let former = FORMER_NAMES.iter().filter(is_former).map(|(name, _)| *name);
    let is_installed = |feature: &&str| installed.features.contains_key(*feature);
    features.iter().copied().filter(is_installed).chain(former).collect()
}

/// Returns the override that disables the telemetry of the CLI, unless the user's `config.toml` enables or disables it.
///
/// A `codex exec` exits only after its telemetry was sent or has failed, which takes up to 30 seconds in a network that
/// drops packets.
pub(crate) fn telemetry_override(codex: &Codex) -> Option<(&'static str, toml::Value)> {
    const KEY: &str = "analytics.enabled";
    UserConfig::load(codex).get(KEY).is_none().then(|| (KEY, false.into()))
}

/// A provider of the server's own, with one entry in `model_providers` per transport.
struct OwnProvider {
    https_id: &'static str,
    websocket_id: &'static str,
    entry: Vec<(&'static str, toml::Value)>,
}

impl OwnProvider {
    /// Returns the provider, or `None` if the user's `config.toml` selects another provider.
    ///
    /// A provider of the server's own replaces the built-in provider `openai`, because the built-in provider has no
    /// options: it always tries a WebSocket first, and a network that refuses WebSockets delays each turn by seconds.
    fn new(codex: &Codex, installed: &CliInfo) -> Option<Self> {
        if let Some(upstream) = &codex.scripted_upstream {
            let entry = vec![
                ("name", "scripted upstream".into()),
                ("base_url", upstream.base_url.as_str().into()),
                ("wire_api", "responses".into()),
                ("experimental_bearer_token", "scripted".into()),
            ];
            return Some(Self {
                https_id: "codex-api-scripted",
                websocket_id: "codex-api-scripted-ws",
                entry,
            });
        }
        let user = UserConfig::load(codex);
        if !selects_openai(&user) {
            return None;
        }
        let headers = |pairs: &[(&str, &str)]| -> toml::Value {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), toml::Value::from(*value)))
                .collect::<toml::Table>()
                .into()
        };
        // Codex recognises OpenAI by the name. Without `base_url`, the login selects the address.
        let mut entry = vec![
            ("name", "OpenAI".into()),
            ("wire_api", "responses".into()),
            ("requires_openai_auth", true.into()),
            // The built-in provider sends these headers too.
            ("http_headers", headers(&[("version", &installed.version)])),
            (
                "env_http_headers",
                headers(&[
                    ("OpenAI-Organization", "OPENAI_ORGANIZATION"),
                    ("OpenAI-Project", "OPENAI_PROJECT"),
                ]),
            ),
        ];
        entry.extend(user.get("openai_base_url").cloned().map(|url| ("base_url", url)));
        Some(Self { https_id: "codex-api-openai", websocket_id: "codex-api-openai-ws", entry })
    }
}

/// Returns `true` if turns use OpenAI, with the server's entry in place of the built-in provider.
pub(crate) fn is_openai(codex: &Codex) -> bool {
    codex.scripted_upstream.is_none() && selects_openai(&UserConfig::load(codex))
}

/// Returns `true` if the user's configuration selects the built-in provider `openai`.
fn selects_openai(user: &UserConfig) -> bool {
    // The provider of a profile of the CLI has precedence over `-c model_provider`.
    let by_profile = user
        .get("profile")
        .and_then(toml::Value::as_str)
        .is_some_and(|profile| user.get(&format!("profiles.{profile}.model_provider")).is_some());
    !by_profile && user.model_provider().is_none_or(|id| id == "openai")
}

/// Returns the id of the provider that uses a WebSocket. `None` if `CODEX_UPSTREAM_TRANSPORT` excludes the WebSocket, or
/// if the user's `config.toml` selects a provider.
pub(crate) fn websocket_provider(codex: &Codex, installed: &CliInfo) -> Option<&'static str> {
    let is_wanted = codex.upstream_transport != UpstreamTransport::Https;
    OwnProvider::new(codex, installed).filter(|_| is_wanted).map(|provider| provider.websocket_id)
}

/// Returns dotted keys and TOML values for `-c`. The CLI retries at most `CODEX_UPSTREAM_RETRIES` times.
pub(crate) fn settings(codex: &Codex, installed: &CliInfo) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut set = |id: &str, name: &str, value: &toml::Value| {
        settings.push((format!("model_providers.{id}.{name}"), value.to_string()));
    };
    // Codex nests the limits. With both set, a dead upstream gets the product of both numbers of attempts, which takes
    // minutes. Codex reports the retries of the outer limit.
    let retries: [(&str, toml::Value); 2] =
        [("request_max_retries", 0.into()), ("stream_max_retries", i64::from(codex.upstream_retries).into())];
    let Some(own) = OwnProvider::new(codex, installed) else {
        // Only the entry of the user's own provider can be configured. For another built-in provider the engine counts
        // the retries.
        if let Some(id) = configured(codex) {
            retries.iter().for_each(|(name, value)| set(&id, name, value));
        }
        return settings;
    };
    for (name, value) in own.entry.iter().chain(&retries) {
        set(own.https_id, name, value);
    }
    if codex.upstream_transport != UpstreamTransport::Https {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX).into();
        let websocket = [
            ("supports_websockets", true.into()),
            ("websocket_connect_timeout_ms", millis(WEBSOCKET_CONNECT_TIMEOUT)),
            ("stream_idle_timeout_ms", millis(WEBSOCKET_IDLE_TIMEOUT)),
        ];
        for (name, value) in own.entry.iter().chain(&retries).chain(&websocket) {
            set(own.websocket_id, name, value);
        }
    }
    settings.push(("model_provider".into(), toml::Value::from(own.https_id).to_string()));
    settings
}

/// Returns the doctor's check of the provider and its transport.
pub(crate) fn examine(codex: &Codex) -> Check {
    let name = "upstream";
    let transport = match codex.upstream_transport {
        UpstreamTransport::Https => "https",
        UpstreamTransport::WebSocket => "websocket",
        UpstreamTransport::Auto => "auto",
    };
    if codex.scripted_upstream.is_some() {
        return Check::passed(name, format!("scripted, transport {transport}"));
    }
    let user = UserConfig::load(codex);
    if selects_openai(&user) {
        let moved =
            if user.get("openai_base_url").is_some() { " at openai_base_url of config.toml" } else { "" };
        return Check::passed(name, format!("OpenAI{moved}, transport {transport}"));
    }
    let provider = match user.model_provider() {
        Some(id) if !user.selects_profile() => format!("the provider {id} of config.toml"),
        Some(_) | None => "the provider of the profile in config.toml".to_owned(),
    };
    if codex.upstream_transport == UpstreamTransport::Https {
        return Check::passed(name, provider);
    }
    Check::warning(
        name,
        format!("{provider}; CODEX_UPSTREAM_TRANSPORT={transport} has no effect on it"),
        "set supports_websockets in the provider's entry in config.toml, and unset CODEX_UPSTREAM_TRANSPORT",
    )
}

/// Returns the id of the user's own provider, if `config.toml` selects one and flags can configure it.
pub(crate) fn configured(codex: &Codex) -> Option<String> {
    if codex.scripted_upstream.is_some() {
        return None;
    }
    let config = UserConfig::load(codex);
    let id = config.model_provider()?;
    (config.provider(id).is_some() && is_bare_key(id)).then(|| id.to_owned())
}

/// Returns `true` if the user's own provider uses a WebSocket.
pub(crate) fn configures_websocket(codex: &Codex) -> bool {
    let config = UserConfig::load(codex);
    let provider = configured(codex).and_then(|id| config.provider(&id).cloned());
    let value = provider.as_ref().and_then(|provider| provider.get("supports_websockets"));
    value.and_then(toml::Value::as_bool) == Some(true)
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
    // Callers see both. A key in place of the variable's name is a usual mistake.
    let is_variable = variable.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let variable = if is_variable { variable } else { "the variable of its env_key" };
    let provider = if is_bare_key(id) && id.len() <= 64 { id } else { "model_provider" };
    Some(MissingKey { provider: provider.to_owned(), variable: variable.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    /// Returns the settings of a CLI whose home has this `config.toml`.
    fn settings_with(config: &str, transport: &str) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("config.toml"), config).unwrap();
        let env = [
            ("CODEX_HOME".into(), home.path().into()),
            ("CODEX_UPSTREAM_TRANSPORT".into(), transport.into()),
        ];
        let codex = Config::load(Sources { env: env.into(), ..Sources::default() }).unwrap().codex;
        let installed = CliInfo { version: "0.169.0".into(), ..CliInfo::default() };
        settings(&codex, &installed).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn settings_replace_only_the_provider_openai() {
        let selects_own = |config: &str| {
            settings_with(config, "https").contains(&"model_provider=\"codex-api-openai\"".to_owned())
        };
        assert!(selects_own("") && selects_own("model_provider = \"openai\""));
        assert!(selects_own("profile = \"p\"\n[profiles.p]\nmodel = \"m\""));
        for other in [
            "model_provider = \"ollama\"",
            "model_provider = \"rec\"\n[model_providers.rec]\nname = \"r\"",
            "profile = \"p\"\n[profiles.p]\nmodel_provider = \"ollama\"",
        ] {
            assert!(!selects_own(other), "{other}");
        }
    }

    #[test]
    fn settings_for_a_moved_openai_keep_its_address() {
        let address = "base_url=\"http://127.0.0.1:1/v1\"";
        let found = settings_with("openai_base_url = \"http://127.0.0.1:1/v1\"", "https");
        assert!(found.contains(&format!("model_providers.codex-api-openai.{address}")), "{found:?}");
        assert!(!settings_with("", "https").iter().any(|setting| setting.contains("base_url")));
    }

    #[test]
    fn settings_have_a_websocket_provider_unless_the_transport_is_https() {
        let has_websocket = |transport| {
            let found = settings_with("", transport);
            found.contains(&"model_providers.codex-api-openai-ws.supports_websockets=true".to_owned())
        };
        assert!(!has_websocket("https") && has_websocket("websocket") && has_websocket("auto"));
        assert!(!settings_with("", "https").iter().any(|setting| setting.contains("websocket")));
    }

    #[test]
    fn examine_of_another_provider_warns_of_a_transport_without_effect() {
        let examine_with = |config: &str, transport: &str| {
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join("config.toml"), config).unwrap();
            let env = [
                ("CODEX_HOME".into(), home.path().into()),
                ("CODEX_UPSTREAM_TRANSPORT".into(), transport.into()),
            ];
            let config = Config::load(Sources { env: env.into(), ..Sources::default() }).unwrap();
            format!("{:?}", examine(&config.codex))
        };
        let rec = "model_provider = \"rec\"\n[model_providers.rec]\nname = \"r\"";
        for (config, transport, expected) in [
            ("", "auto", "OpenAI, transport auto"),
            ("openai_base_url = \"http://127.0.0.1:1/v1\"", "https", "OpenAI at openai_base_url"),
            (rec, "https", "the provider rec of config.toml"),
            (rec, "websocket", "CODEX_UPSTREAM_TRANSPORT=websocket has no effect"),
        ] {
            let found = examine_with(config, transport);
            assert!(found.contains(expected), "{config} {transport}: {found}");
            assert_eq!(found.contains("Warning"), expected.contains("no effect"), "{found}");
        }
    }

    #[test]
    fn disabled_features_include_former_names_that_the_user_has_set() {
        let home = tempfile::tempdir().unwrap();
        let installed = CliInfo { features: [("apps".to_owned(), true)].into(), ..CliInfo::default() };
        let found = |config: &str, apps: &str| {
            fs::write(home.path().join("config.toml"), config).unwrap();
            let env =
                [("CODEX_HOME".into(), home.path().into()), ("CODEX_ENABLE_APPS".into(), apps.into())].into();
            let codex = Config::load(Sources { env, ..Sources::default() }).unwrap().codex;
            disabled_features(&codex, &installed)
        };
        assert_eq!(found("", "0"), ["apps"]);
        for config in
            ["[features]\nconnectors = true", "profile = \"p\"\n[profiles.p.features]\nconnectors = true"]
        {
            assert_eq!(found(config, "0"), ["apps", "connectors"], "{config}");
            assert_eq!(found(config, "1"), Vec::<&str>::new(), "{config}");
        }
    }

    #[test]
    fn telemetry_is_disabled_unless_the_user_decides() {
        let home = tempfile::tempdir().unwrap();
        let found = |config: &str| {
            fs::write(home.path().join("config.toml"), config).unwrap();
            let env = [("CODEX_HOME".into(), home.path().into())].into();
            telemetry_override(&Config::load(Sources { env, ..Sources::default() }).unwrap().codex)
        };
        assert_eq!(found(""), Some(("analytics.enabled", false.into())));
        assert_eq!(found("[analytics]\nenabled = true"), None);
    }

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
