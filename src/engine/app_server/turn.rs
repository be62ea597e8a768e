//! One turn on a worker: a thread of its own, the whole history put in, the turn started, its events passed on, the
//! thread let go. Its task owns all of it; nobody listening is the reason to interrupt.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    events::{Next, Translator},
    history::Opening,
    mailbox::{self, Mail, Mailbox},
    memory::Memory,
    peer::CallError,
    pool::Pool,
    worker::{CALL_LIMIT, Lease},
};
use crate::{
    config::Profile,
    engine::{Format, Slot, Turn, TurnEvent},
    error::Error,
};

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
            let lease = self.pool.lease().await?;
            let started =
                lease.peer.call_for("thread/start", &self.thread, CALL_LIMIT, Some(letterbox)).await;
            let started = started.map_err(|error| self.refused(error, &lease))?;
            let thread = started["thread"]["id"].as_str().unwrap_or_default().to_owned();
            Ok::<_, Error>((lease, thread))
        };
        let (lease, thread) = tokio::select! {
            begun = begun => begun?,
            // An answer that comes later is for nobody: the peer lets its thread go.
            () = out.closed() => return Ok(()),
            () = self.stop.cancelled() => return Err(Error::Draining),
        };
        let running = self.start_turn(&lease, &thread, turn).await;
        let outcome = match running {
            Ok(id) => {
                let outcome = self.read(&lease, &mut mailbox, &id, turn, out).await;
                if let Ok(Left::Running) | Err((Left::Running, _)) = &outcome {
                    self.interrupt(&lease, &mut mailbox, &thread, &id).await;
                }
                outcome.map(drop).map_err(|(_, error)| error)
            }
            Err(error) => Err(error),
        };
        drop(slot);
        lease.peer.forget_thread(&thread);
        // Otherwise the thread stays in the worker's memory.
        drop(lease.peer.call("thread/unsubscribe", &json!({"threadId": thread}), CALL_LIMIT).await);
        outcome
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
        id: &str,
        turn: &Turn,
        out: &Out,
    ) -> Result<Left, (Left, Error)> {
        let deadline = turn.deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(7 * 86400));
        loop {
            let mail = tokio::select! {
                biased;
                () = out.closed() => return Ok(Left::Running),
                () = self.stop.cancelled() => return Err((Left::Running, Error::Draining)),
                // The service says what there is to say.
                () = sleep_until(deadline) => return Ok(Left::Running),
                mail = mailbox.next() => mail,
            };
            let step = match mail {
                Mail::Notification { method, params } => {
                    let over = method == "turn/completed";
                    let left = || if over { Left::Over } else { Left::Running };
                    self.translator.push(&method, &params, id).map_err(|error| (left(), error))?
                }
                Mail::ToolCall(call) => self.translator.called(call),
                Mail::Gone(why) => return Err((Left::Gone, lost(&why))),
                Mail::Overflow => {
                    let message = "the answer grew faster than it was read, beyond what the server keeps";
                    return Err((Left::Running, Error::TurnFailed { message: message.to_owned() }));
                }
            };
            if let Next::HandOver { calls, items } = &step.next {
                self.memory.remember(self.memory.place(&turn.messages), calls, items.clone());
            }
            for event in step.events {
                tokio::select! {
                    sent = out.send(Ok(event)) => if sent.is_err() { return Ok(Left::Running) },
                    () = self.stop.cancelled() => return Err((Left::Running, Error::Draining)),
                    () = sleep_until(deadline) => return Ok(Left::Running),
                }
            }
            match step.next {
                Next::Read => {}
                Next::Answer(answers) => {
                    for (request, result) in answers {
                        lease.peer.answer(&request, &result).await;
                    }
                }
                Next::HandOver { .. } => return Ok(Left::Running),
                Next::Over => return Ok(Left::Over),
            }
        }
    }

    /// Stops a turn; a worker that does not obey loses its place.
    async fn interrupt(&self, lease: &Lease, mailbox: &mut Mailbox, thread: &str, turn: &str) {
        let stopped = async {
            let params = json!({"threadId": thread, "turnId": turn});
            match lease.peer.call("turn/interrupt", &params, CALL_LIMIT).await {
                // Refused means that it was over by itself.
                Ok(_) => {}
                Err(CallError::Refused(_) | CallError::Gone(_)) => return,
                Err(CallError::TimedOut(_)) => std::future::pending().await,
            }
            loop {
                match mailbox.next().await {
                    Mail::Notification { method, .. } if method == "turn/completed" => return,
                    Mail::Gone(_) => return,
                    Mail::Notification { .. } | Mail::ToolCall(_) => {}
                    // Cleared with the rest; what counts is told by the worker's next answer.
                    Mail::Overflow => return,
                }
            }
        };
        if timeout(self.grace.max(Duration::from_secs(1)), stopped).await.is_err() {
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

/// The worker died under its turns. The caller may try again: another worker is there or on its way.
fn lost(why: &str) -> Error {
    Error::WorkerLost { message: format!("the Codex process that ran this turn is gone: {why}; try again") }
}
