//! Translates the messages of an app-server about one turn into events and actions. Pure: no I/O, no clock. Unknown
//! notifications are ignored.

pub(crate) mod call_ids;
pub(crate) mod codex_calls;
pub(crate) mod delivered_text;
pub(crate) mod errors;
pub(crate) mod items;
pub(crate) mod output;
pub(crate) mod pending_requests;
pub(crate) mod raw_items;
pub(crate) mod response_attempt;
mod tool_loop;
pub(crate) mod usage;

use std::{collections::HashSet, sync::Arc, time::Duration};

use self::{
    call_ids::CallIds,
    codex_calls::CodexToolCalls,
    output::{Action, HandOver, TranslatorOutput},
    raw_items::RawItemBuffer,
    response_attempt::ResponseAttempt,
    tool_loop::{LoopInput, LoopOutput, ToolLoop},
    usage::UsageAccumulator,
};
use super::{
    rpc::{
        delta::{Delta, DeltaKind},
        json,
        protocol::{
            ErrorReport, MessagePhase, Notification, RawItem, ThreadItem, ThreadItemKind, ToolCall,
            ToolCallResult, Turn, TurnStatus,
        },
    },
    tools::{
        ToolSet,
        call::{Call, CheckedCall},
    },
};
use crate::{
    config::Profile,
    engine::{
        TurnEvent,
        cli::error_messages::{self, TurnEnd},
        notice::{notice, retries_exhausted},
    },
    error::Error,
    pb::{self, FinishReason, notice::Kind as NoticeKind},
};

/// Codex's tool for the agent's plan, which has no effect outside the turn.
const PLAN_TOOL: &str = "update_plan";

/// An input of the translator.
#[derive(Debug)]
pub(super) enum Input {
    /// A piece of text.
    Delta(Delta),
    /// Any other notification.
    Notification(Notification),
    /// Codex requests the result of a client call.
    ToolRequest(ToolCall),
    /// No message came for [`Translator::idle_timeout`].
    Idle,
    /// The result of [`Action::Validate`].
    Verdicts(Vec<CheckedCall>),
}

/// Translates one turn. Owned by its driver.
#[derive(Debug)]
pub(super) struct Translator {
    tools: Arc<ToolSet>,
    profile: Profile,
    max_retries: u32,
    /// Raw items with another turn's id are echoes of the injected history.
    turn_id: String,
    attempt: ResponseAttempt,
    /// The phase of the current message. A message that may repeat another one starts with its first text.
    phase: MessagePhase,
    tool_loop: ToolLoop,
    call_ids: CallIds,
    usage: UsageAccumulator,
    raw_items: RawItemBuffer,
    /// The client's ids of calls that the client has answered in this turn. Their outputs are in its next request.
    answered: HashSet<String>,
}

/// A turn that is to be translated.
#[derive(Debug)]
pub(super) struct TranslatedTurn {
    /// The turn's id.
    pub(super) id: String,
    pub(super) tools: Arc<ToolSet>,
    pub(super) profile: Profile,
    pub(super) max_retries: u32,
    /// The turn stays open when the client gets its calls.
    pub(super) parks: bool,
    /// The usage of the thread before the turn.
    pub(super) used_before: pb::Usage,
}

impl Translator {
    pub(super) fn new(turn: TranslatedTurn) -> Self {
        let TranslatedTurn { id, tools, profile, max_retries, parks, used_before } = turn;
        Self {
            raw_items: RawItemBuffer::new(!tools.is_empty()),
            tools,
            profile,
            max_retries,
            turn_id: id,
            attempt: ResponseAttempt::default(),
            phase: MessagePhase::default(),
            tool_loop: ToolLoop::new(parks),
            call_ids: CallIds::default(),
            usage: UsageAccumulator::after(used_before),
            answered: HashSet::new(),
        }
    }

    /// Goes on with a parked turn for the request that brings the results of its calls, by the client's ids.
    pub(super) fn resume(
        &mut self,
        results: Vec<(String, ToolCallResult)>,
    ) -> Result<TranslatorOutput, Error> {
        self.attempt.resume();
        self.phase = MessagePhase::default();
        self.usage = UsageAccumulator::after(self.usage.of_thread());
        self.answered.extend(results.iter().map(|(id, _)| id.clone()));
        self.advance(LoopInput::Results(results))
    }

    /// Prepares for the interrupt of a parked turn, which yields a hand-over with the items since the turn was parked.
    pub(super) fn abandon(&mut self) {
        // Never fails in this phase.
        drop(self.advance(LoopInput::Abandoned));
    }

    /// Returns `true` if `results` answer the parked calls, each exactly once.
    pub(super) fn is_answered_by(&self, results: &[(String, ToolCallResult)]) -> bool {
        let mut answered: Vec<&str> = results.iter().map(|(id, _)| &**id).collect();
        let mut parked: Vec<&str> = self.tool_loop.parked_calls().collect();
        answered.sort_unstable();
        parked.sort_unstable();
        answered == parked
    }

    /// Returns the progress of Codex's own calls.
    pub(super) const fn codex_calls(&self) -> &CodexToolCalls {
        self.tool_loop.codex_calls()
    }

    /// Returns the usage of the thread so far.
    pub(super) fn usage_of_thread(&self) -> pb::Usage {
        self.usage.of_thread()
    }

    /// Translates one input. An error ends the turn.
    pub(super) fn push(&mut self, input: Input) -> Result<TranslatorOutput, Error> {
        let output = match input {
            Input::Delta(delta) => self.on_delta(delta),
            Input::Notification(notification) => self.on_notification(notification),
            Input::ToolRequest(request) => self.advance(LoopInput::ToolRequest(request)),
            Input::Idle => self.advance(LoopInput::Idle),
            Input::Verdicts(verdicts) => self.advance(LoopInput::Verdicts(verdicts)),
        };
        let is_final = self.phase == MessagePhase::FinalAnswer;
        output.map(|output| TranslatorOutput { is_final, ..output })
    }

    /// Returns how long the driver waits for a message before it pushes [`Input::Idle`]. `None` means forever.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        self.tool_loop.idle_timeout()
    }

    fn on_delta(&mut self, delta: Delta) -> Result<TranslatorOutput, Error> {
        match delta.kind {
            DeltaKind::Message => Ok(self.attempt.push_text(delta.text)?.into()),
            DeltaKind::ReasoningSummary | DeltaKind::ReasoningText => {
                let (part, text) = delta.into_reasoning();
                Ok(reasoning(self.attempt.push_reasoning(part, text)).into())
            }
        }
    }

    fn on_notification(&mut self, notification: Notification) -> Result<TranslatorOutput, Error> {
        match notification {
            Notification::ReasoningSummaryPartAdded(part) if part.summary_index > 0 => {
                Ok(reasoning(self.attempt.break_reasoning()).into())
            }
            Notification::ItemStarted(item) => self.on_item(*item, false),
            Notification::ItemCompleted(item) => self.on_item(*item, true),
            Notification::PlanUpdated(update) => {
                Ok(Some(TurnEvent::Item(Box::new(items::plan(update)))).into())
            }
            Notification::Warning(warning) => {
                if error_messages::is_transport_fallback(&warning.message) {
                    self.attempt.on_fallback();
                }
                Ok(Some(notice(NoticeKind::Warning, &warning.message)).into())
            }
            Notification::Error(report) => self.on_error(&report),
            Notification::RawResponseItemCompleted(raw) if raw.turn_id == self.turn_id => {
                self.on_raw_item(raw.item)
            }
            Notification::RawResponseCompleted(usage) => {
                self.usage.add(usage.into());
                self.attempt.complete()?;
                self.advance(LoopInput::ResponseCompleted)
            }
            Notification::ThreadUsageUpdated(total) => {
                self.attempt.usage_reported()?;
                self.usage.set_thread_total(total.into());
                Ok(TranslatorOutput::default())
            }
            Notification::TurnCompleted(turn) => self.on_turn_completed(&turn),
            Notification::ReasoningSummaryPartAdded(_)
            | Notification::RawResponseItemCompleted(_)
            | Notification::Unknown => Ok(TranslatorOutput::default()),
        }
    }

    /// Handles a raw item: an item of the model, or the output of one of Codex's own tools.
    fn on_raw_item(&mut self, mut item: RawItem) -> Result<TranslatorOutput, Error> {
        // Codex reports the messages that a client injects into a running turn. They are in the client's next request.
        if item.kind() == "message" && item.role() != Some("assistant") {
            return Ok(TranslatorOutput::default());
        }
        // Read the phase before the transition, because the interrupt aborts only calls whose outputs arrive after it.
        let interrupted = self.tool_loop.is_interrupting();
        let mut output = TranslatorOutput::default();
        let is_call = item.kind().ends_with("_call");
        if is_call {
            self.attempt.on_call();
        }
        if let Some(mut call) = self.client_call(&item) {
            call.id = self.call_ids.assign(&call.codex_id, &self.turn_id);
            item.set_call_id(&call.id);
            output = self.advance(LoopInput::ClientCall(call))?;
        } else if !self.names_client_tool(&item) {
            let begins_action = is_call && self.is_action(&item);
            output = self.advance(LoopInput::CodexItem(&item))?;
            let id = item.call_id().unwrap_or_default();
            if is_call {
                self.call_ids.reserve(id);
            } else if let Some(client_id) = self.call_ids.resolve_output(id) {
                output = self.advance(LoopInput::ClientOutput(id))?;
                if self.answered.remove(&client_id) {
                    return Ok(output);
                }
                self.attempt.on_client_output();
                item.set_call_id(&client_id);
            }
            output.begins_action = begins_action;
        }
        if interrupted {
            self.tool_loop.rewrite_aborted(&mut item);
        }
        self.raw_items.push(item);
        Ok(output)
    }

    /// Returns the call of a client tool that a raw item makes. Codex itself rejects calls whose arguments are not JSON.
    fn client_call(&self, item: &RawItem) -> Option<Call> {
        let (codex_id, alias, arguments) = (item.call_id()?, item.name()?, item.arguments()?);
        let is_client_call = item.kind() == "function_call"
            && self.names_client_tool(item)
            && json::parse(arguments.as_bytes()).is_some();
        is_client_call.then(|| Call {
            id: codex_id.to_owned(),
            codex_id: codex_id.to_owned(),
            alias: alias.to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    /// Returns `true` if a raw item names a client tool. A tool of an MCP server may have the same name in its namespace.
    fn names_client_tool(&self, item: &RawItem) -> bool {
        matches!(item.namespace().unwrap_or_default(), "" | "functions")
            && item.name().is_some_and(|name| self.tools.offers(name))
    }

    /// Returns `true` if Codex acts upon this call. The item arrives before Codex executes the call, and some tools report
    /// nothing else. The chat profile has no tools of Codex.
    fn is_action(&self, call: &RawItem) -> bool {
        self.profile == Profile::Agent && call.name() != Some(PLAN_TOOL)
    }

    fn on_item(&mut self, item: ThreadItem, completed: bool) -> Result<TranslatorOutput, Error> {
        match &item.kind {
            ThreadItemKind::AgentMessage { text, .. } if completed => {
                Ok(self.attempt.complete_message(text)?.into())
            }
            ThreadItemKind::AgentMessage { phase, .. } => {
                self.phase = *phase;
                Ok(TranslatorOutput { starts_message: self.attempt.start_message(), ..Default::default() })
            }
            ThreadItemKind::Reasoning => {
                self.attempt.on_reasoning_item(completed);
                Ok(TranslatorOutput::default())
            }
            ThreadItemKind::ContextCompaction => self.on_compaction(completed),
            // Deltas report these items, or the client sent them.
            ThreadItemKind::UserMessage
            | ThreadItemKind::DynamicToolCall
            | ThreadItemKind::HookPrompt
            | ThreadItemKind::FunctionCallOutput => Ok(TranslatorOutput::default()),
            ThreadItemKind::CommandExecution { .. }
            | ThreadItemKind::FileChange { .. }
            | ThreadItemKind::McpToolCall(_)
            | ThreadItemKind::WebSearch { .. }
            | ThreadItemKind::Plan { .. }
            | ThreadItemKind::Unknown => {
                self.attempt.on_action();
                let output = self.advance(LoopInput::CodexStatus { id: &item.id, finished: completed })?;
                let event = Some(TurnEvent::Item(Box::new(items::convert(item, completed))));
                Ok(TranslatorOutput { event, ..output })
            }
        }
    }

    /// Handles a compaction, in which Codex replaces a history that is too long by a summary. Fails with the chat
    /// profile, because the summary would alter the request.
    fn on_compaction(&self, completed: bool) -> Result<TranslatorOutput, Error> {
        match self.profile {
            Profile::Chat => Err(Error::ContextLengthExceeded {
                message: "the conversation is longer than the model's context window".to_owned(),
            }),
            Profile::Agent if completed => Ok(TranslatorOutput::default()),
            Profile::Agent => {
                let message = "the conversation is longer than the model's context window; Codex continues with a summary";
                Ok(Some(notice(NoticeKind::Warning, message)).into())
            }
        }
    }

    fn on_error(&mut self, report: &ErrorReport) -> Result<TranslatorOutput, Error> {
        let error = &report.error;
        if !report.will_retry {
            // `turn/completed` repeats this error.
            return Ok(TranslatorOutput::default());
        }
        let reason = errors::reason(error);
        let may_retry = self.attempt.try_retry(&error.message, reason, self.max_retries)
            && !error_messages::is_rate_limit_without_delay(reason);
        let output = self.advance(LoopInput::ResponseFailed)?;
        match errors::classify(error) {
            TurnEnd::Truncated(reason) => Ok(self.finish(reason)),
            TurnEnd::Error(error) if !may_retry => Err(retries_exhausted(error)),
            TurnEnd::Error(_) => {
                let message = format!("{} {}", error.message, error.additional_details);
                let event = Some(notice(NoticeKind::Retry, message.trim()));
                Ok(TranslatorOutput { event, ..output })
            }
        }
    }

    fn on_turn_completed(&mut self, turn: &Turn) -> Result<TranslatorOutput, Error> {
        match turn.status {
            TurnStatus::Completed | TurnStatus::Interrupted => {
                let output = self.advance(LoopInput::TurnEnded)?;
                if matches!(output.action, Action::HandOver(_)) {
                    return Ok(output);
                }
                if turn.status == TurnStatus::Interrupted {
                    return Err(interrupted_error());
                }
                // A turn that called a client tool ends with its hand-over.
                if let Some(message) = self.tools.too_few_calls(0) {
                    return Err(Error::TurnFailed { message });
                }
                self.attempt.check_repeated()?;
                Ok(self.finish(FinishReason::Stop))
            }
            TurnStatus::Failed => match errors::classify(&turn.error) {
                TurnEnd::Truncated(reason) => Ok(self.finish(reason)),
                TurnEnd::Error(error) => Err(error),
            },
            TurnStatus::Unknown => Err(interrupted_error()),
        }
    }

    /// Makes a transition of the tool loop.
    fn advance(&mut self, input: LoopInput<'_>) -> Result<TranslatorOutput, Error> {
        let action = match self.tool_loop.push(input, &self.tools)? {
            LoopOutput::Wait => Action::Continue,
            LoopOutput::Respond(results) => Action::Respond(results),
            LoopOutput::Validate(calls) => Action::Validate(calls),
            LoopOutput::Interrupt => Action::Interrupt,
            LoopOutput::HandOver(calls) => {
                let items = self.raw_items.take();
                Action::HandOver(self.hand_over(&calls, items))
            }
            LoopOutput::Park(calls) => {
                let codex_calls = self.tool_loop.codex_calls();
                let items = self.raw_items.take_finished(|id| codex_calls.is_open(id));
                Action::Park(self.hand_over(&calls, items))
            }
        };
        Ok(action.into())
    }

    fn hand_over(&self, calls: &[Call], mut items: Vec<RawItem>) -> Box<HandOver> {
        let (kept, dropped) = calls.split_at(self.tools.keep(calls.len()));
        items.retain(|item| !dropped.iter().any(|call| item.call_id() == Some(&*call.id)));
        let calls = kept.iter().map(|call| pb::ToolCall {
            id: call.id.clone(),
            name: self.tools.original(&call.alias).into_owned(),
            arguments: call.arguments.clone(),
        });
        Box::new(HandOver { calls: calls.collect(), items, usage: self.usage.total() })
    }

    fn finish(&self, reason: FinishReason) -> TranslatorOutput {
        let usage = self.usage.total().map(Box::new);
        let event = Some(TurnEvent::Finished { reason, usage });
        TranslatorOutput { event, ..Action::Complete.into() }
    }
}

fn reasoning(text: Option<String>) -> Option<TurnEvent> {
    text.map(|text| TurnEvent::Reasoning(text.into()))
}

fn interrupted_error() -> Error {
    Error::TurnFailed { message: "Codex interrupted the turn".to_owned() }
}

#[cfg(test)]
mod tests;
