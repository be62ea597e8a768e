//! Tests of the event sequences of steps.

use serde_json::{Value, json};

use super::{Act, acts};
use crate::demo::{request::ParsedRequest, script::Directive};

/// Returns the acts of a directive's only step.
fn plan(step: &Value) -> Vec<Act> {
    let text = format!("@@ {step} @@");
    let directive = Directive::find(&text).expect("well formed").expect("a directive");
    let request =
        ParsedRequest { model: "m".into(), round: 2, chars: 9, summary: true, ..ParsedRequest::default() };
    acts(&directive.steps[0], &request, 7).expect("acts").collect()
}

/// Summarizes acts: event names without `response.`, deltas with their text.
fn outline(acts: &[Act]) -> Vec<String> {
    let one = |act: &Act| match act {
        Act::Event(name, data) => {
            let name = name.trim_start_matches("response.");
            let shown = data["delta"].as_str().or(data["item"]["type"].as_str());
            shown.map_or_else(|| name.to_owned(), |shown| format!("{name} {shown}"))
        }
        Act::Pause(time) => format!("pause {}", time.as_millis()),
        Act::Cut => "cut".to_owned(),
    };
    acts.iter().map(one).collect()
}

fn event<'a>(acts: &'a [Act], wanted: &str) -> &'a Value {
    let found = acts.iter().rev().find_map(|act| match act {
        Act::Event(name, data) if *name == format!("response.{wanted}") => Some(data),
        Act::Event(..) | Act::Pause(_) | Act::Cut => None,
    });
    found.unwrap_or_else(|| panic!("no {wanted} in {acts:?}"))
}

#[test]
fn acts_of_a_text_stream_and_complete_it() {
    let acts = plan(&json!({"text": "a b", "delay_ms": 5, "phase": "final_answer"}));
    assert_eq!(
        outline(&acts),
        [
            "created",
            "output_item.added message",
            "output_text.delta a ",
            "pause 5",
            "output_text.delta b",
            "pause 5",
            "output_item.done message",
            "completed"
        ]
    );
    let item = &event(&acts, "output_item.done")["item"];
    assert_eq!((&item["id"], &item["phase"]), (&json!("msg_7_0"), &json!("final_answer")));
    assert_eq!(item["content"], json!([{"type": "output_text", "text": "a b", "annotations": []}]));
    let response = &event(&acts, "completed")["response"];
    assert_eq!((&response["id"], &response["model"]), (&json!("resp_7"), &json!("m")));
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5})
    );
}

#[test]
fn acts_of_all_keys_follow_the_order_of_a_real_response() {
    let acts = plan(&json!({
        "reasoning": "so it is", "raw_reasoning": "raw", "search": "q", "messages": [{"pieces": ["x", "y"]}, {"tokens": 1}],
        "calls": [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "custom": "in", "namespace": "n"}],
        "usage": {"input": 10, "cached": 4, "reasoning": 2}, "hang_after_ms": 9,
    }));
    assert_eq!(
        outline(&acts),
        [
            "created",
            "pause 9",
            "output_item.added reasoning",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta so ",
            "reasoning_summary_text.delta it ",
            "reasoning_summary_text.delta is",
            "reasoning_text.delta raw",
            "output_item.done reasoning",
            "output_item.added web_search_call",
            "output_item.done web_search_call",
            "output_item.added message",
            "output_text.delta x",
            "output_text.delta y",
            "output_item.done message",
            "output_item.added message",
            "output_text.delta tok0",
            "output_item.done message",
            "output_item.added function_call",
            "function_call_arguments.delta {\"a",
            "function_call_arguments.delta \":1}",
            "function_call_arguments.done",
            "output_item.done function_call",
            "output_item.added custom_tool_call",
            "custom_tool_call_input.delta i",
            "custom_tool_call_input.delta n",
            "custom_tool_call_input.done",
            "output_item.done custom_tool_call",
            "completed",
        ]
    );
    assert_eq!(event(&acts, "function_call_arguments.done")["call_id"], "call_s2_7_0");
    let custom = &event(&acts, "output_item.done")["item"];
    assert_eq!(
        (&custom["call_id"], &custom["input"], &custom["namespace"]),
        (&json!("call_s2_7_1"), &json!("in"), &json!("n"))
    );
    assert_eq!(event(&acts, "output_item.done")["output_index"], 5);
    let usage = &event(&acts, "completed")["response"]["usage"];
    // Three deltas, two pieces of reasoning, twice ten for the calls.
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(10), &json!(25)));
}

#[test]
fn acts_of_calls_alone_have_no_message() {
    let acts = plan(&json!({"calls": [{"name": "f", "arguments": ""}]}));
    let expected = [
        "created",
        "output_item.added function_call",
        "function_call_arguments.done",
        "output_item.done function_call",
        "completed",
    ];
    assert_eq!(outline(&acts), expected);
}

#[test]
fn acts_with_cut_end_after_its_delta_or_before_the_end() {
    let cut_after = |n: usize| outline(&plan(&json!({"text": "a b", "cut_after": n})));
    assert_eq!(cut_after(0), ["created", "output_item.added message", "cut"]);
    assert_eq!(cut_after(1), ["created", "output_item.added message", "output_text.delta a ", "cut"]);
    assert_eq!(cut_after(2).last().map(String::as_str), Some("cut"));
    assert!(!cut_after(2).contains(&"output_item.done message".to_owned()));
    assert_eq!(cut_after(9)[4..], ["output_item.done message", "cut"]);
    let call = outline(&plan(&json!({"calls": [{"name": "f"}], "cut_after": 1})));
    assert_eq!(call[call.len() - 2..], ["output_item.done function_call", "cut"]);
}

#[test]
fn acts_with_other_ends_have_their_events() {
    let eof = outline(&plan(&json!({"text": "a", "eof": true})));
    assert_eq!(eof, ["created", "output_item.added message", "output_text.delta a"]);

    let failed = plan(&json!({"text": "a", "failed": {"code": "server_error", "message": "no"}}));
    assert_eq!(outline(&failed), ["created", "output_item.added message", "output_text.delta a", "failed"]);
    let error = &event(&failed, "failed")["response"]["error"];
    assert_eq!(*error, json!({"code": "server_error", "message": "no"}));

    let incomplete = plan(&json!({"text": "a", "incomplete": "max_output_tokens"}));
    assert_eq!(outline(&incomplete)[3..], ["output_item.done message", "incomplete"]);
    let response = &event(&incomplete, "incomplete")["response"];
    assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(response["usage"]["output_tokens"], 1);
}

#[test]
fn acts_of_a_million_tokens_are_lazy() {
    let directive =
        Directive::find(r#"@@ {"tokens": 1000000, "delay_ms": 1} @@"#).expect("good").expect("one");
    let acts = acts(&directive.steps[0], &ParsedRequest::default(), 1).expect("acts");
    assert_eq!(outline(&acts.take(3).collect::<Vec<_>>())[2], "output_text.delta tok0 ");
}

#[test]
fn acts_with_slow_arguments_pause_after_each_piece() {
    let call = json!({"name": "f", "arguments": {"city": "Paris"}});
    let acts = plan(&json!({"calls": [call], "arguments_delay_ms": 5}));
    let expected = [
        "created",
        "output_item.added function_call",
        "function_call_arguments.delta {\"city\":",
        "pause 5",
        "function_call_arguments.delta \"Paris\"}",
        "pause 5",
        "function_call_arguments.done",
        "output_item.done function_call",
        "completed",
    ];
    assert_eq!(outline(&acts), expected);
}

#[test]
fn acts_with_cut_after_events_count_events_of_any_kind() {
    let cut = |events: usize| {
        let step = json!({"text": "a b", "delay_ms": 5, "cut_after_events": events});
        outline(&plan(&step))
    };
    assert_eq!(cut(0), ["cut"]);
    assert_eq!(cut(2), ["created", "output_item.added message", "cut"]);
    let all = cut(99);
    assert_eq!(all[all.len() - 2..], ["output_item.done message", "cut"]);
}
