//! A request under way: its turns merged into one numbered stream of the contract's events, with one deadline,
//! exactly one end, and an account. Dropping the stream drops the turns.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use async_stream::try_stream;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};
use tonic::Status;

use super::{
    choice::{ChoiceBuilder, ChoiceState},
    turn_log::TurnLog,
};
use crate::{
    context::deadline::Deadline,
    engine::Events,
    error::Error,
    pb::{self, chat_event::Event},
};

/// How long `started` is held back for a first sign of the model, so that a turn that fails at once fails as a call
/// and not as a broken stream. After that, the stream begins: proxies do not wait for ever for a response's head.
const HELD_BACK: Duration = Duration::from_secs(10);

/// The same where a call of a tool is demanded: an answer without one fails, and a model may think for long before.
/// Common proxies wait a minute.
const HELD_BACK_FOR_CALL: Duration = Duration::from_secs(30);

/// How long a turn whose answer was cut may take to tell its usage.
const LINGER: Duration = Duration::from_millis(250);

/// What the service gives to both doors.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<pb::ChatEvent, Status>> + Send>>;

/// A request whose first turn has begun.
pub(super) struct StartedRequest {
    pub(super) account: TurnLog,
    pub(super) deadline: Deadline,
    pub(super) started: pb::Started,
    pub(super) choices: Vec<Choice>,
    /// Cancelled when the server waits no longer for running turns.
    pub(super) stop: CancellationToken,
    /// Tells the drain that we are here.
    pub(super) presence: TaskTrackerToken,
}

/// One of its answers.
pub(super) struct Choice {
    /// The turn; it may still have to wait for its slot.
    pub(super) events: Events,
    pub(super) answer: ChoiceBuilder,
}

/// What a choice says.
enum ChoiceOutput {
    Event(Event),
    Over(Option<pb::Usage>),
}

impl StartedRequest {
    /// The stream for the caller. What it holds is held for each request under way, so it is little.
    pub(super) fn run(self) -> EventStream {
        let Self { account, deadline, started, choices, stop, presence } = self;
        let mut story = StreamState::new(account, started, &choices);
        let hold = if story.awaits_call { HELD_BACK_FOR_CALL } else { HELD_BACK };
        let hold_until = deadline.at().min(Instant::now() + hold);
        let mut merged = merge(choices);
        let stream = try_stream! {
            // Named, or it would be dropped before the stream begins.
            let _here_until_the_end = &presence;
            // Made once: an event costs little more than its own way.
            let mut stopped = pin!(stop.cancelled());
            let mut patience = pin!(sleep_until(hold_until));

            while story.left > 0 {
                let said = tokio::select! {
                    // The end of the server's patience is no race: it wins.
                    biased;
                    () = &mut stopped => Err(Error::Draining),
                    next = merged.next() => match next {
                        Some((index, said)) => said.map(|said| Some((index, said))),
                        // An engine ends at the deadline; who reads slowly may come to that end before to ours.
                        None if deadline.at() <= Instant::now() => Err(deadline.exceeded()),
                        None => Err(Error::internal("an engine's stream ended without its end")),
                    },
                    () = &mut patience => match patience.deadline() {
                        at if at == deadline.at() => Err(deadline.exceeded()),
                        _ => Ok(None),
                    },
                };
                let said = said.inspect_err(|error| story.account.fail(error))?;
                let events = story.hear(said);
                if story.held.is_none() && patience.deadline() != deadline.at() {
                    patience.as_mut().reset(deadline.at());
                }
                for event in events {
                    yield event;
                }
            }
            yield story.end();
        };
        Box::pin(stream.map_err(|error: Error| Status::from(error)))
    }
}

/// What the caller has been told so far.
struct StreamState {
    account: TurnLog,
    /// Number of the next event.
    next: u64,
    /// Held back until something is said after which a failure is no longer one of the call.
    held: Option<Box<BufferedHead>>,
    awaits_call: bool,
    /// Choices that have not come to their end.
    left: usize,
    usage: Option<pb::Usage>,
}

struct BufferedHead {
    started: pb::Started,
    early: Vec<(u32, Event)>,
}

impl StreamState {
    fn new(account: TurnLog, started: pb::Started, choices: &[Choice]) -> Self {
        Self {
            account,
            next: 0,
            held: Some(Box::new(BufferedHead { started, early: Vec::new() })),
            awaits_call: choices.iter().any(|choice| choice.answer.awaits_call()),
            left: choices.len(),
            usage: Some(pb::Usage::default()),
        }
    }

    /// What the caller is to be told. `None` is said when nothing can be held back any longer.
    fn hear(&mut self, said: Option<(u32, ChoiceOutput)>) -> Vec<pb::ChatEvent> {
        let event = match said {
            Some((index, ChoiceOutput::Event(event))) => Some((index, event)),
            Some((_, ChoiceOutput::Over(told))) => {
                self.left -= 1;
                self.usage = sum(self.usage, told);
                None
            }
            None => None,
        };
        let Some(mut held) = self.held.take() else {
            return event.into_iter().map(|(index, event)| self.tell(index, event)).collect();
        };
        match event {
            Some((index, event)) if is_early(&event, self.awaits_call) => {
                held.early.push((index, event));
                self.held = Some(held);
                Vec::new()
            }
            event => {
                let started = (0, Event::Started(held.started));
                let events = [started].into_iter().chain(held.early).chain(event);
                events.map(|(index, event)| self.tell(index, event)).collect()
            }
        }
    }

    fn tell(&mut self, index: u32, event: Event) -> pb::ChatEvent {
        self.account.record_event(&event);
        let sequence_number = self.next;
        self.next += 1;
        pb::ChatEvent {
            id: self.account.id.clone(),
            sequence_number,
            choice_index: index,
            event: Some(event),
        }
    }

    /// The last word.
    fn end(&mut self) -> pb::ChatEvent {
        self.account.complete(self.usage);
        self.tell(0, Event::Completed(pb::Completed { usage: self.usage }))
    }
}

/// Whether an event may be followed by a failure that is still one of the call: where a call of a tool is demanded,
/// also thoughts and what the agent does, because without the call there is no answer.
fn is_early(event: &Event, awaits_call: bool) -> bool {
    match event {
        Event::Notice(_) => true,
        Event::ReasoningDelta(_) | Event::Item(_) => awaits_call,
        Event::Started(_)
        | Event::TextDelta(_)
        | Event::ToolCall(_)
        | Event::ChoiceFinished(_)
        | Event::Completed(_) => false,
    }
}

type Merged = Pin<Box<dyn Stream<Item = (u32, Result<ChoiceOutput, Error>)> + Send>>;

fn merge(choices: Vec<Choice>) -> Merged {
    let numbered = (0u32..)
        .zip(choices)
        .map(|(index, choice)| -> Merged { Box::pin(say(choice).map(move |said| (index, said))) });
    let mut numbered: Vec<Merged> = numbered.collect();
    // Nearly always there is one, which needs no merging.
    match numbered.pop() {
        Some(only) if numbered.is_empty() => only,
        last => Box::pin(stream::select_all(numbered.into_iter().chain(last))),
    }
}

/// One choice from its first event to its end.
fn say(mut choice: Choice) -> impl Stream<Item = Result<ChoiceOutput, Error>> + Send {
    try_stream! {
        let mut cut = false;
        loop {
            let next = if cut {
                Box::pin(timeout(LINGER, choice.events.next())).await.ok().flatten()
            } else {
                choice.events.next().await
            };
            let event = match next {
                Some(Ok(event)) => event,
                Some(Err(error)) if !cut => Err(error)?,
                // Not the end of an answer: whoever waits for that one will say so.
                None if !cut => return,
                // The answer was whole before the turn failed, fell silent or went on: it stands.
                Some(Err(_)) | None => {
                    if let Some(event) = choice.answer.abandoned() {
                        yield ChoiceOutput::Event(event);
                    }
                    yield ChoiceOutput::Over(None);
                    return;
                }
            };
            let step = choice.answer.push(event);
            for event in step.events {
                yield ChoiceOutput::Event(event);
            }
            match step.state {
                ChoiceState::Open => {}
                ChoiceState::Cut => cut = true,
                ChoiceState::Over(usage) => {
                    // Ended before the usage is told on: nobody needs the process any more.
                    drop(choice.events);
                    yield ChoiceOutput::Over(usage);
                    return;
                }
            }
        }
    }
}

/// The sum of what all choices told; unknown as soon as one of them did not.
fn sum(so_far: Option<pb::Usage>, told: Option<pb::Usage>) -> Option<pb::Usage> {
    let (a, b) = (so_far?, told?);
    Some(pb::Usage {
        input_tokens: a.input_tokens + b.input_tokens,
        cached_input_tokens: a.cached_input_tokens + b.cached_input_tokens,
        output_tokens: a.output_tokens + b.output_tokens,
        reasoning_output_tokens: a.reasoning_output_tokens + b.reasoning_output_tokens,
    })
}

#[cfg(test)]
mod tests;
