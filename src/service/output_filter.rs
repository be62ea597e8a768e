//! What is done to the text of an answer on its way out: tags taken out, a stop text or the token limit met.
//! Pure, and the same however the text is cut into deltas.

use std::sync::LazyLock;

use crate::pb::FinishReason;

/// The tag that `CODEX_STRIP_ANSWER_TAGS` takes out.
const ANSWER_TAG: &str = "</answer>";

/// The stages, in order.
#[derive(Debug)]
pub(super) struct TextFilter {
    tags: Option<Matcher>,
    stop: Option<Matcher>,
    tokens: Option<TokenLimit>,
}

/// Text that may go out, and whether the answer ends with it.
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

    /// Text that came. Some of it may be kept back until it is clear what it is.
    pub(super) fn push(&mut self, text: String) -> Filtered {
        let (text, stopped) = match &mut self.stop {
            Some(stop) => stop.until(&text),
            None => (text, false),
        };
        self.stripped(text, stopped, stopped)
    }

    /// The rest, when no more text comes.
    pub(super) fn finish(&mut self) -> Filtered {
        let text = self.stop.as_mut().map(Matcher::rest).unwrap_or_default();
        self.stripped(text, false, true)
    }

    fn stripped(&mut self, mut text: String, stopped: bool, last: bool) -> Filtered {
        if let Some(tags) = &mut self.tags {
            text = tags.without(&text);
            if last {
                text += &tags.rest();
            }
        }
        if self.tokens.as_mut().is_some_and(|tokens| tokens.cut(&mut text, last || stopped)) {
            return Filtered { text, end: Some(FinishReason::Length) };
        }
        Filtered { text, end: stopped.then_some(FinishReason::Stop) }
    }
}

/// Finds patterns across the borders of deltas.
#[derive(Debug)]
struct Matcher {
    patterns: Vec<String>,
    /// The end of what came, as far as it may be the beginning of a pattern.
    kept: String,
}

impl Matcher {
    fn new(patterns: Vec<String>) -> Self {
        Self { patterns, kept: String::new() }
    }

    /// All text without the patterns, except for what may become one.
    fn without(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = std::mem::take(&mut self.kept) + text;
        while let Some((at, length)) = self.find(&rest) {
            out.push_str(&rest[..at]);
            rest.drain(..at + length);
        }
        self.keep_back(&mut rest);
        out + &rest
    }

    /// The text before the first pattern, and whether there was one.
    fn until(&mut self, text: &str) -> (String, bool) {
        let mut text = std::mem::take(&mut self.kept) + text;
        if let Some((at, _)) = self.find(&text) {
            text.truncate(at);
            return (text, true);
        }
        self.keep_back(&mut text);
        (text, false)
    }

    fn rest(&mut self) -> String {
        std::mem::take(&mut self.kept)
    }

    fn find(&self, text: &str) -> Option<(usize, usize)> {
        self.patterns.iter().filter_map(|p| Some((text.find(p.as_str())?, p.len()))).min()
    }

    /// Moves the longest end of `text` that begins a pattern to `kept`.
    fn keep_back(&mut self, text: &mut String) {
        let longest = self.patterns.iter().map(String::len).max().unwrap_or_default();
        let from = text.len().saturating_sub(longest.saturating_sub(1));
        let start = (from..text.len())
            .filter(|at| text.is_char_boundary(*at))
            .find(|at| self.patterns.iter().any(|pattern| pattern.starts_with(&text[*at..])));
        if let Some(start) = start {
            self.kept = text.split_off(start);
        }
    }
}

/// Counts visible tokens. A token is a byte at least, so short answers are never tokenized.
#[derive(Debug)]
struct TokenLimit {
    left: usize,
    /// Text not counted yet: as long as it is certainly short enough, and what the next delta may make another token of.
    uncounted: String,
    /// How much of it has gone out.
    sent: usize,
}

/// Text without a space in it is counted in pieces of this length, whatever its deltas.
const MOST_UNCOUNTED: usize = 4096;

static TOKENIZER: LazyLock<&'static bpe_openai::Tokenizer> = LazyLock::new(bpe_openai::o200k_base);

impl TokenLimit {
    fn new(limit: u32) -> Self {
        let left = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { left, uncounted: String::new(), sent: 0 }
    }

    /// Cuts `text` where the limit is met; true if it was.
    fn cut(&mut self, text: &mut String, last: bool) -> bool {
        self.uncounted.push_str(text);
        if self.uncounted.len() <= self.left {
            *text = self.send(self.uncounted.len());
            return false;
        }
        let tokens = TOKENIZER.encode(self.uncounted.as_str());
        if tokens.len() <= self.left {
            *text = self.send(self.uncounted.len());
            self.settle(tokens.len());
            return false;
        }
        // Spaces at the end may yet belong to the next word, which is one token with them.
        let trimmed = self.uncounted.trim_end_matches(' ').len();
        if !last && trimmed < self.uncounted.len() && TOKENIZER.count(&self.uncounted[..trimmed]) <= self.left
        {
            *text = self.send(trimmed);
            return false;
        }
        let mut kept = self.left;
        // A token may end within a character: then it is left out.
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

    /// The text up to there that has not gone out.
    fn send(&mut self, end: usize) -> String {
        let from = self.sent;
        self.sent = from.max(end);
        self.uncounted.get(from..end).unwrap_or_default().to_owned()
    }

    /// Counts what cannot become part of another token: no token goes on with a space.
    fn settle(&mut self, all: usize) {
        let is_border = |at: &usize| !self.uncounted[..*at].ends_with(char::is_whitespace);
        let border = self.uncounted.rmatch_indices(' ').map(|(at, _)| at).find(is_border).unwrap_or_default();
        if border > 0 {
            self.left = self.left.saturating_sub(TOKENIZER.count(&self.uncounted[..border]));
            self.uncounted.drain(..border);
        } else if self.uncounted.len() > MOST_UNCOUNTED {
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
        let Filtered { text, end } = filter.finish();
        (out + &text, end)
    }

    fn stop(words: &[&str]) -> TextFilter {
        TextFilter::new(false, &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>(), None)
    }

    #[test]
    fn a_stop_text_is_found_across_deltas() {
        assert_eq!(run(stop(&["END"]), &["one E", "N", "D two"]), ("one ".into(), Some(FinishReason::Stop)));
        assert_eq!(run(stop(&["END"]), &["one E", "N", "x"]), ("one ENx".into(), None));
        assert_eq!(run(stop(&["\n\n", "b"]), &["a\n", "\nb"]), ("a".into(), Some(FinishReason::Stop)));
        assert_eq!(run(stop(&["END"]), &["one EN"]), ("one EN".into(), None));
    }

    #[test]
    fn what_cannot_be_a_stop_text_is_not_kept_back() {
        let mut filter = stop(&["</end>"]);
        assert_eq!(filter.push("a < b".into()).text, "a < b");
        assert_eq!(filter.push("c <".into()).text, "c ");
        assert_eq!(filter.push("= d".into()).text, "<= d");
    }

    #[test]
    fn tags_go_wherever_they_are_cut() {
        let tags = || TextFilter::new(true, &[], None);
        assert_eq!(run(tags(), &["a</answer>b</ans", "wer>", "c</answe"]), ("abc</answe".into(), None));
    }

    #[test]
    fn a_stop_text_may_be_the_tag_itself() {
        let both = || TextFilter::new(true, &["</answer>".into()], None);
        assert_eq!(run(both(), &["one</ans", "wer>two"]), ("one".into(), Some(FinishReason::Stop)));
    }

    #[test]
    fn the_token_limit_cuts_between_tokens_and_characters() {
        let limit = |n| TextFilter::new(false, &[], Some(n));
        assert_eq!(run(limit(2), &["hello world again"]), ("hello world".into(), Some(FinishReason::Length)));
        assert_eq!(run(limit(2), &["hello", " world"]), ("hello world".into(), None));
        assert_eq!(run(limit(2), &["hello", " world", " again"]).1, Some(FinishReason::Length));
        assert_eq!(run(limit(1), &["👩‍👩‍👧‍👦"]).1, Some(FinishReason::Length));
        assert_eq!(run(limit(1000), &["short"]), ("short".into(), None));
    }

    #[test]
    fn words_that_come_one_by_one_are_counted_as_in_one_piece() {
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
        fn the_limit_is_met_at_the_same_place_however_the_words_come(text in "([a-z]{1,5} ){0,30}", most in 1u32..40) {
            let limit = || TextFilter::new(false, &[], Some(most));
            let pieces: Vec<&str> = text.split_inclusive(' ').collect();
            prop_assert_eq!(run(limit(), &[&text]), run(limit(), &pieces));
        }

        #[test]
        fn the_borders_of_deltas_do_not_matter(text in "[ab</answer>€ ]{0,40}", cut in 0usize..40) {
            let whole = run(TextFilter::new(true, &["ab".into(), "€ a".into()], None), &[&text]);
            let at = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
            let halves = run(TextFilter::new(true, &["ab".into(), "€ a".into()], None), &[&text[..at], &text[at..]]);
            prop_assert_eq!(whole, halves);
        }
    }
}
