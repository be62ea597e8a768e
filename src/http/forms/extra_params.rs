//! The top-level parameters without a field in the contract. Some are refused, some are ignored and reported, and some have
//! no effect. A value is checked as OpenAI checks it, although it is ignored: a client's mistake must not go unnoticed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use sha2::{Digest, Sha256};

use super::objects::TakeMember;
use crate::http::error::ApiError;

/// Maximum number of names in the response header.
const MAX_HEADER_NAMES: usize = 32;

/// The parameters of a request without a field in the contract. Their size is bounded: a body of many megabytes may consist
/// of them.
#[derive(Debug, Default)]
pub(in crate::http) struct ExtraParams {
    rules: &'static [(&'static str, Rule)],
    /// What is known about the values of the parameters with a rule.
    with_rule: BTreeMap<&'static str, Outline>,
    /// The first names of parameters without a rule, as far as a header can list them.
    unknown: BTreeSet<String>,
}

/// What the rules need of a value.
#[derive(Debug, Clone, PartialEq)]
enum Outline {
    Null,
    Bool(bool),
    Number(f64),
    /// A text. A long one is its beginning and a digest.
    Text(String),
    List {
        is_empty: bool,
        /// Whether each element is the string `text`.
        is_text_only: bool,
    },
    Object {
        is_empty: bool,
    },
}

/// How the server treats a parameter.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) enum Rule {
    /// Has no effect. A number within bounds.
    Number(f64, f64),
    /// Has no effect. A whole number.
    Integer,
    /// Has no effect. A text.
    Text,
    /// Has no effect. A boolean, of which `false` is the server's behaviour.
    Switch,
    /// Has no effect beside `messages`. The main parameter of another route.
    OtherRoute,
    /// `["text"]` is the server's behaviour.
    Modalities,
    /// The server cannot follow the value, unless it means "off". The text has the reason and the alternative.
    Refused(&'static str),
    /// The same, and `auto` and `none` mean "off".
    RefusedChoice(&'static str),
    /// The same, and an empty object means "off".
    RefusedObject(&'static str),
}

/// The rules of chat completions.
pub(in crate::http) const RULES: &[(&str, Rule)] = &[
    ("temperature", Rule::Number(0.0, 2.0)),
    ("top_p", Rule::Number(0.0, 1.0)),
    ("presence_penalty", Rule::Number(-2.0, 2.0)),
    ("frequency_penalty", Rule::Number(-2.0, 2.0)),
    ("seed", Rule::Integer),
    ("user", Rule::Text),
    ("safety_identifier", Rule::Text),
    ("prompt_cache_retention", Rule::Text),
    ("store", Rule::Switch),
    ("input", Rule::OtherRoute),
    ("prompt", Rule::OtherRoute),
    ("modalities", Rule::Modalities),
    ("functions", Rule::Refused("`functions` is deprecated and not supported; send `tools`")),
    (
        "function_call",
        Rule::RefusedChoice("`function_call` is deprecated and not supported; send `tool_choice`"),
    ),
    ("logprobs", Rule::Refused("Codex does not report log probabilities")),
    ("top_logprobs", Rule::Refused("Codex does not report log probabilities")),
    (
        "logit_bias",
        Rule::RefusedObject("Codex has no token biases; describe in a message what to avoid or prefer"),
    ),
    ("audio", Rule::RefusedObject("Codex produces no audio")),
    (
        "web_search_options",
        Rule::Refused(
            "only the operator can allow web search (CODEX_ENABLE_SEARCH); the agent then searches by itself",
        ),
    ),
];

impl ExtraParams {
    /// Begins a request whose route has these rules.
    pub(in crate::http) fn new(rules: &'static [(&'static str, Rule)]) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Returns the names of the ignored parameters for a header, or an error for the first parameter that is refused.
    pub(in crate::http) fn ignored(&self) -> Result<Vec<String>, ApiError> {
        let mut names = Vec::new();
        for (name, rule) in self.rules {
            if let Some(value) = self.with_rule.get(name)
                && rule.is_ignored(name, value)?
            {
                names.push((*name).to_owned());
            }
        }
        names.extend(self.unknown.iter().cloned());
        names.truncate(MAX_HEADER_NAMES);
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the name of the end user, which separates what the server keeps between requests. It has no other effect.
    pub(in crate::http) fn user(&self) -> String {
        let [user, identifier] = ["user", "safety_identifier"].map(|name| match self.with_rule.get(name) {
            Some(Outline::Text(text)) => text.as_str(),
            Some(
                Outline::Null
                | Outline::Bool(_)
                | Outline::Number(_)
                | Outline::List { .. }
                | Outline::Object { .. },
            )
            | None => "",
        });
        match (user, identifier) {
            (user, "") => user.to_owned(),
            ("", identifier) => identifier.to_owned(),
            both => serde_json::json!(both).to_string(),
        }
    }

    /// Returns `true` if a parameter with a rule has a value.
    pub(in crate::http) fn has(&self, name: &str) -> bool {
        self.with_rule.get(name).is_some_and(|value| *value != Outline::Null)
    }
}

impl TakeMember for ExtraParams {
    fn take<'de, A: MapAccess<'de>>(&mut self, name: String, map: &mut A) -> Result<(), A::Error> {
        if let Some((name, _)) = self.rules.iter().find(|(known, _)| *known == name) {
            self.with_rule.insert(name, map.next_value()?);
            return Ok(());
        }
        let is_given = map.next_value::<Option<IgnoredAny>>()?.is_some();
        if is_given && self.unknown.len() < MAX_HEADER_NAMES && is_header_name(&name) {
            self.unknown.insert(name);
        }
        Ok(())
    }
}

/// Returns `true` for a name that a header's list can hold. Others are left out instead of escaped.
fn is_header_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}

impl Rule {
    /// Returns whether the value is ignored and reported. Returns `false` if it is the server's behaviour.
    fn is_ignored(self, name: &str, value: &Outline) -> Result<bool, ApiError> {
        let invalid = |expected: &str| Err(ApiError::invalid(name, format!("{name}: expected {expected}")));
        if *value == Outline::Null {
            return Ok(false);
        }
        match self {
            Self::Number(min, max) if !matches!(value, Outline::Number(number) if (min..=max).contains(number)) => {
                invalid(&format!("a number from {min} to {max}"))
            }
            Self::Integer if !matches!(value, Outline::Number(number) if number.fract() == 0.0) => {
                invalid("a whole number")
            }
            Self::Text if !matches!(value, Outline::Text(_)) => invalid("a string"),
            Self::Switch if !matches!(value, Outline::Bool(_)) => invalid("a boolean"),
            Self::Switch => Ok(*value == Outline::Bool(true)),
            Self::Number(..) | Self::Integer | Self::Text | Self::OtherRoute => Ok(true),
            Self::Modalities if matches!(value, Outline::List { is_text_only: true, .. }) => Ok(false),
            Self::Modalities => refused(name, "Codex answers with text only; send `[\"text\"]` or nothing"),
            Self::Refused(_) | Self::RefusedChoice(_) | Self::RefusedObject(_) if value.is_off() => Ok(false),
            Self::RefusedChoice(_) if matches!(value, Outline::Text(text) if matches!(&**text, "auto" | "none")) => {
                Ok(false)
            }
            Self::RefusedObject(_) if *value == (Outline::Object { is_empty: true }) => Ok(false),
            Self::Refused(reason) | Self::RefusedChoice(reason) | Self::RefusedObject(reason) => {
                refused(name, reason)
            }
        }
    }
}

fn refused(name: &str, reason: &str) -> Result<bool, ApiError> {
    Err(ApiError::unsupported(name, format!("{name}: {reason}")))
}

impl Outline {
    /// Returns `true` for a value that requests nothing.
    fn is_off(&self) -> bool {
        match self {
            Self::Null | Self::Bool(false) | Self::List { is_empty: true, .. } => true,
            Self::Number(number) => *number == 0.0,
            Self::Text(text) => text.is_empty(),
            Self::Bool(true) | Self::List { .. } | Self::Object { .. } => false,
        }
    }
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OutlineVisitor)
    }
}

/// Maximum length of a text in an [`Outline`] in bytes. Names of users are longer than the words of the rules.
const MAX_TEXT: usize = 512;

/// Length of the beginning of a longer text, in characters.
const LONG_TEXT_HEAD: usize = 100;

struct OutlineVisitor;

impl<'de> Visitor<'de> for OutlineVisitor {
    type Value = Outline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Outline, E> {
        Ok(Outline::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Outline, E> {
        Ok(Outline::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "the rules compare small numbers")]
    fn visit_u64<E>(self, number: u64) -> Result<Outline, E> {
        Ok(Outline::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "the rules compare small numbers")]
    fn visit_i64<E>(self, number: i64) -> Result<Outline, E> {
        Ok(Outline::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Outline, E> {
        Ok(Outline::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Outline, E> {
        if text.len() <= MAX_TEXT {
            return Ok(Outline::Text(text.to_owned()));
        }
        // Two users whose long names begin alike are two users.
        let head: String = text.chars().take(LONG_TEXT_HEAD).collect();
        let mut outline = format!("{head} ");
        for byte in Sha256::digest(text) {
            let _infallible = write!(outline, "{byte:02x}");
        }
        Ok(Outline::Text(outline))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Outline, A::Error> {
        let (mut is_empty, mut is_text_only) = (true, true);
        // One element that is not a text decides, and the others need not be read.
        while is_text_only && let Some(element) = list.next_element::<Word>()? {
            is_empty = false;
            is_text_only = element.is_text;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Outline::List { is_empty, is_text_only })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut is_empty = true;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_empty = false;
        }
        Ok(Outline::Object { is_empty })
    }
}

/// An element of a list, of any type.
struct Word {
    /// Whether it is the string `text`.
    is_text: bool,
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let outline = Outline::deserialize(deserializer)?;
        Ok(Self { is_text: outline == Outline::Text("text".to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Reads the members of an object as `request` does.
    fn read(body: &Value) -> ExtraParams {
        struct Body(ExtraParams);
        impl<'de> Deserialize<'de> for Body {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct BodyVisitor;
                impl<'de> Visitor<'de> for BodyVisitor {
                    type Value = Body;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                        let mut extra = ExtraParams::new(RULES);
                        while let Some(name) = map.next_key::<String>()? {
                            extra.take(name, &mut map)?;
                        }
                        Ok(Body(extra))
                    }
                }
                deserializer.deserialize_map(BodyVisitor)
            }
        }
        serde_json::from_str::<Body>(&body.to_string()).unwrap().0
    }

    fn ignored_of(body: &Value) -> Result<Vec<String>, ApiError> {
        read(body).ignored()
    }

    #[test]
    fn ignored_hints_are_reported_but_no_ops_and_nulls_are_not() {
        for (body, names) in [
            (json!({}), &[][..]),
            (json!({"temperature": 0.2, "top_p": 1, "seed": 7}), &["seed", "temperature", "top_p"]),
            (json!({"temperature": 2.0, "top_p": 0, "seed": -7.0}), &["seed", "temperature", "top_p"]),
            (json!({"temperature": null, "user": null, "x": null}), &[]),
            (
                json!({"presence_penalty": -2, "frequency_penalty": 0, "top_k": 1, "min_p": 0}),
                &["frequency_penalty", "min_p", "presence_penalty", "top_k"],
            ),
            (json!({"store": true, "user": ""}), &["store", "user"]),
            (json!({"store": false}), &[]),
            (
                json!({"prediction": {}, "user": "u", "safety_identifier": "s"}),
                &["prediction", "safety_identifier", "user"],
            ),
            (json!({"repetition_penalty": 1, "input": "x"}), &["input", "repetition_penalty"]),
            (json!({"x_unknown": 1, "a b": 2, "é": 3, "": 4, "line\nbreak": 5}), &["x_unknown"]),
        ] {
            assert_eq!(ignored_of(&body).unwrap(), names, "{body}");
        }
    }

    #[test]
    fn user_is_another_one_if_either_name_differs() {
        let long = "x".repeat(3000);
        let bodies = [
            json!({}),
            json!({"user": "a"}),
            json!({"user": "b"}),
            json!({"user": "a", "safety_identifier": "b"}),
            json!({"user": "a\nb"}),
            json!({"user": "b", "safety_identifier": "a"}),
            json!({"user": long}),
            json!({"user": format!("{long}y")}),
        ];
        let users: BTreeSet<String> = bodies.iter().map(|body| read(body).user()).collect();
        assert_eq!(users.len(), bodies.len(), "{users:?}");
        assert!(users.iter().all(|user| user.len() <= 2048));
        assert_eq!(read(&json!({"safety_identifier": "a"})).user(), "a");
    }

    #[test]
    fn ignored_values_that_mean_off_pass() {
        for body in [
            json!({"functions": []}),
            json!({"functions": null, "function_call": null}),
            json!({"function_call": "none"}),
            json!({"function_call": "auto"}),
            json!({"logprobs": false, "top_logprobs": 0, "logit_bias": {}}),
            json!({"logprobs": null, "top_logprobs": null, "logit_bias": null}),
            json!({"top_logprobs": 0.0}),
            json!({"modalities": ["text"], "audio": null}),
            json!({"modalities": []}),
            json!({"modalities": null, "audio": {}}),
            json!({"audio": false, "web_search_options": false}),
            json!({"web_search_options": null}),
        ] {
            assert_eq!(ignored_of(&body).unwrap(), [""; 0], "{body}");
        }
    }

    #[test]
    fn ignored_unsupported_and_wrong_values_are_refused_by_name() {
        let (unsupported, invalid) = ("unsupported_parameter", "invalid_value");
        for (name, value, code) in [
            ("functions", json!([{}]), unsupported),
            ("function_call", json!({"name": "f"}), unsupported),
            ("logprobs", json!(true), unsupported),
            ("top_logprobs", json!(2), unsupported),
            ("logit_bias", json!({"50256": -100}), unsupported),
            ("audio", json!({"voice": "x"}), unsupported),
            ("modalities", json!(["text", "audio"]), unsupported),
            ("modalities", json!([["text"]]), unsupported),
            ("modalities", json!("audio"), unsupported),
            ("web_search_options", json!({}), unsupported),
            ("temperature", json!(9), invalid),
            ("temperature", json!(-0.1), invalid),
            ("temperature", json!("hot"), invalid),
            ("temperature", json!([]), invalid),
            ("top_p", json!(1.01), invalid),
            ("presence_penalty", json!(-2.5), invalid),
            ("frequency_penalty", json!(3), invalid),
            ("frequency_penalty", json!({}), invalid),
            ("seed", json!(1.5), invalid),
            ("seed", json!("7"), invalid),
            ("user", json!(7), invalid),
            ("safety_identifier", json!(["a"]), invalid),
            ("store", json!("yes"), invalid),
        ] {
            let error = ignored_of(&json!({ "x": 1, name: value })).unwrap_err();
            let body = serde_json::to_value(error.body()).unwrap();
            assert_eq!((&body["error"]["param"], &body["error"]["code"]), (&json!(name), &json!(code)));
        }
    }

    #[test]
    fn ignored_names_of_many_are_limited_and_known_names_come_first() {
        let mut many: serde_json::Map<String, Value> =
            (0..1000).map(|n| (format!("p{n}"), json!(1))).collect();
        many.insert("temperature".to_owned(), json!(1));
        let names = ignored_of(&many.into()).unwrap();
        assert_eq!(names.len(), MAX_HEADER_NAMES);
        assert!(names.contains(&"temperature".to_owned()), "{names:?}");
    }
}
