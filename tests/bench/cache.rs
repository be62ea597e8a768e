//! What a prompt cache could use of a request: its longest common prefix with the former request under the same key.

use serde_json::{Map, Value, json};

/// Bytes of the requests of a conversation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Bytes that equal the beginning of the former request under the same key.
    pub(crate) hit: u64,
    /// Bytes of the former requests.
    pub(crate) former: u64,
    /// Bytes of all requests.
    pub(crate) whole: u64,
}

impl Totals {
    /// Adds the bytes of a request.
    pub(crate) fn add(&mut self, other: Self) {
        self.hit += other.hit;
        self.former += other.former;
        self.whole += other.whole;
    }
}

/// The comparison of the requests of one conversation, in their order.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Key and text of the last request.
    last: Option<(Value, Vec<u8>)>,
}

/// The members of a request that precede its items in the prompt.
const SETTINGS: [&str; 5] = ["model", "instructions", "tools", "text", "reasoning"];

/// The members of an item that reach the model. Ids and metadata do not.
const MEMBERS: [&str; 11] = [
    "type",
    "role",
    "content",
    "name",
    "arguments",
    "input",
    "call_id",
    "output",
    "summary",
    "encrypted_content",
    "action",
];

impl Comparison {
    /// Compares a request with the former one. Another key hits nothing.
    pub(crate) fn push(&mut self, body: &[u8]) -> Totals {
        let Ok(request) = serde_json::from_slice::<Value>(body) else { return Totals::default() };
        let (key, text) = (request["prompt_cache_key"].clone(), prompt(&request));
        let mut totals = Totals { whole: length(text.len()), ..Totals::default() };
        if let Some((last_key, last)) = &self.last {
            totals.former = length(last.len());
            if *last_key == key {
                let common = last.iter().zip(&text).take_while(|(one, other)| one == other).count();
                totals.hit = length(common);
            }
        }
        self.last = Some((key, text));
        totals
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Returns the parts of a request in the order of a prompt.
fn prompt(request: &Value) -> Vec<u8> {
    let settings = SETTINGS.iter().map(|name| format!("{}\n", request[*name]));
    let items = request["input"].as_array().into_iter().flatten().map(|item| {
        let members = item.as_object().into_iter().flatten();
        let seen = members.filter(|(name, _)| MEMBERS.contains(&name.as_str()));
        let seen: Map<String, Value> = seen.map(|(name, value)| (name.clone(), value.clone())).collect();
        format!("{}\n", json!(seen))
    });
    settings.chain(items).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Comparison;

    fn request(key: &str, texts: &[&str]) -> Vec<u8> {
        let item = |(at, text): (usize, &&str)| json!({"type": "message", "id": format!("{key}{at}"), "content": text});
        let items: Vec<Value> = texts.iter().enumerate().map(item).collect();
        json!({"model": "m", "prompt_cache_key": key, "input": items}).to_string().into_bytes()
    }

    #[test]
    fn continued_request_hits_the_whole_former_one() {
        let mut comparison = Comparison::default();
        let first = comparison.push(&request("a", &["one"]));
        assert_eq!((first.hit, first.former), (0, 0));
        let second = comparison.push(&request("a", &["one", "two"]));
        assert_eq!((second.hit, second.former), (first.whole, first.whole));
        assert!(second.whole > first.whole);
    }

    #[test]
    fn other_key_or_other_text_hits_less() {
        let mut comparison = Comparison::default();
        comparison.push(&request("a", &["one"]));
        let other_key = comparison.push(&request("b", &["one", "two"]));
        assert_eq!(other_key.hit, 0);
        assert!(other_key.former > 0);
        let edited = comparison.push(&request("b", &["one", "three"]));
        assert!(edited.hit > 0 && edited.hit < edited.former);
    }
}
