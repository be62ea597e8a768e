//! The login of the process. Like the real CLI, a process reads `auth.json` at its start and keeps what it found. If the
//! upstream refuses its tokens, it uses newer ones of the same account in the file.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use crate::{app_server::codex_home, env};

static LOGIN: Mutex<Option<Found>> = Mutex::new(None);

/// A login.
#[derive(Clone)]
struct Found {
    /// The key, or the account of the tokens. `none` without a login.
    name: String,
    /// The key, or the refresh token, which identifies the tokens.
    token: String,
}

/// Reads the login of the process.
pub(crate) fn read_at_start() {
    *LOGIN.lock().unwrap_or_else(PoisonError::into_inner) = Some(read());
}

/// Sends a request with the login of the process. Returns the key or the account, or the kind of the failure if the login
/// is missing, or refused because `FAKE_CODEX_REFUSED` has a file with the name of its token.
///
/// Each refusal adds a line with the token to the file `refusals` there. A file `TOKEN.next` becomes the new `auth.json`,
/// as if another process had refreshed the login meanwhile.
pub(crate) fn request() -> Result<String, &'static str> {
    let mut login = LOGIN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = login.get_or_insert_with(read);
    if found.name == "none" {
        return Err("not-logged-in");
    }
    let Some(refused) = env("FAKE_CODEX_REFUSED").map(PathBuf::from) else { return Ok(found.name.clone()) };
    if refused.join(&found.token).exists() {
        let new = read();
        if new.name == found.name {
            *found = new;
        }
    }
    if !refused.join(&found.token).exists() {
        return Ok(found.name.clone());
    }
    if refuse(&refused, &found.token).is_ok() { Err("401") } else { Err("500") }
}

fn refuse(dir: &Path, token: &str) -> io::Result<()> {
    let mut log = OpenOptions::new().create(true).append(true).open(dir.join("refusals"))?;
    writeln!(log, "{token}")?;
    // The file of the user is behind links.
    let file = codex_home().map_err(io::Error::other)? + "/auth.json";
    match fs::rename(dir.join(format!("{token}.next")), fs::canonicalize(file)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // The login is over, or another process has refreshed it.
        _ => Ok(()),
    }
}

fn read() -> Found {
    try_read().unwrap_or_else(|| Found { name: "none".to_owned(), token: String::new() })
}

fn try_read() -> Option<Found> {
    // Only `exec` reads the variable; the server removes it from the environment of a worker.
    if let Some(key) = env("CODEX_API_KEY").filter(|key| !key.is_empty()) {
        return Some(Found { name: key.clone(), token: key });
    }
    let text = fs::read(format!("{}/auth.json", codex_home().ok()?)).ok()?;
    let file: Value = serde_json::from_slice(&text).ok()?;
    let (key, tokens) = (file["OPENAI_API_KEY"].as_str(), &file["tokens"]);
    let token = key.or_else(|| tokens["refresh_token"].as_str()).unwrap_or_default().to_owned();
    Some(Found { name: key.or_else(|| tokens["account_id"].as_str())?.to_owned(), token })
}
