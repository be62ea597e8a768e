//! Tracks the delivered text of a response, so that a repetition of the text delivers only what is new. Buffers no more than
//! the first bytes of the text.

/// Number of bytes at the start of a text that are compared at once. The rest is compared when the repetition is as long
/// as the delivered text.
const HEAD_BYTES: usize = 512;

/// The length, the hash and the first bytes of a text.
#[derive(Debug, Clone)]
struct Digest {
    bytes: usize,
    /// FNV-1a, because its result does not depend on the division of the text into deltas.
    hash: u64,
    head: String,
}

impl Default for Digest {
    fn default() -> Self {
        Self { bytes: 0, hash: 0xcbf2_9ce4_8422_2325, head: String::new() }
    }
}

impl Digest {
    fn append(&mut self, text: &str) {
        if self.head.len() == self.bytes {
            self.head.push_str(&text[..text.floor_char_boundary(HEAD_BYTES.saturating_sub(self.head.len()))]);
        }
        self.bytes += text.len();
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn of(text: &str) -> Self {
        let mut digest = Self::default();
        digest.append(text);
        digest
    }

    /// Returns the whole text, or `None` if it is longer than the head.
    fn whole(&self) -> Option<&str> {
        (self.head.len() == self.bytes).then_some(&*self.head)
    }

    /// Returns the part of `text` behind this prefix. Returns an empty text if this is not a prefix of `text`.
    fn suffix_of<'a>(&self, text: &'a str) -> &'a str {
        match text.split_at_checked(self.bytes) {
            Some((prefix, suffix)) if Self::of(prefix).hash == self.hash => suffix,
            Some(_) | None => "",
        }
    }
}

/// A delivered text, and its repetition if the upstream starts over.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeliveredText {
    delivered: Digest,
    /// The repetition so far. `None` unless a repetition is expected.
    repeated: Option<Digest>,
}

/// The effect of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The client gets this text, which may be empty.
    New(String),
    /// The client has this text.
    Repeated,
    /// The text differs from the delivered text. Holds the whole repetition so far, or `None` if it is longer than the
    /// bytes that are kept.
    Differs(Option<String>),
}

impl DeliveredText {
    /// Returns `true` if the client has no text.
    pub(crate) const fn is_empty(&self) -> bool {
        self.delivered.bytes == 0
    }

    /// Returns `true` while delivered text must still be repeated.
    pub(crate) const fn is_repeating(&self) -> bool {
        self.repeated.is_some()
    }

    /// Expects that the next pieces repeat the delivered text from its start.
    pub(crate) fn expect_repetition(&mut self) {
        self.repeated = (!self.is_empty()).then(Digest::default);
    }

    /// Records a piece of text.
    pub(crate) fn push(&mut self, text: String) -> Piece {
        let Some(repeated) = &mut self.repeated else {
            self.delivered.append(&text);
            return Piece::New(text);
        };
        let Some((repetition, new)) =
            text.split_at_checked(text.len().min(self.delivered.bytes - repeated.bytes))
        else {
            return Piece::Differs(self.repetition_with(&text));
        };
        let expected = self.delivered.head.as_bytes().get(repeated.bytes..).unwrap_or_default();
        let mut next = repeated.clone();
        next.append(repetition);
        let differs = expected.iter().zip(repetition.as_bytes()).any(|(expected, byte)| expected != byte)
            || (next.bytes == self.delivered.bytes && next.hash != self.delivered.hash);
        if differs {
            return Piece::Differs(self.repetition_with(&text));
        }
        if next.bytes < self.delivered.bytes {
            *repeated = next;
            return Piece::Repeated;
        }
        self.repeated = None;
        self.delivered.append(new);
        if new.is_empty() { Piece::Repeated } else { Piece::New(new.to_owned()) }
    }

    /// Returns the undelivered part of the whole text. Returns an empty text if the text so far is not its prefix.
    pub(crate) fn suffix_of<'a>(&self, whole: &'a str) -> &'a str {
        self.repeated.as_ref().unwrap_or(&self.delivered).suffix_of(whole)
    }

    /// Returns the repetition so far. Returns `None` if no repetition is expected, or if it is longer than the bytes that
    /// are kept.
    pub(crate) fn repetition(&self) -> Option<String> {
        self.repetition_with("")
    }

    fn repetition_with(&self, text: &str) -> Option<String> {
        Some(format!("{}{text}", self.repeated.as_ref()?.whole()?))
    }

    /// Adds text that is no repetition, which the client gets.
    pub(crate) fn append(&mut self, text: &str) {
        self.repeated = None;
        self.delivered.append(text);
    }

    /// Starts another text, which the client gets.
    pub(crate) fn replace(&mut self, text: &str) {
        *self = Self { delivered: Digest::of(text), repeated: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(deltas: &[&str]) -> DeliveredText {
        let mut text = DeliveredText::default();
        for delta in deltas {
            assert_eq!(text.push((*delta).to_owned()), Piece::New((*delta).to_owned()));
        }
        text
    }

    #[test]
    fn suffix_of_returns_the_rest_of_the_same_message_only() {
        for deltas in [vec![], vec!["a", "ß"], vec!["0123456789ß"; 5000]] {
            let text = delivered(&deltas);
            let whole = deltas.concat();
            assert_eq!(text.suffix_of(&format!("{whole}!")), "!");
            assert_eq!(text.suffix_of(&whole), "");
            assert!(text.delivered.head.capacity() <= 2 * HEAD_BYTES);
            if !deltas.is_empty() {
                // A shorter message, and another one.
                assert_eq!(text.suffix_of("a"), "");
                assert_eq!(text.suffix_of(&format!("{}!!!", "x".repeat(whole.len()))), "");
            }
        }
        assert_eq!(delivered(&["x"]).suffix_of("ß!"), "", "the cut is not at a character boundary");
        assert_eq!(DeliveredText::default().suffix_of("all"), "all");
    }

    #[test]
    fn push_of_a_repetition_returns_only_new_text() {
        for length in [1, 3, 300, 900] {
            let whole = "aß".repeat(length);
            for step in [1, 7, 4000] {
                let mut text = delivered(&[&whole]);
                text.expect_repetition();
                let repeated = format!("{whole}new");
                let chars: Vec<char> = repeated.chars().collect();
                let mut got = String::new();
                for delta in chars.chunks(step) {
                    match text.push(delta.iter().collect()) {
                        Piece::New(new) => got.push_str(&new),
                        Piece::Repeated => {}
                        Piece::Differs(_) => panic!("{length} {step}"),
                    }
                }
                assert_eq!(got, "new", "{length} {step}");
                assert!(!text.is_repeating());
                assert_eq!(text.suffix_of(&format!("{repeated}!")), "!", "the new text is recorded");
            }
        }
    }

    #[test]
    fn push_of_other_text_differs_at_the_first_kept_byte_or_at_the_end() {
        let long = "x".repeat(2 * HEAD_BYTES);
        for (first, pieces, held) in [
            ("one two ", vec!["one ", "tw", "elve"], Some("one twelve")),
            ("one", vec!["only"], Some("only")),
            ("aa", vec!["a", "ß"], Some("aß")),
            (&*long, vec![&long[1..], "y"], None),
        ] {
            let mut text = delivered(&[first]);
            text.expect_repetition();
            let (last, earlier) = pieces.split_last().unwrap();
            for piece in earlier {
                assert_eq!(text.push((*piece).to_owned()), Piece::Repeated, "{first}");
            }
            assert!(text.is_repeating());
            assert_eq!(text.push((*last).to_owned()), Piece::Differs(held.map(str::to_owned)), "{first}");
        }
    }
}
