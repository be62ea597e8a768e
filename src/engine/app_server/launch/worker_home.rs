//! Private folders of the app-server engine. Each worker has a `CODEX_HOME` of its own, in memory if there is room.
//! The home contains links to the user's files, except for files that grow or belong to one process. A server removes
//! the folders of killed servers when it starts.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    config::{Codex, Sandbox},
    engine::{
        cli::{
            environment,
            probe::{CliInfo, major_minor},
        },
        process::platform::{SCRATCH_DIR, is_in_memory, pid_namespace, start_ticks},
    },
};

/// Minimum free bytes of a tmpfs. The default size in a container is 64 MiB.
const MIN_FREE_BYTES: u64 = 32 << 20;

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
    dir: TempDir,
    env: BTreeMap<OsString, OsString>,
}

impl WorkerHome {
    /// Creates a home.
    pub(crate) fn create(codex: &Codex, installed: &CliInfo) -> io::Result<Self> {
        Self::create_in(&private_dir_root(codex), codex, installed)
    }

    fn create_in(root: &Path, codex: &Codex, installed: &CliInfo) -> io::Result<Self> {
        let dir = create_dir(root)?;
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
        Ok(Self { dir, env })
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

    /// Returns the folder, for the process that removes it at its exit.
    pub(crate) fn into_dir(self) -> TempDir {
        self.dir
    }
}

/// Creates the folder that all workers share, and removes the folders of killed servers.
pub(crate) fn create_private_dir(codex: &Codex) -> io::Result<TempDir> {
    for root in SCRATCH_DIR.map(Path::new).into_iter().chain([codex.scratch.as_path()]) {
        if let Err(error) = remove_orphaned_dirs(root) {
            tracing::debug!(%error, root = %root.display(), "cannot search for folders of killed servers");
        }
    }
    create_dir(&private_dir_root(codex))
}

/// Creates the folder for temporary files of commands, on disk because they may be large. Returns `None` if commands
/// may not write.
pub(crate) fn create_commands_dir(codex: &Codex) -> io::Result<Option<TempDir>> {
    match codex.sandbox {
        Sandbox::ReadOnly => Ok(None),
        Sandbox::WorkspaceWrite | Sandbox::DangerFullAccess => create_dir(&codex.scratch).map(Some),
    }
}

/// Returns the parent of private folders: a tmpfs with enough room, otherwise the scratch folder.
fn private_dir_root(codex: &Codex) -> PathBuf {
    let memory = SCRATCH_DIR.map(Path::new).filter(|dir| is_in_memory(dir, MIN_FREE_BYTES));
    memory.filter(|dir| create_dir(dir).is_ok()).map_or_else(|| codex.scratch.clone(), Path::to_owned)
}

/// Creates a folder that only this user can read. If this server is killed, [`remove_orphaned_dirs`] finds the
/// folder by its name.
fn create_dir(root: &Path) -> io::Result<TempDir> {
    let owner_only = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix(&DirOwner::current()?.prefix()).permissions(owner_only).tempdir_in(root)
}

/// Removes the folders of servers that no longer run.
fn remove_orphaned_dirs(root: &Path) -> io::Result<()> {
    let current = DirOwner::current()?;
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(root)?.flatten() {
        let Some(owner) = DirOwner::parse(&entry.file_name()) else { continue };
        // A PID of another namespace does not identify the owner.
        let is_orphaned =
            owner.namespace == current.namespace && start_ticks(owner.pid) != Some(owner.start_ticks);
        let is_own = entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == user);
        if is_orphaned && is_own {
            tracing::info!(folder = %entry.path().display(), "removing the folder of a killed server");
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

/// The owner of a folder. The start time distinguishes the owner from a later process with the same PID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DirOwner {
    namespace: u64,
    pid: u32,
    start_ticks: u64,
}

impl DirOwner {
    fn current() -> io::Result<Self> {
        let namespace = pid_namespace()?;
        let pid = std::process::id();
        let start_ticks =
            start_ticks(pid).ok_or_else(|| io::Error::other("the start time of this process is unknown"))?;
        Ok(Self { namespace, pid, start_ticks })
    }

    fn prefix(self) -> String {
        format!("codex-api-worker-{}-{}-{}-", self.namespace, self.pid, self.start_ticks)
    }

    fn parse(name: &OsStr) -> Option<Self> {
        let mut parts = name.to_str()?.strip_prefix("codex-api-worker-")?.split('-');
        let namespace = parts.next()?.parse().ok()?;
        let pid = parts.next()?.parse().ok()?;
        let start_ticks = parts.next()?.parse().ok()?;
        parts.next()?;
        Some(Self { namespace, pid, start_ticks })
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
