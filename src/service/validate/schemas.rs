//! Validates the tools of a request and the form of its answer. Only cheap checks run here: of names, of sizes, and that
//! a schema is JSON text of an object. Engines compile schemas after admission.

use std::{collections::HashSet, sync::Arc};

use prost::Message;
use serde_json::{Value, value::RawValue};

use super::{NAME_RULE, is_name, too_many};
use crate::{
    engine::{Format, Parameters, ResponseSchema, Tool, ToolChoice},
    error::Error,
    pb,
};

/// Maximum size of one schema. A larger schema exceeds the context of any model.
const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Maximum size of the schemas of all tools of a request.
const MAX_TOOL_SCHEMAS_BYTES: usize = 4 << 20;

/// Validates the tools. Returns no tools if the choice is `none`.
pub(super) fn tools(
    tools: Vec<pb::Tool>,
    choice: Option<&pb::ToolChoice>,
    max_tools: usize,
) -> Result<Arc<[Tool]>, Error> {
    if tools.len() > max_tools {
        return Err(too_many("tools", tools.len(), "tools", max_tools, "CODEX_MAX_TOOLS"));
    }
    let mut names = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let field = || format!("tools[{index}].name");
        if !is_name(&tool.name) {
            return Err(Error::invalid(field(), NAME_RULE));
        }
        if !names.insert(tool.name.as_str()) {
            return Err(Error::invalid(field(), "another tool has this name"));
        }
    }
    let mut total_bytes = 0;
    let tools = tools.into_iter().enumerate().map(|(index, tool)| {
        let tool = validate_tool(index, tool, &mut total_bytes)?;
        if total_bytes > MAX_TOOL_SCHEMAS_BYTES {
            let message = format!(
                "with the schema of `{}`, the tools have {total_bytes} bytes of schemas, more than \
                 {MAX_TOOL_SCHEMAS_BYTES}",
                tool.name
            );
            return Err(Error::invalid(format!("tools[{index}].{}", tool.parameters.field_name()), message));
        }
        Ok(tool)
    });
    let tools = tools.collect::<Result<Arc<[Tool]>, Error>>()?;
    let none = choice.is_some_and(|choice| choice.mode() == pb::tool_choice::Mode::None);
    Ok(if none { Arc::default() } else { tools })
}

/// Validates a tool and adds the size of its schema to `total_bytes`.
fn validate_tool(index: usize, tool: pb::Tool, total_bytes: &mut usize) -> Result<Tool, Error> {
    #[expect(deprecated, reason = "clients of the first contract")]
    let pb::Tool { name, description, parameters, strict, parameters_json } = tool;
    let (parameters, bytes) = match parameters {
        _ if !parameters_json.is_empty() => {
            let bytes = parameters_json.len();
            (Parameters::Json(parameters_json), bytes)
        }
        Some(object) => {
            let bytes = object.encoded_len();
            (Parameters::Struct(object), bytes)
        }
        None => (Parameters::None, 0),
    };
    let invalid = |problem: String| {
        let field = format!("tools[{index}].{}", parameters.field_name());
        Error::invalid(&field, format!("{field} of `{name}`: {problem}"))
    };
    if bytes > MAX_SCHEMA_BYTES {
        return Err(invalid(format!("{bytes} bytes are more than {MAX_SCHEMA_BYTES}")));
    }
    if let Parameters::Json(text) = &parameters {
        check_object(text).map_err(invalid)?;
    }
    *total_bytes += bytes;
    Ok(Tool { name, description, parameters, strict })
}

/// Returns the number of characters of a tool that count for the limit of the prompt.
pub(super) fn tool_chars(tool: &Tool) -> usize {
    let schema = match &tool.parameters {
        Parameters::None => 0,
        Parameters::Json(text) => text.chars().count(),
        // The text of the deprecated form is built only where it is needed. Its size is similar.
        Parameters::Struct(object) => object.encoded_len(),
    };
    tool.name.len() + tool.description.chars().count() + schema
}

/// Returns the number of characters of the answer's schema.
pub(super) fn format_chars(format: &Format) -> usize {
    match format {
        Format::Text | Format::JsonObject => 0,
        Format::JsonSchema(schema) => schema.text.chars().count(),
    }
}

/// Checks that a text is JSON of an object, without building the value.
fn check_object(text: &str) -> Result<(), String> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    if raw.get().starts_with('{') {
        Ok(())
    } else {
        Err("expected a JSON Schema that is an object".to_owned())
    }
}

/// Validates the tool choice against the tools of the request.
pub(super) fn tool_choice(tools: &[pb::Tool], choice: Option<&pb::ToolChoice>) -> Result<ToolChoice, Error> {
    use pb::tool_choice::Mode;
    let Some(choice) = choice else { return Ok(ToolChoice::Auto) };
    match Mode::try_from(choice.mode) {
        Ok(Mode::Unspecified | Mode::Auto | Mode::None) => Ok(ToolChoice::Auto),
        Ok(Mode::Required) if tools.is_empty() => {
            Err(Error::invalid("tool_choice", "a tool is required, but `tools` is empty"))
        }
        Ok(Mode::Required) => Ok(ToolChoice::Required),
        Ok(Mode::Named) if tools.iter().all(|tool| tool.name != choice.name) => {
            let name: String = choice.name.chars().take(64).collect();
            Err(Error::invalid("tool_choice", format!("`tools` has no function named {name:?}")))
        }
        Ok(Mode::Named) => Ok(ToolChoice::Named(choice.name.clone())),
        Err(_) => Err(Error::invalid("tool_choice.mode", "not a known mode")),
    }
}

/// Validates the form of the answer. Only this function parses its schema.
pub(super) fn format(requested: Option<pb::ResponseFormat>) -> Result<Format, Error> {
    use pb::response_format::Format as Requested;
    let schema = match requested.and_then(|requested| requested.format) {
        None | Some(Requested::Text(_)) => return Ok(Format::Text),
        Some(Requested::JsonObject(_)) => return Ok(Format::JsonObject),
        Some(Requested::JsonSchema(schema)) => schema,
    };
    let field = |name: &str| format!("response_format.json_schema.{name}");
    if !is_name(&schema.name) {
        return Err(Error::invalid(field("name"), NAME_RULE));
    }
    let strict = schema.strict.unwrap_or_default();
    let text = schema.schema;
    let bytes = text.len();
    if bytes > MAX_SCHEMA_BYTES {
        return Err(Error::invalid(
            field("schema"),
            format!("{bytes} bytes are more than {MAX_SCHEMA_BYTES}"),
        ));
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(value @ Value::Object(_)) => {
            Ok(Format::JsonSchema(Arc::new(ResponseSchema { text, value, strict })))
        }
        Ok(_) => Err(Error::invalid(field("schema"), "expected a JSON Schema that is an object")),
        Err(error) => Err(Error::invalid(field("schema"), format!("not JSON: {error}"))),
    }
}
