//! Linux: `prctl` kills processes whose parent exits, `/proc` lists processes, `/dev/shm` holds scratch files.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::process::{
    DumpableBehavior, Pid, Signal, getpid, set_child_subreaper, set_dumpable_behavior,
    set_parent_process_death_signal,
};

/// Folder for scratch files that should not reach a disk.
pub(crate) const SCRATCH_DIR: Option<&str> = Some("/dev/shm");

/// Makes orphaned descendants children of this process instead of init's (`PR_SET_CHILD_SUBREAPER`).
pub(crate) fn reap_orphans_of_descendants() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Sends `signal` to this process when its parent exits (`PR_SET_PDEATHSIG`).
pub(crate) fn signal_on_parent_death(signal: Signal) -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(signal))?)
}

/// Makes the kernel kill the calling child when its parent exits. Runs between fork and exec, so the function makes one
/// system call and allocates nothing.
pub(crate) fn kill_on_parent_death() -> io::Result<()> {
    signal_on_parent_death(Signal::KILL)
}

/// Disables core dumps and `ptrace` for this process, so that commands of the same user cannot read its memory or
/// environment. Has no effect on root.
pub fn disable_introspection() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Returns `true` if this process ignores SIGHUP, as after `nohup`.
pub fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    // Bit 0 is signal 1, SIGHUP.
    mask & 1 != 0
}

/// Returns the path of this executable, which stays valid if the file is replaced.
pub(crate) fn own_executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Returns `true` if the process is exiting. An exiting process has an empty `cmdline` before its PID disappears.
pub(crate) fn is_exiting(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
}

/// Returns all processes below `root`, from one reading of `/proc`.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let parents = parents();
    let mut processes = vec![root];
    let mut next = 0;
    while let Some(parent) = processes.get(next).copied() {
        processes.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    processes.split_off(1)
}

/// Returns the direct children of `root`.
pub(crate) fn children(root: Pid) -> Vec<Pid> {
    parents().into_iter().filter(|(_, parent)| *parent == root).map(|(pid, _)| pid).collect()
}

/// Returns the start time of a process in clock ticks since boot, or `None` if the process does not exist.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    stat_fields(&stat)?.nth(19)?.parse().ok()
}

/// Returns the current time in clock ticks since boot.
pub(crate) fn boot_ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let whole = u64::try_from(now.tv_sec).unwrap_or_default() * per_second;
    whole + u64::try_from(now.tv_nsec).unwrap_or_default() * per_second / 1_000_000_000
}

/// Returns `true` if the environment of a process contains `entry` (`NAME=value`). An exited process has no environment.
pub(crate) fn has_env_entry(pid: Pid, entry: &str) -> bool {
    let environ = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
}

/// Returns an id of the PID namespace of this process. PIDs of different namespaces are not comparable.
pub(crate) fn pid_namespace() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Returns `true` if `path` is on a tmpfs with at least `min_free_bytes` of room.
pub(crate) fn is_in_memory(path: &Path, min_free_bytes: u64) -> bool {
    /// `TMPFS_MAGIC` of `linux/magic.h`.
    const TMPFS: i128 = 0x0102_1994;
    let Ok(stats) = rustix::fs::statfs(path) else { return false };
    // The fields have different widths on different machines.
    let (kind, block) = (i128::from(stats.f_type), i128::from(stats.f_bsize));
    kind == TMPFS && i128::from(stats.f_bavail).saturating_mul(block) >= i128::from(min_free_bytes)
}

/// State and memory of the program below a supervisor. Its files stay open, because they are read every quarter of a
/// second.
#[derive(Debug)]
pub(crate) struct ProcessStats {
    pid: u32,
    /// The file of the first thread. For the file of the process, the kernel would visit all threads at each read.
    stat: File,
    statm: File,
}

impl ProcessStats {
    /// Opens the files of the first child of `supervisor`, or returns `None` if it has no child.
    pub(crate) fn open(supervisor: u32) -> Option<Self> {
        let children = format!("/proc/{supervisor}/task/{supervisor}/children");
        let pid = std::fs::read_to_string(children).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
        let open = |name| File::open(format!("/proc/{pid}/task/{pid}/{name}")).ok();
        Some(Self { pid, stat: open("stat")?, statm: open("statm")? })
    }

    /// Returns the PID of the program.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns `true` if a signal stopped the process.
    pub(crate) fn is_stopped(&self) -> bool {
        let mut buffer = [0; 512];
        let stat = read_at_start(&self.stat, &mut buffer);
        stat.and_then(stat_fields)
            .and_then(|mut fields| fields.next())
            .is_some_and(|state| state.starts_with('T'))
    }

    /// Returns the resident memory in bytes, 0 for an exited process.
    pub(crate) fn memory(&self) -> u64 {
        let mut buffer = [0; 128];
        let statm = read_at_start(&self.statm, &mut buffer).and_then(|statm| std::str::from_utf8(statm).ok());
        let pages = statm.and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or_default() * u64::try_from(rustix::param::page_size()).unwrap_or_default()
    }
}

fn read_at_start<'a>(file: &File, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = file.read_at(buffer, 0).ok()?;
    buffer.get(..length)
}

/// Returns the fields of `/proc/PID/stat` after the name: state, parent, … The name is in parentheses and may contain
/// any character.
fn stat_fields(stat: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    Some(std::str::from_utf8(stat.get(name_ends + 1..)?).ok()?.split_ascii_whitespace())
}

/// Returns every process with its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(entry.path().join("stat")).ok()?;
            let parent = stat_fields(&stat)?.nth(1)?.parse().ok()?;
            Some((Pid::from_raw(pid)?, Pid::from_raw(parent)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use rustix::process::kill_process;

    use super::*;

    /// Spawns a shell that waits for its child.
    fn parent() -> Child {
        Command::new("sh").args(["-c", "sleep 60; :"]).spawn().unwrap()
    }

    fn stats_of_child(parent: &Child) -> ProcessStats {
        loop {
            if let Some(stats) = ProcessStats::open(parent.id()) {
                return stats;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn process_stats_of_stopped_and_exited_processes_are_read() {
        let mut shell = parent();
        let stats = stats_of_child(&shell);
        let child = Pid::from_raw(stats.pid().cast_signed()).unwrap();
        assert!(!stats.is_stopped());
        assert!(stats.memory() > 0);
        kill_process(child, Signal::STOP).unwrap();
        while !stats.is_stopped() {
            std::thread::yield_now();
        }
        kill_process(child, Signal::KILL).unwrap();
        shell.wait().unwrap();
        assert!(!stats.is_stopped());
        assert_eq!(stats.memory(), 0, "the shell has reaped it");
    }
}
