//! The user's `config.toml` of the Codex CLI. The file is parsed once per change and cached.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{environment, scrub};
use crate::config::Codex;

/// The last parsed file. One process has one configuration; tests that load others replace it.
static CACHE: Mutex<Option<Cached>> = Mutex::new(None);

struct Cached {
    path: PathBuf,
    version: FileVersion,
    table: Arc<toml::Table>,
}

/// Identifies the content of a file: inode, modification time and size.
type FileVersion = (u64, i64, i64, u64);

/// The parsed configuration. Empty if the file is missing or invalid.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserConfig(Arc<toml::Table>);

/// The reason why a `config.toml` cannot be used. The messages have no path and quote nothing of the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserConfigError {
    /// The file cannot be read.
    #[error("config.toml in the CLI's home cannot be read: {0}")]
    Io(io::Error),
    /// The file is not TOML.
    #[error("config.toml in the CLI's home is not valid TOML{place}: {message}")]
    Syntax {
        /// The line, if the parser names one.
        place: String,
        /// The parser's message without the source line and without values.
        message: String,
    },
}

impl UserConfig {
    /// Returns the configuration. Returns an empty configuration if the file is missing or invalid, because the CLI
    /// itself reports errors in the file.
    pub(crate) fn load(codex: &Codex) -> Self {
        Self::try_load(codex).unwrap_or_default()
    }

    /// Returns the configuration, which is empty if the file is missing.
    pub(crate) fn try_load(codex: &Codex) -> Result<Self, UserConfigError> {
        let Some(dir) = environment::codex_home(&environment::environment(codex)) else {
            return Ok(Self::default());
        };
        Self::read(&dir)
    }

    fn read(dir: &Path) -> Result<Self, UserConfigError> {
        let path = dir.join("config.toml");
        let io_error = UserConfigError::Io;
        let version = match fs::metadata(&path) {
            Ok(meta) => (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(io_error(error)),
        };
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache.as_ref().filter(|cached| cached.path == path && cached.version == version)
        {
            return Ok(Self(Arc::clone(&cached.table)));
        }
        let text = fs::read_to_string(&path).map_err(io_error)?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| UserConfigError::Syntax {
            place: error.span().map(|span| place(&text, span.start)).unwrap_or_default(),
            message: scrub::without_values(error.message()),
        })?;
        let table = Arc::new(table);
        *cache = Some(Cached { path, version, table: Arc::clone(&table) });
        Ok(Self(table))
    }

    /// Returns the value at a dotted key.
    pub(crate) fn get(&self, key: &str) -> Option<&toml::Value> {
        lookup(&self.0, key)
    }

    /// Returns the id of the selected provider.
    pub(crate) fn model_provider(&self) -> Option<&str> {
        self.get("model_provider")?.as_str()
    }

    /// Returns the entry of a provider in `model_providers`.
    pub(crate) fn provider(&self, id: &str) -> Option<&toml::Value> {
        self.get("model_providers")?.as_table()?.get(id)
    }

    /// Returns the MCP servers with their entries.
    pub(crate) fn mcp_servers(&self) -> impl Iterator<Item = (&String, &toml::Value)> {
        self.get("mcp_servers").and_then(toml::Value::as_table).into_iter().flatten()
    }

    /// Returns the writable folders of the sandbox `workspace-write`, also those of profiles.
    pub(crate) fn writable_roots(&self) -> impl Iterator<Item = &str> {
        let profiles = self.get("profiles").and_then(toml::Value::as_table).into_iter().flatten();
        let tables = profiles.filter_map(|(_, profile)| profile.as_table()).chain([&*self.0]);
        let roots = tables.filter_map(|table| lookup(table, "sandbox_workspace_write.writable_roots"));
        roots.filter_map(toml::Value::as_array).flatten().filter_map(toml::Value::as_str)
    }

    /// Returns `true` if the configuration or one of its profiles sets a feature.
    pub(crate) fn sets_feature(&self, name: &str) -> bool {
        let sets = |table: &toml::Table| {
            table.get("features").and_then(toml::Value::as_table).is_some_and(|set| set.contains_key(name))
        };
        let profiles = self.get("profiles").and_then(toml::Value::as_table);
        let mut profiles = profiles.into_iter().flatten().filter_map(|(_, profile)| profile.as_table());
        sets(&self.0) || profiles.any(sets)
    }

    /// Returns `true` if a profile of the CLI is selected, which may change any other value.
    pub(crate) fn selects_profile(&self) -> bool {
        self.0.contains_key("profile")
    }

    #[cfg(test)]
    pub(crate) fn from_table(table: toml::Table) -> Self {
        Self(Arc::new(table))
    }
}

/// Returns the line of a position in the file.
fn place(text: &str, position: usize) -> String {
    let line = text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1;
    format!(" (line {line})")
}

fn lookup<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

/// Returns `true` if a name can be part of a dotted key. The CLI accepts no quotes in keys of `-c`.
pub(crate) fn is_bare_key(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_after_a_change_returns_the_new_content() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(UserConfig::read(dir.path()).unwrap().model_provider(), None);
        let write = |text: &str| {
            let new = dir.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, dir.path().join("config.toml")).unwrap();
        };
        write("model_provider = \"a\"");
        assert_eq!(UserConfig::read(dir.path()).unwrap().model_provider(), Some("a"));
        write("model_provider = \"b\"");
        assert_eq!(UserConfig::read(dir.path()).unwrap().model_provider(), Some("b"));
        write("\nmodel_provider = secret");
        let error = UserConfig::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not valid TOML (line 2)") && !error.contains("secret"), "{error}");
        assert!(!error.contains(&dir.path().display().to_string()), "{error}");
    }

    #[test]
    fn get_with_a_dotted_key_returns_the_nested_value() {
        let config = UserConfig::from_table("[a.b]\nc = 1".parse().unwrap());
        assert_eq!(config.get("a.b.c").and_then(toml::Value::as_integer), Some(1));
        assert!(config.get("a.b.d").is_none() && config.get("a.b.c.d").is_none());
    }
}
