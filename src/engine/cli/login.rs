//! The login that the CLI will use: kind, identity, expiry, and the reasons why it cannot work. Reads files only; starts
//! no process and needs no network. A secret leaves this module only as a hash.

pub(crate) mod checks;
mod file;
pub(crate) mod watch;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};

use self::file::AuthFile;
use super::{
    environment,
    provider::{self, MissingKey},
    user_config::UserConfig,
};
use crate::config::{Codex, EngineChoice};

/// The login and the settings of the CLI that restrict it.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) kind: LoginKind,
    pub(crate) store: Store,
    /// `auth.json` in the CLI's home, before links are resolved.
    pub(crate) file: Option<PathBuf>,
    /// Whether the selected provider uses this login.
    pub(crate) required: bool,
    forced_method: Option<String>,
    /// `forced_chatgpt_workspace_id`. Empty if every workspace is allowed.
    forced_workspaces: Vec<String>,
    missing_key: Option<MissingKey>,
    /// Whether only processes with the user's own home run, which find a login in the keyring.
    finds_keyring: bool,
}

/// The kinds of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoginKind {
    /// The key of `CODEX_API_KEY`. It has precedence over every other login.
    EnvironmentKey(Identity),
    /// `CODEX_ACCESS_TOKEN`.
    EnvironmentToken(Identity),
    /// An API key in `auth.json`.
    Key(Identity),
    /// The tokens of a ChatGPT account in `auth.json`.
    ChatGpt(ChatGpt),
    /// A kind of `auth.json` that this server does not know, such as the identity of an agent.
    Other {
        /// `auth_mode`.
        mode: String,
        /// The identity.
        identity: Identity,
    },
    /// The login is in the keyring, or nowhere.
    Keyring,
    /// There is no login.
    Missing,
    /// `auth.json` cannot be read or parsed, for this reason.
    Unreadable(String),
}

/// The login of a ChatGPT account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChatGpt {
    pub(crate) identity: Identity,
    /// The id of the account, which is the workspace.
    pub(crate) account: Option<String>,
    pub(crate) plan: Option<String>,
    /// The end of the access token.
    pub(crate) expires: Option<SystemTime>,
    pub(crate) has_refresh_token: bool,
}

/// Identifies an account or a key by a hash. Refreshed tokens of an account have the same identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity([u8; 32]);

impl Identity {
    fn new(kind: &str, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in [kind].iter().chain(parts) {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    #[cfg(test)]
    pub(crate) const fn for_test(number: u8) -> Self {
        Self([number; 32])
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A few bits tell two logins apart in a log and do not help to guess a key.
        write!(f, "Identity({:02x}{:02x})", self.0[0], self.0[1])
    }
}

/// `cli_auth_credentials_store`: where the CLI keeps its login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    File,
    Keyring,
    /// The keyring if the machine has one, otherwise the file.
    Auto,
    /// Nowhere: each process has a login of its own.
    Ephemeral,
}

impl Store {
    fn new(config: &UserConfig) -> Self {
        match config.get("cli_auth_credentials_store").and_then(toml::Value::as_str) {
            Some("keyring") => Self::Keyring,
            Some("auto") => Self::Auto,
            Some("ephemeral") => Self::Ephemeral,
            // The CLI itself rejects an unknown value.
            Some(_) | None => Self::File,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Keyring => "keyring",
            Self::Auto => "auto",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// The reason why turns cannot have a login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginError {
    /// The own provider reads its key from a variable that is not set.
    #[error(transparent)]
    ProviderKey(MissingKey),
    /// There is no login.
    #[error("the Codex CLI is not logged in")]
    NotLoggedIn,
    /// `auth.json` cannot be used.
    #[error("the auth.json of the Codex CLI cannot be read: {0}")]
    Unreadable(String),
    /// The login is in the keyring, under the path of a home that workers do not have.
    #[error("cli_auth_credentials_store is \"{0}\": workers have homes of their own and find no login there")]
    Keyring(&'static str),
    /// The login has another kind than `forced_login_method`. The CLI would delete the login.
    #[error(
        "forced_login_method is \"{forced}\", but the login is {found}; the Codex CLI would delete auth.json"
    )]
    WrongMethod {
        /// The required method.
        forced: String,
        /// The kind of the login.
        found: &'static str,
    },
    /// The login has another workspace than `forced_chatgpt_workspace_id`. The CLI would delete the login.
    #[error(
        "the login has another workspace than forced_chatgpt_workspace_id; the Codex CLI would delete auth.json"
    )]
    WrongWorkspace,
    /// The access token has expired and cannot be refreshed.
    #[error("the ChatGPT login has expired and has no refresh token")]
    Expired,
    /// The access token has expired, and the CLI cannot save another one.
    #[error(
        "the access token of the ChatGPT login has expired, and auth.json cannot be replaced: the Codex CLI would spend \
         the refresh token and lose the new one"
    )]
    CannotSave,
    /// The upstream refused the login.
    #[error("the upstream refused the login of the Codex CLI, and it has not changed since")]
    Refused,
}

/// The remedy of a missing login.
const LOG_IN: &str = "run `codex login`, or set CODEX_API_KEY, as the server's user";

impl LoginError {
    /// Returns the action for the operator.
    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Self::ProviderKey(_) => {
                "set the variable in the server's environment, or in `.env` of the CLI's home"
            }
            Self::NotLoggedIn => LOG_IN,
            Self::Unreadable(_) => "run `codex login` again as the server's user",
            Self::Keyring(_) => {
                "set cli_auth_credentials_store = \"file\" in the CLI's config.toml and run `codex login` again, or \
                 set CODEX_API_KEY"
            }
            Self::WrongMethod { .. } => {
                "log in by the required method, or change forced_login_method in the CLI's config.toml; with \
                 \"chatgpt\", also unset CODEX_API_KEY"
            }
            Self::WrongWorkspace => {
                "log in to the required workspace, or change forced_chatgpt_workspace_id in the CLI's config.toml"
            }
            Self::CannotSave => {
                "mount the folder of auth.json, not the file, and keep both writable for the server's user"
            }
            Self::Expired | Self::Refused => {
                "run `codex login` again, or set another key, as the server's user"
            }
        }
    }

    /// Returns `true` if the CLI would delete or lose the user's login, so that no process of it may start.
    pub(crate) const fn endangers_login(&self) -> bool {
        matches!(self, Self::WrongMethod { .. } | Self::WrongWorkspace | Self::CannotSave)
    }

    /// Returns the finding with its remedy.
    pub(crate) fn with_remedy(&self) -> String {
        format!("{self}; {}", self.remedy())
    }
}

/// Checks that turns have a login.
///
/// # Errors
///
/// [`LoginError`] if every turn would fail, or if the CLI would delete the login.
pub(crate) fn check(codex: &Codex) -> Result<(), LoginError> {
    let (login, now) = (Login::read(codex), SystemTime::now());
    match login.problem(now) {
        Some(problem) => Err(problem),
        // A running server continues with the tokens that its workers have in memory.
        None if login.is_lost_by_refresh(now) => Err(LoginError::CannotSave),
        None => Ok(()),
    }
}

impl Login {
    /// Reads the login that the CLI would use.
    pub(crate) fn read(codex: &Codex) -> Self {
        Self::read_with(codex, &UserConfig::load(codex))
    }

    fn read_with(codex: &Codex, config: &UserConfig) -> Self {
        let env = environment::environment(codex);
        let file = environment::codex_home(&env).map(|home| home.join("auth.json"));
        let store = Store::new(config);
        let text = |name: &str| config.get(name).and_then(toml::Value::as_str).map(str::to_owned);
        let kind = match (environment::api_key(&env), environment::variable(&env, environment::ACCESS_TOKEN))
        {
            (Some(key), _) => LoginKind::EnvironmentKey(Identity::new("key", &[&key])),
            (None, Some(token)) => LoginKind::EnvironmentToken(Identity::new("token", &[&token])),
            (None, None) => match store {
                Store::File => read_file(file.as_deref()),
                Store::Keyring | Store::Ephemeral => LoginKind::Keyring,
                Store::Auto => {
                    let kind = read_file(file.as_deref());
                    // Without a bus there is no Secret Service, and the CLI uses the file.
                    let has_keyring = cfg!(target_os = "macos")
                        || environment::variable(&env, "DBUS_SESSION_BUS_ADDRESS").is_some();
                    if kind == LoginKind::Missing && has_keyring { LoginKind::Keyring } else { kind }
                }
            },
        };
        Self {
            kind,
            store,
            file,
            required: codex.scripted_upstream.is_none() && requires_login(config),
            forced_method: text("forced_login_method"),
            forced_workspaces: workspaces(config),
            missing_key: provider::check_key(codex).err(),
            finds_keyring: codex.engine == EngineChoice::Exec
                && codex.cli_home.is_none()
                && matches!(store, Store::Keyring | Store::Auto),
        }
    }

    /// Returns the identity, or `None` if there is no login.
    pub(crate) const fn identity(&self) -> Option<Identity> {
        match &self.kind {
            LoginKind::EnvironmentKey(identity)
            | LoginKind::EnvironmentToken(identity)
            | LoginKind::Key(identity)
            | LoginKind::Other { identity, .. } => Some(*identity),
            LoginKind::ChatGpt(login) => Some(login.identity),
            LoginKind::Keyring | LoginKind::Missing | LoginKind::Unreadable(_) => None,
        }
    }

    /// Returns the reason why turns cannot have this login.
    pub(crate) fn problem(&self, now: SystemTime) -> Option<LoginError> {
        if let Some(missing) = &self.missing_key {
            return Some(LoginError::ProviderKey(missing.clone()));
        }
        // The CLI enforces these settings whatever provider is selected.
        if let Some(conflict) = self.conflict() {
            return Some(conflict);
        }
        if !self.required {
            return None;
        }
        match &self.kind {
            LoginKind::Missing => Some(LoginError::NotLoggedIn),
            LoginKind::Unreadable(cause) => Some(LoginError::Unreadable(cause.clone())),
            LoginKind::Keyring if !self.finds_keyring => Some(LoginError::Keyring(self.store.as_str())),
            LoginKind::ChatGpt(login) if login.is_lost(now) => Some(LoginError::Expired),
            LoginKind::Keyring
            | LoginKind::ChatGpt(_)
            | LoginKind::EnvironmentKey(_)
            | LoginKind::EnvironmentToken(_)
            | LoginKind::Key(_)
            | LoginKind::Other { .. } => None,
        }
    }

    /// Returns `true` if the first process of the CLI would spend the refresh token without saving the new one.
    fn is_lost_by_refresh(&self, now: SystemTime) -> bool {
        let (LoginKind::ChatGpt(login), Some(file)) = (&self.kind, &self.file) else { return false };
        self.required && login.is_expired(now) && file::reason_irreplaceable(file).is_some()
    }

    /// Returns the setting that forbids this login. The CLI reacts by deleting `auth.json`.
    fn conflict(&self) -> Option<LoginError> {
        let (method, found) = match &self.kind {
            LoginKind::EnvironmentKey(_) => ("api", "CODEX_API_KEY"),
            LoginKind::Key(_) => ("api", "an API key"),
            LoginKind::ChatGpt(_) => ("chatgpt", "a ChatGPT account"),
            LoginKind::EnvironmentToken(_)
            | LoginKind::Other { .. }
            | LoginKind::Keyring
            | LoginKind::Missing
            | LoginKind::Unreadable(_) => return None,
        };
        if let Some(forced) = self.forced_method.as_ref().filter(|forced| *forced != method) {
            // Callers see the method. The CLI knows only these two.
            let forced = if matches!(&**forced, "api" | "chatgpt") { forced } else { "another method" };
            return Some(LoginError::WrongMethod { forced: forced.to_owned(), found });
        }
        let LoginKind::ChatGpt(login) = &self.kind else { return None };
        let allowed = &self.forced_workspaces;
        if allowed.is_empty() || login.account.as_ref().is_some_and(|account| allowed.contains(account)) {
            return None;
        }
        Some(LoginError::WrongWorkspace)
    }
}

impl ChatGpt {
    /// Returns `true` if the access token has expired.
    pub(crate) fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    /// Returns `true` if no process can use this login any more.
    fn is_lost(&self, now: SystemTime) -> bool {
        self.is_expired(now) && !self.has_refresh_token
    }
}

/// Returns `true` if the selected provider uses the login of OpenAI.
fn requires_login(config: &UserConfig) -> bool {
    // A profile may select another provider.
    if config.selects_profile() {
        return false;
    }
    let id = config.model_provider().unwrap_or("openai");
    let Some(provider) = config.provider(id).filter(|_| id != "openai") else {
        return id == "openai";
    };
    let has = |key: &str| provider.get(key).is_some();
    provider.get("requires_openai_auth").and_then(toml::Value::as_bool) == Some(true)
        && !has("env_key")
        && !has("experimental_bearer_token")
        && !has("auth")
}

fn workspaces(config: &UserConfig) -> Vec<String> {
    let text = |value: &toml::Value| value.as_str().map(str::to_owned).filter(|id| !id.is_empty());
    match config.get("forced_chatgpt_workspace_id") {
        Some(toml::Value::Array(ids)) => ids.iter().filter_map(text).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn read_file(file: Option<&Path>) -> LoginKind {
    let Some(file) = file else { return LoginKind::Missing };
    match fs::read(file) {
        Ok(content) => kind_of(&content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => LoginKind::Missing,
        Err(error) => LoginKind::Unreadable(error.to_string()),
    }
}

/// Returns the kind of login in the content of an `auth.json`.
fn kind_of(content: &[u8]) -> LoginKind {
    let file = match AuthFile::parse(content) {
        Ok(file) => file,
        Err(cause) => return LoginKind::Unreadable(cause),
    };
    let key = file.key.as_deref().map(str::trim).filter(|key| !key.is_empty());
    match (file.auth_mode.as_deref(), key, &file.tokens) {
        (Some("apikey") | None, Some(key), _) => LoginKind::Key(Identity::new("key", &[key])),
        (Some("chatgpt" | "chatgptAuthTokens") | None, _, Some(tokens)) => {
            let claims = tokens.claims();
            let account = tokens.account();
            let identity = match &account {
                Some(account) => {
                    Identity::new("account", &[account, claims.user.as_deref().unwrap_or_default()])
                }
                None => Identity::new("tokens", &[&tokens.access_token]),
            };
            LoginKind::ChatGpt(ChatGpt {
                identity,
                account,
                plan: claims.plan,
                expires: tokens.expires().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
                has_refresh_token: !tokens.refresh_token.trim().is_empty(),
            })
        }
        (Some("apikey" | "chatgpt" | "chatgptAuthTokens") | None, ..) => LoginKind::Missing,
        (Some(mode), ..) => LoginKind::Other {
            mode: mode.to_owned(),
            identity: Identity::new(mode, &[&file.other_secrets()]),
        },
    }
}

#[cfg(test)]
mod tests;
