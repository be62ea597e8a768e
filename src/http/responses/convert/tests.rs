use serde_json::{Value, json};

use super::*;

fn convert(body: &Value) -> Result<ConvertedRequest, ApiError> {
    let wire: ResponseRequest = serde_json::from_value(body.clone()).unwrap();
    wire.try_into()
}

fn error(body: &Value) -> Value {
    let error = convert(body).expect_err("the body is refused");
    serde_json::to_value(error.body()).unwrap()["error"].take()
}

/// Returns the kind and the texts of each item.
fn outline(request: &pb::CreateResponseRequest) -> Vec<String> {
    use pb::content_part::Part;
    let texts = |parts: &[pb::ContentPart]| {
        let texts = parts.iter().map(|part| match part.part.as_ref().unwrap() {
            Part::Text(text) => text.clone(),
            Part::Image(image) => format!("<{} bytes>", image.data.len()),
            Part::File(file) => format!("<{}>", file.filename),
        });
        texts.collect::<Vec<_>>().join("+")
    };
    let outline = |item: &pb::InputItem| match item.item.as_ref().unwrap() {
        Item::Message(message) => format!("{:?} {}", message.role(), texts(&message.parts)),
        Item::FunctionCall(call) => format!("call {} {} {}", call.call_id, call.name, call.arguments),
        Item::FunctionCallOutput(output) => format!("output {} {}", output.call_id, texts(&output.parts)),
    };
    request.input.iter().map(outline).collect()
}

#[test]
fn convert_takes_the_items_that_clients_send() {
    let image = "data:image/png;base64,AAEC/w==";
    let body = json!({"model": "m", "instructions": null, "stream": true, "input": [
        {"role": "system", "content": "s"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "d"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "u"}, {"type": "input_image", "image_url": image, "detail": "auto"}], "status": null},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "phase": "commentary",
         "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {"type": "function_call", "call_id": "d", "name": "g"},
        {"type": "function_call_output", "id": "fco_1", "call_id": "d", "output": [
            {"type": "input_text", "text": "r"}, {"type": "input_image", "image_url": image},
            {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,YWJj"}]},
    ]});
    let converted = convert(&body).unwrap();
    assert_eq!(
        outline(&converted.request),
        [
            "System s",
            "Developer d",
            "User u+<4 bytes>",
            "Assistant a",
            "call c f {}",
            "output c 42",
            "call d g ",
            "output d r+<4 bytes>+<a.txt>"
        ]
    );
    assert!(converted.is_streamed);
    assert_eq!(converted.items, [0, 1, 2, 4, 5, 6, 7, 8]);
    assert_eq!(converted.ignored_params, ["input[].reasoning"]);
    let text = convert(&json!({"input": "hi"})).unwrap();
    assert_eq!(outline(&text.request), ["User hi"]);
    assert!(!text.is_streamed && text.ignored_params.is_empty());
}

#[test]
fn convert_takes_every_parameter_of_the_contract() {
    let body = json!({
        "input": "hi", "model": "m", "instructions": "brief", "max_output_tokens": 9, "parallel_tool_calls": false,
        "metadata": {"k": "v"}, "service_tier": "flex", "prompt_cache_key": "key", "safety_identifier": "who",
        "reasoning": {"effort": "low", "summary": "auto", "generate_summary": null},
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"b": 1, "a": 2}, "strict": true},
                  {"type": "function", "name": "g", "parameters": null}],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
        "include": [], "truncation": "disabled", "store": false, "background": false, "previous_response_id": null,
        "stream_options": {"include_obfuscation": false}, "temperature": null,
    });
    let converted = convert(&body).unwrap();
    assert_eq!(converted.ignored_params, ["safety_identifier"]);
    let settings = converted.request.settings.unwrap();
    assert_eq!(settings.instructions, "brief");
    assert_eq!((settings.max_output_tokens, settings.parallel_tool_calls), (Some(9), Some(false)));
    assert_eq!((settings.service_tier.as_str(), settings.prompt_cache_key.as_str()), ("flex", "key"));
    assert_eq!((settings.user.as_str(), settings.metadata["k"].as_str()), ("who", "v"));
    assert_eq!((settings.reasoning_effort.as_str(), settings.reasoning_summary.as_str()), ("low", "auto"));
    assert_eq!(settings.verbosity, "low");
    assert_eq!(settings.tools[0].parameters_json, r#"{"b":1,"a":2}"#);
    assert_eq!(settings.tool_choice.unwrap().mode(), Mode::Required);
    assert_eq!(settings.allowed_tools, ["g"]);
    let Some(pb::response_format::Format::JsonSchema(format)) = settings.response_format.unwrap().format
    else {
        panic!("not a schema");
    };
    assert_eq!((format.name.as_str(), format.strict), ("n", Some(true)));
}

#[test]
fn convert_names_what_has_no_effect() {
    for (body, names) in [
        (json!({"include": ["reasoning.encrypted_content"]}), "include"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"store": true}), "store"),
        (json!({"temperature": 0.5}), "temperature"),
        (json!({"max_tool_calls": 3}), "max_tool_calls"),
        (json!({"client_metadata": {"a": 1}}), "client_metadata"),
        (json!({"messages": []}), "messages"),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "description": "d"}}}),
            "text.format.description",
        ),
    ] {
        let mut body = body;
        body["input"] = json!("hi");
        assert_eq!(convert(&body).unwrap().ignored_params, [names], "{body}");
    }
}

#[test]
fn convert_refuses_by_name_what_it_cannot_do() {
    let (invalid, unsupported) = ("invalid_value", "unsupported_parameter");
    for (body, param, code) in [
        (json!({}), "input", invalid),
        (json!({"messages": [{"role": "user", "content": "x"}]}), "input", invalid),
        (json!({"input": []}), "input", invalid),
        (json!({"input": [{"type": "reasoning", "summary": []}]}), "input", invalid),
        (json!({"input": [{"content": "x"}]}), "input[0].role", invalid),
        (json!({"input": [{"role": "robot", "content": "x"}]}), "input[0].role", invalid),
        (json!({"input": [{"role": "tool", "content": "x"}]}), "input[0].role", invalid),
        (json!({"input": [{"type": "function_call", "name": "f"}]}), "input[0].call_id", invalid),
        (json!({"input": [{"type": "function_call_output", "output": "x"}]}), "input[0].call_id", invalid),
        (json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), "input", "not_found"),
        (json!({"input": [{"type": "computer_call"}]}), "input[0].type", unsupported),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
            "input[0].content[0]",
            unsupported,
        ),
        (json!({"input": "x", "previous_response_id": "resp_1"}), "previous_response_id", unsupported),
        (json!({"input": "x", "conversation": {"id": "conv_1"}}), "conversation", unsupported),
        (json!({"input": "x", "background": true}), "background", unsupported),
        (json!({"input": "x", "prompt": {"id": "p"}}), "prompt", unsupported),
        (json!({"input": "x", "top_logprobs": 3}), "top_logprobs", unsupported),
        (json!({"input": "x", "truncation": "some"}), "truncation", invalid),
        (json!({"input": "x", "tools": [{"type": "web_search"}]}), "tools[0].type", unsupported),
        (json!({"input": "x", "tools": [{"type": "function"}]}), "tools[0].name", invalid),
        (json!({"input": "x", "text": {"format": {"type": "xml"}}}), "text.format.type", invalid),
        (
            json!({"input": "x", "text": {"format": {"type": "json_schema", "name": "n"}}}),
            "text.format",
            invalid,
        ),
        (
            json!({"input": "x", "tool_choice": {"type": "allowed_tools", "tools": []}}),
            "tool_choice.tools",
            invalid,
        ),
        (
            json!({"input": "x", "tool_choice": {"type": "allowed_tools", "mode": "none", "tools": [{"name": "f"}]}}),
            "tool_choice.mode",
            invalid,
        ),
    ] {
        let error = error(&body);
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!(code)), "{body}: {error}");
        assert!(!error["message"].as_str().unwrap().contains("response_format"), "{error}");
    }
}

#[test]
fn param_is_the_name_of_the_client() {
    let items = [0, 2, 5];
    for (field, name) in [
        ("input", "input"),
        ("input[1]", "input[2]"),
        ("messages", "input"),
        ("input[1].message.role", "input[2].role"),
        ("input[1].message.parts", "input[2].content"),
        ("input[2].message.parts[3].image.data", "input[5].content[3].image_url"),
        ("input[2].message.parts[3].text", "input[5].content[3].text"),
        ("input[2].function_call_output.parts[0].file", "input[5].output[0]"),
        ("input[2].function_call_output.call_id", "input[5].call_id"),
        ("input[0].function_call.name", "input[0].name"),
        ("settings.instructions", "instructions"),
        ("settings.tools[1].parameters_json", "tools[1].parameters"),
        ("settings.allowed_tools[1]", "tool_choice.tools[1]"),
        ("settings.tool_choice.name", "tool_choice.name"),
        ("settings.tool_choice.mode", "tool_choice"),
        ("settings.response_format.json_schema.schema", "text.format.schema"),
        ("settings.reasoning_effort", "reasoning.effort"),
        ("settings.verbosity", "text.verbosity"),
        ("settings.user", "safety_identifier"),
        ("timeout", "x-codex-timeout-seconds"),
    ] {
        assert_eq!(param(field, &items), name);
    }
}
