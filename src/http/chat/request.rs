//! The body of a chat completion request as clients send it. Unknown fields are ignored, and an error contains the path
//! of the wrong value. `convert` interprets the fields.

use std::{collections::HashMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use serde_json::{Map, Value, value::RawValue};

/// The whole body. `null` is the same as an absent field everywhere.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a JSON object")]
pub(super) struct ChatCompletionRequest {
    pub(super) model: Option<String>,
    pub(super) messages: Option<Vec<Message>>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "integer_u32")]
    pub(super) n: Option<u32>,
    #[serde(default, deserialize_with = "integer_u32")]
    pub(super) max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "integer_u32")]
    pub(super) max_completion_tokens: Option<u32>,
    pub(super) stop: Option<TextOr<String>>,
    pub(super) reasoning_effort: Option<String>,
    pub(super) reasoning: Option<Reasoning>,
    pub(super) verbosity: Option<String>,
    pub(super) response_format: Option<ResponseFormat>,
    pub(super) tools: Option<Vec<Tool>>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) metadata: Option<HashMap<String, String>>,
    /// All other fields, for `extra_params`.
    #[serde(flatten)]
    pub(super) extra: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct Reasoning {
    pub(super) effort: Option<String>,
    pub(super) summary: Option<String>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with a `type`")]
pub(super) struct ResponseFormat {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) json_schema: Option<JsonSchema>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with a `name` and a `schema`")]
pub(super) struct JsonSchema {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    /// Kept as text, because the order of properties determines the order of the answer.
    pub(super) schema: Option<Box<RawValue>>,
    pub(super) strict: Option<bool>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with a `role`")]
pub(super) struct Message {
    pub(super) role: String,
    pub(super) content: Option<TextOr<Part>>,
    pub(super) refusal: Option<String>,
    pub(super) name: Option<String>,
    pub(super) tool_calls: Option<Vec<ToolCall>>,
    pub(super) tool_call_id: Option<String>,
    pub(super) function_call: Option<IgnoredAny>,
    pub(super) audio: Option<IgnoredAny>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with a `type`")]
pub(super) struct Part {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) text: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) image_url: Option<ImageUrl>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

/// `{"url": …}`, or only the URL, which some clients send.
#[derive(Debug)]
pub(super) struct ImageUrl {
    pub(super) url: String,
    pub(super) detail: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with a `type`")]
pub(super) struct Tool {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) function: Option<Function>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with a `name`")]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) description: Option<String>,
    /// Kept as text, so that Codex gets the keys in their order and large integers exactly.
    #[serde(default, deserialize_with = "raw_object")]
    pub(super) parameters: Option<Box<RawValue>>,
    pub(super) strict: Option<bool>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with an `id` and a `function`")]
pub(super) struct ToolCall {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) function: Option<CalledFunction>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with a `name` and `arguments`")]
pub(super) struct CalledFunction {
    pub(super) name: String,
    pub(super) arguments: Option<String>,
    #[serde(flatten)]
    _rest: IgnoredFields,
}

/// The unknown fields of an object. With this flattened field, serde also refuses an array in place of the object.
#[derive(Debug)]
struct IgnoredFields;

impl<'de> Deserialize<'de> for IgnoredFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A string, or a list.
#[derive(Debug)]
pub(super) enum TextOr<T> {
    Text(String),
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrVisitor<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(TextOr::List)
            }
        }
        deserializer.deserialize_any(TextOrVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for ImageUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            url: String,
            detail: Option<String>,
        }
        struct UrlVisitor;
        impl<'de> Visitor<'de> for UrlVisitor {
            type Value = ImageUrl;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a `url`")
            }

            fn visit_str<E>(self, url: &str) -> Result<Self::Value, E> {
                Ok(ImageUrl { url: url.to_owned(), detail: None })
            }

            fn visit_string<E>(self, url: String) -> Result<Self::Value, E> {
                Ok(ImageUrl { url, detail: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ImageUrl { url: fields.url, detail: fields.detail })
            }
        }
        deserializer.deserialize_any(UrlVisitor)
    }
}

/// Deserializes a JSON object as the text that the client sent.
fn raw_object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    let unexpected = match raw.as_deref().and_then(|raw| raw.get().bytes().next()) {
        None | Some(b'{') => return Ok(raw),
        Some(b'[') => Unexpected::Seq,
        Some(b'"') => Unexpected::Other("string"),
        Some(b't' | b'f') => Unexpected::Other("boolean"),
        Some(_) => Unexpected::Other("number"),
    };
    Err(de::Error::invalid_type(unexpected, &"a map"))
}

/// Deserializes a whole number, also as `5.0`, which JSON does not distinguish from `5`. The core checks the range,
/// including 0.
fn integer_u32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    struct IntegerVisitor;
    impl Visitor<'_> for IntegerVisitor {
        type Value = Option<u32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number from 1 to {}", u32::MAX)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            let wrong = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
            u32::try_from(number).map(Some).map_err(wrong)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
            let wrong = |_| E::invalid_value(Unexpected::Signed(number), &self);
            u32::try_from(number).map(Some).map_err(wrong)
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
            let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
            match fits {
                true => Ok(Some(number as u32)),
                false => Err(E::invalid_value(Unexpected::Float(number), &self)),
            }
        }
    }
    deserializer.deserialize_any(IntegerVisitor)
}

#[cfg(test)]
mod tests;
