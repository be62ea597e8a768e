//! A thread of a worker, as its task owns it: between its turns, and while a turn waits for the results of a client's
//! calls.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::{
    INTERRUPT_RETRY_DELAY, MIN_INTERRUPT_TIMEOUT, TurnIds, interrupt, temp_dir::TurnTempDir,
    wait_for_completion,
};
use crate::{
    config::{Profile, Sandbox},
    engine::{
        Format, Turn,
        app_server::{
            history::turn_cache::{ConversationKey, ParkingGuard, TurnCache},
            rpc::{
                dispatch::CallError,
                protocol::{CleanBackgroundTerminals, Notification, UnsubscribeThread},
                thread_queue::{ThreadMessage, ThreadReceiver},
            },
            translate::{
                Input, Translator,
                output::{Action, HandOver},
            },
            worker::{CALL_LIMIT, Worker, lease::WorkerLease},
        },
        cli::thread_transport::ThreadTransport,
    },
    pb,
};

/// A thread of a worker.
#[derive(Debug)]
pub(super) struct LiveThread {
    pub(super) worker: Arc<Worker>,
    pub(super) id: String,
    pub(super) receiver: ThreadReceiver,
    /// The directory for temporary files of the agent's commands.
    pub(super) temp_dir: Option<TurnTempDir>,
    pub(super) profile: Profile,
    pub(super) sandbox: Sandbox,
    pub(super) transport: ThreadTransport,
    /// The thread is a fork. A fork has an environment until `turn/start` closes it, and reports no raw items.
    pub(super) is_fork: bool,
    pub(super) started_at: Instant,
    /// Approximate size of the thread's history.
    pub(super) history_bytes: usize,
    /// The usage of all turns of the thread.
    pub(super) usage: pb::Usage,
    /// The turn that waits for the results of a client's calls.
    pub(super) parked: Option<Box<ParkedTurn>>,
    /// The thread has had a turn, so that its history is that of the conversation so far.
    pub(super) is_continued: bool,
}

/// A turn that waits for the results of a client's calls.
#[derive(Debug)]
pub(super) struct ParkedTurn {
    pub(super) id: String,
    pub(super) translator: Translator,
    /// The calls as the client has them.
    pub(super) calls: Vec<pb::ToolCall>,
    /// The key of the turn in the turn cache.
    pub(super) cache_key: ConversationKey,
    /// Dropped when the turn goes on or has ended.
    pub(super) parking: ParkingGuard,
    /// What `turn/start` has set. No later request can change it.
    pub(super) options: TurnOptions,
}

/// The options of a turn that Codex takes with `turn/start` only.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TurnOptions {
    format: Format,
    effort: String,
    summary: String,
}

impl TurnOptions {
    pub(crate) fn of(turn: &Turn) -> Self {
        Self {
            format: turn.format.clone(),
            effort: turn.reasoning_effort.clone(),
            summary: turn.reasoning_summary.clone(),
        }
    }
}

impl LiveThread {
    /// Ends the commands that the agent started and that outlived their calls. `may_have_commands` is false if the agent
    /// has begun no action since the last call of this method.
    pub(super) async fn end_commands(&self, lease: &WorkerLease, may_have_commands: bool) {
        if self.profile == Profile::Agent && may_have_commands {
            let clean = CleanBackgroundTerminals { thread_id: &self.id };
            // A CLI without this method ends the commands with the thread.
            drop(lease.rpc.call(&clean, CALL_LIMIT).await);
        }
        if self.sandbox == Sandbox::DangerFullAccess {
            // With another mode the sandbox kills the processes of the turn.
            lease.reap_commands(&self.id).await;
        }
    }

    /// Ends the thread and its work.
    pub(super) async fn release(mut self, cache: &TurnCache) {
        self.end_work(cache).await;
        unsubscribe(&self.worker, &self.id).await;
    }

    /// Interrupts a parked turn, ends its commands and removes the temporary directory.
    pub(super) async fn end_work(&mut self, cache: &TurnCache) {
        if let Some(parked) = self.parked.take().filter(|_| !self.worker.rpc.is_closed()) {
            let lease = WorkerLease::new(&self.worker);
            self.interrupt_parked(&lease, *parked, cache).await;
            self.end_commands(&lease, true).await;
        }
        self.remove_temp_dir().await;
    }

    /// Removes the temporary directory only, because the worker is stopped with all its threads.
    pub(super) async fn remove_temp_dir(&mut self) {
        if let Some(temp_dir) = self.temp_dir.take() {
            temp_dir.remove().await;
        }
    }

    /// Interrupts a parked turn. Adds what Codex's own calls did meanwhile to the turn cache.
    async fn interrupt_parked(&mut self, lease: &WorkerLease, parked: ParkedTurn, cache: &TurnCache) {
        let ParkedTurn { id, mut translator, calls, cache_key, parking, .. } = parked;
        translator.abandon();
        let ids = TurnIds { thread: &self.id, turn: &id };
        let receiver = &mut self.receiver;
        let ended = timeout(MIN_INTERRUPT_TIMEOUT, async {
            match interrupt(&lease.rpc, ids, CALL_LIMIT).await {
                Ok(()) => read_outputs(receiver, &mut translator).await,
                Err(CallError::Refused(_)) => {
                    let outputs = timeout(INTERRUPT_RETRY_DELAY, read_outputs(receiver, &mut translator));
                    outputs.await.unwrap_or_default()
                }
                Err(CallError::Closed(_) | CallError::TimedOut(_)) => None,
            }
        });
        match ended.await {
            Ok(Some(hand_over)) => cache.append(cache_key, &calls, hand_over.items),
            Ok(None) => {}
            Err(_) => {
                tracing::warn!(
                    "worker did not complete `turn/interrupt` of a parked turn in time; killing it"
                );
                lease.kill();
            }
        }
        drop(parking);
    }
}

/// Reads an interrupted turn to its end. Returns its last items.
async fn read_outputs(receiver: &mut ThreadReceiver, translator: &mut Translator) -> Option<Box<HandOver>> {
    loop {
        let notification = match receiver.recv().await {
            ThreadMessage::Notification(notification) => notification,
            ThreadMessage::Delta(_) | ThreadMessage::ToolCall(_) => continue,
            ThreadMessage::Closed(_) | ThreadMessage::Overflow | ThreadMessage::TooLong { .. } => {
                return None;
            }
        };
        let is_end = matches!(notification, Notification::TurnCompleted(_));
        match translator.push(Input::Notification(notification)).map(|output| output.action) {
            Ok(Action::HandOver(hand_over)) => {
                if !is_end {
                    wait_for_completion(receiver).await;
                }
                return Some(hand_over);
            }
            Ok(
                Action::Continue
                | Action::Respond(_)
                | Action::Validate(_)
                | Action::Interrupt
                | Action::Park(_)
                | Action::Complete,
            )
            | Err(_) => {}
        }
        if is_end {
            return None;
        }
    }
}

/// Unsubscribes from a thread. Otherwise the worker keeps the thread in memory.
pub(super) async fn unsubscribe(worker: &Worker, thread: &str) {
    worker.rpc.forget_thread(thread);
    drop(worker.rpc.call(&UnsubscribeThread { thread_id: thread }, CALL_LIMIT).await);
}
