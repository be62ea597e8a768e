//! Fallback for Unix systems without Linux's interfaces. The supervisor ends a turn by its process group. Processes
//! cannot be listed, so the functions that search for processes return none.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal};

/// `None`, because no folder in memory is known.
pub(crate) const SCRATCH_DIR: Option<&str> = None;

/// Has no effect. Orphans of descendants become children of init.
pub(crate) fn reap_orphans_of_descendants() -> io::Result<()> {
    Ok(())
}

/// Has no effect. The supervisor polls its parent instead.
pub(crate) fn signal_on_parent_death(_signal: Signal) -> io::Result<()> {
    Ok(())
}

/// Has no effect. The supervisor kills the process group of its child.
pub(crate) fn kill_on_parent_death() -> io::Result<()> {
    Ok(())
}

/// Has no effect.
pub fn disable_introspection() -> io::Result<()> {
    Ok(())
}

/// Returns `false`, because no portable interface tells it without unsafe code.
pub fn ignores_hangup() -> bool {
    false
}

/// Returns the path of this executable. After an update the path names the new file.
pub(crate) fn own_executable() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("codex-api"))
}

/// Returns `false`, because the PID of the parent changes as soon as the parent has exited.
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

/// Returns `false`, because the environment of other processes cannot be read.
pub(crate) fn has_env_entry(_pid: Pid, _entry: &str) -> bool {
    false
}

/// Returns 0, because these systems have no PID namespaces.
pub(crate) fn pid_namespace() -> io::Result<u64> {
    Ok(0)
}

/// Returns `false`, because no folder in memory is known.
pub(crate) fn is_in_memory(_path: &Path, _min_free_bytes: u64) -> bool {
    false
}

/// State and memory of the program below a supervisor, which cannot be read on these systems.
#[derive(Debug)]
pub(crate) enum ProcessStats {}

impl ProcessStats {
    /// Returns `None`.
    pub(crate) fn open(_supervisor: u32) -> Option<Self> {
        None
    }

    /// Returns the PID of the program.
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
