//! How a worker is set up: the command line of `codex app-server`, and what a single thread changes of it. Says
//! nothing about the conversation.

use std::{ffi::OsString, fs, path::Path};

use serde_json::{Map, Value};

use super::model_catalog::Catalogs;
use crate::{
    config::{Codex, Profile, Sandbox},
    engine::cli::{environment, probe::CliInfo, provider},
};

/// For a thread that has results of client tools: without it they are cut to about 48 kB. In `agent` it also frees
/// the output of Codex's own commands, so it is no default there.
pub(crate) const UNCUT: (&str, i64) = ("tool_output_token_limit", 10_000_000);

/// Folders besides the workspace.
const WRITABLE: &str = "sandbox_workspace_write.writable_roots";

/// Features that give the model tools or texts of Codex, but for those that are off in any profile.
const TOOLS: &[&str] = &[
    "shell_tool",
    "view_image",
    "apps",
    "hooks",
    "memories",
    "sleep_tool",
    "tool_suggest",
    "skill_search",
    "image_generation",
];

/// Other switches of that kind, and what they are by default.
const TEXTS: &[(&str, toml::Value, toml::Value)] = &[
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

/// One value of the configuration.
type ThreadParams = (String, toml::Value);

/// The arguments of a worker whose threads are of the configured profile, unless they say otherwise.
pub(crate) fn arguments(codex: &Codex, installed: &CliInfo, catalogs: &Catalogs) -> Vec<OsString> {
    let user = users_configuration(codex);
    let mut settings: Vec<ThreadParams> = Vec::new();
    let mut set = |key: &str, value: toml::Value| settings.push((key.to_owned(), value));
    // Otherwise every thread stays in memory for a while: 0.9 MiB each.
    set("thread_unload_delay_secs", 0.into());
    // What a thread says of these wins; this is for a thread that says nothing.
    set("approval_policy", codex.approval_policy.as_str().into());
    set("sandbox_mode", codex.sandbox.as_str().into());
    set("web_search", if codex.search { "live" } else { "disabled" }.into());
    // By default a command of the agent sees everything that Codex sees, its upstream's key included.
    set("shell_environment_policy.inherit", "core".into());
    set("sandbox_workspace_write.exclude_slash_tmp", ON);
    // Each turn that may write has a folder of its own for that.
    set("sandbox_workspace_write.exclude_tmpdir_env_var", ON);
    if codex.sandbox != Sandbox::ReadOnly && !codex.add_dirs.is_empty() {
        let folders = codex.add_dirs.iter().map(|folder| folder.to_string_lossy().into_owned());
        let folders: Vec<toml::Value> = folders.map(toml::Value::from).collect();
        set(WRITABLE, folders.into());
    }
    for feature in provider::SWITCHED_OFF.iter().filter(|name| installed.features.contains_key(**name)) {
        set(&format!("features.{feature}"), OFF);
    }
    set("model_catalog_json", catalogs.of(codex.profile).to_string_lossy().into_owned().into());
    match codex.profile {
        Profile::Agent => {}
        Profile::Chat => settings.extend(bare(installed, &user)),
    }

    let mut arguments = vec![OsString::from("app-server")];
    let settings = settings.into_iter().map(|(key, value)| (key, value.to_string()));
    // Once the client has text of a response that broke off, the turn ends: see `attempt`.
    for (key, value) in settings.chain(provider::settings(codex, codex.upstream_retries)) {
        arguments.extend(["-c".into(), format!("{key}={value}").into()]);
    }
    arguments
}

/// What makes a thread one of `profile`, for `thread/start.config`: nothing where the worker is that already.
pub(crate) fn thread_config(
    codex: &Codex,
    installed: &CliInfo,
    catalogs: &Catalogs,
    profile: Profile,
) -> Map<String, Value> {
    if profile == codex.profile {
        return Map::new();
    }
    let user = users_configuration(codex);
    let settings = match profile {
        Profile::Agent => dressed(installed, &user),
        Profile::Chat => bare(installed, &user),
    };
    let json = |value| serde_json::to_value::<toml::Value>(value).unwrap_or_default();
    let mut config: Map<String, Value> =
        settings.into_iter().map(|(key, value)| (key, json(value))).collect();
    config.insert("model_catalog_json".into(), catalogs.of(profile).to_string_lossy().into());
    config
}

/// For a thread whose commands have `folder` for their temporary files, and may write to no other such folder.
pub(crate) fn with_folder(codex: &Codex, folder: &Path) -> Map<String, Value> {
    let folder = folder.to_string_lossy();
    let mut roots: Vec<Value> =
        codex.add_dirs.iter().map(|added| Value::from(added.to_string_lossy())).collect();
    if roots.is_empty()
        && let Some(toml::Value::Array(users)) = lookup(&users_configuration(codex), WRITABLE)
    {
        roots.extend(users.iter().filter_map(toml::Value::as_str).map(Value::from));
    }
    roots.push(folder.as_ref().into());
    Map::from_iter([
        (WRITABLE.to_owned(), roots.into()),
        ("shell_environment_policy.set.TMPDIR".to_owned(), folder.into()),
    ])
}

/// For a thread of our own that no MCP server of the user is to be started for.
pub(crate) fn without_servers(codex: &Codex) -> Map<String, Value> {
    servers(&users_configuration(codex)).map(|(key, _)| (key, false.into())).collect()
}

/// Everything of Codex is off.
fn bare(installed: &CliInfo, user: &toml::Table) -> Vec<ThreadParams> {
    let features = TOOLS.iter().filter(|name| installed.features.contains_key(**name));
    let features = features.map(|name| (format!("features.{name}"), OFF));
    let texts = TEXTS.iter().map(|(key, off, _)| ((*key).to_owned(), off.clone()));
    let servers = servers(user).map(|(key, _)| (key, OFF));
    let uncut = (UNCUT.0.to_owned(), UNCUT.1.into());
    features.chain(texts).chain(servers).chain([uncut]).collect()
}

/// Everything is as the user has it, on a worker where it is off.
fn dressed(installed: &CliInfo, user: &toml::Table) -> Vec<ThreadParams> {
    let features = TOOLS.iter().filter_map(|name| Some((*name, *installed.features.get(*name)?)));
    let features = features.map(|(name, on)| (format!("features.{name}"), on.into()));
    let texts = TEXTS.iter().map(|(key, _, on)| ((*key).to_owned(), lookup(user, key).unwrap_or(on).clone()));
    let limit = user.get(UNCUT.0).cloned().map(|limit| (UNCUT.0.to_owned(), limit));
    features.chain(texts).chain(servers(user)).chain(limit).collect()
}

/// The value at a dotted key.
fn lookup<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

/// The switches of the user's MCP servers: a thread would have their tools, and wait for them to start.
fn servers(user: &toml::Table) -> impl Iterator<Item = ThreadParams> {
    let servers = user.get("mcp_servers").and_then(toml::Value::as_table).into_iter().flatten();
    servers.filter(|(name, _)| is_plain(name)).map(|(name, server)| {
        let on = server.get("enabled").cloned().unwrap_or(ON);
        (format!("mcp_servers.{name}.enabled"), on)
    })
}

/// Whether a name can stand in a dotted key: the CLI takes no other for a server, and no quotes in a key.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn users_configuration(codex: &Codex) -> toml::Table {
    let read = || {
        fs::read_to_string(environment::codex_home(&environment::environment(codex))?.join("config.toml"))
            .ok()
    };
    read().and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
