//! A second net below the containment: when a containment process is killed from outside, what it contained becomes
//! ours, and we end it. Only for a process whose children are all containments.

use std::{
    collections::HashSet,
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use tokio::process::Child;

use super::procfs::{children, descendants};

/// How long the kernel may take to bury killed processes before we give up on them.
const BURIAL: Duration = Duration::from_secs(5);

/// Knows our own children from adopted ones.
#[derive(Debug, Clone)]
pub(crate) struct OrphanReaper(Arc<Mutex<HashSet<u32>>>);

impl OrphanReaper {
    /// From now on orphans come to this process.
    pub(crate) fn start() -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        Ok(Self(Arc::default()))
    }

    /// Starts a child of our own; no sweep mistakes it for an orphan.
    pub(crate) fn spawn(&self, start: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let child = start()?;
        own.extend(child.id());
        Ok(child)
    }

    /// A containment has ended. One that was killed has not swept.
    pub(crate) async fn ended(&self, pid: Option<u32>, status: ExitStatus) {
        if let Some(pid) = pid {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
        }
        if status.signal().is_none() {
            return;
        }
        tracing::warn!(?status, "a containment process was killed; what it left is ended");
        let started = Instant::now();
        while self.sweep() && started.elapsed() < BURIAL {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills and buries what is not ours; true if something was there.
    fn sweep(&self) -> bool {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let adopted = |pid: &Pid| !own.contains(&pid.as_raw_nonzero().get().unsigned_abs());
        let orphans: Vec<Pid> = children(getpid()).into_iter().filter(adopted).collect();
        for orphan in &orphans {
            for pid in descendants(*orphan).into_iter().chain([*orphan]) {
                let _gone_already = kill_process(pid, Signal::KILL);
            }
            let _not_dead_yet = waitpid(Some(*orphan), WaitOptions::NOHANG);
        }
        !orphans.is_empty()
    }
}
