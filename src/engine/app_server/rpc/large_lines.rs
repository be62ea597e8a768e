//! Large lines of an app-server, understood without taking them apart: Codex says every injected item back, pictures
//! of many megabytes included, and nobody reads that. Pure.

use std::borrow::Cow;

use serde::Deserialize;

use super::protocol::{RawItem, RawResponseItem};

/// Lines that are looked at before they are taken apart.
const LARGE: usize = 64 << 10;

/// Longest output of a tool that is passed on.
const MAX_OUTPUT: usize = 4 << 20;

/// For the model, in place of an output that was too large to be kept.
pub(crate) const LEFT_OUT: &str =
    "The call has run. Its output was too large to be kept: make the call again if it is needed.";

/// The turn that Codex has injected items belong to.
const INJECTED: &str = "auto-compact-";

const RAW_ITEM: &str = "rawResponseItem/completed";

/// What is to become of a large line.
#[derive(Debug, PartialEq)]
pub(crate) enum LargeLine {
    /// Nobody needs it.
    Echo,
    /// It has an output of a tool that is too large to be passed on: the parameters of the notification, other words
    /// in its place.
    Output {
        /// Its thread.
        thread: String,
        /// What is passed on.
        item: RawResponseItem,
    },
    /// It is to be read.
    Needed {
        /// Its thread, as far as it was looked for.
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
    /// What such an item is, unless it is to be read.
    fn known(self, bytes: usize) -> Option<LargeLine> {
        let injected = self.turn_id.starts_with(INJECTED);
        if injected || self.item.kind == "message" && self.item.role.is_some_and(|role| role != "assistant") {
            return Some(LargeLine::Echo);
        }
        let call_id = self
            .item
            .call_id
            .filter(|_| bytes > MAX_OUTPUT && RawItem::OUTPUT_KINDS.contains(&&*self.item.kind))?;
        let item = RawItem::output_of_call(&self.item.kind, &call_id, LEFT_OUT);
        let item = RawResponseItem { turn_id: self.turn_id.into_owned(), item };
        Some(LargeLine::Output { thread: self.thread_id.into_owned(), item })
    }
}

/// What a whole line is.
pub(crate) fn whole(line: &[u8]) -> LargeLine {
    // As Codex writes it; anything else is taken apart, which costs time but loses nothing.
    let looked_at = line.len() > LARGE && line.starts_with(br#"{"method":"rawResponseItem/completed""#);
    let parsed = looked_at.then(|| serde_json::from_slice::<Line<'_>>(line).ok()).flatten();
    parsed.and_then(|parsed| parsed.params.known(line.len())).unwrap_or(LargeLine::Needed { thread: None })
}

/// Whether what begins like this may be of one thread only.
pub(crate) fn is_addressed(begun: &[u8]) -> bool {
    begun.starts_with(br#"{"method":""#)
}

/// What a line is of which only the first and the last bytes are known.
pub(crate) fn edges(edges: &[u8]) -> LargeLine {
    // The cuts may go through a letter.
    let text = String::from_utf8_lossy(edges);
    let Some(thread) = address(&text) else { return LargeLine::Needed { thread: None } };
    let named = (value(&text, "method"), value(&text, "turnId"), value(&text, "type"));
    if let (Some(RAW_ITEM), Some(turn), Some(kind)) = named {
        let found = |name| value(&text, name).map(Cow::Borrowed);
        let item = Item { kind: kind.into(), role: found("role"), call_id: found("call_id") };
        let params = Params { thread_id: thread.into(), turn_id: turn.into(), item };
        if let Some(known) = params.known(usize::MAX) {
            return known;
        }
    }
    LargeLine::Needed { thread: Some(thread.to_owned()) }
}

/// The thread that a line names before or behind everything else. In between it would be somebody's words.
fn address(text: &str) -> Option<&str> {
    let (_, params) = text.split_once(r#""params":{"#)?;
    if params.starts_with(r#""threadId":""#) {
        return value(params, "threadId");
    }
    let (_, last) = text.rsplit_once(r#""threadId":""#)?;
    last.split_once('"').map(|(thread, _)| thread)
}

/// The first text of this name. Names within texts do not count: there, quotes are escaped.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
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

    /// As a reader would keep them.
    fn ends(line: &str) -> Vec<u8> {
        let line = line.as_bytes();
        [&line[..2048], &line[line.len() - 2048..]].concat()
    }

    #[test]
    fn what_was_injected_is_nobodys() {
        for item in [message("user", 100_000), message("developer", 100_000)] {
            for turn in ["auto-compact-0", "a-name-that-is-not-known-yet"] {
                let line = raw(turn, &item);
                assert_eq!(whole(line.as_bytes()), LargeLine::Echo);
                assert_eq!(edges(&ends(&line)), LargeLine::Echo);
            }
        }
        for item in [message("assistant", 100_000), output(100_000), output(5_000_000)] {
            let line = raw("auto-compact-0", &item);
            assert_eq!(whole(line.as_bytes()), LargeLine::Echo);
            assert_eq!(edges(&ends(&line)), LargeLine::Echo);
        }
    }

    #[test]
    fn outputs_of_a_turn_are_left_out_where_they_are_too_large() {
        let line = raw("U", &output(5_000_000));
        let item = json!({"type": "function_call_output", "call_id": "c", "output": LEFT_OUT});
        let item = RawResponseItem { turn_id: "U".into(), item: item.into() };
        let expected = LargeLine::Output { thread: "T".into(), item };
        assert_eq!(whole(line.as_bytes()), expected);
        assert_eq!(edges(&ends(&line)), expected);
        assert_eq!(whole(raw("U", &output(100_000)).as_bytes()), LargeLine::Needed { thread: None });
    }

    #[test]
    fn what_the_model_says_is_needed() {
        let line = raw("U", &message("assistant", 100_000));
        assert_eq!(whole(line.as_bytes()), LargeLine::Needed { thread: None });
        assert_eq!(edges(&ends(&line)), LargeLine::Needed { thread: Some("T".into()) });
        let small = raw("U", &message("user", 10));
        assert_eq!(whole(small.as_bytes()), LargeLine::Needed { thread: None });
    }

    #[test]
    fn the_thread_is_found_at_either_end_and_never_within_the_words() {
        let words = r#"\"threadId\":\"W\","#.repeat(1000);
        let behind = format!(
            r#"{{"method":"item/completed","params":{{"item":{{"type":"x","text":"{words}é{words}"}},"threadId":"T","turnId":"U"}}}}"#
        );
        assert_eq!(edges(&ends(&behind)), LargeLine::Needed { thread: Some("T".into()) });
        // The cut may go through a letter, at either end.
        for shift in 0..3 {
            let letters = format!("{}{}", "y".repeat(shift), "é€".repeat(2000));
            let line = format!(
                r#"{{"method":"item/completed","params":{{"item":{{"text":"{letters}"}},"threadId":"T","turnId":"U"}}}}"#
            );
            assert_eq!(edges(&ends(&line)), LargeLine::Needed { thread: Some("T".into()) });
            let line = format!(
                r#"{{"method":"turn/completed","params":{{"threadId":"T","turn":{{"text":"{letters}"}}}}}}"#
            );
            assert_eq!(edges(&ends(&line)), LargeLine::Needed { thread: Some("T".into()) });
        }
        let nobodys = format!(r#"{{"method":"warning","params":{{"message":"{words}"}}}}"#);
        assert_eq!(edges(&ends(&nobodys)), LargeLine::Needed { thread: None });
        assert!(is_addressed(behind.as_bytes()) && !is_addressed(b"xxxx") && !is_addressed(b"{\"id\":1,"));
    }
}
