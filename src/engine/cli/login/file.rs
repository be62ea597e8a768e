//! The format of `auth.json`, and whether the CLI can replace the file. The CLI writes refreshed tokens to a temporary file
//! and renames it over the target of all links.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::fs::Access;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The claim of OpenAI's tokens that names account, user and plan.
const OPENAI_CLAIM: &str = "https://api.openai.com/auth";

/// The content of `auth.json`.
#[derive(Deserialize)]
pub(super) struct AuthFile {
    pub(super) auth_mode: Option<String>,
    #[serde(rename = "OPENAI_API_KEY")]
    pub(super) key: Option<String>,
    pub(super) tokens: Option<Tokens>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// The tokens of a ChatGPT login.
#[derive(Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    id_token: String,
    #[serde(default)]
    pub(super) access_token: String,
    #[serde(default)]
    pub(super) refresh_token: String,
    account_id: Option<String>,
}

/// The claims of an id token.
#[derive(Debug, Default)]
pub(super) struct Claims {
    account: Option<String>,
    pub(super) user: Option<String>,
    pub(super) plan: Option<String>,
}

impl AuthFile {
    /// Parses the file. The error does not quote it, because a parser's message may contain a key.
    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(content).map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => "its JSON is not complete".to_owned(),
            serde_json::error::Category::Data => "its format is unknown".to_owned(),
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                format!("it is not JSON (line {}, column {})", error.line(), error.column())
            }
        })
    }

    /// Returns the fields that identify a login of an unknown kind.
    pub(super) fn other_secrets(&self) -> String {
        let stable = |name: &&String| *name != "last_refresh";
        let values: Map<String, Value> = self
            .other
            .keys()
            .filter(stable)
            .filter_map(|name| Some((name.clone(), self.other.get(name)?.clone())))
            .collect();
        Value::Object(values).to_string()
    }
}

impl Tokens {
    /// Returns the claims of the id token. Nothing is verified, because the CLI and the upstream do that.
    pub(super) fn claims(&self) -> Claims {
        let Some(claims) = payload(&self.id_token) else { return Claims::default() };
        let openai = claims.get(OPENAI_CLAIM);
        let text = |name: &str| openai.and_then(|claim| claim.get(name)?.as_str()).map(str::to_owned);
        Claims {
            account: text("chatgpt_account_id"),
            user: text("chatgpt_user_id").or_else(|| claims.get("sub")?.as_str().map(str::to_owned)),
            plan: text("chatgpt_plan_type"),
        }
    }

    /// Returns the id of the account.
    pub(super) fn account(&self) -> Option<String> {
        self.claims().account.or_else(|| self.account_id.clone()).filter(|id| !id.is_empty())
    }

    /// Returns the end of the access token in seconds since 1970.
    pub(super) fn expires(&self) -> Option<u64> {
        payload(&self.access_token)?.get("exp")?.as_u64()
    }
}

/// Returns the payload of a JWT.
fn payload(token: &str) -> Option<Value> {
    let part = token.split('.').nth(1)?.trim_end_matches('=');
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The reason why the CLI cannot replace the file. It finds out after it has spent the refresh token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Irreplaceable {
    #[error("{} is a mount point of its own", .0.display())]
    MountPoint(PathBuf),
    #[error("{} has {count} hard links", .file.display())]
    HardLinks { file: PathBuf, count: u64 },
    #[error("{} is read-only", .0.display())]
    ReadOnly(PathBuf),
    #[error("the folder of {} is read-only", .0.display())]
    ReadOnlyFolder(PathBuf),
}

/// Returns the reason why the target of `file` cannot be replaced.
pub(super) fn reason_irreplaceable(file: &Path) -> Option<Irreplaceable> {
    irreplaceable(file, &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Returns the reason why the target of `file` cannot be replaced. `mounts` is the text of `/proc/self/mountinfo`.
pub(super) fn irreplaceable(file: &Path, mounts: &str) -> Option<Irreplaceable> {
    let file = fs::canonicalize(file).ok()?;
    let meta = fs::metadata(&file).ok()?;
    // The fifth field is the mount point, with spaces in octal.
    let is_mount = |line: &str| {
        line.split(' ').nth(4).is_some_and(|point| Path::new(&point.replace("\\040", " ")) == file)
    };
    if mounts.lines().any(is_mount) {
        return Some(Irreplaceable::MountPoint(file));
    }
    if meta.nlink() > 1 {
        return Some(Irreplaceable::HardLinks { file, count: meta.nlink() });
    }
    let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    if meta.permissions().readonly() || !writable(&file) {
        return Some(Irreplaceable::ReadOnly(file));
    }
    if !file.parent().is_some_and(writable) {
        return Some(Irreplaceable::ReadOnlyFolder(file));
    }
    None
}
