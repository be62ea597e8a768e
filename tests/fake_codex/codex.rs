//! A fake `codex` 0.169 for rare behaviour of the real CLI. The program parses the same command line, writes the same
//! JSONL (`exec`) or JSON-RPC (`app-server`), and runs the scenario in the name of the model (`-m fake:hang`). No model is
//! called and no shell is started. The process and its children exit after `watch::LIFETIME` at the latest.
//!
//! Environment: `FAKE_CODEX_SCENARIO` (overrides the model), `FAKE_CODEX_VERSION`, `FAKE_CODEX_LOGIN` (`0` for
//! no login, `chatgpt`), `FAKE_CODEX_PID_FILE` (receives the process ids of `exec`, `app-server` and grandchildren, one per
//! line), `FAKE_CODEX_REFUSED` (see `login.rs`), `FAKE_CODEX_APP_SERVER` (`mute`, `dies`, `garbage`, `stubborn`, `careless`).

#![allow(
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "test code builds JSON in place and matches only the relevant variants"
)]

mod app_server;
mod args;
mod failures;
mod items;
mod lines;
mod login;
mod play;
mod prompt;
mod report;
mod scenario;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use app_server::version::Release;
use args::{Command, Usage};

/// Exit code for errors of the fake itself. The real CLI does not use this code.
const FAKE_ONLY: u8 = 70;

/// The default version.
const VERSION: &str = "0.169.0";

/// The recorded output of `codex features list`.
const FEATURES: &str = include_str!("features.txt");

/// The recorded output of `codex debug models`, reduced to three models and their names and limits.
const MODELS: &str = include_str!("models.json");

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    if argv == [watch::GRANDCHILD] {
        return watch::grandchild();
    }
    login::read_at_start();
    match run(&argv) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            // The real CLI panics too when its stdout is closed.
            let text = format!("thread 'main' panicked: failed printing to stdout: {e}\n");
            let _ = io::stderr().write_all(text.as_bytes());
            ExitCode::from(101)
        }
    }
}

fn run(argv: &[String]) -> io::Result<u8> {
    let command = match args::parse(argv) {
        Ok(command) => command,
        Err(Usage { code, text }) => return print_error(code, &text),
    };
    match command {
        Command::Version { name } => print(&format!("{name} {}\n", version())),
        Command::Help => print(args::HELP),
        Command::LoginStatus => match env("FAKE_CODEX_LOGIN").as_deref() {
            Some("0") => print_error(1, "Not logged in\n"),
            Some("chatgpt") => print_error(0, "Logged in using ChatGPT\n"),
            _ => print_error(
                0,
                "API key configured - sk-fakex***00000\nAuthentication is checked when you send a request.\n",
            ),
        },
        Command::FeaturesList => print(Release::from_version(&version()).features()),
        Command::DebugModels => print(MODELS),
        Command::Exec(exec) => play::run(&exec),
        Command::AppServer { overrides, model } => app_server::serve(&overrides, model),
    }
}

/// Returns the version of this run.
fn version() -> String {
    env("FAKE_CODEX_VERSION").unwrap_or_else(|| VERSION.to_owned())
}

/// Returns the text of an environment variable.
fn env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
}

/// Prints to stdout and returns exit code 0.
fn print(text: &str) -> io::Result<u8> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

/// Prints a text to stderr and returns an exit code. Ignores a closed stderr.
fn print_error(code: u8, text: &str) -> io::Result<u8> {
    let _ = io::stderr().write_all(text.as_bytes());
    Ok(code)
}
