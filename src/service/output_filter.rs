//! Filters the text of an answer: removes tags, and truncates at a stop text or at the token limit. Pure, and
//! independent of how the text is split into deltas.

use std::sync::LazyLock;

use crate::pb::FinishReason;

/// The tag that `CODEX_STRIP_ANSWER_TAGS` removes.
const ANSWER_TAG: &str = "</answer>";

/// The filter of one answer. Owned by its builder; the stages run in the order stop, tags, tokens.
#[derive(Debug)]
pub(super) struct TextFilter {
    tags: Option<Matcher>,
    stop: Option<Matcher>,
    tokens: Option<TokenLimit>,
}

/// Text to emit, and the finish reason if the answer ends with it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Filtered {
    pub(super) text: String,
    pub(super) end: Option<FinishReason>,
}

impl TextFilter {
    pub(super) fn new(strip_answer_tags: bool, stop: &[String], max_tokens: Option<u32>) -> Self {
        Self {
            tags: strip_answer_tags.then(|| Matcher::new(vec![ANSWER_TAG.to_owned()])),
            stop: (!stop.is_empty()).then(|| Matcher::new(stop.to_vec())),
            tokens: max_tokens.map(TokenLimit::new),
        }
    }

    /// Filters a delta. Buffers an end that may be the beginning of a pattern.
    pub(super) fn push(&mut self, text: String) -> Filtered {
        let (text, stopped) = match &mut self.stop {
            Some(stop) => stop.take_until(&text),
            None => (text, false),
        };
        self.strip_and_limit(text, stopped, stopped)
    }

    /// Returns the buffered rest: after the last delta, or at the end of a message.
    pub(super) fn flush(&mut self) -> Filtered {
        let text = self.stop.as_mut().map(Matcher::take_buffer).unwrap_or_default();
        self.strip_and_limit(text, false, true)
    }

    fn strip_and_limit(&mut self, mut text: String, stopped: bool, last: bool) -> Filtered {
        if let Some(tags) = &mut self.tags {
            text = tags.remove(&text);
            if last {
                text += &tags.take_buffer();
            }
        }
        if self.tokens.as_mut().is_some_and(|tokens| tokens.truncate(&mut text, last || stopped)) {
            return Filtered { text, end: Some(FinishReason::Length) };
        }
        Filtered { text, end: stopped.then_some(FinishReason::Stop) }
    }
}

/// Finds patterns across the boundaries of deltas.
#[derive(Debug)]
struct Matcher {
    patterns: Vec<String>,
    /// The end of the text, if it may be the beginning of a pattern.
    buffer: String,
}

impl Matcher {
    fn new(patterns: Vec<String>) -> Self {
        Self { patterns, buffer: String::new() }
    }

    /// Returns the text without the patterns, except for the buffered end.
    fn remove(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = std::mem::take(&mut self.buffer) + text;
        while let Some((at, length)) = self.find(&rest) {
            out.push_str(&rest[..at]);
            rest.drain(..at + length);
        }
        self.buffer_end(&mut rest);
        out + &rest
    }

    /// Returns the text before the first pattern, and whether a pattern was found.
    fn take_until(&mut self, text: &str) -> (String, bool) {
        let mut text = std::mem::take(&mut self.buffer) + text;
        if let Some((at, _)) = self.find(&text) {
            text.truncate(at);
            return (text, true);
        }
        self.buffer_end(&mut text);
        (text, false)
    }

    fn take_buffer(&mut self) -> String {
        std::mem::take(&mut self.buffer)
    }

    fn find(&self, text: &str) -> Option<(usize, usize)> {
        self.patterns.iter().filter_map(|p| Some((text.find(p.as_str())?, p.len()))).min()
    }

    /// Moves the longest end of `text` that begins a pattern to the buffer.
    fn buffer_end(&mut self, text: &mut String) {
        let longest = self.patterns.iter().map(String::len).max().unwrap_or_default();
        let from = text.len().saturating_sub(longest.saturating_sub(1));
        let start = (from..text.len())
            .filter(|at| text.is_char_boundary(*at))
            .find(|at| self.patterns.iter().any(|pattern| pattern.starts_with(&text[*at..])));
        if let Some(start) = start {
            self.buffer = text.split_off(start);
        }
    }
}

/// Counts visible tokens. Short answers are never tokenized, because each token has at least one byte.
#[derive(Debug)]
struct TokenLimit {
    left: usize,
    /// Text not counted yet, because it certainly fits or because the next delta may change its last token.
    uncounted: String,
    /// Bytes of `uncounted` that were emitted.
    sent: usize,
}

/// Maximum length of uncounted text without a space.
const MAX_UNCOUNTED_BYTES: usize = 4096;

/// Counts tokens as the models do. Loaded with the first use.
pub(super) static TOKENIZER: LazyLock<&'static bpe_openai::Tokenizer> = LazyLock::new(bpe_openai::o200k_base);

impl TokenLimit {
    fn new(limit: u32) -> Self {
        let left = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { left, uncounted: String::new(), sent: 0 }
    }

    /// Truncates `text` at the limit. Returns `true` if the limit was exceeded.
    fn truncate(&mut self, text: &mut String, last: bool) -> bool {
        self.uncounted.push_str(text);
        if self.uncounted.len() <= self.left {
            *text = self.emit(self.uncounted.len());
            return false;
        }
        let tokens = TOKENIZER.encode(self.uncounted.as_str());
        if tokens.len() <= self.left {
            *text = self.emit(self.uncounted.len());
            self.count_settled(tokens.len());
            return false;
        }
        // Spaces at the end may belong to the token of the next word.
        let trimmed = self.uncounted.trim_end_matches(' ').len();
        if !last && trimmed < self.uncounted.len() && TOKENIZER.count(&self.uncounted[..trimmed]) <= self.left
        {
            *text = self.emit(trimmed);
            return false;
        }
        let mut kept = self.left;
        // A token that ends within a character is omitted.
        let whole = loop {
            match TOKENIZER.decode(&tokens[..kept]) {
                Some(text) => break text,
                None if kept > 0 => kept -= 1,
                None => break String::new(),
            }
        };
        *text = whole.get(self.sent..).unwrap_or_default().to_owned();
        true
    }

    /// Returns the text up to `end` that was not emitted yet.
    fn emit(&mut self, end: usize) -> String {
        let from = self.sent;
        self.sent = from.max(end);
        self.uncounted.get(from..end).unwrap_or_default().to_owned()
    }

    /// Counts text whose tokens are final. Tokens never continue with a space.
    fn count_settled(&mut self, all: usize) {
        let is_border = |at: &usize| !self.uncounted[..*at].ends_with(char::is_whitespace);
        let border = self.uncounted.rmatch_indices(' ').map(|(at, _)| at).find(is_border).unwrap_or_default();
        if border > 0 {
            self.left = self.left.saturating_sub(TOKENIZER.count(&self.uncounted[..border]));
            self.uncounted.drain(..border);
        } else if self.uncounted.len() > MAX_UNCOUNTED_BYTES {
            self.left = self.left.saturating_sub(all);
            self.uncounted.clear();
        }
        self.sent = self.uncounted.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(mut filter: TextFilter, pieces: &[&str]) -> (String, Option<FinishReason>) {
        let mut out = String::new();
        for piece in pieces {
            let Filtered { text, end } = filter.push((*piece).to_owned());
            out.push_str(&text);
            if end.is_some() {
                return (out, end);
            }
        }
        let Filtered { text, end } = filter.flush();
        (out + &text, end)
    }

    fn stop(texts: &[&str]) -> TextFilter {
        TextFilter::new(false, &texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), None)
    }

    #[test]
    fn text_filter_stop_text_across_deltas_ends_the_text() {
        assert_eq!(run(stop(&["END"]), &["one E", "N", "D two"]), ("one ".into(), Some(FinishReason::Stop)));
        assert_eq!(run(stop(&["END"]), &["one E", "N", "x"]), ("one ENx".into(), None));
        assert_eq!(run(stop(&["\n\n", "b"]), &["a\n", "\nb"]), ("a".into(), Some(FinishReason::Stop)));
        assert_eq!(run(stop(&["END"]), &["one EN"]), ("one EN".into(), None));
    }

    #[test]
    fn text_filter_text_without_a_stop_prefix_is_not_buffered() {
        let mut filter = stop(&["</end>"]);
        assert_eq!(filter.push("a < b".into()).text, "a < b");
        assert_eq!(filter.push("c <".into()).text, "c ");
        assert_eq!(filter.push("= d".into()).text, "<= d");
    }

    #[test]
    fn text_filter_split_tags_are_removed() {
        let tags = || TextFilter::new(true, &[], None);
        assert_eq!(run(tags(), &["a</answer>b</ans", "wer>", "c</answe"]), ("abc</answe".into(), None));
    }

    #[test]
    fn text_filter_stop_text_equal_to_the_tag_ends_the_text() {
        let both = || TextFilter::new(true, &["</answer>".into()], None);
        assert_eq!(run(both(), &["one</ans", "wer>two"]), ("one".into(), Some(FinishReason::Stop)));
    }

    #[test]
    fn text_filter_token_limit_truncates_between_tokens_and_characters() {
        let limit = |n| TextFilter::new(false, &[], Some(n));
        assert_eq!(run(limit(2), &["hello world again"]), ("hello world".into(), Some(FinishReason::Length)));
        assert_eq!(run(limit(2), &["hello", " world"]), ("hello world".into(), None));
        assert_eq!(run(limit(2), &["hello", " world", " again"]).1, Some(FinishReason::Length));
        assert_eq!(run(limit(1), &["👩‍👩‍👧‍👦"]).1, Some(FinishReason::Length));
        assert_eq!(run(limit(1000), &["short"]), ("short".into(), None));
    }

    #[test]
    fn text_filter_words_in_deltas_count_as_in_one_piece() {
        let limit = |n| TextFilter::new(false, &[], Some(n));
        let length = Some(FinishReason::Length);
        let words = ["one ", "two ", "three ", "four ", "five"];
        assert_eq!(run(limit(3), &words), ("one two three".into(), length));
        assert_eq!(run(limit(5), &words), ("one two three four five".into(), None));
        assert_eq!(run(limit(2), &["two ", "words "]), ("two words".into(), length));
        assert_eq!(run(limit(3), &["two ", "words "]), ("two words ".into(), None));
    }

    proptest! {
        #[test]
        fn text_filter_limit_is_independent_of_deltas(text in "([a-z]{1,5} ){0,30}", most in 1u32..40) {
            let limit = || TextFilter::new(false, &[], Some(most));
            let pieces: Vec<&str> = text.split_inclusive(' ').collect();
            prop_assert_eq!(run(limit(), &[&text]), run(limit(), &pieces));
        }

        #[test]
        fn text_filter_result_is_independent_of_delta_boundaries(text in "[ab</answer>€ ]{0,40}", cut in 0usize..40) {
            let whole = run(TextFilter::new(true, &["ab".into(), "€ a".into()], None), &[&text]);
            let at = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
            let halves = run(TextFilter::new(true, &["ab".into(), "€ a".into()], None), &[&text[..at], &text[at..]]);
            prop_assert_eq!(whole, halves);
        }
    }
}
