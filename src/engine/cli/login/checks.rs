//! The doctor's checks of the login, and the warnings at the start of the server. Offline.

use std::time::{Duration, SystemTime};

use super::{ChatGpt, Login, LoginError, LoginKind, file};
use crate::{
    config::Codex,
    engine::{
        Check,
        cli::{environment, provider},
    },
};

/// Plans whose workspace configures the CLI. Without a cached configuration the CLI does not start offline.
const MANAGED_PLANS: &[&str] = &["business", "enterprise", "edu", "education"];

/// The CLI's cache of that configuration.
const BUNDLE_CACHE: &str = "cloud-config-bundle-cache.json";

/// Time before the end of an access token from which the CLI refreshes it.
const REFRESH_AHEAD: Duration = Duration::from_secs(300);

/// Returns the checks of the login. The first one is named `login`.
pub(crate) fn examine(codex: &Codex) -> Vec<Check> {
    if codex.scripted_upstream.is_some() {
        return vec![Check::passed("login", "not needed for the scripted upstream".into())];
    }
    let login = Login::read(codex);
    let now = SystemTime::now();
    let first = match super::check(codex).err() {
        Some(LoginError::NotLoggedIn) if is_set(codex, "OPENAI_API_KEY") => Check::failed(
            "login",
            format!("{}; it does not read OPENAI_API_KEY", LoginError::NotLoggedIn),
            "set CODEX_API_KEY to the key, or run `codex login`, as the server's user",
        ),
        Some(error) => Check::failed("login", error.to_string(), error.remedy()),
        None => Check::passed("login", finding(codex, &login, now)),
    };
    std::iter::once(first).chain(warnings_of(codex, &login, now)).collect()
}

/// Logs what the operator should know about a login that works now.
pub(crate) fn log_warnings(codex: &Codex) {
    if codex.scripted_upstream.is_some() {
        return;
    }
    for check in warnings_of(codex, &Login::read(codex), SystemTime::now()) {
        tracing::warn!(
            check = check.name,
            finding = check.finding,
            remedy = check.remedy,
            "login has a limitation"
        );
    }
}

fn finding(codex: &Codex, login: &Login, now: SystemTime) -> String {
    if !login.required {
        return match provider::configured(codex) {
            Some(provider) => format!("by the provider {provider} of config.toml"),
            None => "by the profile or provider of config.toml".to_owned(),
        };
    }
    match &login.kind {
        LoginKind::EnvironmentKey(_) => "by CODEX_API_KEY".to_owned(),
        LoginKind::EnvironmentToken(_) => "by CODEX_ACCESS_TOKEN".to_owned(),
        LoginKind::Key(_) => "API key of auth.json; only a turn tests it (--turn)".to_owned(),
        LoginKind::ChatGpt(login) => describe(login, now),
        LoginKind::Other { mode, .. } => format!("{mode} of auth.json; only a turn tests it (--turn)"),
        LoginKind::Keyring | LoginKind::Missing | LoginKind::Unreadable(_) => {
            "in the keyring; only a turn tests it (--turn)".to_owned()
        }
    }
}

fn describe(login: &ChatGpt, now: SystemTime) -> String {
    let account = login.account.as_deref().unwrap_or("unknown");
    let plan = login.plan.as_deref().map(|plan| format!(", plan {plan}")).unwrap_or_default();
    let end = match login.expires {
        None => String::new(),
        Some(end) => match end.duration_since(now) {
            Ok(left) if left > REFRESH_AHEAD || !login.has_refresh_token => {
                let note = if login.has_refresh_token { "" } else { " and has no refresh token" };
                format!("; the access token is valid for {}{note}", period(left))
            }
            Ok(_) | Err(_) => {
                "; the access token has expired, the CLI refreshes it at the next turn".to_owned()
            }
        },
    };
    format!("ChatGPT account {account}{plan}{end}")
}

/// Returns a period in its largest unit.
fn period(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

fn warnings_of(codex: &Codex, login: &Login, now: SystemTime) -> Vec<Check> {
    let mut warnings = Vec::new();
    let mut warn = |name, finding: String, remedy| warnings.push(Check::warning(name, finding, remedy));
    if codex.env.contains_key(std::ffi::OsStr::new(environment::API_KEY))
        && environment::api_key(&codex.env).is_none()
    {
        warn(
            "login: CODEX_API_KEY",
            "CODEX_API_KEY is empty, which counts as not set".into(),
            "set or remove the variable",
        );
    }
    let has_key = matches!(login.kind, LoginKind::EnvironmentKey(_) | LoginKind::Key(_));
    if login.required && !has_key && login.problem(now).is_none() && is_set(codex, "OPENAI_API_KEY") {
        warn(
            "login: OPENAI_API_KEY",
            "OPENAI_API_KEY is set, but the Codex CLI does not read it".into(),
            "set CODEX_API_KEY to use this key",
        );
    }
    let LoginKind::ChatGpt(tokens) = &login.kind else { return warnings };
    if tokens.has_refresh_token
        && let Some(path) = &login.file
        && let Some(reason) = file::reason_irreplaceable(path)
    {
        warn(
            "login: file",
            format!("{reason}: the CLI spends the refresh token without saving the new one"),
            "mount the folder of auth.json, not the file, and keep both writable for the server's user",
        );
    }
    if let Some(plan) = tokens.plan.as_deref().filter(|plan| MANAGED_PLANS.contains(plan))
        && let Some(home) = login.file.as_deref().and_then(std::path::Path::parent)
        && !home.join(BUNDLE_CACHE).exists()
    {
        warn(
            "login: plan",
            format!(
                "the plan {plan} has a configuration of its workspace, which is not cached: the CLI needs the network to start"
            ),
            NO_BUNDLE,
        );
    }
    warnings
}

/// The remedy for a CLI that cannot load the configuration of its workspace.
pub(crate) const NO_BUNDLE: &str = "let the server reach chatgpt.com (HTTPS_PROXY, DNS, firewall); the CLI loads the workspace's configuration there";

/// Returns `true` if the CLI may have failed because it cannot load the configuration of its workspace.
pub(crate) fn needs_bundle(codex: &Codex) -> bool {
    warnings_of(codex, &Login::read(codex), SystemTime::now()).iter().any(|check| check.remedy == NO_BUNDLE)
}

fn is_set(codex: &Codex, name: &str) -> bool {
    environment::variable(&codex.env, name).is_some()
}

#[cfg(test)]
mod tests;
