//! Opens the thread of a turn: a new thread, or a fork of a seed, which has a stable prompt-cache key.

use serde_json::Value;
use uuid::Uuid;

use super::live_thread::unsubscribe;
use crate::engine::app_server::{
    launch::seed::{Seed, SeedMeta},
    rpc::{
        dispatch::CallError,
        protocol::{ForkThread, StartThread},
        thread_queue::ThreadSender,
    },
    worker::{CALL_LIMIT, lease::WorkerLease},
};

/// The parameters of a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct ThreadOpening<'a> {
    /// The parameters of `thread/start`.
    pub(super) params: &'a Value,
    /// The stable key. `None` for a thread with a key of its own.
    pub(super) cache_key: Option<Uuid>,
}

/// A thread without a turn.
#[derive(Debug)]
pub(super) struct OpenedThread {
    pub(super) id: String,
    /// The thread is a fork. A fork has an environment until `turn/start` closes it, and reports no raw items.
    pub(super) is_fork: bool,
}

impl ThreadOpening<'_> {
    /// Opens the thread on a worker. All its messages go to `queue`. Starts a new thread where a fork is not possible.
    pub(super) async fn open(
        &self,
        lease: &WorkerLease,
        queue: &ThreadSender,
    ) -> Result<OpenedThread, CallError> {
        let can_fork = lease.spec.features().is_some_and(|features| features.forks);
        if let Some(key) = self.cache_key.filter(|_| can_fork)
            && let Some(id) = self.fork(key, lease, queue).await?
        {
            return Ok(OpenedThread { id, is_fork: true });
        }
        let started = lease.rpc.start_thread(&StartThread(self.params), CALL_LIMIT, queue.clone()).await?;
        Ok(OpenedThread { id: started.thread.id, is_fork: false })
    }

    /// Forks a seed. Returns `None` with a log line if there is no usable fork.
    async fn fork(
        &self,
        key: Uuid,
        lease: &WorkerLease,
        queue: &ThreadSender,
    ) -> Result<Option<String>, CallError> {
        let Some(dir) = &lease.seeds_dir else { return Ok(None) };
        let meta = SeedMeta { key, cwd: &lease.spec.codex.workspace, version: &lease.spec.installed.version };
        let seed = match Seed::create(dir, &meta) {
            Ok(seed) => seed,
            Err(error) => {
                tracing::warn!(%error, "cannot write a seed; starting a thread without a stable key");
                return Ok(None);
            }
        };
        let params = ForkThread { thread_id: seed.thread_id(), path: seed.path(), params: self.params };
        match lease.rpc.fork_thread(&params, CALL_LIMIT, queue.clone()).await {
            Ok(forked) if forked.thread.ephemeral && !forked.thread.id.is_empty() => {
                Ok(Some(forked.thread.id))
            }
            Ok(forked) => {
                tracing::warn!("app-server would store a fork; starting a thread without a stable key");
                if !forked.thread.id.is_empty() {
                    unsubscribe(lease, &forked.thread.id).await;
                }
                Ok(None)
            }
            Err(CallError::Refused(error)) if !error.is_overloaded() => {
                let reason = error.message;
                tracing::warn!(reason, "app-server refused a fork; starting a thread without a stable key");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
