//! Codex's requests for the results of the client's calls. They are answered only where a call goes back to the model: the
//! client's answers come with its next request. Pure.

use std::collections::{HashMap, HashSet};

use crate::engine::app_server::rpc::protocol::{RequestId, ToolCall, ToolCallResult};
use crate::engine::app_server::tools::call::Call;

/// The requests of a turn that wait for an answer.
#[derive(Debug, Default)]
pub(crate) struct PendingToolRequests {
    /// By Codex's ids of the calls, which several may have.
    open: HashMap<String, Vec<RequestId>>,
    /// Calls that Codex has an answer for, though the response was not complete.
    given_up: HashSet<String>,
}

impl PendingToolRequests {
    pub(crate) fn put(&mut self, call: ToolCall) {
        self.open.entry(call.call_id).or_default().push(call.request);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the result of a call was asked for.
    pub(crate) fn have(&self, call: &Call) -> bool {
        self.open.contains_key(&call.codex_id) || self.given_up.contains(&call.codex_id)
    }

    /// Answers when nothing was said for long while Codex waits for results. If the response broke off, Codex does not
    /// say so, and does nothing about it, until it has them. If it is only slow, its end still hands its calls over.
    pub(crate) fn give_up(&mut self) -> Vec<(RequestId, ToolCallResult)> {
        let text = "Not run: the response broke off. Repeat the call if it is still needed.";
        let answer = ToolCallResult::failure(text.to_owned());
        let mut answers = Vec::new();
        for (call, requests) in self.open.drain() {
            self.given_up.insert(call);
            answers.extend(requests.into_iter().map(|request| (request, answer.clone())));
        }
        answers
    }

    /// Sends a call back to the model, with what is wrong with it or with one beside it.
    pub(crate) fn send_back(
        &mut self,
        call: &Call,
        verdict: Result<(), String>,
    ) -> Option<(RequestId, ToolCallResult)> {
        let requests = self.open.get_mut(&call.codex_id)?;
        let request = requests.remove(0);
        if requests.is_empty() {
            self.open.remove(&call.codex_id);
        }
        let text = match verdict {
            Ok(()) => "Not run, because another call of yours was invalid. Repeat this call.".to_owned(),
            Err(mistake) => format!("Not run: {mistake}. Correct the call."),
        };
        Some((request, ToolCallResult::failure(text)))
    }
}
