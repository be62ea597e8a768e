//! One turn on a worker: a thread of its own, the whole history put in, the turn started, its events passed on, the
//! thread let go. Its task owns all of it; nobody listening is the reason to interrupt.

pub(crate) mod params;
pub(crate) mod start;
pub(crate) mod temp_dir;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::error::TrySendError,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{start::TurnStart, temp_dir::TurnTempDir};
use super::{
    history::turn_cache::{ConversationKey, TurnCache},
    rpc::{
        client::RpcClient,
        dispatch::CallError,
        protocol::{InterruptTurn, Notification, RequestId, StartThread, ToolCallResult, UnsubscribeThread},
        thread_queue,
        thread_queue::{ThreadMessage, ThreadReceiver, ThreadSender},
    },
    tools::validate_calls,
    translate::{
        Translator,
        output::{Action, TranslatorOutput},
    },
    worker::{CALL_LIMIT, WorkerLease, pool::Pool},
};
use crate::{
    config::{Profile, Sandbox},
    engine::{EventSender, TurnGuard},
    error::Error,
};

/// Workers on which a thread is tried to be started.
const MAX_TRIES: usize = 3;

/// Least time that a worker has to obey an interrupt, whatever the grace is: on a busy machine it may take seconds, and
/// what follows costs its neighbours their turns. One that is dead or stopped is found out sooner, by its watch.
const OBEDIENCE: Duration = Duration::from_secs(10);

/// Pause before a turn is interrupted again that is not known to be over.
const NOT_BEGUN: Duration = Duration::from_millis(30);

/// What a turn needs of its engine.
#[derive(Debug)]
pub(super) struct TurnDriver {
    pub(super) pool: Arc<Pool>,
    pub(super) memory: Arc<TurnCache>,
    /// Where the turn stands in its conversation.
    pub(super) place: ConversationKey,
    /// For what its commands write, once it has a worker.
    pub(super) folder: Option<TurnTempDir>,
    pub(super) translator: Translator,
    pub(super) profile: Profile,
    pub(super) sandbox: Sandbox,
    pub(super) deadline: Option<Instant>,
    /// How long a worker may take to obey an interrupt.
    pub(super) grace: Duration,
    /// Cancelled when all turns must end.
    pub(super) stop: CancellationToken,
}

/// Why a turn is no longer read.
#[derive(Clone, Copy)]
enum TurnState {
    /// It ended by itself.
    Over,
    /// It must be interrupted.
    Running,
    /// Its worker is gone.
    Gone,
}

impl TurnDriver {
    /// Runs the turn to its end, whichever it is. `slot` is free when the worker has nothing left to do for it.
    pub(super) async fn run(
        mut self: Box<Self>,
        beginning: Box<TurnStart>,
        slot: TurnGuard,
        out: EventSender,
    ) {
        let stop = self.stop.clone();
        if let Err(error) = self.conduct(beginning, &out, slot).await {
            tokio::select! {
                // If nobody is there to be told, so be it.
                _ = out.send(Err(Box::new(error))) => {}
                // The service knows why; a client that has stopped reading must not hold up the drain.
                () = stop.cancelled() => {}
            }
        }
    }

    /// What comes before and after the reading is boxed: a turn that streams holds no room for it.
    async fn conduct(
        &mut self,
        mut beginning: Box<TurnStart>,
        out: &EventSender,
        slot: TurnGuard,
    ) -> Result<(), Error> {
        let (letterbox, mut mailbox) = thread_queue::pair();
        let Some((lease, thread)) = Box::pin(self.start_thread(letterbox, &mut beginning, out)).await? else {
            return Ok(());
        };
        let outcome = match Box::pin(self.start_turn(&lease, &thread, beginning, out)).await {
            Ok(Some(id)) => {
                let names = (thread.as_str(), id.as_str());
                let outcome = self.read(&lease, &mut mailbox, names, out).await;
                if let Ok(TurnState::Running) | Err((TurnState::Running, _)) = &outcome {
                    Box::pin(self.interrupt(&lease, &mut mailbox, &thread, &id)).await;
                }
                outcome.map(drop).map_err(|(_, error)| error)
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if self.sandbox == Sandbox::DangerFullAccess {
            // Elsewhere the sandbox ends with the turn, and all that is in it.
            Box::pin(lease.sweep(&thread)).await;
        }
        if let Some(folder) = self.folder.take() {
            Box::pin(folder.remove()).await;
        }
        drop(slot);
        Box::pin(let_go(&lease, &thread)).await;
        outcome
    }

    /// A thread on some worker; none if nobody wants it any more. What has been asked of a worker is seen to its end
    /// all the same: while it makes threads for nobody no slot is free, or they would pile up in it.
    async fn start_thread(
        &mut self,
        letterbox: ThreadSender,
        beginning: &mut TurnStart,
        out: &EventSender,
    ) -> Result<Option<(WorkerLease, String)>, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let lease = tokio::select! {
                lease = self.pool.lease() => lease?,
                () = out.closed() => return Ok(None),
                () = self.stop.cancelled() => return Err(Error::Draining),
            };
            let letterbox = letterbox.clone();
            // The first look was at the newest workers; this one may be older.
            lease.kit.check(&beginning.turn)?;
            self.folder =
                TurnTempDir::of(&beginning.turn, lease.commands.as_deref()).map_err(Error::internal)?;
            let thread =
                StartThread(beginning.setting.on(&lease.kit, self.folder.as_ref().map(TurnTempDir::path)));
            let started = tokio::select! {
                started = lease.rpc.start_thread(&thread, CALL_LIMIT, letterbox) => started,
                () = self.stop.cancelled() => return Err(Error::Draining),
            };
            match started {
                Ok(started) => {
                    let id = started.thread.id;
                    if out.is_closed() {
                        let_go(&lease, &id).await;
                        return Ok(None);
                    }
                    return Ok(Some((lease, id)));
                }
                // One that dies under it is no loss yet: nothing was asked of the model.
                Err(CallError::Closed(_)) if tries < MAX_TRIES => {}
                Err(error) => return Err(self.refused(error, &lease)),
            }
        }
    }

    /// The id of the turn, once it has begun; none if nobody wants it any more. What has been asked for is waited for
    /// all the same: it must be known before it can be stopped.
    async fn start_turn(
        &mut self,
        lease: &WorkerLease,
        thread: &str,
        mut beginning: Box<TurnStart>,
        out: &EventSender,
    ) -> Result<Option<String>, Error> {
        let (items, turn) = (beginning.items(thread), beginning.turn(thread));
        let asked = async {
            lease.rpc.call(&items, CALL_LIMIT).await?;
            drop(items);
            if out.is_closed() {
                return Ok(None);
            }
            lease.rpc.call(&turn, CALL_LIMIT).await.map(Some)
        };
        let started = tokio::select! {
            started = asked => started.map_err(|error| self.refused(error, lease))?,
            () = self.stop.cancelled() => return Err(Error::Draining),
        };
        Ok(started.map(|started| started.turn.id))
    }

    /// Passes events on until the turn is over, or nobody wants it any more. What is waited for besides is made once, and
    /// only looked at when there is nothing to read: a delta costs little more than its own way. `names` are those of the
    /// thread and of the turn.
    async fn read(
        &mut self,
        lease: &WorkerLease,
        mailbox: &mut ThreadReceiver,
        names: (&str, &str),
        out: &EventSender,
    ) -> Result<TurnState, (TurnState, Error)> {
        let mut enough = pin!(enough(out, &self.stop, self.deadline));
        loop {
            // Whatever is said comes first, but not before everybody else.
            tokio::task::consume_budget().await;
            let patience = self.translator.patience();
            let mail = tokio::select! {
                biased;
                mail = mailbox.recv() => Some(mail),
                ended = &mut enough => return ended.map(|()| TurnState::Running).map_err(|error| (TurnState::Running, error)),
                () = pause(patience) => None,
            };
            let (left, understood) = understand(&mut self.translator, mail, names.1);
            let failed = |error| (left, error);
            let mut step = understood.map_err(failed)?;
            if let Action::Check(calls) = step.next {
                let tools = self.translator.tools();
                let verdicts = tokio::select! {
                    verdicts = Box::pin(validate_calls::validate(tools, calls)) => verdicts,
                    ended = &mut enough => return ended.map(|()| left).map_err(failed),
                };
                step = verdicts.and_then(|verdicts| self.translator.checked(verdicts)).map_err(failed)?;
            }
            if let Action::HandOver { calls, items } = &mut step.next {
                self.memory.remember(self.place, calls, std::mem::take(items));
            }
            for event in step.events {
                let event = match out.try_send(Ok(event)) {
                    Ok(()) => continue,
                    Err(TrySendError::Closed(_)) => return Ok(left),
                    Err(TrySendError::Full(event)) => event,
                };
                tokio::select! {
                    sent = Box::pin(out.send(event)) => if sent.is_err() { return Ok(left) },
                    ended = &mut enough => return ended.map(|()| left).map_err(failed),
                    () = Box::pin(mailbox.overflow()) => return Err(failed(unread())),
                }
            }
            match step.next {
                // What comes of a check is none.
                Action::Read | Action::Check(_) => {}
                Action::Answer(answers) => Box::pin(answer(&lease.rpc, answers)).await,
                // A worker that does not obey is found out behind the hand-over.
                Action::Interrupt => {
                    drop(Box::pin(interrupt(&lease.rpc, names, self.grace.max(OBEDIENCE))).await);
                }
                Action::HandOver { .. } | Action::Over => return Ok(left),
            }
        }
    }

    /// Stops a turn; a worker that does not obey loses its place.
    async fn interrupt(&self, lease: &WorkerLease, mailbox: &mut ThreadReceiver, thread: &str, turn: &str) {
        let stopped = async {
            loop {
                match interrupt(&lease.rpc, (thread, turn), CALL_LIMIT).await {
                    Ok(_) => return over(mailbox).await,
                    Err(CallError::Closed(_)) => return,
                    // It was over by itself, or has not quite begun: then it would go on for nobody.
                    Err(CallError::Refused(_)) if mailbox.is_lossy() => return,
                    Err(CallError::Refused(_)) => {
                        if timeout(NOT_BEGUN, over(mailbox)).await.is_ok() {
                            return;
                        }
                    }
                    Err(CallError::TimedOut(_)) => std::future::pending().await,
                }
            }
        };
        if timeout(self.grace.max(OBEDIENCE), stopped).await.is_err() {
            tracing::warn!("an app-server does not obey an interrupt and is replaced");
            lease.dismiss();
        }
    }

    fn refused(&self, error: CallError, lease: &WorkerLease) -> Error {
        match error {
            CallError::Closed(why) => lost(&why),
            CallError::TimedOut(method) => {
                lease.dismiss();
                lost(&format!("it did not answer {method} in time"))
            }
            CallError::Refused(error) if error.is_overloaded() => Error::Overloaded {
                message: "the Codex CLI is busy; try again later".to_owned(),
                retry_after: Duration::from_secs(1),
            },
            CallError::Refused(error) if error.is_input_too_large() => {
                Error::PromptTooLarge { message: error.message }
            }
            CallError::Refused(error) => {
                tracing::warn!(code = error.code, message = %error.message, profile = ?self.profile, "the app-server refuses a turn");
                Error::Rejected { message: format!("the Codex CLI refuses the request: {}", error.message) }
            }
        }
    }
}

/// What one mail means, or that nothing was said for long; and what is left of the turn behind it.
fn understand(
    translator: &mut Translator,
    mail: Option<ThreadMessage>,
    turn: &str,
) -> (TurnState, Result<TranslatorOutput, Error>) {
    let understood = match mail {
        Some(ThreadMessage::Delta(delta)) => Ok(translator.delta(delta)),
        Some(ThreadMessage::Notification(notification)) => {
            let over = matches!(notification, Notification::TurnCompleted(_));
            let left = if over { TurnState::Over } else { TurnState::Running };
            return (left, translator.push(notification, turn));
        }
        Some(ThreadMessage::ToolCall(call)) => Ok(translator.called(call)),
        Some(ThreadMessage::Closed(why)) => return (TurnState::Gone, Err(lost(&why))),
        Some(ThreadMessage::Overflow) => Err(unread()),
        Some(ThreadMessage::TooLong { limit }) => Err(too_long(limit)),
        None => Ok(translator.quiet()),
    };
    (TurnState::Running, understood)
}

async fn interrupt(
    rpc: &RpcClient,
    (thread_id, turn_id): (&str, &str),
    limit: Duration,
) -> Result<(), CallError> {
    rpc.call(&InterruptTurn { thread_id, turn_id }, limit).await.map(drop)
}

async fn answer(rpc: &RpcClient, answers: Vec<(RequestId, ToolCallResult)>) {
    for (request, result) in answers {
        rpc.respond(&request, &result).await;
    }
}

/// Nobody reads the thread any more. Otherwise it would stay in the worker's memory.
async fn let_go(lease: &WorkerLease, thread: &str) {
    lease.rpc.forget_thread(thread);
    drop(lease.rpc.call(&UnsubscribeThread { thread_id: thread }, CALL_LIMIT).await);
}

/// Ends when the turn is no longer wanted, with an error if the client is to be told one by us.
async fn enough(out: &EventSender, stop: &CancellationToken, deadline: Option<Instant>) -> Result<(), Error> {
    tokio::select! {
        () = out.closed() => Ok(()),
        () = stop.cancelled() => Err(Error::Draining),
        // The service says what there is to say.
        () = until(deadline) => Ok(()),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Ends after that time; boxed, because hardly any turn needs it.
async fn pause(patience: Option<Duration>) {
    match patience {
        Some(patience) => Box::pin(sleep(patience)).await,
        None => std::future::pending().await,
    }
}

/// Waits for the last word of a turn.
async fn over(mailbox: &mut ThreadReceiver) {
    loop {
        match mailbox.recv().await {
            ThreadMessage::Notification(Notification::TurnCompleted(_)) => return,
            ThreadMessage::Closed(_) => return,
            ThreadMessage::Delta(_) | ThreadMessage::Notification(_) | ThreadMessage::ToolCall(_) => {}
            // Lost, perhaps, with the rest; what counts is told by the worker's next answer.
            ThreadMessage::Overflow | ThreadMessage::TooLong { .. } => return,
        }
    }
}

/// Nobody read what the model said.
fn unread() -> Error {
    let message = "the answer grew faster than it was read, beyond what the server keeps";
    Error::TurnFailed { message: message.to_owned() }
}

/// Codex said something at such length that it was not read.
fn too_long(limit: usize) -> Error {
    let what = "something that Codex said of this turn was longer than";
    Error::TurnFailed { message: format!("{what} {limit} bytes (CODEX_SUBPROCESS_STREAM_LIMIT)") }
}

/// The worker died under its turns. The caller may try again: another worker is there or on its way.
fn lost(why: &str) -> Error {
    Error::WorkerLost { message: format!("the Codex process that ran this turn is gone: {why}; try again") }
}
