//! The items of a thread: their validation, and the items that reach the model.

use serde_json::{Value, json};

/// Returns the reason to refuse items, with the text of the real CLI.
pub(crate) fn check(items: &[Value]) -> Result<(), String> {
    if items.is_empty() {
        return Err("items must not be empty".to_owned());
    }
    for (at, item) in items.iter().enumerate() {
        check_one(item).map_err(|why| format!("items[{at}] is not a valid response item: {why}"))?;
    }
    if items.iter().any(holds_remote_image) {
        return Err("remote image URLs are not supported; use an inline data URL instead".to_owned());
    }
    Ok(())
}

fn check_one(item: &Value) -> Result<(), String> {
    let Value::Object(members) = item else {
        return Err(format!(
            "invalid type: {}, expected internally tagged enum ResponseItem",
            serde_name(item)
        ));
    };
    let need = |names: &[&str]| match names.iter().find(|name| !members.contains_key(**name)) {
        Some(name) => Err(format!("missing field `{name}`")),
        None => Ok(()),
    };
    need(&["type"])?;
    match item["type"].as_str().unwrap_or_default() {
        "message" => {
            need(&["role", "content"])?;
            let Value::Array(parts) = &item["content"] else {
                return Err(format!("invalid type: {}, expected a sequence", serde_name(&item["content"])));
            };
            parts.iter().try_for_each(check_part)
        }
        "reasoning" => need(&["summary"]),
        "function_call" => need(&["name", "arguments", "call_id"]),
        "function_call_output" | "custom_tool_call_output" => need(&["call_id", "output"]),
        "custom_tool_call" => need(&["call_id", "name", "input"]),
        _ => Ok(()),
    }
}

fn check_part(part: &Value) -> Result<(), String> {
    match part["type"].as_str() {
        Some("input_text" | "input_image" | "input_audio" | "output_text") => Ok(()),
        Some(other) => Err(format!(
            "unknown variant `{other}`, expected one of `input_text`, `input_image`, `input_audio`, `output_text`"
        )),
        None => Err("missing field `type`".to_owned()),
    }
}

fn holds_remote_image(item: &Value) -> bool {
    let parts = item["content"].as_array().or_else(|| item["output"].as_array());
    parts.into_iter().flatten().any(|part| {
        part["type"] == "input_image" && part["image_url"].as_str().is_some_and(|url| url.starts_with("http"))
    })
}

/// Returns the name of a value in the errors of serde.
pub(crate) fn serde_name(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("boolean `{b}`"),
        Value::Number(n) if n.is_f64() => format!("floating point `{n}`"),
        Value::Number(n) => format!("integer `{n}`"),
        Value::String(s) => format!("string {s:?}"),
        Value::Array(_) => "sequence".to_owned(),
        Value::Object(_) => "map".to_owned(),
    }
}

/// Returns the items that the real CLI would send to the model. Unsupported items are dropped, and a call without an
/// output gets one.
pub(crate) fn sent_to_model(items: &[Value]) -> Vec<Value> {
    let is_supported = |item: &&Value| match item["type"].as_str().unwrap_or_default() {
        "message" => item["role"] != "system",
        "function_call_output" => items.iter().any(|i| i["type"] == "function_call" && same_call(i, item)),
        "custom_tool_call_output" => {
            items.iter().any(|i| i["type"] == "custom_tool_call" && same_call(i, item))
        }
        "reasoning" | "function_call" | "custom_tool_call" | "web_search_call" => true,
        _ => false,
    };
    let mut sent = Vec::new();
    for item in items.iter().filter(is_supported) {
        sent.push(item.clone());
        let output = match item["type"].as_str() {
            Some("function_call") => "function_call_output",
            Some("custom_tool_call") => "custom_tool_call_output",
            _ => continue,
        };
        if !items.iter().any(|i| i["type"] == output && same_call(i, item)) {
            sent.push(json!({"type": output, "call_id": item["call_id"], "output": "aborted"}));
        }
    }
    sent
}

fn same_call(one: &Value, other: &Value) -> bool {
    one["call_id"] == other["call_id"]
}

/// Returns the text of the last user message.
pub(crate) fn last_user_text(items: &[Value]) -> String {
    let last = items.iter().rev().find(|item| item["type"] == "message" && item["role"] == "user");
    last.map(|item| text_of(&item["content"])).unwrap_or_default()
}

/// Returns the tool outputs at the end of the history.
pub(crate) fn last_outputs(items: &[Value]) -> Vec<String> {
    let mut outputs: Vec<String> = items
        .iter()
        .rev()
        .take_while(|item| item["type"] == "function_call_output")
        .map(|item| text_of(&item["output"]))
        .collect();
    outputs.reverse();
    outputs
}

/// Returns the text of content, which is a string or a list of parts.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{check, last_outputs, last_user_text, sent_to_model};

    fn user(text: &str) -> Value {
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
    }

    #[test]
    fn invalid_items_are_refused_with_the_real_text() {
        for (items, why) in [
            (vec![], "items must not be empty"),
            (vec![json!({"role": "user"})], "items[0] is not a valid response item: missing field `type`"),
            (
                vec![user("a"), json!({"type": "message", "role": "user", "content": "str"})],
                "items[1] is not a valid response item: invalid type: string \"str\", expected a sequence",
            ),
            (
                vec![json!({"type": "message", "role": "user", "content": [{"type": "input_file"}]})],
                "items[0] is not a valid response item: unknown variant `input_file`, expected one of \
                 `input_text`, `input_image`, `input_audio`, `output_text`",
            ),
            (
                vec![json!("x")],
                "items[0] is not a valid response item: invalid type: string \"x\", expected internally tagged \
                 enum ResponseItem",
            ),
            (
                vec![json!({"type": "function_call", "name": "x"})],
                "items[0] is not a valid response item: missing field `arguments`",
            ),
            (
                vec![
                    json!({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "https://x/y.png"}]}),
                ],
                "remote image URLs are not supported; use an inline data URL instead",
            ),
        ] {
            assert_eq!(check(&items), Err(why.to_owned()));
        }
        assert_eq!(check(&[user("a"), json!({"type": "whatever"})]), Ok(()));
    }

    #[test]
    fn unsupported_items_are_dropped() {
        let call = json!({"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"});
        let items = [
            json!({"type": "message", "role": "system", "content": []}),
            json!({"type": "whatever"}),
            json!({"type": "function_call_output", "call_id": "unknown", "output": "x"}),
            call.clone(),
        ];
        let aborted = json!({"type": "function_call_output", "call_id": "c", "output": "aborted"});
        assert_eq!(sent_to_model(&items), [call, aborted]);
    }

    #[test]
    fn end_of_a_history_selects_the_prompt() {
        let output = |text: &str| json!({"type": "function_call_output", "call_id": "c", "output": text});
        let items = [user("first"), user("second"), output("one"), output("two")];
        assert_eq!(last_user_text(&items), "second");
        assert_eq!(last_outputs(&items), ["one", "two"]);
        assert!(last_outputs(&items[..2]).is_empty());
    }
}
