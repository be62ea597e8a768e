//! Lists of a JSON body whose entries are counted while they are read. An entry of a few bytes becomes a structure of
//! hundreds, so a count after parsing is too late.
//!
//! serde passes no state to a field, and a body is parsed on one thread without a pause, so that thread holds the counts.

use std::{cell::Cell, collections::HashMap, fmt, marker::PhantomData};

use crate::config::ListLimits;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

/// Maximum number of pairs in the metadata, as at OpenAI.
const MAX_METADATA: usize = 16;

/// A counted list. Each list but the tools is counted over the whole body.
#[derive(Debug, Clone, Copy)]
pub(super) enum List {
    Messages,
    Parts,
    Calls,
    Tools,
}

thread_local! {
    /// The limits and the counts of the current body, by [`List`].
    static COUNTS: Cell<Option<(ListLimits, [usize; 4])>> = const { Cell::new(None) };
}

/// Parses with limits for the lists of one body.
pub(super) fn within<T>(limits: ListLimits, parse: impl FnOnce() -> T) -> T {
    COUNTS.set(Some((limits, [0; 4])));
    let parsed = parse();
    COUNTS.set(None);
    parsed
}

/// Counts an entry. Returns the error text if the list is full. Counts nothing outside of [`within`].
fn count(list: List) -> Result<(), String> {
    let Some((limits, mut counts)) = COUNTS.get() else { return Ok(()) };
    let (max, what, setting) = match list {
        List::Messages => (limits.messages, "messages", "CODEX_MAX_MESSAGES"),
        List::Parts => (limits.messages, "entries of `content`, `stop` and `include`", "CODEX_MAX_MESSAGES"),
        List::Calls => (limits.messages, "tool calls", "CODEX_MAX_MESSAGES"),
        List::Tools => (limits.tools, "tools", "CODEX_MAX_TOOLS"),
    };
    if let Some(count) = counts.get_mut(list as usize) {
        *count += 1;
        if *count > max {
            return Err(format!("more than the {max} {what} allowed ({setting})"));
        }
    }
    COUNTS.set(Some((limits, counts)));
    Ok(())
}

/// Reads the rest of a list.
pub(super) fn entries<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    list: List,
    mut rest: A,
) -> Result<Vec<T>, A::Error> {
    let mut entries = Vec::new();
    while let Some(entry) = rest.next_element()? {
        count(list).map_err(de::Error::custom)?;
        entries.push(entry);
    }
    Ok(entries)
}

/// Reads a list, or `null`.
fn optional<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    list: List,
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    struct ListVisitor<T>(List, PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, rest: A) -> Result<Self::Value, A::Error> {
            entries(self.0, rest).map(Some)
        }
    }
    deserializer.deserialize_any(ListVisitor(list, PhantomData))
}

/// Reads the messages.
pub(super) fn messages<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<T>>, D::Error> {
    optional(List::Messages, d)
}

/// Reads the calls of a message.
pub(super) fn calls<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<T>>, D::Error> {
    optional(List::Calls, d)
}

/// Reads the names of what a response is to contain besides.
pub(super) fn includes<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<T>>, D::Error> {
    optional(List::Parts, d)
}

/// Reads the tools.
pub(super) fn tools<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Vec<T>>, D::Error> {
    optional(List::Tools, d)
}

/// Reads the metadata, or `null`.
pub(super) fn metadata<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<HashMap<String, String>>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Option<HashMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut rest: A) -> Result<Self::Value, A::Error> {
            let mut pairs = HashMap::new();
            while let Some((key, value)) = rest.next_entry()? {
                pairs.insert(key, value);
                if pairs.len() > MAX_METADATA {
                    return Err(de::Error::custom(format!("at most {MAX_METADATA} pairs are allowed")));
                }
            }
            Ok(Some(pairs))
        }
    }
    deserializer.deserialize_any(Pairs)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "messages")]
        messages: Option<Vec<Message>>,
        #[serde(default, deserialize_with = "metadata")]
        metadata: Option<HashMap<String, String>>,
    }

    #[derive(Debug, Deserialize)]
    struct Message {
        #[serde(default, deserialize_with = "calls")]
        calls: Option<Vec<Value>>,
    }

    fn read(json: &str) -> Result<Body, String> {
        let limits = ListLimits { messages: 3, tools: 3 };
        within(limits, || serde_json::from_str(json)).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_are_counted_over_the_whole_body() {
        let body = read(r#"{"messages":[{"calls":[1,2]},{"calls":[3]},{"calls":null}]}"#).unwrap();
        let messages = body.messages.unwrap();
        assert_eq!(messages.iter().map(|message| message.calls.iter().flatten().count()).sum::<usize>(), 3);
        let error = read(r#"{"messages":[{},{},{},{}]}"#).unwrap_err();
        assert!(error.starts_with("more than the 3 messages allowed (CODEX_MAX_MESSAGES)"), "{error}");
        let error = read(r#"{"messages":[{"calls":[1,2]},{"calls":[3,4]}]}"#).unwrap_err();
        assert!(error.starts_with("more than the 3 tool calls allowed (CODEX_MAX_MESSAGES)"), "{error}");
        // The counts of one body do not add to those of the next.
        assert!(read(r#"{"messages":[{},{},{}]}"#).is_ok());
        assert!(read(r#"{"messages":null}"#).unwrap().messages.is_none());
    }

    #[test]
    fn metadata_is_bounded() {
        assert_eq!(read(r#"{"metadata":{"k":"v"}}"#).unwrap().metadata.unwrap().len(), 1);
        assert!(read(r#"{"metadata":null}"#).unwrap().metadata.is_none());
        let pairs: Vec<String> = (0..17).map(|n| format!(r#""{n}":"""#)).collect();
        let error = read(&format!(r#"{{"metadata":{{{}}}}}"#, pairs.join(","))).unwrap_err();
        assert!(error.starts_with("at most 16 pairs are allowed"), "{error}");
    }
}
