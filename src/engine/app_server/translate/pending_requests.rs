//! Codex's requests for the results of client calls. Pure.
//!
//! A request is answered if its call is rejected and the model must correct it, or with the result of the client's next
//! request, which goes on with the turn.

use std::collections::{HashMap, HashSet};

use crate::engine::app_server::{
    rpc::protocol::{RequestId, ToolCall, ToolCallResult},
    tools::call::{Call, InvalidArguments},
};

/// The unanswered requests of one turn.
#[derive(Debug, Default)]
pub(crate) struct PendingToolRequests {
    /// Request ids by Codex's call id, which several calls may share.
    open: HashMap<String, Vec<RequestId>>,
    /// Codex's ids of calls that were rejected before their response was complete.
    rejected: HashSet<String>,
}

impl PendingToolRequests {
    /// Adds a request.
    pub(crate) fn insert(&mut self, call: ToolCall) {
        self.open.entry(call.call_id).or_default().push(call.request);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns `true` if Codex has requested the result of a call.
    pub(crate) fn contains(&self, call: &Call) -> bool {
        self.open.contains_key(&call.codex_id) || self.rejected.contains(&call.codex_id)
    }

    /// Takes the request for the result of a call, if Codex has sent it.
    pub(crate) fn take(&mut self, call: &Call) -> Option<RequestId> {
        let requests = self.open.get_mut(&call.codex_id)?;
        let request = requests.remove(0);
        if requests.is_empty() {
            self.open.remove(&call.codex_id);
        }
        Some(request)
    }

    /// Rejects all calls, because their response seems to have broken off. Returns the results.
    pub(crate) fn reject_all(&mut self) -> Vec<(RequestId, ToolCallResult)> {
        let text = "Not run: the response broke off. Repeat the call if it is still needed.";
        let result = ToolCallResult::failure(text.to_owned());
        let mut results = Vec::new();
        for (codex_id, requests) in self.open.drain() {
            self.rejected.insert(codex_id);
            results.extend(requests.into_iter().map(|request| (request, result.clone())));
        }
        results
    }

    /// Removes the ids of rejected calls, because the model makes other calls in their place.
    pub(crate) fn forget_rejected(&mut self) {
        self.rejected.clear();
    }

    /// Rejects a call because of a mistake in it, or in another call of the response. Returns the result for the model,
    /// or `None` if Codex has not requested one.
    pub(crate) fn reject(
        &mut self,
        call: &Call,
        verdict: Result<(), InvalidArguments>,
    ) -> Option<(RequestId, ToolCallResult)> {
        let request = self.take(call)?;
        let text = match verdict {
            Ok(()) => "Not run, because another call of yours was invalid. Repeat this call.".to_owned(),
            Err(mistake) => format!("Not run: {mistake}. Correct the call."),
        };
        Some((request, ToolCallResult::failure(text)))
    }
}
