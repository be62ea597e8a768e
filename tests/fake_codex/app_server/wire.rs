//! The lines of the protocol, buffered for shared writes. Like the real app-server, without a `jsonrpc` member.

use std::{
    collections::HashSet,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{check::Refusal, version::Release};

/// The output buffer.
#[derive(Debug)]
pub(crate) struct Out {
    /// The bytes of complete lines.
    pub(crate) bytes: Vec<u8>,
    /// The methods that the client has opted out of.
    unwanted: HashSet<String>,
    release: Release,
}

/// Token counts of one response of the model, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) cache_write: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

impl Out {
    /// Creates an empty buffer.
    pub(crate) fn new(release: Release) -> Self {
        Self { bytes: Vec::new(), unwanted: HashSet::new(), release }
    }

    /// Suppresses notifications with these methods.
    pub(crate) fn opt_out(&mut self, methods: &Value) {
        self.unwanted
            .extend(methods.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    }

    /// Returns whether the client receives notifications with a method.
    pub(crate) fn is_wanted(&self, method: &str) -> bool {
        !self.unwanted.contains(method)
    }

    /// Writes a notification.
    pub(crate) fn notify(&mut self, method: &str, params: &Value) {
        if self.is_wanted(method) {
            self.text(&format!(r#"{{"method":"{method}","params":{params}"#));
            self.end_notification();
        }
    }

    /// Writes a raw item with its members in the order of the real app-server, so that the head of a large line identifies
    /// the item.
    pub(crate) fn raw_item(&mut self, thread: &str, turn: &str, item: &Value) {
        const METHOD: &str = "rawResponseItem/completed";
        if !self.is_wanted(METHOD) {
            return;
        }
        let first = ["type", "id", "call_id", "role", "name"];
        let members = item.as_object().into_iter().flatten();
        let (mut head, rest): (Vec<_>, Vec<_>) =
            members.partition(|(name, _)| first.contains(&name.as_str()));
        head.sort_by_key(|(name, _)| first.iter().position(|known| known == name));
        let members: Vec<String> =
            head.into_iter().chain(rest).map(|(name, value)| format!("{}:{value}", json!(name))).collect();
        self.text(&format!(
            r#"{{"method":"{METHOD}","params":{{"threadId":"{thread}","turnId":"{turn}","item":{{{}}}}}"#,
            members.join(",")
        ));
        self.end_notification();
    }

    /// Writes a delta without building JSON. `head` is the line before the text; the text is already escaped.
    pub(crate) fn delta(&mut self, head: &[u8], text: &str) {
        self.bytes.extend_from_slice(head);
        self.text(text);
        self.text(r#""}"#);
        self.end_notification();
    }

    /// Writes a request to the client.
    pub(crate) fn request(&mut self, id: u64, method: &str, params: &Value) {
        self.text(&format!("{{\"method\":\"{method}\",\"id\":{id},\"params\":{params}}}\n"));
    }

    /// Writes the response to a request of the client.
    pub(crate) fn answer(&mut self, id: &Value, answer: Result<Value, Refusal>) {
        let line = match answer {
            Ok(result) => json!({"id": id, "result": result}),
            Err(Refusal { code, message, data }) => {
                let mut error = json!({"code": code, "message": message});
                if let Some(data) = data {
                    error["data"] = data;
                }
                json!({"error": error, "id": id})
            }
        };
        self.text(&format!("{line}\n"));
    }

    fn end_notification(&mut self) {
        if self.release < Release::V169 {
            return self.text("}\n");
        }
        // Writing to memory does not fail.
        let _ = writeln!(self.bytes, ",\"emittedAtMs\":{}}}", unix_ms());
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }
}

impl Usage {
    /// Creates usage with the counts of input, cached input and output.
    pub(crate) const fn new(input: u64, cached: u64, output: u64) -> Self {
        Self { input, cached, cache_write: 0, output, reasoning: 0 }
    }

    /// Returns the sum of two usages.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            input: self.input + other.input,
            cached: self.cached + other.cached,
            cache_write: self.cache_write + other.cache_write,
            output: self.output + other.output,
            reasoning: self.reasoning + other.reasoning,
        }
    }

    /// Returns the token usage of notifications.
    pub(crate) fn token_usage(self, release: Release) -> Value {
        let mut usage = json!({
            "totalTokens": self.input + self.output, "inputTokens": self.input, "cachedInputTokens": self.cached,
            "outputTokens": self.output, "reasoningOutputTokens": self.reasoning,
        });
        if release >= Release::V169 {
            usage["cacheWriteInputTokens"] = json!(self.cache_write);
        }
        usage
    }

    /// Returns the usage in the format of the upstream.
    pub(crate) fn metadata(self) -> Value {
        json!({"amount": null, "metadata": {
            "input_tokens": self.input, "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.output, "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        }})
    }
}

/// Returns the microseconds since 1970.
pub(crate) fn unix_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros())
}

/// Returns the milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(unix_us() / 1000).unwrap_or(u64::MAX)
}

/// Returns a new id in the format of the upstream.
pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Out, Refusal, Release, Usage};

    fn lines(out: &Out) -> Vec<Value> {
        out.bytes.split_inclusive(|b| *b == b'\n').map(|l| serde_json::from_slice(l).expect("JSON")).collect()
    }

    #[test]
    fn lines_are_json_without_opted_out_notifications() {
        let mut out = Out::new(Release::V169);
        out.opt_out(&json!(["turn/started", 5]));
        out.notify("turn/started", &json!({}));
        out.notify("turn/completed", &json!({"a": "\n"}));
        out.delta(br#"{"method":"m","params":{"delta":""#, "t=1;");
        out.request(0, "item/tool/call", &json!({}));
        out.answer(&json!("x"), Err(Refusal::overloaded()));
        let lines = lines(&out);
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["params"]["a"], "\n");
        assert_eq!(lines[1]["params"]["delta"], "t=1;");
        assert!(lines[1]["emittedAtMs"].is_u64());
        assert_eq!(lines[2]["id"], 0);
        assert_eq!(lines[3]["error"]["code"], -32001);
    }

    #[test]
    fn usage_has_the_form_of_the_release() {
        let usage = Usage::new(10, 4, 2).plus(Usage { cache_write: 1, reasoning: 1, ..Usage::default() });
        assert_eq!(usage.token_usage(Release::V169)["cacheWriteInputTokens"], 1);
        assert_eq!(usage.token_usage(Release::V169)["totalTokens"], 12);
        assert!(usage.token_usage(Release::V140).get("cacheWriteInputTokens").is_none());
    }
}
