//! Commands of a turn without sandbox may outlive it: the worker that started them goes on. They are known by the
//! thread's id, which Codex puts into their environment. One that has cleared its environment is known as an orphan
//! that no turn that still runs can have started: it is older than they are.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::engine::process::{
    REAP_TIMEOUT,
    platform::{children, descendants, has_env_entry, start_ticks},
};

/// The variable that names the thread.
const THREAD: &str = "CODEX_THREAD_ID";

/// Kills every command of `thread` below a containment process until none is left. `oldest` tells when the oldest other
/// turn began, in ticks; `worker` is what is contained.
pub(crate) async fn end_commands(
    containment: u32,
    worker: Option<u32>,
    thread: &str,
    oldest: impl Fn() -> Option<u64>,
) {
    let (Some(containment), Some(worker)) = (pid(containment), worker.and_then(pid)) else { return };
    let mark = format!("{THREAD}={thread}");
    let since = Instant::now();
    loop {
        let mut commands = nobodys(containment, worker, &oldest);
        commands.extend(descendants(containment).into_iter().filter(|pid| has_env_entry(*pid, &mark)));
        if commands.is_empty() || since.elapsed() > REAP_TIMEOUT {
            return;
        }
        for pid in commands {
            let _gone_already = kill_process(pid, Signal::KILL);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Orphans of turns that are over, and what they have started. Whoever started them is gone, so the containment has
/// adopted them; MCP servers and commands under way are below the worker.
fn nobodys(containment: Pid, worker: Pid, oldest: &impl Fn() -> Option<u64>) -> Vec<Pid> {
    let orphans = children(containment).into_iter().filter(|pid| *pid != worker);
    let orphans: Vec<(Pid, u64)> = orphans.filter_map(|pid| Some((pid, age(pid)?))).collect();
    // Looked at afterwards: a turn that has begun meanwhile has started none of these.
    let oldest = oldest().unwrap_or(u64::MAX);
    let of_the_past = orphans.into_iter().filter(|(_, started)| *started < oldest);
    of_the_past.flat_map(|(pid, _)| descendants(pid).into_iter().chain([pid])).collect()
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(number.cast_signed())
}

fn age(pid: Pid) -> Option<u64> {
    start_ticks(pid.as_raw_nonzero().get().unsigned_abs())
}
