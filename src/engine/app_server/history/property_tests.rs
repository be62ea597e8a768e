//! Tests that random histories are injected with every text and call once, in order and with its role.

use std::collections::HashSet;

use proptest::{collection::vec, option, prelude::*, sample};

use super::{
    tests::{call, history, message, result},
    *,
};

#[derive(Debug, Clone)]
enum ClientStep {
    /// A message.
    Message(Role, String, Option<String>),
    /// Calls of the functions with these names. The results follow in the order of the keys.
    Calls(String, Vec<(String, u32)>),
}

fn text() -> impl Strategy<Value = String> {
    "[ -~é世👩\n]{0,12}"
}

fn step() -> impl Strategy<Value = ClientStep> {
    let role = sample::select(vec![Role::System, Role::Developer, Role::User, Role::User, Role::Assistant]);
    let name = sample::select(vec![
        "get",
        "set-it",
        "exec_command",
        "client_exec_command",
        "mcp__a__b",
        "a.b",
        "a b",
    ]);
    let called = vec((name.prop_map(str::to_owned), any::<u32>()), 1..4);
    prop_oneof![
        3 => (role, text(), option::of("[a-z]{1,5}")).prop_map(|(role, text, name)| ClientStep::Message(role, text, name)),
        1 => (text(), called).prop_map(|(text, called)| ClientStep::Calls(text, called)),
    ]
}

/// Returns the messages of the steps. Each text has a unique number.
fn messages(steps: &[ClientStep]) -> Vec<Message> {
    let mut messages = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            ClientStep::Message(role, text, name) => {
                messages.push(Message { name: name.clone(), ..message(*role, &format!("<{number}>{text}")) });
            }
            ClientStep::Calls(text, called) => {
                let id = |index: usize| format!("call_{number}_{index}");
                let calls = called.iter().enumerate();
                let calls =
                    calls.map(|(index, (name, _))| call(&id(index), name, &format!("{{\"n\":{number}}}")));
                let with_text = message(Role::Assistant, text);
                messages.push(Message { tool_calls: calls.collect(), ..with_text });
                let mut order: Vec<usize> = (0..called.len()).collect();
                order.sort_by_key(|index| called[*index].1);
                let results = order.into_iter().map(|index| result(&id(index), &format!("<{}>", id(index))));
                messages.extend(results);
            }
        }
    }
    messages
}

/// Describes the expected items of a message with one line for each item.
fn expected(message: &Message, tools: &ToolSet) -> Vec<String> {
    let text: String = message.parts.iter().map(text_of).collect();
    let text = match &message.name {
        Some(name) => format!("{name}: {text}"),
        None => text,
    };
    let line = match message.role {
        Role::System | Role::Developer => Some(format!("developer {text}")),
        Role::User => Some(format!("user {text}")),
        Role::Assistant => (!text.is_empty()).then(|| format!("assistant {text}")),
        Role::Tool => Some(format!("result {} {text}", message.tool_call_id.as_deref().unwrap())),
    };
    let calls = message.tool_calls.iter();
    let calls = calls.map(|call| format!("call {} {} {}", call.id, tools.alias(&call.name), call.arguments));
    line.into_iter().chain(calls).collect()
}

/// Describes an item.
fn line(item: &RawItem) -> String {
    let item = item.as_value();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match item["type"].as_str().unwrap() {
        "message" => {
            assert_eq!(item["content"].as_array().unwrap().len(), 1);
            assert_eq!(item["content"][0]["type"] == "output_text", item["role"] == "assistant");
            format!("{} {}", text(&item["role"]), text(&item["content"][0]["text"]))
        }
        "function_call" => {
            format!("call {} {} {}", text(&item["call_id"]), text(&item["name"]), text(&item["arguments"]))
        }
        "function_call_output" => format!("result {} {}", text(&item["call_id"]), text(&item["output"])),
        other => panic!("{other}"),
    }
}

proptest! {
    #[test]
    fn random_history_injects_every_text_and_call_once_in_order_with_its_role(steps in vec(step(), 1..12)) {
        let turn = Turn { messages: messages(&steps), parallel_tool_calls: true, ..Turn::default() };
        let tools = ToolSet::new(&turn).unwrap();
        let history = history(&turn, &TurnCache::new(1, 1));

        let leading = turn.messages.iter().take_while(|m| matches!(m.role, Role::System | Role::Developer)).count();
        let lines = |messages: &[Message]| -> Vec<String> {
            messages.iter().flat_map(|message| expected(message, &tools)).collect()
        };
        let (mut lead, mut rest) = (lines(&turn.messages[..leading]), lines(&turn.messages[leading..]));
        if rest.is_empty() {
            rest.extend(lead.pop());
        }
        let lead: Vec<&str> = lead.iter().map(|line| line.strip_prefix("developer ").unwrap()).collect();
        prop_assert_eq!(developer_instructions(&turn, &tools).unwrap_or_default(), lead.join("\n\n"));
        prop_assert_eq!(history.items.iter().map(line).collect::<Vec<_>>(), rest);
    }

    #[test]
    fn random_tool_names_have_unique_aliases_that_resolve_to_them(steps in vec(step(), 1..12)) {
        let turn = Turn { messages: messages(&steps), ..Turn::default() };
        let tools = ToolSet::new(&turn).unwrap();
        let names: HashSet<&str> =
            turn.messages.iter().flat_map(|m| &m.tool_calls).map(|call| call.name.as_str()).collect();
        let mut seen = HashSet::new();
        for name in names {
            let alias = tools.alias(name);
            prop_assert!(!alias.starts_with("mcp__") && alias != "exec_command");
            prop_assert!(alias.len() <= 64 && alias.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)));
            prop_assert_eq!(tools.original(&alias), name);
            prop_assert!(seen.insert(alias.into_owned()));
        }
    }
}
