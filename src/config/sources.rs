//! The texts of all settings, merged by precedence, and the errors found in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::PathBuf,
};

use super::{
    ConfigError, Sources, dotenv,
    kinds::{Key, Kind},
    settings,
};

/// The merged texts.
#[derive(Debug)]
pub(super) struct RawSettings {
    /// By environment name; every setting is present.
    merged: BTreeMap<&'static str, String>,
    /// Environment names of the settings whose text is not the default.
    set: BTreeSet<&'static str>,
    /// The environment of the CLI.
    child: BTreeMap<OsString, OsString>,
    current_dir: PathBuf,
    dotenv_file: Option<PathBuf>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl RawSettings {
    pub(super) fn merge(sources: Sources) -> Self {
        let Sources { flags, env, dotenv, dotenv_file, current_dir } = sources;
        let mut errors = Vec::new();
        let file = dotenv.map_or_else(BTreeMap::new, |text| {
            dotenv::parse(&text).unwrap_or_else(|e| {
                errors.push(format!(".env, {e}"));
                BTreeMap::new()
            })
        });
        let from_env = |name: &str| env.get(&OsString::from(name)).map(|v| v.to_string_lossy().into_owned());
        let (mut merged, mut set) = (BTreeMap::new(), BTreeSet::new());
        for setting in settings::SETTINGS {
            // An empty value counts as not set, so that a template with `NAME=` lines has no effect.
            let candidates =
                [flags.get(setting.env).cloned(), from_env(setting.env), file.get(setting.env).cloned()];
            let is_foreign = |v: &str| settings::CLI_VALUES.contains(&(setting.env, v));
            let value = candidates.into_iter().flatten().find(|v| !v.trim().is_empty() && !is_foreign(v));
            if value.is_some() {
                set.insert(setting.env);
            }
            merged.insert(setting.env, value.unwrap_or_else(|| setting.default.to_owned()));
        }
        let names: BTreeSet<String> =
            env.keys().map(|k| k.to_string_lossy().into_owned()).chain(file.keys().cloned()).collect();
        let warnings = names
            .iter()
            .filter_map(|name| {
                Some(format!("{name} is not a setting; did you mean {}?", settings::closest_setting(name)?))
            })
            .collect();
        let child = child_env(&env, &file);
        Self { merged, set, child, current_dir, dotenv_file, errors, warnings }
    }

    /// Returns the value of a setting. Records an error if the text cannot be parsed.
    pub(super) fn get<K: Kind>(&mut self, key: &Key<K>) -> K::Value {
        key.kind.read(key.setting.env, self)
    }

    /// Returns `true` if a source has the setting, even with the text of the default.
    pub(super) fn is_set<K>(&self, key: &Key<K>) -> bool {
        self.set.contains(key.setting.env)
    }

    /// Records an error, which [`finish`](Self::finish) reports with all others.
    pub(super) fn push_error(&mut self, text: &str) {
        self.errors.push(text.to_owned());
    }

    /// Records an error of a setting.
    pub(super) fn push_error_of<K>(&mut self, key: &Key<K>, text: &str) {
        self.errors.push(format!("{}: {text}", key.setting.env));
    }

    /// Records a warning about a setting.
    pub(super) fn push_warning_of<K>(&mut self, key: &Key<K>, text: &str) {
        self.warnings.push(format!("{}: {text}", key.setting.env));
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// Returns the configuration, or all recorded errors.
    pub(super) fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.errors.is_empty() { Ok(config) } else { Err(ConfigError(self.errors)) }
    }

    /// Returns the trimmed text of a setting.
    pub(super) fn text(&self, name: &'static str) -> String {
        self.merged.get(name).map(|v| v.trim().to_owned()).unwrap_or_default()
    }

    pub(super) fn current_dir(&self) -> PathBuf {
        self.current_dir.clone()
    }

    pub(super) fn dotenv_file(&self) -> Option<PathBuf> {
        self.dotenv_file.clone()
    }

    pub(super) fn child_env(&self) -> BTreeMap<OsString, OsString> {
        self.child.clone()
    }

    /// Returns a path relative to the home (`~/`) or to the current directory.
    pub(super) fn absolute(&self, text: &str) -> PathBuf {
        let home = self.child.get(&OsString::from("HOME"));
        match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => self.current_dir.join(text),
        }
    }
}

/// Returns the environment of the CLI, without the server's own settings, so that its token does not reach the agent.
fn child_env(
    env: &BTreeMap<OsString, OsString>,
    file: &BTreeMap<String, String>,
) -> BTreeMap<OsString, OsString> {
    let mut child: BTreeMap<OsString, OsString> =
        file.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect();
    child.extend(env.iter().map(|(k, v)| (k.clone(), v.clone())));
    child.retain(|name, _| {
        let name = name.to_string_lossy();
        let is_setting = settings::find(&name).is_some() || name == settings::NO_DOTENV;
        // A misspelt CODEX_GATEWAY_TOKEN is a secret as well. Other unknown variables may belong to Codex.
        !is_setting && !name.starts_with("CODEX_GATEWAY_") && !settings::is_misspelt_token(&name)
    });
    child
}
