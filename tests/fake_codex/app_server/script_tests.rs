use serde_json::{Value, json};

use super::{Act, Release, TurnInput, acts};
use crate::app_server::scenario;

fn text(name: &str, items: &[Value]) -> String {
    let scenario = scenario::parse_model(name).expect(name);
    let acts = acts(&scenario, &TurnInput::of_items(items));
    acts.into_iter().filter_map(|act| if let Act::Delta(text) = act { Some(text) } else { None }).collect()
}

#[test]
fn turn_answers_the_last_message_or_its_outputs() {
    let user = |text: &str| json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]});
    let output = json!({"type": "function_call_output", "call_id": "c", "output": "25 C"});
    assert_eq!(text("fake:echo", &[user("no"), user("hello  there")]), "hello  there");
    assert_eq!(text("fake:tools:2", &[user("x"), output]), "The tools say: 25 C");
}

#[test]
fn text_has_the_requested_length() {
    assert_eq!(text("fake:text:40", &[]), "0123456789".repeat(4));
}

#[test]
fn usage_adds_up_to_that_of_exec() {
    let scenario = scenario::parse_model("fake:usage").expect("a scenario");
    let sum =
        acts(&scenario, &TurnInput::of_items(&[])).into_iter().fold(super::Usage::default(), |sum, act| {
            match act {
                Act::Response(usage) => sum.plus(usage),
                _ => sum,
            }
        });
    assert_eq!((sum.input, sum.cached, sum.cache_write, sum.output, sum.reasoning), (1200, 1000, 30, 50, 20));
}

#[test]
fn turn_ends_unless_its_scenario_hangs() {
    let endless = ["hang", "deaf", "mute-turn", "die", "crash", "exit0", "stop", "close-stdin", "grandchild"];
    for name in [
        "echo",
        "report",
        "text:9",
        "stream:2:1",
        "flood:10",
        "slow:1",
        "commentary",
        "items",
        "compaction",
        "reasoning",
        "usage",
        "unknown-model",
        "failed:401",
        "failed-after-text:cut",
        "reconnect:2:ok",
        "reconnect:1:429",
        "replay:1",
        "silent-retry:same",
        "silent-retry:other",
        "websocket-refused",
        "garbage",
        "badutf8",
        "longline:10",
        "babble:10",
        "stderr:10",
        "memory:1",
        "hang",
        "deaf",
        "mute-turn",
        "die",
        "crash",
        "exit0",
        "stop",
        "close-stdin",
        "grandchild",
    ] {
        let scenario = scenario::parse_name(name).expect(name);
        let last = acts(&scenario, &TurnInput::of_items(&[])).pop();
        let ends = matches!(last, Some(Act::Finish | Act::Fail(_)));
        assert_eq!(ends, !endless.contains(&name), "{name}");
    }
}
