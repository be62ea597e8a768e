use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::service::json_answer::JsonStream;

fn answer(schema: &Value, text: &str) -> String {
    let form = strict_form(schema).expect("a strict form");
    JsonStream::new(Some(Arc::new(form.shapes))).push(text)
}

fn pydantic() -> Value {
    json!({"type": "object", "title": "Order", "properties": {
        "id": {"type": "integer"}, "note": {"type": "string", "default": ""},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}}},
        "required": ["id", "lines"],
        "$defs": {"Line": {"type": "object", "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}},
            "required": ["sku"]}}})
}

#[test]
fn strict_form_of_a_loose_object_is_closed_and_its_optional_properties_are_nullable() {
    let form = strict_form(&pydantic()).expect("a strict form");
    assert!(!form.is_lossy);
    let schema = form.schema;
    assert_eq!(schema["required"], json!(["id", "lines", "note", "maybe"]));
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["note"], json!({"anyOf": [{"type": "string"}, {"type": "null"}]}));
    assert_eq!(schema["$defs"]["Line"]["required"], json!(["sku", "count"]));
}

#[test]
fn answer_lacks_the_nulls_of_optional_properties_only() {
    let text = r#"{ "note":null , "id":1,"maybe":null,"lines":[{"sku":"a,b","count":null},{"count":2,"sku":"null"}]}"#;
    let expected = json!({"id": 1, "maybe": null, "lines": [{"sku": "a,b"}, {"count": 2, "sku": "null"}]});
    let answer = answer(&pydantic(), text);
    assert_eq!(serde_json::from_str::<Value>(&answer).expect(&answer), expected);
}

#[test]
fn root_that_is_no_object_is_wrapped_and_unwrapped() {
    let list = json!({"type": "array", "items": {"type": "integer"}});
    assert_eq!(strict_form(&list).expect("a form").schema["properties"]["value"], list);
    assert_eq!(answer(&list, r#"{ "value" : [1, 2] }"#), "[1, 2]");
    let node = json!({"$ref": "#/$defs/N", "$defs": {"N": {"type": "object",
        "properties": {"next": {"$ref": "#/$defs/N"}, "n": {"enum": [1, 2]}}, "required": ["n"]}}});
    assert_eq!(answer(&node, r#"{"value":{"next":{"next":null,"n":1},"n":2}}"#), r#"{"next":{"n":1},"n":2}"#);
}

#[test]
fn recursion_at_the_root_and_an_enum_of_numbers_have_a_strict_form() {
    let tree = json!({"type": "object", "properties": {"level": {"enum": [1, 2.5]},
        "children": {"type": "array", "items": {"$ref": "#"}}}, "required": ["level"]});
    let form = strict_form(&tree).expect("a strict form");
    assert_eq!(form.schema["properties"]["level"]["type"], json!(["integer", "number"]));
    assert_eq!(
        answer(&tree, r#"{"level":1,"children":[{"level":1,"children":null}]}"#),
        r#"{"level":1,"children":[{"level":1}]}"#
    );
}

#[test]
fn schemas_without_an_unambiguous_equivalent_have_no_strict_form() {
    for schema in [
        json!({"type": "object"}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "properties": {"a": {}}}),
        json!({"type": "object", "properties": {"a": {"type": "array"}}}),
        json!({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}),
        json!({"type": "object", "properties": {"a": {"$ref": "https://example.com/s"}}}),
        json!({"anyOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}},
            {"type": "object", "properties": {"a": {"type": ["integer", "null"]}}},
        ]}),
    ] {
        assert!(strict_form(&schema).is_none(), "{schema}");
    }
}

#[test]
fn constraint_outside_of_the_subset_is_described() {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 3}}, "required": ["a"]});
    let form = strict_form(&schema).expect("a strict form");
    assert!(form.is_lossy);
    assert_eq!(
        form.schema["properties"]["a"]["description"],
        r#"Must match the JSON Schema {"minLength":3}"#
    );
}

/// Returns large schemas of up to 1 MiB that are costly to follow.
fn pathological() -> Vec<Value> {
    let names: Vec<String> = (0..30_000).map(|i| format!("property{i}")).collect();
    let all =
        |schema: Value| -> Map<String, Value> { names.iter().map(|n| (n.clone(), schema.clone())).collect() };
    let object = |constant: usize| {
        let properties: Map<String, Value> =
            (0..40).map(|i| (format!("p{i}"), json!({"const": constant / 700}))).collect();
        let required: Vec<&String> = properties.keys().collect();
        json!({"type": "object", "required": required, "properties": properties})
    };
    let variants: Vec<Value> = (0..600).map(object).collect();
    let wide: Map<String, Value> =
        (0..4_900).map(|i| (format!("p{i}"), json!({"type": "integer"}))).collect();
    let uses: Map<String, Value> = (0..4_900)
        .map(|i| (format!("u{i}"), json!({"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]})))
        .collect();
    let big = json!({"type": "object", "properties": {"x": {"type": "object", "properties": wide}}});
    let cycle: Map<String, Value> = (0..10_000)
        .map(|i| (format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", (i + 1) % 10_000)})))
        .collect();
    let patterns: Vec<Value> =
        (0..300).map(|i| json!({"type": "string", "pattern": format!("^\\\\p{{L}}{{160}}{i}")})).collect();
    vec![
        json!({"type": "object", "properties": all(json!({"type": "string"})), "required": names}),
        json!({"type": "object", "properties": all(json!({"$ref": "#"}))}),
        json!({"oneOf": variants}),
        json!({"type": "object", "properties": uses, "$defs": {"a": big, "b": big}}),
        json!({"$ref": "#/$defs/d0", "$defs": cycle}),
        json!({"anyOf": patterns}),
        json!({"anyOf": vec![json!({"$ref": "#"}); 50_000]}),
    ]
}

#[test]
fn strict_form_of_a_pathological_schema_ends_soon() {
    for (index, schema) in pathological().iter().enumerate() {
        let started = std::time::Instant::now();
        strict_form(schema);
        assert!(started.elapsed().as_secs() < 5, "schema {index} took {:?}", started.elapsed());
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a\"\\\\{},:€ ]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[ab,\"n]{0,2}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Returns a schema of which all objects' properties are optional, for a value.
fn schema_of(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let properties: Map<String, Value> =
                fields.iter().map(|(name, value)| (name.clone(), schema_of(value))).collect();
            json!({"type": "object", "properties": properties, "additionalProperties": false})
        }
        Value::Array(_) => json!({"type": "array", "items": {"type": "string"}}),
        Value::Null => json!({"type": "string"}),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => json!({"type": type_of(value)}),
    }
}

fn without_nulls(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let kept = fields.iter().filter(|(_, value)| !value.is_null());
    Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
}

proptest! {
    #[test]
    fn answer_is_independent_of_deltas_and_lacks_optional_nulls(
        value in any_json().prop_filter("an object", Value::is_object), pretty: bool, cut in 0usize..200,
    ) {
        let Some(form) = strict_form(&schema_of(&value)) else { return Ok(()) };
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let stream = JsonStream::new(Some(Arc::new(form.shapes)));
        let whole = stream.translate_whole(&text).expect("an object");
        prop_assert_eq!(serde_json::from_str::<Value>(&whole).unwrap(), without_nulls(&value), "{}", text);
        let at = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
        let mut halves = stream.clone();
        let mut parts = halves.push(&text[..at]) + &halves.push(&text[at..]);
        if !halves.has_begun() {
            parts = halves.translate_whole(&text).expect("an object");
        }
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn object_in_a_fence_is_found_unchanged(value in any_json().prop_filter("an object", Value::is_object)) {
        let text = value.to_string();
        let fenced = format!("Here {{it}} is:\n```json\n{text}\n```\nDone {{}}");
        let mut stream = JsonStream::new(None);
        let found: String = fenced.chars().map(|c| stream.push(&c.to_string())).collect();
        // An object without members is only chosen at the end of the text.
        prop_assert_eq!(stream.is_complete(), text != "{}");
        let found = if stream.is_complete() { Some(found) } else { stream.translate_whole(&fenced) };
        prop_assert_eq!(found, Some(text));
    }
}
