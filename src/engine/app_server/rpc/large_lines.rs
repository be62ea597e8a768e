//! Classifies large lines of an app-server without parsing them into a tree. Codex echoes every injected item,
//! including images of many megabytes. No code reads the echoes. Pure.

use std::borrow::Cow;

use serde::Deserialize;

use super::protocol::{RawItem, RawResponseItem};

/// Minimum length in bytes of a line that is classified before it is parsed.
const MIN_LINE_BYTES: usize = 64 << 10;

/// Maximum length in bytes of a line with a tool output that is kept.
const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// The text for the model in place of an output that was too large.
pub(crate) const OMITTED_OUTPUT: &str =
    "The call has run. Its output was too large to be kept: make the call again if it is needed.";

/// The prefix of the turn id of injected items.
const INJECTED_TURN_PREFIX: &str = "auto-compact-";

const RAW_ITEM: &str = "rawResponseItem/completed";

/// The class of a large line.
#[derive(Debug, PartialEq)]
pub(crate) enum LargeLine {
    /// The line echoes an injected item. No code reads it.
    Echo,
    /// The line contains a tool output that is too large to be kept.
    OmittedOutput {
        /// The thread.
        thread: String,
        /// The item, with [`OMITTED_OUTPUT`] as its output.
        item: RawResponseItem,
    },
    /// The line must be parsed.
    Needed {
        /// The thread, if it is known.
        thread: Option<String>,
    },
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow)]
    thread_id: Cow<'a, str>,
    #[serde(borrow)]
    turn_id: Cow<'a, str>,
    #[serde(borrow)]
    item: Item<'a>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    call_id: Option<Cow<'a, str>>,
}

impl Params<'_> {
    /// Returns the class of the item, or `None` if the line must be parsed.
    fn classify(self, bytes: usize) -> Option<LargeLine> {
        let injected = self.turn_id.starts_with(INJECTED_TURN_PREFIX);
        if injected || self.item.kind == "message" && self.item.role.is_some_and(|role| role != "assistant") {
            return Some(LargeLine::Echo);
        }
        let call_id = self
            .item
            .call_id
            .filter(|_| bytes > MAX_OUTPUT_BYTES && RawItem::OUTPUT_KINDS.contains(&&*self.item.kind))?;
        let item = RawItem::output_of_call(&self.item.kind, &call_id, OMITTED_OUTPUT);
        let item = RawResponseItem { turn_id: self.turn_id.into_owned(), item };
        Some(LargeLine::OmittedOutput { thread: self.thread_id.into_owned(), item })
    }
}

/// Classifies a whole line.
pub(crate) fn classify_line(line: &[u8]) -> LargeLine {
    // A line in any other form is parsed completely, which takes longer but loses no data.
    let is_candidate =
        line.len() > MIN_LINE_BYTES && line.starts_with(br#"{"method":"rawResponseItem/completed""#);
    let parsed = is_candidate.then(|| serde_json::from_slice::<Line<'_>>(line).ok()).flatten();
    parsed.and_then(|parsed| parsed.params.classify(line.len())).unwrap_or(LargeLine::Needed { thread: None })
}

/// Returns `true` if a line that begins with `prefix` may be a notification of one thread.
pub(crate) fn is_notification(prefix: &[u8]) -> bool {
    prefix.starts_with(br#"{"method":""#)
}

/// Classifies a line of which only the first and the last bytes are known.
pub(crate) fn classify_edges(edges: &[u8]) -> LargeLine {
    // A cut may split a character.
    let text = String::from_utf8_lossy(edges);
    let Some(thread) = find_thread(&text) else { return LargeLine::Needed { thread: None } };
    let fields = (find_field(&text, "method"), find_field(&text, "turnId"), find_field(&text, "type"));
    if let (Some(RAW_ITEM), Some(turn), Some(kind)) = fields {
        let field = |name| find_field(&text, name).map(Cow::Borrowed);
        let item = Item { kind: kind.into(), role: field("role"), call_id: field("call_id") };
        let params = Params { thread_id: thread.into(), turn_id: turn.into(), item };
        if let Some(class) = params.classify(usize::MAX) {
            return class;
        }
    }
    LargeLine::Needed { thread: Some(thread.to_owned()) }
}

/// Returns the thread id that is the first or the last field. A match between them would be part of a text.
fn find_thread(text: &str) -> Option<&str> {
    let (_, params) = text.split_once(r#""params":{"#)?;
    if params.starts_with(r#""threadId":""#) {
        return find_field(params, "threadId");
    }
    let (_, last) = text.rsplit_once(r#""threadId":""#)?;
    last.split_once('"').map(|(thread, _)| thread)
}

/// Returns the first string field with this name. Field names in texts do not match, because their quotes are escaped.
fn find_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!(r#""{name}":""#))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(turn: &str, item: &str) -> String {
        let params = format!(r#"{{"threadId":"T","turnId":"{turn}","item":{item}}}"#);
        format!(r#"{{"method":"rawResponseItem/completed","params":{params},"emittedAtMs":1}}"#)
    }

    fn message(role: &str, bytes: usize) -> String {
        let text = "x".repeat(bytes);
        format!(
            r#"{{"type":"message","id":"m","role":"{role}","content":[{{"type":"input_text","text":"{text}"}}]}}"#
        )
    }

    fn output(bytes: usize) -> String {
        format!(r#"{{"type":"function_call_output","call_id":"c","output":"{}"}}"#, "x".repeat(bytes))
    }

    /// Returns the bytes that a reader keeps of a skipped line.
    fn ends(line: &str) -> Vec<u8> {
        let line = line.as_bytes();
        [&line[..2048], &line[line.len() - 2048..]].concat()
    }

    #[test]
    fn classify_injected_items_returns_echo() {
        for item in [message("user", 100_000), message("developer", 100_000)] {
            for turn in ["auto-compact-0", "an-unknown-turn"] {
                let line = raw(turn, &item);
                assert_eq!(classify_line(line.as_bytes()), LargeLine::Echo);
                assert_eq!(classify_edges(&ends(&line)), LargeLine::Echo);
            }
        }
        for item in [message("assistant", 100_000), output(100_000), output(5_000_000)] {
            let line = raw("auto-compact-0", &item);
            assert_eq!(classify_line(line.as_bytes()), LargeLine::Echo);
            assert_eq!(classify_edges(&ends(&line)), LargeLine::Echo);
        }
    }

    #[test]
    fn classify_large_outputs_of_a_turn_returns_omitted_output() {
        let line = raw("U", &output(5_000_000));
        let item = json!({"type": "function_call_output", "call_id": "c", "output": OMITTED_OUTPUT});
        let item = RawResponseItem { turn_id: "U".into(), item: item.into() };
        let expected = LargeLine::OmittedOutput { thread: "T".into(), item };
        assert_eq!(classify_line(line.as_bytes()), expected);
        assert_eq!(classify_edges(&ends(&line)), expected);
        assert_eq!(classify_line(raw("U", &output(100_000)).as_bytes()), LargeLine::Needed { thread: None });
    }

    #[test]
    fn classify_messages_of_the_model_returns_needed() {
        let line = raw("U", &message("assistant", 100_000));
        assert_eq!(classify_line(line.as_bytes()), LargeLine::Needed { thread: None });
        assert_eq!(classify_edges(&ends(&line)), LargeLine::Needed { thread: Some("T".into()) });
        let small = raw("U", &message("user", 10));
        assert_eq!(classify_line(small.as_bytes()), LargeLine::Needed { thread: None });
    }

    #[test]
    fn classify_edges_with_thread_ids_in_a_text_returns_the_thread_at_an_end() {
        let decoy = r#"\"threadId\":\"W\","#.repeat(1000);
        let behind = format!(
            r#"{{"method":"item/completed","params":{{"item":{{"type":"x","text":"{decoy}é{decoy}"}},"threadId":"T","turnId":"U"}}}}"#
        );
        assert_eq!(classify_edges(&ends(&behind)), LargeLine::Needed { thread: Some("T".into()) });
        // A cut may split a character at either end.
        for shift in 0..3 {
            let letters = format!("{}{}", "y".repeat(shift), "é€".repeat(2000));
            let line = format!(
                r#"{{"method":"item/completed","params":{{"item":{{"text":"{letters}"}},"threadId":"T","turnId":"U"}}}}"#
            );
            assert_eq!(classify_edges(&ends(&line)), LargeLine::Needed { thread: Some("T".into()) });
            let line = format!(
                r#"{{"method":"turn/completed","params":{{"threadId":"T","turn":{{"text":"{letters}"}}}}}}"#
            );
            assert_eq!(classify_edges(&ends(&line)), LargeLine::Needed { thread: Some("T".into()) });
        }
        let without_thread = format!(r#"{{"method":"warning","params":{{"message":"{decoy}"}}}}"#);
        assert_eq!(classify_edges(&ends(&without_thread)), LargeLine::Needed { thread: None });
        assert!(
            is_notification(behind.as_bytes())
                && !is_notification(b"xxxx")
                && !is_notification(b"{\"id\":1,")
        );
    }
}
