//! Parses directives: `@@ [step, step, …] @@` in a user's text, and checks their bounds. `plan` turns steps into
//! responses.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Maximum duration of a pause.
pub(super) const MAX_MS: u64 = 600_000;
/// Maximum number of generated tokens per message.
pub(super) const MAX_TOKENS: usize = 1_000_000;
/// Delimiter of a directive.
const MARK: &str = "@@";

/// A directive with its source text, which identifies it for `times`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Directive<'a> {
    pub(super) source: &'a str,
    pub(super) steps: Vec<Step>,
}

/// The answer to one model call. `docs/scripted-upstream.md` explains each key.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Step {
    /// Ignored; distinguishes directives.
    pub(super) note: String,
    /// Text, one delta per word.
    pub(super) text: Option<String>,
    /// Number of generated words.
    pub(super) tokens: Option<usize>,
    /// Text, delta by delta.
    pub(super) pieces: Option<Vec<String>>,
    /// Several messages in one response.
    pub(super) messages: Option<Vec<Message>>,
    /// Answer with compact JSON of the request.
    pub(super) echo: bool,
    /// Answer with an instance of the request's schema.
    pub(super) schema_answer: bool,
    /// Phase of the messages: `commentary`, `final_answer`.
    pub(super) phase: Option<String>,
    /// Pause after each delta of text and reasoning.
    pub(super) delay_ms: u64,
    /// Reasoning summary, before the messages.
    pub(super) reasoning: Option<String>,
    /// Raw reasoning.
    pub(super) raw_reasoning: Option<String>,
    /// Query of a web search, before the messages.
    pub(super) search: Option<String>,
    /// Tool calls, after the messages.
    pub(super) calls: Vec<Call>,
    /// Pause after each delta of the arguments of calls, which are then short.
    pub(super) arguments_delay_ms: u64,
    /// Reported tokens instead of counted ones.
    pub(super) usage: Usage,
    /// An HTTP response with this status instead of a stream.
    pub(super) status: Option<u16>,
    /// Body of that response. A string is sent unchanged, other values as JSON.
    pub(super) body: Option<Value>,
    /// Headers of the response, also of streams.
    pub(super) headers: BTreeMap<String, String>,
    /// Pause before the headers.
    pub(super) hang_before_ms: u64,
    /// Pause after `response.created`.
    pub(super) hang_after_ms: u64,
    /// Close the socket after this number of text deltas.
    pub(super) cut_after: Option<usize>,
    /// Close the socket after this number of events of any kind.
    pub(super) cut_after_events: Option<usize>,
    /// What a WebSocket gets instead of the cut, or instead of the whole response if there is no cut.
    pub(super) ws: Option<Ending>,
    /// Rate limits of the account.
    pub(super) rate_limits: Option<RateLimits>,
    /// End the stream without an end event.
    pub(super) eof: bool,
    /// End with `response.failed`.
    pub(super) failed: Option<Failed>,
    /// End with `response.incomplete`.
    pub(super) incomplete: Option<Incomplete>,
    /// Number of uses of this directive that get this step.
    pub(super) times: Option<u64>,
    /// The step of later uses.
    pub(super) then: Option<Box<Step>>,
}

/// One of several messages of a response.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Message {
    pub(super) text: Option<String>,
    pub(super) tokens: Option<usize>,
    pub(super) pieces: Option<Vec<String>>,
    pub(super) phase: Option<String>,
    pub(super) delay_ms: Option<u64>,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) name: String,
    /// Replaces the generated id, which contains the step.
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    /// An object, or a string that is sent unchanged.
    #[serde(default)]
    pub(super) arguments: Option<Value>,
    /// Input of a free-form tool instead of arguments.
    #[serde(default)]
    pub(super) custom: Option<String>,
}

/// Reported tokens instead of counted ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Usage {
    pub(super) input: Option<u64>,
    pub(super) cached: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) reasoning: Option<u64>,
}

/// The error of `response.failed`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failed {
    pub(super) code: String,
    pub(super) message: String,
}

/// An early end of a response over a WebSocket.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    /// A close frame with this code.
    Close(u16),
    /// A TCP reset, if `true`; otherwise the end of the TCP connection without a close frame.
    Reset(bool),
    /// A text frame that is sent unchanged. The connection stays open.
    Frame(Map<String, Value>),
}

/// The rate limits of the account, as headers over HTTP and as an event over a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimits {
    pub(super) primary: RateLimit,
    #[serde(default)]
    pub(super) secondary: Option<RateLimit>,
}

/// One window of the rate limits.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimit {
    pub(super) used_percent: f64,
    pub(super) window_minutes: u64,
    /// Seconds since 1970.
    pub(super) reset_at: u64,
}

impl RateLimits {
    fn windows(&self) -> impl Iterator<Item = (&'static str, RateLimit)> {
        let secondary = self.secondary.map(|window| ("secondary", window));
        [("primary", self.primary)].into_iter().chain(secondary)
    }

    /// Returns the headers of an HTTP response, and of an error frame.
    pub(super) fn headers(&self) -> impl Iterator<Item = (String, String)> {
        self.windows().flat_map(|(window, limit)| {
            let name = |field: &str| format!("x-codex-{window}-{field}");
            [
                (name("used-percent"), limit.used_percent.to_string()),
                (name("window-minutes"), limit.window_minutes.to_string()),
                (name("reset-at"), limit.reset_at.to_string()),
            ]
        })
    }

    /// Returns the event of a WebSocket.
    pub(super) fn event(&self) -> Value {
        let full = self.windows().any(|(_, limit)| limit.used_percent >= 100.0);
        let mut limits = json!({"allowed": !full, "limit_reached": full});
        for (window, RateLimit { used_percent, window_minutes, reset_at }) in self.windows() {
            limits[window] =
                json!({"used_percent": used_percent, "window_minutes": window_minutes, "reset_at": reset_at});
        }
        json!({"type": "codex.rate_limits", "plan_type": "pro", "rate_limits": limits})
    }
}

/// The reason of an incomplete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Incomplete {
    MaxOutputTokens,
    ContentFilter,
}

impl Incomplete {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::MaxOutputTokens => "max_output_tokens",
            Self::ContentFilter => "content_filter",
        }
    }
}

impl<'a> Directive<'a> {
    /// Returns the last directive of a text, or an error with the place of its mistake.
    ///
    /// Marks before a character other than `[` or `{` are no directive, because a text may contain a diff.
    pub(super) fn find(text: &'a str) -> Result<Option<Self>, String> {
        let mut last = Ok(None);
        let mut rest = text;
        while let Some((_, inner)) = rest.split_once(MARK) {
            let inner = inner.trim_start();
            if inner.starts_with(['[', '{']) {
                match Self::read(inner) {
                    Ok((directive, after)) => {
                        last = Ok(Some(directive));
                        rest = after;
                    }
                    Err(error) => {
                        last = Err(error);
                        // The end mark of this directive must not count as a start mark.
                        rest = inner.split_once(MARK).map_or("", |(_, after)| after);
                    }
                }
            } else {
                // The head of a diff hunk has two marks on one line, and its tail may be `[section]`.
                let line = inner.lines().next().unwrap_or_default();
                rest = line.find(MARK).map_or(inner, |at| &inner[at + MARK.len()..]);
            }
        }
        last
    }

    /// Parses a directive after its opening mark. Also returns the text after its closing mark.
    fn read(inner: &'a str) -> Result<(Self, &'a str), String> {
        let mut values = serde_json::Deserializer::from_str(inner).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => return Err(format!("the directive is not JSON: {error}")),
            None => return Err("the directive is empty".to_owned()),
        };
        let (source, after) = inner.split_at(values.byte_offset());
        let Some(after) = after.trim_start().strip_prefix(MARK) else {
            return Err("the directive does not end with @@ after its JSON value".to_owned());
        };
        let value = if value.is_array() { value } else { Value::Array(vec![value]) };
        let steps: Vec<Step> = serde_path_to_error::deserialize(value)
            .map_err(|error| format!("the directive has a mistake at {}: {}", error.path(), error.inner()))?;
        if steps.is_empty() {
            return Err("the directive has no step".to_owned());
        }
        for (i, step) in steps.iter().enumerate() {
            step.check().map_err(|error| format!("step {i} of the directive: {error}"))?;
        }
        Ok((Self { source, steps }, after))
    }
}

impl Step {
    /// Returns the step of the `count`th use of this step.
    pub(super) fn for_use(&self, count: u64) -> Self {
        let mut step = self;
        let mut left = count;
        while let Some(times) = step.times {
            if left <= times {
                break;
            }
            left -= times;
            match &step.then {
                Some(then) => step = then,
                None => return Self { text: Some("recovered".to_owned()), ..Self::default() },
            }
        }
        step.clone()
    }

    fn check(&self) -> Result<(), String> {
        let Self { text, tokens, pieces, messages, echo, schema_answer, .. } = self;
        let sources =
            [text.is_some(), tokens.is_some(), pieces.is_some(), messages.is_some(), *echo, *schema_answer];
        if sources.iter().filter(|given| **given).count() > 1 {
            return Err("give one of text, tokens, pieces, messages, echo, schema_answer".to_owned());
        }
        let messages = messages.as_deref().unwrap_or_default();
        for message in messages {
            message.check()?;
        }
        let all =
            tokens.unwrap_or(0) as u64 + messages.iter().map(|m| m.tokens.unwrap_or(0) as u64).sum::<u64>();
        if all > MAX_TOKENS as u64 {
            return Err(format!("at most {MAX_TOKENS} tokens"));
        }
        for (name, ms) in [
            ("delay_ms", self.delay_ms),
            ("hang_before_ms", self.hang_before_ms),
            ("hang_after_ms", self.hang_after_ms),
            ("arguments_delay_ms", self.arguments_delay_ms),
        ] {
            at_most_max_ms(name, ms)?;
        }
        for call in &self.calls {
            call.check()?;
        }
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err("status must be between 200 and 599".to_owned());
        }
        if self.cut_after.is_some() && self.cut_after_events.is_some() {
            return Err("give one of cut_after, cut_after_events".to_owned());
        }
        if matches!(self.ws, Some(Ending::Close(code)) if !(1000..=4999).contains(&code)) {
            return Err("ws.close must be between 1000 and 4999".to_owned());
        }
        if self.body.is_some() && self.status.is_none() {
            return Err("body needs status".to_owned());
        }
        for (name, value) in &self.headers {
            if http::HeaderName::try_from(name).is_err() || http::HeaderValue::try_from(value).is_err() {
                return Err(format!("the header {name:?} cannot be sent"));
            }
        }
        match (&self.then, self.times) {
            (Some(_), None) => Err("then needs times".to_owned()),
            (Some(then), Some(_)) => then.check().map_err(|error| format!("then: {error}")),
            (None, _) => Ok(()),
        }
    }
}

impl Message {
    fn check(&self) -> Result<(), String> {
        let sources = [self.text.is_some(), self.tokens.is_some(), self.pieces.is_some()];
        if sources.iter().filter(|given| **given).count() != 1 {
            return Err("a message has exactly one of text, tokens, pieces".to_owned());
        }
        at_most_max_ms("delay_ms", self.delay_ms.unwrap_or(0))
    }
}

impl Call {
    fn check(&self) -> Result<(), String> {
        match (&self.arguments, &self.custom) {
            (Some(_), Some(_)) => Err("a call has arguments or custom, not both".to_owned()),
            (None | Some(Value::Object(_) | Value::String(_)), _) => Ok(()),
            (Some(_), None) => Err("arguments is an object, or a string that is sent unchanged".to_owned()),
        }
    }

    /// Returns the arguments as they are sent.
    pub(super) fn arguments(&self) -> String {
        match &self.arguments {
            None => "{}".to_owned(),
            Some(Value::String(raw)) => raw.clone(),
            Some(value) => value.to_string(),
        }
    }
}

fn at_most_max_ms(name: &str, ms: u64) -> Result<(), String> {
    if ms > MAX_MS { Err(format!("{name} is at most {MAX_MS}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Step> {
        Directive::find(text).expect("well formed").expect("a directive").steps
    }

    fn texts(text: &str) -> Vec<String> {
        steps(text).into_iter().map(|step| step.text.unwrap_or_default()).collect()
    }

    fn mistake(text: &str) -> String {
        Directive::find(text).expect_err("malformed")
    }

    #[test]
    fn find_array_or_object_returns_the_steps() {
        assert_eq!(texts(r#"go @@ [{"text":"a"},{"text":"b"}] @@ now"#), ["a", "b"]);
        assert_eq!(texts(r#"@@{"text":"with @@ and \n inside"}@@"#), ["with @@ and \n inside"]);
        assert_eq!(texts("@@\n[\n{\"text\":\n\"a\"}\n]\n@@"), ["a"]);
        assert_eq!(Directive::find("no directive"), Ok(None));
        let found = Directive::find(r#"x @@ [{"text":"a"}] @@"#).expect("good").expect("found");
        assert_eq!(found.source, r#"[{"text":"a"}]"#);
    }

    #[test]
    fn find_with_several_directives_returns_the_last() {
        assert_eq!(texts(r#"@@ {"text":"a"} @@ [x] @@ {"text":"b"} @@"#), ["b"]);
        assert_eq!(texts(r#"@@ [oops] @@ then @@ {"text":"b"} @@"#), ["b"]);
        assert!(mistake(r#"@@ {"text":"b"} @@ then @@ [oops] @@"#).contains("not JSON"));
    }

    #[test]
    fn find_in_a_diff_returns_none() {
        let diff = "@@ -1,3 +1,4 @@ [dependencies]\n-a\n+b\n@@ -9 +10 @@ {\n c";
        assert_eq!(Directive::find(diff), Ok(None));
        assert_eq!(texts(&format!("{diff}\n@@ {{\"text\":\"a\"}} @@")), ["a"]);
    }

    #[test]
    fn find_with_a_mistake_names_it() {
        for (text, part) in [
            ("@@ [] @@", "no step"),
            (r#"@@ [{"text":"a"}]"#, "does not end"),
            (r#"@@ [{"txt":"a"}] @@"#, "unknown field `txt`"),
            (r#"@@ [{},{"calls":[{}]}] @@"#, "at [1].calls[0]: missing field `name`"),
            (r#"@@ [{"text":"a","tokens":3}] @@"#, "give one of"),
            (r#"@@ [{"tokens":1000001}] @@"#, "at most 1000000 tokens"),
            (r#"@@ [{"messages":[{"tokens":600000},{"tokens":600000}]}] @@"#, "at most 1000000 tokens"),
            (r#"@@ [{"messages":[{}]}] @@"#, "exactly one of"),
            (r#"@@ [{"hang_before_ms":600001}] @@"#, "hang_before_ms is at most"),
            (r#"@@ [{"status":42}] @@"#, "between 200 and 599"),
            (r#"@@ [{"body":{}}] @@"#, "body needs status"),
            (r#"@@ [{"arguments_delay_ms":600001}] @@"#, "arguments_delay_ms is at most"),
            (r#"@@ [{"cut_after":1,"cut_after_events":1}] @@"#, "give one of cut_after"),
            (r#"@@ [{"ws":{"close":7}}] @@"#, "between 1000 and 4999"),
            (r#"@@ [{"ws":{"stop":1}}] @@"#, "unknown variant `stop`"),
            (r#"@@ [{"rate_limits":{}}] @@"#, "missing field `primary`"),
            (r#"@@ [{"headers":{"a b":"c"}}] @@"#, "cannot be sent"),
            (r#"@@ [{"incomplete":"why"}] @@"#, "unknown variant"),
            (r#"@@ [{"then":{}}] @@"#, "then needs times"),
            (r#"@@ [{"times":1,"then":{"status":1}}] @@"#, "then: status"),
            (r#"@@ [{"calls":[{"name":"f","arguments":3}]}] @@"#, "arguments is an object"),
            (r#"@@ [{"calls":[{"name":"f","arguments":{},"custom":""}]}] @@"#, "not both"),
        ] {
            let error = mistake(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn for_use_beyond_times_returns_then() {
        let step = &steps(r#"@@ {"status":500,"times":2,"then":{"status":429,"times":1}} @@"#)[0];
        let status = |count| (step.for_use(count).status, step.for_use(count).text);
        assert_eq!(status(1), (Some(500), None));
        assert_eq!(status(2), (Some(500), None));
        assert_eq!(status(3), (Some(429), None));
        assert_eq!(status(4), (None, Some("recovered".to_owned())));
    }

    #[test]
    fn arguments_as_object_or_string_are_sent() {
        let step = &steps(
            r#"@@ {"calls":[{"name":"f","arguments":{"a":1}},{"name":"f","arguments":"{bad"},{"name":"f"}]} @@"#,
        )[0];
        let sent: Vec<_> = step.calls.iter().map(Call::arguments).collect();
        assert_eq!(sent, [r#"{"a":1}"#, "{bad", "{}"]);
    }

    #[test]
    fn guide_lists_every_key_and_its_examples_parse() {
        let guide = include_str!("../../docs/scripted-upstream.md");
        let keys = mistake(r#"@@ {"?":0} @@"#);
        let keys = keys.split_once("expected one of ").expect("a list of keys").1;
        for key in keys.split(", ") {
            assert!(guide.contains(key), "{key} is not explained");
        }
        let examples = guide.split("`@@ ").skip(1).filter_map(|rest| rest.split_once(" @@`"));
        let read = examples.map(|(json, _)| steps(&format!("@@ {json} @@")).len()).collect::<Vec<_>>();
        assert!(read.len() > 5 && read.contains(&2), "{read:?}");
    }
}
