//! Converts an OpenAI request to a request of the contract, independently of the conversion in the server.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use codex_api::pb::{self, content_part, response_format, tool_choice::Mode};
use prost_types::{ListValue, Struct, value::Kind};
use serde_json::{Map, Value};

/// Converts a request body to the request for the gRPC door.
pub fn contract(body: &Value) -> pb::ChatRequest {
    pb::ChatRequest {
        model: string(&body["model"]),
        messages: list(&body["messages"]).map(message).collect(),
        tools: list(&body["tools"]).map(tool).collect(),
        tool_choice: choice(&body["tool_choice"]),
        parallel_tool_calls: body["parallel_tool_calls"].as_bool(),
        response_format: response_format(&body["response_format"]),
        stop: match &body["stop"] {
            Value::String(stop) => vec![stop.clone()],
            stops => list(stops).map(string).collect(),
        },
        max_output_tokens: body["max_completion_tokens"].as_u64().map(|tokens| tokens.try_into().unwrap()),
        reasoning_effort: string(&body["reasoning_effort"]),
        verbosity: string(&body["verbosity"]),
        service_tier: string(&body["service_tier"]),
        prompt_cache_key: string(&body["prompt_cache_key"]),
        user: string(&body["user"]),
        ..pb::ChatRequest::default()
    }
}

fn message(message: &Value) -> pb::Message {
    let role = match message["role"].as_str().unwrap() {
        "system" => pb::Role::System,
        "developer" => pb::Role::Developer,
        "user" => pb::Role::User,
        "assistant" => pb::Role::Assistant,
        "tool" => pb::Role::Tool,
        other => panic!("unknown role {other}"),
    };
    let parts = match &message["content"] {
        Value::String(text) => vec![content_part::Part::Text(text.clone())],
        parts => list(parts).map(part).collect(),
    };
    pb::Message {
        role: role.into(),
        parts: parts.into_iter().map(|part| pb::ContentPart { part: Some(part) }).collect(),
        name: string(&message["name"]),
        tool_calls: list(&message["tool_calls"])
            .map(|call| pb::ToolCall {
                id: string(&call["id"]),
                name: string(&call["function"]["name"]),
                arguments: string(&call["function"]["arguments"]),
            })
            .collect(),
        tool_call_id: string(&message["tool_call_id"]),
    }
}

fn part(part: &Value) -> content_part::Part {
    let Some(url) = part["image_url"]["url"].as_str() else {
        return content_part::Part::Text(string(&part["text"]));
    };
    let data = STANDARD.decode(url.split_once("base64,").unwrap().1).unwrap();
    content_part::Part::Image(pb::Image { data: data.into(), detail: String::new() })
}

fn tool(tool: &Value) -> pb::Tool {
    let function = &tool["function"];
    pb::Tool {
        name: string(&function["name"]),
        description: string(&function["description"]),
        strict: function["strict"].as_bool().unwrap_or_default(),
        parameters_json: match &function["parameters"] {
            Value::Null => String::new(),
            parameters => parameters.to_string(),
        },
        ..pb::Tool::default()
    }
}

fn response_format(format: &Value) -> Option<pb::ResponseFormat> {
    let format = match format["type"].as_str()? {
        "json_object" => response_format::Format::JsonObject(pb::JsonObjectFormat {}),
        "json_schema" => response_format::Format::JsonSchema(pb::JsonSchemaFormat {
            name: string(&format["json_schema"]["name"]),
            schema: format["json_schema"]["schema"].to_string(),
            strict: format["json_schema"]["strict"].as_bool(),
            ..Default::default()
        }),
        _ => return None,
    };
    Some(pb::ResponseFormat { format: Some(format) })
}

fn choice(choice: &Value) -> Option<pb::ToolChoice> {
    let mode = |mode: Mode| Some(pb::ToolChoice { mode: mode.into(), name: String::new() });
    match choice {
        Value::Null => None,
        Value::String(text) => mode(match text.as_str() {
            "auto" => Mode::Auto,
            "none" => Mode::None,
            "required" => Mode::Required,
            other => panic!("unknown tool choice {other}"),
        }),
        named => Some(pb::ToolChoice { mode: Mode::Named.into(), name: string(&named["function"]["name"]) }),
    }
}

/// Converts a schema to the deprecated form.
pub fn to_struct(object: &Map<String, Value>) -> Struct {
    Struct { fields: object.iter().map(|(name, value)| (name.clone(), to_value(value))).collect() }
}

fn to_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(bool) => Kind::BoolValue(*bool),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(to_value).collect() }),
        Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
