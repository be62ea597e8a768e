//! The account of one request's turns: what the log says of it, once, however it ends.

use std::time::Instant;

use tracing::Span;

use crate::{error::Error, pb};

/// Written to the log when dropped.
#[derive(Debug)]
pub(super) struct TurnLog {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) engine: &'static str,
    pub(super) choices: u32,
    pub(super) metadata: Vec<(String, String)>,
    /// When the request came in.
    pub(super) since: Instant,
    /// The request's span: the log line belongs to it, whoever drops us.
    pub(super) span: Span,
    slot: Option<Instant>,
    first_text: Option<Instant>,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// Nobody came to an end with it: the client went away.
    Cancelled,
    Completed(Option<pb::Usage>),
    Failed(Error),
}

impl TurnLog {
    pub(super) fn new(id: String, model: String, engine: &'static str, choices: u32) -> Self {
        Self {
            id,
            model,
            engine,
            choices,
            metadata: Vec::new(),
            since: Instant::now(),
            span: Span::current(),
            slot: None,
            first_text: None,
            outcome: Outcome::Cancelled,
        }
    }

    /// The first of its turns has a slot.
    pub(super) fn has_slot(&mut self) {
        self.slot.get_or_insert_with(Instant::now);
    }

    pub(super) fn saw(&mut self, event: &pb::chat_event::Event) {
        if matches!(event, pb::chat_event::Event::TextDelta(_)) {
            self.first_text.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn completed(&mut self, usage: Option<pb::Usage>) {
        self.outcome = Outcome::Completed(usage);
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.outcome = Outcome::Failed(error.clone());
    }

    fn ms(&self, at: Option<Instant>) -> Option<u64> {
        at.map(|at| u64::try_from(at.duration_since(self.since).as_millis()).unwrap_or(u64::MAX))
    }
}

impl Drop for TurnLog {
    fn drop(&mut self) {
        let _in_span = self.span.enter();
        let (outcome, usage, cause) = match &self.outcome {
            Outcome::Cancelled => ("CANCELLED", None, None),
            Outcome::Completed(usage) => ("OK", *usage, None),
            Outcome::Failed(error) => (error.reason(), None, Some(error.to_string())),
        };
        let metadata = (!self.metadata.is_empty()).then_some(&self.metadata);
        tracing::info!(
            turn.id = %self.id,
            turn.model = %self.model,
            turn.choices = self.choices,
            engine.kind = self.engine,
            outcome,
            cause,
            tokens.input = usage.map(|u| u.input_tokens),
            tokens.cached = usage.map(|u| u.cached_input_tokens),
            tokens.output = usage.map(|u| u.output_tokens),
            queue.wait_ms = self.ms(self.slot),
            first_text_ms = self.ms(self.first_text),
            duration_ms = self.ms(Some(Instant::now())),
            metadata = metadata.map(tracing::field::debug),
            "turn over"
        );
    }
}
