//! Merges the turns of a running request into one numbered stream of the contract's events. The stream has one deadline,
//! exactly one end, and one log line. Dropping the stream cancels the turns.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use tokio::{
    task::coop,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::task_tracker::TaskTrackerToken,
};
use tonic::Status;

use super::{
    choice_stream::{ChoiceStream, Progress},
    turn_log::TurnLog,
};
use crate::{
    context::deadline::Deadline,
    engine::{Effects, ThreadOrigin},
    error::Error,
    pb::{self, chat_event::Event},
};

/// Maximum time for which `started` waits for the first output, so that an early failure fails the call and not the
/// stream. The stream begins after this time, because proxies limit the wait for a response's head.
const HEAD_DELAY: Duration = Duration::from_secs(10);

/// Head delay of a request that demands a tool call. The turn fails without a call, and a model may reason for long
/// before the call. Common proxies wait for one minute.
const DEMANDED_CALL_HEAD_DELAY: Duration = Duration::from_secs(30);

/// An admitted request, whose turns wait for their slots.
pub(super) struct AdmittedRequest {
    pub(super) log: TurnLog,
    pub(super) deadline: Deadline,
    pub(super) started: pb::Started,
    pub(super) choices: Vec<ChoiceStream>,
    /// Set by the engine when an agent of the request begins to act.
    pub(super) effects: Effects,
    /// Silence after which the stream yields a heartbeat. `None` for an answer that the caller gets as a whole.
    pub(super) heartbeat: Option<Duration>,
    /// Whether the caller sees each event, so that a wait for a slot is announced.
    pub(super) is_streamed: bool,
    /// Cancelled when the drain interrupts running turns.
    pub(super) interrupt: CancellationToken,
    /// Keeps the drain waiting while the stream exists.
    pub(super) drain_token: TaskTrackerToken,
}

/// The events of a request. Yields one error at most, as the last item. Only a drop, the deadline and a drain cancel it.
pub struct EventStream {
    /// Emptied with the last item, so that a slow reader does not keep turns running.
    choices: Vec<ChoiceStream>,
    /// Index of the choice that is polled first. Rotates, so that a fast choice does not starve the others.
    next_choice: usize,
    effects: Effects,
    state: StreamState,
    /// Taken when the first turn runs.
    started: Option<pb::Started>,
    deadline: Deadline,
    heartbeat: Option<Duration>,
    /// Time of the last item.
    last_item_at: Instant,
    /// Fires at the end of the head delay, then at the next heartbeat or the deadline.
    timer: Pin<Box<Sleep>>,
    /// The timer is that of a stream that yields its items.
    is_head_released: bool,
    interrupted: Pin<Box<WaitForCancellationFutureOwned>>,
    _drain_token: TaskTrackerToken,
}

/// The events that were not yielded yet, and the phase of the stream.
#[derive(Debug)]
struct StreamState {
    log: TurnLog,
    phase: Phase,
    /// Numbered events. None is yielded in [`Phase::HeadDelayed`].
    queue: VecDeque<pb::ChatEvent>,
    next_sequence_number: u64,
    awaits_call: bool,
    open_choices: usize,
    usage: pb::Usage,
    /// The thread of the first choice, once it has ended.
    thread: pb::ThreadOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not polled yet. A request that must wait for its slot begins to stream.
    Admitted,
    /// A failure still fails the call. Events stay in the queue.
    HeadDelayed,
    Streaming,
    /// The last item was yielded.
    Ended,
}

impl AdmittedRequest {
    /// Returns the stream for the caller. The stream must be small, because each running request has one.
    pub(super) fn into_stream(self) -> EventStream {
        let Self { log, deadline, started, choices, effects, heartbeat, is_streamed, interrupt, drain_token } =
            self;
        let awaits_call = choices.iter().any(ChoiceStream::awaits_call);
        let delay = if awaits_call { DEMANDED_CALL_HEAD_DELAY } else { HEAD_DELAY };
        let now = Instant::now();
        let head_due = deadline.at().min(now + delay);
        let state = StreamState {
            log,
            phase: if is_streamed { Phase::Admitted } else { Phase::HeadDelayed },
            queue: VecDeque::new(),
            next_sequence_number: 0,
            awaits_call,
            open_choices: choices.len(),
            usage: pb::Usage::default(),
            thread: pb::ThreadOrigin::Unspecified,
        };
        EventStream {
            choices,
            next_choice: 0,
            effects,
            state,
            started: Some(started),
            deadline,
            heartbeat,
            last_item_at: now,
            timer: Box::pin(sleep_until(head_due)),
            is_head_released: false,
            interrupted: Box::pin(interrupt.cancelled_owned()),
            _drain_token: drain_token,
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Stream for EventStream {
    type Item = Result<pb::ChatEvent, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.state.phase {
                Phase::Ended => return Poll::Ready(None),
                Phase::Streaming => {
                    if let Some(event) = this.state.queue.pop_front() {
                        this.last_item_at = Instant::now();
                        return Poll::Ready(Some(Ok(event)));
                    }
                    if this.state.open_choices == 0 {
                        return Poll::Ready(Some(Ok(this.complete())));
                    }
                }
                Phase::Admitted | Phase::HeadDelayed => {}
            }
            let step = this.poll_step(cx);
            if this.state.phase == Phase::Admitted {
                this.state.phase = Phase::HeadDelayed;
                // The head of a response and its keep-alives must not wait for other requests to end.
                if step.is_pending() && this.choices.first().is_some_and(ChoiceStream::waits_for_slot) {
                    this.state.enqueue(0, Event::Heartbeat(pb::Heartbeat {}));
                    this.release_head();
                    continue;
                }
            }
            if step.is_pending() {
                // An idle stream keeps the memory of one event instead of four, the smallest capacity of a queue.
                this.state.queue.shrink_to(1);
            }
            if let Err(error) = ready!(step) {
                return Poll::Ready(Some(Err(this.fail(error))));
            }
        }
    }
}

impl EventStream {
    /// Polls once. Shutdown takes precedence over ready events, and ready events over the timer.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.interrupted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Error::Draining));
        }
        // Events that are always ready must not starve other streams of the thread.
        let budget = ready!(coop::poll_proceed(cx));
        if let Poll::Ready(step) = self.poll_choices(cx) {
            budget.made_progress();
            return Poll::Ready(step);
        }
        // Restores the budget, which the timer counts by itself.
        drop(budget);
        ready!(self.timer.as_mut().poll(cx));
        if self.timer.deadline() == self.deadline.at() {
            return Poll::Ready(Err(self.deadline.exceeded()));
        }
        let is_head_due = self.state.phase == Phase::HeadDelayed && self.started.is_some();
        let is_silent = self.heartbeat_due().is_some_and(|due| due <= Instant::now());
        if is_head_due || is_silent {
            self.state.enqueue(0, Event::Heartbeat(pb::Heartbeat {}));
            self.last_item_at = Instant::now();
        }
        self.release_head();
        Poll::Ready(Ok(()))
    }

    /// Returns the time of the next heartbeat, if no other item precedes it.
    fn heartbeat_due(&self) -> Option<Instant> {
        self.heartbeat.map(|interval| self.last_item_at + interval)
    }

    /// Polls each open choice once, until one makes progress. The others start after the first one, so that its failure to
    /// start is the failure of a request without effects.
    fn poll_choices(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let count = if self.started.is_some() { self.choices.len().min(1) } else { self.choices.len() };
        for offset in 0..count {
            let index = (self.next_choice + offset) % count;
            let Some(choice) = self.choices.get_mut(index).filter(|choice| !choice.is_ended()) else {
                continue;
            };
            let mut emit = |event| self.state.emit(index, event);
            let Poll::Ready(step) = choice.poll_step(cx, &mut emit) else { continue };
            self.next_choice = index + 1;
            return Poll::Ready(step.and_then(|progress| self.on_progress(index, progress)));
        }
        Poll::Pending
    }

    fn on_progress(&mut self, choice: usize, progress: Progress) -> Result<(), Error> {
        match progress {
            Progress::Open | Progress::Slot => {}
            Progress::Running => {
                self.state.log.record_slot();
                if let Some(mut started) = self.started.take() {
                    let origin =
                        self.choices.get(choice).map(ChoiceStream::thread_origin).unwrap_or_default();
                    started.set_thread(thread_origin(origin));
                    self.state.enqueue(0, Event::Started(started));
                }
            }
            Progress::Restarted => self.state.restart_choice(choice),
            Progress::Ended(usage) => {
                if let Some(first) = self.choices.first().filter(|_| choice == 0) {
                    self.state.log.thread = first.thread_origin().as_str();
                    self.state.thread = thread_origin(first.thread_origin());
                }
                self.state.end_choice(usage);
            }
            // The engine enforces the same deadline; with a slow client its stream may close before the timer fires.
            Progress::Broken if self.deadline.at() <= Instant::now() => return Err(self.deadline.exceeded()),
            Progress::Broken => {
                return Err(Error::internal("an engine's stream ended without a terminal event"));
            }
        }
        if self.state.phase == Phase::Streaming && !self.is_head_released {
            self.release_head();
        }
        Ok(())
    }

    /// Begins to yield the queue. The timer fires at the next heartbeat or at the deadline from now on.
    ///
    /// An item does not reset the timer, because a stream has many. The timer that fires too early is set again.
    fn release_head(&mut self) {
        self.state.phase = Phase::Streaming;
        self.is_head_released = true;
        let due = self.heartbeat_due().map_or(self.deadline.at(), |due| due.min(self.deadline.at()));
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
    }

    /// Ends the stream and returns its last event.
    fn complete(&mut self) -> pb::ChatEvent {
        let usage = self.state.usage;
        self.state.log.complete(usage);
        self.end();
        let thread = self.state.thread.into();
        self.state.number(0, Event::Completed(pb::Completed { usage: Some(usage), thread }))
    }

    /// Ends the stream and returns its last item, a status. Drops the queued events. This is the only place that decides
    /// whether a failed turn may be offered for retry.
    fn fail(&mut self, error: Error) -> Status {
        let error = if self.effects.have_begun() { error.after_effects() } else { error };
        self.state.log.fail(&error);
        self.end();
        error.into()
    }

    fn end(&mut self) {
        self.state.phase = Phase::Ended;
        self.state.queue = VecDeque::new();
        self.choices = Vec::new();
    }
}

impl StreamState {
    /// Queues an event of a choice. Begins the stream, unless a failure after the event may still fail the call.
    fn emit(&mut self, choice: usize, event: Event) {
        if !is_early(&event, self.awaits_call) {
            self.phase = Phase::Streaming;
        }
        self.enqueue(choice, event);
    }

    fn enqueue(&mut self, choice: usize, event: Event) {
        let event = self.number(choice, event);
        self.queue.push_back(event);
    }

    fn number(&mut self, choice: usize, event: Event) -> pb::ChatEvent {
        self.log.record_event(&event);
        let sequence_number = self.next_sequence_number;
        self.next_sequence_number += 1;
        // The contract has the id in each event, and prost's strings cannot be shared.
        let id = self.log.id.clone();
        let choice_index = u32::try_from(choice).unwrap_or(u32::MAX);
        pb::ChatEvent { id, sequence_number, choice_index, event: Some(event) }
    }

    /// Tells `collect`, by an event without content, that a choice begins again. The caller of a stream never gets it.
    fn restart_choice(&mut self, choice: usize) {
        let choice_index = u32::try_from(choice).unwrap_or(u32::MAX);
        self.queue.push_back(pb::ChatEvent { choice_index, ..pb::ChatEvent::default() });
        let message = "the response of the upstream broke off; the answer is requested again".to_owned();
        let kind = pb::notice::Kind::Retry.into();
        self.enqueue(choice, Event::Notice(pb::Notice { kind, message }));
    }

    fn end_choice(&mut self, usage: pb::Usage) {
        self.open_choices -= 1;
        self.usage = sum(self.usage, usage);
        self.phase = Phase::Streaming;
    }
}

fn thread_origin(origin: ThreadOrigin) -> pb::ThreadOrigin {
    match origin {
        ThreadOrigin::Unknown => pb::ThreadOrigin::Unspecified,
        ThreadOrigin::Fresh => pb::ThreadOrigin::Fresh,
        ThreadOrigin::Forked => pb::ThreadOrigin::Forked,
        ThreadOrigin::Continued => pb::ThreadOrigin::Continued,
    }
}

/// Returns `true` if a failure after this event may still fail the call. If a tool call is demanded, reasoning and
/// items count as early, because the turn fails without the call.
fn is_early(event: &Event, awaits_call: bool) -> bool {
    match event {
        Event::Notice(_) | Event::Heartbeat(_) | Event::MessageStarted(_) => true,
        Event::ReasoningDelta(_) | Event::Item(_) => awaits_call,
        Event::Started(_)
        | Event::TextDelta(_)
        | Event::ToolCall(_)
        | Event::ChoiceFinished(_)
        | Event::Completed(_) => false,
    }
}

/// Returns the sum of two usages; estimated as soon as one of them is.
pub(super) fn sum(a: pb::Usage, b: pb::Usage) -> pb::Usage {
    pb::Usage {
        input_tokens: a.input_tokens + b.input_tokens,
        cached_input_tokens: a.cached_input_tokens + b.cached_input_tokens,
        output_tokens: a.output_tokens + b.output_tokens,
        reasoning_output_tokens: a.reasoning_output_tokens + b.reasoning_output_tokens,
        estimated: a.estimated || b.estimated,
    }
}

#[cfg(test)]
mod tests;
