//! The four routes of a request, and the outcome of a turn with calls.

use codex_api::pb::{self, chat_event::Event};
use serde_json::{Value, json};

use super::contract::contract;
use crate::support::{
    TestApp,
    grpc::collect_events,
    http::{answer_of_chunks, answer_of_completion},
};

/// The route of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Unary,
    Stream,
    Http,
    Sse,
}

pub const ROUTES: [Route; 4] = [Route::Unary, Route::Stream, Route::Http, Route::Sse];

/// A call as the client receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub id: String,
    pub name: String,
    pub arguments: String,
}

impl Call {
    pub fn from_proto(call: &pb::ToolCall) -> Self {
        Self { id: call.id.clone(), name: call.name.clone(), arguments: call.arguments.clone() }
    }

    pub fn from_json(call: &Value) -> Self {
        assert_eq!(call["type"], "function", "{call}");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{call}")).to_owned();
        Self {
            id: text(&call["id"]),
            name: text(&call["function"]["name"]),
            arguments: text(&call["function"]["arguments"]),
        }
    }
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub text: String,
    pub calls: Vec<Call>,
    pub finish_reason: String,
    /// Input, cached, output and reasoning tokens.
    pub usage: [u64; 4],
}

impl Outcome {
    /// Returns names and arguments of the calls.
    pub fn called(&self) -> Vec<(&str, &str)> {
        self.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect()
    }

    /// Returns the assistant message for the history of the client.
    pub fn message(&self) -> Value {
        let calls = self.calls.iter().map(|call| {
            json!({"id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": call.arguments}})
        });
        let content = if self.text.is_empty() { Value::Null } else { json!(self.text) };
        json!({"role": "assistant", "content": content, "tool_calls": calls.collect::<Vec<_>>()})
    }
}

/// Builds the result of a call.
pub fn tool_result(call: &Call, content: impl Into<Value>) -> Value {
    json!({"role": "tool", "tool_call_id": call.id, "content": content.into()})
}

impl TestApp {
    /// Sends a request over a route and returns its outcome. Panics if the request fails.
    pub async fn turn(&self, route: Route, body: &Value) -> Outcome {
        match route {
            Route::Unary => {
                let response = self.grpc().await.chat(contract(body)).await.unwrap().into_inner();
                outcome_of_response(&response)
            }
            Route::Stream => {
                let stream = self.grpc().await.stream_chat(contract(body)).await.unwrap();
                outcome_of_events(&collect_events(stream.into_inner()).await.unwrap())
            }
            Route::Http => outcome_of_completion(&self.complete(body).await),
            Route::Sse => outcome_of_chunks(&self.stream(body).await),
        }
    }
}

pub fn outcome_of_response(response: &pb::ChatResponse) -> Outcome {
    let choice = &response.choices[0];
    Outcome {
        text: choice.text.clone(),
        calls: choice.tool_calls.iter().map(Call::from_proto).collect(),
        finish_reason: reason(choice.finish_reason()),
        usage: usage(response.usage),
    }
}

pub fn outcome_of_events(events: &[pb::ChatEvent]) -> Outcome {
    let mut outcome =
        Outcome { text: String::new(), calls: Vec::new(), finish_reason: String::new(), usage: [0; 4] };
    for event in events {
        match event.event.as_ref().unwrap() {
            Event::TextDelta(delta) => outcome.text.push_str(&delta.text),
            Event::ToolCall(call) => outcome.calls.push(Call::from_proto(call)),
            Event::ChoiceFinished(finished) => outcome.finish_reason = reason(finished.finish_reason()),
            Event::Completed(completed) => outcome.usage = usage(completed.usage),
            Event::Started(_)
            | Event::ReasoningDelta(_)
            | Event::Item(_)
            | Event::Heartbeat(_)
            | Event::MessageStarted(_)
            | Event::Notice(_) => {}
        }
    }
    outcome
}

pub fn outcome_of_completion(completion: &Value) -> Outcome {
    let answer = answer_of_completion(completion);
    let message = &completion["choices"][0]["message"];
    let calls: Vec<Call> =
        message["tool_calls"].as_array().into_iter().flatten().map(Call::from_json).collect();
    assert_eq!(message["content"].is_null(), !calls.is_empty() && answer.text.is_empty(), "{completion}");
    assert!(message.get("tool_calls").is_none() || !calls.is_empty(), "no empty list: {completion}");
    Outcome { text: answer.text, calls, finish_reason: answer.finish_reason, usage: answer.usage }
}

/// Joins the deltas by their indexes, like a client.
pub fn outcome_of_chunks(chunks: &[Value]) -> Outcome {
    let answer = answer_of_chunks(chunks);
    let begins_with_call =
        chunks.get(1).is_some_and(|chunk| !chunk["choices"][0]["delta"]["tool_calls"].is_null());
    let first = &chunks[0]["choices"][0]["delta"];
    assert_eq!(first["role"], "assistant", "{chunks:?}");
    // If Codex works before the call, the head is sent before the first delta is known, so the content is not null.
    assert!(begins_with_call || first["content"] == "", "{chunks:?}");
    let deltas: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0)?["delta"]["tool_calls"].as_array())
        .flatten()
        .collect();
    let mut calls: Vec<Value> = Vec::new();
    for delta in deltas {
        let index = usize::try_from(delta["index"].as_u64().expect("each delta has an index")).unwrap();
        if index == calls.len() {
            calls.push(delta.clone());
        } else {
            let more = delta["function"]["arguments"].as_str().unwrap();
            let arguments = &mut calls[index]["function"]["arguments"];
            *arguments = json!(format!("{}{more}", arguments.as_str().unwrap()));
        }
    }
    Outcome {
        text: answer.text,
        calls: calls.iter().map(Call::from_json).collect(),
        finish_reason: answer.finish_reason,
        usage: answer.usage,
    }
}

fn reason(reason: pb::FinishReason) -> String {
    reason.as_str_name().trim_start_matches("FINISH_REASON_").to_lowercase()
}

fn usage(usage: Option<pb::Usage>) -> [u64; 4] {
    let usage = usage.expect("usage is present");
    [usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_output_tokens]
}
