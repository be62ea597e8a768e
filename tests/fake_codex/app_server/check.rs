//! Validation of parameters before any work, with the texts of the app-server's JSON reader.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{history::serde_name, version::Release};

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

impl Refusal {
    /// Returns the error of an invalid request, code -32600.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { code: -32600, message: message.into(), data: None }
    }

    /// Returns the error of a `turn/start` without input during a turn, code -32603.
    pub(crate) fn empty_input() -> Self {
        Self { code: -32603, message: "failed to submit turn input: EmptyInput".to_owned(), data: None }
    }

    /// Returns the error of an overloaded server, code -32001.
    pub(crate) fn overloaded() -> Self {
        Self { code: -32001, message: "Server overloaded; retry later.".to_owned(), data: None }
    }
}

/// The maximum number of characters of the input of one turn.
const MAX_INPUT_CHARS: usize = crate::prompt::MAX_CHARS;

/// Refuses a method that this release does not have.
pub(crate) fn method(name: &str, release: Release) -> Result<(), Refusal> {
    if release.has_method(name) {
        return Ok(());
    }
    let known: Vec<String> = release.methods().iter().map(|method| format!("`{method}`")).collect();
    let known = known.join(", ");
    Err(Refusal::invalid(format!("Invalid request: unknown variant `{name}`, expected one of {known}")))
}

/// Refuses missing parameters.
pub(crate) fn required(params: Option<&Value>, names: &[&str]) -> Result<(), Refusal> {
    let missing = |name: &str| Refusal::invalid(format!("Invalid request: missing field `{name}`"));
    let params = params.ok_or_else(|| missing("params"))?;
    names.iter().try_for_each(|name| params.get(name).map(drop).ok_or_else(|| missing(name)))
}

/// Refuses an invalid thread id.
pub(crate) fn thread_id(id: &Value) -> Result<&str, Refusal> {
    let id = id.as_str().unwrap_or_default();
    match uuid::Uuid::parse_str(id) {
        Ok(_) => Ok(id),
        Err(e) => Err(Refusal::invalid(format!("invalid thread id: {e}"))),
    }
}

/// Refuses an invalid `thread/start`.
pub(crate) fn thread_start(params: &Value, experimental: bool, release: Release) -> Result<(), Refusal> {
    const ENUMS: [(&str, &[&str]); 2] = [
        ("sandbox", &["read-only", "workspace-write", "danger-full-access"]),
        ("approvalPolicy", &["untrusted", "on-request", "granular", "never"]),
    ];
    const TEXTS: [&str; 5] = ["model", "modelProvider", "cwd", "baseInstructions", "developerInstructions"];
    let wrong = |detail: String| Err(Refusal::invalid(format!("Invalid request: {detail}")));
    let given = |name: &str| params.get(name).filter(|value| !value.is_null());
    for (name, values) in ENUMS {
        if let Some(Value::String(text)) = given(name)
            && !values.contains(&text.as_str())
        {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            return wrong(format!("unknown variant `{text}`, expected one of {}", values.join(", ")));
        }
    }
    if let Some(value) = TEXTS.iter().filter_map(|name| given(name)).find(|value| !value.is_string()) {
        return wrong(format!("invalid type: {}, expected a string", serde_name(value)));
    }
    if let Some(value) =
        ["ephemeral", "experimentalRawEvents"].iter().filter_map(|name| given(name)).find(|v| !v.is_boolean())
    {
        return wrong(format!("invalid type: {}, expected a boolean", serde_name(value)));
    }
    // 0.110 has no such parameter and ignores it.
    if release >= Release::V140
        && let Some(value) = given("environments").filter(|value| !value.is_array())
    {
        return wrong(format!("invalid type: {}, expected a sequence", serde_name(value)));
    }
    for name in ["environments", "dynamicTools", "experimentalRawEvents"] {
        if !experimental && given(name).is_some() {
            return Err(Refusal::invalid(format!("thread/start.{name} requires experimentalApi capability")));
        }
    }
    match given("dynamicTools").and_then(Value::as_array) {
        Some(offered) => tools(offered, release),
        None => Ok(()),
    }
}

/// Refuses tools with an invalid shape or name. 0.110 accepts any name.
fn tools(offered: &[Value], release: Release) -> Result<(), Refusal> {
    for tool in offered {
        let Value::Object(members) = tool else {
            let kind = serde_name(tool);
            let message =
                format!("Invalid request: invalid type: {kind}, expected struct LegacyDynamicToolSpec");
            return Err(Refusal::invalid(message));
        };
        let namespace = tool["type"] == "namespace";
        let needed: &[&str] =
            if namespace { &["description"] } else { &["name", "description", "inputSchema"] };
        if let Some(name) = needed.iter().find(|name| !members.contains_key(**name)) {
            return Err(Refusal::invalid(format!("Invalid request: missing field `{name}`")));
        }
    }
    if release < Release::V140 {
        return Ok(());
    }
    let mut names = HashSet::new();
    offered.iter().try_for_each(|tool| {
        let name = tool["name"].as_str().unwrap_or_default();
        tool_name(name)?;
        if !names.insert(name) {
            return Err(Refusal::invalid(format!("duplicate dynamic tool name: {name}")));
        }
        if tool["deferLoading"] == json!(true) && tool.get("namespace").is_none_or(Value::is_null) {
            return Err(Refusal::invalid(format!("deferred dynamic tool must include a namespace: {name}")));
        }
        let schema = &tool["inputSchema"];
        if schema.is_object() || schema.is_boolean() {
            return Ok(());
        }
        Err(Refusal::invalid(format!(
            "dynamic tool input schema is not supported for {name}: invalid type: {}, expected struct JsonSchema",
            serde_name(schema)
        )))
    })
}

fn tool_name(name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let why = if name.is_empty() {
        "must not be empty".to_owned()
    } else if name.trim() != name {
        format!("has leading/trailing whitespace: {name}")
    } else if !name.chars().all(allowed) {
        format!("must match ^[a-zA-Z0-9_-]+$ to match Responses API: {name}")
    } else if name.len() > 128 {
        format!("must be at most 128 characters to match Responses API: {name}")
    } else if name == "mcp" || name.starts_with("mcp__") {
        format!("is reserved: {name}")
    } else {
        return Ok(());
    };
    Err(Refusal::invalid(format!("dynamic tool name {why}")))
}

/// Refuses turn input beyond the limit.
pub(crate) fn input(input: &Value) -> Result<(), Refusal> {
    let texts = input.as_array().into_iter().flatten().filter_map(|part| part["text"].as_str());
    let chars: usize = texts.map(|text| text.chars().count()).sum();
    if chars <= MAX_INPUT_CHARS {
        return Ok(());
    }
    Err(Refusal {
        code: -32602,
        message: format!("Input exceeds the maximum length of {MAX_INPUT_CHARS} characters."),
        data: Some(json!({
            "input_error_code": "input_too_large", "max_chars": MAX_INPUT_CHARS, "actual_chars": chars
        })),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Refusal, Release, method, required, thread_id, thread_start};

    fn why(result: Result<(), Refusal>) -> String {
        result.err().map(|refusal| refusal.message).unwrap_or_default()
    }

    fn tools(tools: &Value) -> String {
        why(thread_start(&json!({"dynamicTools": tools}), true, Release::V169))
    }

    #[test]
    fn invalid_tools_are_refused_with_the_real_text() {
        let tool =
            |name: &str| json!({"type": "function", "name": name, "description": "", "inputSchema": {}});
        let long = "a".repeat(129);
        for (name, text) in [
            ("get_weather-2", ""),
            ("exec_command", ""),
            ("", "dynamic tool name must not be empty"),
            ("a b", "dynamic tool name must match ^[a-zA-Z0-9_-]+$ to match Responses API: a b"),
            (" a", "dynamic tool name has leading/trailing whitespace:  a"),
            ("mcp", "dynamic tool name is reserved: mcp"),
            ("mcp__x", "dynamic tool name is reserved: mcp__x"),
        ] {
            assert_eq!(tools(&json!([tool(name)])), text);
        }
        assert!(tools(&json!([tool(&long)])).contains("at most 128 characters"));
        assert_eq!(tools(&json!([tool("a"), tool("a")])), "duplicate dynamic tool name: a");
        assert_eq!(
            tools(&json!(["x"])),
            "Invalid request: invalid type: string \"x\", expected struct LegacyDynamicToolSpec"
        );
        assert_eq!(
            tools(&json!([{"name": "a", "inputSchema": {}}])),
            "Invalid request: missing field `description`"
        );
        assert_eq!(
            tools(&json!([{"name": "a", "description": "", "inputSchema": null}])),
            "dynamic tool input schema is not supported for a: invalid type: null, expected struct JsonSchema"
        );
        let old = json!({"dynamicTools": [tool("a b")]});
        assert_eq!(thread_start(&old, true, Release::V110), Ok(()));
    }

    #[test]
    fn invalid_parameters_are_refused_with_the_real_text() {
        let start = |params: Value| why(thread_start(&params, false, Release::V169));
        assert_eq!(
            start(json!({"sandbox": "bogus"})),
            "Invalid request: unknown variant `bogus`, expected one of `read-only`, `workspace-write`, \
             `danger-full-access`"
        );
        assert_eq!(
            start(json!({"ephemeral": "yes"})),
            "Invalid request: invalid type: string \"yes\", expected a boolean"
        );
        assert_eq!(
            start(json!({"baseInstructions": 5})),
            "Invalid request: invalid type: integer `5`, expected a string"
        );
        assert_eq!(
            start(json!({"environments": []})),
            "thread/start.environments requires experimentalApi capability"
        );
        assert_eq!(why(required(None, &[])), "Invalid request: missing field `params`");
        assert_eq!(why(required(Some(&json!({})), &["input"])), "Invalid request: missing field `input`");
        // The rest of the text comes from the UUID library.
        let text = why(thread_id(&json!("nope")).map(drop));
        assert!(text.starts_with("invalid thread id: ") && text.contains("found `n`"), "{text}");
        assert!(
            why(method("no/such", Release::V169))
                .contains("unknown variant `no/such`, expected one of `init")
        );
    }
}
