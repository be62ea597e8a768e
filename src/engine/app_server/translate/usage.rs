//! The token usage of one turn.

use crate::{engine::app_server::rpc::protocol::TokenUsage, pb};

/// The usage of the model calls of one turn.
#[derive(Debug, Default)]
pub(crate) struct UsageAccumulator {
    sum: Option<pb::Usage>,
    thread_total: Option<pb::Usage>,
}

impl UsageAccumulator {
    /// Adds the usage of one model call.
    pub(crate) fn add(&mut self, usage: pb::Usage) {
        let sum = self.sum.unwrap_or_default();
        self.sum = Some(pb::Usage {
            input_tokens: sum.input_tokens + usage.input_tokens,
            cached_input_tokens: sum.cached_input_tokens + usage.cached_input_tokens,
            output_tokens: sum.output_tokens + usage.output_tokens,
            reasoning_output_tokens: sum.reasoning_output_tokens + usage.reasoning_output_tokens,
            estimated: false,
        });
    }

    /// Replaces the usage of the whole thread. A thread has only this turn.
    pub(crate) const fn set_thread_total(&mut self, usage: pb::Usage) {
        self.thread_total = Some(usage);
    }

    /// Returns the larger of both counts. Only the thread's total includes an incomplete response. That total arrives late.
    pub(crate) fn total(&self) -> Option<pb::Usage> {
        let tokens = |usage: &pb::Usage| usage.input_tokens + usage.output_tokens;
        [self.sum, self.thread_total].into_iter().flatten().max_by_key(tokens)
    }
}

impl From<TokenUsage> for pb::Usage {
    fn from(usage: TokenUsage) -> Self {
        let TokenUsage { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens } = usage;
        Self { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens, estimated: false }
    }
}
