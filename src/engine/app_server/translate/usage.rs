//! The token usage of one turn.

use crate::{engine::app_server::rpc::protocol::TokenUsage, pb};

/// The usage of the model calls of one turn.
#[derive(Debug, Default)]
pub(crate) struct UsageAccumulator {
    /// The usage of the thread before the turn.
    before: pb::Usage,
    sum: Option<pb::Usage>,
    thread_total: Option<pb::Usage>,
}

impl UsageAccumulator {
    /// Starts a turn on a thread that has used this much.
    pub(crate) const fn after(before: pb::Usage) -> Self {
        Self { before, sum: None, thread_total: None }
    }

    /// Adds the usage of one model call.
    pub(crate) fn add(&mut self, usage: pb::Usage) {
        self.sum = Some(combine(self.sum.unwrap_or_default(), usage, u64::saturating_add));
    }

    /// Replaces the usage of the whole thread.
    pub(crate) const fn set_thread_total(&mut self, usage: pb::Usage) {
        self.thread_total = Some(usage);
    }

    /// Returns the larger of both counts. Only the thread's total includes an incomplete response. That total arrives late.
    pub(crate) fn total(&self) -> Option<pb::Usage> {
        let of_turn = self.thread_total.map(|total| combine(total, self.before, u64::saturating_sub));
        // A total that arrives late may be that of the turn before.
        let of_turn = of_turn.filter(|usage| tokens(usage) > 0);
        [self.sum, of_turn].into_iter().flatten().max_by_key(tokens)
    }

    /// Returns the usage of the thread so far, for its next turn.
    pub(crate) fn of_thread(&self) -> pb::Usage {
        combine(self.before, self.total().unwrap_or_default(), u64::saturating_add)
    }
}

fn tokens(usage: &pb::Usage) -> u64 {
    usage.input_tokens + usage.output_tokens
}

fn combine(a: pb::Usage, b: pb::Usage, with: impl Fn(u64, u64) -> u64) -> pb::Usage {
    pb::Usage {
        input_tokens: with(a.input_tokens, b.input_tokens),
        cached_input_tokens: with(a.cached_input_tokens, b.cached_input_tokens),
        output_tokens: with(a.output_tokens, b.output_tokens),
        reasoning_output_tokens: with(a.reasoning_output_tokens, b.reasoning_output_tokens),
        estimated: false,
    }
}

impl From<TokenUsage> for pb::Usage {
    fn from(usage: TokenUsage) -> Self {
        let TokenUsage { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens } = usage;
        Self { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens, estimated: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64) -> pb::Usage {
        pb::Usage { input_tokens: input, output_tokens: output, ..pb::Usage::default() }
    }

    #[test]
    fn total_of_a_later_turn_excludes_what_the_thread_used_before() {
        let mut first = UsageAccumulator::default();
        first.add(usage(10, 1));
        assert_eq!((first.total(), first.of_thread()), (Some(usage(10, 1)), usage(10, 1)));
        let mut second = UsageAccumulator::after(first.of_thread());
        assert_eq!(second.total(), None);
        // The total of the first turn arrives late.
        second.set_thread_total(usage(10, 1));
        assert_eq!(second.total(), None);
        second.add(usage(20, 2));
        assert_eq!(second.total(), Some(usage(20, 2)));
        // The total includes a response that broke off.
        second.set_thread_total(usage(50, 5));
        assert_eq!((second.total(), second.of_thread()), (Some(usage(40, 4)), usage(50, 5)));
    }
}
