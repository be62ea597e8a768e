use std::time::Duration;

use serde_json::json;

use super::*;

/// Returns a chain of levels with 2^levels parts. Each level is a choice between two references to the next level.
fn doubling(levels: usize) -> Value {
    let mut defs =
        json!({format!("d{levels}"): {"type": "object", "properties": {"a": {"type": "integer"}}}});
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        defs[format!("d{level}")] = json!({"anyOf": [next, next]});
    }
    json!({"type": "object", "$ref": "#/$defs/d0", "$defs": defs})
}

fn validate(validator: &ArgumentValidator, arguments: &str) -> Result<(), ValidationError> {
    validator.validate(arguments, None)
}

/// Returns the mistake in arguments.
fn mistake(validator: &ArgumentValidator, arguments: &str) -> String {
    match validate(validator, arguments) {
        Err(ValidationError::Invalid(mistake)) => mistake,
        other => panic!("{arguments}: {other:?}"),
    }
}

/// Returns arguments of the given depth.
fn nested(depth: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
}

#[test]
fn new_schema_of_too_many_parts_is_refused() {
    for levels in [17, 22, 60, 150] {
        let refused = ArgumentValidator::new(&doubling(levels)).unwrap_err().to_string();
        assert!(refused.contains("more than 100000 parts"), "{levels}: {refused}");
    }
    let strict = ArgumentValidator::new(&doubling(9)).unwrap();
    assert_eq!(validate(&strict, r#"{"a": 1}"#), Ok(()));
    assert!(mistake(&strict, r#"{"a": "x"}"#).contains("do not match its schema: "));
    // The description of the mistakes of all alternatives would exceed the budget.
    let strict = ArgumentValidator::new(&doubling(13)).unwrap();
    assert_eq!(validate(&strict, r#"{"a": 1}"#), Ok(()));
    assert_eq!(mistake(&strict, r#"{"a": "x"}"#), "do not match its schema");
}

#[test]
fn validate_branching_recursive_schema_returns_a_verdict_at_any_depth() {
    let itself = json!({"$ref": "#"});
    let schema = json!({"properties": {"a": {"anyOf": [itself, itself]}, "b": {"type": "integer"}}});
    let strict = ArgumentValidator::new(&schema).unwrap();
    // Without the validator's cache of results for recursive parts, these arguments would take 2^120 steps.
    for depth in [10, 30, 60, 120] {
        assert_eq!(validate(&strict, &nested(depth)), Ok(()));
        let wrong = nested(depth).replace('1', r#"{"b":"x"}"#);
        assert!(mistake(&strict, &wrong).starts_with("do not match its schema"));
    }
}

/// Returns the schema of an array whose items take 2^13 steps each to validate.
fn expensive() -> Value {
    let mut schema = doubling(13);
    schema.as_object_mut().unwrap().shift_remove("$ref");
    schema["properties"] = json!({"a": {"type": "array", "items": {"not": {"$ref": "#/$defs/d0"}}}});
    schema
}

#[test]
fn validate_beyond_the_budget_is_too_expensive() {
    let strict = ArgumentValidator::new(&expensive()).unwrap();
    let arguments = |items: usize| json!({"a": vec!["x"; items]}).to_string();
    assert_eq!(validate(&strict, &arguments(10)), Ok(()));
    let Err(ValidationError::TooExpensive(what)) = validate(&strict, &arguments(2_000)) else {
        panic!("16 million reads are more than the budget");
    };
    assert!(what.contains("cannot be checked"), "{what}");
}

#[test]
fn validate_beyond_the_deadline_is_too_expensive() {
    let strict = ArgumentValidator::new(&expensive()).unwrap();
    let arguments = json!({"a": ["x"]}).to_string();
    let soon = Some(Instant::now() + Duration::from_secs(60));
    assert_eq!(strict.validate(&arguments, soon), Ok(()));
    let past = Some(Instant::now());
    assert!(matches!(strict.validate(&arguments, past), Err(ValidationError::TooExpensive(_))));
}

#[test]
fn validate_deeper_than_the_stack_is_too_expensive() {
    // Each level of the arguments passes 195 choices and references, about 100,000 frames in total.
    let mut defs: serde_json::Map<String, Value> = (0..195)
        .map(|n| (format!("d{n}"), json!({"anyOf": [{"$ref": format!("#/$defs/d{}", n + 1)}]})))
        .collect();
    defs.insert("d195".into(), json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}}));
    let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
    let strict = ArgumentValidator::new(&schema).unwrap();
    assert_eq!(validate(&strict, "{}"), Ok(()));
    let deep = nested(120).replace('1', "{}");
    assert!(matches!(validate(&strict, &deep), Err(ValidationError::TooExpensive(_))));
}

#[test]
fn validate_ordinary_recursive_schema_accepts_matches_and_locates_mistakes() {
    let schema = json!({"type": "object", "$defs": {"tree node": {"type": "object", "required": ["children"],
        "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree%20node"}}}}},
        "properties": {"root": {"$ref": "#/$defs/tree%20node"}, "next": {"$ref": "#"}}});
    let strict = ArgumentValidator::new(&schema).unwrap();
    let node = |children: Value| json!({"children": children});
    let tree = |leaf: Value| json!({"root": node(json!([node(json!([])), node(json!([leaf]))])), "next": {}});
    assert_eq!(validate(&strict, &tree(node(json!([]))).to_string()), Ok(()));
    assert!(mistake(&strict, &tree(json!({})).to_string()).contains("at /root/children/1/children/0"));
    let many: Vec<Value> = (0..5_000).map(|_| node(json!([]))).collect();
    assert_eq!(validate(&strict, &json!({"root": {"children": many}}).to_string()), Ok(()));
}

#[test]
fn new_endless_and_unknown_references_are_refused() {
    let chain: serde_json::Map<String, Value> = (0..5_000)
        .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
        .chain([("d5000".to_owned(), json!({}))])
        .collect();
    for (schema, text) in [
        (json!({"$ref": "#"}), "leads back to itself"),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
            "leads back to itself",
        ),
        (json!({"$ref": "#/$defs/d0", "$defs": chain}), "parts deep"),
        (json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}), "https://json-schema.org"),
        (json!({"$ref": "#name", "$defs": {"x": {"$anchor": "name"}}}), "#name"),
        (json!({"properties": {"x": {"$id": "http://other/", "$ref": "#/y"}}}), "http://other/"),
    ] {
        let refused = ArgumentValidator::new(&schema).unwrap_err().to_string();
        assert!(refused.contains(text), "{text}: {refused}");
    }
    assert!(
        ArgumentValidator::new(
            &json!({"$id": "http://mine/", "properties": {"$id": {"type": "string"}, "id": {"const": "x"}}})
        )
        .is_ok()
    );
}

#[test]
fn new_deepest_chain_of_references_fits_on_the_stack() {
    let defs: serde_json::Map<String, Value> = (0..398)
        .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
        .chain([("d398".to_owned(), json!({"type": "object"}))])
        .collect();
    let strict = ArgumentValidator::new(&json!({"$ref": "#/$defs/d0", "$defs": defs})).unwrap();
    assert_eq!(validate(&strict, "{}"), Ok(()));
    assert!(mistake(&strict, "1").contains("object"));
}

/// Returns the schema of a tree whose classes are distinguished by a constant. Each class may be a child of each class.
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
fn validate_tree_of_many_classes_stays_within_the_budget() {
    for count in [3, 8, 13, 30] {
        let strict = ArgumentValidator::new(&classes(count)).unwrap();
        let mut tree = json!({"kind": "N0"});
        for level in 1..40 {
            // The kind is the last member, because a model may write the members in this order.
            let leaf = json!({"kind": format!("N{}", level % count)});
            tree = json!({"left": tree, "right": leaf, "kind": format!("N{}", (level * 7) % count)});
        }
        let right = json!({"root": tree}).to_string();
        assert_eq!(validate(&strict, &right), Ok(()), "{count}");
        let wrong = right.replace(r#"{"kind":"N0"}"#, r#"{"kind":"none"}"#);
        assert!(matches!(validate(&strict, &wrong), Err(ValidationError::Invalid(_))), "{count}");
    }
}

/// Returns the schema of an object of `count` properties with different patterns.
fn patterns(count: usize, pattern: &str) -> Value {
    let property =
        |n: usize| (format!("p{n}"), json!({"type": "string", "pattern": format!("{pattern}{n}")}));
    let properties: serde_json::Map<String, Value> = (0..count).map(property).collect();
    json!({"type": "object", "properties": properties})
}

#[test]
fn new_patterns_beyond_the_limits_are_refused() {
    for (schema, text) in [
        (patterns(300, r"^\p{L}{160}"), "KiB compiled"),
        (patterns(1, r"^\p{L}{160}"), "128 KiB compiled"),
        (patterns(2_561, "^[a-z]{3}"), "more than 2560 patterns"),
        (patterns(641, r"^(a[b-y]c[d-w]){28}x"), "more than 640 patterns"),
        (patterns(81, r"^(\p{L}x)+"), "more than 80 patterns"),
        (patterns(1, &"a".repeat(5_000)), "more than 4096"),
        (patterns(1, "^(?=a)(a+)+$"), "look-around"),
        (json!({"patternProperties": {"(": {}}}), "regex"),
    ] {
        let refused = ArgumentValidator::new(&schema).unwrap_err().to_string();
        assert!(refused.contains(text), "{text}: {refused}");
    }
}

#[test]
fn new_ordinary_patterns_are_accepted() {
    let names = ArgumentValidator::new(&patterns(80, r"^\p{L}+$")).unwrap();
    assert!(mistake(&names, r#"{"p0": "1"}"#).contains("at /p0"));
    for pattern in [
        r"^[\p{L} '-]{1,50}$",
        r"^.{1,1000}$",
        r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$",
        "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    ] {
        let cost = ArgumentValidator::new(&json!({"pattern": pattern})).unwrap().cost();
        assert_eq!(cost, SchemaCost { parts: 2, pattern_bytes: 4 << 10 }, "{pattern}");
    }
}

#[test]
fn validate_pattern_that_backtracks_in_other_engines_is_linear() {
    let strict = ArgumentValidator::new(&json!({"properties": {"x": {"pattern": "^(a+)+$"}}})).unwrap();
    let text = "a".repeat(50_000);
    assert_eq!(validate(&strict, &json!({"x": text}).to_string()), Ok(()));
    assert!(mistake(&strict, &json!({"x": text + "b"}).to_string()).contains("at /x"));
}

#[test]
fn validate_long_text_for_a_large_pattern_is_too_expensive() {
    let properties = json!({"name": {"pattern": r"^\p{L}+$"}, "text": {"type": "string", "minLength": 1}});
    let strict = ArgumentValidator::new(&json!({"properties": properties})).unwrap();
    let long = "a".repeat(70_000);
    assert_eq!(validate(&strict, &json!({"name": "b", "text": long}).to_string()), Ok(()));
    let name = json!({"name": long}).to_string();
    assert!(matches!(validate(&strict, &name), Err(ValidationError::TooExpensive(_))));

    // A small pattern may search the same text.
    let strict = ArgumentValidator::new(&json!({"properties": {"name": {"pattern": "^[a-z]+$"}}})).unwrap();
    assert_eq!(validate(&strict, &name), Ok(()));
}

/// Prints the measurements of the comments. Run with `cargo test --release --lib measure_ -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, for a release build"]
fn measure_cost_of_schemas() {
    let measure = |name: &str, schema: &Value, arguments: &str| {
        let began = Instant::now();
        let compiled = ArgumentValidator::new(schema);
        let compiled_in = began.elapsed();
        let began = Instant::now();
        let outcome = compiled.map(|compiled| (compiled.cost(), compiled.validate(arguments, None)));
        println!("{name}: compiled in {compiled_in:?}, validated in {:?}: {outcome:.300?}", began.elapsed());
    };
    let properties = |count: usize| {
        let property = |n: usize| (format!("p{n}"), json!({"type": "integer"}));
        json!({"type": "object", "properties": (0..count).map(property).collect::<serde_json::Map<_, _>>()})
    };
    let all = json!((0..30_000).map(|n| (format!("p{n}"), json!(1))).collect::<serde_json::Map<_, _>>());
    measure("30,000 properties", &properties(30_000), &all.to_string());
    measure("99,000 empty parts", &json!({"anyOf": vec![json!({}); 99_000]}), "{}");
    measure(r"300 of \p{L}{160}", &patterns(300, r"^\p{L}{160}"), "{}");
    measure("640 medium patterns", &patterns(640, r"^(a[b-y]c[d-w]){28}x"), "{}");
    measure("80 large patterns", &patterns(80, r"^(\p{L}{3}x)+"), "{}");
    let mut seed = 12_345_u64;
    let letter = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if seed >> 40 & 1 == 0 { 'a' } else { 'b' }
    };
    let text = json!({"p0": (0..16 << 10).map(letter).collect::<String>()}).to_string();
    measure("16 KiB for a large pattern", &patterns(1, "(a|b)*a(a|b){900}c"), &text);
    measure("doubling 13", &doubling(13), r#"{"a":"x"}"#);
    measure("2,000 items of doubling 13", &expensive(), &json!({"a": vec!["x"; 2_000]}).to_string());
    measure("doubling 60", &doubling(60), "{}");
}
