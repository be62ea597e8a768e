//! The temporary folder of a turn whose commands may write: on the disk, since a build needs room, and its own, since
//! turns of others run on the same worker. Gone with the turn.

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

/// A folder, for as long as its turn runs.
#[derive(Debug)]
pub(crate) struct TurnTempDir(TempDir);

impl TurnTempDir {
    /// One in `place`, which is the worker's; none for a turn that writes nothing.
    pub(crate) fn of(turn: &Turn, place: Option<&Path>) -> io::Result<Option<Self>> {
        let writes = turn.profile == Profile::Agent && turn.sandbox != Sandbox::ReadOnly;
        let Some(place) = place.filter(|_| writes) else { return Ok(None) };
        let ours = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("turn-").permissions(ours).tempdir_in(place)?;
        Ok(Some(Self(folder)))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes it with all that is in it, which may be much.
    pub(crate) async fn remove(self) {
        let removed = tokio::task::spawn_blocking(move || {
            // A build may leave folders that not even their owner can change.
            fs::remove_dir_all(self.path()).or_else(|_| {
                open_up(self.path());
                self.0.close()
            })
        });
        // With a worker that is gone it is gone already.
        if let Ok(Err(error)) = removed.await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the temporary folder of a turn is not removed before its worker goes");
        }
    }
}

/// Makes all folders below `folder` changeable.
fn open_up(folder: &Path) {
    drop(fs::set_permissions(folder, Permissions::from_mode(0o700)));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_not_be_changed_is_removed_too_and_what_is_linked_is_not() {
        let place = tempfile::tempdir().unwrap();
        let foreign = place.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::set_permissions(&foreign, Permissions::from_mode(0o555)).unwrap();
        let folder = TurnTempDir(tempfile::tempdir_in(place.path()).unwrap());
        let module = folder.path().join("cache/module");
        fs::create_dir_all(&module).unwrap();
        fs::write(module.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&foreign, module.join("link")).unwrap();
        fs::set_permissions(&module, Permissions::from_mode(0o555)).unwrap();
        open_up(folder.path());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&module), mode(&foreign)), (0o700, 0o555));
        let path = folder.path().to_owned();
        folder.remove().await;
        assert!(!path.exists() && foreign.is_dir());
    }
}
