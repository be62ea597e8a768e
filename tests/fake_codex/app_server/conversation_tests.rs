use serde_json::{Value, json};

use super::{Act, TurnInput, acts, digest, transcript};
use crate::app_server::version::Release;

fn turn_input(items: &[Value]) -> TurnInput {
    let mut turn_input = TurnInput::of_items(items);
    turn_input.thread_start["developerInstructions"] = json!("be kind");
    turn_input
}

fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}

fn assistant(text: &str) -> Value {
    json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
}

fn call(id: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "name": "f", "arguments": arguments, "call_id": id})
}

fn output(id: &str, output: &Value) -> Value {
    json!({"type": "function_call_output", "call_id": id, "output": output})
}

fn text(items: &[Value]) -> String {
    let acts = acts(&turn_input(items)).into_iter();
    acts.filter_map(|act| if let Act::Delta(text) = act { Some(text) } else { None }).collect()
}

fn calls(items: &[Value]) -> Vec<String> {
    let acts = acts(&turn_input(items)).into_iter();
    acts.filter_map(|act| if let Act::Call { arguments, .. } = act { Some(arguments) } else { None })
        .collect()
}

#[test]
fn transcript_has_a_line_for_each_item() {
    let items = [
        user("hello"),
        json!({"type": "reasoning", "summary": []}),
        call("x", r#"{"b": 1, "a": 2}"#),
        call("y", "{}"),
        output(
            "y",
            &json!([{"type": "input_text", "text": "two"}, {"type": "input_image", "image_url": "data:x"}]),
        ),
        output("x", &json!("one")),
        assistant(&"long ".repeat(30)),
    ];
    assert_eq!(
        transcript(&turn_input(&items)).lines().collect::<Vec<_>>(),
        [
            "instructions: be kind",
            "tools: f",
            "effort: low",
            "user: hello",
            r#"call 1: f({"a":2,"b":1})"#,
            "call 2: f({})",
            "output 1: one",
            "output 2: [two | image 83286fe6]",
            "assistant: long long long long long long… 27341a7c",
        ]
    );
}

#[test]
fn digest_ignores_what_a_client_cannot_replay() {
    let told =
        [user("a"), call("x", r#"{"b":1,"a":2}"#), output("x", &json!("r")), assistant("b "), user("c")];
    let kept = [
        user("<environment_context>here</environment_context>"),
        user("a"),
        json!({"type": "reasoning", "summary": []}),
        call("other", r#"{"a": 2, "b": 1}"#),
        output("other", &json!("r")),
        assistant("b"),
        user("c"),
    ];
    assert_eq!(digest(&turn_input(&told)), digest(&turn_input(&kept)));
    for other in [
        [user("a"), call("x", r#"{"b":1,"a":2}"#), output("x", &json!("R")), assistant("b"), user("c")],
        [user("a"), call("x", r#"{"b":1,"a":3}"#), output("x", &json!("r")), assistant("b"), user("c")],
        [user("A"), call("x", r#"{"b":1,"a":2}"#), output("x", &json!("r")), assistant("b"), user("c")],
    ] {
        assert_ne!(digest(&turn_input(&told)), digest(&turn_input(&other)));
    }
    let mut aborted = kept.to_vec();
    aborted.insert(6, user("<turn_aborted>\n</turn_aborted>"));
    assert_ne!(digest(&turn_input(&told)), digest(&turn_input(&aborted)));
}

#[test]
fn directives_select_the_response() {
    assert_eq!(text(&[user("hi @@text hello  there@@ you")]), "hello  there");
    assert_eq!(text(&[user("hi")]), digest(&turn_input(&[user("hi")])));
    assert_eq!(text(&[user("@@text not closed")]), digest(&turn_input(&[user("@@text not closed")])));
    assert_eq!(text(&[user("@@nope@@")]), "unknown directive `nope`");
    assert_eq!(calls(&[user(r#"@@call f {"a": 1}@@@@call g {}@@"#)]), [r#"{"a": 1}"#]);
    assert_eq!(text(&[user("@@call g {}@@")]), digest(&turn_input(&[user("@@call g {}@@")])));
    let failed = acts(&turn_input(&[user("@@cut one two@@")]));
    assert!(matches!(failed.last(), Some(Act::Fail(_))), "a failure");
    assert!(matches!(acts(&turn_input(&[user("@@fail@@")]))[..], [Act::Fail(_)]), "a failure");
}

#[test]
fn history_selects_the_response_after_calls() {
    let prompt = user(r#"@@call f {"a": 1}@@@@then@@@@text next@@@@call f {"a":1}@@@@then@@@@text end@@"#);
    let first = [call("x", r#"{"a":1}"#), output("x", &json!("r"))];
    let mut items = vec![user("before"), prompt];
    assert_eq!((calls(&items).len(), text(&items).as_str()), (1, ""));
    items.extend(first.clone());
    assert_eq!((calls(&items).len(), text(&items).as_str()), (1, "next"));
    items.extend([call("y", r#"{"a":1}"#), output("y", &json!("r"))]);
    assert_eq!((calls(&items).len(), text(&items).as_str()), (0, "end"));
    items.push(user("and now?"));
    assert_eq!(text(&items), digest(&turn_input(&items)));
}
