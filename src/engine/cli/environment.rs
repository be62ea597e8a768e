//! Environment and home of the CLI, for both engines.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use crate::config::Codex;

/// Initial configuration of a home that the server creates.
const MINIMAL_CONFIG: &str = "\
# Created by codex-api for CODEX_CLI_HOME. The server never changes this file again.
# MCP servers, skills and profiles in this file cost time and tokens in every turn.
";

/// The key that the CLI uses before every other login. Blank counts as not set.
pub(crate) const API_KEY: &str = "CODEX_API_KEY";

/// The access token of an account. The CLI uses it before the login file.
pub(crate) const ACCESS_TOKEN: &str = "CODEX_ACCESS_TOKEN";

/// Returns the environment of the CLI.
pub(crate) fn environment(codex: &Codex) -> BTreeMap<OsString, OsString> {
    let mut env = codex.env.clone();
    if let Some(home) = &codex.cli_home {
        env.insert("HOME".into(), home.clone().into());
        // An inherited CODEX_HOME has precedence over HOME, so that the setting would have no effect.
        env.remove(&OsString::from("CODEX_HOME"));
    }
    if let Some(upstream) = &codex.scripted_upstream {
        env.insert("CODEX_HOME".into(), upstream.codex_home.clone().into());
        env.remove(&OsString::from(API_KEY));
    }
    if api_key(&env).is_none() {
        env.remove(&OsString::from(API_KEY));
    }
    env
}

/// Returns the key of `CODEX_API_KEY`.
pub(crate) fn api_key(env: &BTreeMap<OsString, OsString>) -> Option<String> {
    variable(env, API_KEY)
}

/// Returns a variable without surrounding white space, unless it is blank.
pub(crate) fn variable(env: &BTreeMap<OsString, OsString>, name: &str) -> Option<String> {
    let value = env.get(&OsString::from(name))?.to_string_lossy().trim().to_owned();
    (!value.is_empty()).then_some(value)
}

/// Creates the home of `CODEX_CLI_HOME` with a minimal configuration and a link to the user's login. Existing files
/// stay unchanged.
pub(crate) fn prepare(codex: &Codex) -> io::Result<()> {
    let Some(home) = &codex.cli_home else { return Ok(()) };
    let folder = home.join(".codex");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let config = folder.join("config.toml");
    if !config.try_exists()? {
        fs::write(&config, MINIMAL_CONFIG)?;
    }
    let login = folder.join("auth.json");
    let user_login = codex_home(&codex.env).map(|home| home.join("auth.json"));
    if let Some(user_login) = user_login.filter(|file| file.exists() && *file != login)
        && login.symlink_metadata().is_err()
    {
        // The login is linked and not copied, because refreshing one copy invalidates the other.
        symlink(user_login, login)?;
    }
    Ok(())
}

/// Checks that the CLI can write to its home, where it keeps its state.
pub(crate) fn check_home(codex: &Codex) -> Result<(), HomeError> {
    let env = environment(codex);
    let Some(folder) = codex_home(&env) else {
        return Err(HomeError::Unset);
    };
    if folder.is_dir() {
        return match tempfile::tempfile_in(&folder) {
            Ok(_) => Ok(()),
            Err(cause) => Err(HomeError::NotWritable { folder, cause }),
        };
    }
    if folder.exists() {
        return Err(HomeError::NotAFolder { folder });
    }
    // The CLI creates the default home, but not the folder that CODEX_HOME names.
    let named = env.get(&OsString::from("CODEX_HOME")).is_some_and(|value| !value.is_empty());
    if named { Err(HomeError::Missing { folder }) } else { Ok(()) }
}

/// The reason why the CLI cannot use its home. The message is for callers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// No variable names a home.
    #[error("the Codex CLI has no home: neither CODEX_HOME nor HOME is set; set CODEX_CLI_HOME")]
    Unset,
    /// The CLI cannot write to the folder.
    #[error(
        "the Codex CLI cannot write in its home; make it writable or set CODEX_CLI_HOME to another folder"
    )]
    NotWritable {
        /// The home.
        folder: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The home is a file.
    #[error("the Codex CLI's home is not a folder; set CODEX_HOME or CODEX_CLI_HOME to another folder")]
    NotAFolder {
        /// The home.
        folder: PathBuf,
    },
    /// `CODEX_HOME` names a folder that does not exist.
    #[error("CODEX_HOME names a folder that does not exist; create it or set another folder")]
    Missing {
        /// The home.
        folder: PathBuf,
    },
}

impl HomeError {
    /// Returns the message for the operator.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Unset => self.to_string(),
            Self::NotWritable { folder, cause } => {
                format!("the Codex CLI cannot write in its home {}: {cause}", folder.display())
            }
            Self::NotAFolder { folder } => {
                format!("the Codex CLI's home {} is not a folder", folder.display())
            }
            Self::Missing { folder } => {
                format!("CODEX_HOME names {}, which does not exist", folder.display())
            }
        }
    }
}

/// Returns the CLI's home: `CODEX_HOME`, otherwise `.codex` below `HOME`.
pub(crate) fn codex_home(env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let value = |name: &str| env.get(&OsString::from(name)).filter(|text| !text.is_empty());
    value("CODEX_HOME")
        .map(PathBuf::from)
        .or_else(|| value("HOME").map(|home| Path::new(home).join(".codex")))
}
