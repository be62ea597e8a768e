use super::*;

/// An object with one property, `x`.
#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn x(schema: Value) -> Value {
    json!({"type": "object", "properties": {"x": schema}})
}

#[test]
fn rewrite_supported_schemas_are_unchanged() {
    let schemas = [
        x(json!({"type": "string", "description": "a city", "enum": ["Rome", "Oslo"]})),
        x(json!({"type": ["string", "null"]})),
        x(json!({"type": "array", "items": {"type": "number"}, "minItems": 2})),
        x(json!({"anyOf": [{"type": "string"}, {"type": "null"}], "description": "d"})),
        x(json!({"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}})),
        x(json!({})),
        json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/q"}}, "$defs": {"q": {"type": "null"}},
            "required": ["x"], "additionalProperties": false}),
        // Properties may have the names of keywords.
        json!({"type": "object", "properties": {"pattern": {"type": "string"}, "format": {"type": "string"}}}),
    ];
    for schema in schemas {
        assert_eq!(rewrite_for_codex(&schema), RewrittenSchema { schema, lossy: false });
    }
}

#[test]
fn rewrite_equivalent_schemas_are_not_lossy() {
    let pairs = [
        (json!({}), object()),
        (json!({"type": "object", "properties": null, "required": null}), object()),
        (json!({"title": "Args", "$schema": "https://json-schema.org/draft/2020-12/schema"}), object()),
        (x(json!({"const": 5})), x(json!({"enum": [5], "type": "integer"}))),
        (x(json!({"const": "a", "enum": ["a", "b"]})), x(json!({"enum": ["a"], "type": "string"}))),
        (x(json!({"enum": [1, null]})), x(json!({"enum": [1, null], "type": ["integer", "null"]}))),
        (x(json!({"type": "object"})), x(object())),
        (x(json!({"type": "array"})), x(json!({"type": "array", "items": {}}))),
        (x(json!({"items": true})), x(json!({"type": "array", "items": {}}))),
        (x(json!({"minItems": 2})), x(json!({"type": "array", "items": {}, "minItems": 2}))),
        (x(json!(true)), x(json!({}))),
        (x(json!({"type": "string", "title": "X", "default": null})), x(json!({"type": "string"}))),
        (
            json!({"$ref": "#/$defs/args", "$defs": {"args": x(json!({"type": "string"}))}}),
            json!({"type": "object", "properties": {"x": {"type": "string"}}, "$defs": {"args": x(json!({"type": "string"}))}}),
        ),
    ];
    for (original, schema) in pairs {
        assert_eq!(rewrite_for_codex(&original), RewrittenSchema { schema, lossy: false });
    }
}

#[test]
fn rewrite_every_loss_is_reported() {
    let string = || x(json!({"type": "string"}));
    let pairs = [
        (x(json!({"type": "string", "format": "date"})), string()),
        (x(json!({"type": "string", "pattern": "^a"})), string()),
        (x(json!({"type": "string", "minLength": 1, "maxLength": 3})), string()),
        (x(json!({"type": "string", "default": "z"})), string()),
        (x(json!({"type": "string", "examples": ["k"]})), string()),
        (x(json!({"type": "string", "title": "The city's name"})), string()),
        (x(json!({"type": "string", "nullable": true})), string()),
        (x(json!({"type": ["string", "bogus"]})), string()),
        (x(json!({"type": "bogus"})), x(json!({}))),
        (x(json!({"type": "integer", "minimum": 3})), x(json!({"type": "integer"}))),
        (x(json!({"description": "anything"})), x(json!({}))),
        (x(json!(false)), x(json!({}))),
        (x(json!(null)), x(json!({}))),
        (x(json!({"enum": []})), x(json!({}))),
        (x(json!({"not": {"type": "string"}})), x(json!({}))),
        (
            x(json!({"type": "array", "items": [{"type": "string"}]})),
            x(json!({"type": "array", "items": {}})),
        ),
        (x(json!({"type": "string", "enum": "a"})), string()),
        (x(json!({"anyOf": [{"type": "null", "title": "X"}]})), x(json!({"anyOf": [{"type": "null"}]}))),
        (json!({"anyOf": [{"type": "object"}]}), object()),
        (json!({"type": "array", "items": {"type": "string"}}), object()),
        (json!({"type": ["object", "null"]}), object()),
        (json!({"$ref": "https://example.com/schema"}), object()),
        (json!({"$ref": "#"}), object()),
        (json!({"patternProperties": {"^x": {"type": "string"}}}), object()),
        (json!(7), object()),
    ];
    for (original, schema) in pairs {
        assert_eq!(rewrite_for_codex(&original), RewrittenSchema { schema, lossy: true }, "{original}");
    }
}

#[test]
fn rewrite_large_schema_is_lossy() {
    let sized = |length: usize| {
        let empty = x(json!({"type": "string", "description": ""})).to_string().len();
        x(json!({"type": "string", "description": "d".repeat(length - empty)}))
    };
    assert!(!rewrite_for_codex(&sized(5_000)).lossy);
    assert!(rewrite_for_codex(&sized(5_001)).lossy);
}

#[test]
fn rewrite_endless_root_reference_terminates() {
    let loops =
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
    assert!(rewrite_for_codex(&loops).lossy);
}
