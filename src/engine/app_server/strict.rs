//! The schema of a strict tool, and the check of arguments against it. Both come from others: a schema of a few lines can
//! stand for more parts than any machine has memory. So it is counted what a check would do, before it is done.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::work::{Work, work};

/// Parts that a schema may have, each reference followed.
const MAX_PARTS: u64 = 100_000;

/// Steps that a check may take: parts of the schema, each as often as it meets a part of the arguments.
const MAX_STEPS: u64 = 2_000_000;

/// Steps up to which a mistake is told in detail: of a choice, what is wrong with each alternative is kept meanwhile.
const MAX_STEPS_TOLD: u64 = 20_000;

/// Steps that a client's regular expression may take on the model's arguments.
const MAX_PATTERN_STEPS: usize = 10_000;

const MAX_COMPLAINT_CHARS: usize = 300;

/// A schema that arguments are checked against.
#[derive(Debug)]
pub(super) struct Strict {
    schema: Value,
    validator: Validator,
}

impl Strict {
    /// Compiled once for the turn. Nothing outside the schema is ever fetched. The error says what cannot be checked.
    pub(super) fn new(schema: &Value) -> Result<Self, String> {
        work(schema, None, MAX_PARTS).map_err(|trouble| match trouble {
            Work::TooMuch => format!("it has more than {MAX_PARTS} parts, its references followed"),
            Work::TooDeep => "it is too deep, its references followed".to_owned(),
            Work::Endless => "a reference leads back to itself".to_owned(),
            Work::Unknown(reference) => {
                let reference: String = reference.chars().take(MAX_COMPLAINT_CHARS).collect();
                format!("{reference:?} is not a place in it that is written as `#/…`")
            }
        })?;
        let patterns = PatternOptions::fancy_regex().backtrack_limit(MAX_PATTERN_STEPS);
        let options =
            jsonschema::options().with_pattern_options(patterns).should_validate_formats(true).offline();
        let validator = options
            .build(schema)
            .map_err(|error| error.to_string().chars().take(MAX_COMPLAINT_CHARS).collect::<String>())?;
        Ok(Self { schema: schema.clone(), validator })
    }

    /// Checks arguments; the error goes on behind the name of whose they are. May take a while: not for a thread that
    /// others wait for.
    pub(super) fn check(&self, arguments: &str) -> Result<(), String> {
        let value: Value =
            serde_json::from_str(arguments).map_err(|error| format!("are not JSON: {error}"))?;
        let Ok(steps) = work(&self.schema, Some(&value), MAX_STEPS) else {
            return Err(
                "cannot be checked against its schema: they are too large or too deep for it".to_owned()
            );
        };
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        let told = (steps <= MAX_STEPS_TOLD).then(|| self.validator.validate(&value).err()).flatten();
        let Some(error) = told else { return Err("do not match its schema".to_owned()) };
        let what: String = error.to_string().chars().take(MAX_COMPLAINT_CHARS).collect();
        let at = error.instance_path().to_string();
        let at = if at.is_empty() { String::new() } else { format!(" at {at}") };
        Err(format!("do not match its schema{at}: {what}"))
    }
}

#[cfg(test)]
#[path = "strict_tests.rs"]
mod tests;
