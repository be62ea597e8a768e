//! The private folders of the warm engine: for each worker a `CODEX_HOME` in memory, in which the user's own things
//! are links and only what grows or belongs to one process is real. Also finds what killed servers left behind.

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
            probe::{CliInfo, numbers},
        },
        process::procfs::started,
    },
};

/// Where Linux keeps memory that looks like a folder.
const MEMORY: &str = "/dev/shm";

/// What `statfs` says of a tmpfs.
const TMPFS: i128 = 0x0102_1994;

/// Least free bytes of it that are worth using; a container's default is 64 MiB.
const ROOM: i128 = 32 << 20;

/// State of one process, or what grows with every turn. Everything else in the user's home is the user's.
const OWN: &[&str] = &[
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

/// Logins. Linked even before they exist: the CLI writes through the link, so that there is one of each.
const LOGINS: &[&str] = &["auth.json", ".credentials.json"];

/// The log database of the CLI, which grows by 30 kB a turn and which no option turns off.
const LOG_DATABASE: &str = "logs_2.sqlite";

/// A home for one worker. Removed when dropped.
#[derive(Debug)]
pub(crate) struct WorkerHome {
    folder: TempDir,
    env: BTreeMap<OsString, OsString>,
}

impl WorkerHome {
    /// Makes one.
    pub(crate) fn make(codex: &Codex, installed: &CliInfo) -> io::Result<Self> {
        Self::make_in(&place(codex), codex, installed)
    }

    fn make_in(place: &Path, codex: &Codex, installed: &CliInfo) -> io::Result<Self> {
        let folder = folder(place)?;
        let mut env = environment::environment(codex);
        let key = OsString::from("CODEX_API_KEY");
        let key = env.remove(&key).filter(|key| !key.is_empty());
        if let Some(users) = environment::codex_home(&env) {
            furnish(folder.path(), &users, key.is_some())?;
        }
        if let Some(key) = key {
            write_login(folder.path(), &key)?;
        }
        if numbers(&installed.version) >= (0, 169) {
            // As a folder it cannot be opened, and the CLI goes on without. Older ones (0.140) never answer again.
            fs::create_dir(folder.path().join(LOG_DATABASE))?;
        }
        spare_loopback(&mut env);
        env.insert("CODEX_HOME".into(), folder.path().into());
        env.insert("CODEX_SQLITE_HOME".into(), folder.path().into());
        // For the CLI itself, which leaves little there; commands that write have a folder each.
        let temporary = folder.path().join("own-tmp");
        fs::create_dir(&temporary)?;
        env.insert("TMPDIR".into(), temporary.into());
        Ok(Self { folder, env })
    }

    /// `CODEX_HOME`.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The whole environment of the worker.
    pub(crate) fn env(&self) -> BTreeMap<OsString, OsString> {
        self.env.clone()
    }

    /// Hands the folder over to the process that lives in it, which is to remove it.
    pub(crate) fn into_folder(self) -> TempDir {
        self.folder
    }
}

/// A folder for what all workers share. Made at the start, when it is time to remove what killed servers left.
pub(crate) fn private_folder(codex: &Codex) -> io::Result<TempDir> {
    for place in [Path::new(MEMORY), &codex.scratch] {
        if let Err(error) = sweep(place) {
            tracing::debug!(%error, place = %place.display(), "leftovers cannot be looked for");
        }
    }
    folder(&place(codex))
}

/// A folder for what commands of a worker's turns write, which may be much: not in memory. None where they write
/// nothing.
pub(crate) fn commands_folder(codex: &Codex) -> io::Result<Option<TempDir>> {
    match codex.sandbox {
        Sandbox::ReadOnly => Ok(None),
        Sandbox::WorkspaceWrite | Sandbox::DangerFullAccess => folder(&codex.scratch).map(Some),
    }
}

/// Where private folders go: into memory where there is enough, else to the scratch folder.
fn place(codex: &Codex) -> PathBuf {
    let memory = Path::new(MEMORY);
    if in_memory(memory) && folder(memory).is_ok() { memory.to_owned() } else { codex.scratch.clone() }
}

fn in_memory(path: &Path) -> bool {
    let Ok(found) = rustix::fs::statfs(path) else { return false };
    // Of differing widths on differing machines.
    let (kind, size) = (i128::from(found.f_type), i128::from(found.f_bsize));
    kind == TMPFS && i128::from(found.f_bavail).saturating_mul(size) >= ROOM
}

/// A folder of this process that nobody else can read, and that [`sweep`] finds when we were killed.
fn folder(place: &Path) -> io::Result<TempDir> {
    let ours = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix(&DirOwner::ourselves()?.prefix()).permissions(ours).tempdir_in(place)
}

/// Removes the folders of servers that are gone.
fn sweep(place: &Path) -> io::Result<()> {
    let ourselves = DirOwner::ourselves()?;
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(place)?.flatten() {
        let Some(owner) = DirOwner::of(&entry.file_name()) else { continue };
        // Where process ids are counted differently, nothing can be said about the owner.
        let orphan = owner.namespace == ourselves.namespace && started(owner.pid) != Some(owner.started);
        let ours = entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == user);
        if orphan && ours {
            tracing::info!(folder = %entry.path().display(), "a folder of a server that is gone is removed");
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

/// Whose a folder is: a process id alone may be somebody else's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DirOwner {
    namespace: u64,
    pid: u32,
    started: u64,
}

impl DirOwner {
    fn ourselves() -> io::Result<Self> {
        let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
        let pid = std::process::id();
        let started = started(pid).ok_or_else(|| io::Error::other("/proc/self/stat cannot be read"))?;
        Ok(Self { namespace, pid, started })
    }

    fn prefix(self) -> String {
        format!("codex-api-worker-{}-{}-{}-", self.namespace, self.pid, self.started)
    }

    fn of(name: &OsStr) -> Option<Self> {
        let mut parts = name.to_str()?.strip_prefix("codex-api-worker-")?.split('-');
        let namespace = parts.next()?.parse().ok()?;
        let pid = parts.next()?.parse().ok()?;
        let started = parts.next()?.parse().ok()?;
        parts.next()?;
        Some(Self { namespace, pid, started })
    }
}

/// Links the user's things, and copies what the CLI might change.
fn furnish(home: &Path, users: &Path, own_login: bool) -> io::Result<()> {
    let users = std::path::absolute(users)?;
    let entries = match fs::read_dir(&users) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let names = entries.iter().map(fs::DirEntry::file_name);
    let logins = LOGINS.iter().map(OsString::from);
    let names: std::collections::BTreeSet<OsString> = names.chain(logins).collect();
    for name in names {
        let text = name.to_string_lossy();
        let replaced = own_login && text == "auth.json";
        if OWN.contains(&&*text) || text.contains(".sqlite") || replaced {
            continue;
        }
        let (theirs, ours) = (users.join(&name), home.join(&name));
        if text == "config.toml" {
            // Not a link: 0.140 writes into it which folders it trusts.
            private_file(&ours, &own_state(fs::read(&theirs)?))?;
        } else {
            symlink(theirs, ours)?;
        }
    }
    Ok(())
}

/// Takes out where the user keeps the CLI's databases: it would win over `CODEX_SQLITE_HOME`.
fn own_state(config: Vec<u8>) -> Vec<u8> {
    let table = std::str::from_utf8(&config).ok().and_then(|text| text.parse::<toml::Table>().ok());
    // What cannot be read is for the CLI to complain about.
    let Some(mut table) = table else { return config };
    if table.remove("sqlite_home").is_none() {
        return config;
    }
    table.to_string().into_bytes()
}

/// Proxies are for the world: what we serve to the worker ourselves is on this machine.
fn spare_loopback(env: &mut BTreeMap<OsString, OsString>) {
    let proxied = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    if !proxied.iter().any(|name| env.contains_key(OsStr::new(name))) {
        return;
    }
    let given = ["NO_PROXY", "no_proxy"].iter().find_map(|name| env.get(OsStr::new(name)));
    let mut spared = given.cloned().unwrap_or_default();
    if !spared.is_empty() {
        spared.push(",");
    }
    spared.push("127.0.0.1,localhost");
    for name in ["NO_PROXY", "no_proxy"] {
        env.insert(name.into(), spared.clone());
    }
}

/// The login that `codex exec` takes from `CODEX_API_KEY`, and the app-server does not. A key is never refreshed, so
/// this copy breaks no other.
fn write_login(home: &Path, key: &OsStr) -> io::Result<()> {
    let login = serde_json::json!({"auth_mode": "apikey", "OPENAI_API_KEY": key.to_string_lossy()});
    private_file(&home.join("auth.json"), login.to_string().as_bytes())
}

fn private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

#[cfg(test)]
mod tests;
