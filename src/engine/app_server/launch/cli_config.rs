//! Configuration of a worker: the command line of `codex app-server`, and the overrides of a single thread.

use std::{ffi::OsString, path::Path};

use serde_json::{Map, Value};

use super::model_catalog::Catalogs;
use crate::{
    config::{Codex, Profile, Sandbox},
    engine::cli::{
        environment,
        probe::CliInfo,
        provider,
        user_config::{UserConfig, is_bare_key},
    },
};

/// Override that lifts the limit of tool results, for threads with results of client tools. Codex cuts results to about
/// 48 kB by default. In `agent` the override also affects Codex's own commands, so it is not the default there.
pub(crate) const TOOL_OUTPUT_LIMIT: (&str, i64) = ("tool_output_token_limit", 10_000_000);

/// Key of the writable folders besides the workspace.
const WRITABLE_ROOTS: &str = "sandbox_workspace_write.writable_roots";

/// Features that give the model tools or texts of Codex, without those that are disabled in every profile.
const CODEX_FEATURES: &[&str] = &[
    "shell_tool",
    "view_image",
    provider::APPS,
    "hooks",
    "memories",
    "sleep_tool",
    "tool_suggest",
    "skill_search",
    "image_generation",
];

/// Other keys that give the model tools or texts of Codex, with their values in `chat` and their defaults.
const PROMPT_SWITCHES: &[(&str, toml::Value, toml::Value)] = &[
    ("skills.include_instructions", OFF, ON),
    ("skills.bundled.enabled", OFF, ON),
    ("tools.experimental_request_user_input.enabled", OFF, ON),
    ("include_environment_context", OFF, ON),
    ("include_permissions_instructions", OFF, ON),
    ("include_collaboration_mode_instructions", OFF, ON),
    ("include_apps_instructions", OFF, ON),
    ("project_doc_max_bytes", toml::Value::Integer(0), toml::Value::Integer(32 << 10)),
];

const ON: toml::Value = toml::Value::Boolean(true);
const OFF: toml::Value = toml::Value::Boolean(false);

/// One override: dotted key and value.
type Override = (String, toml::Value);

/// Returns the arguments of a worker. Its threads have the configured profile by default.
pub(crate) fn arguments(codex: &Codex, installed: &CliInfo, catalogs: &Catalogs) -> Vec<OsString> {
    let user = UserConfig::load(codex);
    let mut settings: Vec<Override> = Vec::new();
    let mut set = |key: &str, value: toml::Value| settings.push((key.to_owned(), value));
    // Otherwise each thread occupies 0.9 MiB of memory for a while after its end.
    set("thread_unload_delay_secs", 0.into());
    // The next settings are defaults. The parameters of a thread have precedence.
    set("approval_policy", codex.approval_policy.as_str().into());
    set("sandbox_mode", codex.sandbox.as_str().into());
    set("web_search", if codex.search { "live" } else { "disabled" }.into());
    // By default a command of the agent inherits the whole environment, including the upstream's key.
    set("shell_environment_policy.inherit", "core".into());
    set("sandbox_workspace_write.exclude_slash_tmp", ON);
    // Each turn that may write has a temporary folder of its own.
    set("sandbox_workspace_write.exclude_tmpdir_env_var", ON);
    if codex.sandbox != Sandbox::ReadOnly && !codex.add_dirs.is_empty() {
        let folders = codex.add_dirs.iter().map(|folder| folder.to_string_lossy().into_owned());
        let folders: Vec<toml::Value> = folders.map(toml::Value::from).collect();
        set(WRITABLE_ROOTS, folders.into());
    }
    for feature in provider::disabled_features(codex, installed) {
        set(&format!("features.{feature}"), OFF);
    }
    if let Some((key, value)) = provider::telemetry_override(codex) {
        set(key, value);
    }
    if environment::api_key(&environment::environment(codex)).is_some() {
        // The worker's home has a login file with the key, which another store would hide.
        set("cli_auth_credentials_store", "file".into());
    }
    set("model_catalog_json", catalogs.path(codex.profile).to_string_lossy().into_owned().into());
    match codex.profile {
        Profile::Agent => {}
        Profile::Chat => settings.extend(chat_overrides(codex, installed, &user)),
    }

    let mut arguments = vec![OsString::from("app-server")];
    let settings = settings.into_iter().map(|(key, value)| (key, value.to_string()));
    // A retry ends the turn if the client already has text of the response (see `translate::response_attempt`).
    for (key, value) in settings.chain(provider::settings(codex, installed)) {
        arguments.extend(["-c".into(), format!("{key}={value}").into()]);
    }
    arguments
}

/// Returns the overrides of `thread/start.config` for a profile. Returns an empty map for the profile of the worker.
pub(crate) fn thread_config(
    codex: &Codex,
    installed: &CliInfo,
    catalogs: &Catalogs,
    profile: Profile,
) -> Map<String, Value> {
    if profile == codex.profile {
        return Map::new();
    }
    let user = UserConfig::load(codex);
    let settings = match profile {
        Profile::Agent => agent_overrides(codex, installed, &user),
        Profile::Chat => chat_overrides(codex, installed, &user),
    };
    let json = |value| serde_json::to_value::<toml::Value>(value).unwrap_or_default();
    let mut config: Map<String, Value> =
        settings.into_iter().map(|(key, value)| (key, json(value))).collect();
    config.insert("model_catalog_json".into(), catalogs.path(profile).to_string_lossy().into());
    config
}

/// Returns the overrides of a thread whose commands use `folder` for temporary files and may not write to the folders
/// of other turns.
pub(crate) fn temp_dir_overrides(codex: &Codex, folder: &Path) -> Map<String, Value> {
    let folder = folder.to_string_lossy();
    let mut roots: Vec<Value> =
        codex.add_dirs.iter().map(|added| Value::from(added.to_string_lossy())).collect();
    if roots.is_empty()
        && let Some(toml::Value::Array(users)) = UserConfig::load(codex).get(WRITABLE_ROOTS)
    {
        roots.extend(users.iter().filter_map(toml::Value::as_str).map(Value::from));
    }
    roots.push(folder.as_ref().into());
    Map::from_iter([
        (WRITABLE_ROOTS.to_owned(), roots.into()),
        ("shell_environment_policy.set.TMPDIR".to_owned(), folder.into()),
    ])
}

/// Returns the overrides of a thread that starts none of the user's MCP servers.
pub(crate) fn without_servers(codex: &Codex) -> Map<String, Value> {
    server_switches(&UserConfig::load(codex)).map(|(key, _)| (key, false.into())).collect()
}

/// Returns the overrides that disable all tools and texts that Codex adds for the model.
fn chat_overrides(codex: &Codex, installed: &CliInfo, user: &UserConfig) -> Vec<Override> {
    let features = codex_features(codex, installed).map(|(name, _)| (format!("features.{name}"), OFF));
    let texts = PROMPT_SWITCHES.iter().map(|(key, off, _)| ((*key).to_owned(), off.clone()));
    let servers = server_switches(user).map(|(key, _)| (key, OFF));
    let uncut = (TOOL_OUTPUT_LIMIT.0.to_owned(), TOOL_OUTPUT_LIMIT.1.into());
    features.chain(texts).chain(servers).chain([uncut]).collect()
}

/// Returns the overrides that restore the user's configuration on a worker whose profile is `chat`.
fn agent_overrides(codex: &Codex, installed: &CliInfo, user: &UserConfig) -> Vec<Override> {
    let features = codex_features(codex, installed).map(|(name, on)| (format!("features.{name}"), on.into()));
    let texts =
        PROMPT_SWITCHES.iter().map(|(key, _, on)| ((*key).to_owned(), user.get(key).unwrap_or(on).clone()));
    let limit = user.get(TOOL_OUTPUT_LIMIT.0).cloned().map(|limit| (TOOL_OUTPUT_LIMIT.0.to_owned(), limit));
    features.chain(texts).chain(server_switches(user)).chain(limit).collect()
}

/// Returns the features that differ between the profiles, with their state in the user's configuration.
fn codex_features(codex: &Codex, installed: &CliInfo) -> impl Iterator<Item = (&'static str, bool)> {
    let features = CODEX_FEATURES.iter().filter(|name| codex.apps || **name != provider::APPS);
    features.filter_map(|name| Some((*name, *installed.features.get(*name)?)))
}

/// Returns the switches of the user's MCP servers. A thread with enabled servers has their tools and waits
/// for their start.
fn server_switches(user: &UserConfig) -> impl Iterator<Item = Override> {
    user.mcp_servers().filter(|(name, _)| is_bare_key(name)).map(|(name, server)| {
        let enabled = server.get("enabled").cloned().unwrap_or(ON);
        (format!("mcp_servers.{name}.enabled"), enabled)
    })
}

#[cfg(test)]
mod tests;
