use serde_json::json;

use super::{turn_cache::TurnCache, *};
use crate::engine::{Parameters, Tool, ToolChoice};

/// A table that the integration tests also send over HTTP and gRPC.
const HISTORIES: &str = include_str!("../../../../tests/fixtures/histories.json");

pub(super) fn message(role: Role, text: &str) -> Message {
    Message { role, name: None, parts: vec![Part::Text(text.into())], tool_calls: vec![], tool_call_id: None }
}

pub(super) fn result(id: &str, text: &str) -> Message {
    Message { tool_call_id: Some(id.into()), ..message(Role::Tool, text) }
}

pub(super) fn call(id: &str, name: &str, arguments: &str) -> pb::ToolCall {
    pb::ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() }
}

pub(super) fn history(turn: &Turn, cache: &TurnCache) -> InitialHistory {
    InitialHistory::new(turn, &ToolSet::new(turn).unwrap(), cache)
}

/// Converts an OpenAI request to a turn, as far as the table needs.
fn turn_of(request: &Value) -> Turn {
    let list = |name: &str| request[name].as_array().cloned().unwrap_or_default();
    Turn {
        messages: list("messages").iter().map(message_of).collect(),
        tools: list("tools").iter().map(tool_of).collect(),
        tool_choice: match (request["tool_choice"].as_str(), request["tool_choice"].as_object()) {
            (None, None) => ToolChoice::Auto,
            (Some("required"), None) => ToolChoice::Required,
            (None, Some(named)) => ToolChoice::Named(string(&named["function"]["name"])),
            (other, _) => panic!("the table has no {other:?}"),
        },
        parallel_tool_calls: request["parallel_tool_calls"] != json!(false),
        format: match request["response_format"]["type"].as_str() {
            None => Format::Text,
            Some("json_object") => Format::JsonObject,
            Some(other) => panic!("the table has no {other}"),
        },
        ..Turn::default()
    }
}

fn message_of(message: &Value) -> Message {
    let part = |part: &Value| match part["image_url"]["url"].as_str() {
        None => Part::Text(string(&part["text"])),
        Some(url) => {
            let data = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
            assert_eq!(ImageKind::detect(&data), Some(ImageKind::Png));
            Part::Image(Image { data: data.into(), kind: ImageKind::Png })
        }
    };
    let call_of = |call: &Value| pb::ToolCall {
        id: string(&call["id"]),
        name: string(&call["function"]["name"]),
        arguments: string(&call["function"]["arguments"]),
    };
    Message {
        role: match message["role"].as_str().unwrap() {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            other => panic!("the table has no {other}"),
        },
        name: message["name"].as_str().map(str::to_owned),
        parts: match (message["content"].as_str(), message["content"].as_array()) {
            (Some(text), _) => vec![Part::Text(text.into())],
            (None, Some(parts)) => parts.iter().map(part).collect(),
            (None, None) => vec![],
        },
        tool_calls: message["tool_calls"].as_array().into_iter().flatten().map(call_of).collect(),
        tool_call_id: message["tool_call_id"].as_str().map(str::to_owned),
    }
}

fn tool_of(tool: &Value) -> Tool {
    // The table tests names, so every schema is that of an object.
    Tool {
        name: string(&tool["function"]["name"]),
        description: string(&tool["function"]["description"]),
        parameters: Parameters::Json(r#"{"type":"object"}"#.into()),
        strict: false,
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn history_of_each_row_has_the_expected_items_and_instructions() {
    let table: Vec<Value> = serde_json::from_str(HISTORIES).unwrap();
    assert!(table.len() >= 30);
    for row in table {
        let turn = turn_of(&row);
        let history = history(&turn, &TurnCache::new(8, 1 << 20));
        assert_eq!(json!(history.items), row["items"], "{}", row["name"]);
        let instructions = developer_instructions(&turn, &ToolSet::new(&turn).unwrap());
        assert_eq!(json!(instructions), row["instructions"], "{}", row["name"]);
    }
}

/// Returns a conversation after one cached turn. The turn has reasoning, a text and a call of the client's `shell`.
fn with_cached_turn() -> (TurnCache, Turn) {
    let cache = TurnCache::new(8, 1 << 20);
    let calls = [call("c1", "shell", r#"{"a":1,"b":[2]}"#)];
    let items = vec![
        json!({"type": "reasoning", "id": "rs_0", "summary": [], "encrypted_content": "FIRST"}),
        json!({"type": "function_call", "name": "exec_command", "arguments": "{}", "call_id": "own"}),
        json!({"type": "function_call_output", "call_id": "own", "output": "files"}),
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "SECOND"}),
        json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look.\n"}]}),
        json!({"type": "function_call", "id": "fc_1", "status": "completed", "name": "client_shell",
            "arguments": r#"{"a":1,"b":[2]}"#, "call_id": "c1"}),
    ];
    let question = message(Role::User, "what is there?");
    let first = Turn { messages: vec![question.clone()], ..Turn::default() };
    cache.insert(cache.key(&first), &calls, items.into_iter().map(RawItem::from).collect());
    let called = Message { tool_calls: calls.to_vec(), ..message(Role::Assistant, "Let me look.") };
    let turn = Turn { messages: vec![question, called, result("c1", "42")], ..Turn::default() };
    (cache, turn)
}

/// Returns the kinds of the items, and the content of reasoning.
fn kinds(history: &InitialHistory) -> Vec<&str> {
    let kind = |item| RawItem::as_value(item)["encrypted_content"].as_str().unwrap_or_else(|| item.kind());
    history.items.iter().map(kind).collect()
}

#[test]
fn unchanged_cached_turn_is_injected_with_all_items() {
    let (cache, mut turn) = with_cached_turn();
    let expected = json!([
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what is there?"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "FIRST"},
        {"type": "function_call", "name": "exec_command", "arguments": "{}", "call_id": "own"},
        {"type": "function_call_output", "call_id": "own", "output": "files"},
        {"type": "reasoning", "summary": [], "encrypted_content": "SECOND"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look.\n"}]},
        {"type": "function_call", "name": "client_shell", "arguments": r#"{"a":1,"b":[2]}"#, "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
    ]);
    assert_eq!(json!(history(&turn, &cache).items), expected);
    // Clients reformat the arguments and omit the text beside calls.
    turn.messages[1].tool_calls[0].arguments = "{ \"b\": [2], \"a\": 1 }".into();
    turn.messages[1].parts.clear();
    assert_eq!(json!(history(&turn, &cache).items), expected);
    // The former alias is the name of another tool in this turn.
    let taken = Tool { name: "client_shell".into(), ..Tool::default() };
    turn.tools = [taken].into();
    assert_eq!(history(&turn, &cache).items[6].name(), Some("client_shell_2"));
}

#[test]
fn changed_message_replaces_the_cached_one_and_keeps_codex_calls() {
    let uncached = ["message", "message", "function_call", "function_call_output"];
    // Work of Codex's own tools happened even if the client changes the text.
    let with_codex_calls = [
        "message",
        "function_call",
        "function_call_output",
        "message",
        "function_call",
        "function_call_output",
    ];

    let (cache, mut turn) = with_cached_turn();
    turn.messages[1].parts = vec![Part::Text("I never look.".into())];
    let changed = history(&turn, &cache);
    let expected =
        [&["message", "FIRST"], &with_codex_calls[1..3], &["SECOND"], &with_codex_calls[3..]].concat();
    assert_eq!(kinds(&changed), expected);
    assert_eq!(changed.items[5].content_texts().collect::<Vec<_>>(), ["I never look."]);

    let (cache, mut turn) = with_cached_turn();
    turn.messages[1].tool_calls[0].arguments = "{}".into();
    assert_eq!(kinds(&history(&turn, &cache)), with_codex_calls);

    let (cache, mut turn) = with_cached_turn();
    turn.messages[1].tool_calls[0].name = "other".into();
    assert_eq!(kinds(&history(&turn, &cache)), with_codex_calls);

    let (cache, mut turn) = with_cached_turn();
    turn.messages[1].tool_calls.insert(0, call("c2", "shell", "{}"));
    assert_eq!(history(&turn, &cache).items.len(), 7);

    // Another conversation with a call of the same id.
    let (cache, mut turn) = with_cached_turn();
    turn.messages[0] = message(Role::User, "something else");
    assert_eq!(kinds(&history(&turn, &cache)), uncached);

    // After a restart of the server.
    let (_, turn) = with_cached_turn();
    assert_eq!(kinds(&history(&turn, &TurnCache::new(8, 1 << 20))), uncached);
}

#[test]
fn codex_calls_are_injected_once_for_a_message_per_call() {
    let cache = TurnCache::new(8, 1 << 20);
    let calls = [call("c1", "f", "{}"), call("c2", "f", "{}")];
    let item = |id: &str| json!({"type": "function_call", "name": "f", "arguments": "{}", "call_id": id});
    let items = vec![
        item("c1"),
        json!({"type": "custom_tool_call", "name": "apply_patch", "input": "p", "call_id": "own"}),
        item("c2"),
        json!({"type": "custom_tool_call_output", "call_id": "own", "output": "done"}),
    ];
    let question = message(Role::User, "go");
    let first = Turn { messages: vec![question.clone()], ..Turn::default() };
    cache.insert(cache.key(&first), &calls, items.into_iter().map(RawItem::from).collect());
    let with_call =
        |call: &pb::ToolCall| Message { tool_calls: vec![call.clone()], ..message(Role::Assistant, "") };
    let [one, two] = &calls;
    let together = Message { tool_calls: calls.to_vec(), ..message(Role::Assistant, "") };
    let turn = Turn {
        messages: vec![question.clone(), together, result("c2", "2"), result("c1", "1")],
        ..Turn::default()
    };
    let ids = |history: &InitialHistory| -> Vec<String> {
        let describe = |item: &RawItem| format!("{} {}", item.kind(), item.call_id().unwrap_or_default());
        history.items[1..].iter().map(describe).collect()
    };
    assert_eq!(
        ids(&history(&turn, &cache)),
        [
            "function_call c1",
            "custom_tool_call own",
            "function_call c2",
            "custom_tool_call_output own",
            "function_call_output c2",
            "function_call_output c1"
        ]
    );
    let apart = vec![question, with_call(one), result("c1", "1"), with_call(two), result("c2", "2")];
    assert_eq!(
        ids(&history(&Turn { messages: apart, ..Turn::default() }, &cache)),
        [
            "custom_tool_call own",
            "custom_tool_call_output own",
            "function_call c1",
            "function_call_output c1",
            "function_call c2",
            "function_call_output c2"
        ]
    );
}

#[test]
fn text_in_a_message_before_the_call_is_injected_once() {
    let (cache, turn) = with_cached_turn();
    let whole = history(&turn, &cache);
    let apart = |text: &str| {
        let mut turn = turn.clone();
        turn.messages[1].parts.clear();
        turn.messages.insert(1, message(Role::Assistant, text));
        history(&turn, &cache)
    };
    assert_eq!(apart("Let me look."), whole);
    let changed = apart("I never look.");
    let with_text = ["message", "message", "FIRST", "function_call", "function_call_output", "SECOND"];
    assert_eq!(kinds(&changed), [&with_text[..], &["function_call", "function_call_output"]].concat());
    assert_eq!(changed.items[1].content_texts().collect::<Vec<_>>(), ["I never look."]);
}

#[tokio::test]
async fn build_with_images_returns_the_turn_and_its_history() {
    for bytes in [1, MAX_INLINE_BYTES + 1] {
        let image = Image { data: vec![7; bytes].into(), kind: ImageKind::Png };
        let question = Message { parts: vec![Part::Image(image)], ..message(Role::User, "") };
        let turn = Turn { messages: vec![question], ..Turn::default() };
        let tools = Arc::new(ToolSet::new(&turn).unwrap());
        let cache = Arc::new(TurnCache::new(8, 1 << 20));
        let expected = history(&turn, &cache);
        let (turn, built) = InitialHistory::build(turn, tools, cache).await.unwrap();
        assert_eq!((turn.messages.len(), &built), (1, &expected), "{bytes}");
        let url = format!("data:image/png;base64,{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(built.items[0].as_value()["content"][0]["image_url"], url, "{bytes}");
    }
}
