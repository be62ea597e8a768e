//! Parses the parts of a Responses request that determine its answer. Tolerates unknown and missing fields, because
//! later versions of the CLI must work too.

use serde_json::{Value, json};

/// The parsed request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ParsedRequest {
    /// Name of the model.
    pub(super) model: String,
    /// Text of the last user message.
    pub(super) user: String,
    /// Rounds of tool calls since then: 0 for the first model call of a turn.
    pub(super) round: usize,
    /// Whether the request asks OpenAI to compact the conversation.
    pub(super) compacts: bool,
    /// Whether the request selects reasoning summaries.
    pub(super) summary: bool,
    /// The schema of the answer.
    pub(super) schema: Option<Value>,
    /// Characters of text in the request.
    pub(super) chars: u64,
    /// The answer of `echo`.
    pub(super) echo: Value,
}

impl ParsedRequest {
    /// Parses the body of a request.
    pub(super) fn parse(body: &Value) -> Self {
        let items = items(&body["input"]);
        let (user, after) = last_user_message(&items);
        let round = items[after..].iter().filter_map(round_of).max().map_or(0, |round| round + 1);
        let format = &body["text"]["format"];
        let schema = (format["type"] == "json_schema").then(|| format["schema"].clone());
        // Some models get their tools in an item of the input.
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
            compacts: items.last().is_some_and(|item| item["type"] == "compaction_trigger"),
            summary: body["reasoning"]["summary"].as_str().is_some_and(|word| word != "none"),
            schema,
            chars: chars(&body["input"]) + body["instructions"].as_str().map_or(0, count),
            echo,
        }
    }
}

/// Returns the items of an `input`.
pub(super) fn items(input: &Value) -> Vec<Value> {
    match input {
        Value::String(text) => vec![json!({"type": "message", "role": "user", "content": text})],
        Value::Array(items) => items.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// Returns the text of the last user message and the index of the item after it.
fn last_user_message(items: &[Value]) -> (String, usize) {
    let users = || items.iter().enumerate().rev().filter(|(_, item)| item["role"] == "user");
    let from_user = users().find_map(|(i, item)| {
        let text = texts(item).into_iter().filter(|text| is_from_user(text)).collect::<Vec<_>>().join("\n");
        (!text.is_empty()).then_some((text, i + 1))
    });
    // A user message that consists only of markup counts as well.
    let any = || users().next().map(|(i, item)| (texts(item).join("\n"), i + 1));
    from_user
        .or_else(any)
        .map_or((String::new(), items.len()), |(text, after)| (last_user_turn(&text), after))
}

/// Returns `false` for texts that Codex adds as the user; they are tagged: `<environment_context>`, `<image …>`.
fn is_from_user(text: &str) -> bool {
    !text.starts_with('<') || text.contains("@@")
}

/// Returns the last `USER: ` paragraph of a flattened conversation, or the whole text if there is none.
fn last_user_turn(text: &str) -> String {
    const LABEL: &str = "USER: ";
    match text.rfind(&format!("\n{LABEL}")) {
        Some(at) => text[at + 1 + LABEL.len()..].to_owned(),
        None => text.strip_prefix(LABEL).unwrap_or(text).to_owned(),
    }
}

/// Returns the round of a call or its output, from the id of the call: `call_s{round}_{number}_{index}`.
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

/// Counts the characters that a model would read, without ids, kinds and images.
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

    fn parse(items: &[Value]) -> ParsedRequest {
        ParsedRequest::parse(&json!({"model": "m", "input": items}))
    }

    #[test]
    fn user_text_excludes_texts_of_codex() {
        let items = [user("real"), user("<environment_context>cwd</environment_context>")];
        assert_eq!(parse(&items).user, "real");
        let images = json!({"role": "user", "content": [
            {"type": "input_text", "text": "<image name=[Image #1] path=\"/x\">"},
            {"type": "input_image", "image_url": "data:,"},
            {"type": "input_text", "text": "</image>"},
            {"type": "input_text", "text": "what is it?"},
        ]});
        let parsed = parse(&[images]);
        assert_eq!((parsed.user.as_str(), &parsed.echo["images"]), ("what is it?", &json!(1)));
        assert_eq!(parse(&[user("<b>only markup</b>")]).user, "<b>only markup</b>");
        assert_eq!(parse(&[user("old"), user("<b> @@ [] @@")]).user, "<b> @@ [] @@");
        assert_eq!(parse(&[]).user, "");
        assert_eq!(ParsedRequest::parse(&json!({"input": "plain"})).user, "plain");
    }

    #[test]
    fn user_text_of_a_flattened_conversation_is_the_last_paragraph() {
        let flat = "SYSTEM: be brief\n\nUSER: first @@ [] @@\n\nASSISTANT: ok\n\nUSER: second\nline";
        assert_eq!(parse(&[user(flat)]).user, "second\nline");
        assert_eq!(parse(&[user("USER: one")]).user, "one");
        assert_eq!(parse(&[user("the word USER: inside")]).user, "the word USER: inside");
    }

    #[test]
    fn round_counts_calls_after_the_last_user_message() {
        let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"});
        let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "x"});
        let mut items = vec![user("a"), call("call_s0_1_0"), output("call_s0_1_0")];
        assert_eq!(parse(&items).round, 1);
        items.extend([call("call_s1_2_0"), output("call_s1_2_0"), output("exec-other")]);
        assert_eq!(parse(&items).round, 2);
        items.push(user("b"));
        assert_eq!(parse(&items).round, 0);
    }

    #[test]
    fn chars_count_only_text() {
        assert_eq!(parse(&[user("12345678")]).chars, 8);
        let image = json!({"role": "user", "content": [{"type": "input_image", "image_url": "data:1234"}]});
        assert_eq!(parse(&[image]).chars, 0);
        assert_eq!(ParsedRequest::parse(&json!({"instructions": "1234", "input": "äöü"})).chars, 7);
    }

    #[test]
    fn echo_lists_tools_of_request_and_items() {
        let body = json!({
            "input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "namespace", "name": "n"}]}],
            "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
        });
        assert_eq!(ParsedRequest::parse(&body).echo["tools"], json!(["f", "web_search", "n"]));
    }
}
