//! Buffers the raw items of one turn for the turn cache. The buffer is bounded. Large outputs are replaced, and a turn that
//! exceeds the bound keeps no items.

use crate::engine::app_server::{
    history::response_item::heap_size,
    rpc::{large_lines::OMITTED_OUTPUT, protocol::RawItem},
};

/// Memory of a turn up to which outputs are kept, in bytes. Later outputs are replaced.
const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// Maximum memory of a turn, in bytes. A turn that exceeds it is not cached.
const MAX_TURN_BYTES: usize = 8 << 20;

/// The raw items of a turn.
#[derive(Debug, Default)]
pub(crate) struct RawItemBuffer {
    items: Vec<RawItem>,
    bytes: usize,
    disabled: bool,
}

impl RawItemBuffer {
    /// Creates a buffer. A disabled buffer keeps nothing. Clients without tools need no buffer.
    pub(crate) fn new(enabled: bool) -> Self {
        Self { disabled: !enabled, ..Self::default() }
    }

    /// Appends an item. Disables the buffer if the items exceed the bound of a turn.
    pub(crate) fn push(&mut self, mut item: RawItem) {
        if self.disabled {
            return;
        }
        let mut bytes = heap_size(&item);
        if self.bytes + bytes > MAX_OUTPUT_BYTES && RawItem::OUTPUT_KINDS.contains(&item.kind()) {
            item.set_output(OMITTED_OUTPUT);
            bytes = heap_size(&item);
        }
        if self.bytes + bytes > MAX_TURN_BYTES {
            *self = Self::new(false);
            return;
        }
        self.bytes += bytes;
        self.items.push(item);
    }

    /// Returns a copy of all items in order, and keeps those of a turn that goes on: the calls without an output.
    pub(crate) fn take_finished(&mut self, is_open: impl Fn(&str) -> bool) -> Vec<RawItem> {
        let items = self.take();
        let open = items.iter().filter(|item| item.call_id().is_some_and(&is_open));
        let open: Vec<RawItem> = open.cloned().collect();
        self.bytes = open.iter().map(heap_size).sum();
        self.items = open;
        items
    }

    /// Returns all items in order, or nothing if they exceeded the bound.
    pub(crate) fn take(&mut self) -> Vec<RawItem> {
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn output(id: usize, bytes: usize) -> RawItem {
        RawItem::output_of_call("function_call_output", &id.to_string(), &"x".repeat(bytes))
    }

    #[test]
    fn push_outputs_beyond_the_bound_replaces_them_and_keeps_all_other_items() {
        let mut buffer = RawItemBuffer::new(true);
        for id in 0..200 {
            buffer
                .push(json!({"type": "function_call", "call_id": id.to_string(), "arguments": "{}"}).into());
            buffer.push(output(id, 1 << 20));
        }
        let items = buffer.take();
        assert_eq!(items.len(), 400);
        assert!(items.iter().map(heap_size).sum::<usize>() <= MAX_OUTPUT_BYTES + 400 * 2000);
        assert_eq!(items[1], output(0, 1 << 20));
        assert_eq!((items[399].call_id(), items[399].output()), (Some("199"), Some(OMITTED_OUTPUT)));
    }

    #[test]
    fn push_beyond_the_bound_of_a_turn_keeps_nothing() {
        let mut buffer = RawItemBuffer::new(true);
        for _ in 0..3 {
            let content = "x".repeat(3 << 20);
            buffer.push(json!({"type": "message", "role": "assistant", "content": content}).into());
        }
        buffer.push(output(1, 1));
        assert!(buffer.take().is_empty() && buffer.bytes == 0);
    }

    #[test]
    fn push_to_a_disabled_buffer_keeps_nothing() {
        let mut buffer = RawItemBuffer::new(false);
        buffer.push(output(1, 1));
        assert!(buffer.take().is_empty());
    }
}
