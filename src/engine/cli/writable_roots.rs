//! The folders that the agent's commands may write to, compared with everything that the server runs or reads outside of
//! the sandbox. A command that replaces the CLI or writes `.env` would leave the sandbox at the next start of a process.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::{OsStr, OsString},
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
};

use super::{environment, locate, user_config::UserConfig};
use crate::{
    config::{Codex, Sandbox},
    engine::{Check, process::platform::SCRATCH_DIR},
};

/// Name of the doctor's check.
const CHECK: &str = "writable folders";

/// Maximum number of links in a path, as in Linux.
const MAX_LINKS: usize = 40;

/// Maximum number of things that one finding names.
const MAX_NAMED: usize = 4;

/// Extensions of programs that an interpreter runs.
const SCRIPTS: &[&str] = &["js", "mjs", "cjs", "ts", "py", "sh", "rb", "pl", "jar", "php", "lua"];

/// The reason why no process may start: commands of the agent can write to what the server runs or reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct WritableError(Vec<String>);

/// Checks that no writable folder is at, above or below anything that the server runs or reads. `supervisor` is the
/// `codex-api` executable. Requests can only narrow the sandbox, so the configured one decides.
pub(crate) fn check(codex: &Codex, supervisor: &Path) -> Result<(), WritableError> {
    if codex.sandbox != Sandbox::WorkspaceWrite {
        return Ok(());
    }
    let config = UserConfig::load(codex);
    let roots = roots(codex, &config);
    let used = used(codex, &config, supervisor);
    let mut findings: Vec<String> = roots.iter().filter_map(|root| conflict(root, &used)).collect();
    let workspace = Place::new(&codex.workspace);
    for root in roots.iter().filter(|root| root.setting != WORKSPACE) {
        if workspace.target != root.place.target && root.holds(&workspace) {
            findings.push(format!(
                "commands of the agent can replace the workspace by a link to any folder, because {} ({}) is above it",
                root.place.target.display(),
                root.setting
            ));
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(WritableError(findings)) }
}

/// The remedy of a [`WritableError`].
pub(crate) const REMEDY: &str = "set CODEX_WORKSPACE, CODEX_ADD_DIRS and writable_roots to folders of their own, which \
                                 hold nothing that the server runs or reads (without `.env`: set CODEX_NO_DOTENV=1), or \
                                 set CODEX_SANDBOX=read-only";

/// Returns the checks of the writable folders and of the workspace, for the doctor and for the start of the server.
pub(crate) fn examine(codex: &Codex, supervisor: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    match (codex.sandbox, check(codex, supervisor)) {
        (_, Err(error)) => checks.push(Check::failed(CHECK, error.to_string(), REMEDY)),
        (Sandbox::DangerFullAccess, Ok(())) => checks.push(Check::warning(
            CHECK,
            "danger-full-access: commands of the agent can write to everything that this user can, such as the CLI, \
             this program and the login"
                .into(),
            "set CODEX_SANDBOX to read-only or workspace-write, or run the server as a user of its own in a container",
        )),
        (Sandbox::WorkspaceWrite, Ok(())) => {
            checks.push(Check::passed(CHECK, "hold nothing that the server runs or reads".into()));
        }
        (Sandbox::ReadOnly, Ok(())) => {}
    }
    checks.extend(workspace_warnings(codex));
    checks
}

/// Returns what the operator should know about the workspace, whatever the sandbox is.
fn workspace_warnings(codex: &Codex) -> Vec<Check> {
    let mut warnings = Vec::new();
    let mut warn = |finding: String, remedy| warnings.push(Check::warning(CHECK, finding, remedy));
    let workspace = Place::new(&codex.workspace);
    let shown = workspace.target.display();
    let own_folder = "set CODEX_WORKSPACE to a folder of its own";
    let home = codex.env.get(OsStr::new("HOME")).filter(|home| !home.is_empty());
    if workspace.target == Path::new("/") {
        warn("the workspace is /: the agent works on the whole machine".into(), own_folder);
    } else if home.is_some_and(|home| workspace.holds(&Place::new(Path::new(home)))) {
        warn(format!("the workspace {shown} contains the user's home, with its logins"), own_folder);
    }
    if let Some(dotenv) = codex.dotenv_file.as_ref().filter(|file| file.exists())
        && workspace.holds(&Place::new(dotenv))
    {
        warn(
            format!("commands of the agent can read {}, with the secrets in it", dotenv.display()),
            "keep .env out of the workspace: set CODEX_WORKSPACE to another folder, or move the secrets to the \
             environment of the server",
        );
    }
    if let Ok(meta) = fs::metadata(&workspace.target) {
        let user = rustix::process::geteuid().as_raw();
        if meta.uid() != user && meta.uid() != 0 {
            warn(
                format!(
                    "the workspace {shown} belongs to another user (uid {}), who controls what the agent reads",
                    meta.uid()
                ),
                "let the server's user own the workspace",
            );
        }
        if meta.mode() & 0o002 != 0 {
            warn(
                format!(
                    "every user of this machine can write to the workspace {shown}, and so instruct the agent"
                ),
                "remove the write permission of other users: chmod o-w",
            );
        }
    }
    warnings
}

/// The setting of the workspace as a writable folder.
const WORKSPACE: &str = "the workspace";

/// A folder that commands may write to.
#[derive(Debug)]
struct Root {
    setting: &'static str,
    place: Place,
}

impl Root {
    fn holds(&self, other: &Place) -> bool {
        self.place.holds(other)
    }
}

/// Something that the server runs or reads.
#[derive(Debug)]
struct Used {
    what: &'static str,
    place: Place,
    /// Whether everything below is used too.
    is_tree: bool,
}

/// A path after links, with the place of every link on the way. Whoever can replace one of them changes what the path
/// names. The path may not exist.
#[derive(Debug)]
struct Place {
    target: PathBuf,
    links: Vec<PathBuf>,
}

impl Place {
    fn new(path: &Path) -> Self {
        let mut todo: VecDeque<OsString> =
            path.components().map(|part| part.as_os_str().to_owned()).collect();
        let (mut target, mut links) = (PathBuf::from("/"), Vec::new());
        while let Some(part) = todo.pop_front() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => target = PathBuf::from("/"),
                Some(Component::ParentDir) => drop(target.pop()),
                Some(Component::Normal(name)) => {
                    let next = target.join(name);
                    match fs::read_link(&next) {
                        Ok(link) if links.len() < MAX_LINKS => {
                            links.push(next);
                            for part in link.components().rev() {
                                todo.push_front(part.as_os_str().to_owned());
                            }
                        }
                        Ok(_) | Err(_) => target = next,
                    }
                }
                Some(Component::CurDir | Component::Prefix(_)) | None => {}
            }
        }
        Self { target, links }
    }

    /// Returns `true` if the other path or a link on its way is at this folder or below it.
    fn holds(&self, other: &Self) -> bool {
        let places = other.links.iter().chain([&other.target]);
        places.into_iter().any(|place| is_within(place, &self.target))
    }
}

/// Returns `true` if `inner` is `outer` or below it, also under another name of the folder, such as a bind mount.
fn is_within(inner: &Path, outer: &Path) -> bool {
    if inner.starts_with(outer) {
        return true;
    }
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    id(outer).is_some_and(|outer| inner.ancestors().any(|folder| id(folder) == Some(outer)))
}

/// Returns the finding about a folder that holds something used or is a part of it.
fn conflict(root: &Root, used: &[Used]) -> Option<String> {
    let shown = root.place.target.display();
    let setting = root.setting;
    let names = |things: Vec<&Used>| {
        // One of each kind, in the order of their importance.
        let mut kinds = BTreeSet::new();
        let named: Vec<_> = things.into_iter().filter(|thing| kinds.insert(thing.what)).collect();
        let more = named.len().saturating_sub(MAX_NAMED);
        let name = |thing: &Used| format!("{} ({})", thing.what, thing.place.target.display());
        let mut text = named.into_iter().take(MAX_NAMED).map(name).collect::<Vec<_>>().join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    };
    let held: Vec<&Used> = used.iter().filter(|thing| root.holds(&thing.place)).collect();
    if !held.is_empty() {
        return Some(format!(
            "commands of the agent can write to {shown} ({setting}), where the server runs or reads {}",
            names(held)
        ));
    }
    let around: Vec<&Used> =
        used.iter().filter(|thing| thing.is_tree && thing.place.holds(&root.place)).collect();
    (!around.is_empty()).then(|| {
        format!("commands of the agent can write to {shown} ({setting}), a part of {}", names(around))
    })
}

/// Returns the folders that commands may write to with `workspace-write`. `/tmp` and `TMPDIR` are none: the server
/// excludes both, and gives each turn a folder of its own.
fn roots(codex: &Codex, config: &UserConfig) -> Vec<Root> {
    let mut roots = vec![Root { setting: WORKSPACE, place: Place::new(&codex.workspace) }];
    for folder in &codex.add_dirs {
        roots.push(Root { setting: "CODEX_ADD_DIRS", place: Place::new(folder) });
    }
    let home = environment::codex_home(&environment::environment(codex));
    for folder in config.writable_roots() {
        let folder = expand(folder, codex, home.as_deref());
        roots.push(Root { setting: "writable_roots of config.toml", place: Place::new(&folder) });
    }
    roots
}

/// Returns an absolute path for a path in the CLI's configuration.
fn expand(path: &str, codex: &Codex, codex_home: Option<&Path>) -> PathBuf {
    let home = environment::environment(codex).remove(OsStr::new("HOME")).map(PathBuf::from);
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => codex_home.unwrap_or(&codex.workspace).join(path),
    }
}

/// Returns everything that the server and the CLI run or read outside of the sandbox.
fn used(codex: &Codex, config: &UserConfig, supervisor: &Path) -> Vec<Used> {
    let mut used = Vec::new();
    let mut add = |what: &'static str, path: &Path, is_tree: bool| {
        used.push(Used { what, place: Place::new(path), is_tree });
    };
    add("the codex-api executable", supervisor, false);
    if let Some(file) = &codex.dotenv_file {
        add(".env", file, false);
    }
    let env = environment::environment(codex);
    for program in locate::programs(codex.bin.as_deref(), &env) {
        add("the Codex CLI", &program, false);
        let program = Place::new(&program).target;
        if let Some(package) = package(&program) {
            add("the package of the Codex CLI", package, true);
        }
        if let Some(interpreter) = interpreter(&program, &env) {
            add("the interpreter of the Codex CLI", &interpreter, false);
        }
    }
    // The CLI runs programs such as git by their names.
    for folder in env.get(OsStr::new("PATH")).map(std::env::split_paths).into_iter().flatten() {
        add("a folder of PATH", &absolute(&folder, codex), false);
    }
    if let Some(home) = environment::codex_home(&env) {
        let home = absolute(&home, codex);
        add("the home of the Codex CLI", &home, true);
        for name in ["config.toml", "auth.json", ".env"] {
            add("a file of the Codex CLI", &home.join(name), false);
        }
        // A home may consist of links.
        for entry in fs::read_dir(&home).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                add("a file of the Codex CLI", &entry.path(), false);
            }
        }
    }
    for home in [env.get(OsStr::new("HOME")), codex.env.get(OsStr::new("HOME"))].into_iter().flatten() {
        if !home.is_empty() {
            add("the home folder", &absolute(Path::new(home), codex), false);
        }
    }
    add("the server's temporary folder (TMPDIR)", &codex.scratch, false);
    if let Some(memory) = SCRATCH_DIR {
        add("the server's folder in memory", Path::new(memory), false);
    }
    add("the system's configuration of Codex", Path::new("/etc/codex"), true);
    for name in ["CODEX_CA_CERTIFICATE", "SSL_CERT_FILE"] {
        if let Some(file) = env.get(OsStr::new(name)).filter(|file| !file.is_empty()) {
            add("the trusted certificates", &absolute(Path::new(file), codex), false);
        }
    }
    for name in CODE_VARIABLES {
        for variables in [&env, &codex.env] {
            for path in variables.get(OsStr::new(name)).into_iter().flat_map(|value| paths_in(name, value)) {
                add(
                    "a path in a variable that programs load code or settings from",
                    &absolute(&path, codex),
                    false,
                );
            }
        }
    }
    for program in configured_programs(config) {
        add("a program of config.toml", Path::new(&program), false);
    }
    used
}

/// Variables with paths from which the loader, the CLI's interpreter or the programs that the CLI runs outside of the
/// sandbox load code or settings.
const CODE_VARIABLES: [&str; 26] = [
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LD_AUDIT",
    "DYLD_LIBRARY_PATH",
    "DYLD_INSERT_LIBRARIES",
    "DYLD_FRAMEWORK_PATH",
    "GCONV_PATH",
    "LOCPATH",
    "SSL_CERT_DIR",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "OPENSSL_ENGINES",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "BASH_ENV",
    "ENV",
    "ZDOTDIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "PERL5LIB",
    "RUBYLIB",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_EXEC_PATH",
    "XDG_CONFIG_HOME",
];

/// Returns the paths of a variable: a list, a path, or options with paths. An empty entry of a list of folders is the current
/// folder.
fn paths_in(name: &str, value: &OsStr) -> Vec<PathBuf> {
    let is_list = matches!(name, "LD_LIBRARY_PATH" | "PYTHONPATH") && !value.is_empty();
    let separators: &[u8] = if is_list { b":" } else { b": \t=," };
    let entries = value.as_bytes().split(|byte| separators.contains(byte));
    let is_path = |entry: &&[u8]| is_list || entry.contains(&b'/') || matches!(*entry, b"." | b"..");
    entries.filter(is_path).map(|entry| PathBuf::from(OsStr::from_bytes(entry))).collect()
}

/// The server starts the CLI in the workspace, but looks for programs from the current folder. Relative paths count as
/// below the workspace, where a command could put a program.
fn absolute(path: &Path, codex: &Codex) -> PathBuf {
    codex.workspace.join(path)
}

/// Returns the npm package of a program.
fn package(program: &Path) -> Option<&Path> {
    program.ancestors().skip(1).take(6).find(|folder| folder.join("package.json").is_file())
}

/// Returns the interpreter of a script, also if `env` looks for it on `PATH`.
fn interpreter(program: &Path, env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let mut head = [0; 256];
    let read = fs::File::open(program).ok()?.read(&mut head).ok()?;
    let line = head.get(..read)?.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let first = PathBuf::from(OsStr::from_bytes(words.next()?));
    if first.file_name() != Some(OsStr::new("env")) {
        return Some(first);
    }
    let name = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
    locate::on_path(Path::new(OsStr::from_bytes(name)), env)
}

/// Returns the programs and scripts of the MCP servers and of `notify`, which the CLI runs without its sandbox.
fn configured_programs(config: &UserConfig) -> Vec<String> {
    let mut programs = Vec::new();
    let mut add = |command: Option<&toml::Value>, arguments: Option<&toml::Value>| {
        let command = command.and_then(toml::Value::as_str).filter(|path| path.starts_with('/'));
        let arguments = arguments.and_then(toml::Value::as_array).into_iter().flatten();
        let is_script = |path: &&str| {
            let extension = Path::new(path).extension().and_then(OsStr::to_str);
            path.starts_with('/') && extension.is_some_and(|extension| SCRIPTS.contains(&extension))
        };
        programs.extend(command.map(str::to_owned));
        programs.extend(arguments.filter_map(toml::Value::as_str).filter(is_script).map(str::to_owned));
    };
    for (_, server) in config.mcp_servers() {
        add(server.get("command"), server.get("args"));
    }
    if let Some(notify) = config.get("notify") {
        add(notify.get(0), Some(notify));
    }
    programs
}

#[cfg(test)]
mod tests;
