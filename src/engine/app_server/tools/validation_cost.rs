//! How much work a schema is: its parts, each reference followed, or what checking a value against it comes to at most.
//! Takes no more time than there are different parts, however often each is met.

use std::{collections::HashMap, ptr};

use serde_json::{Map, Value};

/// References and parts in parts; more would be too much for the stack as well.
const MAX_DEPTH: usize = 400;

/// What a regular expression counts, and a text for each so many bytes.
const PATTERN: u64 = 100;
const TEXT: u64 = 16;

/// What is to be kept of parts that are referred to.
const MAX_KNOWN: usize = 100_000;

/// Why work cannot be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CostError {
    /// More than the limit.
    TooMuch,
    /// Parts in parts in parts.
    TooDeep,
    /// A part that is in itself, for one and the same value.
    Endless,
    /// A reference that cannot be followed.
    Unknown(String),
}

/// Counts the parts of a schema. More than `limit` is an error.
pub(crate) fn parts(schema: &Value, limit: u64) -> Result<u64, CostError> {
    Counter::new(schema, limit).node(schema, None)
}

/// Counts the work of checking `value` for all that is wrong with it.
pub(crate) fn steps(schema: &Value, value: &Value, limit: u64) -> Result<u64, CostError> {
    Counter::new(schema, limit).node(schema, Some(value))
}

/// Counts the work of finding out whether `value` is right, where plain members are looked at before others: an object
/// whose plain members are wrong is not looked into.
pub(crate) fn at_once(schema: &Value, value: &Value, limit: u64) -> Result<u64, CostError> {
    Counter { at_once: true, ..Counter::new(schema, limit) }.node(schema, Some(value))
}

/// Whether a value holds no others.
pub(crate) fn is_plain(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// Whether a part is wrong for most plain values, by itself.
pub(crate) fn is_telling(part: &Value) -> bool {
    part.get("const").is_some_and(is_plain) || part.get("enum").is_some_and(Value::is_array)
}

/// Whether a plain member of an object is wrong.
fn is_refused(parts: &Map<String, Value>, value: &Value) -> bool {
    let mut members = parts.iter().filter_map(|(name, part)| Some((part, value.get(name)?)));
    members.any(|(part, member)| is_plain(member) && is_telling(part) && refuses(part, member))
}

/// Whether a part that is telling says no.
fn refuses(part: &Value, value: &Value) -> bool {
    // Numbers may be equal and not look like it.
    let differs = |one: &Value| !(one.is_number() && value.is_number()) && one != value;
    part.get("const").is_some_and(differs)
        || part.get("enum").and_then(Value::as_array).is_some_and(|values| values.iter().all(differs))
}

struct Counter<'a> {
    root: &'a Value,
    limit: u64,
    /// How often a part was looked at, which is less than what is counted.
    looks: u64,
    /// What a part that is referred to comes to for a value.
    known: HashMap<(*const Value, *const Value), Memo>,
    /// How many references are being followed.
    open: usize,
    /// The outermost of them that what is being counted leads back to.
    back_to: usize,
    /// Whether it is only to be found out that something is wrong.
    at_once: bool,
    depth: usize,
    /// How far inside the value.
    level: usize,
}

#[derive(Clone, Copy)]
enum Memo {
    /// It is being counted, since this level of the value, as the reference of this number.
    Open(usize, usize),
    Steps(u64),
}

impl<'a> Counter<'a> {
    fn new(root: &'a Value, limit: u64) -> Self {
        Self {
            root,
            limit,
            looks: 0,
            known: HashMap::new(),
            open: 0,
            back_to: usize::MAX,
            at_once: false,
            depth: 0,
            level: 0,
        }
    }

    fn node(&mut self, schema: &'a Value, value: Option<&'a Value>) -> Result<u64, CostError> {
        let Value::Object(schema) = schema else { return Ok(1) };
        self.looks += 1;
        if self.looks > self.limit {
            return Err(CostError::TooMuch);
        }
        if self.depth == MAX_DEPTH {
            return Err(CostError::TooDeep);
        }
        self.depth += 1;
        let mut steps = 1;
        // What is not evaluated is found by asking all parts for each member again.
        let again =
            ["unevaluatedProperties", "unevaluatedItems"].iter().any(|name| schema.contains_key(*name));
        let again = if again { 2 + value.map_or(1, children) } else { 1 };
        for (keyword, part) in schema {
            let more = self.keyword(schema, keyword, part, value)?;
            steps = self.sum(steps, more, again)?;
        }
        self.depth -= 1;
        Ok(steps)
    }

    fn keyword(
        &mut self,
        schema: &'a Map<String, Value>,
        keyword: &str,
        part: &'a Value,
        value: Option<&'a Value>,
    ) -> Result<u64, CostError> {
        match (keyword, part) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(to)) => self.reference(to, value),
            // What references mean would depend on where they stand.
            ("$id" | "id", Value::String(id)) if self.is_base(keyword) && !self.is_root(schema) => {
                Err(CostError::Unknown(id.clone()))
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                self.all(parts.iter().map(|part| (part, value)))
            }
            ("not" | "if" | "then" | "else", part) => self.node(part, value),
            ("dependentSchemas" | "dependencies", Value::Object(parts)) => {
                self.all(parts.values().map(|part| (part, value)))
            }
            ("properties", Value::Object(parts)) => {
                if value.is_some_and(|value| !value.is_object()) {
                    return Ok(1);
                }
                let wrong = self.at_once && value.is_some_and(|value| is_refused(parts, value));
                let steps = self.inside(parts.iter().filter_map(|(name, part)| match value {
                    None => Some((part, None)),
                    Some(value) => {
                        let member = value.get(name).filter(|member| !wrong || is_plain(member))?;
                        Some((part, Some(member)))
                    }
                }))?;
                self.sum(steps, parts.len() as u64, 1)
            }
            ("patternProperties", Value::Object(parts)) => {
                let steps =
                    self.inside(parts.values().flat_map(|part| members(value).map(move |one| (part, one))))?;
                let names = value.map_or(1, children).saturating_mul(parts.len() as u64);
                self.sum(steps, pattern(value), names)
            }
            ("propertyNames", part) => {
                let steps = self.inside([(part, None)])?;
                self.sum(0, steps + pattern(value), value.map_or(1, children))
            }
            ("prefixItems" | "items", Value::Array(parts)) => match value {
                None => self.inside(parts.iter().map(|part| (part, None))),
                Some(value) => {
                    let items = value.as_array().into_iter().flatten();
                    self.inside(parts.iter().zip(items.map(Some)))
                }
            },
            (
                "items"
                | "additionalItems"
                | "contains"
                | "unevaluatedItems"
                | "additionalProperties"
                | "unevaluatedProperties",
                part,
            ) => self.inside(members(value).map(|one| (part, one))),
            ("pattern" | "format", _) => Ok(pattern(value)),
            ("enum" | "required", Value::Array(values)) => Ok(values.len() as u64),
            ("uniqueItems", _) => {
                Ok(value.map_or(1, |value| children(value).saturating_mul(children(value)) / 8))
            }
            _ => Ok(1),
        }
    }

    /// Parts for the value itself.
    fn all(
        &mut self,
        parts: impl IntoIterator<Item = (&'a Value, Option<&'a Value>)>,
    ) -> Result<u64, CostError> {
        let mut steps = 1;
        for (part, value) in parts {
            let more = self.node(part, value)?;
            steps = self.sum(steps, more, 1)?;
        }
        Ok(steps)
    }

    /// Parts for what is inside the value.
    fn inside(
        &mut self,
        parts: impl IntoIterator<Item = (&'a Value, Option<&'a Value>)>,
    ) -> Result<u64, CostError> {
        self.level += 1;
        let steps = self.all(parts)?;
        self.level -= 1;
        Ok(steps)
    }

    fn reference(&mut self, to: &str, value: Option<&'a Value>) -> Result<u64, CostError> {
        let target = to.strip_prefix('#').and_then(decoded).and_then(|pointer| self.root.pointer(&pointer));
        let target = target.ok_or_else(|| CostError::Unknown(to.to_owned()))?;
        let key = (ptr::from_ref(target), value.map_or(ptr::null(), ptr::from_ref));
        match self.known.get(&key) {
            Some(Memo::Steps(steps)) => return Ok(*steps),
            Some(Memo::Open(level, _)) if *level == self.level => return Err(CostError::Endless),
            // A schema may well be inside itself: how often it is depends on the value.
            Some(Memo::Open(_, number)) => {
                self.back_to = self.back_to.min(*number);
                return Ok(1);
            }
            None if self.known.len() == MAX_KNOWN => return Err(CostError::TooMuch),
            None => {}
        }
        let number = self.open;
        let outer = std::mem::replace(&mut self.back_to, usize::MAX);
        self.known.insert(key, Memo::Open(self.level, number));
        self.open += 1;
        let steps = self.node(target, value)?;
        self.open -= 1;
        // The validator has what leads back to itself once, wherever it is referred to.
        let next_time = if value.is_none() && self.back_to <= number { 1 } else { steps };
        self.known.insert(key, Memo::Steps(next_time));
        self.back_to = if self.back_to < number { self.back_to.min(outer) } else { outer };
        Ok(steps)
    }

    fn is_root(&self, schema: &Map<String, Value>) -> bool {
        self.root.as_object().is_some_and(|root| ptr::eq(root, schema))
    }

    /// Whether a keyword says what references are relative to.
    fn is_base(&self, keyword: &str) -> bool {
        keyword == "$id" || self.root["$schema"].as_str().is_some_and(|draft| draft.contains("draft-04"))
    }

    fn sum(&self, steps: u64, more: u64, times: u64) -> Result<u64, CostError> {
        let steps = steps.saturating_add(more.saturating_mul(times));
        if steps > self.limit { Err(CostError::TooMuch) } else { Ok(steps) }
    }
}

/// What is inside a value; without one, anything, once.
fn members(value: Option<&Value>) -> impl Iterator<Item = Option<&Value>> + Clone {
    let (list, object) = match value {
        Some(Value::Array(list)) => (Some(list), None),
        Some(Value::Object(object)) => (None, Some(object)),
        Some(_) | None => (None, None),
    };
    let anything = value.is_none().then_some(None);
    let list = list.into_iter().flatten().map(Some);
    anything.into_iter().chain(list).chain(object.into_iter().flat_map(Map::values).map(Some))
}

fn children(value: &Value) -> u64 {
    match value {
        Value::Array(list) => list.len() as u64,
        Value::Object(object) => object.len() as u64,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// A regular expression on a value; in the schema it is a part as any other.
fn pattern(value: Option<&Value>) -> u64 {
    let Some(value) = value else { return 1 };
    PATTERN + value.as_str().map_or(0, |text| text.len() as u64 / TEXT)
}

/// A pointer as it stands in a reference, without its percent signs.
fn decoded(pointer: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit =
            |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(rest.next())? * 16 + digit(rest.next())?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
