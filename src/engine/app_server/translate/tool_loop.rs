//! The tool loop of a turn. Collects the client's calls in a response, then hands them over or has them corrected. A loop
//! that parks leaves the turn open in Codex, until the client's next request brings the results. Pure.
//!
//! Codex reports a call three times: as a raw item, as an `item/tool/call` request, and through the end of the response
//! that contains the call. The request may arrive before or after that end. [`ToolLoop`] joins the three.

use std::{mem, time::Duration};

use super::{codex_calls::CodexToolCalls, pending_requests::PendingToolRequests};
use crate::{
    engine::app_server::{
        rpc::protocol::{RawItem, RequestId, ToolCall, ToolCallResult},
        tools::{
            ToolSet,
            call::{Call, CheckedCall},
        },
    },
    error::Error,
};

/// Maximum number of responses with invalid calls that go back to the model.
const MAX_CORRECTIONS: u32 = 2;

/// Maximum silence while Codex waits for the results of calls. After this time the loop answers the requests.
pub(super) const REQUEST_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum silence while one of Codex's own calls runs.
pub(super) const RUNNING_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum silence while none of Codex's own calls runs. A call may start late, or may never start because it waits for
/// the results of the client's calls. The protocol does not distinguish the two.
pub(super) const NOT_STARTED_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum silence of an interrupted turn, which still reports the outputs of its calls.
pub(super) const INTERRUPT_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The tool loop of one turn.
#[derive(Debug, Default)]
pub(super) struct ToolLoop {
    /// The turn stays open when the client gets its calls.
    parks: bool,
    phase: Phase,
    requests: PendingToolRequests,
    codex_calls: CodexToolCalls,
    corrections: u32,
}

/// The progress of the client's calls, each phase with the calls that it concerns.
#[derive(Debug)]
enum Phase {
    /// A response is streaming. Holds the calls received so far.
    Streaming(Vec<Call>),
    /// The response is complete. The driver validates its calls and pushes no other input until it has the verdicts.
    Validating,
    /// A call is invalid. The loop rejects all calls once Codex has requested their results.
    Correcting(Vec<CheckedCall>),
    /// The calls are valid. The client gets the calls once Codex's own calls of the same response have finished. An earlier
    /// interrupt would abort Codex's calls, and the model would repeat them.
    AwaitingCodexCalls(Vec<Call>),
    /// The turn is interrupted, so that Codex reports the outputs of its own calls. Afterwards the client gets these calls.
    Interrupting(Vec<Call>),
    /// The client has the calls, and Codex waits for their results. Codex's own calls go on.
    Parked(Vec<Call>),
    /// The client has sent the results. Each goes to Codex as soon as Codex requests it.
    Answering(Vec<(Call, ToolCallResult)>),
    /// The calls were handed over, or the loop failed.
    Ended,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Streaming(Vec::new())
    }
}

/// An input of the loop.
#[derive(Debug)]
pub(super) enum LoopInput<'a> {
    /// The model called a client tool.
    ClientCall(Call),
    /// A raw item that does not name a client tool, such as one of Codex's own calls or an output.
    CodexItem(&'a RawItem),
    /// The output of a client call with this id of Codex. Codex sends outputs after the end of a response.
    ClientOutput(&'a str),
    /// One of Codex's own calls started or finished.
    CodexStatus {
        /// The id of the call, or of an action that is not a call.
        id: &'a str,
        /// Whether the call finished.
        finished: bool,
    },
    /// The response is complete.
    ResponseCompleted,
    /// The response broke off, and Codex requests it again.
    ResponseFailed,
    /// Codex requests the result of a client call.
    ToolRequest(ToolCall),
    /// No input arrived for [`ToolLoop::idle_timeout`].
    Idle,
    /// The result of [`LoopOutput::Validate`].
    Verdicts(Vec<CheckedCall>),
    /// The results of all parked calls, by the client's ids.
    Results(Vec<(String, ToolCallResult)>),
    /// The parked turn is interrupted, because nobody answers its calls.
    Abandoned,
    /// The turn completed or was interrupted.
    TurnEnded,
}

/// The next action of the driver.
#[derive(Debug)]
pub(super) enum LoopOutput {
    /// Waits for the next input.
    Wait,
    /// Sends these results to Codex.
    Respond(Vec<(RequestId, ToolCallResult)>),
    /// Validates these calls and pushes the verdicts.
    Validate(Vec<Call>),
    /// Interrupts the turn.
    Interrupt,
    /// Gives these calls to the client and ends the turn.
    HandOver(Vec<Call>),
    /// Gives these calls to the client and leaves the turn open.
    Park(Vec<Call>),
}

type Transition = (Phase, LoopOutput);

impl ToolLoop {
    /// Creates a loop that parks its turn if `parks` is set.
    pub(super) fn new(parks: bool) -> Self {
        Self { parks, ..Self::default() }
    }

    /// Makes one transition. After an error the loop has ended.
    pub(super) fn push(&mut self, input: LoopInput<'_>, tools: &ToolSet) -> Result<LoopOutput, Error> {
        let phase = mem::replace(&mut self.phase, Phase::Ended);
        let (phase, output) = match input {
            LoopInput::ClientCall(call) => (on_client_call(phase, call), LoopOutput::Wait),
            LoopInput::CodexItem(item) => {
                self.codex_calls.on_item(item);
                self.maybe_interrupt(phase)
            }
            LoopInput::ClientOutput(codex_id) => self.on_client_output(phase, codex_id),
            LoopInput::CodexStatus { id, finished } => {
                self.codex_calls.on_status(id, finished);
                self.maybe_interrupt(phase)
            }
            LoopInput::ResponseCompleted => self.on_response_completed(phase, tools),
            LoopInput::ResponseFailed => self.on_response_failed(phase),
            LoopInput::ToolRequest(request) => {
                self.requests.insert(request);
                self.on_request(phase)
            }
            LoopInput::Idle => self.on_idle(phase),
            LoopInput::Verdicts(verdicts) => self.apply_verdicts(phase, verdicts, tools)?,
            LoopInput::Results(results) => self.on_results(phase, results),
            LoopInput::Abandoned => on_abandoned(phase),
            LoopInput::TurnEnded => on_turn_ended(phase),
        };
        self.phase = phase;
        Ok(output)
    }

    /// Returns how long the driver waits for an input before it pushes [`LoopInput::Idle`]. `None` means forever.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Streaming(_) | Phase::Validating => {
                (!self.requests.is_empty()).then_some(REQUEST_IDLE_TIMEOUT)
            }
            Phase::Correcting(_) => Some(REQUEST_IDLE_TIMEOUT),
            Phase::AwaitingCodexCalls(_) if self.codex_calls.any_running() => Some(RUNNING_IDLE_TIMEOUT),
            Phase::AwaitingCodexCalls(_) => Some(NOT_STARTED_IDLE_TIMEOUT),
            Phase::Interrupting(_) => Some(INTERRUPT_IDLE_TIMEOUT),
            Phase::Answering(_) => Some(RUNNING_IDLE_TIMEOUT),
            Phase::Parked(_) | Phase::Ended => None,
        }
    }

    /// Returns `true` if the loop has interrupted the turn and waits for its end.
    pub(super) const fn is_interrupting(&self) -> bool {
        matches!(self.phase, Phase::Interrupting(_))
    }

    /// Returns the client's ids of the parked calls.
    pub(super) fn parked_calls(&self) -> impl Iterator<Item = &str> {
        let calls: &[Call] = match &self.phase {
            Phase::Parked(calls) => calls,
            Phase::Streaming(_)
            | Phase::Validating
            | Phase::Correcting(_)
            | Phase::AwaitingCodexCalls(_)
            | Phase::Interrupting(_)
            | Phase::Answering(_)
            | Phase::Ended => &[],
        };
        calls.iter().map(|call| &*call.id)
    }

    /// Returns the progress of Codex's own calls.
    pub(super) const fn codex_calls(&self) -> &CodexToolCalls {
        &self.codex_calls
    }

    /// Rewrites the output of a call that an interrupt aborted. Changes no other item.
    pub(super) fn rewrite_aborted(&self, item: &mut RawItem) {
        self.codex_calls.rewrite_aborted(item);
    }

    fn on_response_completed(&self, phase: Phase, tools: &ToolSet) -> Transition {
        match phase {
            Phase::Streaming(calls) if calls.is_empty() => (Phase::Streaming(calls), LoopOutput::Wait),
            Phase::Streaming(calls)
                if calls.iter().any(|call| tools.is_strict(&tools.original(&call.alias))) =>
            {
                (Phase::Validating, LoopOutput::Validate(calls))
            }
            Phase::Streaming(calls) => self.accept_calls(calls, tools),
            Phase::Validating
            | Phase::Correcting(_)
            | Phase::AwaitingCodexCalls(_)
            | Phase::Interrupting(_)
            | Phase::Parked(_)
            | Phase::Answering(_)
            | Phase::Ended => (phase, LoopOutput::Wait),
        }
    }

    /// Removes the calls of the response, because the model repeats them.
    fn on_response_failed(&mut self, phase: Phase) -> Transition {
        self.codex_calls.clear();
        self.requests.forget_rejected();
        match phase {
            Phase::Streaming(_) => (Phase::default(), LoopOutput::Wait),
            Phase::AwaitingCodexCalls(_) => self.maybe_interrupt(phase),
            Phase::Validating
            | Phase::Correcting(_)
            | Phase::Interrupting(_)
            | Phase::Parked(_)
            | Phase::Answering(_)
            | Phase::Ended => (phase, LoopOutput::Wait),
        }
    }

    /// Removes the calls of a response that has ended without its completion, which Codex does not always report.
    fn on_client_output(&mut self, phase: Phase, codex_id: &str) -> Transition {
        match phase {
            Phase::Streaming(calls) if calls.iter().any(|call| call.codex_id == codex_id) => {
                self.on_response_failed(Phase::Streaming(calls))
            }
            Phase::Streaming(_)
            | Phase::Validating
            | Phase::Correcting(_)
            | Phase::AwaitingCodexCalls(_)
            | Phase::Interrupting(_)
            | Phase::Parked(_)
            | Phase::Answering(_)
            | Phase::Ended => (phase, LoopOutput::Wait),
        }
    }

    fn on_idle(&mut self, phase: Phase) -> Transition {
        match phase {
            // The response broke off, which Codex does not report before Codex has the results. If the response is only
            // slow, its completion still hands the calls over.
            Phase::Streaming(_) | Phase::Validating => {
                (phase, LoopOutput::Respond(self.requests.reject_all()))
            }
            // Codex rejected the other calls itself, so no further requests arrive.
            Phase::Correcting(calls) => self.reject(calls),
            Phase::AwaitingCodexCalls(calls) => (Phase::Interrupting(calls), LoopOutput::Interrupt),
            // The worker ignores the interrupt. The client still gets the calls.
            Phase::Interrupting(calls) => (Phase::Ended, LoopOutput::HandOver(calls)),
            // Codex requests no result, so the turn cannot go on.
            Phase::Answering(_) if !self.codex_calls.any_running() => (Phase::Ended, LoopOutput::Interrupt),
            Phase::Parked(_) | Phase::Answering(_) | Phase::Ended => (phase, LoopOutput::Wait),
        }
    }

    fn apply_verdicts(
        &mut self,
        phase: Phase,
        verdicts: Vec<CheckedCall>,
        tools: &ToolSet,
    ) -> Result<Transition, Error> {
        match phase {
            Phase::Validating => {}
            Phase::Streaming(_)
            | Phase::Correcting(_)
            | Phase::AwaitingCodexCalls(_)
            | Phase::Interrupting(_)
            | Phase::Parked(_)
            | Phase::Answering(_)
            | Phase::Ended => return Ok((phase, LoopOutput::Wait)),
        }
        let Some(mistake) = verdicts.iter().find_map(|(_, verdict)| verdict.as_ref().err()) else {
            return Ok(self.accept_calls(verdicts.into_iter().map(|(call, _)| call).collect(), tools));
        };
        if self.corrections == MAX_CORRECTIONS {
            let message = format!("the model keeps breaking the schema of a tool: {mistake}");
            return Err(Error::TurnFailed { message });
        }
        self.corrections += 1;
        Ok(self.take_corrections(Phase::Correcting(verdicts)))
    }

    fn accept_calls(&self, calls: Vec<Call>, tools: &ToolSet) -> Transition {
        // A call that the client does not get has no result, and the next request does not contain it. An upstream may refuse
        // ids that the client could not use either.
        let has_own_ids = calls.iter().all(|call| call.id == call.codex_id);
        if self.parks && has_own_ids && tools.keep(calls.len()) == calls.len() {
            return (Phase::Parked(calls.clone()), LoopOutput::Park(calls));
        }
        if self.codex_calls.all_have_output() {
            return (Phase::Ended, LoopOutput::HandOver(calls));
        }
        self.maybe_interrupt(Phase::AwaitingCodexCalls(calls))
    }

    /// Interrupts the turn if the client's calls are waiting for Codex's own calls and all of Codex's calls have finished.
    fn maybe_interrupt(&self, phase: Phase) -> Transition {
        match phase {
            Phase::AwaitingCodexCalls(calls) if self.codex_calls.all_finished() => {
                (Phase::Interrupting(calls), LoopOutput::Interrupt)
            }
            Phase::Streaming(_)
            | Phase::Validating
            | Phase::Correcting(_)
            | Phase::AwaitingCodexCalls(_)
            | Phase::Interrupting(_)
            | Phase::Parked(_)
            | Phase::Answering(_)
            | Phase::Ended => (phase, LoopOutput::Wait),
        }
    }

    /// Handles a request for a result.
    fn on_request(&mut self, phase: Phase) -> Transition {
        match phase {
            Phase::Answering(results) => self.answer(results),
            Phase::Streaming(_)
            | Phase::Validating
            | Phase::Correcting(_)
            | Phase::AwaitingCodexCalls(_)
            | Phase::Interrupting(_)
            | Phase::Parked(_)
            | Phase::Ended => self.take_corrections(phase),
        }
    }

    fn on_results(&mut self, phase: Phase, mut results: Vec<(String, ToolCallResult)>) -> Transition {
        match phase {
            Phase::Parked(calls) => {
                let answers = calls.into_iter().filter_map(|call| {
                    let at = results.iter().position(|(id, _)| *id == call.id)?;
                    Some((call, results.remove(at).1))
                });
                let answers = answers.collect();
                self.answer(answers)
            }
            Phase::Streaming(_)
            | Phase::Validating
            | Phase::Correcting(_)
            | Phase::AwaitingCodexCalls(_)
            | Phase::Interrupting(_)
            | Phase::Answering(_)
            | Phase::Ended => (phase, LoopOutput::Wait),
        }
    }

    /// Sends the results that Codex has requested. Afterwards the next response streams.
    fn answer(&mut self, results: Vec<(Call, ToolCallResult)>) -> Transition {
        let (mut requested, mut open) = (Vec::new(), Vec::new());
        for (call, result) in results {
            match self.requests.take(&call) {
                Some(request) => requested.push((request, result)),
                None => open.push((call, result)),
            }
        }
        let phase = if open.is_empty() { Phase::default() } else { Phase::Answering(open) };
        (phase, if requested.is_empty() { LoopOutput::Wait } else { LoopOutput::Respond(requested) })
    }

    /// Rejects the calls if the loop is correcting them and Codex has requested all of their results.
    fn take_corrections(&mut self, phase: Phase) -> Transition {
        match phase {
            Phase::Correcting(calls) if calls.iter().all(|(call, _)| self.requests.contains(call)) => {
                self.reject(calls)
            }
            Phase::Streaming(_)
            | Phase::Validating
            | Phase::Correcting(_)
            | Phase::AwaitingCodexCalls(_)
            | Phase::Interrupting(_)
            | Phase::Parked(_)
            | Phase::Answering(_)
            | Phase::Ended => (phase, LoopOutput::Wait),
        }
    }

    fn reject(&mut self, calls: Vec<CheckedCall>) -> Transition {
        let results = calls.into_iter().filter_map(|(call, verdict)| self.requests.reject(&call, verdict));
        (Phase::default(), LoopOutput::Respond(results.collect()))
    }
}

fn on_client_call(phase: Phase, call: Call) -> Phase {
    match phase {
        Phase::Streaming(mut calls) => {
            calls.push(call);
            Phase::Streaming(calls)
        }
        // The next response is streaming, so Codex has rejected all calls of the former response itself.
        Phase::Correcting(_) => Phase::Streaming(vec![call]),
        // The turn ends with the calls of the former response.
        Phase::AwaitingCodexCalls(_)
        | Phase::Interrupting(_)
        | Phase::Validating
        | Phase::Parked(_)
        | Phase::Answering(_)
        | Phase::Ended => phase,
    }
}

/// Lets Codex report the outputs of its own calls after the interrupt of a parked turn.
fn on_abandoned(phase: Phase) -> Transition {
    match phase {
        Phase::Parked(calls) => (Phase::Interrupting(calls), LoopOutput::Wait),
        Phase::Streaming(_)
        | Phase::Validating
        | Phase::Correcting(_)
        | Phase::AwaitingCodexCalls(_)
        | Phase::Interrupting(_)
        | Phase::Answering(_)
        | Phase::Ended => (phase, LoopOutput::Wait),
    }
}

fn on_turn_ended(phase: Phase) -> Transition {
    match phase {
        Phase::AwaitingCodexCalls(calls) | Phase::Interrupting(calls) => {
            (Phase::Ended, LoopOutput::HandOver(calls))
        }
        Phase::Streaming(_)
        | Phase::Validating
        | Phase::Correcting(_)
        | Phase::Parked(_)
        | Phase::Answering(_)
        | Phase::Ended => (Phase::Ended, LoopOutput::Wait),
    }
}

#[cfg(test)]
mod tests;
