//! A thread that waits for the next turn of its conversation.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    NextTurn, TurnParts,
    live_thread::{LiveThread, ParkedTurn},
};
use crate::engine::{
    Eviction, TurnEvent,
    app_server::{
        rpc::{protocol::Notification, thread_queue::ThreadMessage},
        threads::index::EntryId,
        translate::Input,
        worker::lease::WorkerLease,
    },
};

/// Time in which one of Codex's own calls beside the client's calls starts. A patch starts only when the client's calls are
/// answered.
const CALL_START_TIME: Duration = Duration::from_secs(2);

/// Maximum time that a command beside the client's calls runs without the results of these calls. Codex does not tell the
/// end of a command that has returned to the model and goes on.
const MAX_COMMAND_TIME: Duration = Duration::from_secs(60);

/// Maximum number of events of a parked turn that wait for the next request.
const MAX_PENDING_EVENTS: usize = 256;

/// A thread that waits for the next turn of its conversation.
#[derive(Debug)]
pub(super) struct KeptThread {
    pub(super) thread: LiveThread,
    pub(super) entry: EntryId,
    pub(super) next: oneshot::Receiver<Box<NextTurn>>,
    /// The claim on the worker, while a parked turn still runs commands.
    pub(super) working: Option<WorkerLease>,
    /// What Codex's own calls did while the turn was parked, for the client's next request.
    pub(super) pending_events: Vec<TurnEvent>,
}

/// Why a kept thread stops to wait.
enum Wake {
    Next(Option<Box<NextTurn>>),
    Message(ThreadMessage),
    /// The commands beside the client's calls have had their time to start.
    CallsStarted,
    /// The commands beside the client's calls have had their time.
    CommandsExpired,
    Expired(Eviction),
    Stopped,
}

impl KeptThread {
    /// Waits for the next turn. Returns `None` after the thread was evicted or lost; the thread is released then.
    pub(super) async fn wait(
        mut self: Box<Self>,
        parts: &Arc<TurnParts>,
    ) -> Option<(Box<NextTurn>, Box<Self>)> {
        let limits = &parts.kept_threads;
        let since = Instant::now();
        let idle = if self.thread.parked.is_some() { limits.parked } else { limits.idle };
        let idle = self.thread.transport.limit_idle(idle);
        let oldest = self.thread.started_at + self.thread.transport.limit_age(limits.max_age);
        let (expires, reason) = match since + idle {
            idle if idle <= oldest => (idle, Eviction::Idle),
            _ => (oldest, Eviction::Age),
        };
        let mut calls_start = Some(since + CALL_START_TIME).filter(|_| self.working.is_some());
        let commands_expire = since + MAX_COMMAND_TIME;
        let next = loop {
            let wake = tokio::select! {
                biased;
                next = &mut self.next => Wake::Next(next.ok()),
                () = ended(self.thread.parked.as_deref()) => Wake::Expired(Eviction::Unfit),
                message = self.thread.receiver.recv() => Wake::Message(message),
                () = sleep_until(calls_start.unwrap_or(expires)) => {
                    if calls_start.take().is_some() { Wake::CallsStarted } else { Wake::Expired(reason) }
                }
                () = sleep_until(commands_expire), if self.working.is_some() => Wake::CommandsExpired,
                () = parts.stop.cancelled() => Wake::Stopped,
            };
            match wake {
                Wake::Next(next) => break next,
                Wake::CallsStarted => self.end_work_if_idle(false).await,
                Wake::CommandsExpired => self.end_work().await,
                Wake::Message(message) => {
                    if self.on_message(message) {
                        self.end_work_if_idle(calls_start.is_some()).await;
                        continue;
                    }
                    // A request that has taken the thread runs on a fresh one.
                    tracing::debug!(thread = self.thread.id, "kept thread was lost");
                    if parts.threads.remove(self.entry, Eviction::Worker) {
                        break None;
                    }
                    break self.taken(parts).await;
                }
                Wake::Expired(reason) => {
                    if parts.threads.remove(self.entry, reason) {
                        break None;
                    }
                    // A request has taken the thread, or the answer was not accepted.
                    break self.taken(parts).await;
                }
                Wake::Stopped => {
                    // The worker ends with all its threads.
                    self.thread.remove_temp_dir().await;
                    return None;
                }
            }
        };
        match next {
            Some(next) => Some((next, self)),
            None => {
                let Self { thread, working, .. } = *self;
                thread.release(&parts.cache).await;
                drop(working);
                None
            }
        }
    }

    /// Waits for the turn of the request that has taken the thread, or for the end of a request that may still accept it.
    async fn taken(&mut self, parts: &TurnParts) -> Option<Box<NextTurn>> {
        tokio::select! {
            next = &mut self.next => next.ok(),
            () = parts.stop.cancelled() => None,
        }
    }

    /// Handles a message between two requests. Returns `false` if the thread cannot go on.
    fn on_message(&mut self, message: ThreadMessage) -> bool {
        let input = match message {
            ThreadMessage::Closed(_) | ThreadMessage::Overflow | ThreadMessage::TooLong { .. } => {
                return false;
            }
            ThreadMessage::Delta(delta) => Input::Delta(delta),
            ThreadMessage::ToolCall(call) => Input::ToolRequest(call),
            ThreadMessage::Notification(Notification::TurnCompleted(_)) => {
                // Codex has ended a parked turn by itself.
                return self.thread.parked.is_none();
            }
            ThreadMessage::Notification(notification) => Input::Notification(notification),
        };
        // Late messages of a turn that has ended are not needed.
        let Some(parked) = &mut self.thread.parked else { return true };
        let Ok(output) = parked.translator.push(input) else { return false };
        if self.pending_events.len() < MAX_PENDING_EVENTS {
            self.pending_events.extend(output.event);
        }
        true
    }

    /// Gives up the claim when no command of a parked turn runs. `may_start` tells that a call may still start.
    async fn end_work_if_idle(&mut self, may_start: bool) {
        let Some(parked) = &self.thread.parked else { return };
        let calls = parked.translator.codex_calls();
        if calls.any_running() || (may_start && !calls.all_finished()) {
            return;
        }
        self.end_work().await;
    }

    /// Ends the commands and gives up the claim.
    async fn end_work(&mut self) {
        if let Some(lease) = self.working.take() {
            self.thread.end_commands(&lease, true).await;
        }
    }
}

/// Completes when the conversation of a parked turn goes on elsewhere.
async fn ended(parked: Option<&ParkedTurn>) {
    match parked {
        Some(parked) => parked.parking.ended().await,
        None => std::future::pending().await,
    }
}
