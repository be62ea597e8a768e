//! JSON answers: which schema the upstream gets, what is undone in its answer, and the validation of an answer that the
//! upstream does not enforce.

mod json_stream;
mod strict_form;

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::spawn_blocking};

pub(super) use self::json_stream::JsonStream;
use self::strict_form::strict_form;
use crate::{
    engine::{
        Format, Message, Part, ResponseSchema, Role, Turn,
        json_schema::argument_validator::{ArgumentValidator, SchemaError, ValidationError},
    },
    error::Error,
};

/// Maximum number of concurrent compilations and validations. Each occupies a thread for up to 1 s.
static JOBS: Semaphore = Semaphore::const_new(2);

/// Maximum number of positions of an answer at which a value seems to begin but does not. Each costs time that is linear
/// in the size of the answer.
const MAX_FAILED_BEGINNINGS: usize = 64;

/// How the text of the model becomes the answer. Shared by the choices of a request.
#[derive(Debug, Clone, Default)]
pub(super) enum AnswerPlan {
    /// The text is the answer.
    #[default]
    Text,
    /// The last message is the answer; the upstream enforces its schema.
    LastMessage,
    /// The object of the last message is the answer, translated while it arrives.
    Translated(JsonStream),
    /// As `Translated`, but the whole answer is validated before a part of it is emitted.
    Validated(Option<JsonStream>, Arc<AnswerValidator>),
}

/// The validator of an answer. `None` for a schema that the validator cannot compile, such as one with look-around in a
/// pattern: OpenAI takes such schemas, so that the server requires JSON only.
#[derive(Debug)]
pub(super) struct AnswerValidator(Option<ArgumentValidator>);

impl AnswerPlan {
    /// Selects the plan of a turn, and replaces the turn's schema by one that the upstream accepts.
    pub(super) async fn of(turn: &mut Turn) -> Result<Self, Error> {
        let schema = match &turn.format {
            Format::Text => return Ok(Self::Text),
            Format::JsonObject => return Ok(Self::Translated(JsonStream::new(None))),
            Format::JsonSchema(schema) if schema.strict => return Ok(Self::LastMessage),
            Format::JsonSchema(schema) => Arc::clone(schema),
        };
        if is_any_object(&schema.value) {
            turn.format = Format::JsonObject;
            return Ok(Self::Translated(JsonStream::new(None)));
        }
        let job = JOBS.acquire().await.map_err(Error::internal)?;
        let prepared = spawn_blocking(move || {
            let form = strict_form(&schema.value);
            let validator = match &form {
                Some(form) if !form.is_lossy => None,
                Some(_) | None => Some(AnswerValidator::new(&schema.value)?),
            };
            Ok::<_, Error>((schema, form, validator))
        });
        let (original, form, validator) = prepared.await.map_err(Error::internal)??;
        drop(job);
        let stream = form.map(|form| {
            let text = form.schema.to_string();
            turn.format =
                Format::JsonSchema(Arc::new(ResponseSchema { text, value: form.schema, strict: true }));
            JsonStream::new(Some(Arc::new(form.shapes)))
        });
        if stream.is_none() {
            turn.format = Format::Text;
            let text = format!(
                "Answer with one JSON value that matches this JSON Schema, and nothing else: no fence, no comment.\n{}",
                original.value
            );
            turn.messages.insert(0, developer(text));
        }
        Ok(match (stream, validator) {
            (stream, Some(validator)) => Self::Validated(stream, Arc::new(validator)),
            (Some(stream), None) => Self::Translated(stream),
            (None, None) => Self::LastMessage,
        })
    }

    /// Prepares for an answer that the caller gets as a whole.
    pub(super) fn set_whole(&mut self) {
        if let Self::Translated(stream) = self {
            stream.set_patient();
        }
    }

    /// Returns `true` if the server may find that the model's answer is not of the format.
    pub(super) fn may_refuse(&self) -> bool {
        matches!(self, Self::Translated(_) | Self::Validated(..))
    }
}

impl AnswerValidator {
    /// Compiles a schema. Fails for a schema beyond the limits.
    fn new(schema: &Value) -> Result<Self, Error> {
        match ArgumentValidator::new(schema) {
            Ok(validator) => Ok(Self(Some(validator))),
            Err(SchemaError::Uncompilable(_) | SchemaError::UncompilablePattern { .. }) => Ok(Self(None)),
            Err(
                error @ (SchemaError::Size(_)
                | SchemaError::PatternTooLong(_)
                | SchemaError::TooManyPatterns { .. }),
            ) => Err(Error::invalid("response_format.json_schema.schema", error.to_string())),
        }
    }

    /// Finds the JSON value of an answer and validates it. The error describes the mismatch.
    pub(super) async fn check(self: Arc<Self>, text: String) -> Result<Result<String, String>, Error> {
        let job = JOBS.acquire().await.map_err(Error::internal)?;
        let checked = spawn_blocking(move || {
            let Some(found) = json_value(&text) else { return Err("is not JSON".to_owned()) };
            let Some(validator) = &self.0 else { return Ok(found.to_owned()) };
            match validator.validate(found, None) {
                Ok(()) => Ok(found.to_owned()),
                Err(ValidationError::Invalid(what)) => Err(format!("does not match the schema: {what}")),
                Err(ValidationError::TooExpensive(what)) => Err(what),
            }
        });
        let checked = checked.await.map_err(Error::internal);
        drop(job);
        checked
    }
}

/// Returns `true` if a schema only demands an object. Clients send it as the JSON mode.
fn is_any_object(schema: &Value) -> bool {
    schema["type"] == "object"
        && schema.as_object().is_some_and(|fields| {
            fields.iter().all(|(keyword, value)| match keyword.as_str() {
                "type" | "title" | "$schema" | "$id" => true,
                "additionalProperties" => *value == true || *value == json!({}),
                "properties" => *value == json!({}),
                "required" => *value == json!([]),
                _ => false,
            })
        })
}

/// Appends a refused answer and the reason, so that the model corrects it.
pub(super) fn ask_again(turn: &mut Turn, answer: String, mistake: &str) {
    if !answer.is_empty() {
        turn.messages.push(message(Role::Assistant, answer));
    }
    turn.messages.push(message(
        Role::Developer,
        format!("This answer {mistake}. Answer again with the JSON alone, without a fence or a comment."),
    ));
}

fn developer(text: String) -> Message {
    message(Role::Developer, text)
}

fn message(role: Role, text: String) -> Message {
    Message { role, name: None, parts: vec![Part::Text(text)], tool_calls: Vec::new(), tool_call_id: None }
}

/// Returns the JSON value of a text: the whole text, or the longest object or array in it.
fn json_value(text: &str) -> Option<&str> {
    let text = text.trim();
    if is_json(text) { Some(text) } else { longest_json(text, &['{', '[']) }
}

/// Returns the longest JSON value of a text that begins with one of these characters. Returns `None` if such a value is
/// incomplete at the end of the text.
fn longest_json<'a>(text: &'a str, openings: &[char]) -> Option<&'a str> {
    let mut best: Option<&str> = None;
    let (mut from, mut failures) = (0, 0);
    while let Some(start) = text[from..].find(openings).map(|at| from + at) {
        let second = text[start + 1..].trim_start().chars().next();
        let may_begin = match second {
            Some('"' | '}') => true,
            Some(c) => text[start..].starts_with('[') && (c.is_ascii_alphanumeric() || "[{]-".contains(c)),
            None => false,
        };
        if !may_begin {
            from = start + 1;
            continue;
        }
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<IgnoredAny>();
        from = match values.next() {
            Some(Ok(_)) => {
                let found = &text[start..start + values.byte_offset()];
                if best.is_none_or(|best| best.len() < found.len()) {
                    best = Some(found);
                }
                start + found.len()
            }
            Some(Err(error)) if error.is_eof() => return None,
            Some(Err(_)) | None => start + 1,
        };
        if from == start + 1 {
            failures += 1;
            if failures == MAX_FAILED_BEGINNINGS {
                break;
            }
        }
    }
    best
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests;
