//! Checks the directions of `ARCHITECTURE.md`: each room of `src/` imports only the rooms that `RULES` allows, down to the
//! folders of `engine/app_server`. The lengths of files are not checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each room and the rooms that it may import. A room is a module with its submodules, except submodules that are rooms
/// themselves. `pb` is the generated contract. A room may import only rooms of later rows.
const RULES: &[(&str, &[&str])] = &[
    ("main", &["server", "cli", "config", "doctor", "engine::process", "shutdown", "telemetry"]),
    (
        "doctor",
        &[
            "server",
            "config",
            "engine",
            "engine::cli",
            "engine::process",
            "engine::selector",
            "transport",
            "pb",
            "service",
        ],
    ),
    // The composition root is the only room that imports doors, core and engines.
    (
        "server",
        &[
            "auth",
            "config",
            "context",
            "demo",
            "engine",
            "engine::cli",
            "engine::process",
            "engine::selector",
            "error",
            "grpc",
            "http",
            "pb",
            "service",
            "shutdown",
            "telemetry",
            "transport",
        ],
    ),
    ("cli", &["config", "engine::process"]),
    // The doors import the contract and not its implementation.
    ("grpc", &["auth", "config", "context", "error", "pb"]),
    ("http", &["auth", "config", "context", "error", "pb"]),
    // The core imports the engine trait, but no engine and no door.
    ("service", &["config", "context", "engine", "error", "pb"]),
    (
        "engine::selector",
        &[
            "config",
            "demo",
            "engine",
            "engine::app_server",
            "engine::cli",
            "engine::exec",
            "engine::process",
            "error",
            "pb",
            "task",
        ],
    ),
    // The engines do not import each other.
    ("engine::exec", &["config", "engine", "engine::cli", "engine::process", "error", "pb", "task"]),
    (
        "engine::app_server",
        &[
            "config",
            "engine",
            "engine::app_server::capabilities",
            "engine::app_server::history",
            "engine::app_server::launch",
            "engine::app_server::rpc",
            "engine::app_server::threads",
            "engine::app_server::tools",
            "engine::app_server::translate",
            "engine::app_server::turn",
            "engine::app_server::worker",
            "engine::cli",
            "engine::process",
            "error",
            "pb",
            "task",
        ],
    ),
    (
        "engine::app_server::turn",
        &[
            "config",
            "engine",
            "engine::app_server::history",
            "engine::app_server::launch",
            "engine::app_server::rpc",
            "engine::app_server::threads",
            "engine::app_server::tools",
            "engine::app_server::translate",
            "engine::app_server::worker",
            "engine::cli",
            "engine::process",
            "error",
            "pb",
            "task",
        ],
    ),
    (
        "engine::app_server::worker",
        &[
            "config",
            "engine",
            "engine::app_server::capabilities",
            "engine::app_server::launch",
            "engine::app_server::rpc",
            "engine::cli",
            "engine::process",
            "error",
            "pb",
            "task",
        ],
    ),
    (
        "engine::app_server::capabilities",
        &["config", "demo", "engine", "engine::app_server::launch", "engine::app_server::rpc", "engine::cli"],
    ),
    ("engine::app_server::threads", &["config", "engine"]),
    (
        "engine::app_server::translate",
        &[
            "config",
            "engine",
            "engine::app_server::history",
            "engine::app_server::rpc",
            "engine::app_server::tools",
            "engine::cli",
            "error",
            "pb",
        ],
    ),
    (
        "engine::app_server::history",
        &["config", "engine", "engine::app_server::rpc", "engine::app_server::tools", "error", "pb"],
    ),
    ("engine::app_server::tools", &["engine", "error", "pb"]),
    ("engine::app_server::launch", &["config", "engine::cli", "engine::process"]),
    ("engine::app_server::rpc", &["engine", "engine::process", "task"]),
    ("engine::cli", &["config", "engine", "engine::process", "error", "pb"]),
    ("engine::process", &["config", "task"]),
    // The engine trait and its types.
    ("engine", &["config", "error", "pb"]),
    ("auth", &["config", "context", "error"]),
    ("transport", &["config", "context", "error", "task"]),
    ("context", &["error"]),
    ("error", &[]),
    ("shutdown", &[]),
    ("task", &[]),
    ("telemetry", &["config"]),
    ("config", &[]),
    ("demo", &[]),
    ("pb", &[]),
];

/// A source file of `src/`, without comments and unit tests.
struct Source {
    /// Relative to the package.
    path: PathBuf,
    code: String,
}

impl Source {
    fn all() -> Vec<Self> {
        let mut sources = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
        assert!(sources.len() > 50, "src/ has {} files", sources.len());
        sources.sort_by(|one, other| one.path.cmp(&other.path));
        sources
    }

    fn new(path: PathBuf, text: &str) -> Self {
        // Line numbers stay. A string that contains `//` is cut, which hides no import.
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let mut code = lines.collect::<Vec<_>>().join("\n");
        if let Some(tests) = code.find("#[cfg(test)]\nmod tests {") {
            code.truncate(tests);
        }
        Self { path, code }
    }

    fn is_test(&self) -> bool {
        let parts: Vec<_> = self.path.iter().map(|part| part.to_string_lossy()).collect();
        parts.iter().any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs"))
            || self.path.ends_with("test_service.rs")
    }

    /// Returns the module path. For `src/engine/exec/mod.rs`, this is `engine`, `exec`.
    fn module(&self) -> Vec<String> {
        let below = self.path.strip_prefix("src").unwrap().with_extension("");
        let names = below.iter().map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name != "mod").collect()
    }

    /// Returns the submodules that this file declares.
    fn submodules(&self) -> BTreeSet<&str> {
        let declared = self.code.lines().filter_map(|line| line.strip_suffix(';')?.split_once("mod "));
        declared.map(|(_, name)| name).collect()
    }

    /// Returns the line and the absolute module path of every path that begins with `crate`, `codex_api`, `self`,
    /// `super` or a submodule.
    fn references(&self) -> Vec<(usize, Vec<String>)> {
        let submodules = self.submodules();
        let mut found = Vec::new();
        for (start, _) in self.code.match_indices("::") {
            let before = &self.code[..start];
            let root = before.rsplit(|c: char| !is_identifier_char(c)).next().unwrap_or_default();
            let is_first = !before[..before.len() - root.len()].ends_with("::");
            let is_root =
                ["crate", "codex_api", "self", "super"].contains(&root) || submodules.contains(root);
            if !is_first || !is_root {
                continue;
            }
            let line = before.matches('\n').count() + 1;
            let mut rest = &self.code[start + 2..];
            for path in use_tree(&mut rest) {
                if let Some(path) = self.resolve(root, path) {
                    found.push((line, path));
                }
            }
        }
        found
    }

    fn resolve(&self, root: &str, path: Vec<String>) -> Option<Vec<String>> {
        let mut base = match root {
            "crate" | "codex_api" => Vec::new(),
            _ => self.module(),
        };
        match root {
            "super" => drop(base.pop()?),
            "crate" | "codex_api" | "self" => {}
            submodule => base.push(submodule.to_owned()),
        }
        for name in path {
            match name.as_str() {
                "super" => drop(base.pop()?),
                "self" => {}
                _ => base.push(name),
            }
        }
        Some(base)
    }
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            sources
                .push(Source::new(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned(), &text));
        }
    }
}

fn is_identifier_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Parses the paths of a use tree, `a::{b, c::d}`. A plain path `a::b` is a tree with one path.
fn use_tree(rest: &mut &str) -> Vec<Vec<String>> {
    *rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        *rest = inside;
        let mut paths = Vec::new();
        loop {
            *rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if let Some(after) = rest.strip_prefix('}') {
                *rest = after;
                return paths;
            }
            if rest.is_empty() {
                return paths;
            }
            paths.extend(use_tree(rest));
            // Skips `as Name`.
            *rest = &rest[rest.find([',', '}']).unwrap_or(rest.len())..];
        }
    }
    let end = rest.find(|c: char| !is_identifier_char(c)).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    *rest = after;
    let Some(deeper) = after.strip_prefix("::") else { return vec![vec![name.to_owned()]] };
    *rest = deeper;
    let mut paths = use_tree(rest);
    paths.iter_mut().for_each(|path| path.insert(0, name.to_owned()));
    paths
}

/// Returns the room of a module or item, which is the longest matching prefix in `RULES`.
fn room_of(path: &[String]) -> Option<&'static str> {
    let path = path.join("::");
    let below =
        |room: &str| path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    RULES.iter().map(|(room, _)| *room).filter(|room| below(room)).max_by_key(|room| room.len())
}

/// Returns every import between two rooms with the source lines that contain it.
fn imports() -> BTreeMap<(&'static str, &'static str), Vec<String>> {
    let mut imports: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for source in Source::all().iter().filter(|source| !source.is_test()) {
        if source.path == Path::new("src/lib.rs") {
            continue;
        }
        let room = room_of(&source.module());
        let room =
            room.unwrap_or_else(|| panic!("{} belongs to no room: add it to RULES", source.path.display()));
        for (line, path) in source.references() {
            if let Some(used) = room_of(&path).filter(|used| *used != room) {
                imports.entry((room, used)).or_default().push(format!("{}:{line}", source.path.display()));
            }
        }
    }
    imports
}

#[test]
fn use_trees_with_every_root_resolve_to_absolute_paths() {
    let text = "use crate::{\n    x::{self, y as z, w::*},\n    v,\n};\n// crate::comment\nlet a = super::p::q(1);\n\
                use self::c::d;\nuse macro_crate::no;\nmod e;\ne::f();\n#[cfg(test)]\nmod tests {\nuse crate::hidden;\n}";
    let source = Source::new("src/a/b.rs".into(), text);
    let paths: Vec<_> = source.references().into_iter().map(|(line, path)| (line, path.join("::"))).collect();
    let expected = [
        (1, "x"),
        (1, "x::y"),
        (1, "x::w::"),
        (1, "v"),
        (6, "a::p::q"),
        (7, "a::b::c::d"),
        (10, "a::b::e::f"),
    ];
    assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
    assert_eq!(source.module(), ["a", "b"]);
}

#[test]
fn rooms_import_only_allowed_rooms() {
    let rules: BTreeMap<_, _> = RULES.iter().copied().collect();
    let breaches: Vec<String> = imports()
        .into_iter()
        .filter(|((room, used), _)| !rules[room].contains(used))
        .map(|((room, used), places)| format!("`{room}` must not import `{used}`: {}", places.join(", ")))
        .collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn rules_form_no_circle() {
    let position = |room: &str| RULES.iter().position(|(name, _)| *name == room);
    for (index, (room, allowed)) in RULES.iter().enumerate() {
        for used in *allowed {
            let below = position(used).unwrap_or_else(|| panic!("`{used}` is not a room"));
            assert!(below > index, "`{room}` may import `{used}`, but the row of `{used}` is not later");
        }
    }
}

#[test]
fn architecture_page_has_the_counts_of_app_server_rooms_and_imports() {
    let inside = |room: &str| room.starts_with("engine::app_server");
    let inner_imports: BTreeSet<_> =
        imports().into_keys().filter(|(room, used)| inside(room) && inside(used)).collect();
    let rooms = RULES.iter().filter(|(room, _)| inside(room)).count();
    assert!(
        rooms <= 12 && inner_imports.len() <= 30,
        "{rooms} rooms, {} imports: {inner_imports:#?}",
        inner_imports.len()
    );
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let line = format!("`engine/app_server` has {rooms} rooms and {} arrows", inner_imports.len());
    assert!(page.contains(&line), "ARCHITECTURE.md must contain: {line}");
}

#[test]
fn environment_is_read_by_config_only() {
    let mut breaches = Vec::new();
    for source in Source::all() {
        if source.module().first().is_some_and(|room| room == "config") || source.is_test() {
            continue;
        }
        for (index, line) in source.code.lines().enumerate() {
            if line.contains("env::var") {
                breaches.push(format!("{}:{}", source.path.display(), index + 1));
            }
        }
    }
    assert!(breaches.is_empty(), "only `config` reads the environment: {}", breaches.join(", "));
}

#[test]
fn source_files_begin_with_a_module_doc() {
    for source in Source::all().iter().filter(|source| !source.is_test()) {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&source.path)).unwrap();
        assert!(text.starts_with("//!"), "{} begins without `//!`", source.path.display());
    }
}
