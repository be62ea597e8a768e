//! Converts the body of a completion request into the contract's `ChatRequest`.

use super::request::{CompletionRequest, Prompt};
use crate::{
    http::{
        error::ApiError,
        forms::{content::text_part, types::TextOr},
    },
    pb,
};

/// The task of the model, which has only conversations.
const CONTINUE: &str = "The user's message is the beginning of a text. Answer with its continuation only: no introduction, no \
    repetition of the beginning, no explanation, no code fence around it. Begin with white space where the continuation needs it.";

/// The task with a text behind the gap.
const FILL: &str = "The user's message has the beginning of a text between <prefix> and </prefix>, and its end between <suffix> and \
    </suffix>. Answer with the text between them only: no introduction, no repetition of either, no explanation, no code fence \
    around it.";

/// A completion request in the contract's terms, with the parameters that only this door needs.
#[derive(Debug, PartialEq)]
pub(super) struct ConvertedRequest {
    pub(super) request: pb::ChatRequest,
    /// Whether the last chunk of a stream has the usage. `None` selects one JSON object.
    pub(super) stream: Option<bool>,
    /// Parameters without effect, for the response header.
    pub(super) ignored_params: Vec<String>,
}

impl TryFrom<CompletionRequest> for ConvertedRequest {
    type Error = ApiError;

    /// Converts a body. The error names the parameter that has no equivalent.
    fn try_from(wire: CompletionRequest) -> Result<Self, ApiError> {
        let ignored_params = wire.extra.ignored()?;
        let prompt = match wire.prompt {
            Some(TextOr::Text(text)) => text,
            Some(TextOr::List(list)) => single(list)?,
            None => return Err(without_prompt(wire.extra.has("messages"))),
        };
        if wire.best_of.is_some_and(|best_of| best_of > wire.n.unwrap_or(1)) {
            let message = "best_of: this server does not rank answers; send `n`";
            return Err(ApiError::unsupported("best_of", message));
        }
        let (task, text) = match wire.suffix.filter(|suffix| !suffix.is_empty()) {
            None => (CONTINUE, prompt),
            Some(suffix) => (FILL, format!("<prefix>{prompt}</prefix>\n<suffix>{suffix}</suffix>")),
        };
        let message = |role: pb::Role, text: String| pb::Message {
            role: role.into(),
            parts: vec![text_part(text)],
            ..pb::Message::default()
        };
        let request = pb::ChatRequest {
            model: wire.model.unwrap_or_default(),
            messages: vec![message(pb::Role::Developer, task.to_owned()), message(pb::Role::User, text)],
            stop: wire.stop.map(TextOr::into_texts).unwrap_or_default(),
            max_output_tokens: wire.max_tokens.filter(|limit| *limit != 0),
            n: wire.n,
            user: wire.extra.user(),
            ..pb::ChatRequest::default()
        };
        let include_usage = wire.stream_options.and_then(|options| options.include_usage).unwrap_or_default();
        let stream = wire.stream.unwrap_or_default().then_some(include_usage);
        Ok(Self { request, stream, ignored_params })
    }
}

/// Returns the prompt of a list with one. Completion of several prompts would be several conversations.
fn single(list: Vec<Prompt>) -> Result<String, ApiError> {
    let mut prompts = list.into_iter();
    match (prompts.next(), prompts.next()) {
        (Some(Prompt::Text(text)), None) => Ok(text),
        (Some(Prompt::Tokens(_)), _) => {
            Err(ApiError::unsupported("prompt", "prompt: tokens are not supported; send the text"))
        }
        (Some(Prompt::Text(_)), Some(_)) => {
            Err(ApiError::unsupported("prompt", "prompt: send one text in each request"))
        }
        (None, _) => Err(without_prompt(false)),
    }
}

fn without_prompt(has_messages: bool) -> ApiError {
    let text = match has_messages {
        true => "prompt: this is a body of chat completions: send it to /v1/chat/completions",
        false => "prompt must be a text",
    };
    ApiError::invalid("prompt", text)
}
