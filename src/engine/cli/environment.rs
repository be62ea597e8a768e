//! Where the CLI lives: its environment and its home. Both engines start it there.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use crate::config::Codex;

/// What a home of ours holds at first: nothing that costs time or tokens.
const MINIMAL_CONFIG: &str = "\
# Made by codex-api for CODEX_CLI_HOME. It is yours: what you write here stays.
# MCP servers, skills and profiles that you configure here cost time and tokens in every turn.
";

/// The environment of the CLI.
pub(crate) fn environment(codex: &Codex) -> BTreeMap<OsString, OsString> {
    let mut env = codex.env.clone();
    if let Some(home) = &codex.cli_home {
        env.insert("HOME".into(), home.clone().into());
        // Inherited, it would win over HOME and the setting would do nothing.
        env.remove(&OsString::from("CODEX_HOME"));
    }
    if let Some(upstream) = &codex.scripted_upstream {
        env.insert("CODEX_HOME".into(), upstream.codex_home.clone().into());
        env.remove(&OsString::from("CODEX_API_KEY"));
    }
    env
}

/// Makes the home of `CODEX_CLI_HOME` usable: the folder, a minimal configuration, the user's login by reference.
/// What is there already is left alone.
pub(crate) fn prepare(codex: &Codex) -> io::Result<()> {
    let Some(home) = &codex.cli_home else { return Ok(()) };
    let folder = home.join(".codex");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let config = folder.join("config.toml");
    if !config.try_exists()? {
        fs::write(&config, MINIMAL_CONFIG)?;
    }
    let login = folder.join("auth.json");
    let users = codex_home(&codex.env).map(|home| home.join("auth.json"));
    if let Some(users) = users.filter(|users| users.exists() && *users != login)
        && login.symlink_metadata().is_err()
    {
        // A link, not a copy: two copies of a login break each other when one is refreshed.
        symlink(users, login)?;
    }
    Ok(())
}

/// Why the CLI could not live there; it must be able to write, if only its state. None if it can.
pub(crate) fn trouble(codex: &Codex) -> Option<String> {
    let env = environment(codex);
    let Some(folder) = codex_home(&env) else {
        return Some("the Codex CLI has no home: neither CODEX_HOME nor HOME is set".to_owned());
    };
    let shown = folder.display();
    if folder.is_dir() {
        let tried = tempfile::tempfile_in(&folder).err()?;
        return Some(format!("the Codex CLI cannot write in its home {shown}: {tried}"));
    }
    if folder.exists() {
        return Some(format!("the Codex CLI's home {shown} is not a folder"));
    }
    // Its usual one it makes itself.
    let named = env.get(&OsString::from("CODEX_HOME")).is_some_and(|value| !value.is_empty());
    named.then(|| format!("CODEX_HOME names {shown}, which does not exist"))
}

/// `CODEX_HOME` as the CLI would find it.
pub(crate) fn codex_home(env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let of = |name: &str| env.get(&OsString::from(name)).filter(|value| !value.is_empty());
    of("CODEX_HOME").map(PathBuf::from).or_else(|| of("HOME").map(|home| Path::new(home).join(".codex")))
}
