//! Running processes of a test server, found by an environment variable that each of them inherits.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::process::{Pid, Signal, kill_process};

/// The name of the inherited variable.
pub const MARKER: &str = "TEST_MARKER";

/// Returns the command lines of the running processes with a marker.
pub fn with_marker(marker: &str) -> Vec<String> {
    let wanted = format!("{MARKER}={marker}");
    running_processes(|pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    })
}

/// Kills the running processes with a marker.
pub fn kill_marked(marker: &str) {
    for line in with_marker(marker) {
        let pid = line.split(':').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        // The process may have exited in the meantime.
        let _exited = pid.map(|pid| kill_process(pid, Signal::KILL));
    }
}

/// Returns the environment of a process.
pub fn environment(pid: u32) -> std::io::Result<serde_json::Map<String, serde_json::Value>> {
    let environ = fs::read_to_string(format!("/proc/{pid}/environ"))?;
    let pairs = environ.split('\0').filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// Returns the command lines of the running processes whose command line contains a text.
pub fn with_argument(text: &str) -> Vec<String> {
    running_processes(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
}

/// The private folders of turns of `codex exec`, which are in memory. A folder is known from the command line of its process.
#[derive(Debug, Default)]
pub struct TurnFolders(Mutex<BTreeSet<PathBuf>>);

impl TurnFolders {
    /// Adds the folders of running processes. Returns the known folders that exist.
    pub fn existing(&self, processes: &[String]) -> Vec<PathBuf> {
        let mut known = self.0.lock().unwrap();
        let files = processes.iter().filter_map(|line| line.split("--output-last-message=").nth(1));
        let folders = files.filter_map(|rest| Path::new(rest.split(' ').next()?).parent());
        known.extend(folders.map(Path::to_owned));
        known.iter().filter(|folder| folder.exists()).cloned().collect()
    }
}

fn running_processes(is_wanted: impl Fn(u32) -> bool) -> Vec<String> {
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
