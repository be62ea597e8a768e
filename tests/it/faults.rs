//! The faults of real clients, logins, networks and attackers: what happened, what the caller sees, and the tests that prove it.
//! `docs/faults.md` is this table; `UPDATE_DOCS=1 cargo test --test it faults` updates it.

mod answers;
mod bodies;
mod conversations;
mod formats;
mod host;
mod limits;
mod networks;
mod places;
mod retries;
mod runtime;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::documents::{assert_document, table_cell};

/// A fault.
struct Fault {
    /// What was done.
    action: &'static str,
    /// What the caller sees.
    result: &'static str,
    /// The tests, as `module::name` without the crate. Empty if no test of this repository can produce the fault; then
    /// `result` contains the reason.
    tests: &'static [&'static str],
}

/// A group of faults.
struct Section {
    title: &'static str,
    faults: &'static [Fault],
}

/// Every group of faults, in the order of the page.
fn sections() -> impl Iterator<Item = &'static Section> {
    let files = [
        bodies::SECTIONS,
        formats::SECTIONS,
        answers::SECTIONS,
        retries::SECTIONS,
        limits::SECTIONS,
        places::SECTIONS,
        host::SECTIONS,
        runtime::SECTIONS,
        networks::SECTIONS,
        conversations::SECTIONS,
    ];
    files.into_iter().flatten().filter(|section| !section.faults.is_empty())
}

const HEAD: &str = "\
# Faults

Real users have clients, proxies, an OpenAI login, limits and neighbours that no test of ours invented. Each row is a fault that
broke this service or could break it, what the caller sees now, and its test. Tests whose fault needs the real CLI run with
`./scripts/test.sh`. Rows without a test were tried by hand, for the reason in the row.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for section in sections() {
        write!(
            page,
            "\n## {}\n\n| what was done | what the caller sees | test |\n| --- | --- | --- |\n",
            section.title
        )
        .unwrap();
        for fault in section.faults {
            let tests: Vec<_> = fault.tests.iter().map(|test| format!("`{test}`")).collect();
            let tests = if tests.is_empty() { "by hand".to_owned() } else { tests.join(", ") };
            let row = format!("| {} | {} | {tests} |", table_cell(fault.action), table_cell(fault.result));
            writeln!(page, "{row}").unwrap();
        }
    }
    page
}

/// Returns the file of a test's module: the longest prefix of the path that is a file.
fn file_of(test: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut module: Vec<&str> = test.split("::").collect();
    while module.pop().is_some() {
        for base in ["tests/it", "src"] {
            let path = root.join(base).join(module.join("/"));
            for file in [path.with_extension("rs"), path.join("mod.rs")] {
                if file.is_file() {
                    return Some(file);
                }
            }
        }
    }
    None
}

/// Returns `true` if the test exists: as a function, a scenario or a module of cases.
fn exists(test: &str) -> bool {
    let name = test.rsplit("::").find(|part| !["exec", "app_server"].contains(part)).unwrap_or(test);
    let Some(file) = file_of(test) else { return false };
    let text = fs::read_to_string(file).unwrap();
    let forms = [format!("fn {name}("), format!("mod {name} "), format!("    {name}: ")];
    forms.iter().any(|form| text.contains(form))
}

#[test]
fn page_of_faults_lists_every_fault() {
    let is =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md")).unwrap_or_default();
    assert_document("docs/faults.md", &is, &page());
}

#[test]
fn every_test_of_a_fault_exists() {
    let tests = sections().flat_map(|section| section.faults).flat_map(|fault| fault.tests);
    let missing: Vec<_> = tests.filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
