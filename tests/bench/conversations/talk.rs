//! One conversation, in the forms of the doors and of the bare client's two recipes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use codex_api::pb;
use serde_json::{Value, json};

use super::Plan;
use crate::{
    BenchResult,
    bare::{Bare, Thread, ToolCall, TurnUpdate},
    grpc, sse,
    tally::{ANSWER, ARGUMENTS, CALL, MODEL, Prompt, Reply, TOOL, Tally, TurnTimer},
};

/// The tokens of an answer.
const TOKENS: usize = 20;

/// The result of each tool call.
const RESULT: &str = "the value of k is 42";

/// A message of a conversation.
#[derive(Debug)]
pub(super) enum Message {
    User(String),
    Answer(String),
    /// The id of a call.
    Call(String),
    /// The id of a call that has a result.
    Output(String),
}

/// One side of a conversation.
pub(super) trait Ask {
    /// Adds a message.
    fn push(&mut self, message: Message);
    /// Requests the next response.
    async fn ask(&mut self, tally: &mut Tally) -> BenchResult<Reply>;
}

/// Runs the turns of a conversation. Its beginning is unique, so that no conversation continues another one.
pub(super) async fn talk(ask: &mut impl Ask, plan: Plan, tally: &mut Tally) -> BenchResult<()> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let Plan { shape, turns, .. } = plan;
    let number = NUMBER.fetch_add(1, Relaxed);
    let mut beginning = format!("Conversation {number} of {}.", std::process::id());
    while beginning.len() < shape.kilobytes * 1000 {
        beginning.push_str(" These words are context for the questions that follow.");
    }
    beginning.push(' ');
    if plan.resumed {
        ask.push(Message::User(std::mem::take(&mut beginning)));
        ask.push(Message::Answer("Noted.".to_owned()));
    }
    let call = if shape.tools { CALL } else { "" };
    for turn in 0..turns {
        let beginning = std::mem::take(&mut beginning);
        ask.push(Message::User(format!("{beginning}Question {turn}. {call}{ANSWER}{TOKENS} 0.")));
        let mut reply = ask.ask(tally).await?;
        if shape.tools {
            let id = reply.call.ok_or("the model called no tool")?;
            ask.push(Message::Call(id.clone()));
            ask.push(Message::Output(id));
            reply = ask.ask(tally).await?;
        }
        if reply.call.is_some() || reply.text.is_empty() {
            return Err("the answer has no text".into());
        }
        ask.push(Message::Answer(reply.text));
    }
    Ok(())
}

/// The body of a chat completion that asks a single question with tools.
pub(crate) fn tools_request(prompt: &Prompt) -> String {
    body(&json!({"role": "user", "content": prompt.text}).to_string(), true)
}

/// Returns a body with these messages, separated by commas.
fn body(messages: &str, tools: bool) -> String {
    let tools = if tools {
        let tool = json!([{"type": "function", "function": {
            "name": TOOL, "description": DESCRIPTION, "parameters": schema()}}]);
        format!(r#","tools":{tool}"#)
    } else {
        String::new()
    };
    format!(r#"{{"model":"{MODEL}","stream":true,"messages":[{messages}]{tools}}}"#)
}

const DESCRIPTION: &str = "Looks a key up.";

fn schema() -> Value {
    json!({"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]})
}

/// A client of the HTTP door.
#[derive(Debug)]
pub(super) struct Http<'a> {
    client: &'a mut sse::Client,
    /// The messages as JSON, separated by commas.
    messages: String,
    tools: bool,
}

impl<'a> Http<'a> {
    pub(super) fn new(client: &'a mut sse::Client, tools: bool) -> Self {
        Self { client, messages: String::new(), tools }
    }
}

impl Ask for Http<'_> {
    fn push(&mut self, message: Message) {
        let message = match message {
            Message::User(text) => json!({"role": "user", "content": text}),
            Message::Answer(text) => json!({"role": "assistant", "content": text}),
            Message::Call(id) => json!({"role": "assistant", "content": null, "tool_calls": [
                {"id": id, "type": "function", "function": {"name": TOOL, "arguments": ARGUMENTS}}]}),
            Message::Output(id) => json!({"role": "tool", "tool_call_id": id, "content": RESULT}),
        };
        if !self.messages.is_empty() {
            self.messages.push(',');
        }
        self.messages.push_str(&message.to_string());
    }

    async fn ask(&mut self, tally: &mut Tally) -> BenchResult<Reply> {
        let body = body(&self.messages, self.tools);
        self.client.ask(&body, tally).await
    }
}

/// A client of the HTTP doors of two servers, which get the requests in turn.
#[derive(Debug)]
pub(super) struct Replicas<'a> {
    next: Http<'a>,
    other: Http<'a>,
}

impl<'a> Replicas<'a> {
    pub(super) fn new(clients: [&'a mut sse::Client; 2], tools: bool) -> Self {
        let [next, other] = clients.map(|client| Http::new(client, tools));
        Self { next, other }
    }
}

impl Ask for Replicas<'_> {
    fn push(&mut self, message: Message) {
        self.next.push(message);
    }

    async fn ask(&mut self, tally: &mut Tally) -> BenchResult<Reply> {
        let reply = self.next.ask(tally).await;
        self.other.messages.clone_from(&self.next.messages);
        std::mem::swap(&mut self.next, &mut self.other);
        reply
    }
}

/// A client of the gRPC door.
#[derive(Debug)]
pub(super) struct Grpc<'a> {
    client: &'a mut grpc::Client,
    messages: Vec<pb::Message>,
    tools: bool,
}

impl<'a> Grpc<'a> {
    pub(super) fn new(client: &'a mut grpc::Client, tools: bool) -> Self {
        Self { client, messages: Vec::new(), tools }
    }
}

impl Ask for Grpc<'_> {
    fn push(&mut self, message: Message) {
        let parts = |text: String| vec![pb::ContentPart { part: Some(pb::content_part::Part::Text(text)) }];
        let role = |role: pb::Role| pb::Message { role: role.into(), ..Default::default() };
        self.messages.push(match message {
            Message::User(text) => pb::Message { parts: parts(text), ..role(pb::Role::User) },
            Message::Answer(text) => pb::Message { parts: parts(text), ..role(pb::Role::Assistant) },
            Message::Call(id) => {
                let call = pb::ToolCall { id, name: TOOL.to_owned(), arguments: ARGUMENTS.to_owned() };
                pb::Message { tool_calls: vec![call], ..role(pb::Role::Assistant) }
            }
            Message::Output(id) => {
                pb::Message { tool_call_id: id, parts: parts(RESULT.to_owned()), ..role(pb::Role::Tool) }
            }
        });
    }

    async fn ask(&mut self, tally: &mut Tally) -> BenchResult<Reply> {
        let tool = || pb::Tool {
            name: TOOL.to_owned(),
            description: DESCRIPTION.to_owned(),
            parameters_json: schema().to_string(),
            ..Default::default()
        };
        let request = pb::ChatRequest {
            model: MODEL.to_owned(),
            messages: self.messages.clone(),
            tools: self.tools.then(tool).into_iter().collect(),
            ..Default::default()
        };
        self.client.ask(request, tally).await
    }
}

/// Returns a message as an item of a thread.
fn item(message: Message) -> Value {
    match message {
        Message::User(text) => {
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
        }
        Message::Answer(text) => {
            json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
        }
        Message::Call(id) => {
            json!({"type": "function_call", "name": TOOL, "arguments": ARGUMENTS, "call_id": id})
        }
        Message::Output(id) => json!({"type": "function_call_output", "call_id": id, "output": RESULT}),
    }
}

/// The bare client with a fresh thread for each request. A call ends the request: its turn is interrupted.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    bare: &'a Bare,
    items: Vec<Value>,
    tools: bool,
}

impl<'a> Fresh<'a> {
    pub(super) fn new(bare: &'a Bare, tools: bool) -> Self {
        Self { bare, items: Vec::new(), tools }
    }
}

impl Ask for Fresh<'_> {
    fn push(&mut self, message: Message) {
        self.items.push(item(message));
    }

    async fn ask(&mut self, tally: &mut Tally) -> BenchResult<Reply> {
        let (known, mut timer) = (tally.lags.len(), TurnTimer::start());
        let recording = self.bare.recording();
        let mut thread = self.bare.start_thread(recording.conversation(self.tools)).await?;
        thread.inject(json!({"threadId": thread.id, "items": self.items})).await?;
        let turn = thread.start_turn(recording.turn(&thread.id)).await?;
        let call = read(&mut thread, &mut timer, tally).await?;
        if call.is_some() {
            thread.interrupt(&turn).await?;
        }
        let reply = Reply::new(call.map(|call| call.call), known, timer, tally);
        thread.unsubscribe().await?;
        Ok(reply)
    }
}

/// The bare client with one thread for the whole conversation. A call is answered in its turn.
#[derive(Debug)]
pub(super) struct Continued<'a> {
    bare: &'a Bare,
    thread: Option<Thread>,
    /// Items that the thread does not have.
    items: Vec<Value>,
    /// The call that waits for its result.
    parked: Option<ToolCall>,
    tools: bool,
}

impl<'a> Continued<'a> {
    pub(super) fn new(bare: &'a Bare, tools: bool) -> Self {
        Self { bare, thread: None, items: Vec::new(), parked: None, tools }
    }

    pub(super) fn into_thread(self) -> Option<Thread> {
        self.thread
    }
}

impl Ask for Continued<'_> {
    fn push(&mut self, message: Message) {
        match message {
            // The thread has its own answers and calls. The result is sent to the parked call.
            Message::Answer(_) if self.thread.is_some() => {}
            Message::Call(_) | Message::Output(_) => {}
            Message::User(_) | Message::Answer(_) => self.items.push(item(message)),
        }
    }

    async fn ask(&mut self, tally: &mut Tally) -> BenchResult<Reply> {
        let (known, mut timer) = (tally.lags.len(), TurnTimer::start());
        let recording = self.bare.recording();
        let mut thread = match self.thread.take() {
            Some(thread) => thread,
            None => self.bare.start_thread(recording.conversation(self.tools)).await?,
        };
        match self.parked.take() {
            Some(call) => thread.answer(&call, RESULT).await?,
            None => {
                let items = std::mem::take(&mut self.items);
                thread.inject(json!({"threadId": thread.id, "items": items})).await?;
                thread.start_turn(recording.turn(&thread.id)).await?;
            }
        }
        self.parked = read(&mut thread, &mut timer, tally).await?;
        self.thread = Some(thread);
        let call = self.parked.as_ref().map(|call| call.call.clone());
        Ok(Reply::new(call, known, timer, tally))
    }
}

/// Reads to the end of a turn, or to a call.
async fn read(
    thread: &mut Thread,
    timer: &mut TurnTimer,
    tally: &mut Tally,
) -> BenchResult<Option<ToolCall>> {
    loop {
        match thread.next().await? {
            TurnUpdate::Text(text, now) => timer.text(text.as_bytes(), now, tally),
            TurnUpdate::ToolCall(call) => return Ok(Some(call)),
            TurnUpdate::Completed(status) if status == "completed" => return Ok(None),
            TurnUpdate::Completed(status) => return Err(format!("the bare turn is {status}").into()),
        }
    }
}
