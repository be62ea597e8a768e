//! One turn on a worker: a thread of its own, the whole history put in, the turn started, its events passed on, the
//! thread let go. Its task owns all of it; nobody listening is the reason to interrupt.

use std::{pin::pin, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    events::Translator,
    history::Opening,
    mailbox::{self, Letterbox, Mail, Mailbox},
    memory::Memory,
    peer::CallError,
    pool::Pool,
    step::Next,
    worker::{CALL_LIMIT, Lease},
};
use crate::{
    config::{Profile, Sandbox},
    engine::{Format, Slot, Turn, TurnEvent},
    error::Error,
};

/// Workers on which a thread is tried to be started.
const MAX_TRIES: usize = 3;

/// Least time that a worker has to obey an interrupt, whatever the grace is: on a busy machine it may take a second or
/// two, and what follows costs its neighbours their turns.
const OBEDIENCE: Duration = Duration::from_secs(5);

/// Pause before a turn is interrupted again that is not known to be over.
const NOT_BEGUN: Duration = Duration::from_millis(30);

/// What a turn needs of its engine.
#[derive(Debug)]
pub(super) struct Conductor {
    pub(super) pool: Arc<Pool>,
    pub(super) memory: Arc<Memory>,
    /// The parameters of `thread/start` that come from the turn.
    pub(super) thread: Value,
    pub(super) opening: Opening,
    pub(super) translator: Translator,
    pub(super) profile: Profile,
    /// How long a worker may take to obey an interrupt.
    pub(super) grace: Duration,
    /// Cancelled when all turns must end.
    pub(super) stop: CancellationToken,
}

/// Where the events go.
pub(super) type Out = mpsc::Sender<Result<TurnEvent, Error>>;

/// Why a turn is no longer read.
enum Left {
    /// It ended by itself.
    Over,
    /// It must be interrupted.
    Running,
    /// Its worker is gone.
    Gone,
}

impl Conductor {
    /// Runs the turn to its end, whichever it is. `slot` is free when the worker has nothing left to do for it.
    pub(super) async fn run(self, turn: Turn, slot: Slot, out: Out) {
        let outcome = self.conduct(&turn, &out, slot).await;
        if let Err(error) = outcome {
            drop(out.send(Err(error)).await);
        }
    }

    async fn conduct(mut self, turn: &Turn, out: &Out, slot: Slot) -> Result<(), Error> {
        let (letterbox, mut mailbox) = mailbox::pair();
        let begun = async {
            let (lease, started) = self.start_thread(&letterbox).await?;
            let thread = started["thread"]["id"].as_str().unwrap_or_default().to_owned();
            Ok::<_, Error>((lease, thread))
        };
        let (lease, thread) = tokio::select! {
            begun = begun => begun?,
            // An answer that comes later is for nobody: the peer lets its thread go.
            () = out.closed() => return Ok(()),
            () = self.stop.cancelled() => return Err(Error::Draining),
        };
        let running = {
            let mut start = pin!(self.start_turn(&lease, &thread, turn));
            tokio::select! {
                running = &mut start => Some(running),
                // What has begun must be known before it can be stopped.
                () = self.unwanted(out) => timeout(self.patience(), start).await.ok(),
            }
        };
        let outcome = match running {
            None => {
                tracing::warn!("an app-server does not say whether a turn has begun, and is replaced");
                lease.dismiss();
                if self.stop.is_cancelled() { Err(Error::Draining) } else { Ok(()) }
            }
            Some(Ok(id)) => {
                let names = (thread.as_str(), id.as_str());
                let outcome = self.read(&lease, &mut mailbox, names, turn, out).await;
                if let Ok(Left::Running) | Err((Left::Running, _)) = &outcome {
                    self.interrupt(&lease, &mut mailbox, &thread, &id).await;
                }
                outcome.map(drop).map_err(|(_, error)| error)
            }
            Some(Err(error)) => Err(error),
        };
        if turn.sandbox == Sandbox::DangerFullAccess {
            // Elsewhere the sandbox ends with the turn, and all that is in it.
            lease.sweep(&thread).await;
        }
        drop(slot);
        lease.peer.forget_thread(&thread);
        // Otherwise the thread stays in the worker's memory.
        drop(lease.peer.call("thread/unsubscribe", &json!({"threadId": thread}), CALL_LIMIT).await);
        outcome
    }

    /// A thread on some worker. One that dies under it is no loss yet: nothing was asked of the model.
    async fn start_thread(&self, letterbox: &Letterbox) -> Result<(Lease, Value), Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let lease = self.pool.lease().await?;
            let letterbox = Some(letterbox.clone());
            let started = lease.peer.call_for("thread/start", &self.thread, CALL_LIMIT, letterbox).await;
            match started {
                Ok(started) => return Ok((lease, started)),
                Err(CallError::Gone(_)) if tries < MAX_TRIES => {}
                Err(error) => return Err(self.refused(error, &lease)),
            }
        }
    }

    /// Ends when the turn must.
    async fn unwanted(&self, out: &Out) {
        tokio::select! {
            () = out.closed() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// How long a worker may take to obey.
    fn patience(&self) -> Duration {
        self.grace.max(OBEDIENCE)
    }

    async fn start_turn(&self, lease: &Lease, thread: &str, turn: &Turn) -> Result<String, Error> {
        let items = json!({"threadId": thread, "items": self.opening.items});
        let injected = lease.peer.call("thread/inject_items", &items, CALL_LIMIT).await;
        injected.map_err(|error| self.refused(error, lease))?;
        let mut params = json!({"threadId": thread, "input": [], "effort": turn.reasoning_effort});
        if let Format::JsonSchema(schema) = &turn.format {
            params["outputSchema"] = serde_json::from_str(schema).map_err(Error::internal)?;
        }
        let started = lease.peer.call("turn/start", &params, CALL_LIMIT).await;
        let started = started.map_err(|error| self.refused(error, lease))?;
        Ok(started["turn"]["id"].as_str().unwrap_or_default().to_owned())
    }

    /// Passes events on until the turn is over, or nobody wants it any more.
    async fn read(
        &mut self,
        lease: &Lease,
        mailbox: &mut Mailbox,
        (thread, id): (&str, &str),
        turn: &Turn,
        out: &Out,
    ) -> Result<Left, (Left, Error)> {
        let deadline = turn.deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(7 * 86400));
        loop {
            let patience = self.translator.patience();
            let mail = tokio::select! {
                biased;
                () = out.closed() => return Ok(Left::Running),
                () = self.stop.cancelled() => return Err((Left::Running, Error::Draining)),
                // The service says what there is to say.
                () = sleep_until(deadline) => return Ok(Left::Running),
                mail = mailbox.next() => Some(mail),
                () = sleep(patience.unwrap_or_default()), if patience.is_some() => None,
            };
            let over = matches!(&mail, Some(Mail::Notification { method, .. }) if method == "turn/completed");
            let left = || if over { Left::Over } else { Left::Running };
            let step = match mail {
                Some(Mail::Notification { method, params }) => {
                    self.translator.push(&method, &params, id).map_err(|error| (left(), error))?
                }
                Some(Mail::ToolCall(call)) => self.translator.called(call),
                Some(Mail::Gone(why)) => return Err((Left::Gone, lost(&why))),
                Some(Mail::Overflow) => return Err((Left::Running, unread())),
                None => self.translator.quiet(),
            };
            if let Next::HandOver { calls, items } = &step.next {
                self.memory.remember(self.memory.place(&turn.messages), calls, items.clone());
            }
            for event in step.events {
                tokio::select! {
                    sent = out.send(Ok(event)) => if sent.is_err() { return Ok(left()) },
                    () = self.stop.cancelled() => return Err((left(), Error::Draining)),
                    () = sleep_until(deadline) => return Ok(left()),
                    () = mailbox.overflow() => return Err((left(), unread())),
                }
            }
            match step.next {
                Next::Read => {}
                Next::Answer(answers) => {
                    for (request, result) in answers {
                        lease.peer.answer(&request, &result).await;
                    }
                }
                Next::Interrupt => {
                    let params = json!({"threadId": thread, "turnId": id});
                    // A worker that does not obey is found out behind the hand-over.
                    drop(lease.peer.call("turn/interrupt", &params, self.patience()).await);
                }
                Next::HandOver { .. } => return Ok(left()),
                Next::Over => return Ok(left()),
            }
        }
    }

    /// Stops a turn; a worker that does not obey loses its place.
    async fn interrupt(&self, lease: &Lease, mailbox: &mut Mailbox, thread: &str, turn: &str) {
        let params = json!({"threadId": thread, "turnId": turn});
        let stopped = async {
            loop {
                match lease.peer.call("turn/interrupt", &params, CALL_LIMIT).await {
                    Ok(_) => return over(mailbox).await,
                    Err(CallError::Gone(_)) => return,
                    // It was over by itself, or has not quite begun: then it would go on for nobody.
                    Err(CallError::Refused(_)) if mailbox.lost_some() => return,
                    Err(CallError::Refused(_)) => {
                        if timeout(NOT_BEGUN, over(mailbox)).await.is_ok() {
                            return;
                        }
                    }
                    Err(CallError::TimedOut(_)) => std::future::pending().await,
                }
            }
        };
        if timeout(self.patience(), stopped).await.is_err() {
            tracing::warn!("an app-server does not obey an interrupt and is replaced");
            lease.dismiss();
        }
    }

    fn refused(&self, error: CallError, lease: &Lease) -> Error {
        match error {
            CallError::Gone(why) => lost(&why),
            CallError::TimedOut(method) => {
                lease.dismiss();
                lost(&format!("it did not answer {method} in time"))
            }
            CallError::Refused(error) if error.code == super::wire::OVERLOADED => Error::Overloaded {
                message: "the Codex CLI is busy; try again later".to_owned(),
                retry_after: Duration::from_secs(1),
            },
            CallError::Refused(error) if error.data["input_error_code"] == "input_too_large" => {
                Error::PromptTooLarge { message: error.message }
            }
            CallError::Refused(error) => {
                tracing::warn!(code = error.code, message = %error.message, profile = ?self.profile, "the app-server refuses a turn");
                Error::Rejected { message: format!("the Codex CLI refuses the request: {}", error.message) }
            }
        }
    }
}

/// Waits for the last word of a turn.
async fn over(mailbox: &mut Mailbox) {
    loop {
        match mailbox.next().await {
            Mail::Notification { method, .. } if method == "turn/completed" => return,
            Mail::Gone(_) => return,
            Mail::Notification { .. } | Mail::ToolCall(_) => {}
            // Cleared with the rest; what counts is told by the worker's next answer.
            Mail::Overflow => return,
        }
    }
}

/// Nobody read what the model said.
fn unread() -> Error {
    let message = "the answer grew faster than it was read, beyond what the server keeps";
    Error::TurnFailed { message: message.to_owned() }
}

/// The worker died under its turns. The caller may try again: another worker is there or on its way.
fn lost(why: &str) -> Error {
    Error::WorkerLost { message: format!("the Codex process that ran this turn is gone: {why}; try again") }
}
