//! The schema of a strict tool, and the check of arguments against it. Both come from others: a schema of a few lines can
//! stand for more parts than any machine has memory. So it is counted what a check would do, before it is done.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::validation_cost::{CostError, at_once, is_plain, is_telling, parts, steps};

/// Parts that a schema may have, each reference followed.
const MAX_PARTS: u64 = 100_000;

/// Steps that a check may take: parts of the schema, each as often as it meets a part of the arguments.
const MAX_STEPS: u64 = 2_000_000;

/// Steps up to which a mistake is told in detail: of a choice, what is wrong with each alternative is kept meanwhile.
const MAX_STEPS_TOLD: u64 = 20_000;

/// Steps that a client's regular expression may take on the model's arguments.
const MAX_PATTERN_STEPS: usize = 10_000;

const MAX_COMPLAINT_CHARS: usize = 300;

/// Why arguments are not accepted; goes on behind the name of whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ValidationError {
    /// The model's mistake.
    Wrong(String),
    /// Nobody's: it cannot be found out whether they are right.
    Unknown(String),
}

/// A schema that arguments are checked against.
#[derive(Debug)]
pub(crate) struct ArgumentValidator {
    schema: Value,
    validator: Validator,
}

impl ArgumentValidator {
    /// Compiled once for the turn. Nothing outside the schema is ever fetched. The error says what cannot be checked.
    pub(crate) fn new(schema: &Value) -> Result<Self, String> {
        parts(schema, MAX_PARTS).map_err(|trouble| match trouble {
            CostError::TooMuch => format!("it has more than {MAX_PARTS} parts, its references followed"),
            CostError::TooDeep => "it is too deep, its references followed".to_owned(),
            CostError::Endless => "a reference leads back to itself".to_owned(),
            CostError::Unknown(reference) => {
                let reference: String = reference.chars().take(MAX_COMPLAINT_CHARS).collect();
                format!("{reference:?} is not a place in it that is written as `#/…`")
            }
        })?;
        let schema = telling_first(schema.clone());
        let patterns = PatternOptions::fancy_regex().backtrack_limit(MAX_PATTERN_STEPS);
        let options =
            jsonschema::options().with_pattern_options(patterns).should_validate_formats(true).offline();
        let validator = options
            .build(&schema)
            .map_err(|error| error.to_string().chars().take(MAX_COMPLAINT_CHARS).collect::<String>())?;
        Ok(Self { schema, validator })
    }

    /// Checks arguments. May take a while: not for a thread that others wait for.
    pub(crate) fn check(&self, arguments: &str) -> Result<(), ValidationError> {
        let value: Value = serde_json::from_str(arguments)
            .map_err(|error| ValidationError::Wrong(format!("are not JSON: {error}")))?;
        let value = plain_first(value);
        if at_once(&self.schema, &value, MAX_STEPS).is_err() {
            let what = "cannot be checked against its schema: they are too large or too deep for it";
            return Err(ValidationError::Unknown(what.to_owned()));
        }
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        let may_tell = steps(&self.schema, &value, MAX_STEPS_TOLD).is_ok();
        let told = may_tell.then(|| self.validator.validate(&value).err()).flatten();
        let Some(error) = told else {
            return Err(ValidationError::Wrong("do not match its schema".to_owned()));
        };
        let what: String = error.to_string().chars().take(MAX_COMPLAINT_CHARS).collect();
        let at = error.instance_path().to_string();
        let at = if at.is_empty() { String::new() } else { format!(" at {at}") };
        Err(ValidationError::Wrong(format!("do not match its schema{at}: {what}")))
    }
}

/// Properties whose parts tell a plain value from another come first: what is not meant at all is then known before what
/// is inside it is looked at. The validator goes by the order of the schema's properties, or by that of the value's.
fn telling_first(schema: Value) -> Value {
    match schema {
        Value::Array(parts) => parts.into_iter().map(telling_first).collect(),
        Value::Object(parts) => {
            let parts = parts.into_iter().map(|(keyword, part)| {
                let mut part = telling_first(part);
                if keyword == "properties"
                    && let Value::Object(properties) = &mut part
                {
                    let (telling, others): (Vec<_>, Vec<_>) =
                        std::mem::take(properties).into_iter().partition(|(_, part)| is_telling(part));
                    properties.extend(telling.into_iter().chain(others));
                }
                (keyword, part)
            });
            parts.collect()
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

/// Members that hold nothing come first.
fn plain_first(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(plain_first).collect(),
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, member)| (name, plain_first(member)));
            let (plain, others): (Vec<_>, Vec<_>) = members.partition(|(_, member)| is_plain(member));
            plain.into_iter().chain(others).collect()
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

#[cfg(test)]
mod tests;
