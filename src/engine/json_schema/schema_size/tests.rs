use serde_json::json;

use super::*;

fn parts(schema: &Value) -> Result<u64, SizeError> {
    schema_size(schema, u64::MAX).map(|size| size.parts)
}

#[test]
fn schema_size_counts_a_part_for_each_reference_to_it() {
    let large = json!({"enum": [1, 2, 3, 4, 5]});
    let once = json!({"properties": {"x": {"$ref": "#/$defs/large"}}, "$defs": {"large": large}});
    let twice = json!({"properties": {"x": {"$ref": "#/$defs/large"}, "y": {"$ref": "#/$defs/large"}},
        "$defs": {"large": large}});
    let referenced = parts(&large).unwrap() + 1;
    assert_eq!(parts(&twice).unwrap() - parts(&once).unwrap(), referenced);
    let unused = json!({"$defs": {"large": large}});
    assert_eq!(parts(&unused), Ok(2), "the schema and its keyword");
}

#[test]
fn schema_size_of_branches_multiplies_without_visiting_each_part() {
    let mut defs = json!({"d60": {}});
    for level in 0..60 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        defs[format!("d{level}")] = json!({"anyOf": [next, next]});
    }
    let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
    // The schema has 2^60 parts, which are counted in a few hundred visits.
    assert!(parts(&schema).unwrap() > 1 << 60);
    assert_eq!(schema_size(&schema, 1_000_000), Err(SizeError::TooManyParts(1_000_000)));
}

#[test]
fn schema_size_of_recursive_branches_counts_them_once() {
    let itself = json!({"$ref": "#"});
    let schema = json!({"properties": {"a": {"anyOf": [itself, itself]}}});
    assert!(schema_size(&schema, 100).is_ok(), "the schema itself is small");
}

#[test]
fn schema_size_collects_different_patterns() {
    let schema = json!({"properties": {"a": {"pattern": "x"}, "b": {"pattern": "x"}, "pattern": {"type": "string"}},
        "patternProperties": {"y": {"$ref": "#/$defs/z%20"}}, "$defs": {"z ": {"pattern": "z"}, "unused": {"pattern": "w"}}});
    assert_eq!(schema_size(&schema, 100).unwrap().patterns, BTreeSet::from(["x", "y", "z"]));
}
