//! Drives one answer of a request, from the wait for a slot to the end of its turn. The turn of a whole answer runs again
//! if its response breaks off, because the caller has seen nothing of it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture};
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use super::{
    admission::RunPermit,
    choice::{ChoiceBuilder, ChoiceState, Unchecked},
    event_stream::sum,
    json_answer,
    usage_estimate::UsageEstimate,
};
use crate::{
    context::deadline::Deadline,
    engine::{AnswerDigest, Continuation, Engine, Events, ThreadOrigin, Turn, TurnEvent, TurnGuard},
    error::Error,
    pb::{self, chat_event::Event},
};

/// Maximum time between two events of a turn whose answer is truncated. After this time the answer ends with an
/// estimated usage.
pub(super) const USAGE_GRACE: Duration = Duration::from_millis(250);

/// A turn and the builder of its answer. Dropping it cancels the turn.
pub(super) struct ChoiceStream {
    turn: TurnState,
    builder: ChoiceBuilder,
    estimate: UsageEstimate,
    /// Other choices run too, so that the request cannot be offered for retry.
    has_siblings: bool,
    /// `None` if the turn cannot start, or start again.
    starter: Option<Box<TurnStarter>>,
    /// The turn has sent text since its start.
    has_text: bool,
    /// The usage of refused answers.
    spent: pb::Usage,
    /// The offer to keep the thread of the turn.
    continuation: Continuation,
    /// The answer so far, as the caller gets it.
    told: AnswerDigest,
}

enum TurnState {
    /// Waits for a slot. The future is polled with the stream, so a request's choices start in the order of slots.
    Queued(BoxFuture<'static, Result<RunPermit, Error>>),
    /// The engine starts the turn.
    Starting(BoxFuture<'static, Result<Events, Error>>),
    Running(Events),
    /// The answer is complete; the turn may report its usage before the timer fires.
    Truncated(Events, Pin<Box<Sleep>>),
    /// The answer is being validated.
    Checking(BoxFuture<'static, Result<Result<String, String>, Error>>, Box<Unchecked>),
    Ended,
}

/// The result of a poll that made progress.
#[derive(Debug, Clone, Copy)]
pub(super) enum Progress {
    /// The choice continues.
    Open,
    /// The turn has a slot, and its engine starts it.
    Slot,
    /// The turn runs.
    Running,
    /// The answer begins again: what was emitted before is void.
    Restarted,
    /// The choice ended, with its usage.
    Ended(pb::Usage),
    /// The turn's events ended without a terminal event.
    Broken,
}

/// Starts the turn of a choice.
pub(super) struct TurnStarter {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) turn: Turn,
    pub(super) deadline: Deadline,
    /// The first choice of its request. The others start after it.
    pub(super) is_first: bool,
    /// How often the turn may start again after a failure. More than 0 only if the caller gets the answer as a whole.
    pub(super) restarts: u32,
    /// How often the turn may start again because its answer is not of the demanded format.
    pub(super) repeats: u32,
    /// The builder of an answer without any event, for a further start.
    pub(super) builder: Box<dyn Fn(&Turn) -> ChoiceBuilder + Send + Sync>,
    /// The estimate of an answer without any event.
    pub(super) estimate: UsageEstimate,
    /// The slot, which the turn keeps while it may start again.
    pub(super) permit: Option<Arc<RunPermit>>,
}

impl TurnStarter {
    /// Returns `true` if the turn must not start again.
    fn is_spent(&self) -> bool {
        self.restarts == 0 && self.repeats == 0
    }

    /// Begins to start the turn. Takes the turn if it cannot start again.
    fn start(&mut self) -> BoxFuture<'static, Result<Events, Error>> {
        let (turn, permit) = if self.is_spent() {
            (std::mem::take(&mut self.turn), self.permit.take())
        } else {
            (self.turn.clone(), self.permit.clone())
        };
        let (engine, deadline) = (Arc::clone(&self.engine), self.deadline);
        Box::pin(async move {
            let run = engine.run(turn, TurnGuard::new(permit));
            timeout_at(deadline.at(), run).await.map_err(|_| deadline.exceeded())?
        })
    }
}

impl ChoiceStream {
    /// Returns a choice whose turn starts as soon as `slot` completes.
    pub(super) fn queued(
        slot: impl Future<Output = Result<RunPermit, Error>> + Send + 'static,
        starter: TurnStarter,
        has_siblings: bool,
    ) -> Self {
        Self {
            turn: TurnState::Queued(Box::pin(slot)),
            builder: (starter.builder)(&starter.turn),
            estimate: starter.estimate.clone(),
            has_siblings,
            continuation: starter.turn.continuation.clone(),
            told: AnswerDigest::default(),
            starter: Some(Box::new(starter)),
            has_text: false,
            spent: pb::Usage::default(),
        }
    }

    /// Returns a choice whose turn has started.
    #[cfg(test)]
    pub(super) fn running(
        events: Events,
        builder: ChoiceBuilder,
        estimate: UsageEstimate,
        has_siblings: bool,
    ) -> Self {
        let turn = TurnState::Starting(Box::pin(std::future::ready(Ok(events))));
        Self {
            turn,
            builder,
            estimate,
            has_siblings,
            starter: None,
            has_text: false,
            spent: pb::Usage::default(),
            continuation: Continuation::default(),
            told: AnswerDigest::default(),
        }
    }

    /// Returns `true` if the turn has no slot yet.
    pub(super) fn waits_for_slot(&self) -> bool {
        matches!(self.turn, TurnState::Queued(_))
    }

    /// Returns `true` if a demanded call has not arrived yet.
    pub(super) fn awaits_call(&self) -> bool {
        self.builder.awaits_call()
    }

    /// Returns the thread that the turn runs on.
    pub(super) fn thread_origin(&self) -> ThreadOrigin {
        self.continuation.origin()
    }

    /// Returns `true` if the choice needs no more polls.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.turn, TurnState::Ended)
    }

    /// Drives the turn by one step and passes resulting events to `emit`. Drops the turn before it returns the end.
    pub(super) fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        emit: &mut impl FnMut(Event),
    ) -> Poll<Result<Progress, Error>> {
        let event = match &mut self.turn {
            TurnState::Ended => return Poll::Pending,
            TurnState::Queued(slot) => {
                let permit = ready!(slot.as_mut().poll(cx));
                return Poll::Ready(match permit {
                    Ok(permit) => Ok(self.begin_start(permit)),
                    Err(error) => Err(self.map_queue_error(error)),
                });
            }
            TurnState::Starting(start) => {
                let started = ready!(start.as_mut().poll(cx));
                return Poll::Ready(started.map(|events| {
                    self.turn = TurnState::Running(events);
                    Progress::Running
                }));
            }
            TurnState::Checking(check, _) => {
                let checked = ready!(check.as_mut().poll(cx));
                return Poll::Ready(checked.and_then(|checked| self.on_checked(checked, emit)));
            }
            TurnState::Running(events) => match ready!(events.poll_next_unpin(cx)) {
                Some(Ok(event)) => event,
                Some(Err(error)) if self.may_restart(&error) => return Poll::Ready(Ok(self.restart(&error))),
                Some(Err(error)) => return Poll::Ready(Err(self.map_multi_choice_error(error))),
                // The caller reports the missing terminal event.
                None => {
                    self.turn = TurnState::Ended;
                    return Poll::Ready(Ok(Progress::Broken));
                }
            },
            TurnState::Truncated(events, grace) => match events.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(event))) => event,
                Poll::Pending if grace.as_mut().poll(cx).is_pending() => return Poll::Pending,
                // The answer was complete before the turn failed, ended or timed out.
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => {
                    self.turn = TurnState::Ended;
                    self.builder.finish_truncated(emit);
                    return Poll::Ready(Ok(self.ended(None)));
                }
            },
        };
        self.has_text |= matches!(&event, TurnEvent::Text(text) if !text.is_empty());
        let is_truncated = matches!(self.turn, TurnState::Truncated(..));
        let mut emit = |event| {
            self.estimate.record(&event);
            record_told(&mut self.told, &event);
            emit(event);
        };
        let progress = match self.builder.push(event, &mut emit) {
            ChoiceState::Open => Progress::Open,
            ChoiceState::Truncated => {
                self.begin_grace();
                Progress::Open
            }
            ChoiceState::Ended(usage) => {
                // The thread has the whole answer of the model, so the caller must have it too.
                if !is_truncated && self.builder.is_verbatim() {
                    self.continuation.accept(&self.told);
                }
                self.turn = TurnState::Ended;
                self.starter = None;
                self.ended(usage)
            }
            ChoiceState::Unchecked(unchecked) => return Poll::Ready(self.check(unchecked)),
        };
        Poll::Ready(Ok(progress))
    }

    /// Returns the end of the choice, with the usage of all its turns.
    fn ended(&self, usage: Option<pb::Usage>) -> Progress {
        Progress::Ended(sum(self.spent, usage.unwrap_or_else(|| self.estimate.usage())))
    }

    /// Begins the validation of an answer, or refuses it.
    fn check(&mut self, mut unchecked: Box<Unchecked>) -> Result<Progress, Error> {
        match (unchecked.mistake.take(), self.builder.validator()) {
            (None, Some(validator)) => {
                let check = Box::pin(validator.check(unchecked.text.clone()));
                self.turn = TurnState::Checking(check, unchecked);
                Ok(Progress::Open)
            }
            (mistake, _) => self.refuse(*unchecked, &mistake.unwrap_or_default()),
        }
    }

    fn on_checked(
        &mut self,
        checked: Result<String, String>,
        emit: &mut impl FnMut(Event),
    ) -> Result<Progress, Error> {
        let TurnState::Checking(_, unchecked) = std::mem::replace(&mut self.turn, TurnState::Ended) else {
            return Ok(Progress::Broken);
        };
        match checked {
            Ok(text) => {
                self.starter = None;
                let mut emit = |event| {
                    self.estimate.record(&event);
                    emit(event);
                };
                self.builder.finish_checked(text, unchecked.reason, &mut emit);
                Ok(self.ended(unchecked.usage))
            }
            Err(mistake) => self.refuse(*unchecked, &mistake),
        }
    }

    /// Asks again for a refused answer if nothing of the turn can have had an effect, or fails.
    fn refuse(&mut self, unchecked: Unchecked, mistake: &str) -> Result<Progress, Error> {
        let failed = Error::TurnFailed { message: format!("the model's answer {mistake}") };
        let is_final = self.builder.has_called() || self.builder.has_begun();
        let starter = self
            .starter
            .as_mut()
            .filter(|starter| !is_final && starter.repeats > 0 && !starter.turn.effects.have_begun());
        let Some(starter) = starter else { return Err(failed) };
        starter.repeats -= 1;
        json_answer::ask_again(&mut starter.turn, unchecked.text, mistake);
        self.spent = sum(self.spent, unchecked.usage.unwrap_or_else(|| self.estimate.usage()));
        self.estimate = starter.estimate.clone();
        self.builder.restart();
        self.turn = TurnState::Starting(starter.start());
        self.has_text = false;
        self.drop_spent_starter();
        Ok(Progress::Open)
    }

    /// Maps an expired wait to a failure if other choices run. A retry would run their agents again.
    fn map_queue_error(&self, error: Error) -> Error {
        match &self.starter {
            Some(starter) if !starter.is_first && matches!(error, Error::Overloaded { .. }) => {
                starter.deadline.exceeded()
            }
            Some(_) | None => error,
        }
    }

    fn begin_start(&mut self, permit: RunPermit) -> Progress {
        if let Some(starter) = &mut self.starter {
            starter.permit = Some(Arc::new(permit));
            self.turn = TurnState::Starting(starter.start());
        }
        self.drop_spent_starter();
        Progress::Slot
    }

    /// Returns `true` if the turn runs again after this failure. It must have had no effect, and the caller must have seen
    /// nothing of it. A failure before the first text is not repeated: Codex has repeated the request already, or the
    /// caller may.
    fn may_restart(&self, error: &Error) -> bool {
        let is_transient =
            self.has_text && matches!(error, Error::UpstreamUnavailable { .. } | Error::WorkerLost { .. });
        is_transient
            && self
                .starter
                .as_ref()
                .is_some_and(|starter| starter.restarts > 0 && !starter.turn.effects.have_begun())
    }

    /// Starts the turn again.
    fn restart(&mut self, error: &Error) -> Progress {
        if let Some(starter) = &mut self.starter {
            tracing::info!(turn.id = %starter.turn.id, %error, "starting the turn of a whole answer again");
            starter.restarts -= 1;
            self.builder = (starter.builder)(&starter.turn);
            self.estimate = starter.estimate.clone();
            self.turn = TurnState::Starting(starter.start());
        }
        self.has_text = false;
        self.told = AnswerDigest::default();
        self.drop_spent_starter();
        Progress::Restarted
    }

    fn drop_spent_starter(&mut self) {
        self.starter.take_if(|starter| starter.is_spent());
    }

    /// Enters the truncated state, or restarts its timer.
    fn begin_grace(&mut self) {
        self.turn = match std::mem::replace(&mut self.turn, TurnState::Ended) {
            TurnState::Running(events) => TurnState::Truncated(events, Box::pin(sleep(USAGE_GRACE))),
            TurnState::Truncated(events, mut grace) => {
                grace.as_mut().reset(Instant::now() + USAGE_GRACE);
                TurnState::Truncated(events, grace)
            }
            state @ (TurnState::Queued(_)
            | TurnState::Starting(_)
            | TurnState::Checking(..)
            | TurnState::Ended) => state,
        };
    }

    /// Maps an overload of a running turn to a failure if other choices run. A retry would repeat their work.
    fn map_multi_choice_error(&self, error: Error) -> Error {
        if let Error::Overloaded { message, .. } = &error
            && self.has_siblings
        {
            return Error::TurnFailed { message: format!("another answer: {message}") };
        }
        error
    }
}

/// Records what the caller gets of an answer.
fn record_told(told: &mut AnswerDigest, event: &Event) {
    match event {
        Event::TextDelta(delta) => told.push_text(&delta.text),
        Event::ToolCall(call) => told.push_call(call),
        Event::Started(_)
        | Event::ReasoningDelta(_)
        | Event::Item(_)
        | Event::Notice(_)
        | Event::ChoiceFinished(_)
        | Event::Completed(_)
        | Event::Heartbeat(_)
        | Event::MessageStarted(_) => {}
    }
}
