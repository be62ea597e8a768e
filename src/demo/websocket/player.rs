//! Plays the acts of one response as frames.

use std::{iter, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::demo::{
    answer::{self, Refusal},
    plan::{self, Act, Acts},
    record::Open,
    script::{Ending, Step},
};

/// The code of a close frame at the end of a stream.
const NORMAL: u16 = 1000;

/// What a response does next.
pub(super) enum Output {
    Frame(Value),
    /// The response is over.
    Done,
    /// Close the WebSocket with a code.
    Close(u16),
    /// Close the TCP connection.
    Break,
    /// Reset the TCP connection.
    Reset,
}

impl From<Ending> for Output {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Close(code) => Self::Close(code),
            Ending::Reset(true) => Self::Reset,
            Ending::Reset(false) => Self::Break,
            Ending::Frame(frame) => Self::Frame(Value::Object(frame)),
        }
    }
}

/// The state of a response.
pub(super) struct Player {
    pub(super) number: u64,
    /// The conversation, with the output so far.
    pub(super) items: Vec<Value>,
    pub(super) size: usize,
    pub(super) acts: Acts,
    sequence: u64,
    /// The end of the current pause.
    until: Option<Instant>,
    /// The event before the first act.
    limits: Option<Value>,
    /// Replaces the acts.
    pub(super) instead: Option<Output>,
    /// Replaces the cut.
    at_cut: Option<Ending>,
    /// Whether an end of the response was sent.
    ended: bool,
    /// Whether that end lets requests continue it.
    pub(super) succeeded: bool,
    _open: Open,
}

impl Player {
    pub(super) fn new(number: u64, open: Open) -> Self {
        Self {
            number,
            items: Vec::new(),
            size: 0,
            acts: Box::new(iter::empty()),
            sequence: 0,
            until: None,
            limits: None,
            instead: None,
            at_cut: None,
            ended: false,
            succeeded: false,
            _open: open,
        }
    }

    /// Applies the keys of a step that replace or delay its acts.
    pub(super) fn play(&mut self, step: Step) -> Result<(), Refusal> {
        let pause = Duration::from_millis(step.hang_before_ms);
        self.until = (!pause.is_zero()).then(|| Instant::now() + pause);
        let is_cut = step.cut_after.is_some() || step.cut_after_events.is_some();
        if let Some((status, body)) = answer::refusal(&step)? {
            let mut frame = json!({"type": "error", "status": status.as_u16()});
            if let Value::Object(fields) = body {
                fields.into_iter().for_each(|(key, value)| frame[key] = value);
            } else {
                frame["error"] = json!({"message": body});
            }
            let headers = answer::headers(&step);
            if !headers.is_empty() {
                frame["headers"] = json!(headers);
            }
            self.instead = Some(Output::Frame(frame));
        } else if is_cut {
            self.at_cut = step.ws;
        } else {
            self.instead = step.ws.map(Output::from);
        }
        self.limits = step.rate_limits.map(|limits| limits.event());
        Ok(())
    }

    /// Waits for the next output. Cancel safe.
    pub(super) async fn next(&mut self) -> Output {
        loop {
            if let Some(until) = self.until {
                sleep_until(until).await;
                self.until = None;
            }
            if let Some(instead) = self.instead.take() {
                return self.end_with(instead);
            }
            if let Some(limits) = self.limits.take() {
                return Output::Frame(limits);
            }
            match self.acts.next() {
                Some(Act::Event(name, data)) => {
                    if name == plan::DONE {
                        self.items.push(data["item"].clone());
                    }
                    self.ended = plan::is_end(name);
                    self.succeeded = self.ended && name != "response.failed";
                    return Output::Frame(plan::numbered(name, data, &mut self.sequence));
                }
                Some(Act::Pause(time)) => self.until = Some(Instant::now() + time),
                Some(Act::Cut) => {
                    let ending = self.at_cut.take().map_or(Output::Break, Output::from);
                    return self.end_with(ending);
                }
                None if self.ended => return Output::Done,
                None => return Output::Close(NORMAL),
            }
        }
    }

    fn end_with(&mut self, last: Output) -> Output {
        self.acts = Box::new(iter::empty());
        (self.limits, self.ended) = (None, true);
        last
    }
}
