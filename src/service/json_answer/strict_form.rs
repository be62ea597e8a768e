//! Rewrites a client's JSON Schema into the strict subset of the upstream, with what is needed to undo it in the answer.
//! Pure. A schema whose undo would be ambiguous has no strict form.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::engine::json_schema::type_of;

/// The upstream's limits of a strict schema, and a limit of the steps of a rewriting.
const MAX_PROPERTIES: usize = 5_000;
const MAX_ENUM_VALUES: usize = 1_000;
const MAX_DEPTH: usize = 10;
const MAX_STEPS: usize = 200_000;

/// Keywords that describe and do not constrain. The strict subset lacks them.
const DROPPED: &[&str] = &[
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$schema",
    "$comment",
    "discriminator",
];
/// Constraints of the strict subset.
const KEPT: &[&str] = &[
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "minItems",
    "maxItems",
    "title",
];
/// Constraints that an instruction expresses and the validation checks.
const DESCRIBED: &[&str] = &[
    "minLength",
    "maxLength",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "pattern",
    "format",
    "contentEncoding",
];
const FORMATS: &[&str] =
    &["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];

/// The name of the property that wraps an answer whose root is no object.
const WRAPPED: &str = "value";

/// A schema of the strict subset.
#[derive(Debug)]
pub(super) struct StrictForm {
    pub(super) schema: Value,
    pub(super) shapes: Shapes,
    /// A constraint of the client's schema is only described, so that an answer must be validated.
    pub(super) is_lossy: bool,
}

/// What an answer may have at each position of the strict form.
#[derive(Debug)]
pub(in crate::service) struct Shapes {
    pub(super) root: ShapeId,
    pub(super) is_wrapped: bool,
    shapes: Vec<Shape>,
}

pub(in crate::service) type ShapeId = usize;

#[derive(Debug, Default)]
pub(super) struct Shape {
    properties: HashMap<String, Property>,
    items: Option<ShapeId>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Property {
    /// The client's schema has the property as optional and not nullable.
    pub(super) drops_null: bool,
    pub(super) shape: ShapeId,
}

impl Shapes {
    pub(super) fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(id)
    }

    pub(super) fn property(&self, id: ShapeId, name: &str) -> Option<Property> {
        self.get(id)?.properties.get(name).copied()
    }
}

impl Shape {
    pub(super) fn items(&self) -> Option<ShapeId> {
        self.items
    }
}

/// Returns the strict form of a schema, or `None` if there is none.
pub(super) fn strict_form(original: &Value) -> Option<StrictForm> {
    let mut rewriter = Rewriter { root: original, steps: 0, properties: 0, enum_values: 0, is_lossy: false };
    let is_wrapped = original.get("type") != Some(&json!("object"))
        && (original.get("type").is_some() || original.get("properties").is_none())
        || original.get("anyOf").is_some()
        || original.get("oneOf").is_some();
    let mut schema = rewriter.node(original, 0)?;
    let mut definitions = Map::new();
    for key in ["$defs", "definitions"] {
        if let Some(originals) = original.get(key) {
            let mut rewritten = Map::new();
            for (name, definition) in originals.as_object()? {
                rewritten.insert(name.clone(), rewriter.node(definition, 0)?);
            }
            definitions.insert(key.to_owned(), Value::Object(rewritten));
        }
    }
    if is_wrapped {
        if rewriter.refers_to_root(original) {
            return None;
        }
        schema = json!({"type": "object", "properties": {WRAPPED: schema}, "required": [WRAPPED],
            "additionalProperties": false});
    }
    schema.as_object_mut()?.extend(definitions);
    let shapes = rewriter.shapes(is_wrapped)?;
    Some(StrictForm { schema, shapes, is_lossy: rewriter.is_lossy })
}

struct Rewriter<'a> {
    root: &'a Value,
    steps: usize,
    properties: usize,
    enum_values: usize,
    is_lossy: bool,
}

impl<'a> Rewriter<'a> {
    fn node(&mut self, original: &'a Value, depth: usize) -> Option<Value> {
        let original = original.as_object()?;
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(reference) = original.get("$ref") {
            self.target(reference)?;
            let is_note = |key: &String| {
                matches!(key.as_str(), "$ref" | "description" | "title" | "$defs" | "definitions")
                    || DROPPED.contains(&key.as_str())
            };
            return original.keys().all(is_note).then(|| json!({"$ref": reference}));
        }
        if let Some(Value::Array(parts)) = original.get("allOf") {
            let is_note = |key: &String| {
                matches!(key.as_str(), "allOf" | "description" | "title" | "$defs" | "definitions")
                    || DROPPED.contains(&key.as_str())
            };
            let [part] = parts.as_slice() else { return None };
            return if original.keys().all(is_note) { self.node(part, depth) } else { None };
        }
        let kind = kind(original);
        let mut schema = Map::new();
        let mut described = Map::new();
        for (keyword, value) in original {
            match keyword.as_str() {
                "$defs" | "definitions" | "required" if depth == 0 || keyword == "required" => {
                    if keyword == "required" {
                        schema.insert(keyword.clone(), required(original));
                    }
                }
                "type" | "const" | "description" => _ = schema.insert(keyword.clone(), value.clone()),
                "enum" => {
                    let values = value.as_array().filter(|values| !values.is_empty())?;
                    self.enum_values += values.len();
                    if values.iter().any(|value| value.is_object() || value.is_array()) {
                        return None;
                    }
                    schema.insert(keyword.clone(), value.clone());
                }
                "anyOf" | "oneOf" => {
                    if original.contains_key("properties") || original.contains_key("items") {
                        return None;
                    }
                    let list = value.as_array().filter(|list| !list.is_empty())?;
                    if keyword == "oneOf" && !self.are_disjoint(list)? {
                        self.is_lossy = true;
                    }
                    let variants =
                        list.iter().map(|one| self.node(one, depth + 1)).collect::<Option<Vec<_>>>()?;
                    schema.insert("anyOf".to_owned(), Value::Array(variants));
                }
                "properties" => {
                    let mut properties = Map::new();
                    let required = required_names(original);
                    self.properties += value.as_object()?.len();
                    if self.properties > MAX_PROPERTIES {
                        return None;
                    }
                    for (name, property) in value.as_object()? {
                        let rewritten = self.node(property, depth + 1)?;
                        let is_optional = !required.contains(name.as_str());
                        let rewritten = if is_optional && !self.allows_null(property)? {
                            json!({"anyOf": [rewritten, {"type": "null"}]})
                        } else {
                            rewritten
                        };
                        properties.insert(name.clone(), rewritten);
                    }
                    schema.insert(keyword.clone(), Value::Object(properties));
                }
                "items" => _ = schema.insert(keyword.clone(), self.node(value, depth + 1)?),
                "additionalProperties" if value == false => _ = schema.insert(keyword.clone(), value.clone()),
                "format" if value.as_str().is_some_and(|value| FORMATS.contains(&value)) => {
                    schema.insert(keyword.clone(), value.clone());
                }
                "pattern" if value.as_str().is_some_and(|value| !value.contains("(?")) => {
                    schema.insert(keyword.clone(), value.clone());
                }
                name if KEPT.contains(&name) => _ = schema.insert(keyword.clone(), value.clone()),
                name if DROPPED.contains(&name) => {}
                name if DESCRIBED.contains(&name) => _ = described.insert(keyword.clone(), value.clone()),
                _ => return None,
            }
        }
        self.complete(original, kind, &mut schema)?;
        if !described.is_empty() {
            self.is_lossy = true;
            let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            let text = format!("{text} Must match the JSON Schema {}", Value::Object(described));
            schema.insert("description".to_owned(), Value::String(text.trim_start().to_owned()));
        }
        (self.enum_values <= MAX_ENUM_VALUES).then_some(Value::Object(schema))
    }

    /// Adds the keywords that the strict subset demands.
    fn complete(
        &self,
        original: &Map<String, Value>,
        kind: Kind,
        schema: &mut Map<String, Value>,
    ) -> Option<()> {
        if !schema.contains_key("type") && !schema.contains_key("anyOf") {
            schema.insert("type".to_owned(), kind.implied?);
        }
        if kind.is_object {
            // An object without properties is an open map, unless it is closed.
            if !original.contains_key("properties") {
                original.get("additionalProperties").filter(|open| **open == false)?;
                schema.insert("properties".to_owned(), json!({}));
            }
            let required = required(original);
            let properties = original.get("properties").and_then(Value::as_object);
            let known = |name: &Value| {
                name.as_str().is_some_and(|name| properties.is_some_and(|all| all.contains_key(name)))
            };
            if !required.as_array().is_some_and(|names| names.iter().all(known)) {
                return None;
            }
            schema.entry("required").or_insert(required);
            schema.entry("additionalProperties").or_insert(Value::Bool(false));
        }
        (!kind.is_array || schema.contains_key("items")).then_some(())
    }

    fn target(&self, reference: &Value) -> Option<&'a Value> {
        let reference = reference.as_str()?;
        match reference {
            "#" => Some(self.root),
            _ => {
                let name = reference.strip_prefix("#/$defs/").or(reference.strip_prefix("#/definitions/"))?;
                // A definition inside of another one is not kept.
                if name.contains('/') { None } else { self.root.pointer(&reference[1..]) }
            }
        }
    }

    fn refers_to_root(&self, schema: &Value) -> bool {
        match schema {
            Value::Object(fields) => fields
                .iter()
                .any(|(key, value)| (key == "$ref" && value == "#") || self.refers_to_root(value)),
            Value::Array(list) => list.iter().any(|value| self.refers_to_root(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }

    /// Returns the alternatives of a schema, with references followed.
    fn branches(&mut self, schema: &'a Value) -> Option<Vec<&'a Map<String, Value>>> {
        let (mut found, mut seen, mut open) = (Vec::new(), HashSet::new(), vec![schema]);
        while let Some(schema) = open.pop() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return None;
            }
            if !seen.insert(std::ptr::from_ref(schema)) {
                continue;
            }
            let fields = schema.as_object()?;
            let list = ["anyOf", "oneOf", "allOf"].iter().find_map(|key| fields.get(*key)?.as_array());
            match (fields.get("$ref"), list) {
                (Some(reference), _) => open.push(self.target(reference)?),
                (None, Some(list)) => open.extend(list),
                (None, None) => found.push(fields),
            }
        }
        // Without a branch, references lead back to themselves.
        (!found.is_empty()).then_some(found)
    }

    fn allows_null(&mut self, schema: &'a Value) -> Option<bool> {
        let allows = |fields: &&Map<String, Value>| match (fields.get("const"), fields.get("enum")) {
            (Some(value), _) => value.is_null(),
            (None, Some(values)) => {
                values.as_array().is_some_and(|values| values.contains(&Value::Null))
                    && has_type(fields, "null", true)
            }
            (None, None) => has_type(fields, "null", false),
        };
        Some(self.branches(schema)?.iter().any(allows))
    }

    /// Returns `true` if no value matches two of the schemas: their types differ, or a required constant does.
    fn are_disjoint(&mut self, list: &'a [Value]) -> Option<bool> {
        let mut all = Vec::new();
        for one in list {
            all.extend(self.branches(one)?.into_iter().map(Variant::new));
        }
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                self.steps += 1 + one.constants.len();
                if self.steps > MAX_STEPS {
                    return None;
                }
                if !one.differs(other) {
                    return Some(false);
                }
            }
        }
        Some(true)
    }

    /// Builds the shapes of all positions that the root reaches.
    fn shapes(&mut self, is_wrapped: bool) -> Option<Shapes> {
        let mut ids = HashMap::new();
        let mut open = Vec::new();
        let mut id_of = |schema: &'a Value, open: &mut Vec<&'a Value>| {
            let next = ids.len();
            *ids.entry(std::ptr::from_ref(schema)).or_insert_with(|| {
                open.push(schema);
                next
            })
        };
        let client_root = id_of(self.root, &mut open);
        let (mut shapes, mut done): (Vec<Shape>, usize) = (Vec::new(), 0);
        while let Some(schema) = open.get(done).copied() {
            done += 1;
            let mut shape = Shape::default();
            let mut origins: HashMap<&str, &'a Value> = HashMap::new();
            let mut items: Option<&'a Value> = None;
            for branch in self.branches(schema)? {
                let required = required_names(branch);
                for (name, property) in
                    branch.get("properties").and_then(Value::as_object).into_iter().flatten()
                {
                    let drops_null = !required.contains(name.as_str()) && !self.allows_null(property)?;
                    let found = Property { drops_null, shape: id_of(property, &mut open) };
                    let Some(known) = shape.properties.insert(name.clone(), found) else {
                        origins.insert(name, property);
                        continue;
                    };
                    let is_same = origins.get(name.as_str()).is_some_and(|origin| *origin == property)
                        || (is_plain(property)
                            && origins.get(name.as_str()).is_some_and(|origin| is_plain(origin)));
                    if known.drops_null != drops_null || !is_same {
                        return None;
                    }
                }
                if let Some(of_branch) = branch.get("items") {
                    if items.is_some_and(|items| items != of_branch) {
                        return None;
                    }
                    items = Some(of_branch);
                }
            }
            shape.items = items.map(|items| id_of(items, &mut open));
            shapes.push(shape);
        }
        if !is_wrapped {
            return Some(Shapes { root: client_root, is_wrapped, shapes });
        }
        let value = Property { drops_null: false, shape: client_root };
        shapes.push(Shape { properties: HashMap::from([(WRAPPED.to_owned(), value)]), items: None });
        Some(Shapes { root: shapes.len() - 1, is_wrapped, shapes })
    }
}

/// The type of a schema.
struct Kind {
    is_object: bool,
    is_array: bool,
    /// The type if the schema does not name it.
    implied: Option<Value>,
}

fn kind(schema: &Map<String, Value>) -> Kind {
    let implied = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
        (Some(value), _) => Some(json!(type_of(value))),
        (None, Some(values)) => {
            let mut kinds: Vec<&str> = values.iter().map(type_of).collect();
            kinds.sort_unstable();
            kinds.dedup();
            Some(if let [kind] = kinds.as_slice() { json!(kind) } else { json!(kinds) })
        }
        (None, None) if schema.contains_key("properties") => Some(json!("object")),
        (None, None) if schema.contains_key("items") => Some(json!("array")),
        (None, None) => None,
    };
    let untyped =
        |kind: &str| !schema.contains_key("type") && implied.as_ref().is_some_and(|one| one == kind);
    Kind {
        is_object: has_type(schema, "object", false) || untyped("object"),
        is_array: has_type(schema, "array", false) || untyped("array"),
        implied,
    }
}

/// Returns `true` if a schema's `type` has a type, or the given value if it has no `type`.
fn has_type(schema: &Map<String, Value>, wanted: &str, default: bool) -> bool {
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == wanted),
        Some(kind) => kind == wanted,
        None => default,
    }
}

fn required_names(schema: &Map<String, Value>) -> HashSet<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Returns all properties of an object: the required ones in the client's order, then the optional ones.
fn required(schema: &Map<String, Value>) -> Value {
    let mut names: Vec<Value> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let known: HashSet<String> = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let optional = properties.into_iter().flat_map(Map::keys).filter(|name| !known.contains(*name));
    names.extend(optional.map(|name| json!(name)));
    Value::Array(names)
}

/// Returns `true` if no part of the schema can hold an object or an array.
fn is_plain(schema: &Value) -> bool {
    let compound = ["$ref", "properties", "items", "anyOf", "oneOf", "allOf"];
    schema.as_object().is_some_and(|schema| !compound.iter().any(|key| schema.contains_key(*key)))
}

/// What distinguishes an alternative from others.
struct Variant<'a> {
    /// `None` if the types are unknown.
    types: Option<Vec<String>>,
    /// The possible values of required properties.
    constants: HashMap<&'a str, &'a [Value]>,
}

impl<'a> Variant<'a> {
    fn new(schema: &'a Map<String, Value>) -> Self {
        let types = match schema.get("type").cloned().or(kind(schema).implied) {
            Some(Value::String(kind)) => Some(vec![kind]),
            Some(Value::Array(kinds)) => kinds.iter().map(|kind| kind.as_str().map(str::to_owned)).collect(),
            None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => None,
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        let constants = required_names(schema).into_iter().filter_map(|name| {
            let property = properties?.get(name)?;
            let values = match property.get("const") {
                Some(value) => std::slice::from_ref(value),
                None => property.get("enum")?.as_array()?.as_slice(),
            };
            Some((name, values))
        });
        Self { types, constants: constants.collect() }
    }

    /// Returns `true` if no value matches both alternatives.
    fn differs(&self, other: &Self) -> bool {
        let (Some(ours), Some(theirs)) = (&self.types, &other.types) else { return false };
        let number = |kind: &String| kind == "number" || kind == "integer";
        let overlap =
            |kind: &String| theirs.iter().any(|their| their == kind || number(kind) && number(their));
        if !ours.iter().any(overlap) {
            return true;
        }
        self.constants.iter().any(|(name, ours)| {
            let theirs = other.constants.get(name);
            theirs.is_some_and(|theirs| !ours.iter().any(|value| theirs.contains(value)))
        })
    }
}

#[cfg(test)]
mod tests;
