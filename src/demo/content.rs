//! Builds the messages of a step as lists of deltas.

use serde_json::Value;

use super::{
    request::ParsedRequest,
    schema,
    script::{Message, Step},
};

/// Delay per delta of an answer without a directive: the pace of a reader.
pub(super) const DEFAULT_DELAY_MS: u64 = 20;
/// Characters of the user's text that the canned answer quotes.
const QUOTE_CHARS: usize = 80;

/// Characters of JSON per delta.
const SLICE_CHARS: usize = 8;

/// A message to stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spoken {
    pub(super) pieces: Pieces,
    pub(super) phase: Option<String>,
    pub(super) delay_ms: u64,
}

/// The deltas of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pieces {
    /// Given deltas.
    Given(Vec<String>),
    /// A number of generated words. They are generated while they are sent, because a step may request a million.
    Made(usize),
}

impl Pieces {
    /// One delta per word, including its space.
    pub(super) fn words(text: &str) -> Self {
        Self::Given(text.split_inclusive(' ').map(str::to_owned).collect())
    }

    /// A few characters per delta, because JSON has no spaces to split at.
    fn slices(text: &str) -> Self {
        let letters: Vec<char> = text.chars().collect();
        Self::Given(letters.chunks(SLICE_CHARS).map(|slice| slice.iter().collect()).collect())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Given(pieces) => pieces.len(),
            Self::Made(count) => *count,
        }
    }

    fn get(&self, index: usize) -> Option<String> {
        match self {
            Self::Given(pieces) => pieces.get(index).cloned(),
            Self::Made(count) if index + 1 < *count => Some(format!("tok{index} ")),
            Self::Made(count) => (index < *count).then(|| format!("tok{index}")),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = String> + Send {
        (0..self.len()).filter_map(move |index| self.get(index))
    }

    pub(super) fn text(&self) -> String {
        self.clone().iter().collect()
    }
}

/// Returns the messages of a step. Fails if no instance of its schema can be built.
pub(super) fn messages(step: &Step, seen: &ParsedRequest) -> Result<Vec<Spoken>, String> {
    let spoken = |pieces| Spoken { pieces, phase: step.phase.clone(), delay_ms: step.delay_ms };
    if let Some(messages) = &step.messages {
        return Ok(messages
            .iter()
            .map(|message| Spoken {
                pieces: given(message).unwrap_or(Pieces::Made(0)),
                phase: message.phase.clone().or_else(|| step.phase.clone()),
                delay_ms: message.delay_ms.unwrap_or(step.delay_ms),
            })
            .collect());
    }
    let Step { text, tokens, pieces, .. } = step.clone();
    let own = Message { text, tokens, pieces, ..Message::default() };
    if let Some(pieces) = given(&own) {
        return Ok(vec![spoken(pieces)]);
    }
    if step.echo {
        return Ok(vec![spoken(Pieces::slices(&seen.echo.to_string()))]);
    }
    if step.schema_answer && seen.schema.is_none() {
        return Err("schema_answer needs a json_schema in text.format".to_owned());
    }
    if !step.schema_answer && (!step.calls.is_empty() || step.failed.is_some()) {
        return Ok(Vec::new());
    }
    Ok(vec![spoken(match &seen.schema {
        Some(schema) => Pieces::slices(&instance(schema)?),
        None => Pieces::words(&canned(&seen.user)),
    })])
}

fn given(message: &Message) -> Option<Pieces> {
    let Message { text, tokens, pieces, .. } = message;
    text.as_deref()
        .map(Pieces::words)
        .or_else(|| tokens.map(Pieces::Made))
        .or_else(|| pieces.clone().map(Pieces::Given))
}

fn instance(schema: &Value) -> Result<String, String> {
    let made = schema::instance(schema);
    made.map(|value| value.to_string())
        .ok_or_else(|| "the scripted upstream cannot make an instance of this schema".to_owned())
}

/// Returns the answer to a text without a directive.
fn canned(user: &str) -> String {
    let words = user.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut quote: String = words.chars().take(QUOTE_CHARS).collect();
    if quote.len() < words.len() {
        quote.push('…');
    }
    format!(
        "Hello! This is the demo upstream of codex-api: a script, not a model. You wrote: “{quote}”. \
         To choose my answer, put a directive into your message, for example \
         @@ [{{\"text\": \"Hello world\", \"delay_ms\": 50}}] @@. \
         The file docs/scripted-upstream.md lists all that a directive can do."
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(user: &str) -> ParsedRequest {
        ParsedRequest { user: user.to_owned(), ..ParsedRequest::default() }
    }

    #[test]
    fn pieces_of_a_text_join_to_it() {
        let words = Pieces::words("a  b\nc ");
        assert_eq!(words.clone().iter().collect::<Vec<_>>(), ["a ", " ", "b\nc "]);
        assert_eq!(words.text(), "a  b\nc ");
        assert_eq!(Pieces::words("").len(), 0);
        assert_eq!(Pieces::slices("äbcdefgh12").iter().collect::<Vec<_>>(), ["äbcdefgh", "12"]);
        assert_eq!(Pieces::Made(3).iter().collect::<Vec<_>>(), ["tok0 ", "tok1 ", "tok2"]);
        assert_eq!(Pieces::Made(0).text(), "");
    }

    #[test]
    fn canned_answer_quotes_the_text_and_has_a_valid_example() {
        let said = messages(&Step::default(), &seen("what\n is this?")).expect("said");
        let text = said[0].pieces.text();
        assert!(text.contains("“what is this?”"), "{text}");
        assert!(text.contains("docs/scripted-upstream.md"), "{text}");
        let long = messages(&Step::default(), &seen(&"ä".repeat(500))).expect("said")[0].pieces.text();
        assert!(long.contains(&format!("“{}…”", "ä".repeat(80))), "{long}");
        // The example in the answer must be a valid directive.
        assert!(super::super::script::Directive::find(&text).expect("good").is_some());
    }

    #[test]
    fn messages_of_calls_and_failures_are_empty() {
        let step = Step { failed: None, calls: Vec::new(), ..Step::default() };
        assert_eq!(messages(&step, &seen("x")).expect("said").len(), 1);
        let call = serde_json::from_value(json!({"calls": [{"name": "f"}]})).expect("a step");
        assert_eq!(messages(&call, &seen("x")), Ok(Vec::new()));
        let failed =
            serde_json::from_value(json!({"failed": {"code": "a", "message": "b"}})).expect("a step");
        assert_eq!(messages(&failed, &seen("x")), Ok(Vec::new()));
    }

    #[test]
    fn messages_with_a_schema_are_an_instance() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let with = ParsedRequest { schema: Some(schema), ..seen("x") };
        assert_eq!(messages(&Step::default(), &with).expect("said")[0].pieces.text(), r#"{"n":1}"#);
        let text = Step { text: Some("plain".into()), ..Step::default() };
        assert_eq!(messages(&text, &with).expect("said")[0].pieces.text(), "plain");
        let asked = Step { schema_answer: true, ..Step::default() };
        assert!(messages(&asked, &seen("x")).is_err());
        let never = ParsedRequest { schema: Some(json!(false)), ..seen("x") };
        assert!(messages(&Step::default(), &never).is_err());
    }
}
