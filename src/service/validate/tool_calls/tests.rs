use proptest::{collection::vec, prelude::*, sample};
use serde_json::Value;

use super::*;
use crate::{engine::Part, pb};

/// Histories that the integration tests also send through the doors.
const HISTORIES: &str = include_str!("../../../../tests/fixtures/histories.json");

fn message(role: Role, text: &str) -> Message {
    Message { role, name: None, parts: vec![Part::Text(text.into())], tool_calls: vec![], tool_call_id: None }
}

fn user() -> Message {
    message(Role::User, "u")
}

fn calls<'a>(ids: impl IntoIterator<Item = &'a str>) -> Message {
    let call = |id: &str| pb::ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() };
    Message { tool_calls: ids.into_iter().map(call).collect(), ..message(Role::Assistant, "") }
}

fn result(id: &str) -> Message {
    Message { tool_call_id: Some(id.into()), ..message(Role::Tool, "r") }
}

#[test]
fn check_calls_without_exactly_one_result_name_the_place() {
    let cases = [
        (vec![user(), calls(["a"])], "messages[1].tool_calls[0]"),
        (vec![user(), calls(["a", "b"]), result("a")], "messages[1].tool_calls[1]"),
        (vec![user(), calls(["a", "b", "c"]), result("b"), user()], "messages[1].tool_calls[0]"),
        (vec![user(), calls(["a"]), user(), result("a")], "messages[1].tool_calls[0]"),
        (vec![user(), calls(["a"]), calls(["b"]), result("b")], "messages[1].tool_calls[0]"),
        (vec![user(), result("a")], "messages[1].tool_call_id"),
        (vec![result("a"), calls(["a"])], "messages[0].tool_call_id"),
        (vec![user(), calls(["a"]), result("b")], "messages[2].tool_call_id"),
        (vec![user(), calls(["a"]), result("a"), result("a")], "messages[3].tool_call_id"),
        (vec![user(), calls(["a"]), result("a"), user(), result("a")], "messages[4].tool_call_id"),
        (vec![user(), calls(["a", "a"]), result("a"), result("a")], "messages[1].tool_calls[1].id"),
    ];
    for (messages, expected) in cases {
        match check(&messages) {
            Err(Error::InvalidArgument { field, message }) => {
                assert_eq!(field, expected, "{message}");
                assert!(message.contains("messages[") || message.contains("call"), "{message}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn check_ids_repeated_in_later_messages_are_accepted() {
    // Some services number the calls of each message from zero.
    check(&[user(), calls(["0"]), result("0"), calls(["0"]), result("0")]).unwrap();
}

#[test]
fn check_table_of_histories_is_accepted() {
    let table: Vec<Value> = serde_json::from_str(HISTORIES).unwrap();
    assert!(table.len() >= 30);
    for row in table {
        let messages: Vec<Message> = row["messages"].as_array().unwrap().iter().map(skeleton).collect();
        check(&messages).unwrap_or_else(|error| panic!("{}: {error}", row["name"]));
    }
}

/// Returns a message with the role and the ids of an OpenAI message.
fn skeleton(message: &Value) -> Message {
    let ids = message["tool_calls"].as_array().into_iter().flatten();
    match message["role"].as_str().unwrap() {
        "tool" => result(message["tool_call_id"].as_str().unwrap()),
        "assistant" => calls(ids.map(|call| call["id"].as_str().unwrap())),
        _ => user(),
    }
}

/// Generates messages: an assistant message with one call per key, whose results are ordered by the keys, or a user
/// message without keys.
fn steps() -> impl Strategy<Value = Vec<Vec<u32>>> {
    vec(vec(any::<u32>(), 0..4), 0..5)
}

fn messages(steps: &[Vec<u32>]) -> Vec<Message> {
    let mut messages = Vec::new();
    for (number, keys) in steps.iter().enumerate() {
        if keys.is_empty() {
            messages.push(user());
            continue;
        }
        let ids: Vec<String> = (0..keys.len()).map(|index| format!("call_{number}_{index}")).collect();
        messages.push(calls(ids.iter().map(String::as_str)));
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|index| keys[*index]);
        messages.extend(order.into_iter().map(|index| result(&ids[index])));
    }
    messages
}

proptest! {
    #[test]
    fn check_results_in_any_order_are_accepted(steps in steps()) {
        prop_assert!(check(&messages(&steps)).is_ok());
    }

    #[test]
    fn check_history_broken_at_one_place_is_refused(
        before in steps(),
        called in vec(any::<u32>(), 1..4),
        after in steps(),
        at in any::<sample::Index>(),
        how in 0..5,
    ) {
        let steps: Vec<Vec<u32>> = before.into_iter().chain([called]).chain(after).collect();
        let mut messages = messages(&steps);
        let results: Vec<usize> =
            (0..messages.len()).filter(|place| messages[*place].role == Role::Tool).collect();
        let place = *at.get(&results);
        match how {
            0 => _ = messages.remove(place),
            1 => messages.insert(place, messages[place].clone()),
            2 => messages[place].tool_call_id = Some("unknown_call".into()),
            3 => messages.insert(place, user()),
            _ => {
                let early = messages.remove(place);
                messages.insert(0, early);
            }
        }
        let refused = matches!(check(&messages), Err(Error::InvalidArgument { .. }));
        prop_assert!(refused, "{messages:#?}");
    }
}
