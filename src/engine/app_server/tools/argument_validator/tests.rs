use serde_json::json;

use super::*;

/// So many levels that each choose twice between the next one and the next one.
fn doubling(levels: usize) -> Value {
    let mut defs =
        json!({format!("d{levels}"): {"type": "object", "properties": {"a": {"type": "integer"}}}});
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        defs[format!("d{level}")] = json!({"anyOf": [next, next]});
    }
    json!({"type": "object", "$ref": "#/$defs/d0", "$defs": defs})
}

/// What is wrong with arguments.
fn wrong(strict: &ArgumentValidator, arguments: &str) -> String {
    let Err(ValidationError::Wrong(what)) = strict.check(arguments) else { panic!("they are not wrong") };
    what
}

/// Arguments so deep.
fn nested(depth: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
}

#[test]
fn a_schema_that_stands_for_too_many_parts_is_refused_before_it_is_compiled() {
    for levels in [17, 22, 60, 150] {
        let refused = ArgumentValidator::new(&doubling(levels)).unwrap_err();
        assert!(refused.contains("more than 100000 parts"), "{levels}: {refused}");
    }
    let strict = ArgumentValidator::new(&doubling(9)).unwrap();
    assert_eq!(strict.check(r#"{"a": 1}"#), Ok(()));
    assert!(wrong(&strict, r#"{"a": "x"}"#).contains("do not match its schema: "));
    // Found wrong all the same, where telling what is wrong with each alternative would take too long.
    let strict = ArgumentValidator::new(&doubling(13)).unwrap();
    assert_eq!(strict.check(r#"{"a": 1}"#), Ok(()));
    assert_eq!(wrong(&strict, r#"{"a": "x"}"#), "do not match its schema");
}

#[test]
fn a_recursive_schema_that_branches_is_checked_as_far_as_it_can_be() {
    let itself = json!({"$ref": "#"});
    let schema = json!({"properties": {"a": {"anyOf": [itself, itself]}, "b": {"type": "integer"}}});
    let strict = ArgumentValidator::new(&schema).unwrap();
    assert_eq!(strict.check(&nested(10)), Ok(()));
    let wrong = nested(10).replace('1', r#"{"b":"x"}"#);
    assert!(self::wrong(&strict, &wrong).starts_with("do not match its schema"));
    for depth in [30, 60, 120] {
        assert!(matches!(strict.check(&nested(depth)), Err(ValidationError::Unknown(_))), "{depth}");
    }
}

#[test]
fn ordinary_schemas_that_refer_to_themselves_are_checked() {
    let schema = json!({"type": "object", "$defs": {"tree node": {"type": "object", "required": ["children"],
        "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree%20node"}}}}},
        "properties": {"root": {"$ref": "#/$defs/tree%20node"}, "next": {"$ref": "#"}}});
    let strict = ArgumentValidator::new(&schema).unwrap();
    let node = |children: Value| json!({"children": children});
    let tree = |leaf: Value| json!({"root": node(json!([node(json!([])), node(json!([leaf]))])), "next": {}});
    assert_eq!(strict.check(&tree(node(json!([]))).to_string()), Ok(()));
    assert!(wrong(&strict, &tree(json!({})).to_string()).contains("at /root/children/1/children/0"));
    let many: Vec<Value> = (0..5_000).map(|_| node(json!([]))).collect();
    assert_eq!(strict.check(&json!({"root": {"children": many}}).to_string()), Ok(()));
}

#[test]
fn references_without_end_and_those_that_nobody_can_follow_are_refused() {
    let chain: serde_json::Map<String, Value> = (0..5_000)
        .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
        .chain([("d5000".to_owned(), json!({}))])
        .collect();
    for (schema, says) in [
        (json!({"$ref": "#"}), "leads back to itself"),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
            "leads back to itself",
        ),
        (json!({"$ref": "#/$defs/d0", "$defs": chain}), "too deep"),
        (json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}), "https://json-schema.org"),
        (json!({"$ref": "#name", "$defs": {"x": {"$anchor": "name"}}}), "#name"),
        (json!({"properties": {"x": {"$id": "http://other/", "$ref": "#/y"}}}), "http://other/"),
    ] {
        let refused = ArgumentValidator::new(&schema).unwrap_err();
        assert!(refused.contains(says), "{says}: {refused}");
    }
    assert!(
        ArgumentValidator::new(
            &json!({"$id": "http://mine/", "properties": {"$id": {"type": "string"}, "id": {"const": "x"}}})
        )
        .is_ok()
    );
}

#[test]
fn what_is_as_deep_as_may_be_fits_on_the_stack() {
    let defs: serde_json::Map<String, Value> = (0..398)
        .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
        .chain([("d398".to_owned(), json!({"type": "object"}))])
        .collect();
    let strict = ArgumentValidator::new(&json!({"$ref": "#/$defs/d0", "$defs": defs})).unwrap();
    assert_eq!(strict.check("{}"), Ok(()));
    assert!(wrong(&strict, "1").contains("object"));
}

/// Classes of a tree, told apart by a constant; each may be left and right of each.
fn classes(count: usize) -> Value {
    let any: Vec<Value> = (0..count).map(|n| json!({"$ref": format!("#/$defs/N{n}")})).collect();
    let class = |n: usize| {
        json!({"type": "object", "required": ["kind"], "additionalProperties": false, "properties":
            {"left": {"anyOf": any}, "right": {"anyOf": any}, "kind": {"const": format!("N{n}")}}})
    };
    let defs: serde_json::Map<String, Value> = (0..count).map(|n| (format!("N{n}"), class(n))).collect();
    json!({"type": "object", "properties": {"root": {"anyOf": any}}, "$defs": defs})
}

#[test]
fn a_tree_of_many_classes_is_checked() {
    for count in [3, 8, 13, 30] {
        let strict = ArgumentValidator::new(&classes(count)).unwrap();
        let mut tree = json!({"kind": "N0"});
        for level in 1..40 {
            // The kind comes last, as a model may write it.
            let leaf = json!({"kind": format!("N{}", level % count)});
            tree = json!({"left": tree, "right": leaf, "kind": format!("N{}", (level * 7) % count)});
        }
        let right = json!({"root": tree}).to_string();
        assert_eq!(strict.check(&right), Ok(()), "{count}");
        let wrong = right.replace(r#"{"kind":"N0"}"#, r#"{"kind":"none"}"#);
        assert!(matches!(strict.check(&wrong), Err(ValidationError::Wrong(_))), "{count}");
    }
}
