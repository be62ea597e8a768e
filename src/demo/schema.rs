//! Builds a small instance of a JSON schema, so that typed clients can parse the answers of the demo. Supports the
//! keywords of strict structured outputs, without `pattern`, `not`, `if` and arithmetic beyond bounds.

use serde_json::{Map, Number, Value, json};

/// Maximum number of generated values, because a schema of a few lines can describe a tree of millions.
const MAX_VALUES: usize = 10_000;
/// Maximum number of items and characters that a schema can require.
const MAX_LEN: u64 = 1_000;

/// Returns an instance of a schema, or `None` if none was found.
pub(super) fn instance(schema: &Value) -> Option<Value> {
    InstanceBuilder { root: schema, following: Vec::new(), left: MAX_VALUES }.build(schema)
}

struct InstanceBuilder<'a> {
    root: &'a Value,
    /// References on the path to the current schema. A reference to one of them would recurse without end.
    following: Vec<&'a str>,
    left: usize,
}

impl<'a> InstanceBuilder<'a> {
    fn build(&mut self, schema: &'a Value) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        let fields = match schema {
            Value::Bool(true) => return Some(json!("demo")),
            Value::Object(fields) => fields,
            Value::Null | Value::Bool(false) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return None;
            }
        };
        if let Some(value) = fields.get("const") {
            return Some(value.clone());
        }
        if let Some(values) = fields.get("enum") {
            return values.as_array()?.first().cloned();
        }
        if let Some(reference) = fields.get("$ref") {
            return self.follow(reference.as_str()?);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(variants) = fields.get(key) {
                return variants.as_array()?.iter().find_map(|variant| self.build(variant));
            }
        }
        if let Some(parts) = fields.get("allOf") {
            return self.all(fields, parts.as_array()?);
        }
        self.typed(fields)
    }

    fn follow(&mut self, reference: &'a str) -> Option<Value> {
        if self.following.contains(&reference) {
            return None;
        }
        let target = self.root.pointer(reference.strip_prefix('#')?)?;
        self.following.push(reference);
        let built = self.build(target);
        self.following.pop();
        built
    }

    /// Builds an instance of all parts. Merges objects; otherwise the first part determines the instance.
    fn all(&mut self, fields: &'a Map<String, Value>, parts: &'a [Value]) -> Option<Value> {
        let mut merged = None;
        for part in parts {
            match (&mut merged, self.build(part)?) {
                (Some(Value::Object(merged)), Value::Object(more)) => merged.extend(more),
                (Some(_), _) => {}
                (None, value) => merged = Some(value),
            }
        }
        if fields.contains_key("properties")
            && let (Some(Value::Object(merged)), Value::Object(own)) = (&mut merged, self.object(fields)?)
        {
            merged.extend(own);
        }
        merged
    }

    fn typed(&mut self, fields: &'a Map<String, Value>) -> Option<Value> {
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null")?
            }
            Some(_) => return None,
            None if fields.contains_key("properties") => "object",
            None if fields.contains_key("items") => "array",
            None => "string",
        };
        match kind {
            "object" => self.object(fields),
            "array" => self.array(fields),
            "string" => Some(string(fields)),
            "integer" => number(fields, true),
            "number" => number(fields, false),
            "boolean" => Some(json!(true)),
            "null" => Some(Value::Null),
            _ => None,
        }
    }

    fn object(&mut self, fields: &'a Map<String, Value>) -> Option<Value> {
        static ANYTHING: Value = Value::Bool(true);
        let properties = fields.get("properties").and_then(Value::as_object);
        let required = fields.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut built = Map::new();
        for name in required.iter().filter_map(Value::as_str) {
            let schema = properties.and_then(|all| all.get(name)).unwrap_or(&ANYTHING);
            built.insert(name.to_owned(), self.build(schema)?);
        }
        Some(Value::Object(built))
    }

    /// Returns one item if possible, because an empty list shows little.
    fn array(&mut self, fields: &'a Map<String, Value>) -> Option<Value> {
        let bound = |key| fields.get(key).and_then(Value::as_u64);
        let least = bound("minItems").unwrap_or(0);
        let wanted = least.max(bound("maxItems").map_or(1, |most| most.min(1)));
        if least > MAX_LEN {
            return None;
        }
        let mut built = Vec::new();
        if let Some(items) = fields.get("items") {
            for _ in 0..wanted {
                match self.build(items) {
                    Some(item) => built.push(item),
                    None => break,
                }
            }
        }
        (built.len() as u64 >= least).then_some(Value::Array(built))
    }
}

fn string(fields: &Map<String, Value>) -> Value {
    let sample = match fields.get("format").and_then(Value::as_str) {
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("date") => "2026-01-01",
        Some("time") => "00:00:00Z",
        Some("duration") => "PT1S",
        Some("email") => "demo@example.com",
        Some("hostname") => "example.com",
        Some("ipv4") => "127.0.0.1",
        Some("ipv6") => "::1",
        Some("uri") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        Some(_) | None => "demo",
    };
    let bound = |key| fields.get(key).and_then(Value::as_u64);
    let length = sample.len() as u64;
    let length =
        length.max(bound("minLength").unwrap_or(0).min(MAX_LEN)).min(bound("maxLength").unwrap_or(u64::MAX));
    sample
        .chars()
        .chain(std::iter::repeat('x'))
        .take(usize::try_from(length).unwrap_or(0))
        .collect::<String>()
        .into()
}

fn number(fields: &Map<String, Value>, whole: bool) -> Option<Value> {
    let bound = |key| fields.get(key).and_then(Value::as_f64);
    let step = bound("multipleOf").or_else(|| whole.then_some(1.0));
    // An exclusive bound is avoided by one step, or by a small amount without steps.
    let off = step.unwrap_or(1e-3);
    let low = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|low| low + off));
    let high = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|high| high - off));
    let value: f64 = step.unwrap_or(1.0);
    let value = high.map_or(value, |high| value.min(step.map_or(high, |step| (high / step).floor() * step)));
    let value = low.map_or(value, |low| value.max(step.map_or(low, |step| (low / step).ceil() * step)));
    if whole {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, and a demo needs no larger numbers"
        )]
        return Some(json!(value.ceil() as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_instance(schema: impl Into<Value>, expected: impl Into<Value>) {
        let (schema, expected) = (schema.into(), expected.into());
        assert_eq!(instance(&schema), Some(expected), "{schema}");
    }

    #[test]
    fn instance_of_every_type_is_valid() {
        assert_instance(json!({"type": "string"}), json!("demo"));
        assert_instance(json!({"type": "integer"}), json!(1));
        assert_instance(json!({"type": "number"}), json!(1.0));
        assert_instance(json!({"type": "boolean"}), json!(true));
        assert_instance(json!({"type": "null"}), json!(null));
        assert_instance(json!({"type": ["null", "integer"]}), json!(1));
        assert_instance(json!({"enum": ["red", "green"]}), json!("red"));
        assert_instance(json!({"const": 7}), json!(7));
        assert_instance(json!({"type": "array", "items": {"type": "integer"}}), json!([1]));
        assert_instance(json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!("demo"));
        assert_instance(
            json!({"type": "object", "required": ["a", "b"], "properties": {
                "a": {"type": "object", "properties": {}}, "b": {"type": "string"}, "c": {"type": "string"}}}),
            json!({"a": {}, "b": "demo"}),
        );
        assert_instance(
            json!({"allOf": [
                {"type": "object", "required": ["a"], "properties": {"a": {"const": 1}}},
                {"type": "object", "required": ["b"], "properties": {"b": {"const": 2}}}]}),
            json!({"a": 1, "b": 2}),
        );
    }

    #[test]
    fn instance_with_bounds_respects_them() {
        assert_instance(json!({"type": "integer", "minimum": 5, "maximum": 9}), json!(5));
        assert_instance(json!({"type": "integer", "maximum": -3}), json!(-3));
        assert_instance(json!({"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5}), json!(10));
        assert_instance(json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}), json!(0.5));
        assert_instance(json!({"type": "string", "minLength": 6}), json!("demoxx"));
        assert_instance(json!({"type": "string", "maxLength": 2}), json!("de"));
        assert_instance(json!({"type": "string", "format": "date"}), json!("2026-01-01"));
        assert_instance(json!({"type": "array", "minItems": 2, "items": {"const": 0}}), json!([0, 0]));
        assert_instance(json!({"type": "array", "maxItems": 0, "items": {"const": 0}}), json!([]));
    }

    #[test]
    fn instance_with_references_follows_each_once() {
        assert_instance(
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["next", "children"],
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}}}),
            json!({"next": null, "children": []}),
        );
        let endless = json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}});
        assert_eq!(instance(&endless), None);
        assert_eq!(instance(&json!({"$ref": "https://example.com/x"})), None);
    }

    #[test]
    fn instance_of_an_exponential_schema_is_refused() {
        let two = |inner: Value| json!({"type": "object", "required": ["a", "b"], "properties": {"a": inner, "b": inner}});
        let mut schema = json!({"type": "string"});
        for _ in 0..14 {
            schema = two(schema);
        }
        assert_eq!(instance(&schema), None);
        assert_eq!(
            instance(&json!({"type": "array", "minItems": 1_000_000_000, "items": {"const": 0}})),
            None
        );
        assert_eq!(instance(&json!({"type": "string", "pattern": 3})), Some(json!("demo")));
    }
}
