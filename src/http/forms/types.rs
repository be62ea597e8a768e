//! The parts of a body that several routes share, as clients send them, in the forms of all of OpenAI's APIs. Unknown fields
//! are skipped, and an error contains the path of the wrong value.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use super::objects::objects;
use crate::http::counted;

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object")]
pub(in crate::http) struct Reasoning {
    pub(in crate::http) effort: Option<String>,
    pub(in crate::http) summary: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `type`")]
pub(in crate::http) struct ResponseFormat {
    #[serde(rename = "type")]
    pub(in crate::http) kind: String,
    pub(in crate::http) json_schema: Option<JsonSchema>,
    /// The form of the Responses API, which has the schema beside the type.
    pub(in crate::http) name: Option<String>,
    pub(in crate::http) description: Option<String>,
    pub(in crate::http) schema: Option<Box<RawValue>>,
    pub(in crate::http) strict: Option<bool>,
}

impl ResponseFormat {
    /// Returns the schema of either form.
    pub(in crate::http) fn into_nested(self) -> Self {
        let Self { kind, json_schema, name, description, schema, strict } = self;
        let flat = schema.is_some().then_some(JsonSchema { name, description, schema, strict });
        let json_schema = json_schema.or(flat);
        Self { kind, json_schema, name: None, description: None, schema: None, strict: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `name` and a `schema`")]
pub(in crate::http) struct JsonSchema {
    pub(in crate::http) name: Option<String>,
    pub(in crate::http) description: Option<String>,
    /// Kept as text, because the order of properties determines the order of the answer.
    pub(in crate::http) schema: Option<Box<RawValue>>,
    pub(in crate::http) strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `type`")]
pub(in crate::http) struct Part {
    #[serde(rename = "type")]
    pub(in crate::http) kind: String,
    pub(in crate::http) text: Option<String>,
    pub(in crate::http) refusal: Option<String>,
    pub(in crate::http) image_url: Option<ImageUrl>,
    pub(in crate::http) file: Option<File>,
    /// The resolution of an `input_image`.
    pub(in crate::http) detail: Option<String>,
    /// The fields of an `input_file`.
    pub(in crate::http) filename: Option<String>,
    pub(in crate::http) file_data: Option<String>,
    pub(in crate::http) file_id: Option<IgnoredAny>,
    pub(in crate::http) file_url: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `filename` and `file_data`")]
pub(in crate::http) struct File {
    pub(in crate::http) filename: Option<String>,
    pub(in crate::http) file_data: Option<String>,
    pub(in crate::http) file_id: Option<IgnoredAny>,
    pub(in crate::http) file_url: Option<IgnoredAny>,
}

/// `{"url": …}`, or only the URL, which some clients send.
#[derive(Debug)]
pub(in crate::http) struct ImageUrl {
    pub(in crate::http) url: String,
    pub(in crate::http) detail: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `type`")]
pub(in crate::http) struct Tool {
    #[serde(rename = "type")]
    pub(in crate::http) kind: Option<String>,
    pub(in crate::http) function: Option<Function>,
    /// The fields of a function without the nested object, as in the Responses API.
    pub(in crate::http) name: Option<String>,
    pub(in crate::http) description: Option<String>,
    #[serde(default, deserialize_with = "raw_object")]
    #[serde(alias = "input_schema")]
    pub(in crate::http) parameters: Option<Box<RawValue>>,
    pub(in crate::http) strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `name`")]
pub(in crate::http) struct Function {
    pub(in crate::http) name: String,
    pub(in crate::http) description: Option<String>,
    /// Kept as text, so that Codex gets the keys in their order and large integers exactly.
    #[serde(default, deserialize_with = "raw_object")]
    #[serde(alias = "input_schema")]
    pub(in crate::http) parameters: Option<Box<RawValue>>,
    pub(in crate::http) strict: Option<bool>,
}

/// A word, or an object.
#[derive(Debug)]
pub(in crate::http) enum ToolChoice {
    Word(String),
    Object(ToolChoiceObject),
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `type`")]
pub(in crate::http) struct ToolChoiceObject {
    #[serde(rename = "type")]
    pub(in crate::http) kind: Option<String>,
    pub(in crate::http) function: Option<ChosenFunction>,
    pub(in crate::http) name: Option<String>,
    /// The members of the type `allowed_tools`, in the form of the Responses API.
    pub(in crate::http) mode: Option<String>,
    #[serde(default, deserialize_with = "counted::tools")]
    pub(in crate::http) tools: Option<Vec<ChosenFunction>>,
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object with a `name`")]
pub(in crate::http) struct ChosenFunction {
    pub(in crate::http) name: Option<String>,
}

objects!(
    StreamOptions,
    Reasoning,
    ResponseFormat,
    JsonSchema,
    Part,
    File,
    Tool,
    Function,
    ToolChoiceObject,
    ChosenFunction,
);

#[derive(Debug, Deserialize)]
#[serde(remote = "Self", expecting = "an object")]
pub(in crate::http) struct StreamOptions {
    pub(in crate::http) include_usage: Option<bool>,
}

/// A string, or a list.
#[derive(Debug)]
pub(in crate::http) enum TextOr<T> {
    Text(String),
    List(Vec<T>),
}

impl TextOr<String> {
    /// Returns the texts. An empty string, in contrast to a list with one, is none.
    pub(in crate::http) fn into_texts(self) -> Vec<String> {
        match self {
            Self::Text(text) if text.is_empty() => Vec::new(),
            Self::Text(text) => vec![text],
            Self::List(list) => list,
        }
    }
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
                counted::entries(counted::List::Parts, list).map(TextOr::List)
            }
        }
        deserializer.deserialize_any(TextOrVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `none`, `required` or an object")
            }

            fn visit_str<E>(self, word: &str) -> Result<ToolChoice, E> {
                Ok(ToolChoice::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(ToolChoice::Object)
            }
        }
        deserializer.deserialize_any(ChoiceVisitor)
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
pub(in crate::http) fn integer_u32<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    deserializer.deserialize_any(IntegerVisitor { is_limit: false })
}

/// Deserializes a limit. A negative number means no limit, as 0 does, and so does a number that no answer reaches.
pub(in crate::http) fn limit_u32<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    deserializer.deserialize_any(IntegerVisitor { is_limit: true })
}

struct IntegerVisitor {
    /// Whether numbers beyond the range have a meaning.
    is_limit: bool,
}

impl Visitor<'_> for IntegerVisitor {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_limit {
            return f.write_str("a whole number");
        }
        write!(f, "a whole number from 1 to {}", u32::MAX)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) if self.is_limit => Ok(None),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) if self.is_limit => Ok(None),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        let is_whole = number.fract() == 0.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
        match (0.0..=f64::from(u32::MAX)).contains(&number) {
            true if is_whole => Ok(Some(number as u32)),
            false if is_whole && self.is_limit => Ok(None),
            true | false => Err(E::invalid_value(Unexpected::Float(number), &self)),
        }
    }
}
