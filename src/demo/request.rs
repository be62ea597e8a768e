//! What Codex asks for: the parts of a Responses request that decide an answer. Reads JSON leniently, since
//! it must also understand later CLIs; does not read directives.

use serde_json::{Value, json};

/// A request as far as the script cares.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    /// The model's name.
    pub(super) model: String,
    /// The person's last words.
    pub(super) user: String,
    /// Rounds of tool calls since then: 0 for the first model call of a turn.
    pub(super) round: usize,
    /// Whether thoughts are to be summarized: a model tells none that nobody asks for.
    pub(super) summary: bool,
    /// The schema that the answer must follow.
    pub(super) schema: Option<Value>,
    /// Characters of text in the request.
    pub(super) chars: u64,
    /// What `echo` answers.
    pub(super) echo: Value,
}

impl Seen {
    /// Reads a request's body.
    pub(super) fn of(body: &Value) -> Self {
        let items = match &body["input"] {
            Value::String(text) => vec![json!({"type": "message", "role": "user", "content": text})],
            Value::Array(items) => items.clone(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
        };
        let (user, after) = last_words(&items);
        let round = items[after..].iter().filter_map(round_of).max().map_or(0, |round| round + 1);
        let format = &body["text"]["format"];
        let schema = (format["type"] == "json_schema").then(|| format["schema"].clone());
        // Some models get their tools as an item of the input.
        let lists = std::iter::once(&body["tools"]).chain(items.iter().map(|item| &item["tools"]));
        let tools = lists.filter_map(Value::as_array).flatten();
        let tools =
            tools.map(|t| if t["name"].is_null() { &t["type"] } else { &t["name"] }).collect::<Vec<_>>();
        let echo = json!({
            "model": body["model"],
            "effort": body["reasoning"]["effort"],
            "summary": body["reasoning"]["summary"],
            "verbosity": body["text"]["verbosity"],
            "format": format,
            "instructions": body["instructions"].as_str().is_some_and(|text| !text.is_empty()),
            "tools": tools,
            "input_items": items.len(),
            "items": items.iter().map(kind).collect::<Vec<_>>(),
            "images": items.iter().map(images).sum::<usize>(),
            "user": user,
            "round": round,
        });
        Self {
            model: body["model"].as_str().unwrap_or("demo").to_owned(),
            user,
            round,
            summary: body["reasoning"]["summary"].as_str().is_some_and(|word| word != "none"),
            schema,
            chars: chars(&body["input"]) + body["instructions"].as_str().map_or(0, count),
            echo,
        }
    }
}

/// The person's last words, and the index of the item after them.
fn last_words(items: &[Value]) -> (String, usize) {
    let users = || items.iter().enumerate().rev().filter(|(_, item)| item["role"] == "user");
    let own = users().find_map(|(i, item)| {
        let text = texts(item).into_iter().filter(|text| is_own(text)).collect::<Vec<_>>().join("\n");
        (!text.is_empty()).then_some((text, i + 1))
    });
    // Somebody who writes markup and nothing else is still heard.
    let any = || users().next().map(|(i, item)| (texts(item).join("\n"), i + 1));
    own.or_else(any).map_or((String::new(), items.len()), |(text, after)| (last_user_turn(&text), after))
}

/// Codex adds texts of its own in the user's name; they are tagged: `<environment_context>`, `<image …>`.
fn is_own(text: &str) -> bool {
    !text.starts_with('<') || text.contains("@@")
}

/// The last `USER: ` paragraph of a conversation flattened into one text, or the whole text if it is none.
fn last_user_turn(text: &str) -> String {
    const LABEL: &str = "USER: ";
    match text.rfind(&format!("\n{LABEL}")) {
        Some(at) => text[at + 1 + LABEL.len()..].to_owned(),
        None => text.strip_prefix(LABEL).unwrap_or(text).to_owned(),
    }
}

/// The round that a call or its output belongs to; our call ids tell it: `call_s{round}_{number}_{index}`.
fn round_of(item: &Value) -> Option<usize> {
    item["call_id"].as_str()?.strip_prefix("call_s")?.split_once('_')?.0.parse().ok()
}

fn texts(item: &Value) -> Vec<&str> {
    match &item["content"] {
        Value::String(text) => vec![text],
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

fn kind(item: &Value) -> &Value {
    if item["role"].is_null() { &item["type"] } else { &item["role"] }
}

fn images(item: &Value) -> usize {
    [&item["content"], &item["output"]]
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .filter(|part| part["type"] == "input_image")
        .count()
}

/// Characters of what a model would read; ids, kinds and pictures do not count.
fn chars(value: &Value) -> u64 {
    const READ: &[&str] = &["text", "output", "arguments", "input", "content", "summary"];
    match value {
        Value::String(text) => count(text),
        Value::Array(items) => items.iter().map(chars).sum(),
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| READ.contains(&key.as_str())).map(|(_, value)| chars(value)).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn count(text: &str) -> u64 {
    text.chars().count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Value {
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
    }

    fn seen(items: &[Value]) -> Seen {
        Seen::of(&json!({"model": "m", "input": items}))
    }

    #[test]
    fn texts_that_codex_adds_are_not_the_persons() {
        let items = [user("real"), user("<environment_context>cwd</environment_context>")];
        assert_eq!(seen(&items).user, "real");
        let images = json!({"role": "user", "content": [
            {"type": "input_text", "text": "<image name=[Image #1] path=\"/x\">"},
            {"type": "input_image", "image_url": "data:,"},
            {"type": "input_text", "text": "</image>"},
            {"type": "input_text", "text": "what is it?"},
        ]});
        let seen_images = seen(&[images]);
        assert_eq!((seen_images.user.as_str(), &seen_images.echo["images"]), ("what is it?", &json!(1)));
        assert_eq!(seen(&[user("<b>only markup</b>")]).user, "<b>only markup</b>");
        assert_eq!(seen(&[user("old"), user("<b> @@ [] @@")]).user, "<b> @@ [] @@");
        assert_eq!(seen(&[]).user, "");
        assert_eq!(Seen::of(&json!({"input": "plain"})).user, "plain");
    }

    #[test]
    fn only_the_last_user_paragraph_of_a_flattened_conversation_counts() {
        let flat = "SYSTEM: be brief\n\nUSER: first @@ [] @@\n\nASSISTANT: ok\n\nUSER: second\nline";
        assert_eq!(seen(&[user(flat)]).user, "second\nline");
        assert_eq!(seen(&[user("USER: one")]).user, "one");
        assert_eq!(seen(&[user("the word USER: inside")]).user, "the word USER: inside");
    }

    #[test]
    fn rounds_are_counted_after_the_last_words() {
        let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"});
        let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "x"});
        let mut items = vec![user("a"), call("call_s0_1_0"), output("call_s0_1_0")];
        assert_eq!(seen(&items).round, 1);
        items.extend([call("call_s1_2_0"), output("call_s1_2_0"), output("exec-other")]);
        assert_eq!(seen(&items).round, 2);
        items.push(user("b"));
        assert_eq!(seen(&items).round, 0);
    }

    #[test]
    fn usage_counts_what_is_read() {
        assert_eq!(seen(&[user("12345678")]).chars, 8);
        let image = json!({"role": "user", "content": [{"type": "input_image", "image_url": "data:1234"}]});
        assert_eq!(seen(&[image]).chars, 0);
        assert_eq!(Seen::of(&json!({"instructions": "1234", "input": "äöü"})).chars, 7);
    }

    #[test]
    fn tools_are_found_in_both_places() {
        let body = json!({
            "input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "namespace", "name": "n"}]}],
            "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
        });
        assert_eq!(Seen::of(&body).echo["tools"], json!(["f", "web_search", "n"]));
    }
}
