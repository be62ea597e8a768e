//! What a client saw, and the reading of answers: stamps in text, first tokens, ends.

use std::time::{Duration, Instant};

use crate::stats::{Spread, float, micros};

/// What a client asks for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) text: String,
}

impl Ask {
    /// An answer of so many tokens from the scripted upstream, each with a pause behind it.
    pub(crate) fn upstream(tokens: usize, pause: Duration) -> Self {
        Self { model: MODEL.to_owned(), text: format!("{ANSWER}{tokens} {}.", pause.as_millis()) }
    }

    /// A scenario of the fake codex.
    pub(crate) fn fake(scenario: &str) -> Self {
        Self { model: format!("fake:{scenario}"), text: "go".to_owned() }
    }
}

/// The model that is asked for where the answer is scripted upstream.
pub(crate) const MODEL: &str = "gpt-5.5";

/// How a prompt tells the scripted upstream what to answer: this, tokens, a space, milliseconds, a full stop.
pub(crate) const ANSWER: &str = "bench-answer ";

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Time to the first token of each turn, microseconds.
    pub(crate) first: Vec<u64>,
    /// Time of each whole turn, microseconds.
    pub(crate) whole: Vec<u64>,
    /// Each delta: when it was sent, and how long it took to get here, microseconds.
    pub(crate) lags: Vec<(u64, u64)>,
    /// Writes of the server that carried text, as far as the client can tell them apart.
    pub(crate) frames: u64,
    /// What went wrong.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.first.extend(other.first);
        self.whole.extend(other.whole);
        self.lags.extend(other.lags);
        self.frames += other.frames;
        self.failures.extend(other.failures);
    }

    pub(crate) fn turns(&self) -> usize {
        self.whole.len()
    }

    pub(crate) fn first_token(&self) -> Spread {
        Spread::of(self.first.clone())
    }

    /// The times of deltas that were sent within a window.
    pub(crate) fn lag_within(&self, window: std::ops::Range<u64>) -> Spread {
        Spread::of(self.lags.iter().filter(|(sent, _)| window.contains(sent)).map(|&(_, lag)| lag).collect())
    }

    pub(crate) fn lag(&self) -> Spread {
        self.lag_within(0..u64::MAX)
    }

    pub(crate) fn deltas_per_frame(&self) -> f64 {
        float(self.lags.len()) / float(self.frames.max(1))
    }
}

/// One turn under way.
#[derive(Debug)]
pub(crate) struct Watch {
    begun: Instant,
    first: Option<Duration>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now(), first: None }
    }

    /// Text arrived, at `now` by the clock of stamps.
    pub(crate) fn text(&mut self, text: &[u8], now: u64, tally: &mut Tally) {
        self.first.get_or_insert_with(|| self.begun.elapsed());
        tally.lags.extend(stamps(text).map(|sent| (sent, now.saturating_sub(sent))));
    }

    pub(crate) fn has_begun_to_speak(&self) -> bool {
        self.first.is_some()
    }

    /// The turn is over.
    pub(crate) fn end(self, tally: &mut Tally) {
        tally.first.extend(self.first.map(micros));
        tally.whole.push(micros(self.begun.elapsed()));
    }
}

/// The stamps in a piece of text: `t=1767225600000000;`.
pub(crate) fn stamps(text: &[u8]) -> impl Iterator<Item = u64> {
    text.split(|&byte| byte == b'=').skip(1).filter_map(|after| {
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits < 16 || after.get(digits) != Some(&b';') {
            return None;
        }
        str::from_utf8(&after[..digits]).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::stamps;

    #[test]
    fn stamps_are_found_between_other_text() {
        let text = b"x=1; t=1767225600000001;t=1767225600000002;=t=12;";
        assert_eq!(stamps(text).collect::<Vec<_>>(), [1_767_225_600_000_001, 1_767_225_600_000_002]);
    }
}
