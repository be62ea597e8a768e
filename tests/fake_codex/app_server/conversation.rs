//! Answers that depend on the whole history, for tests that compare continued and fresh conversations.
//!
//! The text contains no ids and no reasoning. It is therefore the same for two histories that differ only in whether the
//! thread was continued.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    act::{Act, message, split_words},
    failures, history,
    script::{self, TurnInput},
    wire::Usage,
};

/// The usage of each response.
const USAGE: Usage = Usage::new(100, 40, 5);

/// The run time of the commands of the agent.
const OWN_TIME: Duration = Duration::from_millis(20);

/// The maximum number of characters of an unabbreviated text in a transcript. A transcript that contains former
/// transcripts would double its length with each turn.
const MAX_CHARS: usize = 80;

/// One directive, or the mark between two responses.
#[derive(Debug, Clone, PartialEq)]
struct Directive<'a> {
    verb: &'a str,
    rest: &'a str,
}

/// A call that a response contains.
type Call = (String, Value);

/// Returns one line for each setting and item that the model gets.
pub(crate) fn transcript(turn_input: &TurnInput) -> String {
    lines(turn_input).iter().map(|line| abbreviate(line)).collect::<Vec<_>>().join("\n")
}

/// Returns the acts of a response that follows the directives in the last user message.
///
/// Directives are enclosed in `@@`. `then` begins the next response, which the model sends after the outputs. The history
/// determines the response, so that the client may also replay it.
pub(crate) fn acts(turn_input: &TurnInput) -> Vec<Act> {
    let items = history::sent_to_model(&turn_input.items);
    let is_user = |item: &Value| item["type"] == "message" && item["role"] == "user";
    let at = items.iter().rposition(is_user);
    let text = at.map(|at| history::text_of(&items[at]["content"])).unwrap_or_default();
    let directives = parse(&text);
    let mut made: Vec<Call> = items.iter().skip(at.unwrap_or_default()).filter_map(made_call).collect();
    let mut groups = directives.split(|directive| directive.verb == "then");
    let current = groups.find(|group| !remove_calls(&mut made, group)).unwrap_or_default();
    response(current, turn_input)
}

/// Splits a text into its directives.
fn parse(text: &str) -> Vec<Directive<'_>> {
    let parts: Vec<&str> = text.split("@@").collect();
    // The part after the last mark is no directive.
    let inner = parts.iter().skip(1).step_by(2).take(parts.len().saturating_sub(1) / 2);
    inner.map(|part| split_verb(part.trim())).collect()
}

fn split_verb(text: &str) -> Directive<'_> {
    let (verb, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    Directive { verb, rest }
}

/// Returns the call that a directive asks for.
fn wanted_call(directive: &Directive<'_>) -> Option<Call> {
    match directive.verb {
        "call" => {
            let Directive { verb, rest } = split_verb(directive.rest);
            Some((verb.to_owned(), serde_json::from_str(rest).unwrap_or_else(|_| json!({}))))
        }
        "run" => Some(("exec_command".to_owned(), json!({"cmd": directive.rest}))),
        _ => None,
    }
}

fn made_call(item: &Value) -> Option<Call> {
    (item["type"] == "function_call").then_some(())?;
    let arguments = serde_json::from_str(item["arguments"].as_str()?).ok()?;
    Some((item["name"].as_str()?.to_owned(), arguments))
}

/// Removes the calls of a response from those of the history. Returns `false` if the history has none of them.
fn remove_calls(made: &mut Vec<Call>, group: &[Directive<'_>]) -> bool {
    let before = made.len();
    for wanted in group.iter().filter_map(wanted_call) {
        if let Some(at) = made.iter().position(|call| *call == wanted) {
            made.remove(at);
        }
    }
    made.len() < before
}

/// Returns the acts of one response. Without text and calls, the text is a digest of the history.
fn response(group: &[Directive<'_>], turn_input: &TurnInput) -> Vec<Act> {
    let offered = script::offered(turn_input);
    let mut acts = Vec::new();
    let (mut calls, mut own, mut has_text) = (false, false, false);
    for directive in group {
        let rest = directive.rest;
        match directive.verb {
            "think" => acts.push(Act::Reasoning { summary: split_words(rest), raw: None }),
            "wait" => acts.push(Act::Pause(Duration::from_millis(rest.parse().unwrap_or_default()))),
            "hang" => acts.push(Act::Hang),
            "call" => {
                let Directive { verb: tool, rest: arguments } = split_verb(rest);
                if offered.iter().any(|offered| offered["name"] == tool) {
                    acts.push(Act::Call { tool: tool.to_owned(), arguments: json_or_empty(arguments) });
                    calls = true;
                }
            }
            "run" => {
                acts.push(Act::OwnCall { command: rest.to_owned() });
                own = true;
            }
            "fail" => {
                let kind = if rest.is_empty() { "500" } else { rest };
                acts.extend(failures::from_kind(kind).map(Act::Fail));
                return acts;
            }
            "cut" => {
                let text = if rest.is_empty() { "the beginning of" } else { rest };
                acts.push(Act::Open(None));
                acts.extend(split_words(text).into_iter().map(Act::Delta));
                acts.extend(failures::from_kind("cut").map(Act::Fail));
                return acts;
            }
            verb => {
                let text = match verb {
                    "text" => rest.to_owned(),
                    "transcript" => transcript(turn_input),
                    _ => format!("unknown directive `{verb}`"),
                };
                acts.extend(message(split_words(&text), None));
                has_text = true;
            }
        }
    }
    if !calls && !own {
        if !has_text {
            acts.extend(message(split_words(&digest(turn_input)), None));
        }
        acts.extend([Act::Response(USAGE), Act::ReportUsage, Act::Finish]);
        return acts;
    }
    acts.push(Act::Response(USAGE));
    if own {
        acts.extend([Act::StartOwn, Act::Pause(OWN_TIME), Act::FinishOwn]);
    }
    acts.push(Act::Await(Box::new(|_| vec![Act::CallModel])));
    acts
}

fn json_or_empty(arguments: &str) -> String {
    let is_json = serde_json::from_str::<Value>(arguments).is_ok();
    if is_json { arguments.to_owned() } else { "{}".to_owned() }
}

/// Returns a short text that differs for different histories.
fn digest(turn_input: &TurnInput) -> String {
    let items = history::sent_to_model(&turn_input.items);
    format!("{} items {}", item_lines(&items).len(), hash(&lines(turn_input).join("\n")))
}

/// Returns the settings and items that the model gets.
fn lines(turn_input: &TurnInput) -> Vec<String> {
    let instructions = turn_input.thread_start["developerInstructions"].as_str();
    let mut lines: Vec<String> =
        instructions.map(|text| format!("instructions: {text}")).into_iter().collect();
    let offered = script::offered(turn_input);
    let names: Vec<&str> = offered.iter().filter_map(|tool| tool["name"].as_str()).collect();
    if !names.is_empty() {
        lines.push(format!("tools: {}", names.join(", ")));
    }
    lines.push(format!("effort: {}", turn_input.effort));
    let schema = &turn_input.turn_start["outputSchema"];
    if schema.is_object() {
        lines.push(format!("schema: {}", canonical(schema)));
    }
    lines.extend(item_lines(&history::sent_to_model(&turn_input.items)));
    lines
}

/// Returns the items without ids. Calls are numbered, and consecutive outputs are in the order of their calls.
fn item_lines(items: &[Value]) -> Vec<String> {
    let calls: Vec<&Value> = items.iter().filter(|item| item["type"] == "function_call").collect();
    let number = |item: &Value| {
        calls.iter().position(|call| call["call_id"] == item["call_id"]).map_or(0, |at| at + 1)
    };
    let mut lines: Vec<String> = Vec::new();
    let mut outputs: Vec<(usize, String)> = Vec::new();
    for item in items {
        if item["type"] == "function_call_output" {
            outputs.push((number(item), output(&item["output"])));
            continue;
        }
        lines.extend(sorted(&mut outputs));
        match item["type"].as_str().unwrap_or_default() {
            "message" => lines.extend(message_line(item)),
            "function_call" => {
                let text = item["arguments"].as_str().unwrap_or_default();
                let arguments =
                    serde_json::from_str(text).map_or_else(|_| text.to_owned(), |value| canonical(&value));
                let name = item["name"].as_str().unwrap_or_default();
                lines.push(format!("call {}: {name}({arguments})", number(item)));
            }
            // The client does not get the encrypted content.
            "reasoning" => {}
            other => lines.push(format!("{other}: {}", item["status"])),
        }
    }
    lines.extend(sorted(&mut outputs));
    lines
}

fn sorted(outputs: &mut Vec<(usize, String)>) -> Vec<String> {
    outputs.sort();
    outputs.drain(..).map(|(number, text)| format!("output {number}: {text}")).collect()
}

/// Returns the line of a message. Codex adds some messages to a thread itself, and a client may omit an empty answer or
/// change white space at the end of a message.
fn message_line(item: &Value) -> Option<String> {
    let role = item["role"].as_str().unwrap_or_default();
    let text = parts(&item["content"]).concat();
    let is_added = |mark: &str| text.starts_with(mark);
    if ["<environment_context>", "<permissions instructions>"].into_iter().any(is_added) {
        return None;
    }
    let text = text.trim_end();
    (role != "assistant" || !text.is_empty()).then(|| format!("{role}: {text}"))
}

/// Returns an output that is a text as it is, and parts in brackets.
fn output(output: &Value) -> String {
    if output.is_array() { format!("[{}]", parts(output).join(" | ")) } else { history::text_of(output) }
}

/// Returns the texts and images of content.
fn parts(content: &Value) -> Vec<String> {
    let part = |part: &Value| match part["image_url"].as_str() {
        Some(url) => format!("image {}", hash(url)),
        None => part["text"].as_str().unwrap_or_default().to_owned(),
    };
    content.as_array().into_iter().flatten().map(part).collect()
}

/// Returns JSON with sorted keys.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut members: Vec<String> =
                members.iter().map(|(name, value)| format!("{}:{}", json!(name), canonical(value))).collect();
            members.sort();
            format!("{{{}}}", members.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn abbreviate(line: &str) -> String {
    let line = line.replace('\n', " ");
    if line.chars().count() <= MAX_CHARS {
        return line;
    }
    let beginning: String = line.chars().take(MAX_CHARS / 2).collect();
    format!("{beginning}… {}", hash(&line))
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
