use serde_json::{Value, json};

use super::*;
use crate::pb::content_part::Part;

fn convert(body: Value) -> Result<ConvertedRequest, Value> {
    let wire: ChatCompletionRequest = serde_json::from_value(body).expect("the body fits");
    ConvertedRequest::try_from(wire)
        .map_err(|error| serde_json::to_value(error.body()).unwrap()["error"].take())
}

/// Returns a request with one short message and the fields of `change`.
#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn with(change: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    body
}

fn text(text: &str) -> pb::ContentPart {
    pb::ContentPart { part: Some(Part::Text(text.into())) }
}

fn message(role: pb::Role, parts: Vec<pb::ContentPart>) -> pb::Message {
    pb::Message { role: role.into(), parts, ..pb::Message::default() }
}

#[test]
fn convert_full_request_reaches_the_contract_whole() {
    let wire = include_str!("../../../../tests/fixtures/openai/request.json");
    let converted =
        ConvertedRequest::try_from(serde_json::from_str::<ChatCompletionRequest>(wire).unwrap()).unwrap();
    let image = pb::Image { data: vec![0, 1, 2, 255].into(), detail: "low".into() };
    let bare = pb::Image { detail: String::new(), ..image.clone() };
    let image = |image| pb::ContentPart { part: Some(Part::Image(image)) };
    let call = |id: &str, arguments: &str| pb::ToolCall {
        id: id.into(),
        name: "get_time".into(),
        arguments: arguments.into(),
    };
    let expected = pb::ChatRequest {
        model: "gpt-4o".into(),
        messages: vec![
            message(pb::Role::System, vec![text("Be brief.")]),
            message(pb::Role::Developer, vec![text("Be kind."), text("")]),
            pb::Message {
                name: "ann".into(),
                ..message(
                    pb::Role::User,
                    vec![text("What is this? 👋"), image(bare), image_of_detail(&image)],
                )
            },
            pb::Message {
                tool_calls: vec![call("call_1", "{\"zone\": \"CET\"}"), call("call_2", "")],
                ..message(pb::Role::Assistant, vec![])
            },
            pb::Message { tool_call_id: "call_1".into(), ..message(pb::Role::Tool, vec![text("12:00")]) },
            message(pb::Role::Assistant, vec![text("Noon."), text("I would rather not."), text("No.")]),
        ],
        tools: vec![pb::Tool {
            name: "get_time".into(),
            description: "Tells the time.".into(),
            strict: true,
            parameters_json: r#"{ "minLength": 3 }"#.into(),
            ..pb::Tool::default()
        }],
        tool_choice: Some(pb::ToolChoice { mode: Mode::Named.into(), name: "get_time".into() }),
        parallel_tool_calls: Some(false),
        response_format: Some(pb::ResponseFormat {
            format: Some(Format::JsonSchema(pb::JsonSchemaFormat {
                name: "answer".into(),
                description: "What to say.".into(),
                schema: "{ \"type\": \"object\", \"properties\": {} }".into(),
            })),
        }),
        reasoning_effort: "low".into(),
        stop: vec!["END".into(), "\n\n".into()],
        max_output_tokens: Some(50),
        n: Some(2),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        agent: None,
        verbosity: "high".into(),
        timeout: None,
        reasoning_summary: String::new(),
    };
    assert_eq!(converted.request, expected);
    assert_eq!(converted.stream, Some(Streaming { include_usage: true }));
    assert_eq!(converted.ignored_params, ["temperature", "user", "response_format.json_schema.description"]);
    assert_eq!(converted.field_names.max_output_tokens, "max_completion_tokens");
    assert_eq!(converted.field_names.string_contents, [true, false, false, false, true, false]);
}

fn image_of_detail(image: &impl Fn(pb::Image) -> pb::ContentPart) -> pb::ContentPart {
    image(pb::Image { data: vec![0, 1, 2, 255].into(), detail: "low".into() })
}

#[test]
fn convert_smallest_request_sets_nothing_else() {
    let converted = convert(with(json!({}))).unwrap();
    let messages = vec![message(pb::Role::User, vec![text("hi")])];
    assert_eq!(converted.request, pb::ChatRequest { messages, ..pb::ChatRequest::default() });
    assert_eq!((converted.stream, converted.ignored_params), (None, vec![]));
}

#[test]
fn convert_alternative_forms_are_equivalent() {
    let request = |change| convert(with(change)).unwrap();
    let older = request(json!({"max_tokens": 7}));
    assert_eq!(
        (older.request.max_output_tokens, older.field_names.max_output_tokens),
        (Some(7), "max_tokens")
    );
    let both = request(json!({"max_tokens": 7, "max_completion_tokens": 8}));
    assert_eq!(both.request.max_output_tokens, Some(8));
    let nested = request(json!({"reasoning": {"effort": "low", "summary": "auto"}}));
    assert_eq!(
        (&*nested.request.reasoning_effort, nested.field_names.reasoning_effort),
        ("low", "reasoning.effort")
    );
    assert_eq!(nested.request.reasoning_summary, "auto");
    assert_eq!(request(json!({"reasoning": {"summary": null}})).request.reasoning_summary, "");
    let both = request(json!({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}));
    assert_eq!(
        (&*both.request.reasoning_effort, both.field_names.reasoning_effort),
        ("high", "reasoning_effort")
    );
    assert_eq!(request(json!({"stop": "END"})).request.stop, ["END"]);
    assert!(request(json!({"stop": []})).request.stop.is_empty());
    assert_eq!(request(json!({"stream": true})).stream, Some(Streaming { include_usage: false }));
    assert_eq!(request(json!({"stream": false, "stream_options": null})).stream, None);
}

#[test]
fn convert_tool_settings_without_tools_are_dropped() {
    for change in [
        json!({"tools": [], "tool_choice": "auto", "parallel_tool_calls": true}),
        json!({"tools": null, "tool_choice": "none"}),
    ] {
        let request = convert(with(change)).unwrap().request;
        assert_eq!((request.tools.len(), request.tool_choice, request.parallel_tool_calls), (0, None, None));
    }
    let required = convert(with(json!({"tool_choice": "required"}))).unwrap().request.tool_choice.unwrap();
    assert_eq!(required.mode(), Mode::Required);
}

#[test]
fn convert_response_format_without_strict_is_reported() {
    let of = |format: Value| convert(with(json!({"response_format": format})));
    let format = |format: Value| of(format).unwrap().request.response_format.unwrap().format.unwrap();
    assert_eq!(format(json!({"type": "text"})), Format::Text(pb::TextFormat {}));
    assert_eq!(format(json!({"type": "json_object"})), Format::JsonObject(pb::JsonObjectFormat {}));
    // Codex's upstream is always strict, so the header reports `strict: false` as ignored.
    let loose = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": false}});
    assert_eq!(of(loose).unwrap().ignored_params, ["response_format.json_schema.strict"]);
}

#[test]
fn convert_unsupported_is_refused_by_place() {
    let unsupported = "unsupported_parameter";
    let invalid = "invalid_value";
    let message = |message: Value| json!({"messages": [{"role": "user", "content": "hi"}, message]});
    let part =
        |part: Value| message(json!({"role": "user", "content": [{"type": "text", "text": ""}, part]}));
    for (body, param, code) in [
        (json!({}), "messages", invalid),
        (json!({"messages": []}), "messages", invalid),
        (message(json!({"role": "function", "content": ""})), "messages[1].role", unsupported),
        (message(json!({"role": "usr"})), "messages[1].role", invalid),
        (
            message(json!({"role": "assistant", "function_call": {}})),
            "messages[1].function_call",
            unsupported,
        ),
        (message(json!({"role": "assistant", "audio": {"id": "a"}})), "messages[1].audio", unsupported),
        (part(json!({"type": "input_audio"})), "messages[1].content[1]", unsupported),
        (part(json!({"type": "file"})), "messages[1].content[1]", unsupported),
        (part(json!({"type": "refusal", "refusal": "no"})), "messages[1].content[1]", unsupported),
        (part(json!({"type": "text"})), "messages[1].content[1].text", invalid),
        (part(json!({"type": "image_url"})), "messages[1].content[1].image_url", invalid),
        (
            part(json!({"type": "image_url", "image_url": {"url": "https://example.test/a.png"}})),
            "messages[1].content[1].image_url",
            unsupported,
        ),
        (
            message(json!({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]})),
            "messages[1].tool_calls[0].type",
            unsupported,
        ),
        (
            message(json!({"role": "assistant", "tool_calls": [{"id": "c"}]})),
            "messages[1].tool_calls[0].function",
            invalid,
        ),
        (with(json!({"stream_options": {}})), "stream_options", invalid),
        (
            with(json!({"stream_options": {"include_usage": true}, "stream": false})),
            "stream_options",
            invalid,
        ),
        (with(json!({"tools": [{"type": "custom"}]})), "tools[0].type", unsupported),
        (with(json!({"tools": [{"type": "function"}]})), "tools[0].function", invalid),
        (with(json!({"tool_choice": "any"})), "tool_choice", invalid),
        (with(json!({"tool_choice": 1})), "tool_choice", invalid),
        (with(json!({"tool_choice": {"type": "allowed_tools"}})), "tool_choice.type", unsupported),
        (with(json!({"tool_choice": {"type": "function"}})), "tool_choice.function.name", invalid),
        (with(json!({"response_format": {"type": "xml"}})), "response_format.type", invalid),
        (with(json!({"response_format": {"type": "json_schema"}})), "response_format.json_schema", invalid),
        (
            with(json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}})),
            "response_format.json_schema.schema",
            invalid,
        ),
        (with(json!({"logprobs": true})), "logprobs", unsupported),
    ] {
        let error = convert(body.clone()).expect_err(&body.to_string());
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!(code)), "{body}");
        assert_eq!(error["type"], "invalid_request_error");
    }
}
