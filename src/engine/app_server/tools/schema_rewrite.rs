//! JSON Schemas of client tools: from the contract's `Struct`, into a form that Codex passes on untouched, with the
//! news whether anything was lost on the way. Does not validate; `tools` does.

use std::collections::BTreeMap;

use prost_types::{Struct, value::Kind};
use serde_json::{Map, Number, Value, json};

/// Above this many bytes of JSON, Codex removes descriptions, then definitions, then what is nested deeply.
const CODEX_KEEPS_BYTES: usize = 5_000;

/// Chains of `$ref` at the root that are followed.
const MAX_ROOT_REFS: usize = 8;

const TYPES: [&str; 7] = ["string", "number", "integer", "boolean", "object", "array", "null"];

/// A schema that Codex passes on as it is.
#[derive(Debug, PartialEq)]
pub(crate) struct RewrittenSchema {
    /// The schema; its root is an object's.
    pub(crate) schema: Value,
    /// Whether it says less than the original.
    pub(crate) lossy: bool,
}

/// Rewrites a schema with the keywords that Codex knows.
pub(crate) fn clean(original: &Value) -> RewrittenSchema {
    let mut cleaner = SchemaRewriter { lossy: false };
    let schema = cleaner.root(original);
    let lossy = cleaner.lossy || schema.to_string().len() > CODEX_KEEPS_BYTES;
    RewrittenSchema { schema, lossy }
}

/// The JSON of a `Struct`. Numbers without a fraction come out as integers.
pub(crate) fn json(object: &Struct) -> Value {
    Value::Object(object.fields.iter().map(|(name, value)| (name.clone(), member(value))).collect())
}

fn member(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(bool)) => Value::Bool(*bool),
        Some(Kind::NumberValue(number)) => integer(*number)
            .map(Number::from)
            .or_else(|| Number::from_f64(*number))
            .map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(member).collect(),
        Some(Kind::StructValue(object)) => json(object),
    }
}

/// The integer that a double holds exactly.
fn integer(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = number.fract() == 0.0 && number.abs() <= EXACT;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    whole.then_some(number as i64)
}

/// Where a schema stands.
#[derive(Clone, Copy)]
enum Location<'a> {
    Root,
    /// Under a property's or a definition's name.
    Named(&'a str),
    Loose,
}

struct SchemaRewriter {
    lossy: bool,
}

impl SchemaRewriter {
    /// The upstream wants an object at the root, without a choice of schemas beside it.
    fn root(&mut self, original: &Value) -> Value {
        let target = self.target(original);
        let Value::Object(mut schema) = self.node(target, Location::Root) else { return object() };
        for definitions in ["$defs", "definitions"] {
            if !schema.contains_key(definitions)
                && let Some(found) = original.get(definitions)
                && let Some(cleaned) = self.children(found)
            {
                schema.insert(definitions.to_owned(), cleaned);
            }
        }
        for choice in ["anyOf", "oneOf", "allOf", "enum", "$ref"] {
            self.lossy |= schema.shift_remove(choice).is_some();
        }
        if schema.get("type").is_some_and(|kind| kind != "object") {
            self.lossy = true;
            schema.shift_remove("items");
        }
        schema.insert("type".to_owned(), json!("object"));
        schema.entry("properties").or_insert_with(|| json!({}));
        Value::Object(schema)
    }

    /// Follows a root that is only a reference into its own definitions.
    fn target<'a>(&mut self, original: &'a Value) -> &'a Value {
        let mut node = original;
        for _ in 0..MAX_ROOT_REFS {
            let Some(reference) = node.get("$ref").and_then(Value::as_str) else { return node };
            let local = reference.strip_prefix('#').filter(|pointer| pointer.starts_with('/'));
            let Some(next) = local.and_then(|pointer| original.pointer(pointer)) else { break };
            let siblings =
                |key: &String| !matches!(key.as_str(), "$ref" | "$defs" | "definitions" | "$schema");
            self.lossy |= node.as_object().is_some_and(|node| node.keys().any(siblings));
            node = next;
        }
        node
    }

    fn node(&mut self, original: &Value, place: Location<'_>) -> Value {
        let Value::Object(original) = original else {
            // `true` allows everything, as `{}` does; whatever else stands here cannot be said.
            self.lossy |= original != &Value::Bool(true);
            return json!({});
        };
        let mut schema = Map::new();
        for (keyword, value) in original {
            match self.keyword(keyword, value) {
                Some(value) => _ = schema.insert(keyword.clone(), value),
                None => self.lossy |= !says_nothing(keyword, value, place),
            }
        }
        if let Some(only) = original.get("const") {
            schema.insert("enum".to_owned(), json!([only]));
        }
        if !schema.contains_key("type")
            && let Some(kind) = implied_type(&schema)
        {
            schema.insert("type".to_owned(), kind);
        }
        let may_be = |schema: &Map<String, Value>, kind: &str| match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
            Some(one) => one == kind,
            None => false,
        };
        // Codex fills these in by itself: an array without items would become one of strings.
        if may_be(&schema, "object") {
            schema.entry("properties").or_insert_with(|| json!({}));
        }
        if may_be(&schema, "array") {
            schema.entry("items").or_insert_with(|| json!({}));
        }
        // Codex empties a schema that has nothing but words.
        if schema.len() == 1 && schema.remove("description").is_some() {
            self.lossy = true;
        }
        Value::Object(schema)
    }

    /// The keyword's value as Codex takes it, or nothing if it does not.
    fn keyword(&mut self, keyword: &str, value: &Value) -> Option<Value> {
        match (keyword, value) {
            ("type", _) => self.kind(value),
            ("properties" | "$defs" | "definitions", _) => self.children(value),
            ("anyOf" | "oneOf" | "allOf", Value::Array(list)) if !list.is_empty() => {
                Some(list.iter().map(|one| self.node(one, Location::Loose)).collect())
            }
            ("items", Value::Object(_) | Value::Bool(_)) | ("additionalProperties", Value::Object(_)) => {
                Some(self.node(value, Location::Loose))
            }
            ("required", Value::Array(names)) if names.iter().all(Value::is_string) => Some(value.clone()),
            ("additionalProperties", Value::Bool(_)) | ("$ref" | "description", Value::String(_)) => {
                Some(value.clone())
            }
            ("enum", Value::Array(values)) if !values.is_empty() => Some(value.clone()),
            ("minItems", Value::Number(number)) if number.is_u64() => Some(value.clone()),
            (_, _) => None,
        }
    }

    fn kind(&mut self, value: &Value) -> Option<Value> {
        let known = |kind: &Value| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
        let Value::Array(kinds) = value else { return known(value).then(|| value.clone()) };
        let kept: Vec<&Value> = kinds.iter().filter(|kind| known(kind)).collect();
        self.lossy |= kept.len() < kinds.len();
        match kept.as_slice() {
            [] => None,
            [one] => Some((*one).clone()),
            several => Some(json!(several)),
        }
    }

    fn children(&mut self, value: &Value) -> Option<Value> {
        let Value::Object(children) = value else { return None };
        Some(
            children
                .iter()
                .map(|(name, child)| (name.clone(), self.node(child, Location::Named(name))))
                .collect(),
        )
    }
}

fn object() -> Value {
    json!({"type": "object", "properties": {}})
}

/// The type that Codex would guess, or guess wrongly: it takes every `enum` for one of strings.
fn implied_type(schema: &Map<String, Value>) -> Option<Value> {
    if let Some(Value::Array(values)) = schema.get("enum") {
        let kinds: BTreeMap<&str, ()> = values.iter().map(|value| (type_of(value), ())).collect();
        let kinds: Vec<&str> = kinds.into_keys().collect();
        return match kinds.as_slice() {
            [] => None,
            [one] => Some(json!(one)),
            several => Some(json!(several)),
        };
    }
    if ["properties", "required", "additionalProperties"].iter().any(|keyword| schema.contains_key(*keyword))
    {
        return Some(json!("object"));
    }
    ["items", "minItems"].iter().any(|keyword| schema.contains_key(*keyword)).then(|| json!("array"))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Keywords that tell the model nothing (or, `const`, that were dealt with): where a schema comes from, a title that
/// repeats the name it stands under or stands at the root, where the tool has a name, a default of nothing.
fn says_nothing(keyword: &str, value: &Value, place: Location<'_>) -> bool {
    match (keyword, place) {
        ("$schema" | "$id" | "$comment" | "const", _) | ("title", Location::Root) => true,
        ("title", Location::Named(name)) => {
            value.as_str().is_some_and(|title| letters(title).eq(letters(name)))
        }
        ("default" | "required" | "properties", _) => value.is_null(),
        (_, _) => false,
    }
}

fn letters(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests;
