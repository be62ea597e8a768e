//! Calls of client tools, their arguments, and the answer about their outputs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    act::{self, Act, Answer, message, split_words},
    items,
    scenario::Style,
    wire::Usage,
};

/// The usage of a response with calls, and of a response with the answer.
const CALLING: Usage = Usage { input: 100, cached: 40, cache_write: 0, output: 20, reasoning: 7 };
const ANSWERING: Usage = Usage::new(130, 90, 5);

/// Returns the acts of a turn that makes `calls` calls of the `offered` tools and waits for their results.
pub(crate) fn call_acts(offered: &[Value], calls: usize, style: Style, cwd: &str) -> Vec<Act> {
    if offered.is_empty() {
        return act::answer("No tool is offered.", Usage::new(100, 40, 5));
    }
    let mut acts = Vec::new();
    if style == Style::AfterOwn {
        acts.extend(items::command("cmd_own", cwd, "ls", "README.md\n", 0));
        acts.extend([Act::Response(Usage::new(90, 30, 10)), Act::ReportUsage]);
    }
    acts.push(Act::Reasoning { summary: vec!["Which ".to_owned(), "tool?".to_owned()], raw: None });
    if style == Style::AfterText {
        acts.extend(message(split_words("Let me look."), None));
    }
    let bad = style == Style::Bad;
    for (number, tool) in offered.iter().cycle().take(calls).enumerate() {
        if style == Style::Slow && number > 0 {
            acts.push(Act::Pause(Duration::from_millis(50)));
        }
        let arguments =
            if bad { json!({"not_in_the_schema": [1, 2]}) } else { sample(&tool["inputSchema"], number) };
        acts.push(call(tool, &arguments));
    }
    match style {
        Style::Broken => {
            let offered = offered.to_vec();
            let repeat = move |_| call_acts(&offered, calls, Style::Plain, "");
            acts.push(Act::Await(Box::new(repeat)));
            return acts;
        }
        Style::BrokenThenText => {
            acts.push(Act::Await(Box::new(|_| act::answer("no call is needed", ANSWERING))));
            return acts;
        }
        Style::Plain | Style::AfterText | Style::Slow | Style::AfterOwn | Style::Bad => {}
    }
    acts.push(Act::Response(CALLING));
    let again: Vec<Value> = if bad { offered.iter().take(calls).cloned().collect() } else { Vec::new() };
    acts.push(Act::Await(Box::new(move |answers| acts_after(&answers, &again))));
    acts
}

/// Returns the acts of an answer about these outputs.
pub(crate) fn answer_acts(outputs: &[String]) -> Vec<Act> {
    act::answer(&format!("The tools say: {}", outputs.join(" | ")), ANSWERING)
}

fn acts_after(answers: &[Answer], again: &[Value]) -> Vec<Act> {
    let mut acts = vec![Act::ReportUsage];
    if again.is_empty() || answers.iter().all(|answer| answer.success) {
        let outputs: Vec<String> = answers.iter().map(|answer| answer.text.clone()).collect();
        acts.extend(answer_acts(&outputs));
        return acts;
    }
    acts.extend(
        again.iter().enumerate().map(|(number, tool)| call(tool, &sample(&tool["inputSchema"], number))),
    );
    acts.push(Act::Response(CALLING));
    acts.push(Act::Await(Box::new(|answers| acts_after(&answers, &[]))));
    acts
}

fn call(tool: &Value, arguments: &Value) -> Act {
    Act::Call { tool: tool["name"].as_str().unwrap_or_default().to_owned(), arguments: spaced(arguments) }
}

/// Returns a value that matches the schema. `number` makes the values of parallel calls differ.
fn sample(schema: &Value, number: usize) -> Value {
    let nested = |schema: &Value| sample(schema, number);
    if let Some(values) = schema["enum"].as_array().filter(|values| !values.is_empty()) {
        return values[number % values.len()].clone();
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(one) = ["anyOf", "oneOf", "allOf"].iter().find_map(|of| schema[*of].get(0)) {
        return nested(one);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str());
    match kind {
        Some("string") => json!(format!("value {number}")),
        Some("integer") => schema.get("minimum").cloned().unwrap_or(json!(number + 1)),
        Some("number") => schema.get("minimum").cloned().unwrap_or(json!(1.5)),
        Some("boolean") => json!(true),
        Some("array") => json!([nested(&schema["items"])]),
        Some("null") => Value::Null,
        _ => {
            let members = schema["properties"].as_object().into_iter().flatten();
            Value::Object(members.map(|(name, schema)| (name.clone(), nested(schema))).collect())
        }
    }
}

/// Returns JSON with spaces, as models write it. Parsing and printing would change the text.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) => {
            let members: Vec<_> =
                members.iter().map(|(n, v)| format!("{}: {}", json!(n), spaced(v))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Act, Style, call_acts, sample, spaced};

    #[test]
    fn samples_match_the_schema() {
        let schema = json!({"type": "object", "properties": {
            "city": {"type": "string", "enum": ["Paris", "Rome"]},
            "days": {"type": "integer", "minimum": 3},
            "tags": {"type": "array", "items": {"type": "string"}},
            "opt": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        }});
        let second = json!({"city": "Rome", "days": 3, "tags": ["value 1"], "opt": null});
        assert_eq!(sample(&schema, 1), second);
        assert_eq!(sample(&json!({}), 0), json!({}));
    }

    #[test]
    fn raw_arguments_are_json_with_spaces() {
        let value = json!({"a": [1, "x, y"], "b": {}});
        assert_eq!(spaced(&value), r#"{"a": [1, "x, y"], "b": {}}"#);
        assert_eq!(serde_json::from_str::<Value>(&spaced(&value)).expect("JSON"), value);
    }

    #[test]
    fn calls_rotate_over_the_offered_tools() {
        let offered = [json!({"name": "f", "inputSchema": {}}), json!({"name": "g", "inputSchema": {}})];
        let called: Vec<String> = call_acts(&offered, 3, Style::Plain, "/")
            .into_iter()
            .filter_map(|act| if let Act::Call { tool, .. } = act { Some(tool) } else { None })
            .collect();
        assert_eq!(called, ["f", "g", "f"]);
    }
}
