//! The client's JSON Schemas of a turn, for the arguments of its tools and for the answer.

use std::borrow::Cow;

use prost_types::{Struct, value::Kind};
use serde_json::{Number, Value, json};

/// A function that the client offers to the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tool {
    /// Name, unique within the turn.
    pub name: String,
    /// Purpose, for the model. May be empty.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Parameters,
    /// Whether the arguments of a call must match the schema.
    pub strict: bool,
}

/// JSON Schema of a tool's arguments, in the form in which the client sent it.
///
/// Schemas may be large, so they are parsed on the blocking pool after the turn has a slot.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Parameters {
    /// The client described no arguments.
    #[default]
    None,
    /// JSON text of an object, with the keys in the client's order.
    Json(String),
    /// The contract's deprecated form, without order and with doubles only.
    Struct(Struct),
}

impl Parameters {
    /// Returns the contract's field that holds the schema.
    pub fn field_name(&self) -> &'static str {
        match self {
            Self::None | Self::Json(_) => "parameters_json",
            Self::Struct(_) => "parameters",
        }
    }

    /// Returns the schema as JSON text.
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::None => Cow::Borrowed("{}"),
            Self::Json(text) => Cow::Borrowed(text),
            Self::Struct(object) => Cow::Owned(struct_to_json(object).to_string()),
        }
    }

    /// Parses the schema, in time proportional to its length.
    pub fn to_value(&self) -> serde_json::Result<Value> {
        match self {
            Self::None => Ok(json!({})),
            Self::Json(text) => serde_json::from_str(text),
            Self::Struct(object) => Ok(struct_to_json(object)),
        }
    }
}

/// JSON Schema of an answer, parsed once when the request is validated.
#[derive(Debug, PartialEq)]
pub struct ResponseSchema {
    /// JSON text of an object, with the keys in the client's order. The model fills them in that order.
    pub text: String,
    /// The value of `text`.
    pub value: Value,
    /// The upstream may refuse a schema outside of its strict subset.
    pub strict: bool,
}

/// Converts a `Struct`. Numbers without a fraction become integers.
fn struct_to_json(object: &Struct) -> Value {
    Value::Object(object.fields.iter().map(|(name, value)| (name.clone(), value_to_json(value))).collect())
}

fn value_to_json(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(bool)) => Value::Bool(*bool),
        Some(Kind::NumberValue(number)) => integer(*number)
            .map(Number::from)
            .or_else(|| Number::from_f64(*number))
            .map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_to_json).collect(),
        Some(Kind::StructValue(object)) => struct_to_json(object),
    }
}

/// Returns the integer that a double holds exactly.
fn integer(number: f64) -> Option<i64> {
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    let is_exact = number.fract() == 0.0 && number.abs() <= MAX_EXACT;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number within 2^53")]
    is_exact.then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_struct_become_json_with_integers() {
        let number = |n: f64| prost_types::Value { kind: Some(Kind::NumberValue(n)) };
        let values = vec![
            number(3.0),
            number(-0.5),
            number(1e300),
            number(f64::NAN),
            prost_types::Value { kind: None },
        ];
        let list = prost_types::Value { kind: Some(Kind::ListValue(prost_types::ListValue { values })) };
        let parameters = Parameters::Struct(Struct { fields: [("list".to_owned(), list)].into() });
        let expected = r#"{"list":[3,-0.5,1e+300,null,null]}"#;
        assert_eq!(parameters.to_text(), expected);
        assert_eq!(parameters.to_value().unwrap().to_string(), expected);
    }

    #[test]
    fn parameters_of_text_keep_order_and_integers() {
        let text = r#"{"z":{"maximum":9007199254740993},"a":1}"#;
        assert_eq!(Parameters::Json(text.to_owned()).to_value().unwrap().to_string(), text);
        assert_eq!(Parameters::None.to_text(), "{}");
    }
}
