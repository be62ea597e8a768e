//! Notifications of an app-server → events of a turn. Pure: no I/O, no clock. A notification that it does not know is
//! passed over.

pub(crate) mod call_ids;
pub(crate) mod client_calls;
pub(crate) mod codex_calls;
pub(crate) mod delivered_text;
pub(crate) mod errors;
pub(crate) mod items;
pub(crate) mod output;
pub(crate) mod pending_requests;
pub(crate) mod raw_items;
pub(crate) mod response_attempt;
pub(crate) mod usage;

use std::{sync::Arc, time::Duration};

use self::{
    call_ids::CallIds,
    codex_calls::CodexToolCalls,
    delivered_text::DeliveredText,
    output::{Action, TranslatorOutput},
    pending_requests::PendingToolRequests,
    raw_items::RawItemBuffer,
    response_attempt::ResponseAttempt,
    usage::{UsageAccumulator, usage},
};
use super::{
    rpc::{
        delta::{Delta, Kind, Thought},
        protocol::{
            ErrorReport, Notification, RawItem, ThreadItem, ThreadItemKind, ToolCall, Turn, TurnStatus,
        },
    },
    tools::ToolSet,
};
use crate::engine::app_server::tools::call::{Call, CheckedCall};
use crate::{
    config::Profile,
    engine::{THOUGHT_BREAK, TurnEvent, cli::error_messages::TurnEnd},
    error::Error,
    pb::{self, FinishReason},
};

/// How long nothing may be said while Codex waits for the results of calls, before it gets some.
const QUIET: Duration = Duration::from_secs(5);

/// How long Codex's own calls beside the client's may say nothing: those that run, and those that have not begun. Some
/// cannot begin before the client's calls are answered, and nothing tells them from those that are about to.
const RUNNING: Duration = Duration::from_secs(60);
const NOT_BEGUN: Duration = Duration::from_secs(2);

/// How long an interrupted turn may take to say what its calls came to.
const ENDING: Duration = Duration::from_secs(5);

/// Translates one turn.
#[derive(Debug)]
pub(super) struct Translator {
    tools: Arc<ToolSet>,
    profile: Profile,
    retries: u32,
    attempt: ResponseAttempt,
    corrections: u32,
    /// Text of the current message that the client has.
    told: DeliveredText,
    /// What the client's last thoughts are of.
    thought: Option<Thought>,
    /// Calls of the response that is under way.
    calls: Vec<Call>,
    /// Requests for calls, to be answered only where a call goes back to the model.
    requests: PendingToolRequests,
    ids: CallIds,
    /// Calls that go back to the model as soon as all their requests are there.
    correcting: Option<Vec<CheckedCall>>,
    /// Calls of Codex's own tools.
    own: CodexToolCalls,
    /// Calls that the client gets as soon as Codex's own in the same response are over.
    settling: Option<Vec<Call>>,
    /// The turn was interrupted to hear what they came to.
    interrupted: bool,
    calls_made: usize,
    usage: UsageAccumulator,
    /// What the model produced, in the words of the Responses API.
    produced: RawItemBuffer,
}

impl Translator {
    pub(super) fn new(tools: ToolSet, profile: Profile, retries: u32) -> Self {
        Self {
            produced: RawItemBuffer::new(!tools.is_empty()),
            tools: Arc::new(tools),
            profile,
            retries,
            attempt: ResponseAttempt::default(),
            corrections: 0,
            told: DeliveredText::default(),
            thought: None,
            calls: Vec::new(),
            requests: PendingToolRequests::default(),
            ids: CallIds::default(),
            correcting: None,
            own: CodexToolCalls::default(),
            settling: None,
            interrupted: false,
            calls_made: 0,
            usage: UsageAccumulator::default(),
        }
    }

    /// Codex asks for the result of a call. It may come before or after the end of the response that has the call.
    pub(super) fn called(&mut self, call: ToolCall) -> TranslatorOutput {
        self.requests.put(call);
        TranslatorOutput { events: Vec::new(), next: self.corrections_due(false) }
    }

    /// How long nothing may be said before [`quiet`](Self::quiet) is to be asked; none: as long as it likes.
    pub(super) fn patience(&self) -> Option<Duration> {
        match &self.settling {
            Some(_) if self.interrupted => Some(ENDING),
            Some(_) if self.own.run() => Some(RUNNING),
            Some(_) => Some(NOT_BEGUN),
            None => (self.correcting.is_some() || !self.requests.is_empty()).then_some(QUIET),
        }
    }

    /// What is to be done when nothing was said for that long.
    pub(super) fn quiet(&mut self) -> TranslatorOutput {
        match self.settling.take() {
            Some(calls) if self.interrupted => self.hand_over(&calls),
            Some(calls) => {
                self.settling = Some(calls);
                self.interrupted = true;
                Action::Interrupt.into()
            }
            // Codex will not ask for all of them: some it has sent back by itself.
            None if self.correcting.is_some() => self.corrections_due(true).into(),
            None => Action::Answer(self.requests.give_up()).into(),
        }
    }

    /// What a piece of text means.
    pub(super) fn delta(&mut self, delta: Delta) -> TranslatorOutput {
        match delta.kind {
            Kind::Message => self.text(delta.text).into(),
            Kind::Summary | Kind::Thoughts => {
                let (thought, text) = delta.into_thought();
                let goes_on =
                    text.is_empty() || self.thought.as_ref().is_none_or(|before| *before == thought);
                let text = if goes_on { text } else { format!("{THOUGHT_BREAK}{text}") };
                let told = self.thought(text);
                if told.is_some() {
                    self.thought = Some(thought);
                }
                told.into()
            }
        }
    }

    /// What any other notification means. `turn` is the id of our turn.
    pub(super) fn push(&mut self, notification: Notification, turn: &str) -> Result<TranslatorOutput, Error> {
        let mut step = self.translate(notification, turn)?;
        self.settle(&mut step);
        Ok(step)
    }

    fn settle(&mut self, step: &mut TranslatorOutput) {
        if self.settling.is_some() && !self.interrupted && self.own.are_over() {
            self.interrupted = true;
            step.next = Action::Interrupt;
        }
    }

    /// The tools of the turn.
    pub(super) fn tools(&self) -> Arc<ToolSet> {
        Arc::clone(&self.tools)
    }

    fn translate(&mut self, notification: Notification, turn: &str) -> Result<TranslatorOutput, Error> {
        match notification {
            Notification::ReasoningSummaryPartAdded(part) if part.summary_index > 0 => {
                Ok(self.thought(THOUGHT_BREAK.to_owned()).into())
            }
            Notification::ItemStarted(item) => self.item(*item, false),
            Notification::ItemCompleted(item) => self.item(*item, true),
            Notification::PlanUpdated(update) => {
                Ok(Some(TurnEvent::Item(Box::new(items::plan(update)))).into())
            }
            Notification::Warning(warning) => {
                Ok(Some(notice(pb::notice::Kind::Warning, warning.message)).into())
            }
            Notification::Error(report) => self.trouble(&report),
            Notification::RawResponseItemCompleted(raw) if raw.turn_id == turn => {
                self.produced(raw.item, turn);
                Ok(TranslatorOutput::default())
            }
            Notification::RawResponseCompleted(told) => self.response_completed(told),
            Notification::ThreadUsageUpdated(total) => {
                self.attempt.is_counted();
                self.usage.total = Some(usage(total));
                Ok(TranslatorOutput::default())
            }
            Notification::TurnCompleted(turn) => self.completed(&turn),
            Notification::ReasoningSummaryPartAdded(_)
            | Notification::RawResponseItemCompleted(_)
            | Notification::Unknown => Ok(TranslatorOutput::default()),
        }
    }

    /// A raw item: of the model, or the output of one of Codex's own tools.
    fn produced(&mut self, mut item: RawItem, turn: &str) {
        if let Some(mut call) = self.call(&item) {
            call.id = self.ids.of_call(&call.codex_id, turn);
            item.set_call_id(&call.id);
            self.calls.push(call);
        } else if !self.names_offered(&item) {
            self.own.saw(&item);
            let id = item.call_id().unwrap_or_default();
            if item.kind().ends_with("_call") {
                self.ids.of_own(id);
            } else if let Some(id) = self.ids.of_output(id) {
                item.set_call_id(&id);
            }
        }
        if self.interrupted {
            self.own.mend(&mut item);
        }
        self.produced.push(item.into_value());
    }

    fn text(&mut self, text: String) -> Option<TurnEvent> {
        self.told.add(&text);
        let text = non_empty(text)?;
        self.attempt.speaks();
        Some(TurnEvent::Text(text.into()))
    }

    fn thought(&mut self, text: String) -> Option<TurnEvent> {
        non_empty(text).filter(|_| self.attempt.thinks()).map(|text| TurnEvent::Reasoning(text.into()))
    }

    fn item(&mut self, item: ThreadItem, completed: bool) -> Result<TranslatorOutput, Error> {
        match &item.kind {
            ThreadItemKind::AgentMessage { text } if completed => {
                // An upstream that does not stream tells the text only here.
                let rest = self.told.rest(text).to_owned();
                Ok(self.text(rest).into())
            }
            ThreadItemKind::AgentMessage { .. } => {
                self.told.clear();
                Ok(Some(TurnEvent::MessageStarted).into())
            }
            ThreadItemKind::ContextCompaction => self.compaction(completed),
            // Told by their deltas, or ours to begin with.
            ThreadItemKind::Reasoning
            | ThreadItemKind::UserMessage
            | ThreadItemKind::DynamicToolCall
            | ThreadItemKind::HookPrompt
            | ThreadItemKind::FunctionCallOutput => Ok(TranslatorOutput::default()),
            ThreadItemKind::CommandExecution { .. }
            | ThreadItemKind::FileChange { .. }
            | ThreadItemKind::McpToolCall(_)
            | ThreadItemKind::WebSearch { .. }
            | ThreadItemKind::Plan { .. }
            | ThreadItemKind::Unknown => {
                self.own.heard(&item.id, completed);
                Ok(Some(TurnEvent::Item(Box::new(items::of(item, completed)))).into())
            }
        }
    }

    /// Codex replaces a history that is too long by a summary. Alone with the model, nobody asked for that.
    fn compaction(&self, completed: bool) -> Result<TranslatorOutput, Error> {
        match self.profile {
            Profile::Chat => Err(Error::ContextLengthExceeded {
                message: "the conversation is longer than the model's context window".to_owned(),
            }),
            Profile::Agent if completed => Ok(TranslatorOutput::default()),
            Profile::Agent => {
                let message =
                    "the conversation was too long for the model: Codex goes on with a summary of it";
                Ok(Some(notice(pb::notice::Kind::Warning, message.to_owned())).into())
            }
        }
    }

    fn trouble(&mut self, report: &ErrorReport) -> Result<TranslatorOutput, Error> {
        let error = &report.error;
        if !report.will_retry {
            // The same comes again, with the end of the turn.
            return Ok(TranslatorOutput::default());
        }
        let again = self.attempt.retries(self.retries);
        // Those of a response that broke off are not the client's to answer.
        self.calls.clear();
        self.own.clear();
        match errors::of(error) {
            TurnEnd::Truncated(reason) => Ok(self.finished(reason)),
            TurnEnd::Error(error) if !again => Err(given_up(error)),
            TurnEnd::Error(_) => {
                let message = format!("{} {}", error.message, error.additional_details);
                Ok(Some(notice(pb::notice::Kind::Retry, message.trim().to_owned())).into())
            }
        }
    }

    fn completed(&mut self, turn: &Turn) -> Result<TranslatorOutput, Error> {
        match turn.status {
            TurnStatus::Completed | TurnStatus::Interrupted if let Some(calls) = self.settling.take() => {
                Ok(self.hand_over(&calls))
            }
            TurnStatus::Completed => {
                if let Some(message) = self.tools.too_few_calls(self.calls_made) {
                    return Err(Error::TurnFailed { message });
                }
                Ok(self.finished(FinishReason::Stop))
            }
            TurnStatus::Failed => match errors::of(&turn.error) {
                TurnEnd::Truncated(reason) => Ok(self.finished(reason)),
                TurnEnd::Error(error) => Err(error),
            },
            TurnStatus::Interrupted | TurnStatus::Unknown => {
                Err(Error::TurnFailed { message: "Codex interrupted the turn".to_owned() })
            }
        }
    }

    fn finished(&self, reason: FinishReason) -> TranslatorOutput {
        let events = vec![TurnEvent::Finished { reason, usage: self.usage.best().map(Box::new) }];
        TranslatorOutput { events, next: Action::Over }
    }
}

/// A failure that nobody could read is still one of the upstream's, as the CLI wanted to try again.
fn given_up(error: Error) -> Error {
    if let Error::TurnFailed { message } = error {
        return Error::UpstreamUnavailable { message };
    }
    error
}

fn notice(kind: pb::notice::Kind, message: String) -> TurnEvent {
    TurnEvent::Notice(Box::new(pb::Notice { kind: kind.into(), message }))
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
