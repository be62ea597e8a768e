//! Checks the documents against the code: the tables in `docs/`, `.env.example`, `--help`, the pinned versions.
//! `UPDATE_DOCS=1 cargo test --test it documents` updates the tables.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use codex_api::{
    cli,
    config::settings::{SETTINGS, Setting},
    error::Error,
    http,
};
use http_body_util::BodyExt;
use serde_json::Value;
use tonic::Status;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Asserts that a document has the expected text. With `UPDATE_DOCS`, writes the expected text.
pub fn assert_document(name: &str, is: &str, should_be: &str) {
    if is == should_be {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), should_be).unwrap();
        return;
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (is, should_be) = (lines(is), lines(should_be));
    let differs = is.iter().zip(&should_be).position(|(one, other)| one != other);
    let at = differs.unwrap_or(is.len().min(should_be.len()));
    panic!(
        "{name}:{}: out of date\n  is:        {}\n  should be: {}\n`UPDATE_DOCS=1 cargo test --test it documents` updates the document",
        at + 1,
        is.get(at).map_or("(nothing)", String::as_str),
        should_be.get(at).map_or("(nothing)", String::as_str),
    );
}

/// Returns the part of a document between `<!-- NAME -->` and `<!-- /NAME -->`, with its offset.
fn marked_part<'a>(document: &'a str, name: &str) -> (usize, &'a str) {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = document.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
    let length = document[start..].find(&end).unwrap_or_else(|| panic!("no {end}"));
    (start, &document[start..start + length])
}

/// Asserts that a marked part has the text that `should_be` returns for the current text.
fn assert_part(document: &str, name: &str, should_be: impl FnOnce(&str) -> String) {
    let text = read(document);
    let (start, is) = marked_part(&text, name);
    let should_be = format!("{}{}{}", &text[..start], should_be(is), &text[start + is.len()..]);
    assert_document(document, &text, &should_be);
}

/// Escapes a text for a cell of a Markdown table, where `<` would begin an HTML tag.
pub fn table_cell(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        if word.starts_with('<') && word.ends_with('>') {
            format!("`{word}`")
        } else {
            word.replace('|', "\\|")
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn settings_table() -> String {
    let mut table = String::from("| variable | default | meaning |\n| --- | --- | --- |\n");
    for Setting { env, default, help, .. } in SETTINGS {
        let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
        writeln!(table, "| `{env}` | {default} | {} |", table_cell(help)).unwrap();
    }
    table
}

fn env_example() -> String {
    let mut text = String::from(
        "# Settings of codex-api. Copy this file to .env in the folder that the server is started in.\n\
         # The environment wins over this file, flags win over both. What is commented out has its default.\n",
    );
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            write!(text, "\n# --- {group} ---\n").unwrap();
        }
        write!(text, "\n# {}\n#{}={}\n", setting.help, setting.env, setting.default).unwrap();
    }
    text
}

#[test]
fn configuration_page_lists_every_setting() {
    assert_part("docs/configuration.md", "settings", |_| settings_table());
}

#[test]
fn env_example_lists_every_setting() {
    assert_document(".env.example", &read(".env.example"), &env_example());
}

#[test]
fn help_of_every_command_lists_every_setting() {
    let mut whole = cli::command().term_width(10_000);
    whole.build();
    for name in [None, Some("serve"), Some("doctor")] {
        let command = match name {
            None => &mut whole,
            Some(name) => whole.find_subcommand_mut(name).unwrap(),
        };
        let help = command.clone().term_width(10_000).render_help().to_string();
        for setting in SETTINGS {
            let at = format!("[{}]", setting.env);
            let line = help.lines().find(|line| line.contains(&at));
            let line = line.unwrap_or_else(|| panic!("{name:?}: {at} is missing in\n{help}"));
            assert!(line.contains(setting.help), "{line}");
            assert!(
                line.contains(&format!("(default {})", setting.default)) != setting.default.is_empty(),
                "{line}"
            );
            assert!(help.contains(&format!("--{}", setting.flag)), "{help}");
        }
    }
}

/// Returns an error of every kind.
fn errors() -> Vec<Error> {
    let message = || "m".to_owned();
    let denied = |reason| Error::PermissionDenied { reason, message: "m".to_owned() };
    vec![
        Error::invalid("n", "m"),
        Error::unsupported("tools", "m"),
        Error::Rejected { message: message() },
        Error::PromptTooLarge { field: "messages", message: message() },
        Error::ContextLengthExceeded { message: message() },
        Error::Unauthenticated { message: message() },
        denied("POLICY_WIDENED"),
        denied("HOST_REFUSED"),
        denied("ORIGIN_REFUSED"),
        Error::ModelNotFound { message: message() },
        Error::Overloaded { message: message(), retry_after: Duration::from_secs(1) },
        Error::RateLimited { message: message(), retry_after: Some(Duration::from_secs(1)) },
        Error::UsageLimit { message: message(), retry_after: None },
        Error::EngineUnavailable { message: message() },
        Error::Draining,
        Error::DeadlineExceeded { message: message() },
        Error::TurnFailed { message: message() },
        Error::UpstreamUnavailable { message: message() },
        Error::WorkerLost { message: message() },
        Error::Draining.after_effects(),
        Error::internal("m"),
    ]
}

/// Returns the index of the kind of an error. A new variant of [`Error`] does not compile without a row here. Add the
/// variant to `errors` and to `docs/errors.md` too.
fn kind_index(error: &Error) -> usize {
    match error {
        Error::InvalidArgument { .. } => 0,
        Error::Unsupported { .. } => 1,
        Error::Rejected { .. } => 2,
        Error::PromptTooLarge { .. } => 3,
        Error::ContextLengthExceeded { .. } => 4,
        Error::Unauthenticated { .. } => 5,
        Error::PermissionDenied { .. } => 6,
        Error::ModelNotFound { .. } => 7,
        Error::Overloaded { .. } => 8,
        Error::RateLimited { .. } => 9,
        Error::UsageLimit { .. } => 10,
        Error::EngineUnavailable { .. } => 11,
        Error::Draining => 12,
        Error::DeadlineExceeded { .. } => 13,
        Error::TurnFailed { .. } => 14,
        Error::UpstreamUnavailable { .. } => 15,
        Error::WorkerLost { .. } => 16,
        Error::FailedAfterEffects { .. } => 17,
        Error::Internal { .. } => 18,
    }
}

/// Returns the generated cells of the row of an error. The explanation in the last cell is written by hand.
async fn generated_cells(error: Error) -> String {
    let (reason, code) = (error.reason(), format!("{:?}", error.code()));
    let code = code.chars().enumerate().fold(String::new(), |mut name, (index, c)| {
        if c.is_uppercase() && index > 0 {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
        name
    });
    let response = http::refusal(&Status::from(error));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let member = |name: &str| body["error"][name].as_str().unwrap().to_owned();
    let retry = match (headers.contains_key("retry-after"), headers.get("x-should-retry")) {
        (true, None) => "after `Retry-After`",
        (false, Some(no)) if no == "false" => "no",
        (false, None) => "–",
        other => panic!("{reason}: {other:?}"),
    };
    format!("| `{reason}` | {code} | {status} | `{}` / `{}` | {retry} |", member("type"), member("code"))
}

#[tokio::test]
async fn errors_page_lists_every_error() {
    let mut indexes: Vec<usize> = errors().iter().map(kind_index).collect();
    indexes.dedup();
    assert_eq!(indexes, (0..=18).collect::<Vec<_>>(), "`errors` has every kind, in this order");
    let mut rows = Vec::new();
    for error in errors() {
        rows.push(generated_cells(error).await);
    }
    assert_part("docs/errors.md", "errors", |is| {
        let mut table = String::from(
            "| reason | gRPC | HTTP | type / code | retry | what happened, what to do |\n\
             | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &rows {
            let reason = row.split('|').nth(1).unwrap();
            let current_row = is.lines().find(|line| line.split('|').nth(1) == Some(reason));
            let meaning = current_row
                .and_then(|line| line.split('|').nth(6))
                .map_or("(explanation missing)", str::trim);
            assert!(
                std::env::var_os("UPDATE_DOCS").is_some() || meaning.len() > 20,
                "{reason}: the explanation is missing"
            );
            writeln!(table, "{row} {meaning} |").unwrap();
        }
        table
    });
}

#[test]
fn pinned_versions_are_equal_in_all_files() {
    let readme = read("README.md");
    let pinned: Value = serde_json::from_str(&read("scripts/tools/codex/package.json")).unwrap();
    let codex = pinned["dependencies"]["@openai/codex"].as_str().unwrap();
    assert!(readme.contains(codex), "the README names another codex than scripts/tools/codex/package.json");
    let lock = read("scripts/tools/codex/package-lock.json");
    assert!(lock.contains(&format!("\"@openai/codex\": \"{codex}\"")), "the lock file pins another codex");
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let rust = cargo["package"]["rust-version"].as_str().unwrap();
    assert!(readme.contains(&format!("Rust {rust}")), "the README names another Rust than Cargo.toml");
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(channel.starts_with(rust), "rust-toolchain.toml pins another Rust than Cargo.toml supports");
    assert!(readme.lines().count() <= 200, "the README is a front page of at most 200 lines");
    assert!(readme.lines().any(|line| line == "./scripts/test.sh"), "the test command");
    assert!(read(".ci/run").lines().any(|line| line == "step ./scripts/test.sh"), "CI runs the test command");
}
