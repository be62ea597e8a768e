//! The picture in `src/lib.rs`, held against the sources: who may import whom, how long a file may be, and that each
//! begins by saying what it is for.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a file.
const LINES: usize = 400;

/// Every room of the crate and the rooms that it may use. `pb` is the contract.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["server", "cli", "config", "doctor", "engine", "shutdown", "telemetry"]),
    // The composition root knows everybody, and nobody but the commands knows it.
    (
        "server",
        &[
            "auth",
            "config",
            "demo",
            "engine",
            "error",
            "grpc",
            "http",
            "pb",
            "service",
            "shutdown",
            "transport",
        ],
    ),
    ("doctor", &["server", "config", "engine", "transport", "pb", "service"]),
    ("cli", &["config", "engine"]),
    // The doors know the contract, not who fulfils it.
    ("grpc", &["auth", "config", "context", "error", "pb"]),
    ("http", &["auth", "config", "context", "error", "pb"]),
    // The core knows engines by their trait, and no door.
    ("service", &["config", "context", "engine", "error", "pb"]),
    ("engine", &["config", "error", "pb"]),
    ("auth", &["config", "context", "error"]),
    ("context", &["error"]),
    ("transport", &["config", "error"]),
    ("shutdown", &[]),
    ("telemetry", &["config"]),
    ("config", &[]),
    ("error", &[]),
    ("demo", &[]),
];

/// The engines, which do not know each other, and what of `engine` the core may not name.
const ENGINES: &[&str] = &["exec", "app_server"];

/// A source file of `src/` or `tests/`.
struct Source {
    /// Relative to the package.
    path: PathBuf,
    text: String,
}

impl Source {
    fn all_below(folder: &str) -> Vec<Self> {
        let mut found = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
        assert!(!found.is_empty(), "no sources in {folder}");
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// Names of the modules on the way to this file: `src/engine/exec/mod.rs` is `engine`, `exec`.
    fn modules(&self) -> Vec<String> {
        let below = self.path.strip_prefix("src").unwrap().with_extension("");
        let names = below.iter().map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name != "mod").collect()
    }

    fn is_test(&self) -> bool {
        let name = self.path.file_name().unwrap().to_string_lossy();
        name == "tests.rs" || name.ends_with("_tests.rs")
    }

    /// Every path that begins with `crate::` (or, in the program, `codex_api::`), with its line.
    fn crate_paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        let code = without_comments(&self.text);
        for (start, _) in code.match_indices("::") {
            let before = &code[..start];
            let is_root = ["crate", "codex_api"].iter().any(|root| {
                before
                    .strip_suffix(root)
                    .is_some_and(|rest| !rest.ends_with(is_word) && !rest.ends_with("::"))
            });
            if is_root {
                let line = before.matches('\n').count() + 1;
                let mut rest = &code[start + 2..];
                found.extend(tree(&mut rest).into_iter().map(|path| (line, path)));
            }
        }
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned();
            found.push(Source { path, text });
        }
    }
}

/// Keeps the lines, so that they can be counted. Cuts strings that hold `//` short, which no path stands behind.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The paths of a use tree, `a::{b, c::d}`, and of the plain path `a::b` too.
fn tree(rest: &mut &str) -> Vec<Vec<String>> {
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
            paths.extend(tree(rest));
            // Whatever stands between a path and the next: `as Name`.
            *rest = &rest[rest.find([',', '}']).unwrap_or(rest.len())..];
        }
    }
    let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    *rest = after;
    let Some(deeper) = after.strip_prefix("::") else { return vec![vec![name.to_owned()]] };
    *rest = deeper;
    let mut paths = tree(rest);
    paths.iter_mut().for_each(|path| path.insert(0, name.to_owned()));
    paths
}

fn fail_on(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn use_trees_are_read() {
    let source = Source {
        path: "src/a/b.rs".into(),
        text: "use crate::{\n    x::{self, y as z, w::*},\n    v,\n};\n// crate::comment\nlet a = crate::p::q(1);\n\
               use macro_crate::no;"
            .into(),
    };
    let paths: Vec<_> =
        source.crate_paths().into_iter().map(|(line, path)| (line, path.join("::"))).collect();
    let expected = [(1, "x::self"), (1, "x::y"), (1, "x::w::"), (1, "v"), (6, "p::q")];
    assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
    assert_eq!(source.modules(), ["a", "b"]);
}

#[test]
fn every_room_uses_only_what_it_may() {
    let rooms: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut breaches = Vec::new();
    for source in Source::all_below("src") {
        let modules = source.modules();
        let room = modules[0].as_str();
        if room == "lib" {
            continue;
        }
        let Some(allowed) = rooms.get(room) else {
            breaches.push(format!("{}: `{room}` is not in the picture; draw it first", source.at(1)));
            continue;
        };
        for (line, path) in source.crate_paths() {
            let used = path[0].as_str();
            if used != room && !allowed.contains(&used) {
                breaches.push(format!("{}: `{room}` may not use `{used}`", source.at(line)));
            }
        }
    }
    fail_on(&breaches);
}

#[test]
fn engines_are_known_by_their_trait_and_not_to_each_other() {
    let mut breaches = Vec::new();
    for source in Source::all_below("src") {
        let modules = source.modules();
        let own = modules.get(1).filter(|_| modules[0] == "engine").map(String::as_str);
        for (line, path) in source.crate_paths() {
            let Some(engine) =
                path.get(1).filter(|name| path[0] == "engine" && ENGINES.contains(&name.as_str()))
            else {
                continue;
            };
            let builds_it = ["server", "doctor"].contains(&modules[0].as_str());
            if own != Some(engine) && !builds_it {
                breaches.push(format!(
                    "{}: `engine::{engine}` is not for `{}`",
                    source.at(line),
                    modules.join("::")
                ));
            }
        }
        // A sibling can be reached without naming the crate.
        for sibling in
            ENGINES.iter().filter(|name| own.is_some_and(|own| ENGINES.contains(&own) && own != **name))
        {
            let code = without_comments(&source.text);
            for (index, line) in code.lines().enumerate() {
                if line.contains(&format!("super::{sibling}")) {
                    breaches.push(format!("{}: the engines do not know each other", source.at(index + 1)));
                }
            }
        }
    }
    fail_on(&breaches);
}

#[test]
fn only_config_reads_the_environment() {
    let mut breaches = Vec::new();
    for source in Source::all_below("src") {
        if source.modules()[0] == "config" || source.is_test() {
            continue;
        }
        for (index, line) in without_comments(&source.text).lines().enumerate() {
            if line.contains("env::var") {
                breaches.push(format!("{}: only `config` reads the environment", source.at(index + 1)));
            }
        }
    }
    fail_on(&breaches);
}

#[test]
fn files_are_short() {
    let all = ["src", "tests"].map(Source::all_below);
    let too_long = all.iter().flatten().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LINES).then(|| format!("{}: {lines} lines; {LINES} are allowed", source.at(lines)))
    });
    fail_on(&too_long.collect::<Vec<_>>());
}

#[test]
fn files_say_what_they_are_for() {
    let mut breaches = Vec::new();
    for source in Source::all_below("src").iter().filter(|source| !source.is_test()) {
        let head = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        let most = if source.path == Path::new("src/lib.rs") { LINES } else { 4 };
        if !(1..=most).contains(&head) {
            breaches
                .push(format!("{}: begins with {head} lines of `//!`, not with 1 to {most}", source.at(1)));
        }
    }
    fail_on(&breaches);
}
