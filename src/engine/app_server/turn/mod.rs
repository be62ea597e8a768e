//! Drives the turns of one thread. Starts a thread, injects the history, starts the turn, forwards its events, and keeps the
//! thread for the next turn of the conversation or releases it. A task owns the thread. The driver interrupts the turn when
//! the receiver of its events is dropped.

mod errors;
mod kept_thread;
pub(crate) mod live_thread;
mod opening;
pub(crate) mod params;
pub(crate) mod start;
mod stream;
pub(crate) mod temp_dir;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    errors::call_error,
    kept_thread::KeptThread,
    live_thread::{LiveThread, ParkedTurn, TurnOptions, unsubscribe},
    opening::ThreadOpening,
    start::TurnStart,
    stream::{TurnOutcome, TurnState, respond},
    temp_dir::TurnTempDir,
};
use super::{
    history::{
        NewItems,
        response_item::heap_size,
        turn_cache::{ConversationKey, TurnCache},
    },
    rpc::{
        client::RpcClient,
        dispatch::{CallError, CloseReason},
        protocol::{InterruptTurn, Notification},
        thread_queue,
        thread_queue::{ThreadMessage, ThreadReceiver},
    },
    threads::{
        conversation::Conversation,
        index::{Entry, EntryId, ThreadIndex},
    },
    tools::ToolSet,
    translate::{TranslatedTurn, Translator, output::Action},
    worker::{
        CALL_LIMIT,
        lease::WorkerLease,
        pool::{NextPlace, Pool},
    },
};
use crate::{
    config::{KeptThreads, Profile, Sandbox},
    engine::{
        Continuation, Effects, EventSender, Eviction, RateLimits, ThreadOrigin, TurnEvent, TurnGuard,
        cli::{
            error_messages,
            login::watch::{LoginMark, MAX_ATTEMPTS},
            thread_transport::ThreadTransport,
            transport::TransportSelector,
        },
    },
    error::Error,
    pb,
    task::catch_panic,
};

/// Maximum number of workers on which the driver tries to start a thread.
const MAX_THREAD_STARTS: usize = 3;

/// Minimum time that a worker has to complete an interrupt. On a busy machine an interrupt may take seconds, and a kill
/// costs the worker's other turns. The watch of the worker detects a dead or stopped process sooner.
const MIN_INTERRUPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Delay before the retry of an interrupt that the worker refused.
const INTERRUPT_RETRY_DELAY: Duration = Duration::from_millis(30);

/// The parts of the engine that its turns use.
#[derive(Debug)]
pub(super) struct TurnParts {
    pub(super) pool: Arc<Pool>,
    pub(super) cache: Arc<TurnCache>,
    /// The threads that wait for the next turn of their conversation.
    pub(super) threads: ThreadIndex<Box<NextTurn>>,
    pub(super) kept_threads: KeptThreads,
    pub(super) max_retries: u32,
    /// Time that a worker has to complete an interrupt, if longer than [`MIN_INTERRUPT_TIMEOUT`].
    pub(super) cancel_grace: Duration,
    /// The tasks of threads, each with its turns.
    pub(super) tasks: TaskTracker,
    /// Cancelled when all turns must end.
    pub(super) stop: CancellationToken,
}

/// A turn that is to run, on a kept thread or a fresh one.
#[derive(Debug)]
pub(super) struct NextTurn {
    pub(super) driver: TurnDriver,
    pub(super) start: Box<TurnStart>,
    pub(super) guard: TurnGuard,
    pub(super) events: EventSender,
}

impl NextTurn {
    /// Runs the turn, then each further turn that continues its thread, until the thread is let go.
    pub(super) async fn run_with_successors(self: Box<Self>) {
        let parts = Arc::clone(&self.driver.parts);
        let (mut next, mut kept) = (self, None);
        loop {
            // Boxed, so that a kept thread holds no memory for a running turn.
            let Some(thread) = Box::pin(next.run(kept.take())).await else { return };
            let Some((successor, thread)) = Box::pin(thread.wait(&parts)).await else { return };
            (next, kept) = (successor, Some(thread));
        }
    }

    /// Runs the turn to its end. Returns its thread if the thread is kept. Drops the guard when no work of the turn is left
    /// on the worker.
    async fn run(self: Box<Self>, kept: Option<Box<KeptThread>>) -> Option<Box<KeptThread>> {
        let Self { mut driver, start, guard, events } = unbox(self);
        let ended = catch_panic("turn", driver.run_turn(start, kept, &events, guard)).await;
        let panicked = || (Err(Error::internal("the task of the turn panicked")), None);
        let (result, kept) = ended.unwrap_or_else(panicked);
        if let Err(error) = result {
            // The last messages of a lost worker may be lost too, so an action may have begun without a report.
            if driver.was_sent
                && driver.profile == Profile::Agent
                && matches!(error, Error::WorkerLost { .. })
            {
                driver.effects.record();
            }
            let error = driver.rate_limits.explain(error, SystemTime::now());
            tokio::select! {
                // Fails if the receiver was dropped.
                _ = events.send(Err(Box::new(error))) => {}
                // The service reports the drain itself. A client that stopped reading must not delay the drain.
                () = driver.parts.stop.cancelled() => {}
            }
        }
        kept
    }
}

/// Moves a value out of its box. The allocation of a box that is moved out of in place is freed with the variable, which lives
/// as long as the turn.
#[expect(clippy::boxed_local, reason = "the caller has a box, which is to be freed")]
fn unbox<T>(boxed: Box<T>) -> T {
    *boxed
}

/// Drives one turn.
#[derive(Debug)]
pub(super) struct TurnDriver {
    pub(super) parts: Arc<TurnParts>,
    /// The conversation of the request. `None` if no thread is kept.
    pub(super) conversation: Option<Conversation>,
    /// Key under which the turn cache stores the turn.
    pub(super) cache_key: ConversationKey,
    pub(super) tools: Arc<ToolSet>,
    pub(super) profile: Profile,
    pub(super) sandbox: Sandbox,
    pub(super) deadline: Option<Instant>,
    pub(super) effects: Effects,
    pub(super) continuation: Continuation,
    pub(super) options: TurnOptions,
    /// A worker has got the turn, so that the model may have answered.
    pub(super) was_sent: bool,
    /// The limits of the account of the turn's worker, for the error of a reached limit.
    pub(super) rate_limits: Arc<RateLimits>,
    /// The next turn of the thread, once the thread is offered.
    pub(super) next: Option<(EntryId, oneshot::Receiver<Box<NextTurn>>)>,
    /// Events of the time before the request.
    pub(super) pending_events: Vec<TurnEvent>,
}

/// The end of the work on a thread.
enum ThreadEnd {
    Done(TurnState, Result<(), Error>),
    /// The turn must run on another thread.
    StartOver,
}

/// The ids of a turn that runs on a worker.
#[derive(Clone, Copy)]
struct TurnIds<'a> {
    thread: &'a str,
    turn: &'a str,
}

/// A turn that runs on a worker.
struct RunningTurn {
    id: String,
    translator: Translator,
}

/// The result of an attempt to begin a turn.
enum Begun {
    Running(Box<RunningTurn>),
    /// The client has left.
    Abandoned,
    /// The thread cannot go on with this request. Nothing of it was sent to the model.
    Unfit(&'static str),
}

impl TurnDriver {
    /// Runs the turn and cleans up. Boxes the futures before and after the streaming phase, so that a streaming turn
    /// holds no memory for these futures.
    async fn run_turn(
        &mut self,
        start: Box<TurnStart>,
        kept: Option<Box<KeptThread>>,
        events: &EventSender,
        guard: TurnGuard,
    ) -> (Result<(), Error>, Option<Box<KeptThread>>) {
        // Dropped at the first output.
        let mut start = Some(start);
        let mut attempts = 0;
        let mut taken = kept.and_then(|kept| self.take_up(kept));
        loop {
            let mark = self.parts.pool.login_mark();
            let Some(parameters) = start.as_mut() else { return (Ok(()), None) };
            let started = match taken.take() {
                Some(taken) => Ok(Some(taken)),
                None => Box::pin(self.start_thread(parameters, events)).await,
            };
            let (lease, mut thread) = match started {
                Ok(Some(started)) => started,
                Ok(None) => return (Ok(()), None),
                Err(error) => return (Err(error), None),
            };
            let end = self.run_thread(&lease, &mut thread, &mut start, (mark, &mut attempts), events).await;
            match end {
                ThreadEnd::Done(state, result) => {
                    return Box::pin(self.finish(state, result, thread, (lease, guard))).await;
                }
                ThreadEnd::StartOver => {
                    self.next = None;
                    Box::pin(async {
                        thread.end_commands(&lease, self.effects.have_begun()).await;
                        thread.release(&self.parts.cache).await;
                    })
                    .await;
                }
            }
        }
    }

    /// Cleans up after the turn. Returns its thread if the thread is kept.
    async fn finish(
        &mut self,
        state: TurnState,
        result: Result<(), Error>,
        mut thread: LiveThread,
        (lease, guard): (WorkerLease, TurnGuard),
    ) -> (Result<(), Error>, Option<Box<KeptThread>>) {
        let may_wait = match state {
            TurnState::Completed | TurnState::Parked => result.is_ok(),
            TurnState::Active | TurnState::Silent | TurnState::WorkerLost => false,
        };
        let Some((entry, next)) = self.next.take().filter(|_| may_wait) else {
            thread.end_commands(&lease, self.effects.have_begun()).await;
            thread.end_work(&self.parts.cache).await;
            // The thread itself is no work.
            drop(guard);
            unsubscribe(&lease, &thread.id).await;
            return (result, None);
        };
        thread.is_continued = true;
        let has_running_calls =
            thread.parked.as_ref().is_some_and(|parked| !parked.translator.codex_calls().all_finished());
        let working = if has_running_calls {
            Some(lease)
        } else {
            thread.end_commands(&lease, self.effects.have_begun()).await;
            None
        };
        // The request that answers the calls needs a slot, also while commands run beside them.
        drop(guard);
        let kept = KeptThread { thread, entry, next, working, pending_events: Vec::new() };
        // Boxed, because the futures of a running turn hold several places for it.
        (result, Some(Box::new(kept)))
    }

    /// Takes a kept thread for this turn. Returns `None` if the turn must run on a fresh thread.
    fn take_up(&mut self, kept: Box<KeptThread>) -> Option<(WorkerLease, LiveThread)> {
        let KeptThread { thread, working, pending_events, .. } = unbox(kept);
        let Some(lease) = self.parts.pool.lease_of(&thread.worker) else {
            self.record_unfit(Eviction::Worker, "the worker gets no more turns");
            // A worker that does not answer must not hold up the turn.
            let parts = Arc::clone(&self.parts);
            self.parts.tasks.spawn(async move {
                thread.release(&parts.cache).await;
                drop(working);
            });
            return None;
        };
        drop(working);
        self.rate_limits = Arc::clone(&lease.rate_limits);
        self.pending_events = pending_events;
        Some((lease, thread))
    }

    /// Records that the turn cannot use the thread of its conversation.
    fn record_unfit(&self, reason: Eviction, detail: &str) {
        tracing::info!(reason = reason.as_str(), detail, "conversation goes on with a fresh thread");
        self.parts.threads.count(|counts| counts.record_eviction(reason));
    }

    /// Offers the thread for the next request of the conversation.
    fn offer(&mut self, thread: &LiveThread, is_parked: bool) {
        let Some(conversation) = self.conversation.clone() else { return };
        let (next, receiver) = oneshot::channel();
        let parts = Arc::clone(&self.parts);
        let id = parts.threads.new_id();
        let worker = Arc::as_ptr(&thread.worker).addr();
        let max_threads = thread.worker.spec.max_kept_threads(self.profile);
        let history_bytes = thread.history_bytes;
        self.continuation.offer(move |answer| {
            if !answer.is_empty() {
                let keys = conversation.keys_with(answer);
                parts.threads.insert(id, Entry { keys, worker, history_bytes, max_threads, is_parked, next });
            }
        });
        self.next = Some((id, receiver));
    }

    /// Runs the turn on a thread. If the login is refused before any output, and has changed since, the turn runs again:
    /// another process refreshed the tokens, which ended the former ones, or the operator replaced the login.
    ///
    /// Codex keeps the injected history of a failed turn, and a further turn on the thread sends the same items (0.169).
    async fn run_thread(
        &mut self,
        lease: &WorkerLease,
        thread: &mut LiveThread,
        start: &mut Option<Box<TurnStart>>,
        (mut mark, attempts): (LoginMark, &mut u32),
        events: &EventSender,
    ) -> ThreadEnd {
        let mut is_injected = false;
        loop {
            let Some(parameters) = start.as_mut() else {
                return ThreadEnd::Done(TurnState::Completed, Ok(()));
            };
            *attempts += 1;
            let mut running = match Box::pin(self.begin(lease, thread, parameters, is_injected, events)).await
            {
                Ok(Begun::Running(running)) => running,
                Ok(Begun::Abandoned) => return ThreadEnd::Done(TurnState::Active, Ok(())),
                Ok(Begun::Unfit(detail)) => {
                    self.record_unfit(Eviction::Unfit, detail);
                    return ThreadEnd::StartOver;
                }
                Err(error) => return ThreadEnd::Done(TurnState::Active, Err(error)),
            };
            if !is_injected {
                let origin = match thread {
                    LiveThread { is_continued: true, .. } => ThreadOrigin::Continued,
                    LiveThread { is_fork: true, .. } => ThreadOrigin::Forked,
                    LiveThread { .. } => ThreadOrigin::Fresh,
                };
                self.continuation.set_origin(origin);
                self.parts.threads.count(|counts| counts.record_turn(origin));
            }
            is_injected = true;
            let streamed = catch_panic("turn", self.stream(lease, thread, &mut running, start, events)).await;
            // The turn is interrupted, because nobody reads what its agent does.
            let outcome = streamed.unwrap_or_else(TurnOutcome::panicked);
            if thread.transport == ThreadTransport::WebSocket {
                record_transport(&lease.spec.transport, &outcome);
            }
            thread.usage = running.translator.usage_of_thread();
            if matches!(outcome.state, TurnState::Active | TurnState::Silent) {
                let ids = TurnIds { thread: &thread.id, turn: &running.id };
                Box::pin(self.interrupt(lease, &mut thread.receiver, ids)).await;
            }
            if outcome.state == TurnState::Silent {
                tracing::info!(
                    "the WebSocket of a thread is silent; conversation goes on with a fresh thread"
                );
                self.parts.threads.count(|counts| counts.record_eviction(Eviction::Unfit));
                return ThreadEnd::StartOver;
            }
            if outcome.state == TurnState::Parked {
                let RunningTurn { id, translator } = *running;
                if let Some((calls, parking)) = outcome.parked {
                    let (cache_key, options) = (self.cache_key, self.options.clone());
                    let parked = ParkedTurn { id, translator, calls, cache_key, parking, options };
                    thread.parked = Some(Box::new(parked));
                }
            }
            let Some(error) = outcome.error else {
                self.parts.pool.report_login(&mark, true);
                return ThreadEnd::Done(outcome.state, Ok(()));
            };
            if !error_messages::is_login_refused(&error) {
                return ThreadEnd::Done(outcome.state, Err(error));
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
                    self.parts.pool.report_login(&mark, false);
                    return ThreadEnd::Done(outcome.state, Err(error));
                }
            }
            tracing::info!("login changed; starting the turn again");
            mark = self.parts.pool.login_mark();
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
            self.parts.pool.exhaust_login();
            return None;
        }
        self.parts.pool.place_after_refusal(mark, lease).await
    }

    /// Starts a thread on a worker. Returns `None` if the client has left.
    ///
    /// Waits for the worker's result even if the client leaves. Otherwise the slot would be free while the worker still
    /// creates the thread, and abandoned threads would accumulate in the worker.
    async fn start_thread(
        &mut self,
        start: &mut TurnStart,
        events: &EventSender,
    ) -> Result<Option<(WorkerLease, LiveThread)>, Error> {
        start.build_history(&self.tools, &self.parts.cache).await?;
        let (sender, receiver) = thread_queue::pair();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let lease = tokio::select! {
                lease = self.parts.pool.lease() => lease?,
                () = events.closed() => return Ok(None),
                () = self.parts.stop.cancelled() => return Err(Error::Draining),
            };
            // The service checked the turn against the newest workers. This worker may be older.
            lease.spec.check(&start.turn)?;
            let temp_dir = TurnTempDir::create(&start.turn, lease.commands_dir.as_deref());
            let temp_dir = temp_dir.map_err(Error::internal)?;
            let path = temp_dir.as_ref().map(TurnTempDir::path);
            let params = start.thread_params.for_worker(&lease.spec, path);
            let opening = ThreadOpening { params, cache_key: start.cache_key };
            self.rate_limits = Arc::clone(&lease.rate_limits);
            let opened = tokio::select! {
                opened = opening.open(&lease, &sender) => opened,
                () = self.parts.stop.cancelled() => Err(CallError::Closed(CloseReason::NoAnswer)),
            };
            let error = match opened {
                Ok(opened) if !events.is_closed() => {
                    let thread = LiveThread {
                        worker: Arc::clone(lease.worker()),
                        id: opened.id,
                        receiver,
                        temp_dir,
                        profile: self.profile,
                        sandbox: self.sandbox,
                        transport: start.thread_params.transport(),
                        is_fork: opened.is_fork,
                        started_at: Instant::now(),
                        history_bytes: start.thread_params.heap_size(),
                        usage: pb::Usage::default(),
                        parked: None,
                        is_continued: false,
                    };
                    return Ok(Some((lease, thread)));
                }
                Ok(opened) => {
                    unsubscribe(&lease, &opened.id).await;
                    None
                }
                Err(error) => Some(error),
            };
            if let Some(temp_dir) = temp_dir {
                temp_dir.remove().await;
            }
            match error {
                None => return Ok(None),
                Some(_) if self.parts.stop.is_cancelled() => return Err(Error::Draining),
                // The model has done nothing yet, so another worker can start over.
                Some(CallError::Closed(_)) if attempts < MAX_THREAD_STARTS => {}
                Some(error) => return Err(call_error(error, &lease, self.profile)),
            }
        }
    }

    /// Begins the turn on a thread: gives Codex the items that the thread lacks, then starts a turn or answers the calls of
    /// the parked one.
    ///
    /// Waits for the result of `turn/start` even if the client leaves, because an interrupt needs the id.
    async fn begin(
        &mut self,
        lease: &WorkerLease,
        thread: &mut LiveThread,
        start: &mut TurnStart,
        is_injected: bool,
        events: &EventSender,
    ) -> Result<Begun, Error> {
        let stop = self.parts.stop.clone();
        let begin = async {
            if is_injected {
                return self.start_turn(lease, thread, start).await;
            }
            if thread.is_continued {
                return self.continue_turn(lease, thread, start, events).await;
            }
            for piece in start::inject_items(&thread.id, start.items()) {
                let injected = lease.rpc.call(&piece, CALL_LIMIT).await;
                injected.map_err(|error| call_error(error, lease, self.profile))?;
                if events.is_closed() {
                    return Ok(Begun::Abandoned);
                }
            }
            thread.history_bytes += start.items().iter().map(heap_size).sum::<usize>();
            start.drop_large_parts();
            self.start_turn(lease, thread, start).await
        };
        tokio::select! {
            begun = begin => begun,
            () = stop.cancelled() => Err(Error::Draining),
        }
    }

    /// Starts a turn on a thread that has the whole conversation.
    async fn start_turn(
        &mut self,
        lease: &WorkerLease,
        thread: &LiveThread,
        start: &TurnStart,
    ) -> Result<Begun, Error> {
        self.was_sent = true;
        let started = lease.rpc.call(&start.start_turn(&thread.id, thread.is_fork), CALL_LIMIT).await;
        let started = started.map_err(|error| call_error(error, lease, self.profile))?;
        let translator = self.translator(started.turn.id.clone(), thread);
        Ok(Begun::Running(Box::new(RunningTurn { id: started.turn.id, translator })))
    }

    fn translator(&self, id: String, thread: &LiveThread) -> Translator {
        Translator::new(TranslatedTurn {
            id,
            tools: Arc::clone(&self.tools),
            profile: self.profile,
            max_retries: self.parts.max_retries,
            parks: self.conversation.is_some(),
            used_before: thread.usage,
        })
    }

    /// Goes on with the conversation on its thread.
    async fn continue_turn(
        &mut self,
        lease: &WorkerLease,
        thread: &mut LiveThread,
        start: &mut TurnStart,
        events: &EventSender,
    ) -> Result<Begun, Error> {
        let new_messages = self.conversation.as_ref().map_or(0, |conversation| conversation.new_messages);
        let Some(NewItems { results, items }) = start.new_items(new_messages).await? else {
            return Ok(Begun::Unfit("a result follows another message"));
        };
        let options = TurnOptions::of(&start.turn);
        if thread.parked.as_ref().is_some_and(|parked| parked.options != options) {
            return Ok(Begun::Unfit("the request has other options than the turn"));
        }
        let fits = match &thread.parked {
            Some(parked) => parked.translator.is_answered_by(&results),
            None => results.is_empty() && !items.is_empty(),
        };
        if !fits {
            return Ok(Begun::Unfit("the request does not answer the calls of the turn"));
        }
        lease.spec.check(&start.turn)?;
        for piece in start::inject_items(&thread.id, &items) {
            match lease.rpc.call(&piece, CALL_LIMIT).await {
                Ok(_) => {}
                Err(CallError::Refused(error)) if error.is_overloaded() || error.is_input_too_large() => {
                    return Err(call_error(CallError::Refused(error), lease, self.profile));
                }
                Err(CallError::Refused(_)) => return Ok(Begun::Unfit("Codex no longer has the thread")),
                Err(CallError::Closed(_)) => return Ok(Begun::Unfit("the worker was lost")),
                Err(error @ CallError::TimedOut(_)) => return Err(call_error(error, lease, self.profile)),
            }
            if events.is_closed() {
                return Ok(Begun::Abandoned);
            }
        }
        thread.history_bytes += items.iter().map(heap_size).sum::<usize>();
        let Some(parked) = thread.parked.take() else {
            self.was_sent = true;
            return match lease.rpc.call(&start.start_turn(&thread.id, thread.is_fork), CALL_LIMIT).await {
                Ok(started) => {
                    start.drop_large_parts();
                    let translator = self.translator(started.turn.id.clone(), thread);
                    Ok(Begun::Running(Box::new(RunningTurn { id: started.turn.id, translator })))
                }
                Err(CallError::Refused(error)) if !error.is_overloaded() => {
                    Ok(Begun::Unfit("Codex starts no turn on the thread"))
                }
                Err(error) => Err(call_error(error, lease, self.profile)),
            };
        };
        start.drop_large_parts();
        let ParkedTurn { id, mut translator, .. } = *parked;
        if !translator.codex_calls().all_have_output() {
            // A patch beside the client's calls is applied when the calls are answered.
            self.effects.record();
        }
        self.was_sent = true;
        thread.history_bytes += results.iter().map(|(_, result)| result.size()).sum::<usize>();
        let output = translator.resume(results)?;
        if let Action::Respond(results) = output.action {
            respond(&lease.rpc, results).await;
        }
        Ok(Begun::Running(Box::new(RunningTurn { id, translator })))
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
        self.parts.cancel_grace.max(MIN_INTERRUPT_TIMEOUT)
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
