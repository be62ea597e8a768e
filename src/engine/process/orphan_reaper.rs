//! Fallback for a killed supervisor: its orphans are re-parented to the server, which kills and reaps them. Only for a
//! process whose children are all supervisors.

use std::{
    collections::HashSet,
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::process::Child;

use super::{
    REAP_TIMEOUT,
    platform::{children, descendants, reap_orphans_of_descendants},
};

/// Pause between two attempts to kill and reap orphans.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Distinguishes the server's own children from adopted orphans. Clones share the list.
#[derive(Debug, Clone)]
pub(crate) struct OrphanReaper(Arc<Mutex<HashSet<u32>>>);

impl OrphanReaper {
    /// Makes orphans of supervisors children of this process.
    pub(crate) fn new() -> io::Result<Self> {
        reap_orphans_of_descendants()?;
        Ok(Self(Arc::default()))
    }

    /// Spawns a child while `kill_orphans` does not run, so that the child is never treated as an orphan.
    pub(crate) fn spawn(&self, spawn: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
        let mut own_children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let child = spawn()?;
        own_children.extend(child.id());
        Ok(child)
    }

    /// Kills the orphans of a supervisor that a signal has killed. A supervisor that exits by itself leaves none.
    pub(crate) async fn on_supervisor_exit(&self, pid: Option<u32>, status: ExitStatus) {
        if let Some(pid) = pid {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
        }
        if status.signal().is_none() {
            return;
        }
        tracing::warn!(?status, "supervisor was killed; killing its orphans");
        let started = Instant::now();
        while self.kill_orphans() && started.elapsed() < REAP_TIMEOUT {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Kills and reaps adopted orphans. Returns `true` if an orphan existed.
    fn kill_orphans(&self) -> bool {
        let own_children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let adopted = |pid: &Pid| !own_children.contains(&pid.as_raw_nonzero().get().unsigned_abs());
        let orphans: Vec<Pid> = children(getpid()).into_iter().filter(adopted).collect();
        for orphan in &orphans {
            for pid in descendants(*orphan).into_iter().chain([*orphan]) {
                let _already_exited = kill_process(pid, Signal::KILL);
            }
            let _still_exiting = waitpid(Some(*orphan), WaitOptions::NOHANG);
        }
        !orphans.is_empty()
    }
}
