//! Private folders for files of the server and of its children. Each belongs to this server by its name, so that the next
//! server removes the folders of a killed one.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::platform::{SCRATCH_DIR, is_in_memory, pid_namespace, start_ticks};

/// Minimum free bytes of a tmpfs. The default size in a container is 64 MiB.
const MIN_FREE_BYTES: u64 = 32 << 20;

/// Prefix of the names of all private folders.
const PREFIX: &str = "codex-api-private-";

/// Prefix of the names in the first release.
const FORMER_PREFIX: &str = "codex-api-worker-";

/// Permissions of a folder that only its owner can use.
const OWNER_ONLY: u32 = 0o700;

/// Permissions of a folder whose files can be opened by name, but not listed. Commands of the agent run as the same user, and
/// their sandbox lets them read, but not change permissions.
const UNLISTABLE: u32 = 0o300;

/// Length of a random name. Each letter or digit has almost 6 bits.
const RANDOM_CHARS: usize = 24;

/// A private folder. Dropping it removes it with its content.
#[derive(Debug)]
pub(crate) struct PrivateDir(PathBuf);

impl PrivateDir {
    /// Creates a folder in memory if there is room for `bytes`, otherwise in `scratch`. The sandbox of Codex hides the folder in
    /// memory from commands (0.169).
    pub(crate) fn create(scratch: &Path, bytes: u64) -> io::Result<Self> {
        let memory = SCRATCH_DIR.map(Path::new);
        let memory = memory.filter(|dir| is_in_memory(dir, bytes.saturating_add(MIN_FREE_BYTES)));
        match memory.map(Self::create_in) {
            Some(Ok(dir)) => Ok(dir),
            Some(Err(_)) | None => Self::create_in(scratch),
        }
    }

    /// Creates a folder in `root`. If this server is killed, [`remove_orphaned`] finds the folder by its name.
    pub(crate) fn create_in(root: &Path) -> io::Result<Self> {
        Self::with_prefix(&Owner::current()?.prefix(), root)
    }

    /// Creates a folder in another private folder.
    pub(crate) fn with_prefix(prefix: &str, root: &Path) -> io::Result<Self> {
        let owner_only = Permissions::from_mode(OWNER_ONLY);
        let dir = tempfile::Builder::new().prefix(prefix).permissions(owner_only).tempdir_in(root)?;
        Ok(Self(dir.keep()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Creates a folder with a random name that cannot be read, so that only a process that was told the name can open a file
    /// in it.
    pub(crate) fn create_hidden(&self) -> io::Result<PathBuf> {
        let unlistable = Permissions::from_mode(UNLISTABLE);
        let random = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(RANDOM_CHARS)
            .permissions(unlistable)
            .tempdir_in(&self.0)?;
        fs::set_permissions(&self.0, Permissions::from_mode(UNLISTABLE))?;
        Ok(random.keep())
    }

    /// Removes the folder on a blocking thread, because it may contain many files.
    pub(crate) async fn remove(self) {
        drop(tokio::task::spawn_blocking(move || drop(self)).await);
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // The supervisor of a killed child may already have removed the folder.
        if let Err(error) = remove_tree(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.0.display(), "cannot remove a private folder");
        }
    }
}

/// Removes the private folders of servers that no longer run.
pub(crate) fn remove_orphaned(scratch: &Path) {
    for root in SCRATCH_DIR.map(Path::new).into_iter().chain([scratch]) {
        if let Err(error) = remove_orphaned_in(root) {
            tracing::debug!(%error, root = %root.display(), "cannot search for folders of killed servers");
        }
    }
}

fn remove_orphaned_in(root: &Path) -> io::Result<()> {
    let current = Owner::current()?;
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(root)?.flatten() {
        let Some(owner) = Owner::parse(&entry.file_name()) else { continue };
        // A PID of another namespace does not identify the owner.
        let is_orphaned =
            owner.namespace == current.namespace && start_ticks(owner.pid) != Some(owner.start_ticks);
        let is_own = entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == user);
        if is_orphaned && is_own {
            tracing::info!(folder = %entry.path().display(), "removing the folder of a killed server");
            drop(remove_tree(&entry.path()));
        }
    }
    Ok(())
}

/// The server that owns a folder. The start time distinguishes it from a later process with the same PID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    namespace: u64,
    pid: u32,
    start_ticks: u64,
}

impl Owner {
    fn current() -> io::Result<Self> {
        let namespace = pid_namespace()?;
        let pid = std::process::id();
        let start_ticks =
            start_ticks(pid).ok_or_else(|| io::Error::other("the start time of this process is unknown"))?;
        Ok(Self { namespace, pid, start_ticks })
    }

    fn prefix(self) -> String {
        format!("{PREFIX}{}-{}-{}-", self.namespace, self.pid, self.start_ticks)
    }

    fn parse(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        let mut parts = name.strip_prefix(PREFIX).or_else(|| name.strip_prefix(FORMER_PREFIX))?.split('-');
        let namespace = parts.next()?.parse().ok()?;
        let pid = parts.next()?.parse().ok()?;
        let start_ticks = parts.next()?.parse().ok()?;
        parts.next()?;
        Some(Self { namespace, pid, start_ticks })
    }
}

/// Removes a folder with its content, also folders without permissions for their owner, at any depth. Does not follow links.
///
/// A folder below a folder is moved to the top before its parent is removed. So neither the stack, nor the open files, nor the
/// length of the paths grow with the depth, which a command of the agent chooses.
pub(crate) fn remove_tree(top: &Path) -> io::Result<()> {
    open_up(top);
    let mut moved = 0_u64;
    loop {
        let (mut failure, mut removed) = (None, false);
        for entry in fs::read_dir(top)? {
            let path = entry?.path();
            match remove_entry(&path, top, &mut moved) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            // The rest cannot be removed.
            Some(error) if !removed => return Err(error),
            None if !removed => return fs::remove_dir(top),
            Some(_) | None => {}
        }
    }
}

/// Removes a file or a folder in `top`. Moves the folders in it to `top`.
fn remove_entry(path: &Path, top: &Path, moved: &mut u64) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    open_up(path);
    for child in fs::read_dir(path)? {
        let child = child?.path();
        if !fs::symlink_metadata(&child)?.is_dir() {
            fs::remove_file(&child)?;
            continue;
        }
        // A folder moves only if it can be written, because its `..` changes.
        open_up(&child);
        let mut target = top.join(format!("moved-{moved}"));
        while target.symlink_metadata().is_ok() {
            *moved += 1;
            target = top.join(format!("moved-{moved}"));
        }
        fs::rename(&child, target)?;
    }
    fs::remove_dir(path)
}

/// Gives the owner of a folder all permissions. Without them, the next step fails with its cause.
fn open_up(dir: &Path) {
    drop(fs::set_permissions(dir, Permissions::from_mode(OWNER_ONLY)));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn remove_tree_with_folders_without_permissions_removes_them_and_keeps_link_targets() {
        let root = tempfile::tempdir().unwrap();
        let foreign = root.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("file"), "x").unwrap();
        fs::set_permissions(&foreign, Permissions::from_mode(0o555)).unwrap();
        let top = root.path().join("top");
        let module = top.join("cache/module");
        fs::create_dir_all(module.join("inner")).unwrap();
        // A name that moved folders have.
        fs::create_dir_all(top.join("moved-0/moved-0/moved-1")).unwrap();
        fs::write(module.join("inner/file"), "x").unwrap();
        symlink(&foreign, module.join("link")).unwrap();
        for (folder, mode) in
            [(module.join("inner"), 0o555), (module, 0), (top.join("cache"), 0o311), (top.clone(), 0)]
        {
            fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists() && foreign.join("file").exists());
        assert_eq!(fs::metadata(&foreign).unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(remove_tree(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn remove_tree_of_great_depth_removes_it() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("top");
        fs::create_dir(&top).unwrap();
        // The path of the last folder is far longer than the maximum length of a path.
        let mut folder =
            rustix::fs::open(&top, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&folder, "deep", rustix::fs::Mode::from_raw_mode(0o500 | 0o200)).unwrap();
            folder =
                rustix::fs::openat(&folder, "deep", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
                    .unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn private_dir_is_private_unlistable_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let dir = PrivateDir::create_in(root.path()).unwrap();
        let path = dir.path().to_owned();
        assert_eq!(mode(&path), 0o700);
        let hidden = dir.create_hidden().unwrap();
        fs::write(hidden.join("file"), "x").unwrap();
        assert_eq!((mode(&path), mode(&hidden)), (0o300, 0o300));
        assert_eq!((hidden.parent().unwrap(), hidden.file_name().unwrap().len()), (&*path, RANDOM_CHARS));
        assert_eq!(fs::read_to_string(hidden.join("file")).unwrap(), "x");
        if !rustix::process::geteuid().is_root() {
            assert_eq!(fs::read_dir(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        drop(dir);
        assert!(!path.exists());
        // More bytes than any memory has.
        let dir = PrivateDir::create(root.path(), u64::MAX).unwrap();
        assert!(dir.path().starts_with(root.path()));
    }

    #[test]
    fn remove_orphaned_with_running_servers_keeps_their_folders() {
        let root = tempfile::tempdir().unwrap();
        let ours = Owner::current().unwrap();
        let make = |owner: Owner| {
            let path = root.path().join(format!("{}x", owner.prefix()));
            fs::create_dir(&path).unwrap();
            path
        };
        let running = PrivateDir::create_in(root.path()).unwrap();
        // The PID of this process, used by another process at another time.
        let reused = make(Owner { start_ticks: ours.start_ticks + 1, ..ours });
        // Beyond the maximum PID of Linux.
        let gone = make(Owner { pid: u32::MAX, ..ours });
        let former =
            root.path().join(gone.file_name().unwrap().to_str().unwrap().replace(PREFIX, FORMER_PREFIX));
        fs::create_dir(&former).unwrap();
        fs::create_dir(gone.join("locked")).unwrap();
        fs::write(gone.join("locked/image-1.png"), "x").unwrap();
        fs::set_permissions(gone.join("locked"), Permissions::from_mode(0o500)).unwrap();
        let elsewhere = make(Owner { namespace: 1, pid: u32::MAX, ..ours });
        let other = root.path().join(format!("{PREFIX}x"));
        fs::create_dir(&other).unwrap();

        remove_orphaned_in(root.path()).unwrap();
        assert!(!reused.exists() && !gone.exists() && !former.exists());
        assert!(running.path().exists() && elsewhere.exists() && other.exists());
    }

    #[test]
    fn is_in_memory_of_proc_and_missing_dirs_returns_false() {
        assert!(!is_in_memory(Path::new("/proc"), 0));
        assert!(!is_in_memory(Path::new("/nonexistent"), 0));
    }
}
