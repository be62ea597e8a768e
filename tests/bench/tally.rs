//! The observations of a client: timestamps in the text, first tokens, ends.

use std::time::{Duration, Instant};

use crate::stats::{Spread, float, micros};

/// A request of a client.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    pub(crate) model: String,
    pub(crate) text: String,
}

impl Prompt {
    /// Requests an answer of `tokens` tokens from the scripted upstream, with a pause after each.
    pub(crate) fn upstream(tokens: usize, pause: Duration) -> Self {
        Self { model: MODEL.to_owned(), text: format!("{ANSWER}{tokens} {}.", pause.as_millis()) }
    }

    /// Requests a scenario of the fake codex.
    pub(crate) fn fake(scenario: &str) -> Self {
        Self { model: format!("fake:{scenario}"), text: "go".to_owned() }
    }
}

/// Model of the requests to the scripted upstream.
pub(crate) const MODEL: &str = "gpt-5.5";

/// Prefix of a prompt for the bench's upstream: prefix, tokens, a space, milliseconds, a full stop.
pub(crate) const ANSWER: &str = "bench-answer ";

/// Prefix of a prompt that asks for a call of a client's tool before the answer.
pub(crate) const CALL: &str = "bench-call ";

/// Name and arguments of that call.
pub(crate) const TOOL: &str = "lookup";
pub(crate) const ARGUMENTS: &str = r#"{"key":"k"}"#;

/// The end of a response.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The id of a tool call that ended the response.
    pub(crate) call: Option<String>,
    /// The text. The upstream's tokens are their times, so that the observations contain it.
    pub(crate) text: String,
}

impl Reply {
    /// Creates a reply of the deltas behind the first `known` ones. A response with a call is no end of a turn.
    pub(crate) fn new(call: Option<String>, known: usize, timer: TurnTimer, tally: &mut Tally) -> Self {
        let text = tally.lags[known..].iter().map(|(sent, _)| format!("t={sent};")).collect();
        if call.is_none() {
            timer.end(tally);
        }
        Self { call, text }
    }
}

/// Observations so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Time to the first token of each turn, in microseconds.
    pub(crate) first: Vec<u64>,
    /// Duration of each turn, in microseconds.
    pub(crate) whole: Vec<u64>,
    /// Each delta: time of sending and latency, in microseconds.
    pub(crate) lags: Vec<(u64, u64)>,
    /// Writes of the server that contained text, as far as the client can distinguish them.
    pub(crate) frames: u64,
    /// Errors.
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
        Spread::from_micros(self.first.clone())
    }

    /// Time to the first token in the first turn of each conversation, and in the others. Each client completes its
    /// conversations one after the other.
    pub(crate) fn first_tokens(&self, turns: usize) -> (Spread, Spread) {
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for conversation in self.first.chunks(turns) {
            first.extend(conversation.first());
            later.extend(conversation.iter().skip(1));
        }
        (Spread::from_micros(first), Spread::from_micros(later))
    }

    /// Latency of the deltas that were sent within a window.
    pub(crate) fn lag_within(&self, window: std::ops::Range<u64>) -> Spread {
        Spread::from_micros(
            self.lags.iter().filter(|(sent, _)| window.contains(sent)).map(|&(_, lag)| lag).collect(),
        )
    }

    pub(crate) fn lag(&self) -> Spread {
        self.lag_within(0..u64::MAX)
    }

    pub(crate) fn deltas_per_frame(&self) -> f64 {
        float(self.lags.len()) / float(self.frames.max(1))
    }
}

/// One running turn.
#[derive(Debug)]
pub(crate) struct TurnTimer {
    started: Instant,
    first: Option<Duration>,
}

impl TurnTimer {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), first: None }
    }

    /// Records text that arrived at `now`, by the clock of the timestamps.
    pub(crate) fn text(&mut self, text: &[u8], now: u64, tally: &mut Tally) {
        self.first.get_or_insert_with(|| self.started.elapsed());
        tally.lags.extend(stamps(text).map(|sent| (sent, now.saturating_sub(sent))));
    }

    pub(crate) fn has_text(&self) -> bool {
        self.first.is_some()
    }

    /// Records the end of the turn.
    pub(crate) fn end(self, tally: &mut Tally) {
        tally.first.extend(self.first.map(micros));
        tally.whole.push(micros(self.started.elapsed()));
    }
}

/// Returns the timestamps in a text: `t=1767225600000000;`.
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
    fn stamps_between_other_text_are_returned() {
        let text = b"x=1; t=1767225600000001;t=1767225600000002;=t=12;";
        assert_eq!(stamps(text).collect::<Vec<_>>(), [1_767_225_600_000_001, 1_767_225_600_000_002]);
    }
}
