//! The directory for temporary files of a turn whose commands may write. The directory is on the disk, because a build
//! needs space. Turns on the same worker do not share a directory. The driver removes the directory at the end of the
//! turn.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::TempDir;

use crate::{
    config::{Profile, Sandbox},
    engine::Turn,
};

/// The temporary directory of one turn.
#[derive(Debug)]
pub(crate) struct TurnTempDir(TempDir);

impl TurnTempDir {
    /// Creates a directory in `parent`, which belongs to the worker. Returns `None` for a turn that cannot write.
    pub(crate) fn create(turn: &Turn, parent: Option<&Path>) -> io::Result<Option<Self>> {
        let may_write = turn.profile == Profile::Agent && turn.sandbox != Sandbox::ReadOnly;
        let Some(parent) = parent.filter(|_| may_write) else { return Ok(None) };
        let owner_only = Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("turn-").permissions(owner_only).tempdir_in(parent)?;
        Ok(Some(Self(dir)))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes the directory on a blocking thread, because it may contain many files. Errors are logged.
    pub(crate) async fn remove(self) {
        let removed = tokio::task::spawn_blocking(move || {
            // A build may leave directories without write permission for their owner.
            fs::remove_dir_all(self.path()).or_else(|_| {
                make_writable(self.path());
                self.0.close()
            })
        });
        // The cleanup of a killed worker may already have removed the directory.
        if let Ok(Err(error)) = removed.await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove a turn's temporary directory");
        }
    }
}

/// Gives the owner all permissions on a directory and the directories in it. Does not follow links.
fn make_writable(dir: &Path) {
    drop(fs::set_permissions(dir, Permissions::from_mode(0o700)));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn remove_read_only_directory_removes_it_and_keeps_link_targets() {
        let parent = tempfile::tempdir().unwrap();
        let foreign = parent.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::set_permissions(&foreign, Permissions::from_mode(0o555)).unwrap();
        let dir = TurnTempDir(tempfile::tempdir_in(parent.path()).unwrap());
        let module = dir.path().join("cache/module");
        fs::create_dir_all(&module).unwrap();
        fs::write(module.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&foreign, module.join("link")).unwrap();
        fs::set_permissions(&module, Permissions::from_mode(0o555)).unwrap();
        make_writable(dir.path());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&module), mode(&foreign)), (0o700, 0o555));
        let path = dir.path().to_owned();
        dir.remove().await;
        assert!(!path.exists() && foreign.is_dir());
    }
}
