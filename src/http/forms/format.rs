//! Converts the format of an answer to the contract's. Errors have the names of chat completions.

use super::{tools::truncate_for_error, types::ResponseFormat};
use crate::{
    http::error::ApiError,
    pb::{self, response_format::Format},
};

/// Converts a format whose schema is nested, see [`ResponseFormat::into_nested`].
pub(in crate::http) fn convert_format(wire: ResponseFormat) -> Result<pb::ResponseFormat, ApiError> {
    let format = match (wire.kind.as_str(), wire.json_schema) {
        ("text", _) => Format::Text(pb::TextFormat {}),
        ("json_object", _) => Format::JsonObject(pb::JsonObjectFormat {}),
        ("json_schema", Some(wire)) => {
            let Some(schema) = wire.schema else {
                let param = "response_format.json_schema.schema";
                return Err(ApiError::invalid(param, format!("{param} is missing")));
            };
            Format::JsonSchema(pb::JsonSchemaFormat {
                name: wire.name.unwrap_or_default(),
                description: wire.description.unwrap_or_default(),
                schema: Box::<str>::from(schema).into(),
                strict: wire.strict,
            })
        }
        ("json_schema", None) => {
            let param = "response_format.json_schema";
            return Err(ApiError::invalid(param, format!("{param} is missing")));
        }
        (other, _) => {
            let message = format!(
                "response_format.type: `{}` is not one of text, json_object, json_schema",
                truncate_for_error(other)
            );
            return Err(ApiError::invalid("response_format.type", message));
        }
    };
    Ok(pb::ResponseFormat { format: Some(format) })
}
