//! The raw values of all settings, merged by precedence, and the readers that turn them into types.
//! A reader that meets a mistake notes it and goes on with a harmless value: `finish` reports them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use super::{ConfigError, Sources, dotenv, settings};

#[derive(Debug)]
pub(super) struct RawSettings {
    /// By environment name; every setting is present.
    merged: BTreeMap<&'static str, String>,
    /// What the CLI inherits.
    child: BTreeMap<OsString, OsString>,
    current_dir: PathBuf,
    mistakes: Vec<String>,
    warnings: Vec<String>,
}

impl RawSettings {
    pub(super) fn merge(sources: Sources) -> Self {
        let Sources { flags, env, dotenv, current_dir } = sources;
        let mut mistakes = Vec::new();
        let file = dotenv.map_or_else(BTreeMap::new, |text| {
            dotenv::parse(&text).unwrap_or_else(|e| {
                mistakes.push(format!(".env, {e}"));
                BTreeMap::new()
            })
        });
        let of_env = |name: &str| env.get(&OsString::from(name)).map(|v| v.to_string_lossy().into_owned());
        let mut merged = BTreeMap::new();
        for setting in settings::SETTINGS {
            // An empty value means "not set", so that a template with `NAME=` lines is harmless.
            let given =
                [flags.get(setting.env).cloned(), of_env(setting.env), file.get(setting.env).cloned()];
            let value = given.into_iter().flatten().find(|v| !v.trim().is_empty());
            merged.insert(setting.env, value.unwrap_or_else(|| setting.default.to_owned()));
        }
        let names: BTreeSet<String> =
            env.keys().map(|k| k.to_string_lossy().into_owned()).chain(file.keys().cloned()).collect();
        let warnings = names
            .iter()
            .filter_map(|name| {
                Some(format!("{name} is not a setting; did you mean {}?", settings::meant_by(name)?))
            })
            .collect();
        let child = child_env(&env, &file);
        Self { merged, child, current_dir, mistakes, warnings }
    }

    pub(super) fn mistake(&mut self, text: &str) {
        self.mistakes.push(text.to_owned());
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    pub(super) fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.mistakes.is_empty() { Ok(config) } else { Err(ConfigError(self.mistakes)) }
    }

    pub(super) fn text(&self, name: &'static str) -> String {
        self.merged.get(name).map(|v| v.trim().to_owned()).unwrap_or_default()
    }

    pub(super) fn optional(&self, name: &'static str) -> Option<String> {
        Some(self.text(name)).filter(|v| !v.is_empty())
    }

    pub(super) fn parsed_text<T: FromStr>(&mut self, name: &str, text: &str, expected: &str) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.mistakes.push(format!("{name}: {text:?} is not {expected}"));
        }
        parsed
    }

    pub(super) fn number(&mut self, name: &'static str, least: u64, most: u64) -> u64 {
        let text = self.text(name);
        match text.parse::<u64>() {
            Ok(n) if (least..=most).contains(&n) => n,
            _ => {
                self.mistakes.push(format!("{name}: {text:?} is not a whole number from {least} to {most}"));
                least
            }
        }
    }

    pub(super) fn size(&mut self, name: &'static str, least: u64, most: u64) -> usize {
        usize::try_from(self.number(name, least, most)).unwrap_or(usize::MAX)
    }

    pub(super) fn seconds(&mut self, name: &'static str, least: u64, most: u64) -> Duration {
        let text = self.text(name);
        let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
        let parsed = text.parse().ok().and_then(|n| Duration::try_from_secs_f64(n).ok());
        parsed.filter(|d| bounds.contains(d)).unwrap_or_else(|| {
            self.mistakes.push(format!("{name}: {text:?} is not a number of seconds from {least} to {most}"));
            Duration::from_secs(least)
        })
    }

    pub(super) fn switch(&mut self, name: &'static str) -> bool {
        let text = self.text(name);
        truthy(&text).unwrap_or_else(|| {
            self.mistakes.push(format!("{name}: {text:?} is not 0 or 1"));
            false
        })
    }

    pub(super) fn list(&self, name: &'static str) -> Vec<String> {
        let text = self.text(name);
        text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.optional(name).map(|text| self.absolute(&text))
    }

    pub(super) fn paths(&self, name: &'static str) -> Vec<PathBuf> {
        self.list(name).iter().map(|text| self.absolute(text)).collect()
    }

    pub(super) fn current_dir(&self) -> PathBuf {
        self.current_dir.clone()
    }

    pub(super) fn child_env(&self) -> BTreeMap<OsString, OsString> {
        self.child.clone()
    }

    fn absolute(&self, text: &str) -> PathBuf {
        let home = self.child.get(&OsString::from("HOME"));
        match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => self.current_dir.join(text),
        }
    }
}

/// Reads a switch as people write it.
pub(super) fn truthy(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "" | "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Our own settings stay out of the child's environment: the gateway's token is no business of the agent's.
fn child_env(
    env: &BTreeMap<OsString, OsString>,
    file: &BTreeMap<String, String>,
) -> BTreeMap<OsString, OsString> {
    let mut child: BTreeMap<OsString, OsString> =
        file.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect();
    child.extend(env.iter().map(|(k, v)| (k.clone(), v.clone())));
    child.retain(|name, _| {
        let name = name.to_string_lossy();
        let ours = settings::find(&name).is_some() || name == settings::NO_DOTENV;
        // A misspelt CODEX_GATEWAY_TOKEN is a secret all the same.
        !ours && !name.starts_with("CODEX_GATEWAY_") && settings::meant_by(&name).is_none()
    });
    child
}
