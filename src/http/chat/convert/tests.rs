use serde_json::{Value, json};

use super::*;
use crate::pb::{content_part::Part, response_format::Format};

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
                strict: Some(true),
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
        service_tier: String::new(),
        prompt_cache_key: String::new(),
        user: "ann".into(),
        separate_messages: false,
    };
    assert_eq!(converted.request, expected);
    assert_eq!(converted.stream, Some(Streaming { include_usage: true }));
    assert_eq!(
        converted.ignored_params,
        [
            "temperature",
            "user",
            "response_format.json_schema.description",
            "messages[].content[].image_url.detail"
        ]
    );
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
fn convert_response_format_passes_strict_on() {
    let of = |format: Value| convert(with(json!({"response_format": format})));
    let format = |format: Value| of(format).unwrap().request.response_format.unwrap().format.unwrap();
    assert_eq!(format(json!({"type": "text"})), Format::Text(pb::TextFormat {}));
    assert_eq!(format(json!({"type": "json_object"})), Format::JsonObject(pb::JsonObjectFormat {}));
    for strict in [None, Some(false), Some(true)] {
        let wire =
            json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": strict}});
        assert!(of(wire.clone()).unwrap().ignored_params.is_empty());
        let Format::JsonSchema(schema) = format(wire) else { panic!("expected a schema") };
        assert_eq!(schema.strict, strict);
    }
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
        (part(json!({"type": "file"})), "messages[1].content[1].file", invalid),
        (part(json!({"type": "file", "file": {}})), "messages[1].content[1].file.file_data", invalid),
        (part(json!({"type": "input_file"})), "messages[1].content[1].file_data", invalid),
        (
            part(json!({"type": "file", "file": {"file_id": "f"}})),
            "messages[1].content[1].file.file_id",
            unsupported,
        ),
        (part(json!({"type": "input_image", "file_id": "f"})), "messages[1].content[1].file_id", unsupported),
        (part(json!({"type": "thinking", "thinking": "hm"})), "messages[1].content[1]", unsupported),
        (json!({"input": "hi"}), "messages", invalid),
        (json!({"prompt": "hi", "messages": []}), "messages", invalid),
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
        (
            with(json!({"stream_options": {"include_usage": true}, "stream": false})),
            "stream_options",
            invalid,
        ),
        (with(json!({"tools": [{"type": "custom"}]})), "tools[0].type", unsupported),
        (with(json!({"tools": [{"type": "function"}]})), "tools[0].function", invalid),
        (with(json!({"tool_choice": "f"})), "tool_choice", invalid),
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

fn parts_of(content: &Value) -> Vec<pb::ContentPart> {
    let body = json!({"messages": [{"role": "assistant", "content": content}]});
    convert(body).unwrap().request.messages.remove(0).parts
}

#[test]
fn convert_thoughts_are_left_out() {
    for thought in [
        json!({"type": "thinking", "thinking": "hm", "signature": "s"}),
        json!({"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}),
        json!({"type": "redacted_thinking", "data": "x"}),
        json!({"type": "reasoning", "text": "hm"}),
        json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "content": null}),
        json!({"type": "reasoning", "reasoning": {"text": "hm"}}),
    ] {
        let parts = parts_of(&json!([thought, {"type": "text", "text": "hi"}]));
        assert_eq!(parts, [text(""), text("hi")], "{thought}");
        assert_eq!(parts_of(&json!([thought])), [text("")], "{thought}");
    }
}

#[test]
fn convert_assistant_without_content_passes() {
    for message in [
        json!({"role": "assistant"}),
        json!({"role": "assistant", "content": null}),
        json!({"role": "assistant", "content": []}),
        json!({"role": "assistant", "content": null, "tool_calls": []}),
        json!({"role": "assistant", "content": null, "tool_calls": null, "function_call": null}),
        json!({"role": "assistant", "reasoning_content": "hm", "reasoning": {"a": [1]}}),
    ] {
        let converted = convert(json!({"messages": [message]})).unwrap().request.messages.remove(0);
        assert_eq!(converted, self::message(pb::Role::Assistant, vec![]));
    }
}

#[test]
fn convert_parts_of_the_responses_api_equal_those_of_chat() {
    let of = |parts: Value| {
        let converted = convert(json!({"messages": [{"role": "user", "content": parts}]})).unwrap();
        (converted.request.messages, converted.ignored_params)
    };
    let url = "data:image/png;base64,AAEC/w==";
    let file = json!({"filename": "a.txt", "file_data": "data:text/plain;base64,aGk="});
    for (responses, chat) in [
        (json!({"type": "input_text", "text": "a"}), json!({"type": "text", "text": "a"})),
        (
            json!({"type": "output_text", "text": "a", "annotations": []}),
            json!({"type": "text", "text": "a"}),
        ),
        (
            json!({"type": "input_image", "image_url": url}),
            json!({"type": "image_url", "image_url": {"url": url}}),
        ),
        (
            json!({"type": "input_image", "image_url": url, "detail": "high"}),
            json!({"type": "image_url", "image_url": {"url": url, "detail": "high"}}),
        ),
        (
            json!({"type": "input_file", "filename": "a.txt", "file_data": "aGk="}),
            json!({"type": "file", "file": {"filename": "a.txt", "file_data": "aGk="}}),
        ),
        (json!({"type": "input_file", "file": file}), json!({"type": "file", "file": file})),
    ] {
        assert_eq!(of(json!([responses])), of(json!([chat])), "{responses}");
    }
    let detail =
        |detail: &str| of(json!([{"type": "image_url", "image_url": {"url": url, "detail": detail}}])).1;
    assert_eq!(detail("low"), ["messages[].content[].image_url.detail"]);
    assert!(detail("auto").is_empty());
}

#[test]
fn convert_flat_tools_equal_nested_tools() {
    let request = |tool: Value| convert(with(json!({"tools": [tool]}))).unwrap();
    let nested = request(json!({"type": "function", "function": {
        "name": "f", "description": "d", "strict": true, "parameters": {"type": "object"}}}));
    let flat = json!({"name": "f", "description": "d", "strict": true, "parameters": {"type": "object"}});
    let untyped = request(flat.clone());
    let mut typed = flat;
    typed["type"] = json!("function");
    let typed = request(typed);
    assert_eq!((&nested.request, &nested.request), (&typed.request, &untyped.request));
    assert_eq!((typed.field_names.flat_tools, nested.field_names.flat_tools), (vec![true], vec![false]));
}

#[test]
fn convert_flat_formats_equal_nested_formats() {
    let request = |format: Value| convert(with(json!({"response_format": format}))).unwrap().request;
    let fields = json!({"name": "n", "strict": true, "schema": {"type": "object"}});
    let nested = request(json!({"type": "json_schema", "json_schema": fields.clone()}));
    let mut flat = fields;
    flat["type"] = json!("json_schema");
    assert_eq!(nested, request(flat));
}

#[test]
fn convert_tool_choice_takes_the_forms_of_other_apis() {
    let tools = json!([{"type": "function", "name": "f"}]);
    for (choice, mode, name) in [
        (json!("auto"), Mode::Auto, ""),
        (json!("none"), Mode::None, ""),
        (json!("required"), Mode::Required, ""),
        (json!("any"), Mode::Required, ""),
        (json!({"type": "auto"}), Mode::Auto, ""),
        (json!({"type": "auto", "disable_parallel_tool_use": false}), Mode::Auto, ""),
        (json!({"type": "none"}), Mode::None, ""),
        (json!({"type": "required"}), Mode::Required, ""),
        (json!({"type": "any"}), Mode::Required, ""),
        (json!({"type": "function", "function": {"name": "f"}}), Mode::Named, "f"),
        (json!({"type": "function", "name": "f"}), Mode::Named, "f"),
        (json!({"type": "tool", "name": "f"}), Mode::Named, "f"),
        (json!({"function": {"name": "f"}}), Mode::Named, "f"),
    ] {
        let request = convert(with(json!({"tools": tools, "tool_choice": choice}))).unwrap().request;
        let converted = request.tool_choice.unwrap();
        assert_eq!((converted.mode(), &*converted.name), (mode, name), "{choice}");
    }
}

#[test]
fn convert_values_that_mean_nothing_pass() {
    let plain = convert(with(json!({}))).unwrap();
    for change in [
        json!({"stream_options": {}}),
        json!({"stream_options": {"include_usage": false}, "stream": false}),
        json!({"stop": ""}),
        json!({"stop": []}),
        json!({"stop": null}),
        json!({"max_tokens": -1}),
        json!({"max_tokens": 0}),
        json!({"max_completion_tokens": -1.0, "max_tokens": 0.0}),
        json!({"tools": [], "tool_choice": {"type": "auto"}, "functions": [], "function_call": "none"}),
        json!({"logprobs": false, "top_logprobs": 0, "audio": null, "modalities": ["text"]}),
        json!({"store": false, "logit_bias": {}, "web_search_options": null, "service_tier": null}),
        json!({"reasoning_effort": null, "reasoning": {}, "verbosity": null, "metadata": {}}),
    ] {
        let converted = convert(with(change.clone())).unwrap();
        assert_eq!((converted.request, converted.stream), (plain.request.clone(), None), "{change}");
        assert!(converted.ignored_params.is_empty(), "{change}");
    }
    let one = convert(with(json!({"max_completion_tokens": 0, "max_tokens": 16.0}))).unwrap().request;
    assert_eq!(one.max_output_tokens, Some(16));
}

#[test]
fn convert_body_of_another_route_is_refused_with_the_right_one() {
    let message = |body: Value| convert(body).unwrap_err()["message"].as_str().unwrap().to_owned();
    for body in
        [json!({"model": "m", "input": [], "instructions": "i"}), json!({"input": "x", "messages": null})]
    {
        let message = message(body);
        assert!(message.contains("Responses API") && message.contains("/v1/responses"), "{message}");
    }
    assert!(message(json!({"prompt": "x"})).contains("/v1/completions"));
}

#[test]
fn convert_words_for_codex_are_passed_on() {
    let converted = convert(with(json!({"service_tier": "priority", "prompt_cache_key": "k"}))).unwrap();
    assert_eq!((&*converted.request.service_tier, &*converted.request.prompt_cache_key), ("priority", "k"));
    assert!(converted.ignored_params.is_empty());
    for (body, expected) in [
        (json!({"user": "ann"}), "ann"),
        (json!({"safety_identifier": "x"}), "x"),
        (json!({"user": "ann", "safety_identifier": "x"}), r#"["ann","x"]"#),
    ] {
        assert_eq!(convert(with(body)).unwrap().request.user, expected);
    }
}
