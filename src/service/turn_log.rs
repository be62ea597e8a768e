//! The log line of one request, written exactly once for every outcome.

use std::{sync::Arc, time::Instant};

use tracing::Span;

use super::upstream_health::UpstreamHealth;
use crate::{
    context::RequestContext,
    error::{Error, foreign_text},
    pb,
};

/// Maximum length of a cause in the log, unless the service sets another.
const MAX_CAUSE_CHARS: usize = 4000;

/// The facts of one request for the log. Owned by its event stream; dropping it writes the line.
#[derive(Debug)]
pub(super) struct TurnLog {
    pub(super) id: String,
    pub(super) engine: &'static str,
    pub(super) metadata: Vec<(String, String)>,
    /// The thread of the first choice.
    pub(super) thread: Option<&'static str>,
    model: String,
    choices: u32,
    context: RequestContext,
    began_at: Instant,
    /// The span of the request, because any task may drop this value.
    span: Span,
    slot_at: Option<Instant>,
    first_text_at: Option<Instant>,
    outcome: Outcome,
    /// Maximum length of a cause in the log, in characters.
    pub(super) max_cause_chars: usize,
    /// Gets the outcome. The service shares its own.
    pub(super) upstream: Arc<UpstreamHealth>,
}

#[derive(Debug)]
enum Outcome {
    /// The stream was dropped before its end: the client disconnected.
    Cancelled,
    Completed(pb::Usage),
    Failed(Error),
}

impl TurnLog {
    /// Begins the record of a request. The engine's name is set once it is known.
    pub(super) fn new(id: String, model: String, context: RequestContext, choices: u32) -> Self {
        Self {
            id,
            engine: "",
            metadata: Vec::new(),
            thread: None,
            model,
            choices,
            context,
            began_at: Instant::now(),
            span: Span::current(),
            slot_at: None,
            first_text_at: None,
            outcome: Outcome::Cancelled,
            max_cause_chars: MAX_CAUSE_CHARS,
            upstream: Arc::default(),
        }
    }

    /// Records that a turn has a slot. Only the first call counts.
    pub(super) fn record_slot(&mut self) {
        self.slot_at.get_or_insert_with(Instant::now);
    }

    /// Records the time of the first text.
    pub(super) fn record_event(&mut self, event: &pb::chat_event::Event) {
        if matches!(event, pb::chat_event::Event::TextDelta(_)) {
            self.first_text_at.get_or_insert_with(Instant::now);
        }
    }

    /// Sets the outcome of a complete answer.
    pub(super) fn complete(&mut self, usage: pb::Usage) {
        self.outcome = Outcome::Completed(usage);
    }

    /// Sets the outcome of a failure.
    pub(super) fn fail(&mut self, error: &Error) {
        self.outcome = Outcome::Failed(error.clone());
    }

    fn elapsed_ms(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.began_at).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for TurnLog {
    fn drop(&mut self) {
        let _in_span = self.span.enter();
        match &self.outcome {
            Outcome::Completed(_) => self.upstream.record_success(),
            Outcome::Failed(error) => self.upstream.record_failure(error, Instant::now()),
            Outcome::Cancelled => {}
        }
        let (outcome, usage, cause) = match &self.outcome {
            Outcome::Cancelled => ("CANCELLED", None, None),
            Outcome::Completed(usage) => ("OK", Some(*usage), None),
            Outcome::Failed(error) => {
                (error.reason(), None, Some(foreign_text::for_log(&error.to_string(), self.max_cause_chars)))
            }
        };
        let metadata = (!self.metadata.is_empty()).then_some(&self.metadata);
        tracing::info!(
            request.id = self.context.request_id,
            caller = self.context.caller.as_str(),
            peer = self.context.peer.map(tracing::field::display),
            turn.id = self.id,
            turn.model = self.model,
            turn.choices = self.choices,
            engine.kind = self.engine,
            engine.thread = self.thread,
            outcome,
            cause,
            tokens.input = usage.map(|u| u.input_tokens),
            tokens.cached = usage.map(|u| u.cached_input_tokens),
            tokens.output = usage.map(|u| u.output_tokens),
            tokens.estimated = usage.filter(|u| u.estimated).map(|_| true),
            queue.wait_ms = self.slot_at.map(|at| self.elapsed_ms(at)),
            first_text_ms = self.first_text_at.map(|at| self.elapsed_ms(at)),
            duration_ms = self.elapsed_ms(Instant::now()),
            metadata = metadata.map(tracing::field::debug),
            "turn ended"
        );
    }
}
