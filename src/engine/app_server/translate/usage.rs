//! Tokens of one turn, from what is told of its model calls and of its thread.

use crate::{engine::app_server::rpc::protocol::TokenUsage, pb};

/// The sum over the model calls of this turn; the thread's total where the single ones are not told.
#[derive(Debug, Default)]
pub(crate) struct UsageAccumulator {
    sum: Option<pb::Usage>,
    pub(crate) total: Option<pb::Usage>,
}

impl UsageAccumulator {
    pub(crate) fn add(&mut self, told: pb::Usage) {
        let sum = self.sum.unwrap_or_default();
        self.sum = Some(pb::Usage {
            input_tokens: sum.input_tokens + told.input_tokens,
            cached_input_tokens: sum.cached_input_tokens + told.cached_input_tokens,
            output_tokens: sum.output_tokens + told.output_tokens,
            reasoning_output_tokens: sum.reasoning_output_tokens + told.reasoning_output_tokens,
        });
    }

    /// Whichever knows of more: the total comes late, and an incomplete response is in the total only.
    pub(crate) fn best(&self) -> Option<pb::Usage> {
        let tokens = |usage: &pb::Usage| usage.input_tokens + usage.output_tokens;
        [self.sum, self.total].into_iter().flatten().max_by_key(tokens)
    }
}

/// Usage as the app-server tells it.
pub(crate) const fn usage(usage: TokenUsage) -> pb::Usage {
    let TokenUsage { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens } = usage;
    pb::Usage { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens }
}
