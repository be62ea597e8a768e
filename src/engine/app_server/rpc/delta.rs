//! Text deltas. Most lines of an app-server are deltas, so they are parsed into a few fields and not into a tree.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

/// A delta of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) kind: DeltaKind,
    item: Option<String>,
    /// The index of the part, in a text of several parts.
    part: Option<i64>,
    pub(crate) text: String,
}

/// The kind of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeltaKind {
    /// A message of the agent.
    Message,
    /// A summary of the model's reasoning.
    ReasoningSummary,
    /// The model's reasoning itself.
    ReasoningText,
}

/// The first bytes of every notification.
const PREFIX: &[u8] = br#"{"method":""#;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    params: Params<'a>,
    /// Present in a request, which needs a response.
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

/// Identifies a part of the reasoning. A delta of another item or kind begins another part.
pub(crate) type ReasoningPart = (DeltaKind, Option<String>);

impl DeltaKind {
    fn from_method(method: &[u8]) -> Option<Self> {
        match method {
            b"item/agentMessage/delta" => Some(Self::Message),
            b"item/reasoning/summaryTextDelta" => Some(Self::ReasoningSummary),
            b"item/reasoning/textDelta" => Some(Self::ReasoningText),
            _ => None,
        }
    }
}

impl Delta {
    /// Parses a line that begins like a delta notification. Returns the thread's id and the delta. Returns `None` for
    /// all other lines, including delta notifications that do not begin with `method`.
    pub(crate) fn from_line(line: &[u8]) -> Option<(Cow<'_, str>, Self)> {
        let method = line.strip_prefix(PREFIX)?.split(|byte| *byte == b'"').next()?;
        let kind = DeltaKind::from_method(method)?;
        let Line { mut params, id: None } = serde_json::from_slice(line).ok()? else { return None };
        Some((std::mem::take(&mut params.thread_id), Self::new(kind, params)))
    }

    /// Converts a parsed notification. Returns `None` if the notification is not a delta.
    pub(crate) fn from_notification(method: &str, params: &Value) -> Option<Self> {
        Some(Self::new(DeltaKind::from_method(method.as_bytes())?, Params::deserialize(params).ok()?))
    }

    /// Returns the part of the reasoning that the delta belongs to, and its text.
    pub(crate) fn into_reasoning(self) -> (ReasoningPart, String) {
        ((self.kind, self.item), self.text)
    }

    /// Appends `next` if both deltas belong to the same text. Otherwise returns `next`.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        if (self.kind, &self.item, self.part) != (next.kind, &next.item, next.part) {
            return Err(next);
        }
        self.text.push_str(&next.text);
        Ok(())
    }

    fn new(kind: DeltaKind, params: Params<'_>) -> Self {
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
    fn from_line_and_from_notification_of_one_delta_return_the_same() {
        let texts = ["a", "\"method\":\"x\"", "ß\n\u{2028}", ""];
        let kinds = [
            ("item/agentMessage/delta", DeltaKind::Message, json!({"itemId": "m"})),
            ("item/agentMessage/delta", DeltaKind::Message, json!({"itemId": null})),
            (
                "item/reasoning/summaryTextDelta",
                DeltaKind::ReasoningSummary,
                json!({"itemId": "m", "summaryIndex": 2}),
            ),
            ("item/reasoning/textDelta", DeltaKind::ReasoningText, json!({"itemId": "m", "contentIndex": 3})),
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
            assert_eq!(Delta::from_notification(method, &params).unwrap(), expected);
            let (thread, read) = Delta::from_line(line.as_bytes()).unwrap();
            assert_eq!((&*thread, read), ("t", expected));
        }
    }

    #[test]
    fn from_line_of_other_lines_returns_none() {
        for line in [
            r#"{"method":"item/completed","params":{"threadId":"t","delta":"a"}}"#,
            r#"{"method":"item/agentMessage/delta","params":{"threadId":"t","delta":{}}}"#,
            r#"{"method":"item/agentMessage/delta"#,
            r#"{"id":3,"method":"item/agentMessage/delta","params":{}}"#,
            r#"{"method":"item/agentMessage/delta","id":3,"params":{"threadId":"t","delta":"a"}}"#,
            "",
        ] {
            assert_eq!(Delta::from_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn join_of_another_text_returns_the_delta() {
        let delta =
            |kind, item: &str, part| Delta { kind, item: Some(item.to_owned()), part, text: item.to_owned() };
        let mut first = delta(DeltaKind::ReasoningSummary, "a", Some(0));
        for other in [
            delta(DeltaKind::ReasoningText, "a", Some(0)),
            delta(DeltaKind::ReasoningSummary, "b", Some(0)),
            delta(DeltaKind::ReasoningSummary, "a", Some(1)),
        ] {
            assert!(first.join(other).is_err());
        }
        first.join(delta(DeltaKind::ReasoningSummary, "a", Some(0))).unwrap();
        assert_eq!(first.text, "aa");
    }
}
