//! Random histories. The expected upstream request is computed here from the documented rules, independently of the
//! server.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use super::{DOORS, assert_sent, upstream_request_of};
use crate::support::{TestApp, with_app};
use crate::tools::{
    real_workers,
    upstream_request::{call, output},
};

const CASES: u32 = 40;

const PNG: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4z8AARAwQCgAf7gP9i18U1AAAAABJRU5ErkJggg==";

/// Functions by the client's name and by the name in the upstream request.
const NAMES: [(&str, &str); 5] = [
    ("get", "get"),
    ("set-it", "set-it"),
    ("exec_command", "client_exec_command"),
    ("mcp__a__b", "client_mcp__a__b"),
    ("a.b", "client_a_b"),
];

/// Parts of a message: texts, or images for `None`.
type Parts = Vec<Option<String>>;

#[derive(Debug, Clone)]
enum Step {
    Instruction(&'static str, String),
    UserMessage(Parts, Option<String>),
    AssistantMessage(String, Option<String>),
    /// A text, and calls with function index, argument, result, and a random number that orders the results.
    Calls(String, Vec<(usize, String, Parts, u32)>),
}

fn text() -> impl Strategy<Value = String> {
    // The first character is a letter, because messages of Codex begin with `<`.
    "[a-zé世👩][ -?A-~é世👩\n]{0,12}"
}

fn parts() -> impl Strategy<Value = Parts> {
    vec(prop_oneof![3 => text().prop_map(Some), 1 => Just(None)], 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let name = || option::of("[a-z]{1,5}");
    let calls = vec((0..NAMES.len(), text(), parts(), any::<u32>()), 1..4);
    prop_oneof![
        (sample::select(vec!["system", "developer"]), text())
            .prop_map(|(role, text)| Step::Instruction(role, text)),
        (parts(), name()).prop_map(|(parts, name)| Step::UserMessage(parts, name)),
        (text(), name()).prop_map(|(text, name)| Step::AssistantMessage(text, name)),
        (option::of(text()), calls).prop_map(|(text, calls)| Step::Calls(text.unwrap_or_default(), calls)),
    ]
}

/// Converts parts to OpenAI content.
fn content(parts: &Parts) -> Value {
    let part = |part: &Option<String>| match part {
        Some(text) => json!({"type": "text", "text": text}),
        None => json!({"type": "image_url", "image_url": {"url": PNG}}),
    };
    parts.iter().map(part).collect()
}

/// Converts parts to content of an upstream request.
fn input_parts(parts: &Parts) -> Vec<Value> {
    let part = |part: &Option<String>| match part {
        Some(text) => json!({"type": "input_text", "text": text}),
        None => json!({"type": "input_image", "image_url": PNG}),
    };
    parts.iter().map(part).collect()
}

fn message(role: &str, kind: &str, text: &str) -> Value {
    json!({"type": "message", "role": role, "content": [{"type": kind, "text": text}]})
}

/// Returns a message with the name of its author before the text.
fn named(name: Option<&String>, text: &str) -> String {
    name.map_or_else(|| text.to_owned(), |name| format!("{name}: {text}"))
}

/// Returns the messages of the steps, the instructions before the conversation, and the expected items.
fn history(steps: &[Step]) -> (Vec<Value>, Option<String>, Vec<Value>) {
    let (mut messages, mut lead, mut items) = (Vec::new(), Vec::new(), Vec::new());
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Instruction(role, text) => {
                messages.push(json!({"role": role, "content": text}));
                if items.is_empty() {
                    lead.push(text.clone());
                } else {
                    items.push(message("developer", "input_text", text));
                }
            }
            Step::UserMessage(parts, name) => {
                messages.push(json!({"role": "user", "content": content(parts), "name": name}));
                let mut content = input_parts(parts);
                if let Some(name) = name {
                    match parts.iter().position(Option::is_some) {
                        Some(first) => {
                            content[first]["text"] = named(Some(name), parts[first].as_ref().unwrap()).into();
                        }
                        None => content.insert(0, json!({"type": "input_text", "text": format!("{name}:")})),
                    }
                }
                items.push(json!({"type": "message", "role": "user", "content": content}));
            }
            Step::AssistantMessage(text, name) => {
                messages.push(json!({"role": "assistant", "content": text, "name": name}));
                items.push(message("assistant", "output_text", &named(name.as_ref(), text)));
            }
            Step::Calls(text, calls) => {
                let id = |index: usize| format!("call_{number}_{index}");
                let arguments = |text: &str| json!({"x": text}).to_string();
                let tool_calls = calls.iter().enumerate().map(|(index, (name, text, ..))| {
                    json!({"id": id(index), "type": "function",
                        "function": {"name": NAMES[*name].0, "arguments": arguments(text)}})
                });
                let tool_calls: Vec<Value> = tool_calls.collect();
                messages.push(json!({"role": "assistant", "content": text, "tool_calls": tool_calls}));
                items.extend((!text.is_empty()).then(|| message("assistant", "output_text", text)));
                let numbered = calls.iter().enumerate();
                items.extend(
                    numbered
                        .map(|(index, (name, text, ..))| call(NAMES[*name].1, &arguments(text), &id(index))),
                );
                let mut order: Vec<usize> = (0..calls.len()).collect();
                order.sort_by_key(|index| calls[*index].3);
                for index in order {
                    let parts = &calls[index].2;
                    messages
                        .push(json!({"role": "tool", "tool_call_id": id(index), "content": content(parts)}));
                    items.push(match &parts[..] {
                        [Some(text)] => output(&id(index), text.as_str()),
                        _ => output(&id(index), input_parts(parts)),
                    });
                }
            }
        }
    }
    if items.is_empty() {
        // A request needs at least one item. The last instruction then becomes the conversation.
        items.push(message("developer", "input_text", &lead.pop().unwrap()));
    }
    (messages, (!lead.is_empty()).then(|| lead.join("\n\n")), items)
}

// Proptest runs blocking closures, which need a multi-threaded runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn random_history_reaches_the_model_in_order_and_role() {
    // A random history may have more images than the default limit of eight.
    let config = || real_workers().env("CODEX_MAX_IMAGES", "100");
    with_app(config(), async |agent| {
        with_app(config().profile("chat"), async |chat| run_cases(agent, chat)).await;
    })
    .await;
}

fn run_cases(agent: &TestApp, chat: &TestApp) {
    let runtime = tokio::runtime::Handle::current();
    // Each shrink iteration runs turns, so their number is limited.
    let config =
        Config { cases: CASES, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    tokio::task::block_in_place(|| {
        TestRunner::new(config).run(&vec(step(), 1..10), |steps| {
            let (messages, instructions, items) = history(&steps);
            let is_chat = steps.len() % 2 == 0;
            let app = if is_chat { chat } else { agent };
            for door in DOORS {
                let body = json!({"model": "gpt-5.5", "messages": messages});
                assert_sent(
                    &runtime.block_on(upstream_request_of(app, door, &body)),
                    &items,
                    instructions.as_deref(),
                    is_chat,
                );
            }
            Ok(())
        })
    })
    .unwrap();
}
