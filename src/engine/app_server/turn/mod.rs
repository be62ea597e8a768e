//! Drives one turn on a worker. Starts a thread, injects the history, starts the turn, forwards its events, and releases
//! the thread. A task owns the driver. The driver interrupts the turn when the receiver of its events is dropped.

mod errors;
pub(crate) mod params;
pub(crate) mod start;
mod stream;
pub(crate) mod temp_dir;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::{
    errors::call_error,
    start::TurnStart,
    stream::{TurnOutcome, TurnState},
    temp_dir::TurnTempDir,
};
use super::{
    history::turn_cache::{ConversationKey, TurnCache},
    rpc::{
        client::RpcClient,
        dispatch::CallError,
        protocol::{InterruptTurn, Notification, StartThread, UnsubscribeThread},
        thread_queue,
        thread_queue::{ThreadMessage, ThreadReceiver, ThreadSender},
    },
    tools::ToolSet,
    worker::{
        CALL_LIMIT,
        lease::WorkerLease,
        pool::{NextPlace, Pool},
    },
};
use crate::{
    config::{Profile, Sandbox},
    engine::{
        Effects, EventSender, RateLimits, TurnGuard,
        cli::{
            error_messages,
            login::watch::{LoginMark, MAX_ATTEMPTS},
            transport::TransportSelector,
        },
    },
    error::Error,
    task::catch_panic,
};

/// Maximum number of workers on which the driver tries to start a thread.
const MAX_THREAD_STARTS: usize = 3;

/// Minimum time that a worker has to complete an interrupt. On a busy machine an interrupt may take seconds, and a kill
/// costs the worker's other turns. The watch of the worker detects a dead or stopped process sooner.
const MIN_INTERRUPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Delay before the retry of an interrupt that the worker refused.
const INTERRUPT_RETRY_DELAY: Duration = Duration::from_millis(30);

/// One turn and the parts of the engine that the turn uses.
#[derive(Debug)]
pub(super) struct TurnDriver {
    pub(super) pool: Arc<Pool>,
    pub(super) cache: Arc<TurnCache>,
    /// Key under which the turn cache stores the turn.
    pub(super) conversation: ConversationKey,
    /// The directory for temporary files of the agent's commands, once the turn has a worker.
    pub(super) temp_dir: Option<TurnTempDir>,
    pub(super) tools: Arc<ToolSet>,
    pub(super) max_retries: u32,
    pub(super) profile: Profile,
    pub(super) sandbox: Sandbox,
    pub(super) deadline: Option<Instant>,
    pub(super) effects: Effects,
    /// A worker has got the turn, so that the model may have answered.
    pub(super) was_sent: bool,
    /// Time that a worker has to complete an interrupt, if longer than [`MIN_INTERRUPT_TIMEOUT`].
    pub(super) cancel_grace: Duration,
    /// The limits of the account of the turn's worker, for the error of a reached limit.
    pub(super) rate_limits: Arc<RateLimits>,
    /// Cancelled when all turns must end.
    pub(super) stop: CancellationToken,
}

/// A thread and its worker.
#[derive(Clone, Copy)]
struct ThreadIds<'a> {
    lease: &'a WorkerLease,
    thread: &'a str,
}

/// The end of the work on a thread.
enum ThreadEnd {
    Done(Result<(), Error>),
    /// The turn must run on another thread.
    StartOver,
}

/// The ids of a turn that runs on a worker.
#[derive(Clone, Copy)]
struct TurnIds<'a> {
    thread: &'a str,
    turn: &'a str,
}

impl TurnDriver {
    /// Runs the turn to its end. Drops `guard` when no work of the turn is left on the worker.
    pub(super) async fn run(
        mut self: Box<Self>,
        start: Box<TurnStart>,
        guard: TurnGuard,
        events: EventSender,
    ) {
        let stop = self.stop.clone();
        let ended = catch_panic("turn", self.run_turn(start, &events, guard)).await;
        if let Err(error) = ended.unwrap_or_else(|| Err(Error::internal("the task of the turn panicked"))) {
            // The last messages of a lost worker may be lost too, so an action may have begun without a report.
            if self.was_sent && self.profile == Profile::Agent && matches!(error, Error::WorkerLost { .. }) {
                self.effects.record();
            }
            let error = self.rate_limits.explain(error, SystemTime::now());
            tokio::select! {
                // Fails if the receiver was dropped.
                _ = events.send(Err(Box::new(error))) => {}
                // The service reports the drain itself. A client that stopped reading must not delay the drain.
                () = stop.cancelled() => {}
            }
        }
    }

    /// Runs the turn and cleans up. Boxes the futures before and after the streaming phase, so that a streaming turn
    /// holds no memory for these futures.
    async fn run_turn(
        &mut self,
        start: Box<TurnStart>,
        events: &EventSender,
        guard: TurnGuard,
    ) -> Result<(), Error> {
        // Dropped at the first output.
        let mut start = Some(start);
        let mut attempts = 0;
        loop {
            let mark = self.pool.login_mark();
            let (sender, mut receiver) = thread_queue::pair();
            let Some(parameters) = start.as_mut() else { return Ok(()) };
            let Some((lease, thread)) = Box::pin(self.start_thread(sender, parameters, events)).await? else {
                return Ok(());
            };
            let ids = ThreadIds { lease: &lease, thread: &thread };
            let end = self.run_thread(ids, &mut receiver, &mut start, (mark, &mut attempts), events).await;
            if self.sandbox == Sandbox::DangerFullAccess {
                // With another mode the sandbox kills the processes of the turn.
                Box::pin(lease.reap_commands(&thread)).await;
            }
            if let Some(temp_dir) = self.temp_dir.take() {
                Box::pin(temp_dir.remove()).await;
            }
            match end {
                ThreadEnd::Done(result) => {
                    drop(guard);
                    Box::pin(release_thread(&lease, &thread)).await;
                    return result;
                }
                ThreadEnd::StartOver => Box::pin(release_thread(&lease, &thread)).await,
            }
        }
    }

    /// Runs the turn on a thread. If the login is refused before any output, and has changed since, the turn runs again:
    /// another process refreshed the tokens, which ended the former ones, or the operator replaced the login.
    ///
    /// Codex keeps the injected history of a failed turn, and a further turn on the thread sends the same items (0.169).
    async fn run_thread(
        &mut self,
        ids: ThreadIds<'_>,
        receiver: &mut ThreadReceiver,
        start: &mut Option<Box<TurnStart>>,
        (mut mark, attempts): (LoginMark, &mut u32),
        events: &EventSender,
    ) -> ThreadEnd {
        let ThreadIds { lease, thread } = ids;
        let mut is_injected = false;
        loop {
            let Some(parameters) = start.as_mut() else { return ThreadEnd::Done(Ok(())) };
            let uses_websocket = parameters.thread_params.uses_websocket();
            *attempts += 1;
            let turn = match Box::pin(self.start_turn(ids, parameters, is_injected, events)).await {
                Ok(Some(turn)) => turn,
                Ok(None) => return ThreadEnd::Done(Ok(())),
                Err(error) => return ThreadEnd::Done(Err(error)),
            };
            is_injected = true;
            let turn_ids = TurnIds { thread, turn: &turn };
            let streamed = catch_panic("turn", self.stream(lease, receiver, turn_ids, start, events)).await;
            // The turn is interrupted, because nobody reads what its agent does.
            let outcome = streamed.unwrap_or_else(TurnOutcome::panicked);
            if uses_websocket {
                record_transport(&lease.spec.transport, &outcome);
            }
            if outcome.state == TurnState::Active {
                Box::pin(self.interrupt(lease, receiver, turn_ids)).await;
            }
            let Some(error) = outcome.error else {
                self.pool.report_login(&mark, true);
                return ThreadEnd::Done(Ok(()));
            };
            if !error_messages::is_login_refused(&error) {
                return ThreadEnd::Done(Err(error));
            }
            let can_start_thread = start.as_ref().map(|start| start.can_start_thread());
            let next = Box::pin(self.place_after_refusal(lease, &mark, *attempts, can_start_thread)).await;
            match next {
                // An interrupted turn leaves a message about the interrupt in the history of its thread.
                Some(NextPlace::SameThread) if outcome.state == TurnState::Completed => {}
                Some(_) if can_start_thread == Some(true) => {
                    tracing::info!("login changed; starting the turn on another thread");
                    return ThreadEnd::StartOver;
                }
                Some(_) | None => {
                    self.pool.report_login(&mark, false);
                    return ThreadEnd::Done(Err(error));
                }
            }
            tracing::info!("login changed; starting the turn again");
            mark = self.pool.login_mark();
        }
    }

    /// Returns where the turn may run again after a refusal of the login. `can_start_thread` is `None` after an output.
    /// A turn whose agent has begun to act never runs again.
    async fn place_after_refusal(
        &self,
        lease: &WorkerLease,
        mark: &LoginMark,
        attempts: u32,
        can_start_thread: Option<bool>,
    ) -> Option<NextPlace> {
        can_start_thread?;
        if self.effects.have_begun() {
            return None;
        }
        if attempts == MAX_ATTEMPTS {
            self.pool.exhaust_login();
            return None;
        }
        self.pool.place_after_refusal(mark, lease).await
    }

    /// Starts a thread on a worker. Returns `None` if the client has left.
    ///
    /// Waits for the worker's result even if the client leaves. Otherwise the slot would be free while the worker still
    /// creates the thread, and abandoned threads would accumulate in the worker.
    async fn start_thread(
        &mut self,
        sender: ThreadSender,
        start: &mut TurnStart,
        events: &EventSender,
    ) -> Result<Option<(WorkerLease, String)>, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let lease = tokio::select! {
                lease = self.pool.lease() => lease?,
                () = events.closed() => return Ok(None),
                () = self.stop.cancelled() => return Err(Error::Draining),
            };
            // The service checked the turn against the newest workers. This worker may be older.
            lease.spec.check(&start.turn)?;
            self.temp_dir =
                TurnTempDir::create(&start.turn, lease.commands_dir.as_deref()).map_err(Error::internal)?;
            let temp_dir = self.temp_dir.as_ref().map(TurnTempDir::path);
            let params = StartThread(start.thread_params.for_worker(&lease.spec, temp_dir));
            self.rate_limits = Arc::clone(&lease.rate_limits);
            let started = tokio::select! {
                started = lease.rpc.start_thread(&params, CALL_LIMIT, sender.clone()) => started,
                () = self.stop.cancelled() => return Err(Error::Draining),
            };
            match started {
                Ok(started) => {
                    let id = started.thread.id;
                    if events.is_closed() {
                        release_thread(&lease, &id).await;
                        return Ok(None);
                    }
                    return Ok(Some((lease, id)));
                }
                // The model has done nothing yet, so another worker can start over.
                Err(CallError::Closed(_)) if attempts < MAX_THREAD_STARTS => {}
                Err(error) => return Err(call_error(error, &lease, self.profile)),
            }
        }
    }

    /// Injects the history, unless the thread has it, and starts the turn. Returns the turn's id, or `None` if the client
    /// has left.
    ///
    /// Waits for the result of `turn/start` even if the client leaves, because an interrupt needs the id.
    async fn start_turn(
        &mut self,
        ThreadIds { lease, thread }: ThreadIds<'_>,
        start: &mut TurnStart,
        is_injected: bool,
        events: &EventSender,
    ) -> Result<Option<String>, Error> {
        let calls = async {
            if !is_injected {
                for piece in start.inject_items(thread) {
                    lease.rpc.call(&piece, CALL_LIMIT).await?;
                    if events.is_closed() {
                        return Ok(None);
                    }
                }
                start.drop_large_parts();
            }
            if events.is_closed() {
                return Ok(None);
            }
            self.was_sent = true;
            lease.rpc.call(&start.start_turn(thread), CALL_LIMIT).await.map(Some)
        };
        let started = tokio::select! {
            started = calls => started.map_err(|error| call_error(error, lease, self.profile))?,
            () = self.stop.cancelled() => return Err(Error::Draining),
        };
        Ok(started.map(|started| started.turn.id))
    }

    /// Interrupts the turn and waits for its end. Kills the worker if the interrupt takes too long.
    async fn interrupt(&self, lease: &WorkerLease, receiver: &mut ThreadReceiver, ids: TurnIds<'_>) {
        let interrupted = async {
            loop {
                match interrupt(&lease.rpc, ids, CALL_LIMIT).await {
                    Ok(()) => return wait_for_completion(receiver).await,
                    Err(CallError::Closed(_)) => return,
                    // After a refusal, the turn has completed, or has not yet started and would continue without a
                    // client.
                    Err(CallError::Refused(_)) if receiver.is_lossy() => return,
                    Err(CallError::Refused(_)) => {
                        if timeout(INTERRUPT_RETRY_DELAY, wait_for_completion(receiver)).await.is_ok() {
                            return;
                        }
                    }
                    Err(CallError::TimedOut(_)) => std::future::pending().await,
                }
            }
        };
        if timeout(self.interrupt_timeout(), interrupted).await.is_err() {
            tracing::warn!("worker did not complete `turn/interrupt` in time; killing it");
            lease.kill();
        }
    }

    fn interrupt_timeout(&self) -> Duration {
        self.cancel_grace.max(MIN_INTERRUPT_TIMEOUT)
    }
}

/// Records the result of a turn over the WebSocket.
fn record_transport(transport: &TransportSelector, outcome: &TurnOutcome) {
    match &outcome.error {
        None if outcome.state == TurnState::Completed => transport.record_success(),
        Some(Error::Rejected { .. } | Error::UpstreamUnavailable { .. }) => {
            transport.record_rejection(Instant::now());
        }
        None | Some(_) => {}
    }
}

async fn interrupt(rpc: &RpcClient, ids: TurnIds<'_>, limit: Duration) -> Result<(), CallError> {
    let params = InterruptTurn { thread_id: ids.thread, turn_id: ids.turn };
    rpc.call(&params, limit).await.map(drop)
}

/// Unsubscribes from the thread. Otherwise the worker keeps the thread in memory.
async fn release_thread(lease: &WorkerLease, thread: &str) {
    lease.rpc.forget_thread(thread);
    drop(lease.rpc.call(&UnsubscribeThread { thread_id: thread }, CALL_LIMIT).await);
}

/// Completes when the turn has completed, or when `turn/completed` may have been lost.
async fn wait_for_completion(receiver: &mut ThreadReceiver) {
    loop {
        match receiver.recv().await {
            ThreadMessage::Notification(Notification::TurnCompleted(_)) | ThreadMessage::Closed(_) => return,
            ThreadMessage::Delta(_) | ThreadMessage::Notification(_) | ThreadMessage::ToolCall(_) => {}
            // `turn/completed` may have been lost. The worker's response to the next call decides.
            ThreadMessage::Overflow | ThreadMessage::TooLong { .. } => return,
        }
    }
}
