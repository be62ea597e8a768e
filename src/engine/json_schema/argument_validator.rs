//! The schema of a strict tool, and the validation of arguments against it.
//!
//! Clients send the schemas and models write the arguments, so neither is trusted. The compilation of a schema of a few
//! lines can exhaust any machine's memory, and its validation can take 2^60 steps. The parts and patterns of a schema are
//! therefore limited before compilation, and each validation has a budget.

use std::time::Instant;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::{
    metered_value::{Budget, BudgetExceeded, Metered, MeteredValue, within},
    schema_size::{SchemaSize, SizeError, schema_size},
};

/// Maximum number of parts of a schema, with each reference followed. 30,000 properties of one keyword have 60,003 parts
/// and 829 KB of text. Their compilation takes 24 ms and 25 MB (`jsonschema` 0.61, 2 CPUs, release build). 99,000 empty
/// parts take 64 ms and 40 MB.
pub(crate) const MAX_PARTS: u64 = 100_000;

/// Maximum bytes of a pattern's text. Character classes are expanded before a size limit applies. 4 KB of classes take
/// 5 ms and 4 MB, and 40 KB of classes take 42 ms and 32 MB.
const MAX_PATTERN_TEXT_BYTES: usize = 4096;

/// Limits of the compiled bytes of each pattern of a schema. The smallest limit that all patterns meet applies.
///
/// A pattern with its search structures occupies up to ten times its limit (0.04, 0.16 and 1.3 MB). Compilation takes up
/// to 0.2, 0.5 and 5 ms. `^\p{L}+$` needs 64 KiB, an address or a UUID less than 4 KiB. `jsonschema` matches a repeated
/// class such as `[\p{L} '-]{1,50}` without compilation. Without limits, 300 patterns of `^\p{L}{160}` take 15.5 s and
/// 2.3 GB. With these limits, the first of these patterns is refused after 0.6 ms.
const PATTERN_BYTES: [usize; 3] = [4 << 10, 16 << 10, 128 << 10];

/// Maximum compiled bytes of all patterns of a schema. This allows 2,560 small, 640 medium or 80 large patterns, which
/// occupy up to 100 MB and take up to 0.4 s to compile.
pub(crate) const MAX_PATTERN_BYTES: usize = 10 << 20;

/// Maximum size of the search cache of a pattern.
const SEARCH_CACHE_BYTES: usize = 64 << 10;

/// Maximum product of the text's bytes and the pattern's compiled bytes. This allows 512, 128 and 16 KiB of text for the
/// limits above. A search is linear in both. With 128 KiB, a search takes up to 14 µs for each byte of text, and 0.23 s
/// in total. A mistake takes three searches.
const MAX_SEARCH_COST: usize = 1 << 31;

/// Maximum reads of the arguments in a validation. They take 0.1 s.
const MAX_READS: u64 = 10_000_000;

/// Maximum reads for the detailed description of a mistake. The validator keeps the mistakes of all alternatives in the
/// meantime, which takes up to 6 ms and 5 MB.
const MAX_DETAIL_READS: u64 = 200_000;

/// Maximum number of characters of an error text of the validator.
const MAX_ERROR_CHARS: usize = 300;

/// The reason why a schema is refused. Each text continues a sentence that begins with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    /// The parts cannot be counted, or exceed the limit.
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error("a pattern has {0} bytes, more than {MAX_PATTERN_TEXT_BYTES}")]
    PatternTooLong(usize),
    #[error("the schema has more than {max_patterns} patterns of up to {} KiB compiled", limit >> 10)]
    TooManyPatterns { max_patterns: usize, limit: usize },
    #[error("{0}")]
    Uncompilable(String),
    /// A schema with patterns does not compile within the largest limit of a pattern.
    #[error("{message} (patterns may have {} KiB compiled, and no look-around)", limit >> 10)]
    UncompilablePattern { message: String, limit: usize },
}

/// The reason why arguments are not accepted. The text continues a sentence that begins with the tool's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ValidationError {
    /// The arguments do not match the schema. The model can correct this mistake.
    Invalid(String),
    /// The validation exceeded its budget before a result was known. The model cannot correct this.
    TooExpensive(String),
}

/// The cost of a compiled schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchemaCost {
    /// Number of parts, with each reference followed.
    pub(crate) parts: u64,
    /// Upper bound of the compiled bytes of the patterns.
    pub(crate) pattern_bytes: usize,
}

/// A compiled schema for the validation of arguments.
#[derive(Debug)]
pub(crate) struct ArgumentValidator {
    validator: Validator<Metered>,
    cost: SchemaCost,
    /// Maximum length of a text that a pattern may search.
    text_bytes: usize,
}

impl ArgumentValidator {
    /// Compiles a schema without fetching external references. Blocks for up to 1 s, so must not run on a thread of the
    /// runtime.
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

    /// Returns the cost of the schema.
    pub(crate) fn cost(&self) -> SchemaCost {
        self.cost
    }

    /// Validates arguments, at most until `deadline`. Blocks, so must not run on a thread of the runtime.
    pub(crate) fn validate(&self, arguments: &str, deadline: Option<Instant>) -> Result<(), ValidationError> {
        let value: Value = serde_json::from_str(arguments)
            .map_err(|error| ValidationError::Invalid(format!("are not JSON: {error}")))?;
        let value = MeteredValue(&value);
        let budget = Budget { reads: MAX_READS, text_bytes: self.text_bytes, deadline };
        match within(budget, || self.validator.is_valid(value)) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(BudgetExceeded) => {
                let what = "cannot be checked against its schema, because they are too large or too deep for this schema";
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
    text.chars().take(MAX_ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests;
