//! Kills the commands that an unsandboxed turn left behind. The worker keeps running, so the commands would keep
//! running too.
//!
//! A command is recognized by the thread's id, which Codex writes to its environment. A command that cleared its
//! environment is recognized as an orphan that is older than all other running turns.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::engine::process::{
    REAP_TIMEOUT,
    platform::{children, descendants, has_env_entry, start_ticks},
};

/// The variable that contains the thread's id.
const THREAD_ID_VARIABLE: &str = "CODEX_THREAD_ID";

/// Interval between two searches.
const INTERVAL: Duration = Duration::from_millis(5);

/// Kills every command of `thread` below `supervisor` until no command is left, at most for [`REAP_TIMEOUT`]. `worker` is the
/// supervisor's child. `oldest_other` returns the start of the oldest other turn in ticks.
pub(crate) async fn reap_commands(
    supervisor: u32,
    worker: Option<u32>,
    thread: &str,
    oldest_other: impl Fn() -> Option<u64>,
) {
    let (Some(supervisor), Some(worker)) = (pid(supervisor), worker.and_then(pid)) else { return };
    let entry = format!("{THREAD_ID_VARIABLE}={thread}");
    let started = Instant::now();
    loop {
        let mut commands = orphans(supervisor, worker, &oldest_other);
        commands.extend(descendants(supervisor).into_iter().filter(|pid| has_env_entry(*pid, &entry)));
        if commands.is_empty() || started.elapsed() > REAP_TIMEOUT {
            return;
        }
        for pid in commands {
            let _already_dead = kill_process(pid, Signal::KILL);
        }
        sleep(INTERVAL).await;
    }
}

/// Returns the orphans of ended turns and their descendants. The parent of an orphan is dead, so the supervisor has
/// adopted it. MCP servers and running commands are descendants of the worker.
fn orphans(supervisor: Pid, worker: Pid, oldest_other: &impl Fn() -> Option<u64>) -> Vec<Pid> {
    let adopted = children(supervisor).into_iter().filter(|pid| *pid != worker);
    let adopted: Vec<(Pid, u64)> = adopted.filter_map(|pid| Some((pid, start(pid)?))).collect();
    // Called after the search, because a turn that started meanwhile has started none of these processes.
    let oldest_other = oldest_other().unwrap_or(u64::MAX);
    let orphans = adopted.into_iter().filter(|(_, start)| *start < oldest_other);
    orphans.flat_map(|(pid, _)| descendants(pid).into_iter().chain([pid])).collect()
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(number.cast_signed())
}

fn start(pid: Pid) -> Option<u64> {
    start_ticks(pid.as_raw_nonzero().get().unsigned_abs())
}
