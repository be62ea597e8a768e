//! The client's calls in a response: checked, sent back to the model, or handed over.

use serde_json::Value;

use super::Translator;
use super::{
    output::{Action, TranslatorOutput},
    usage::usage,
};
use crate::engine::app_server::tools::call::{Call, CheckedCall};
use crate::{
    engine::{
        TurnEvent,
        app_server::{
            history::turn_cache::call_id,
            rpc::{
                json,
                protocol::{RawItem, TokenUsage},
            },
        },
    },
    error::Error,
    pb::{self, FinishReason},
};

/// How often calls that do not match a strict schema go back to the model.
const CORRECTIONS: u32 = 2;

impl Translator {
    pub(crate) fn response_completed(&mut self, told: TokenUsage) -> Result<TranslatorOutput, Error> {
        self.usage.add(usage(told));
        self.attempt.ends();
        if self.calls.is_empty() {
            return Ok(TranslatorOutput::default());
        }
        let calls = std::mem::take(&mut self.calls);
        if calls.iter().any(|call| self.tools.is_strict(&self.tools.original(&call.alias))) {
            return Ok(Action::Check(calls).into());
        }
        Ok(self.accepted(calls))
    }

    /// Goes on with the calls of a response, each with what was found of it.
    pub(in crate::engine::app_server) fn checked(
        &mut self,
        verdicts: Vec<CheckedCall>,
    ) -> Result<TranslatorOutput, Error> {
        let mut step = self.judged(verdicts)?;
        self.settle(&mut step);
        Ok(step)
    }

    fn judged(&mut self, verdicts: Vec<CheckedCall>) -> Result<TranslatorOutput, Error> {
        if let Some(mistake) = verdicts.iter().find_map(|(_, verdict)| verdict.as_ref().err()) {
            if self.corrections == CORRECTIONS {
                let message = format!("the model keeps breaking the schema of a tool: {mistake}");
                return Err(Error::TurnFailed { message });
            }
            self.corrections += 1;
            self.correcting = Some(verdicts);
            return Ok(TranslatorOutput { events: Vec::new(), next: self.corrections_due(false) });
        }
        Ok(self.accepted(verdicts.into_iter().map(|(call, _)| call).collect()))
    }

    fn accepted(&mut self, calls: Vec<Call>) -> TranslatorOutput {
        if self.own.are_answered() {
            return self.hand_over(&calls);
        }
        // Interrupted now, they would be stopped half way, and the model would make them again.
        self.settling = Some(calls);
        TranslatorOutput::default()
    }

    pub(crate) fn hand_over(&mut self, calls: &[Call]) -> TranslatorOutput {
        let kept = self.tools.keep(calls.len());
        self.calls_made += kept;
        let mut items = self.produced.take();
        let dropped = |item: &Value| calls[kept..].iter().any(|call| call_id(item) == Some(&*call.id));
        items.retain(|item| !dropped(item));
        let calls: Vec<pb::ToolCall> = calls[..kept]
            .iter()
            .map(|call| pb::ToolCall {
                id: call.id.clone(),
                name: self.tools.original(&call.alias).into_owned(),
                arguments: call.arguments.clone(),
            })
            .collect();
        let mut events: Vec<TurnEvent> =
            calls.iter().cloned().map(|call| TurnEvent::ToolCall(Box::new(call))).collect();
        events.push(TurnEvent::Finished {
            reason: FinishReason::ToolCalls,
            usage: self.usage.best().map(Box::new),
        });
        TranslatorOutput { events, next: Action::HandOver { calls, items } }
    }

    /// A raw item as a call of a client's tool. Codex itself sends those back that are no JSON.
    pub(crate) fn call(&self, item: &RawItem) -> Option<Call> {
        let (call_id, alias, arguments) = (item.call_id()?, item.name()?, item.arguments()?);
        let ours = item.kind() == "function_call" && self.names_offered(item);
        let whole = json::parse(arguments.as_bytes()).is_some();
        (ours && whole).then(|| Call {
            id: call_id.to_owned(),
            codex_id: call_id.to_owned(),
            alias: alias.to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    /// Whether a raw item names a tool of the client. A tool of an MCP server may have the same name, in its namespace.
    pub(crate) fn names_offered(&self, item: &RawItem) -> bool {
        matches!(item.namespace().unwrap_or_default(), "" | "functions")
            && item.name().is_some_and(|name| self.tools.offers(name))
    }

    /// Answers for the model, once Codex has asked for all of them, or `now`.
    pub(crate) fn corrections_due(&mut self, now: bool) -> Action {
        let due =
            |calls: &mut Vec<CheckedCall>| now || calls.iter().all(|(call, _)| self.requests.have(call));
        let Some(calls) = self.correcting.take_if(due) else { return Action::Read };
        Action::Answer(
            calls.into_iter().filter_map(|(call, verdict)| self.requests.send_back(&call, verdict)).collect(),
        )
    }
}
