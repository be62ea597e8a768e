//! Commands of a turn without sandbox may outlive it: the worker that started them goes on. They are known by the
//! thread's id, which Codex puts into their environment, among all that descends from the worker's containment.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::engine::procfs::descendants;

/// The variable that names the thread.
const THREAD: &str = "CODEX_THREAD_ID";

/// How long the kernel may take to bury killed processes before we give up on them.
const BURIAL: Duration = Duration::from_secs(5);

/// Kills every command of `thread` below a containment process until none is left.
pub(super) async fn end_commands(containment: u32, thread: &str) {
    let Some(containment) = Pid::from_raw(containment.cast_signed()) else { return };
    let mark = format!("{THREAD}={thread}");
    let started = Instant::now();
    loop {
        let commands: Vec<Pid> =
            descendants(containment).into_iter().filter(|pid| carries(*pid, &mark)).collect();
        if commands.is_empty() || started.elapsed() > BURIAL {
            return;
        }
        for pid in commands {
            let _gone_already = kill_process(pid, Signal::KILL);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process has a variable in its environment. A dead one has none.
fn carries(pid: Pid, mark: &str) -> bool {
    let environ = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}
