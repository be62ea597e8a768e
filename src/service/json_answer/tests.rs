use serde_json::json;

use super::*;

#[test]
fn json_value_finds_the_value_in_a_fence_and_between_words() {
    for (text, expected) in [
        (" [1, 2] ", Some("[1, 2]")),
        ("3", Some("3")),
        ("```json\n{\"a\": 1}\n```", Some("{\"a\": 1}")),
        ("With {x} the answer is {\"a\": [1]}. Done", Some("{\"a\": [1]}")),
        ("no value", None),
        ("{\"a\": ", None),
    ] {
        assert_eq!(json_value(text), expected, "{text}");
    }
}

#[tokio::test]
async fn plan_of_an_open_map_asks_by_instruction_and_validates() {
    let value = json!({"type": "object", "additionalProperties": {"type": "integer"}});
    let schema = ResponseSchema { text: value.to_string(), value, strict: false };
    let mut turn = Turn { format: Format::JsonSchema(Arc::new(schema)), ..Turn::default() };
    let AnswerPlan::Validated(None, validator) = AnswerPlan::of(&mut turn).await.unwrap() else {
        panic!("expected a validated plan")
    };
    assert_eq!((turn.format, turn.messages.len()), (Format::Text, 1));
    let good = Arc::clone(&validator).check("```\n{\"a\":1}\n```".into()).await.unwrap();
    assert_eq!(good.unwrap(), "{\"a\":1}");
    let bad = validator.check("{\"a\":\"x\"}".into()).await.unwrap().unwrap_err();
    assert!(bad.contains("/a"), "{bad}");
}
