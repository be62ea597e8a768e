//! Pieces of text as the model makes them: most of what an app-server says, so a line of this kind is read into its few
//! fields and not into a tree. What the text means is not known here.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

/// A piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) kind: Kind,
    item: Option<String>,
    /// Of a text that has several parts.
    part: Option<i64>,
    pub(crate) text: String,
}

/// What it is a piece of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message of the agent.
    Message,
    /// A summary of its thoughts.
    Summary,
    /// Its thoughts as they are.
    Thoughts,
}

/// How every notification begins, as Codex writes it.
const HEAD: &[u8] = br#"{"method":""#;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    params: Params<'a>,
    /// With one it is a request, which wants an answer.
    id: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow, default)]
    thread_id: Cow<'a, str>,
    item_id: Option<String>,
    summary_index: Option<i64>,
    content_index: Option<i64>,
    #[serde(default)]
    delta: String,
}

/// What thoughts are of: those of another item, or of another kind, begin anew.
pub(crate) type Thought = (Kind, Option<String>);

impl Kind {
    fn of(method: &[u8]) -> Option<Self> {
        match method {
            b"item/agentMessage/delta" => Some(Self::Message),
            b"item/reasoning/summaryTextDelta" => Some(Self::Summary),
            b"item/reasoning/textDelta" => Some(Self::Thoughts),
            _ => None,
        }
    }
}

impl Delta {
    /// A line that is one at first sight, and its thread. Others may be one too.
    pub(crate) fn of_line(line: &[u8]) -> Option<(Cow<'_, str>, Self)> {
        let method = line.strip_prefix(HEAD)?.split(|byte| *byte == b'"').next()?;
        let kind = Kind::of(method)?;
        let Line { mut params, id: None } = serde_json::from_slice(line).ok()? else { return None };
        Some((std::mem::take(&mut params.thread_id), Self::new(kind, params)))
    }

    /// A notification, if it is one.
    pub(crate) fn of(method: &str, params: &Value) -> Option<Self> {
        Some(Self::new(Kind::of(method.as_bytes())?, Params::deserialize(params).ok()?))
    }

    /// What a piece of thoughts is of, and its text.
    pub(crate) fn into_thought(self) -> (Thought, String) {
        ((self.kind, self.item), self.text)
    }

    /// Appends the next piece, if both belong to the same text; gives it back if not.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        if (self.kind, &self.item, self.part) != (next.kind, &next.item, next.part) {
            return Err(next);
        }
        self.text.push_str(&next.text);
        Ok(())
    }

    fn new(kind: Kind, params: Params<'_>) -> Self {
        Self {
            kind,
            item: params.item_id,
            part: params.summary_index.or(params.content_index),
            text: params.delta,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ways_of_reading_agree() {
        let texts = ["a", "\"method\":\"x\"", "ß\n\u{2028}", ""];
        let kinds = [
            ("item/agentMessage/delta", Kind::Message, json!({"itemId": "m"})),
            ("item/agentMessage/delta", Kind::Message, json!({"itemId": null})),
            ("item/reasoning/summaryTextDelta", Kind::Summary, json!({"itemId": "m", "summaryIndex": 2})),
            ("item/reasoning/textDelta", Kind::Thoughts, json!({"itemId": "m", "contentIndex": 3})),
        ];
        for ((method, kind, named), text) in kinds.iter().flat_map(|kind| texts.map(|text| (kind, text))) {
            let mut params = json!({"threadId": "t", "turnId": "u", "delta": text});
            params.as_object_mut().unwrap().extend(named.as_object().unwrap().clone());
            let line = json!({"method": method, "params": params}).to_string();
            let expected = Delta {
                kind: *kind,
                item: named["itemId"].as_str().map(str::to_owned),
                part: named["summaryIndex"].as_i64().or(named["contentIndex"].as_i64()),
                text: text.to_owned(),
            };
            assert_eq!(Delta::of(method, &params).unwrap(), expected);
            let (thread, read) = Delta::of_line(line.as_bytes()).unwrap();
            assert_eq!((&*thread, read), ("t", expected));
        }
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            r#"{"method":"item/completed","params":{"threadId":"t","delta":"a"}}"#,
            r#"{"method":"item/agentMessage/delta","params":{"threadId":"t","delta":{}}}"#,
            r#"{"method":"item/agentMessage/delta"#,
            r#"{"id":3,"method":"item/agentMessage/delta","params":{}}"#,
            r#"{"method":"item/agentMessage/delta","id":3,"params":{"threadId":"t","delta":"a"}}"#,
            "",
        ] {
            assert_eq!(Delta::of_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn only_pieces_of_one_text_are_joined() {
        let of =
            |kind, item: &str, part| Delta { kind, item: Some(item.to_owned()), part, text: item.to_owned() };
        let mut first = of(Kind::Summary, "a", Some(0));
        for other in [
            of(Kind::Thoughts, "a", Some(0)),
            of(Kind::Summary, "b", Some(0)),
            of(Kind::Summary, "a", Some(1)),
        ] {
            assert!(first.join(other).is_err());
        }
        first.join(of(Kind::Summary, "a", Some(0))).unwrap();
        assert_eq!(first.text, "aa");
    }
}
