//! The directory for temporary files of a turn whose commands may write. The directory is on the disk, because a build
//! needs space. Turns on the same worker do not share a directory. The driver removes the directory at the end of the
//! turn.

use std::{io, path::Path};

use crate::{
    config::{Profile, Sandbox},
    engine::{Turn, process::private_dir::PrivateDir},
};

/// The temporary directory of one turn.
#[derive(Debug)]
pub(crate) struct TurnTempDir(PrivateDir);

impl TurnTempDir {
    /// Creates a directory in `parent`, which belongs to the worker. Returns `None` for a turn that cannot write.
    pub(crate) fn create(turn: &Turn, parent: Option<&Path>) -> io::Result<Option<Self>> {
        let may_write = turn.profile == Profile::Agent && turn.sandbox != Sandbox::ReadOnly;
        let Some(parent) = parent.filter(|_| may_write) else { return Ok(None) };
        Ok(Some(Self(PrivateDir::with_prefix("turn-", parent)?)))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes the directory on a blocking thread, because it may contain many files. Errors are logged.
    pub(crate) async fn remove(self) {
        self.0.remove().await;
    }
}
