//! What the model and Codex's own tools produced in one turn, as raw items: kept for the next request of a client that
//! has tools, and for nobody else. Bounded: large outputs are left out, and beyond that nothing is kept at all.

use serde_json::Value;

use crate::engine::app_server::{
    history::turn_cache::{kind, weight},
    rpc::{large_lines::LEFT_OUT, protocol::RawItem},
};

/// Memory for all outputs of a turn, in bytes. What comes later is left out.
const MAX_OUTPUTS: usize = 4 << 20;

/// Memory for a turn. One that produces more is not remembered.
const MAX: usize = 8 << 20;

/// The raw items of a turn.
#[derive(Debug, Default)]
pub(crate) struct RawItemBuffer {
    items: Vec<Value>,
    bytes: usize,
    /// Nothing is kept.
    off: bool,
}

impl RawItemBuffer {
    /// For a turn whose client has tools, or has none.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { off: !wanted, ..Self::default() }
    }

    /// Keeps an item.
    pub(crate) fn push(&mut self, mut item: Value) {
        if self.off {
            return;
        }
        let mut bytes = weight(&item);
        if self.bytes + bytes > MAX_OUTPUTS && RawItem::OUTPUT_KINDS.contains(&kind(&item)) {
            item["output"] = LEFT_OUT.into();
            bytes = weight(&item);
        }
        if self.bytes + bytes > MAX {
            *self = Self::new(false);
            return;
        }
        self.bytes += bytes;
        self.items.push(item);
    }

    /// All of them, in order; none if they were too much.
    pub(crate) fn take(&mut self) -> Vec<Value> {
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn output(id: usize, bytes: usize) -> Value {
        json!({"type": "function_call_output", "call_id": id.to_string(), "output": "x".repeat(bytes)})
    }

    #[test]
    fn outputs_beyond_the_bound_are_left_out_and_all_else_is_kept() {
        let mut produced = RawItemBuffer::new(true);
        for id in 0..200 {
            produced.push(json!({"type": "function_call", "call_id": id.to_string(), "arguments": "{}"}));
            produced.push(output(id, 1 << 20));
        }
        let items = produced.take();
        assert_eq!(items.len(), 400);
        assert!(items.iter().map(weight).sum::<usize>() <= MAX_OUTPUTS + 400 * 2000);
        assert_eq!(items[1], output(0, 1 << 20));
        assert_eq!((&items[399]["call_id"], &items[399]["output"]), (&json!("199"), &json!(LEFT_OUT)));
    }

    #[test]
    fn more_than_can_be_kept_is_not_kept_in_part() {
        let mut produced = RawItemBuffer::new(true);
        for _ in 0..3 {
            produced.push(json!({"type": "message", "role": "assistant", "content": "x".repeat(3 << 20)}));
        }
        produced.push(output(1, 1));
        assert!(produced.take().is_empty() && produced.bytes == 0);
    }

    #[test]
    fn without_tools_nothing_is_kept() {
        let mut produced = RawItemBuffer::new(false);
        produced.push(output(1, 1));
        assert!(produced.take().is_empty());
    }
}
