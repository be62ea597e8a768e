//! A seed: the file of a stored thread without items, of which `thread/fork` makes an ephemeral thread. The seed chooses the
//! key that Codex sends as `prompt_cache_key` and `session-id`, which nothing else can choose (0.169).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use uuid::Uuid;

/// The name of this server at the upstream. Codex takes it from `initialize` for a thread, and from the seed for a fork.
pub(crate) const CLIENT_NAME: &str = "codex-api";

/// The time in a seed and in its name. Codex requires one and does not compare it with the clock.
const TIMESTAMP: &str = "2026-01-01T00:00:00.000Z";
const NAME_TIMESTAMP: &str = "2026-01-01T00-00-00";

/// The content of a seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeedMeta<'a> {
    /// The key of the fork.
    pub(crate) key: Uuid,
    /// The working directory. The parameters of the fork replace it.
    pub(crate) cwd: &'a Path,
    /// The version of the CLI.
    pub(crate) version: &'a str,
}

/// The file of a seed, which is removed when the seed is dropped. Codex needs the file until it has answered `thread/fork`.
#[derive(Debug)]
pub(crate) struct Seed {
    path: PathBuf,
    thread_id: String,
}

impl Seed {
    /// Writes a seed to `dir`. Each seed has a file of its own, so that forks do not depend on each other.
    pub(crate) fn create(dir: &Path, meta: &SeedMeta<'_>) -> io::Result<Self> {
        let thread_id = Uuid::now_v7().to_string();
        let path = dir.join(format!("rollout-{NAME_TIMESTAMP}-{thread_id}.jsonl"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        // Removes the file if the write fails.
        let seed = Self { path, thread_id };
        file.write_all(format!("{}\n", meta.line(&seed.thread_id)).as_bytes())?;
        Ok(seed)
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the id of the stored thread.
    pub(crate) fn thread_id(&self) -> &str {
        &self.thread_id
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            // The folder was removed with its worker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot remove a seed"),
        }
    }
}

impl SeedMeta<'_> {
    /// Returns the only line of the file. 0.169 refuses a seed without times, `cwd`, `originator` or `cli_version`.
    fn line(&self, thread_id: &str) -> Value {
        json!({
            "timestamp": TIMESTAMP,
            "type": "session_meta",
            "payload": {
                "session_id": self.key.to_string(),
                "id": thread_id,
                "timestamp": TIMESTAMP,
                "cwd": self.cwd.to_string_lossy(),
                "originator": CLIENT_NAME,
                "cli_version": self.version,
                "source": "vscode",
                // Without this field the model gets 10 kB of collaboration tools.
                "multi_agent_version": "disabled",
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn meta() -> SeedMeta<'static> {
        SeedMeta { key: Uuid::from_u128(7), cwd: Path::new("/work"), version: "0.169.0" }
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn seed_is_one_line_with_the_key_and_is_removed_on_drop() {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed::create(dir.path(), &meta()).unwrap();
        let text = fs::read_to_string(seed.path()).unwrap();
        assert_eq!((text.lines().count(), text.ends_with('\n')), (1, true));
        let line: Value = serde_json::from_str(&text).unwrap();
        let payload = &line["payload"];
        assert_eq!(payload["session_id"], "00000000-0000-0000-0000-000000000007");
        assert_eq!(payload["id"], seed.thread_id());
        assert_eq!(payload["multi_agent_version"], "disabled");
        let name = seed.path().file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(name, format!("rollout-2026-01-01T00-00-00-{}.jsonl", seed.thread_id()));
        assert_eq!(fs::metadata(seed.path()).unwrap().permissions().mode() & 0o777, 0o600);
        drop(seed);
        assert_eq!(files(dir.path()), 0);
    }

    #[test]
    fn seeds_of_one_key_have_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let seeds: Vec<_> = (0..8).map(|_| Seed::create(dir.path(), &meta()).unwrap()).collect();
        assert_eq!(files(dir.path()), 8);
        drop(seeds);
        assert_eq!(files(dir.path()), 0);
    }

    #[test]
    fn seed_whose_folder_is_gone_fails_or_drops_silently() {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed::create(dir.path(), &meta()).unwrap();
        let path = dir.path().to_owned();
        dir.close().unwrap();
        drop(seed);
        assert_eq!(Seed::create(&path, &meta()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
