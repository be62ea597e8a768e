//! Living processes of a test's server, by a variable that each of them inherits.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The variable.
pub const MARKER: &str = "TEST_MARKER";

/// Command lines of the living processes that carry a marker.
pub fn with_marker(marker: &str) -> Vec<String> {
    let wanted = format!("{MARKER}={marker}");
    living_processes(|pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    })
}

/// Kills the living processes that carry a marker.
pub fn kill_marked(marker: &str) {
    for line in with_marker(marker) {
        let pid = line.split(':').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        // A process that has ended meanwhile is no failure.
        let _ended = pid.map(|pid| kill_process(pid, Signal::KILL));
    }
}

/// Command lines of the living processes that have a text in theirs.
pub fn with_argument(text: &str) -> Vec<String> {
    living_processes(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
}

fn living_processes(is_wanted: impl Fn(u32) -> bool) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        (pid != std::process::id() && is_wanted(pid)).then_some(pid)
    });
    pids.map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
    })
    .collect()
}
