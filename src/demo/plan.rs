//! Turns a step into acts: events, pauses, an early end. The list is lazy, because a step may request a million tokens.
//! Pure.

use std::{iter, time::Duration};

use serde_json::{Value, json};

use super::{
    content::{StreamedMessage, messages},
    request::ParsedRequest,
    script::{Call, Step},
};

const DELTA: &str = "response.output_text.delta";
const ADDED: &str = "response.output_item.added";
pub(super) const DONE: &str = "response.output_item.done";
/// Output tokens per tool call.
const CALL_TOKENS: u64 = 10;
/// Characters per delta of slow arguments.
const SLOW_CHARS: usize = 8;

/// One act of a response.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    /// Send an event.
    Event(&'static str, Value),
    /// Wait.
    Pause(Duration),
    /// Close the socket in the middle of the response.
    Cut,
}

/// The acts in order. The stream ends with the last one.
pub(super) type Acts = Box<dyn Iterator<Item = Act> + Send>;

/// Returns whether an event is the last one of a response.
pub(super) fn is_end(name: &str) -> bool {
    matches!(name, "response.completed" | "response.incomplete" | "response.failed")
}

/// Returns the id of the response to a request.
pub(super) fn response_id(number: u64) -> String {
    format!("resp_{number}")
}

/// Adds the name and the number of an event to its data.
pub(super) fn numbered(name: &str, mut data: Value, sequence: &mut u64) -> Value {
    data["type"] = json!(name);
    data["sequence_number"] = json!(*sequence);
    *sequence += 1;
    data
}

/// Returns the acts of a warm-up: a response without output.
pub(super) fn warm_up(request: &ParsedRequest, number: u64) -> Acts {
    let ids = Ids { number, round: request.round };
    let mut ended = response(ids, request, "completed");
    ended["usage"] = json!({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0});
    let end = Act::Event("response.completed", json!({"response": ended}));
    Box::new([created(ids, request), end].into_iter())
}

/// Returns the acts of a remote compaction: one item in place of the whole conversation.
pub(super) fn compaction(request: &ParsedRequest, number: u64) -> Acts {
    let ids = Ids { number, round: request.round };
    let item = json!({"id": ids.item_id("cmp", 0), "type": "compaction",
        "encrypted_content": format!("demo-compaction-{number}")});
    let step = Step::default();
    let usage = usage(&step, request, &[]);
    let parts = [event(ADDED, 0, json!({"item": item.clone()})), event(DONE, 0, json!({"item": item}))];
    let begin = iter::once(created(ids, request));
    Box::new(begin.chain(parts).chain(end(&step, request, ids, &usage)))
}

/// Returns the acts of a step. Fails if the content cannot be built. `number` makes ids unique.
pub(super) fn acts(step: &Step, request: &ParsedRequest, number: u64) -> Result<Acts, String> {
    let messages = messages(step, request)?;
    let ids = Ids { number, round: request.round };
    let usage = usage(step, request, &messages);
    // A stream that breaks off in its last message never completes that message.
    let breaks_off = (step.eof || step.failed.is_some()) && step.calls.is_empty();

    // Each part is one output item; its position is its index.
    let mut parts: Vec<Acts> = Vec::new();
    if step.reasoning.is_some() || step.raw_reasoning.is_some() {
        parts.push(reasoning(ids, parts.len(), step, request.summary));
    }
    if let Some(query) = &step.search {
        parts.push(search(ids, parts.len(), query));
    }
    let last = messages.len();
    for (i, streamed) in messages.into_iter().enumerate() {
        parts.push(message(ids, parts.len(), streamed, breaks_off && i + 1 == last));
    }
    for (i, call) in step.calls.iter().enumerate() {
        parts.push(tool_call(ids, parts.len(), i, call, step.arguments_delay_ms));
    }
    let begin = iter::once(created(ids, request)).chain(pause(step.hang_after_ms));
    let acts: Acts =
        Box::new(begin.chain(parts.into_iter().flatten()).chain(end(step, request, ids, &usage)));
    Ok(match (step.cut_after, step.cut_after_events) {
        (Some(deltas), _) => Box::new(cut(acts, deltas, |name| name == DELTA)),
        (None, Some(events)) => Box::new(cut(acts, events, |_| true)),
        (None, None) => acts,
    })
}

/// The components of the ids of a response.
#[derive(Debug, Clone, Copy)]
struct Ids {
    number: u64,
    round: usize,
}

impl Ids {
    fn item_id(self, prefix: &str, index: usize) -> String {
        format!("{prefix}_{}_{index}", self.number)
    }
}

fn created(ids: Ids, request: &ParsedRequest) -> Act {
    Act::Event("response.created", json!({"response": response(ids, request, "in_progress")}))
}

fn response(ids: Ids, request: &ParsedRequest, status: &str) -> Value {
    json!({"id": response_id(ids.number), "object": "response", "status": status,
        "model": request.model, "output": []})
}

fn pause(ms: u64) -> Option<Act> {
    (ms > 0).then(|| Act::Pause(Duration::from_millis(ms)))
}

fn reasoning(ids: Ids, index: usize, step: &Step, summarized: bool) -> Acts {
    let Step { reasoning: summary, raw_reasoning: raw, delay_ms, .. } = step;
    let (delay_ms, summary) = (*delay_ms, &summary.clone().filter(|_| summarized));
    let id = ids.item_id("rs", index);
    let parts = |kind: &str, text: &Option<String>| {
        text.iter().map(|text| json!({"type": kind, "text": text})).collect::<Vec<_>>()
    };
    let mut done = json!({"id": id, "type": "reasoning", "summary": parts("summary_text", summary),
        "encrypted_content": format!("demo-encrypted-{}", ids.number)});
    if raw.is_some() {
        done["content"] = parts("reasoning_text", raw).into();
    }
    let added = event(ADDED, index, json!({"item": {"id": id, "type": "reasoning", "summary": []}}));
    let part = summary.as_ref().map(|_| {
        let part = json!({"item_id": id, "summary_index": 0, "part": {"type": "summary_text", "text": ""}});
        event("response.reasoning_summary_part.added", index, part)
    });
    let summary_id = id.clone();
    let summary = words(summary.as_deref()).flat_map(move |word| {
        let delta = json!({"item_id": summary_id, "summary_index": 0, "delta": word});
        paced(event("response.reasoning_summary_text.delta", index, delta), delay_ms)
    });
    let raw = words(raw.as_deref()).flat_map(move |word| {
        let delta = json!({"item_id": id, "content_index": 0, "delta": word});
        paced(event("response.reasoning_text.delta", index, delta), delay_ms)
    });
    let done = event(DONE, index, json!({"item": done}));
    Box::new(iter::once(added).chain(part).chain(summary).chain(raw).chain(iter::once(done)))
}

fn search(ids: Ids, index: usize, query: &str) -> Acts {
    let id = ids.item_id("ws", index);
    let item = |status: &str| json!({"id": id, "type": "web_search_call", "status": status});
    let mut done = item("completed");
    done["action"] = json!({"type": "search", "query": query});
    let added = event(ADDED, index, json!({"item": item("in_progress")}));
    Box::new([added, event(DONE, index, json!({"item": done}))].into_iter())
}

fn message(ids: Ids, index: usize, streamed: StreamedMessage, open: bool) -> Acts {
    let StreamedMessage { pieces, phase, delay_ms } = streamed;
    let id = ids.item_id("msg", index);
    let message_id = id.clone();
    let item = move |status: &str, content: Value| {
        let mut item = json!({"id": message_id, "type": "message", "role": "assistant", "status": status,
            "content": content});
        if let Some(phase) = &phase {
            item["phase"] = json!(phase);
        }
        json!({"item": item})
    };
    let added = event(ADDED, index, item("in_progress", json!([])));
    let whole = (!open).then(|| pieces.clone());
    let deltas = pieces.iter().flat_map(move |piece| {
        paced(event(DELTA, index, json!({"item_id": id, "content_index": 0, "delta": piece})), delay_ms)
    });
    let done = whole.into_iter().map(move |pieces| {
        let text = json!([{"type": "output_text", "text": pieces.text(), "annotations": []}]);
        event(DONE, index, item("completed", text))
    });
    Box::new(iter::once(added).chain(deltas).chain(done))
}

fn tool_call(ids: Ids, index: usize, i: usize, call: &Call, delay_ms: u64) -> Acts {
    let call_id = call.id.clone().unwrap_or_else(|| format!("call_s{}_{}_{i}", ids.round, ids.number));
    let (kind, field, prefix, input) = match &call.custom {
        Some(input) => ("custom_tool_call", "input", "ctc", input.clone()),
        None => ("function_call", "arguments", "fc", call.arguments()),
    };
    let id = ids.item_id(prefix, index);
    let item = |status: &str, input: &str| {
        let mut item = json!({"id": id, "type": kind, "status": status, "call_id": call_id, "name": call.name, field: input});
        if let Some(namespace) = &call.namespace {
            item["namespace"] = json!(namespace);
        }
        json!({"item": item})
    };
    let (delta, done) = match &call.custom {
        Some(_) => ("response.custom_tool_call_input.delta", "response.custom_tool_call_input.done"),
        None => ("response.function_call_arguments.delta", "response.function_call_arguments.done"),
    };
    let mut acts = vec![event(ADDED, index, item("in_progress", ""))];
    for piece in pieces_of_arguments(&input, delay_ms > 0) {
        let delta = event(delta, index, json!({"item_id": id, "call_id": call_id, "delta": piece}));
        acts.extend(paced(delta, delay_ms));
    }
    acts.push(event(done, index, json!({"item_id": id, "call_id": call_id, field: input})));
    acts.push(event(DONE, index, item("completed", &input)));
    Box::new(acts.into_iter())
}

/// Returns the final event of the response. `eof` has none.
fn end(step: &Step, request: &ParsedRequest, ids: Ids, usage: &Value) -> Option<Act> {
    if let Some(failed) = &step.failed {
        let mut failure = response(ids, request, "failed");
        failure["error"] = json!({"code": failed.code, "message": failed.message});
        return Some(Act::Event("response.failed", json!({"response": failure})));
    }
    if step.eof {
        return None;
    }
    let (name, status) = match step.incomplete {
        Some(_) => ("response.incomplete", "incomplete"),
        None => ("response.completed", "completed"),
    };
    let mut ended = response(ids, request, status);
    ended["usage"] = usage.clone();
    if let Some(reason) = step.incomplete {
        ended["incomplete_details"] = json!({"reason": reason.as_str()});
    }
    Some(Act::Event(name, json!({"response": ended})))
}

fn usage(step: &Step, request: &ParsedRequest, messages: &[StreamedMessage]) -> Value {
    let texts = [&step.reasoning, &step.raw_reasoning];
    let reasoning_words =
        texts.iter().filter_map(|t| t.as_deref()).map(|t| t.split_inclusive(' ').count()).sum::<usize>();
    let words = messages.iter().map(|message| message.pieces.len()).sum::<usize>();
    let reasoning = step.usage.reasoning.unwrap_or(reasoning_words as u64);
    let counted = words as u64 + reasoning + CALL_TOKENS * step.calls.len() as u64;
    let output = step.usage.output.unwrap_or(counted);
    let input = step.usage.input.unwrap_or(request.chars.div_ceil(4));
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": step.usage.cached.unwrap_or(0)},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input.saturating_add(output),
    })
}

/// Cuts after a number of the events that count: before the first for 0, instead of the end if there are fewer.
fn cut(mut acts: Acts, mut left: usize, counts: fn(&str) -> bool) -> impl Iterator<Item = Act> + Send {
    let (mut due, mut over) = (false, false);
    iter::from_fn(move || {
        if over {
            return None;
        }
        let act = if due { None } else { acts.next() };
        match act {
            Some(Act::Event(name, _)) if is_end(name) || (left == 0 && counts(name)) => {}
            None => {}
            Some(Act::Event(name, data)) => {
                if counts(name) {
                    left -= 1;
                    due = left == 0;
                }
                return Some(Act::Event(name, data));
            }
            Some(act @ (Act::Pause(_) | Act::Cut)) => return Some(act),
        }
        over = true;
        Some(Act::Cut)
    })
}

fn event(name: &'static str, index: usize, mut data: Value) -> Act {
    data["output_index"] = json!(index);
    Act::Event(name, data)
}

fn paced(event: Act, delay_ms: u64) -> impl Iterator<Item = Act> {
    iter::once(event).chain(pause(delay_ms))
}

fn words(text: Option<&str>) -> impl Iterator<Item = String> + Send + use<> {
    let words: Vec<String> =
        text.iter().flat_map(|text| text.split_inclusive(' ')).map(str::to_owned).collect();
    words.into_iter()
}

/// Returns the pieces of arguments, as models stream them: the halves, or pieces of a few characters.
fn pieces_of_arguments(text: &str, short: bool) -> Vec<String> {
    if short {
        let letters: Vec<char> = text.chars().collect();
        return letters.chunks(SLOW_CHARS).map(|piece| piece.iter().collect()).collect();
    }
    let (first, second) = text.split_at(text.floor_char_boundary(text.len() / 2));
    [first, second].into_iter().filter(|piece| !piece.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
