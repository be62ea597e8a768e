//! Fallback for Unix systems without Linux's interfaces. Process groups end a turn; processes cannot be listed, so the
//! functions that search for processes find none.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal};

/// There is no folder in memory.
pub(crate) const SCRATCH_DIR: Option<&str> = None;

/// Has no effect: orphans of descendants become children of init.
pub(crate) fn reap_orphans_of_descendants() -> io::Result<()> {
    Ok(())
}

/// Has no effect: the supervisor polls its parent instead.
pub(crate) fn signal_on_parent_death(_signal: Signal) -> io::Result<()> {
    Ok(())
}

/// Has no effect: the supervisor kills the process group of its child.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(())
}

/// Has no effect.
pub fn disable_introspection() -> io::Result<()> {
    Ok(())
}

/// Returns the path of this executable. An update that replaces the file changes what the path names.
pub(crate) fn own_executable() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("codex-api"))
}

/// Returns `false`: the PID of the parent changes as soon as the parent has exited.
pub(crate) fn is_exiting(_pid: u32) -> bool {
    false
}

/// Returns no process.
pub(crate) fn descendants(_root: Pid) -> Vec<Pid> {
    Vec::new()
}

/// Returns no process.
pub(crate) fn children(_root: Pid) -> Vec<Pid> {
    Vec::new()
}

/// Returns 0 for a running process, so that only its existence is compared, and `None` if it does not exist.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    // A negative number would be a process group.
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    match rustix::process::test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(0),
        Err(_) => None,
    }
}

/// Returns 0, see [`start_ticks`].
pub(crate) fn boot_ticks() -> u64 {
    0
}

/// Returns `false`: the environment of other processes cannot be read.
pub(crate) fn has_env_entry(_pid: Pid, _entry: &str) -> bool {
    false
}

/// Returns 0: there are no PID namespaces.
pub(crate) fn pid_namespace() -> io::Result<u64> {
    Ok(0)
}

/// Returns `false`: there is no folder in memory.
pub(crate) fn is_in_memory(_path: &Path, _min_free_bytes: u64) -> bool {
    false
}

/// State and memory of a worker, which cannot be read here.
#[derive(Debug)]
pub(crate) enum ProcessStats {}

impl ProcessStats {
    /// Returns `None`.
    pub(crate) fn open(_supervisor: u32) -> Option<Self> {
        None
    }

    /// The PID of the program.
    pub(crate) fn pid(&self) -> u32 {
        match *self {}
    }

    /// Returns `true` if a signal stopped the process.
    pub(crate) fn is_stopped(&self) -> bool {
        match *self {}
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_ticks_of_running_and_missing_processes_differ() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(start_ticks(child.id()), Some(0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(start_ticks(child.id()), None);
        assert_eq!(start_ticks(u32::MAX), None);
    }

    #[test]
    fn process_stats_are_absent_without_an_error() {
        assert!(ProcessStats::open(std::process::id()).is_none());
    }
}
