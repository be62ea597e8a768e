//! Drives one answer of a running request. The turn is polled from the wait for a slot to its end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    choice::{ChoiceBuilder, ChoiceState},
    usage_estimate::UsageEstimate,
};
use crate::{
    context::deadline::Deadline,
    engine::Events,
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
}

enum TurnState {
    /// Waits for a slot. The future is polled with the stream, so a request's choices start in the order of slots.
    Queued(BoxFuture<'static, Result<Events, Error>>, Deadline),
    Running(Events),
    /// The answer is complete; the turn may report its usage before the timer fires.
    Truncated(Events, Pin<Box<Sleep>>),
    Ended,
}

/// The result of a poll that made progress.
#[derive(Debug, Clone, Copy)]
pub(super) enum Progress {
    /// The choice continues.
    Open,
    /// The choice ended, with its usage.
    Ended(pb::Usage),
    /// The turn's events ended without a terminal event.
    Broken,
}

impl ChoiceStream {
    /// Returns a choice whose turn runs.
    pub(super) fn running(
        events: Events,
        builder: ChoiceBuilder,
        estimate: UsageEstimate,
        has_siblings: bool,
    ) -> Self {
        Self { turn: TurnState::Running(events), builder, estimate, has_siblings }
    }

    /// Returns a choice whose turn starts with the first poll. Other choices of the request run already.
    pub(super) fn queued(
        start: impl Future<Output = Result<Events, Error>> + Send + 'static,
        deadline: Deadline,
        builder: ChoiceBuilder,
        estimate: UsageEstimate,
    ) -> Self {
        Self { turn: TurnState::Queued(Box::pin(start), deadline), builder, estimate, has_siblings: true }
    }

    /// Returns `true` if a demanded call has not arrived yet.
    pub(super) fn awaits_call(&self) -> bool {
        self.builder.awaits_call()
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
            TurnState::Queued(start, deadline) => {
                let started = ready!(start.as_mut().poll(cx));
                let deadline = *deadline;
                return Poll::Ready(match started {
                    Ok(events) => {
                        self.turn = TurnState::Running(events);
                        Ok(Progress::Open)
                    }
                    // A retry of the request would run the agents of the other choices again.
                    Err(Error::Overloaded { .. }) => Err(deadline.exceeded()),
                    Err(error) => Err(error),
                });
            }
            TurnState::Running(events) => match ready!(events.poll_next_unpin(cx)) {
                Some(Ok(event)) => event,
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
                    return Poll::Ready(Ok(Progress::Ended(self.estimate.usage())));
                }
            },
        };
        let mut emit = |event| {
            self.estimate.record(&event);
            emit(event);
        };
        Poll::Ready(Ok(match self.builder.push(event, &mut emit) {
            ChoiceState::Open => Progress::Open,
            ChoiceState::Truncated => {
                self.begin_grace();
                Progress::Open
            }
            ChoiceState::Ended(usage) => {
                self.turn = TurnState::Ended;
                Progress::Ended(usage.unwrap_or_else(|| self.estimate.usage()))
            }
        }))
    }

    /// Enters the truncated state, or restarts its timer.
    fn begin_grace(&mut self) {
        self.turn = match std::mem::replace(&mut self.turn, TurnState::Ended) {
            TurnState::Running(events) => TurnState::Truncated(events, Box::pin(sleep(USAGE_GRACE))),
            TurnState::Truncated(events, mut grace) => {
                grace.as_mut().reset(Instant::now() + USAGE_GRACE);
                TurnState::Truncated(events, grace)
            }
            state @ (TurnState::Queued(..) | TurnState::Ended) => state,
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
