//! Rewrites the JSON Schema of a client's tool into the form that Codex passes on untouched, and reports whether
//! that form lost a constraint or a hint of the original.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::engine::json_schema::type_of;

/// Maximum size of JSON text that Codex passes on whole, in bytes. From larger texts, Codex removes descriptions, then
/// definitions, then deeply nested parts.
const MAX_CODEX_SCHEMA_BYTES: usize = 5_000;

/// Maximum length of a chain of `$ref` at the root.
const MAX_ROOT_REFS: usize = 8;

const TYPES: [&str; 7] = ["string", "number", "integer", "boolean", "object", "array", "null"];

/// A schema that Codex passes on as it is.
#[derive(Debug, PartialEq)]
pub(super) struct RewrittenSchema {
    /// The schema. The root describes an object.
    pub(super) schema: Value,
    /// Set if a constraint or a hint of the original is lost.
    pub(super) lossy: bool,
}

/// Rewrites a schema with the keywords that Codex keeps. Does not validate it.
pub(super) fn rewrite_for_codex(original: &Value) -> RewrittenSchema {
    let mut rewriter = SchemaRewriter { lossy: false };
    let schema = rewriter.root(original);
    let lossy = rewriter.lossy || schema.to_string().len() > MAX_CODEX_SCHEMA_BYTES;
    RewrittenSchema { schema, lossy }
}

/// The position of a subschema, which decides whether its title has a meaning.
#[derive(Clone, Copy)]
enum Location<'a> {
    Root,
    /// The value of a property or a definition with this name.
    Named(&'a str),
    Other,
}

struct SchemaRewriter {
    lossy: bool,
}

impl SchemaRewriter {
    /// Rewrites the root. The upstream accepts only an object as the root, without `anyOf` and similar keywords.
    fn root(&mut self, original: &Value) -> Value {
        let target = self.target(original);
        let Value::Object(mut schema) = self.node(target, Location::Root) else { return object() };
        for definitions in ["$defs", "definitions"] {
            if !schema.contains_key(definitions)
                && let Some(original) = original.get(definitions)
                && let Some(rewritten) = self.children(original)
            {
                schema.insert(definitions.to_owned(), rewritten);
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

    fn node(&mut self, original: &Value, location: Location<'_>) -> Value {
        let Value::Object(original) = original else {
            // `true` allows everything, as `{}` does. Other values have no equivalent.
            self.lossy |= original != &Value::Bool(true);
            return json!({});
        };
        let mut schema = Map::new();
        for (keyword, value) in original {
            match self.keyword(keyword, value) {
                Some(value) => _ = schema.insert(keyword.clone(), value),
                None => self.lossy |= !is_ignorable(keyword, value, location),
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
        // Codex itself would add these keywords, and would turn an array without items into an array of strings.
        if may_be(&schema, "object") {
            schema.entry("properties").or_insert_with(|| json!({}));
        }
        if may_be(&schema, "array") {
            schema.entry("items").or_insert_with(|| json!({}));
        }
        // Codex empties a schema that has only a description.
        if schema.len() == 1 && schema.remove("description").is_some() {
            self.lossy = true;
        }
        Value::Object(schema)
    }

    /// Returns the keyword's value in the form that Codex keeps, or `None` if Codex drops it.
    fn keyword(&mut self, keyword: &str, value: &Value) -> Option<Value> {
        match (keyword, value) {
            ("type", _) => self.kind(value),
            ("properties" | "$defs" | "definitions", _) => self.children(value),
            ("anyOf" | "oneOf" | "allOf", Value::Array(list)) if !list.is_empty() => {
                Some(list.iter().map(|one| self.node(one, Location::Other)).collect())
            }
            ("items", Value::Object(_) | Value::Bool(_)) | ("additionalProperties", Value::Object(_)) => {
                Some(self.node(value, Location::Other))
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

/// Returns the type that Codex would infer, except for an `enum`. Codex wrongly treats every `enum` as strings.
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

/// Returns `true` for a keyword without meaning for the model. Examples are the origin of a schema, the title of the root,
/// a title that repeats the property's name, and a `null` default. `const` was already rewritten.
fn is_ignorable(keyword: &str, value: &Value, location: Location<'_>) -> bool {
    match (keyword, location) {
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
