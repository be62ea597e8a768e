//! Tracks how much of the current message was delivered, so that the remaining suffix can be found without buffering
//! the message.

/// Number of bytes that are compared at the end of the delivered text.
const TAIL_BYTES: usize = 256;

/// The delivered text of the current message.
#[derive(Debug, Default)]
pub(crate) struct DeliveredText {
    bytes: usize,
    tail: String,
}

impl DeliveredText {
    /// Starts the next message.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Records delivered text.
    pub(crate) fn append(&mut self, text: &str) {
        self.bytes += text.len();
        self.tail.push_str(text);
        if self.tail.len() > 2 * TAIL_BYTES {
            let start = self.tail.floor_char_boundary(self.tail.len() - TAIL_BYTES);
            self.tail.drain(..start);
            self.tail.shrink_to(2 * TAIL_BYTES);
        }
    }

    /// Returns the undelivered part of the whole message. Returns an empty text if the delivered text is not its prefix.
    pub(crate) fn suffix_of<'a>(&self, message: &'a str) -> &'a str {
        match message.split_at_checked(self.bytes) {
            Some((delivered, suffix)) if delivered.ends_with(&self.tail) => suffix,
            Some(_) | None => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffix_of_returns_the_rest_of_the_same_message_only() {
        for deltas in [vec![], vec!["a", "ß"], vec!["0123456789ß"; 5000]] {
            let mut delivered = DeliveredText::default();
            deltas.iter().for_each(|delta| delivered.append(delta));
            let text = deltas.concat();
            assert_eq!(delivered.suffix_of(&format!("{text}!")), "!");
            assert_eq!(delivered.suffix_of(&text), "");
            assert!(delivered.tail.capacity() <= 4 * TAIL_BYTES);
            if !deltas.is_empty() {
                // A shorter message, and another one.
                assert_eq!(delivered.suffix_of("a"), "");
                assert_eq!(delivered.suffix_of(&format!("{}!!!", "x".repeat(text.len()))), "");
            }
        }
        let mut delivered = DeliveredText::default();
        delivered.append("x");
        assert_eq!(delivered.suffix_of("ß!"), "", "the cut is not at a character boundary");
        delivered.reset();
        assert_eq!(delivered.suffix_of("all"), "all");
    }
}
