//! The validation of JSON against schemas of clients, within limits.

pub(crate) mod argument_validator;
mod metered_value;
mod schema_size;

use serde_json::Value;

/// Returns the name of a value's type in JSON Schema.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
