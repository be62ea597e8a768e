use serde_json::json;

use super::*;
use crate::config::Profile;

fn asked(text: &str) -> Message {
    Message {
        role: Role::User,
        name: None,
        parts: vec![Part::Text(text.into())],
        tool_calls: vec![],
        tool_call_id: None,
    }
}

/// The place behind these messages.
fn place(memory: &TurnCache, messages: &[Message]) -> ConversationKey {
    let turn = Turn { model: "m".into(), messages: messages.to_vec(), ..Turn::default() };
    memory.place(&turn, messages.len())
}

fn call(id: &str) -> pb::ToolCall {
    pb::ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() }
}

fn item(id: &str) -> Value {
    json!({"type": "function_call", "name": "f", "arguments": "{}", "call_id": id})
}

/// Remembers a turn with one call.
fn keep(memory: &TurnCache, place: ConversationKey, id: &str) {
    memory.remember(place, &[call(id)], vec![item(id)]);
}

#[test]
fn a_turn_is_found_under_each_of_its_calls_in_its_place_only() {
    let memory = TurnCache::new(4, 10_000);
    let here = place(&memory, &[asked("a"), asked("b")]);
    memory.remember(here, &[call("1"), call("2")], vec![item("1"), item("2")]);
    for id in ["1", "2"] {
        assert_eq!(memory.recall(here, id).unwrap().items, [item("1"), item("2")]);
    }
    assert!(memory.recall(here, "3").is_none());
    assert!(memory.recall(place(&memory, &[asked("b"), asked("a")]), "1").is_none());
    // A client may have dropped what was said long ago.
    assert!(memory.recall(place(&memory, &[asked("b")]), "1").is_some());
}

#[test]
fn nobody_is_shown_what_was_thought_elsewhere() {
    let memory = TurnCache::new(4, 10_000);
    let instructs = |role, text: &str| Message { role, ..asked(text) };
    let messages =
        vec![instructs(Role::System, "be kind"), asked("a"), instructs(Role::Developer, "be brief")];
    let turn = Turn { model: "m".into(), messages, ..Turn::default() };
    let here = memory.place(&turn, 3);
    keep(&memory, here, "1");
    let mut longer = turn.clone();
    longer.messages.push(Message { role: Role::Assistant, ..asked("calls") });
    assert!(memory.recall(memory.place(&longer, 3), "1").is_some());
    let mut others = [turn.clone(), turn.clone(), turn.clone(), turn.clone(), turn];
    others[0].model = "n".into();
    others[1].profile = Profile::Chat;
    for (index, other) in others[2..].iter_mut().enumerate() {
        other.messages[index].parts = vec![Part::Text("something else".into())];
    }
    for other in others {
        assert!(memory.recall(memory.place(&other, 3), "1").is_none(), "{other:?}");
    }
}

#[test]
fn what_was_not_used_for_longest_is_forgotten_first() {
    let memory = TurnCache::new(2, 10_000);
    let here = place(&memory, &[]);
    keep(&memory, here, "1");
    keep(&memory, here, "2");
    assert!(memory.recall(here, "1").is_some());
    keep(&memory, here, "3");
    let known = ["1", "2", "3"].map(|id| memory.recall(here, id).is_some());
    assert_eq!(known, [true, false, true]);
}

#[test]
fn bytes_are_bounded_and_given_back() {
    let one = weight(&item("1")) + weight_of_call(&call("1"));
    let memory = TurnCache::new(100, 2 * one);
    let here = place(&memory, &[]);
    for id in 0..50 {
        keep(&memory, here, &(id % 10).to_string());
    }
    let known = (0..10).filter(|id| memory.recall(here, &id.to_string()).is_some()).count();
    assert_eq!(known, 2);
    let shelf = memory.shelf();
    assert_eq!((shelf.bytes, shelf.turns.len(), shelf.index.len()), (2 * one, 2, 2));
    drop(shelf);
    // What is larger than everything is not kept, and pushes nothing out.
    memory.remember(here, &[call("1"), call("2"), call("3")], vec![item("1"), item("2"), item("3")]);
    assert_eq!(memory.shelf().turns.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_is_forgotten_after_an_hour() {
    let memory = TurnCache::new(4, 10_000);
    let here = place(&memory, &[]);
    keep(&memory, here, "1");
    keep(&memory, here, "2");
    tokio::time::advance(AGE - Duration::from_secs(1)).await;
    assert!(memory.recall(here, "1").is_some());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(memory.recall(here, "2").is_none());
    assert!(memory.recall(here, "1").is_some());
    tokio::time::advance(AGE + Duration::from_secs(1)).await;
    keep(&memory, here, "3");
    let shelf = memory.shelf();
    assert_eq!((shelf.turns.len(), shelf.index.len()), (1, 1));
}

#[test]
fn small_objects_are_not_taken_for_as_light_as_their_text() {
    let item = json!({"a": [{}, {"b": 1}, {"c": "text"}]});
    let told = item.to_string().len();
    assert!(weight(&item) > 40 * told, "{} for {told} bytes of text", weight(&item));
    let long = json!("x".repeat(100_000));
    assert!((100_000..100_100).contains(&weight(&long)));
}

#[test]
fn the_last_turn_has_the_name() {
    let memory = TurnCache::new(2, 10_000);
    let here = place(&memory, &[]);
    keep(&memory, here, "1");
    let thought = json!({"type": "reasoning", "summary": [], "encrypted_content": "E"});
    memory.remember(here, &[call("1")], vec![thought, item("1")]);
    assert_eq!(memory.recall(here, "1").unwrap().items.len(), 2);
    // The first of both is pushed out without taking the name along.
    keep(&memory, here, "2");
    assert_eq!(memory.recall(here, "1").unwrap().items.len(), 2);
}

#[test]
fn only_what_may_be_injected_is_kept() {
    let memory = TurnCache::new(4, 100_000);
    let here = place(&memory, &[]);
    let meta = json!({"turn_id": "t"});
    let items = vec![
        json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "codex's own"}]}),
        json!({"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "s"}], "content": null,
            "encrypted_content": "E", "internal_chat_message_metadata_passthrough": meta}),
        json!({"type": "reasoning", "summary": [], "encrypted_content": null}),
        json!({"type": "message", "id": "m", "role": "assistant", "status": "completed", "phase": "commentary",
            "content": [{"type": "output_text", "text": "t"}]}),
        json!({"type": "custom_tool_call", "id": "c", "status": "completed", "name": "apply_patch", "input": "p",
            "call_id": "p"}),
        json!({"type": "custom_tool_call_output", "call_id": "p", "output": "done"}),
        json!({"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search"}}),
        // Interrupted, or never shown to the client.
        json!({"type": "function_call", "name": "exec_command", "arguments": "{}", "call_id": "unfinished"}),
        json!({"type": "function_call_output", "call_id": "nobody's", "output": "x"}),
        json!({"type": "ghost_snapshot"}),
        json!({"type": "custom_tool_call", "id": "c", "name": "apply_patch", "input": "q", "call_id": "beside"}),
        json!({"type": "function_call", "id": "fc", "status": "completed", "name": "f", "arguments": "{}",
            "call_id": "1", "namespace": null}),
        // What Codex says for the client when it is interrupted.
        json!({"type": "function_call_output", "call_id": "1", "output": "aborted"}),
        // What Codex did beside it, and heard of only behind the client's call.
        json!({"type": "custom_tool_call_output", "call_id": "beside", "output": "done too"}),
        json!({"type": "message", "role": "assistant", "content": []}),
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<turn_aborted>"}]}),
        json!({"type": "reasoning", "summary": [], "encrypted_content": "led to nothing"}),
    ];
    memory.remember(here, &[call("1")], items);
    let expected = json!([
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "E"},
        {"type": "message", "role": "assistant", "phase": "commentary",
            "content": [{"type": "output_text", "text": "t"}]},
        {"type": "custom_tool_call", "name": "apply_patch", "input": "p", "call_id": "p"},
        {"type": "custom_tool_call_output", "call_id": "p", "output": "done"},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
        {"type": "custom_tool_call", "name": "apply_patch", "input": "q", "call_id": "beside"},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"},
        {"type": "custom_tool_call_output", "call_id": "beside", "output": "done too"},
    ]);
    assert_eq!(json!(memory.recall(here, "1").unwrap().items), expected);
}

#[test]
fn a_turn_without_its_calls_is_not_remembered() {
    let memory = TurnCache::new(4, 10_000);
    let here = place(&memory, &[]);
    memory.remember(here, &[], vec![item("1")]);
    memory.remember(here, &[call("1"), call("2")], vec![item("1")]);
    // In code mode a call is a line of a program.
    let exec = json!({"type": "custom_tool_call", "name": "exec", "input": "f()", "call_id": "x"});
    memory.remember(here, &[call("exec-1")], vec![exec]);
    assert_eq!(["1", "2", "exec-1"].map(|id| memory.recall(here, id).is_some()), [false; 3]);
}
