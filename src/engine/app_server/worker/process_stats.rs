//! What the kernel says of a worker's process: whether it was stopped, and how much memory it holds. Asked often, so
//! its files stay open, and those are read that cost the kernel least.

use std::{fs::File, os::unix::fs::FileExt};

/// The process in a containment.
#[derive(Debug)]
pub(crate) struct ProcessStats {
    pid: u32,
    /// Of its first thread: for the process, the kernel would visit all threads at each reading.
    stat: File,
    statm: File,
}

impl ProcessStats {
    /// Finds the process in `containment`, which is there once it has spoken.
    pub(crate) fn of(containment: u32) -> Option<Self> {
        let children = format!("/proc/{containment}/task/{containment}/children");
        let pid = std::fs::read_to_string(children).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
        let open = |name| File::open(format!("/proc/{pid}/task/{pid}/{name}")).ok();
        Some(Self { pid, stat: open("stat")?, statm: open("statm")? })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether somebody has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        let mut text = [0; 512];
        let stat = read(&self.stat, &mut text);
        // The name, in parentheses, may hold anything; the letter after it tells what the process does.
        stat.and_then(|stat| stat.rsplit_once(')'))
            .is_some_and(|(_, after)| after.trim_start().starts_with('T'))
    }

    /// Memory that it holds, in bytes; nothing once it is gone.
    pub(crate) fn memory(&self) -> u64 {
        let mut text = [0; 128];
        let pages =
            read(&self.statm, &mut text).and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or_default() * u64::try_from(rustix::param::page_size()).unwrap_or_default()
    }
}

fn read<'a>(file: &File, text: &'a mut [u8]) -> Option<&'a str> {
    let length = file.read_at(text, 0).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// A shell that waits for its child.
    fn parent() -> Child {
        Command::new("sh").args(["-c", "sleep 60; :"]).spawn().unwrap()
    }

    fn found(parent: &Child) -> ProcessStats {
        loop {
            if let Some(vitals) = ProcessStats::of(parent.id()) {
                return vitals;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_is_seen_stopped_and_gone() {
        let mut shell = parent();
        let vitals = found(&shell);
        let child = Pid::from_raw(vitals.pid().cast_signed()).unwrap();
        assert!(!vitals.is_stopped());
        assert!(vitals.memory() > 0);
        kill_process(child, Signal::STOP).unwrap();
        while !vitals.is_stopped() {
            std::thread::yield_now();
        }
        kill_process(child, Signal::KILL).unwrap();
        shell.wait().unwrap();
        assert!(!vitals.is_stopped());
        assert_eq!(vitals.memory(), 0, "the shell has buried it");
    }
}
