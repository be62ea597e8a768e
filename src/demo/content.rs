//! Builds the messages of a step as lists of deltas.

use serde_json::Value;

use super::{
    request::ParsedRequest,
    schema,
    script::{Message, Step},
};

/// Delay per delta of an answer without a directive, about the pace of a reader.
pub(super) const DEFAULT_DELAY_MS: u64 = 20;
/// Characters of the user's text that the canned answer quotes.
const QUOTE_CHARS: usize = 80;

/// Characters of JSON per delta.
const SLICE_CHARS: usize = 8;

/// A message to stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StreamedMessage {
    pub(super) pieces: Pieces,
    pub(super) phase: Option<String>,
    pub(super) delay_ms: u64,
}

/// The deltas of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pieces {
    /// Deltas of the directive, or of a text.
    Listed(Vec<String>),
    /// A number of generated words. The iterator generates them, because a step may request a million.
    Generated(usize),
}

impl Pieces {
    /// Returns one delta per word, including its space.
    pub(super) fn words(text: &str) -> Self {
        Self::Listed(text.split_inclusive(' ').map(str::to_owned).collect())
    }

    /// Returns a few characters per delta, because JSON has no spaces to split at.
    fn slices(text: &str) -> Self {
        let letters: Vec<char> = text.chars().collect();
        Self::Listed(letters.chunks(SLICE_CHARS).map(|slice| slice.iter().collect()).collect())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Listed(pieces) => pieces.len(),
            Self::Generated(count) => *count,
        }
    }

    fn get(&self, index: usize) -> Option<String> {
        match self {
            Self::Listed(pieces) => pieces.get(index).cloned(),
            Self::Generated(count) if index + 1 < *count => Some(format!("tok{index} ")),
            Self::Generated(count) => (index < *count).then(|| format!("tok{index}")),
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
pub(super) fn messages(step: &Step, request: &ParsedRequest) -> Result<Vec<StreamedMessage>, String> {
    let message = |pieces| StreamedMessage { pieces, phase: step.phase.clone(), delay_ms: step.delay_ms };
    if let Some(messages) = &step.messages {
        return Ok(messages
            .iter()
            .map(|message| StreamedMessage {
                pieces: pieces(message).unwrap_or(Pieces::Generated(0)),
                phase: message.phase.clone().or_else(|| step.phase.clone()),
                delay_ms: message.delay_ms.unwrap_or(step.delay_ms),
            })
            .collect());
    }
    let Step { text, tokens, pieces, .. } = step.clone();
    let own = Message { text, tokens, pieces, ..Message::default() };
    if let Some(pieces) = self::pieces(&own) {
        return Ok(vec![message(pieces)]);
    }
    if step.echo {
        return Ok(vec![message(Pieces::slices(&request.echo.to_string()))]);
    }
    if step.schema_answer && request.schema.is_none() {
        return Err("schema_answer needs a json_schema in text.format".to_owned());
    }
    if !step.schema_answer && (!step.calls.is_empty() || step.failed.is_some()) {
        return Ok(Vec::new());
    }
    Ok(vec![message(match &request.schema {
        Some(schema) => Pieces::slices(&instance(schema)?),
        None => Pieces::words(&canned(&request.user)),
    })])
}

fn pieces(message: &Message) -> Option<Pieces> {
    let Message { text, tokens, pieces, .. } = message;
    text.as_deref()
        .map(Pieces::words)
        .or_else(|| tokens.map(Pieces::Generated))
        .or_else(|| pieces.clone().map(Pieces::Listed))
}

fn instance(schema: &Value) -> Result<String, String> {
    let instance = schema::instance(schema);
    instance
        .map(|value| value.to_string())
        .ok_or_else(|| "the scripted upstream cannot build an instance of this schema".to_owned())
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

    fn request(user: &str) -> ParsedRequest {
        ParsedRequest { user: user.to_owned(), ..ParsedRequest::default() }
    }

    #[test]
    fn pieces_of_a_text_join_to_it() {
        let words = Pieces::words("a  b\nc ");
        assert_eq!(words.clone().iter().collect::<Vec<_>>(), ["a ", " ", "b\nc "]);
        assert_eq!(words.text(), "a  b\nc ");
        assert_eq!(Pieces::words("").len(), 0);
        assert_eq!(Pieces::slices("äbcdefgh12").iter().collect::<Vec<_>>(), ["äbcdefgh", "12"]);
        assert_eq!(Pieces::Generated(3).iter().collect::<Vec<_>>(), ["tok0 ", "tok1 ", "tok2"]);
        assert_eq!(Pieces::Generated(0).text(), "");
    }

    #[test]
    fn canned_answer_quotes_the_text_and_has_a_valid_example() {
        let answer = messages(&Step::default(), &request("what\n is this?")).expect("messages");
        let text = answer[0].pieces.text();
        assert!(text.contains("“what is this?”"), "{text}");
        assert!(text.contains("docs/scripted-upstream.md"), "{text}");
        let long = messages(&Step::default(), &request(&"ä".repeat(500))).expect("messages")[0].pieces.text();
        assert!(long.contains(&format!("“{}…”", "ä".repeat(80))), "{long}");
        // The example in the answer must be a valid directive.
        assert!(super::super::script::Directive::find(&text).expect("good").is_some());
    }

    #[test]
    fn messages_of_calls_and_failures_are_empty() {
        let step = Step { failed: None, calls: Vec::new(), ..Step::default() };
        assert_eq!(messages(&step, &request("x")).expect("messages").len(), 1);
        let call = serde_json::from_value(json!({"calls": [{"name": "f"}]})).expect("a step");
        assert_eq!(messages(&call, &request("x")), Ok(Vec::new()));
        let failed =
            serde_json::from_value(json!({"failed": {"code": "a", "message": "b"}})).expect("a step");
        assert_eq!(messages(&failed, &request("x")), Ok(Vec::new()));
    }

    #[test]
    fn messages_with_a_schema_are_an_instance() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let with = ParsedRequest { schema: Some(schema), ..request("x") };
        assert_eq!(messages(&Step::default(), &with).expect("messages")[0].pieces.text(), r#"{"n":1}"#);
        let text = Step { text: Some("plain".into()), ..Step::default() };
        assert_eq!(messages(&text, &with).expect("messages")[0].pieces.text(), "plain");
        let schema_answer = Step { schema_answer: true, ..Step::default() };
        assert!(messages(&schema_answer, &request("x")).is_err());
        let unsatisfiable = ParsedRequest { schema: Some(json!(false)), ..request("x") };
        assert!(messages(&Step::default(), &unsatisfiable).is_err());
    }
}
