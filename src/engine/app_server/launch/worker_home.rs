//! Private folders of the app-server engine. Each worker has a `CODEX_HOME` of its own, in memory if there is room.
//! The home contains links to the user's files, except for files that grow or belong to one process.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::{
    config::{Codex, Sandbox},
    engine::{
        cli::{
            environment,
            probe::{CliInfo, major_minor},
            tls_roots::TlsRoots,
        },
        process::private_dir::PrivateDir,
    },
};

/// Files that belong to one process or grow with each turn. `config.toml` is copied, databases (`*.sqlite`) are left out,
/// and all other files are linked.
const PER_PROCESS_FILES: &[&str] = &[
    "sessions",
    "archived_sessions",
    "session_index.jsonl",
    "history.jsonl",
    "shell_snapshots",
    "thread-writer-locks",
    "process_manager",
    "log",
    "tmp",
    ".tmp",
    "cache",
    "packages",
];

/// Login files. The home links them before they exist, because the CLI writes through the link.
const CREDENTIAL_FILES: &[&str] = &["auth.json", ".credentials.json"];

/// The log database of the CLI. The file grows by 30 kB per turn, and no option disables the log (0.169).
const LOG_DATABASE: &str = "logs_2.sqlite";

/// The home of one worker. The folder is removed when the home is dropped.
#[derive(Debug)]
pub(crate) struct WorkerHome {
    dir: PrivateDir,
    env: BTreeMap<OsString, OsString>,
    seeds_dir: PathBuf,
}

impl WorkerHome {
    /// Creates a home.
    pub(crate) fn create(codex: &Codex, installed: &CliInfo) -> io::Result<Self> {
        Self::create_in(PrivateDir::create(&codex.scratch, 0)?, codex, installed)
    }

    fn create_in(dir: PrivateDir, codex: &Codex, installed: &CliInfo) -> io::Result<Self> {
        let mut env = environment::environment(codex);
        let key = environment::api_key(&env);
        env.remove(OsStr::new(environment::API_KEY));
        if let Some(users) = environment::codex_home(&env) {
            link_user_files(dir.path(), &users, key.is_some())?;
        }
        if let Some(key) = key {
            write_login(dir.path(), &key)?;
            // An app-server prefers the token to the login file, whereas `codex exec` prefers the key to both.
            env.remove(OsStr::new(environment::ACCESS_TOKEN));
        }
        if major_minor(&installed.version) >= (0, 169) {
            // The CLI cannot open a folder as a database and continues without the log. Older versions (0.140) hang.
            fs::create_dir(dir.path().join(LOG_DATABASE))?;
        }
        add_no_proxy_loopback(&mut env);
        env.insert("CODEX_HOME".into(), dir.path().into());
        env.insert("CODEX_SQLITE_HOME".into(), dir.path().into());
        // This folder is for the CLI itself. Commands that may write have a folder for each turn.
        let temp_dir = dir.path().join("own-tmp");
        fs::create_dir(&temp_dir)?;
        env.insert("TMPDIR".into(), temp_dir.into());
        TlsRoots::find(codex, installed).install(dir.path(), &mut env)?;
        let seeds_dir = dir.path().join("own-seeds");
        fs::create_dir(&seeds_dir)?;
        Ok(Self { dir, env, seeds_dir })
    }

    /// Returns the `CODEX_HOME`.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the whole environment of the worker.
    pub(crate) fn env(&self) -> BTreeMap<OsString, OsString> {
        self.env.clone()
    }

    /// Returns the folder of the worker's seeds, which is removed with the home.
    pub(crate) fn seeds_dir(&self) -> &Path {
        &self.seeds_dir
    }

    /// Returns the folder, for the process that removes it at its exit.
    pub(crate) fn into_dir(self) -> PrivateDir {
        self.dir
    }
}

/// Creates the folder that all workers share.
pub(crate) fn create_private_dir(codex: &Codex) -> io::Result<PrivateDir> {
    PrivateDir::create(&codex.scratch, 0)
}

/// Creates the folder for temporary files of commands, on disk because they may be large. Returns `None` if commands
/// may not write.
pub(crate) fn create_commands_dir(codex: &Codex) -> io::Result<Option<PrivateDir>> {
    match codex.sandbox {
        Sandbox::ReadOnly => Ok(None),
        Sandbox::WorkspaceWrite | Sandbox::DangerFullAccess => {
            PrivateDir::create_in(&codex.scratch).map(Some)
        }
    }
}

/// Links the user's files and copies the configuration.
fn link_user_files(home: &Path, users: &Path, own_login: bool) -> io::Result<()> {
    let users = std::path::absolute(users)?;
    let entries = match fs::read_dir(&users) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let names = entries.iter().map(fs::DirEntry::file_name);
    let logins = CREDENTIAL_FILES.iter().map(OsString::from);
    let names: std::collections::BTreeSet<OsString> = names.chain(logins).collect();
    for name in names {
        let text = name.to_string_lossy();
        let replaced = own_login && text == "auth.json";
        if PER_PROCESS_FILES.contains(&&*text) || text.contains(".sqlite") || replaced {
            continue;
        }
        let (source, target) = (users.join(&name), home.join(&name));
        if text == "config.toml" {
            // The home has a copy, because 0.140 writes trusted folders to this file.
            write_private_file(&target, &strip_sqlite_home(fs::read(&source)?))?;
        } else {
            symlink(source, target)?;
        }
    }
    Ok(())
}

/// Removes `sqlite_home`, which has precedence over `CODEX_SQLITE_HOME`.
fn strip_sqlite_home(config: Vec<u8>) -> Vec<u8> {
    let table = std::str::from_utf8(&config).ok().and_then(|text| text.parse::<toml::Table>().ok());
    // The CLI reports an invalid file itself.
    let Some(mut table) = table else { return config };
    if table.remove("sqlite_home").is_none() {
        return config;
    }
    table.to_string().into_bytes()
}

/// Excludes loopback from the proxy, because this server serves the worker on loopback.
fn add_no_proxy_loopback(env: &mut BTreeMap<OsString, OsString>) {
    let proxies = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    if !proxies.iter().any(|name| env.contains_key(OsStr::new(name))) {
        return;
    }
    let inherited = ["NO_PROXY", "no_proxy"].iter().find_map(|name| env.get(OsStr::new(name)));
    let mut excluded = inherited.cloned().unwrap_or_default();
    if !excluded.is_empty() {
        excluded.push(",");
    }
    excluded.push("127.0.0.1,localhost");
    for name in ["NO_PROXY", "no_proxy"] {
        env.insert(name.into(), excluded.clone());
    }
}

/// Writes a login file with the key of `CODEX_API_KEY`, which only `codex exec` reads from the environment. A key is
/// never refreshed, so the copy invalidates no other login.
fn write_login(home: &Path, key: &str) -> io::Result<()> {
    let login = serde_json::json!({"auth_mode": "apikey", "OPENAI_API_KEY": key});
    write_private_file(&home.join("auth.json"), login.to_string().as_bytes())
}

fn write_private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

#[cfg(test)]
mod tests;
