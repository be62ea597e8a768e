//! Estimates the tokens of a turn whose answer was cut before Codex reported them. Holds samples of bounded size, so that
//! neither memory nor time grows with the texts.

use std::sync::Arc;

use super::output_filter::TOKENIZER;
use crate::{
    engine::{Format, Parameters, Part, Turn},
    pb::{self, chat_event::Event},
};

/// Maximum size of a sample in bytes. Shorter texts are counted exactly.
const SAMPLE_BYTES: usize = 16 << 10;

/// Length of the pieces that a sample takes from a longer text.
const PIECE_BYTES: usize = 512;

/// Tokens around each message: its role and its ends.
const MESSAGE_TOKENS: u64 = 4;

/// Tokens of an image. OpenAI counts this number for 1024 × 1024 pixels.
const IMAGE_TOKENS: u64 = 765;

/// The estimate of one answer. Owned by its `ChoiceStream`; the prompt is shared by the choices of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct UsageEstimate {
    prompt: Arc<Prompt>,
    answer: Sample,
    reasoning: Sample,
}

#[derive(Debug, Default)]
struct Prompt {
    text: Sample,
    /// Tokens of everything but text.
    other_tokens: u64,
}

/// A part of a text whose tokens represent the whole.
#[derive(Debug, Clone, Default)]
struct Sample {
    text: String,
    total_bytes: usize,
}

impl UsageEstimate {
    /// Takes a sample of the prompt of `turn`.
    pub(super) fn new(turn: &Turn) -> Self {
        let texts: Vec<&str> = texts(turn).collect();
        let total: usize = texts.iter().map(|text| text.len()).sum();
        let mut sample = Sample::default();
        for text in texts {
            sample.push_share(text, total);
        }
        let images = turn.messages.iter().flat_map(|message| &message.parts);
        let images = images.filter(|part| matches!(part, Part::Image(_))).count();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let other_tokens = count(turn.messages.len()) * MESSAGE_TOKENS + count(images) * IMAGE_TOKENS;
        let prompt = Arc::new(Prompt { text: sample, other_tokens });
        Self { prompt, ..Self::default() }
    }

    /// Counts what an event adds to the answer.
    pub(super) fn record(&mut self, event: &Event) {
        match event {
            Event::TextDelta(delta) => self.answer.push(&delta.text),
            Event::ReasoningDelta(delta) => self.reasoning.push(&delta.text),
            Event::ToolCall(call) => {
                self.answer.push(&call.name);
                self.answer.push(&call.arguments);
            }
            Event::Started(_)
            | Event::MessageStarted(_)
            | Event::Item(_)
            | Event::Notice(_)
            | Event::Heartbeat(_)
            | Event::ChoiceFinished(_)
            | Event::Completed(_) => {}
        }
    }

    /// Returns the estimate for everything recorded so far.
    pub(super) fn usage(&self) -> pb::Usage {
        let reasoning = self.reasoning.tokens();
        pb::Usage {
            input_tokens: self.prompt.text.tokens() + self.prompt.other_tokens,
            cached_input_tokens: 0,
            output_tokens: self.answer.tokens() + reasoning,
            reasoning_output_tokens: reasoning,
            estimated: true,
        }
    }
}

/// Returns every text of a turn that reaches the model.
fn texts(turn: &Turn) -> impl Iterator<Item = &str> {
    let messages = turn.messages.iter().flat_map(|message| {
        let parts = message.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image(_) => None,
        });
        let calls = message.tool_calls.iter().flat_map(|call| [call.name.as_str(), call.arguments.as_str()]);
        parts.chain(calls).chain(message.name.as_deref())
    });
    let tools = turn.tools.iter().flat_map(|tool| {
        let schema = match &tool.parameters {
            Parameters::Json(text) => text.as_str(),
            // The deprecated form has no text yet.
            Parameters::None | Parameters::Struct(_) => "",
        };
        [tool.name.as_str(), tool.description.as_str(), schema]
    });
    let schema = match &turn.format {
        Format::JsonSchema(schema) => Some(schema.text.as_str()),
        Format::Text | Format::JsonObject => None,
    };
    messages.chain(tools).chain(schema)
}

impl Sample {
    /// Adds the next text, up to the maximum size.
    fn push(&mut self, text: &str) {
        self.total_bytes = self.total_bytes.saturating_add(text.len());
        let free = SAMPLE_BYTES.saturating_sub(self.text.len());
        self.text.push_str(&text[..text.floor_char_boundary(free)]);
    }

    /// Adds pieces from all over `text`, which is a part of `all_bytes`.
    fn push_share(&mut self, text: &str, all_bytes: usize) {
        if all_bytes <= SAMPLE_BYTES {
            self.push(text);
            return;
        }
        self.total_bytes = self.total_bytes.saturating_add(text.len());
        // In 128 bits, because the product may exceed the address space of small machines.
        let share = (text.len() as u128 * SAMPLE_BYTES as u128) / all_bytes as u128;
        let share = usize::try_from(share).unwrap_or(SAMPLE_BYTES);
        let pieces = share.div_ceil(PIECE_BYTES);
        for piece in 0..pieces {
            let start = text.floor_char_boundary(text.len() / pieces * piece);
            let end = text.floor_char_boundary(start + share / pieces);
            self.text.push_str(&text[start..end]);
        }
    }

    /// Returns the tokens of the whole text, in proportion to the sample.
    fn tokens(&self) -> u64 {
        if self.text.is_empty() {
            return 0;
        }
        let tokens = TOKENIZER.count(self.text.as_str()) as u128 * self.total_bytes as u128;
        u64::try_from(tokens / self.text.len() as u128).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Message, Role};

    fn turn(texts: &[&str]) -> Turn {
        let message = |text: &&str| Message {
            role: Role::User,
            name: None,
            parts: vec![Part::Text((*text).to_owned())],
            tool_calls: Vec::new(),
            tool_call_id: None,
        };
        Turn { messages: texts.iter().map(message).collect(), ..Turn::default() }
    }

    fn text(text: &str) -> Event {
        Event::TextDelta(pb::TextDelta { text: text.into() })
    }

    #[test]
    fn usage_of_short_texts_is_counted_exactly() {
        let mut estimate = UsageEstimate::new(&turn(&["hello world again", "one two"]));
        for event in [
            text("one "),
            text("two three"),
            Event::ReasoningDelta(pb::ReasoningDelta { text: "hm well".into() }),
            Event::ToolCall(pb::ToolCall { name: "f".into(), arguments: "{}".into(), id: "ignored".into() }),
        ] {
            estimate.record(&event);
        }
        let expected = pb::Usage {
            input_tokens: 3 + 2 + 2 * MESSAGE_TOKENS,
            cached_input_tokens: 0,
            output_tokens: 3 + 2 + 2,
            reasoning_output_tokens: 2,
            estimated: true,
        };
        assert_eq!(estimate.usage(), expected);
        assert_eq!(estimate.clone().usage(), expected, "the prompt is shared by the choices");
    }

    #[test]
    fn usage_of_long_texts_is_near_the_exact_count() {
        let prose = "The quick brown fox jumps over the lazy dog. ".repeat(4000);
        let code = "fn main() { let x: Vec<u8> = vec![0; 42]; }\n".repeat(2000);
        let chinese = "敏捷的棕色狐狸跳过了懒狗。".repeat(3000);
        let texts = [prose.as_str(), code.as_str(), chinese.as_str(), "short"];
        let exact: usize = texts.iter().map(|text| TOKENIZER.count(*text)).sum();
        let mut estimate = UsageEstimate::new(&turn(&texts));
        assert!(estimate.prompt.text.text.len() <= SAMPLE_BYTES);
        let near = |tokens: u64, exact: usize| {
            let (tokens, exact) = (tokens as f64, exact as f64);
            assert!((tokens / exact - 1.0).abs() < 0.1, "{tokens} instead of {exact}");
        };
        near(estimate.usage().input_tokens, exact);
        for _ in 0..4 {
            estimate.record(&text(&prose));
        }
        assert!(estimate.answer.text.len() <= SAMPLE_BYTES);
        near(estimate.usage().output_tokens, 4 * TOKENIZER.count(prose.as_str()));
    }

    #[test]
    fn usage_counts_images_and_nothing_for_an_empty_answer() {
        assert_eq!(UsageEstimate::default().usage().output_tokens, 0);
        let mut turn = turn(&[""]);
        let image = crate::engine::Image { kind: crate::engine::ImageKind::Png, data: bytes::Bytes::new() };
        turn.messages[0].parts.push(Part::Image(image));
        assert_eq!(UsageEstimate::new(&turn).usage().input_tokens, MESSAGE_TOKENS + IMAGE_TOKENS);
    }
}
