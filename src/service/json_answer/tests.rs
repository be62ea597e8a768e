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
        ("{}, {\"a\": 1}", Some("{\"a\": 1}")),
        ("{\"a\": 1}, {\"b\": {", None),
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

/// Prose with false beginnings, and what is found without and with the whole text.
const FALSE_STARTS: &[(&str, &str)] = &[
    (
        "Use {x}: {{y}} {\"z} {\"q\" 1} {} {\"n\": nope} ```json\n{\"a\": {\"b\": 1}}\n```",
        "{\"a\": {\"b\": 1}}",
    ),
    ("{\"a\" : -1.5e3 , \"b\":[]} {\"c\":1}", "{\"a\" : -1.5e3 , \"b\":[]}"),
    ("$\\frac{}{2}$ is {\n\"k\\\"{\": true}", "{\n\"k\\\"{\": true}"),
    ("{{\"a\":\"{}\"}}", "{\"a\":\"{}\"}"),
];

#[test]
fn stream_holds_text_back_until_an_object_begins() {
    for (text, expected) in FALSE_STARTS {
        assert_eq!(JsonStream::new(None).push(text), *expected, "{text}");
        let mut stream = JsonStream::new(None);
        let by_character: String = text.chars().map(|c| stream.push(&c.to_string())).collect();
        assert_eq!(by_character, *expected, "{text}");
        assert_eq!(stream.translate_whole(text).as_deref(), Some(*expected), "{text}");
    }
    let mut stream = JsonStream::new(None);
    assert_eq!(stream.push("Use {x} or {\"a\""), "");
    assert_eq!(stream.push(": "), "");
    assert_eq!(stream.push("\"v"), "{\"a\": \"v");
}

#[test]
fn whole_answer_is_the_longest_object_behind_prose() {
    let text = "In the form {\"key\": \"value\"}:\n```json\n{\"a\": 1, \"b\": [{\"c\": 2}]}\n```";
    let mut stream = JsonStream::new(None);
    stream.set_patient();
    assert_eq!(stream.push(text), "");
    assert_eq!(stream.translate_whole(text).unwrap(), "{\"a\": 1, \"b\": [{\"c\": 2}]}");
    // Without prose, the object is decided at once.
    for lead in ["", " \n", "```\n", "```JSON\n", "\n```json "] {
        let mut stream = stream.restarted();
        assert_eq!(stream.push(&format!("{lead}{{\"a\": \"b")), "{\"a\": \"b", "{lead:?}");
    }
    for (text, expected) in [
        ("{}", Some("{}")),
        ("It is { } then.", Some("{ }")),
        ("nothing", None),
        ("{x}", None),
        ("Like {\"a\": 1}: {\"a\": [", None),
    ] {
        assert_eq!(stream.translate_whole(text).as_deref(), expected, "{text}");
    }
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(500), "]".repeat(500));
    assert_eq!(stream.translate_whole(&deep).as_deref(), Some(deep.as_str()));
}

#[tokio::test]
async fn plan_of_a_schema_of_any_object_is_json_mode() {
    for (schema, is_json_mode) in [
        (json!({"type": "object"}), true),
        (json!({"type": "object", "additionalProperties": true, "properties": {}, "title": "T"}), true),
        (json!({"type": "object", "additionalProperties": {}, "required": []}), true),
        (json!({"type": "object", "minProperties": 1}), false),
        (json!({"type": "object", "required": ["a"]}), false),
        (json!({"type": "object", "description": "all facts"}), false),
    ] {
        let text = schema.to_string();
        let format =
            Format::JsonSchema(Arc::new(ResponseSchema { text, value: schema.clone(), strict: false }));
        let mut turn = Turn { format, ..Turn::default() };
        let plan = AnswerPlan::of(&mut turn).await.unwrap();
        assert_eq!(turn.format == Format::JsonObject, is_json_mode, "{schema}");
        assert_eq!(matches!(plan, AnswerPlan::Translated(_)), is_json_mode, "{schema}");
    }
}

#[test]
fn search_for_an_object_in_a_hostile_text_ends_soon() {
    let started = std::time::Instant::now();
    for text in ["{\"", "{\"a\":", "[", "{", "{}", "{\"a\": x", "{\"{\":"] {
        let text = text.repeat(200_000);
        let mut stream = JsonStream::new(None);
        stream.push(&text);
        stream.translate_whole(&text);
        json_value(&text);
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
