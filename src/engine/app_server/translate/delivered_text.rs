//! How much of a message the client has: enough to find the rest in the whole message, without keeping a copy.

/// Bytes at the end of what was told that are compared.
const TAIL: usize = 256;

/// What was told of the message that is under way.
#[derive(Debug, Default)]
pub(crate) struct DeliveredText {
    bytes: usize,
    tail: String,
}

impl DeliveredText {
    /// The next message begins.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// More was told.
    pub(crate) fn add(&mut self, text: &str) {
        self.bytes += text.len();
        self.tail.push_str(text);
        if self.tail.len() > 2 * TAIL {
            let from = self.tail.floor_char_boundary(self.tail.len() - TAIL);
            self.tail.drain(..from);
            self.tail.shrink_to(2 * TAIL);
        }
    }

    /// What was not told yet of the whole message; nothing if it is another one.
    pub(crate) fn rest<'a>(&self, whole: &'a str) -> &'a str {
        match whole.split_at_checked(self.bytes) {
            Some((told, rest)) if told.ends_with(&self.tail) => rest,
            Some(_) | None => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_found_without_a_copy() {
        for pieces in [vec![], vec!["a", "ß"], vec!["0123456789ß"; 5000]] {
            let mut told = DeliveredText::default();
            pieces.iter().for_each(|piece| told.add(piece));
            let told_text = pieces.concat();
            assert_eq!(told.rest(&format!("{told_text}!")), "!");
            assert_eq!(told.rest(&told_text), "");
            assert!(told.tail.capacity() <= 4 * TAIL);
            if !pieces.is_empty() {
                // Shorter, or another one.
                assert_eq!(told.rest("a"), "");
                assert_eq!(told.rest(&format!("{}!!!", "x".repeat(told_text.len()))), "");
            }
        }
        let mut told = DeliveredText::default();
        told.add("x");
        assert_eq!(told.rest("ß!"), "", "cut through a letter");
        told.clear();
        assert_eq!(told.rest("all"), "all");
    }
}
