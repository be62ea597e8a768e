use serde_json::json;

use super::*;
use crate::config::Profile;

fn user_message(text: &str) -> Message {
    Message {
        role: Role::User,
        name: None,
        parts: vec![Part::Text(text.into())],
        tool_calls: vec![],
        tool_call_id: None,
    }
}

/// Returns the key of the position after these messages.
fn key(cache: &TurnCache, messages: &[Message]) -> ConversationKey {
    let turn = Turn { model: "m".into(), messages: messages.to_vec(), ..Turn::default() };
    cache.key(&turn)
}

fn call(id: &str) -> pb::ToolCall {
    pb::ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() }
}

fn item(id: &str) -> RawItem {
    RawItem::from(json!({"type": "function_call", "name": "f", "arguments": "{}", "call_id": id}))
}

/// Inserts a turn with one call.
fn insert_one(cache: &TurnCache, key: ConversationKey, id: &str) {
    cache.insert(key, &[call(id)], vec![item(id)]);
}

#[test]
fn get_returns_a_turn_for_each_of_its_calls_and_its_key_only() {
    let cache = TurnCache::new(4, 10_000);
    let position = key(&cache, &[user_message("a"), user_message("b")]);
    cache.insert(position, &[call("1"), call("2")], vec![item("1"), item("2")]);
    for id in ["1", "2"] {
        assert_eq!(cache.get(position, id).unwrap().items, [item("1"), item("2")]);
    }
    assert!(cache.get(position, "3").is_none());
    assert!(cache.get(key(&cache, &[user_message("b"), user_message("a")]), "1").is_none());
    assert!(cache.get(key(&cache, &[user_message("a"), user_message("b \n")]), "1").is_some());
    // A client may have dropped the oldest messages.
    assert!(cache.get(key(&cache, &[user_message("b")]), "1").is_some());
}

#[test]
fn get_with_another_caller_model_profile_or_text_returns_none() {
    let cache = TurnCache::new(4, 10_000);
    let instructs = |role, text: &str| Message { role, ..user_message(text) };
    let messages =
        vec![instructs(Role::System, "be kind"), user_message("a"), instructs(Role::Developer, "be brief")];
    let turn = Turn { model: "m".into(), messages, ..Turn::default() };
    let position = cache.key(&turn);
    insert_one(&cache, position, "1");
    let mut longer = turn.clone();
    longer.messages.push(Message { role: Role::Assistant, ..user_message("calls") });
    assert!(cache.get(cache.key(&longer), "1").is_some());
    let mut others = [turn.clone(), turn.clone(), turn.clone(), turn.clone(), turn.clone(), turn];
    others[0].model = "n".into();
    others[1].profile = Profile::Chat;
    others[2].caller = "another".into();
    for (index, other) in others[3..].iter_mut().enumerate() {
        other.messages[index].parts = vec![Part::Text("something else".into())];
    }
    for other in others {
        assert!(cache.get(cache.key(&other), "1").is_none(), "{other:?}");
    }
}

#[test]
fn insert_beyond_the_count_evicts_the_least_recently_used_turn() {
    let cache = TurnCache::new(2, 10_000);
    let position = key(&cache, &[]);
    insert_one(&cache, position, "1");
    insert_one(&cache, position, "2");
    assert!(cache.get(position, "1").is_some());
    insert_one(&cache, position, "3");
    let known = ["1", "2", "3"].map(|id| cache.get(position, id).is_some());
    assert_eq!(known, [true, false, true]);
}

#[test]
fn insert_beyond_the_size_evicts_turns_and_frees_their_bytes() {
    let one = heap_size(&item("1")) + heap_size_of_call(&call("1"));
    let cache = TurnCache::new(100, 2 * one);
    let position = key(&cache, &[]);
    for id in 0..50 {
        insert_one(&cache, position, &(id % 10).to_string());
    }
    let known = (0..10).filter(|id| cache.get(position, &id.to_string()).is_some()).count();
    assert_eq!(known, 2);
    let index = cache.index();
    assert_eq!((index.bytes, index.turns.len(), index.by_call.len()), (2 * one, 2, 2));
    drop(index);
    // A turn that exceeds the size of the cache is dropped and evicts nothing.
    cache.insert(position, &[call("1"), call("2"), call("3")], vec![item("1"), item("2"), item("3")]);
    assert_eq!(cache.index().turns.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn get_after_the_maximum_age_returns_none() {
    let cache = TurnCache::new(4, 10_000);
    let position = key(&cache, &[]);
    insert_one(&cache, position, "1");
    insert_one(&cache, position, "2");
    tokio::time::advance(MAX_IDLE_AGE - Duration::from_secs(1)).await;
    assert!(cache.get(position, "1").is_some());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(cache.get(position, "2").is_none());
    assert!(cache.get(position, "1").is_some());
    tokio::time::advance(MAX_IDLE_AGE + Duration::from_secs(1)).await;
    insert_one(&cache, position, "3");
    let index = cache.index();
    assert_eq!((index.turns.len(), index.by_call.len()), (1, 1));
}

#[test]
fn heap_size_of_small_objects_exceeds_their_text() {
    let item = json!({"a": [{}, {"b": 1}, {"c": "text"}]});
    let text = item.to_string().len();
    let item = RawItem::from(item);
    assert!(heap_size(&item) > 40 * text, "{} for {text} bytes of text", heap_size(&item));
    let long = json!("x".repeat(100_000));
    assert!((100_000..100_100).contains(&heap_size(&long.into())));
}

#[test]
fn insert_with_a_reused_call_id_replaces_the_turn() {
    let cache = TurnCache::new(2, 10_000);
    let position = key(&cache, &[]);
    insert_one(&cache, position, "1");
    let reasoning = json!({"type": "reasoning", "summary": [], "encrypted_content": "E"});
    cache.insert(position, &[call("1")], vec![reasoning.into(), item("1")]);
    assert_eq!(cache.get(position, "1").unwrap().items.len(), 2);
    // The eviction of the former turn keeps the index entry of the latter.
    insert_one(&cache, position, "2");
    assert_eq!(cache.get(position, "1").unwrap().items.len(), 2);
}

#[test]
fn insert_keeps_only_items_that_can_be_injected() {
    let cache = TurnCache::new(4, 100_000);
    let position = key(&cache, &[]);
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
        // A call that was interrupted or never sent to the client.
        json!({"type": "function_call", "name": "exec_command", "arguments": "{}", "call_id": "unfinished"}),
        json!({"type": "function_call_output", "call_id": "unknown", "output": "x"}),
        json!({"type": "ghost_snapshot"}),
        json!({"type": "custom_tool_call", "id": "c", "name": "apply_patch", "input": "q", "call_id": "beside"}),
        json!({"type": "function_call", "id": "fc", "status": "completed", "name": "f", "arguments": "{}",
            "call_id": "1", "namespace": null}),
        // Codex's output for the client call after an interrupt.
        json!({"type": "function_call_output", "call_id": "1", "output": "aborted"}),
        // The output of Codex's own call, which arrives after the client's call.
        json!({"type": "custom_tool_call_output", "call_id": "beside", "output": "done too"}),
        json!({"type": "message", "role": "assistant", "content": []}),
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<turn_aborted>"}]}),
        json!({"type": "reasoning", "summary": [], "encrypted_content": "led to nothing"}),
    ];
    cache.insert(position, &[call("1")], items.into_iter().map(RawItem::from).collect());
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
    assert_eq!(json!(cache.get(position, "1").unwrap().items), expected);
}

#[test]
fn insert_without_items_of_all_calls_keeps_nothing() {
    let cache = TurnCache::new(4, 10_000);
    let position = key(&cache, &[]);
    cache.insert(position, &[], vec![item("1")]);
    cache.insert(position, &[call("1"), call("2")], vec![item("1")]);
    // In code mode a call is a line of a program.
    let exec = json!({"type": "custom_tool_call", "name": "exec", "input": "f()", "call_id": "x"});
    cache.insert(position, &[call("exec-1")], vec![exec.into()]);
    assert_eq!(["1", "2", "exec-1"].map(|id| cache.get(position, id).is_some()), [false; 3]);
}
