use super::*;

fn parse(json: &str) -> Result<ChatCompletionRequest, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| format!("{} | {}", error.path(), error.inner()))
}

#[test]
fn request_null_equals_absent_everywhere() {
    let nothing = r#"{"model":null,"messages":null,"stream":null,"stream_options":null,"n":null,"max_tokens":null,
        "max_completion_tokens":null,"stop":null,"reasoning_effort":null,"reasoning":null,"verbosity":null,
        "response_format":null,"tools":null,"tool_choice":null,"parallel_tool_calls":null,"metadata":null,
        "service_tier":null,"prompt_cache_key":null,"x":null}"#;
    assert_eq!(format!("{:?}", parse(nothing).unwrap()), format!("{:?}", parse("{}").unwrap()));

    let bare = r#"{"messages":[{"role":"user"}]}"#;
    let nulls = r#"{"messages":[{"role":"user","content":null,"refusal":null,"name":null,"tool_calls":null,
        "tool_call_id":null,"function_call":null,"audio":null}]}"#;
    assert_eq!(format!("{:?}", parse(nulls).unwrap()), format!("{:?}", parse(bare).unwrap()));
}

#[test]
fn integer_u32_accepts_floats_without_fraction() {
    for (text, number) in [("5", 5), ("5.0", 5), ("0", 0), ("5e2", 500), ("4294967295", u32::MAX)] {
        assert_eq!(parse(&format!("{{\"n\":{text}}}")).unwrap().n, Some(number));
    }
    for text in ["5.5", "-1", "-0.5", "4294967296", "1e99", "\"5\"", "true", "[]", "{}"] {
        let error = parse(&format!("{{\"n\":{text}}}")).unwrap_err();
        assert!(error.starts_with("n | invalid "), "{text}: {error}");
        assert!(error.contains("expected a whole number from 1 to 4294967295"), "{text}: {error}");
    }
}

#[test]
fn limit_u32_beyond_the_range_is_no_limit() {
    for (text, limit) in [
        ("16", Some(16)),
        ("16.0", Some(16)),
        ("0", Some(0)),
        ("-1", None),
        ("-1.0", None),
        ("-9223372036854775808", None),
        ("9223372036854775807", None),
        ("1e99", None),
        ("null", None),
    ] {
        for name in ["max_tokens", "max_completion_tokens"] {
            let request = parse(&format!("{{\"{name}\":{text}}}")).unwrap();
            assert_eq!(request.max_tokens.or(request.max_completion_tokens), limit, "{name}: {text}");
        }
    }
    for text in ["5.5", "-0.5", "\"5\"", "true", "[]"] {
        let error = parse(&format!("{{\"max_tokens\":{text}}}")).unwrap_err();
        assert!(error.starts_with("max_tokens | invalid "), "{text}: {error}");
    }
}

#[test]
fn request_wrong_value_is_named_by_place() {
    for (json, expected) in [
        (r#"{"messages":{}}"#, "messages | invalid type: map, expected a sequence"),
        (
            r#"{"messages":["hi"]}"#,
            "messages[0] | invalid type: string \"hi\", expected an object with a `role`",
        ),
        (r#"{"messages":[["user","hi"]]}"#, "messages[0] | invalid type: sequence, expected an object"),
        (r#"{"messages":[{"content":"hi"}]}"#, "messages[0] | missing field `role`"),
        (r#"{"messages":[{"role":3}]}"#, "messages[0].role | invalid type: integer `3`, expected a string"),
        (
            r#"{"messages":[{"role":"user","content":7}]}"#,
            "messages[0].content | invalid type: integer `7`, expected a string or an array",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":1}]}]}"#,
            "messages[0].content[0].text | invalid type: integer `1`, expected a string",
        ),
        (r#"{"messages":[{"role":"user","content":[{}]}]}"#, "messages[0].content[0] | missing field `type`"),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":4}}]}]}"#,
            "messages[0].content[0].image_url.url | invalid type: integer `4`, expected a string",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#,
            "messages[0].content[0].image_url | missing field `url`",
        ),
        (
            r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":{}}}]}]}"#,
            "messages[0].tool_calls[0].function.arguments | invalid type: map, expected a string",
        ),
        (r#"{"stop":[1]}"#, "stop[0] | invalid type: integer `1`, expected a string"),
        (r#"{"metadata":{"a":1}}"#, "metadata.a | invalid type: integer `1`, expected a string"),
        (
            r#"{"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]}"#,
            "tools[0].function.parameters | invalid type: sequence, expected a map",
        ),
        (
            r#"{"tools":[{"type":"function","function":{"name":"f","parameters":"{}"}}]}"#,
            "tools[0].function.parameters | invalid type: string, expected a map",
        ),
        (r#"{"stream":"yes"}"#, "stream | invalid type: string \"yes\", expected a boolean"),
        (
            r#"{"response_format":"json"}"#,
            "response_format | invalid type: string \"json\", expected an object",
        ),
        (r#"{"stream_options":[true]}"#, "stream_options | invalid type: sequence, expected an object"),
        (r#"{"tool_choice":1}"#, "tool_choice | invalid type: integer `1`, expected `auto`"),
        (r#"{"tools":[["function"]]}"#, "tools[0] | invalid type: sequence, expected an object"),
        (r#"[{"model":"a"}]"#, ". | invalid type: sequence, expected a JSON object"),
        (r#"{"service_tier":1}"#, "service_tier | invalid type: integer `1`, expected a string"),
        (r#"{"model":"a","model":"b"}"#, ". | duplicate field `model`"),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.starts_with(expected), "{json}\n{error}");
    }
}

#[test]
fn request_schemas_keep_their_text() {
    let body = r#"{"response_format":{"type":"json_schema","json_schema":{"schema":{"z": 1, "a": 2}}}}"#;
    let schema = parse(body).unwrap().response_format.unwrap().json_schema.unwrap().schema.unwrap();
    assert_eq!(schema.get(), r#"{"z": 1, "a": 2}"#);

    let text = r#"{"z": 12345678901234567890, "a": 9007199254740993}"#;
    let body =
        format!(r#"{{"tools":[{{"type":"function","function":{{"name":"f","parameters":{text}}}}}]}}"#);
    let tools = parse(&body).unwrap().tools.unwrap();
    assert_eq!(tools[0].function.as_ref().unwrap().parameters.as_ref().unwrap().get(), text);
}
