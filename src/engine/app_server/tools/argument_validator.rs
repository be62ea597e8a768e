//! The schema of a strict tool, and the validation of arguments against it.
//!
//! Both come from others. A schema of a few lines can cost any machine's memory to compile, and 2^60 steps to apply.
//! So a schema's parts and patterns are limited before it is compiled, and each validation has a budget.

use std::time::Instant;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::{
    metered_value::{Budget, BudgetExceeded, Metered, MeteredValue, within},
    schema_size::{SchemaSize, SizeError, schema_size},
};

/// Maximum number of parts of a schema, each reference followed. 30,000 properties of one keyword have 60,003 parts and
/// 829 KB of text; they take 24 ms and 25 MB to compile (`jsonschema` 0.61, 2 CPUs, release build). 99,000 empty parts
/// take 64 ms and 40 MB.
pub(crate) const MAX_PARTS: u64 = 100_000;

/// Maximum bytes of a pattern's text. Character classes are expanded before a size limit holds: 4 KB of classes take
/// 5 ms and 4 MB, 40 KB of them 42 ms and 32 MB.
const MAX_PATTERN_TEXT_BYTES: usize = 4096;

/// Compiled bytes that each pattern of a schema may have: the first of these limits that all of them meet.
///
/// A pattern keeps up to ten times its limit (0.04, 0.16 and 1.3 MB) with what speeds up its search, and takes up to
/// 0.2, 0.5 and 5 ms to compile. `^\p{L}+$` needs 64 KiB, an address or a UUID less than 4 KiB. `jsonschema` matches a
/// repeated class such as `[\p{L} '-]{1,50}` without compiling it. Without limits, 300 patterns of `^\p{L}{160}` take
/// 15.5 s and 2.3 GB; here the first of them is refused after 0.6 ms.
const PATTERN_BYTES: [usize; 3] = [4 << 10, 16 << 10, 128 << 10];

/// Maximum of the compiled bytes of all patterns: 2,560 small, 640 medium or 80 large ones. They keep up to 100 MB, and
/// take up to 0.4 s to compile.
pub(crate) const MAX_PATTERN_BYTES: usize = 10 << 20;

/// Cache of a pattern's search.
const SEARCH_CACHE_BYTES: usize = 64 << 10;

/// Maximum of the text's bytes times the pattern's compiled bytes: 512, 128 and 16 KiB of text for the limits above. A
/// search is linear in both, and takes up to 14 µs for each byte of text at 128 KiB: 0.23 s. A mistake takes three.
const MAX_SEARCH_COST: usize = 1 << 31;

/// Reads of the arguments that a validation may take: 0.1 s.
const MAX_READS: u64 = 10_000_000;

/// Reads up to which a mistake is described in detail. Of alternatives, the mistakes of each are kept meanwhile: up to
/// 6 ms and 5 MB.
const MAX_DETAIL_READS: u64 = 200_000;

const MAX_COMPLAINT_CHARS: usize = 300;

/// The reason why a schema is refused. The texts go on behind the name of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    /// The parts cannot be counted, or are too many.
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error("a pattern has {0} bytes, more than {MAX_PATTERN_TEXT_BYTES}")]
    PatternTooLong(usize),
    #[error("it has more than {max_patterns} patterns of up to {} KiB compiled", limit >> 10)]
    TooManyPatterns { max_patterns: usize, limit: usize },
    #[error("{0}")]
    Uncompilable(String),
    /// A schema with patterns does not compile within the largest limit of a pattern.
    #[error("{message} (patterns may have {} KiB compiled, and no look-around)", limit >> 10)]
    UncompilablePattern { message: String, limit: usize },
}

/// The reason why arguments are not accepted. The text goes on behind the tool's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ValidationError {
    /// The arguments do not match: the model's mistake.
    Invalid(String),
    /// The budget was spent before a result was known. The model could not do better.
    TooExpensive(String),
}

/// What a compiled schema costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchemaCost {
    /// Parts, each reference followed.
    pub(crate) parts: u64,
    /// Upper limit of the compiled bytes of the patterns.
    pub(crate) pattern_bytes: usize,
}

/// A compiled schema that arguments are validated against.
#[derive(Debug)]
pub(crate) struct ArgumentValidator {
    validator: Validator<Metered>,
    cost: SchemaCost,
    /// Maximum length of a text that a pattern may search.
    text_bytes: usize,
}

impl ArgumentValidator {
    /// Compiles a schema. Fetches nothing outside of it. Takes up to 1 s: not for a thread of the runtime.
    ///
    /// The error names the limit, or the part that cannot be checked.
    pub(crate) fn new(schema: &Value) -> Result<Self, SchemaError> {
        let size = schema_size(schema, MAX_PARTS)?;
        if let Some(long) = size.patterns.iter().find(|pattern| pattern.len() > MAX_PATTERN_TEXT_BYTES) {
            return Err(SchemaError::PatternTooLong(long.len()));
        }
        let [smallest, larger @ ..] = PATTERN_BYTES;
        let mut compiled = Self::compile(schema, &size, smallest);
        for limit in larger {
            if let Err(SchemaError::UncompilablePattern { .. }) = compiled {
                compiled = Self::compile(schema, &size, limit);
            }
        }
        compiled
    }

    /// Compiles a schema whose patterns may have `limit` bytes each.
    fn compile(schema: &Value, size: &SchemaSize<'_>, limit: usize) -> Result<Self, SchemaError> {
        let pattern_bytes = size.patterns.len() * limit;
        if pattern_bytes > MAX_PATTERN_BYTES {
            return Err(SchemaError::TooManyPatterns { max_patterns: MAX_PATTERN_BYTES / limit, limit });
        }
        let patterns = PatternOptions::regex().size_limit(limit).dfa_size_limit(SEARCH_CACHE_BYTES);
        let options = jsonschema::options_for::<Metered>()
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            .offline();
        let has_patterns = !size.patterns.is_empty();
        let validator = options.build(schema).map_err(|error| match truncate(&error.to_string()) {
            message if has_patterns => SchemaError::UncompilablePattern { message, limit },
            message => SchemaError::Uncompilable(message),
        })?;
        let cost = SchemaCost { parts: size.parts, pattern_bytes };
        let text_bytes = if has_patterns { MAX_SEARCH_COST / limit } else { usize::MAX };
        Ok(Self { validator, cost, text_bytes })
    }

    /// Returns what the schema costs.
    pub(crate) fn cost(&self) -> SchemaCost {
        self.cost
    }

    /// Validates arguments, until `deadline` at most. Blocks meanwhile: not for a thread of the runtime.
    pub(crate) fn validate(&self, arguments: &str, deadline: Option<Instant>) -> Result<(), ValidationError> {
        let value: Value = serde_json::from_str(arguments)
            .map_err(|error| ValidationError::Invalid(format!("are not JSON: {error}")))?;
        let value = MeteredValue(&value);
        let budget = Budget { reads: MAX_READS, text_bytes: self.text_bytes, deadline };
        match within(budget, || self.validator.is_valid(value)) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(BudgetExceeded) => {
                let what = "cannot be checked against its schema: they are too large or too deep for it";
                return Err(ValidationError::TooExpensive(what.to_owned()));
            }
        }
        let details = within(Budget { reads: MAX_DETAIL_READS, ..budget }, || {
            let error = self.validator.validate(value).err()?;
            Some((error.instance_path().to_string(), truncate(&error.to_string())))
        });
        Err(ValidationError::Invalid(match details {
            Ok(Some((path, what))) if path.is_empty() => format!("do not match its schema: {what}"),
            Ok(Some((path, what))) => format!("do not match its schema at {path}: {what}"),
            Ok(None) | Err(BudgetExceeded) => "do not match its schema".to_owned(),
        }))
    }
}

fn truncate(text: &str) -> String {
    text.chars().take(MAX_COMPLAINT_CHARS).collect()
}

#[cfg(test)]
mod tests;
