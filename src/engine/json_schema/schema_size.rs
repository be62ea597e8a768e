//! The size of a JSON Schema. Counts the parts with each reference followed, and collects the patterns.
//!
//! The time is linear in the number of different parts and does not depend on the number of references to each part.

use std::{
    collections::{BTreeSet, HashMap},
    ptr,
};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Maximum nesting of parts, with each reference followed. The stack of the counter and of the validator must suffice.
const MAX_DEPTH: usize = 400;

/// Maximum number of references whose size is cached.
const MAX_REFERENCES: usize = 100_000;

/// Maximum number of characters of a reference that an error quotes.
const MAX_QUOTED_CHARS: usize = 200;

/// The size of a schema.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SchemaSize<'a> {
    /// Number of subschemas and keywords, with each reference followed. A recursive part counts once.
    pub(crate) parts: u64,
    /// The distinct regular expressions.
    pub(crate) patterns: BTreeSet<&'a str>,
}

/// The reason why the size of a schema cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    #[error("the schema has more than {0} parts after following its references")]
    TooManyParts(u64),
    #[error("the schema is more than {MAX_DEPTH} parts deep after following its references")]
    TooDeep,
    /// A part refers to itself for the same value, so validation would never end.
    #[error("a reference leads back to itself")]
    EndlessReference,
    #[error("{0:?} is not a reference to a part of the schema in the form `#/…`")]
    UnknownReference(String),
}

impl SizeError {
    fn unknown_reference(reference: &str) -> Self {
        Self::UnknownReference(reference.chars().take(MAX_QUOTED_CHARS).collect())
    }
}

/// Counts the parts of a schema. Fails if the schema has more than `max_parts` parts.
pub(crate) fn schema_size(schema: &Value, max_parts: u64) -> Result<SchemaSize<'_>, SizeError> {
    let mut counter = Counter {
        root: schema,
        max_parts,
        visited: 0,
        sizes: HashMap::new(),
        open_references: 0,
        outermost_cycle: usize::MAX,
        depth: 0,
        level: 0,
        patterns: BTreeSet::new(),
    };
    let parts = counter.node(schema)?;
    Ok(SchemaSize { parts, patterns: counter.patterns })
}

struct Counter<'a> {
    root: &'a Value,
    max_parts: u64,
    /// Number of visited subschemas. Can be smaller than the number of counted subschemas.
    visited: u64,
    /// Sizes of the targets of references.
    sizes: HashMap<*const Value, Memo>,
    /// Number of references that are being followed.
    open_references: usize,
    /// The number of the outermost open reference that the current part leads back to.
    outermost_cycle: usize,
    depth: usize,
    /// Depth of the value that the current part applies to.
    level: usize,
    patterns: BTreeSet<&'a str>,
}

#[derive(Clone, Copy)]
enum Memo {
    /// The target is being counted as open reference `number`, for a value at depth `level`.
    Open {
        level: usize,
        number: usize,
    },
    Counted(u64),
}

impl<'a> Counter<'a> {
    fn node(&mut self, schema: &'a Value) -> Result<u64, SizeError> {
        let Value::Object(schema) = schema else { return Ok(1) };
        self.visited += 1;
        if self.visited > self.max_parts {
            return Err(SizeError::TooManyParts(self.max_parts));
        }
        if self.depth == MAX_DEPTH {
            return Err(SizeError::TooDeep);
        }
        self.depth += 1;
        let mut parts = 1;
        for (keyword, part) in schema {
            let more = self.keyword(schema, keyword, part)?;
            parts = self.sum(parts, more)?;
        }
        self.depth -= 1;
        Ok(parts)
    }

    fn keyword(
        &mut self,
        schema: &'a Map<String, Value>,
        keyword: &str,
        part: &'a Value,
    ) -> Result<u64, SizeError> {
        match (keyword, part) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(to)) => self.reference(to),
            // With a nested base, the meaning of a reference would depend on its position.
            ("$id" | "id", Value::String(id)) if self.is_base(keyword) && !self.is_root(schema) => {
                Err(SizeError::unknown_reference(id))
            }
            ("pattern", Value::String(pattern)) => {
                self.patterns.insert(pattern);
                Ok(1)
            }
            // Schemas for the value itself.
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => self.nodes(parts),
            ("not" | "if" | "then" | "else", part) => self.node(part),
            ("dependentSchemas" | "dependencies", Value::Object(parts)) => self.nodes(parts.values()),
            // Schemas for what the value contains.
            ("properties", Value::Object(parts)) => self.inner_nodes(parts.values()),
            ("patternProperties", Value::Object(parts)) => {
                self.patterns.extend(parts.keys().map(String::as_str));
                self.inner_nodes(parts.values())
            }
            ("prefixItems" | "items", Value::Array(parts)) => self.inner_nodes(parts),
            (
                "items"
                | "additionalItems"
                | "contains"
                | "unevaluatedItems"
                | "additionalProperties"
                | "unevaluatedProperties"
                | "propertyNames",
                part,
            ) => self.inner_nodes([part]),
            ("enum" | "required", Value::Array(values)) => Ok(values.len() as u64),
            _ => Ok(1),
        }
    }

    fn nodes(&mut self, parts: impl IntoIterator<Item = &'a Value>) -> Result<u64, SizeError> {
        parts.into_iter().try_fold(1, |sum, part| {
            let more = self.node(part)?;
            self.sum(sum, more)
        })
    }

    fn inner_nodes(&mut self, parts: impl IntoIterator<Item = &'a Value>) -> Result<u64, SizeError> {
        self.level += 1;
        let parts = self.nodes(parts)?;
        self.level -= 1;
        Ok(parts)
    }

    fn reference(&mut self, to: &str) -> Result<u64, SizeError> {
        let pointer = to.strip_prefix('#').and_then(|pointer| percent_decode_str(pointer).decode_utf8().ok());
        let target = pointer.and_then(|pointer| self.root.pointer(&pointer));
        let target = target.ok_or_else(|| SizeError::unknown_reference(to))?;
        let key = ptr::from_ref(target);
        match self.sizes.get(&key) {
            Some(Memo::Counted(parts)) => return Ok(*parts),
            Some(Memo::Open { level, .. }) if *level == self.level => {
                return Err(SizeError::EndlessReference);
            }
            // A schema may contain itself. The value then limits the recursion.
            Some(Memo::Open { number, .. }) => {
                self.outermost_cycle = self.outermost_cycle.min(*number);
                return Ok(1);
            }
            None if self.sizes.len() == MAX_REFERENCES => {
                return Err(SizeError::TooManyParts(self.max_parts));
            }
            None => {}
        }
        let number = self.open_references;
        let outer = std::mem::replace(&mut self.outermost_cycle, usize::MAX);
        self.sizes.insert(key, Memo::Open { level: self.level, number });
        self.open_references += 1;
        let parts = self.node(target)?;
        self.open_references -= 1;
        let is_recursive = self.outermost_cycle <= number;
        self.sizes.insert(key, Memo::Counted(if is_recursive { 1 } else { parts }));
        self.outermost_cycle =
            if self.outermost_cycle < number { self.outermost_cycle.min(outer) } else { outer };
        Ok(parts)
    }

    fn is_root(&self, schema: &Map<String, Value>) -> bool {
        self.root.as_object().is_some_and(|root| ptr::eq(root, schema))
    }

    /// Returns `true` if a keyword sets the base of references in the schema's draft.
    fn is_base(&self, keyword: &str) -> bool {
        keyword == "$id" || self.root["$schema"].as_str().is_some_and(|draft| draft.contains("draft-04"))
    }

    fn sum(&self, parts: u64, more: u64) -> Result<u64, SizeError> {
        let parts = parts.saturating_add(more);
        if parts > self.max_parts { Err(SizeError::TooManyParts(self.max_parts)) } else { Ok(parts) }
    }
}

#[cfg(test)]
mod tests;
