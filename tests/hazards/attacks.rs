//! Requests that cost too much, with the answer that each must get. The tests and the benchmark share them.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a client sends, and what it must get.
#[derive(Debug)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) door: Door,
    pub(crate) body: Vec<u8>,
    pub(crate) answer: Answer,
}

/// The door of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// `POST /v1/chat/completions`
    Http,
    /// The unary call of the contract. The body is one frame.
    Grpc,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A completion, because the request is within the limits.
    Completion,
    /// An error with this status (HTTP), field and part of the message.
    Refusal(u16, &'static str, &'static str),
}

/// Builds the attack with this name.
pub(crate) type Builder = fn(&'static str) -> Attack;

/// Every attack by its name. The bodies have many megabytes, so each is built when it is needed.
pub(crate) const ALL: &[(&str, Builder)] = &[
    ("strict tool with 300 patterns", patterns),
    ("160,000 tools", many_tools),
    ("50,000 empty answers behind long instructions", empty_answers),
    ("4,900 empty answers behind long instructions", empty_answers_within_the_limits),
    ("60,000 calls with results in reverse order", reversed_results),
    ("9,900 calls with results in reverse order", reversed_results_within_the_limits),
    ("10 strict tools of 30,000 properties", many_properties),
    ("PNG of 30,000 × 30,000 pixels", |name| image(name, 30_000, 8)),
    ("PNG of 100,000 × 100,000 pixels of one bit", |name| image(name, 100_000, 1)),
    ("16.7 million empty messages", empty_messages),
    ("a million empty messages", tiny_messages),
    ("32 MB of numbers as the tool choice", list_as_tool_choice),
    ("32 MB of unknown members in the tool choice", object_as_tool_choice),
];

fn http(name: &'static str, body: &Value, answer: Answer) -> Attack {
    Attack { name, door: Door::Http, body: body.to_string().into_bytes(), answer }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn tool(name: &str, strict: bool, parameters: &Value) -> Value {
    json!({"type": "function", "function": {"name": name, "strict": strict, "parameters": parameters}})
}

/// 20 kB that take 34 s and 2.4 GB to compile without limits.
fn patterns(name: &'static str) -> Attack {
    let property =
        |n: usize| (format!("p{n}"), json!({"type": "string", "pattern": format!(r"\p{{L}}{{160}}{n}")}));
    let properties: serde_json::Map<_, _> = (0..300).map(property).collect();
    let tool = tool("f", true, &json!({"type": "object", "properties": properties}));
    http(
        name,
        &json!({"model": "fake:echo", "messages": [user("go")], "tools": [tool]}),
        Answer::Refusal(400, "tools[0].function.parameters", "patterns"),
    )
}

fn many_tools(name: &'static str) -> Attack {
    let tools: Vec<Value> = (0..160_000).map(|n| tool(&format!("f{n}"), false, &json!({}))).collect();
    http(
        name,
        &json!({"model": "fake:echo", "messages": [user("go")], "tools": tools}),
        Answer::Refusal(400, "tools", "CODEX_MAX_TOOLS"),
    )
}

fn conversation(answers: usize) -> Value {
    let mut messages = vec![json!({"role": "system", "content": "x".repeat(100_000)}), user("go")];
    for n in 0..answers {
        let id = format!("c{n}");
        let call = json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
        messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": ""}));
    }
    messages.push(user("done"));
    json!({"model": "fake:text:3", "messages": messages})
}

fn empty_answers(name: &'static str) -> Attack {
    http(name, &conversation(50_000), Answer::Refusal(400, "messages", "CODEX_MAX_MESSAGES"))
}

fn empty_answers_within_the_limits(name: &'static str) -> Attack {
    http(name, &conversation(4_900), Answer::Completion)
}

fn reversed(calls: usize) -> Value {
    let call = |n| json!({"id": format!("c{n}"), "function": {"name": "f", "arguments": "{}"}});
    let all: Vec<Value> = (0..calls).map(call).collect();
    let mut messages = vec![user("go"), json!({"role": "assistant", "tool_calls": all})];
    let result = |n| json!({"role": "tool", "tool_call_id": format!("c{n}"), "content": ""});
    messages.extend((0..calls).rev().map(result));
    json!({"model": "fake:text:3", "messages": messages})
}

fn reversed_results(name: &'static str) -> Attack {
    http(name, &reversed(60_000), Answer::Refusal(400, "messages[1].tool_calls", "CODEX_MAX_MESSAGES"))
}

fn reversed_results_within_the_limits(name: &'static str) -> Attack {
    http(name, &reversed(9_900), Answer::Completion)
}

fn many_properties(name: &'static str) -> Attack {
    let properties: serde_json::Map<_, _> =
        (0..30_000).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    let schema = json!({"type": "object", "properties": properties});
    let tools: Vec<Value> = (0..10).map(|n| tool(&format!("f{n}"), true, &schema)).collect();
    http(
        name,
        &json!({"model": "fake:echo", "messages": [user("go")], "tools": tools}),
        Answer::Refusal(400, "tools[5].function.parameters", "bytes"),
    )
}

/// Returns an image of which only the header is correct: its pixels must be refused before they are decoded.
fn image(name: &'static str, side: u32, bits: u8) -> Attack {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    file.extend(side.to_be_bytes());
    file.extend(side.to_be_bytes());
    file.extend([bits, 0, 0, 0, 0]);
    file.resize(3_500_000, 0);
    file.extend(b"IEND\xaeB`\x82");
    let url = format!("data:image/png;base64,{}", base64(&file));
    let part = json!({"type": "image_url", "image_url": {"url": url}});
    http(
        name,
        &json!({"model": "fake:echo", "messages": [{"role": "user", "content": [part]}]}),
        Answer::Refusal(400, "messages[0].content[0].image_url", "CODEX_MAX_IMAGE_PIXELS"),
    )
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

/// 16.7 million messages of two bytes each in the encoded form.
fn empty_messages(name: &'static str) -> Attack {
    let size = (33_554_432 - 2) & !1;
    let mut body = vec![0];
    body.extend(u32::try_from(size).unwrap_or_default().to_be_bytes());
    body.extend([0x12, 0].into_iter().cycle().take(size));
    Attack { name, door: Door::Grpc, body, answer: Answer::Refusal(0, "messages", "CODEX_MAX_MESSAGES") }
}

fn tiny_messages(name: &'static str) -> Attack {
    let mut body = r#"{"model":"fake:echo","messages":["#.to_owned();
    for n in 0..1_000_000 {
        let comma = if n == 0 { "" } else { "," };
        let _written = write!(body, r#"{comma}{{"role":"user","content":""}}"#);
    }
    body.push_str("]}");
    Attack {
        name,
        door: Door::Http,
        body: body.into_bytes(),
        answer: Answer::Refusal(400, "messages", "CODEX_MAX_MESSAGES"),
    }
}

/// Returns a request with this text as its tool choice.
fn tool_choice(name: &'static str, choice: &str, param: &'static str, text: &'static str) -> Attack {
    let body = format!(
        r#"{{"model":"fake:echo","messages":[{{"role":"user","content":"x"}}],"tool_choice":{choice}}}"#
    );
    Attack { name, door: Door::Http, body: body.into_bytes(), answer: Answer::Refusal(400, param, text) }
}

fn list_as_tool_choice(name: &'static str) -> Attack {
    let choice = format!("[{}0]", "0,".repeat(16_000_000));
    tool_choice(name, &choice, "tool_choice", "invalid type: sequence")
}

fn object_as_tool_choice(name: &'static str) -> Attack {
    let mut choice = r#"{"type":"unknown""#.to_owned();
    for n in 0..2_500_000 {
        let _written = write!(choice, r#","a{n:07}":0"#);
    }
    choice.push('}');
    tool_choice(name, &choice, "tool_choice.type", "only `function`")
}
