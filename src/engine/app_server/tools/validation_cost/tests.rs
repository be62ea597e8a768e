use serde_json::json;

use super::*;

fn steps(schema: &Value, value: &Value) -> u64 {
    super::steps(schema, value, u64::MAX).unwrap()
}

#[test]
fn each_part_counts_as_often_as_it_meets_one_of_the_value() {
    let schema = json!({"items": {"type": "integer"}});
    let growth =
        |from: usize| steps(&schema, &json!(vec![1; from + 10])) - steps(&schema, &json!(vec![1; from]));
    assert_eq!((growth(0), growth(100)), (20, 20), "the part and its keyword, for each item");
    let unused = json!({"properties": {"x": {"$ref": "#/$defs/large"}}, "$defs": {"large": {"enum": [1, 2, 3, 4, 5]}}});
    assert!(steps(&unused, &json!({})) < steps(&unused, &json!({"x": 1})));
    assert!(steps(&json!({"pattern": "a"}), &json!("a")) > PATTERN);
    let all = json!({"allOf": [{}, {}], "unevaluatedProperties": false});
    let value = json!({"a": 1, "b": 2, "c": 3});
    assert!(
        steps(&all, &value) > 4 * steps(&json!({"allOf": [{}, {}]}), &value),
        "asked again for each member"
    );
}

#[test]
fn branches_multiply_with_every_level_and_are_counted_without_being_walked() {
    let itself = json!({"$ref": "#"});
    let schema = json!({"properties": {"a": {"anyOf": [itself, itself]}}});
    let nested = |depth: usize| (0..depth).fold(json!(1), |value, _| json!({"a": value}));
    let [ten, eleven] = [10, 11].map(|depth| steps(&schema, &nested(depth)));
    assert!(eleven > 2 * ten && eleven < 3 * ten, "{ten} {eleven}");
    // 2^60 steps, counted in some hundred.
    assert!(steps(&schema, &nested(60)) > 1 << 60);
    assert_eq!(super::steps(&schema, &nested(60), 1_000_000), Err(CostError::TooMuch));
    assert_eq!(super::steps(&schema, &nested(500), u64::MAX), Err(CostError::TooDeep));
    assert!(parts(&schema, 100).is_ok(), "the schema itself is small");
}
