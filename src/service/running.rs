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
    account::Account,
    answer::{Answer, State},
};
use crate::{
    deadline::Deadline,
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
pub(super) type Running = Pin<Box<dyn Stream<Item = Result<pb::ChatEvent, Status>> + Send>>;

/// A request whose first turn has begun.
pub(super) struct Begun {
    pub(super) account: Account,
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
    pub(super) answer: Answer,
}

/// What a choice says.
enum Said {
    Event(Event),
    Over(Option<pb::Usage>),
}

impl Begun {
    /// The stream for the caller.
    pub(super) fn run(self) -> Running {
        let Self { mut account, deadline, started, choices, stop, presence } = self;
        let stream = try_stream! {
            // Named, or it would be dropped before the stream begins.
            let _here_until_the_end = &presence;
            let mut left = choices.len();
            let awaits_call = choices.iter().any(|choice| choice.answer.awaits_call());
            let mut merged = merge(choices);
            let mut numbers = Numbers { id: account.id.clone(), next: 0 };
            let mut usage = Some(pb::Usage::default());
            let mut held = Some((started, Vec::new()));
            let hold_until = Instant::now() + if awaits_call { HELD_BACK_FOR_CALL } else { HELD_BACK };
            // Made once: an event costs little more than its own way.
            let mut stopped = pin!(stop.cancelled());
            let mut patience = pin!(sleep_until(hold_until.min(deadline.at())));

            while left > 0 {
                let next = tokio::select! {
                    // The end of the server's patience is no race: it wins.
                    biased;
                    () = &mut stopped => Some(Err(Error::Draining)),
                    next = merged.next() => match next {
                        Some((index, said)) => Some(said.map(|said| (index, said))),
                        // An engine ends at the deadline; who reads slowly may come to that end before to ours.
                        None if deadline.at() <= Instant::now() => Some(Err(deadline.exceeded())),
                        None => Some(Err(Error::internal("an engine's stream ended without its end"))),
                    },
                    () = &mut patience => {
                        let is_deadline = patience.deadline() == deadline.at();
                        patience.as_mut().reset(deadline.at());
                        is_deadline.then(|| Err(deadline.exceeded()))
                    }
                };
                let said = next.transpose().inspect_err(|error| account.failed(error))?;
                let (index, event) = match said {
                    Some((index, Said::Event(event))) => (index, Some(event)),
                    Some((index, Said::Over(told))) => {
                        left -= 1;
                        usage = sum(usage, told);
                        (index, None)
                    }
                    None => (0, None),
                };
                let event = match (&mut held, event) {
                    (Some((_, early)), Some(event)) if is_early(&event, awaits_call) => {
                        early.push((index, event));
                        continue;
                    }
                    (_, event) => event,
                };
                if let Some((started, early)) = held.take() {
                    patience.as_mut().reset(deadline.at());
                    yield numbers.number(0, Event::Started(started));
                    for (index, event) in early {
                        yield numbers.number(index, event);
                    }
                }
                if let Some(event) = event {
                    account.saw(&event);
                    yield numbers.number(index, event);
                }
            }
            account.completed(usage);
            yield numbers.number(0, Event::Completed(pb::Completed { usage }));
        };
        Box::pin(stream.map_err(|error: Error| Status::from(error)))
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

type Merged = Pin<Box<dyn Stream<Item = (u32, Result<Said, Error>)> + Send>>;

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
fn say(choice: Choice) -> impl Stream<Item = Result<Said, Error>> + Send {
    try_stream! {
        let Choice { mut events, mut answer } = choice;
        let mut cut = false;
        loop {
            let next = if cut { timeout(LINGER, events.next()).await.ok().flatten() } else { events.next().await };
            let event = match next {
                Some(Ok(event)) => event,
                Some(Err(error)) if !cut => Err(error)?,
                // Not the end of an answer: whoever waits for that one will say so.
                None if !cut => return,
                // The answer was whole before the turn failed, fell silent or went on: it stands.
                Some(Err(_)) | None => {
                    if let Some(event) = answer.abandoned() {
                        yield Said::Event(event);
                    }
                    yield Said::Over(None);
                    return;
                }
            };
            let step = answer.push(event);
            for event in step.events {
                yield Said::Event(event);
            }
            match step.state {
                State::Open => {}
                State::Cut => cut = true,
                State::Over(usage) => {
                    // Ended before the usage is told on: nobody needs the process any more.
                    drop(events);
                    yield Said::Over(usage);
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

/// Gives each event its number.
struct Numbers {
    id: String,
    next: u64,
}

impl Numbers {
    fn number(&mut self, choice_index: u32, event: Event) -> pb::ChatEvent {
        let sequence_number = self.next;
        self.next += 1;
        pb::ChatEvent { id: self.id.clone(), sequence_number, choice_index, event: Some(event) }
    }
}
