//! Plays the steps of a conversation against one server.

use serde_json::{Value, json};

use super::{
    client::{Client, Reply},
    steps::{Ask, Content, Form, Limit, ResultForm, Script, Step},
};
use crate::{
    support::TestApp,
    tools::{
        routes::{Outcome, Route, tool_result},
        upstream_request::UpstreamRequest,
    },
};

/// Maximum number of requests that answer the calls of one question.
const MAX_ROUNDS: usize = 6;

pub const PNG: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4z8AARAwQCgAf7gP9i18U1AAAAABJRU5ErkJggg==";

const SYSTEMS: [Option<&str>; 3] = [None, Some("Be brief."), Some("Be kind.")];
const EFFORTS: [Option<&str>; 3] = [None, Some("low"), Some("high")];
pub const FUNCTIONS: [&str; 2] = ["f", "g"];

/// A server and its model.
pub struct World<'a> {
    pub client: &'a Client,
    pub models: [&'static str; 3],
    /// Writes a script for the model.
    pub directives: fn(&Script) -> String,
    /// The question of a client that leaves.
    pub endless: &'static str,
    /// The server whose upstream requests are recorded.
    pub recorded: Option<&'a TestApp>,
}

/// What the client sees of an answer. The ids of calls are left out, because they differ between servers.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    Answer { text: String, calls: Vec<(String, String)>, finish_reason: String, usage: Option<[u64; 4]> },
    Error(String),
}

/// What became of a conversation.
#[derive(Debug, Default)]
pub struct Played {
    pub seen: Vec<Seen>,
    /// The number of answers of a continued thread.
    pub continued: usize,
    /// The number of requests that repeat an answer of the model, unchanged and in the same setting.
    pub continuable: usize,
    /// The last upstream request of each answer, and the model.
    pub sent: Vec<(&'static str, UpstreamRequest)>,
}

/// A client in a conversation.
struct Player<'a> {
    world: &'a World<'a>,
    model: usize,
    system: usize,
    effort: usize,
    offers_tools: bool,
    has_schema: bool,
    messages: Vec<Value>,
    /// The messages up to each former answer.
    answers: Vec<Vec<Value>>,
    played: Played,
}

/// Plays the steps against a server. `offers_tools` is set first.
pub async fn play(world: &World<'_>, steps: &[Step], offers_tools: bool) -> Played {
    let mut player = Player {
        world,
        model: 0,
        system: 0,
        effort: 0,
        offers_tools,
        has_schema: false,
        messages: Vec::new(),
        answers: Vec::new(),
        played: Played::default(),
    };
    for step in steps {
        player.step(step).await;
    }
    player.played
}

impl Player<'_> {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Ask(ask) => self.ask(ask).await,
            Step::Regenerate(route) => self.regenerate(*route).await,
            Step::Edit(at, ask) => {
                let users = self.messages.iter().enumerate().filter(|(_, m)| m["role"] == "user");
                let users: Vec<usize> = users.map(|(at, _)| at).collect();
                if let Some(at) = users.get(at % users.len().max(1)) {
                    self.messages.truncate(*at);
                }
                self.ask(ask).await;
            }
            Step::EditAnswer(ask) => {
                let last = self.messages.last_mut().filter(|last| last["role"] == "assistant");
                if let Some(text) = last.and_then(|last| last.get_mut("content")).filter(|c| c.is_string()) {
                    *text = json!(format!("{} indeed", text.as_str().unwrap()));
                }
                self.ask(ask).await;
            }
            Step::Branch(at, ask) => {
                if let Some(branch) = self.answers.get(at % self.answers.len().max(1)) {
                    self.messages.clone_from(branch);
                }
                self.ask(ask).await;
            }
            Step::Leave => {
                self.messages.push(json!({"role": "user", "content": self.world.endless}));
                self.world.client.leave(&self.body(Limit::None)).await;
                self.messages.pop();
            }
            Step::Model(model) => self.model = *model,
            Step::System(system) => self.system = *system,
            Step::Effort(effort) => self.effort = *effort,
            Step::OffersTools(offers) => self.offers_tools = *offers,
            Step::HasSchema(has) => self.has_schema = *has,
        }
    }

    /// Sends the request of the last answer once more.
    async fn regenerate(&mut self, route: Route) {
        let is_answer = |message: &Value| message["role"] == "assistant";
        if !self.messages.last().is_some_and(is_answer) {
            return;
        }
        while self.messages.last().is_some_and(is_answer) {
            self.messages.pop();
        }
        // The conversation may begin with an answer, if an edit has removed its beginning.
        if let Some(answer) = self.send(route, Limit::None).await
            && answer.calls.is_empty()
        {
            self.take(&answer, Form::Same);
        }
    }

    async fn ask(&mut self, ask: &Ask) {
        let kept = self.messages.len();
        if let Some(text) = &ask.developer {
            self.messages.push(json!({"role": "developer", "content": text}));
        }
        // Codex itself would answer a call of a function that is not offered.
        let script = match &ask.script {
            Script::Calls(..) if !self.offers_tools => &Script::Digest,
            script => script,
        };
        let (sent, later) = question(ask, &(self.world.directives)(script));
        self.messages.push(sent);
        let at = self.messages.len() - 1;
        let mut answer = self.send(ask.route, ask.limit).await;
        self.messages[at] = later;
        let mut results = ask.results.iter().cycle();
        for _ in 0..MAX_ROUNDS {
            let Some(answer_with_calls) = answer.as_ref().filter(|answer| !answer.calls.is_empty()) else {
                break;
            };
            self.take(answer_with_calls, ask.form);
            let mut messages: Vec<Value> = answer_with_calls
                .calls
                .iter()
                .map(|call| tool_result(call, content_of(results.next().unwrap())))
                .collect();
            if ask.is_reversed {
                messages.reverse();
            }
            self.messages.extend(messages);
            if let Some(words) = &ask.words {
                self.messages.push(json!({"role": "user", "content": words}));
            }
            answer = self.send(ask.route, ask.limit).await;
        }
        match answer {
            Some(answer) if answer.calls.is_empty() => self.take(&answer, ask.form),
            // The client has had enough of the calls.
            Some(_) => self.messages.truncate(kept),
            None if matches!(ask.script, Script::Cut) => self.messages.truncate(kept),
            // The question remains without an answer.
            None => {}
        }
    }

    fn body(&self, limit: Limit) -> Value {
        let system = SYSTEMS[self.system].map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = system.into_iter().chain(self.messages.iter().cloned()).collect();
        let mut body = json!({"model": self.world.models[self.model], "messages": messages});
        if let Some(effort) = EFFORTS[self.effort] {
            body["reasoning_effort"] = effort.into();
        }
        if self.offers_tools {
            body["tools"] = FUNCTIONS.iter().map(|name| function(name)).collect();
        }
        if self.has_schema {
            let schema = json!({"type": "object", "properties": {"a": {"type": "string"}},
                "required": ["a"], "additionalProperties": false});
            let schema = json!({"name": "s", "strict": true, "schema": schema});
            body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
        }
        match limit {
            Limit::None => {}
            Limit::Stop => body["stop"] = json!(["items", "user:"]),
            Limit::MaxTokens => body["max_completion_tokens"] = 3.into(),
        }
        body
    }

    /// Sends the messages. Returns the answer, or `None` after a failure.
    async fn send(&mut self, route: Route, limit: Limit) -> Option<Outcome> {
        let before = self.world.recorded.map(TestApp::last_request_number);
        let Reply { outcome, thread } = self.world.client.send(route, &self.body(limit)).await;
        if let (Some(app), Some(before)) = (self.world.recorded, before)
            && app.model_calls_since(before) > 0
        {
            self.played.sent.push((self.world.models[self.model], app.last_upstream_request()));
        }
        if outcome.is_ok() {
            self.played.continued += usize::from(thread == "continued");
            self.played.continuable += usize::from(self.messages.iter().any(|m| m["role"] == "assistant"));
        }
        self.played.seen.push(match &outcome {
            Ok(answer) => Seen::Answer {
                text: answer.text.clone(),
                calls: answer.called().into_iter().map(|(name, text)| (name.into(), text.into())).collect(),
                finish_reason: answer.finish_reason.clone(),
                // A cut answer ends with an estimate if the turn does not end in time. The scripted upstream counts the
                // characters, such as white space that the client leaves out later.
                usage: (limit == Limit::None && self.world.recorded.is_none()).then_some(answer.usage),
            },
            Err(error) => Seen::Error(error.clone()),
        });
        outcome.ok()
    }

    /// Appends an answer to the conversation.
    fn take(&mut self, answer: &Outcome, form: Form) {
        self.messages.extend(in_form(answer, form));
        if answer.calls.is_empty() {
            self.answers.push(self.messages.clone());
        }
    }
}

/// Returns the message of a question as the client sends it first and later.
fn question(ask: &Ask, script: &str) -> (Value, Value) {
    let message = |content: Value| {
        let mut message = json!({"role": "user", "content": content});
        if let Some(name) = &ask.name {
            message["name"] = name.as_str().into();
        }
        message
    };
    let text = |text: &str| json!({"type": "text", "text": text});
    match &ask.content {
        Content::Text(words) => {
            let question = message(json!(format!("{words} {script}")));
            (question.clone(), question)
        }
        Content::TextWithSpace(words) => {
            let words = format!("{words} {script}");
            (message(json!(format!("{words} \n"))), message(json!(words.trim_end())))
        }
        Content::Parts(parts) => {
            let parts: Vec<Value> = parts.iter().map(|part| text(part)).chain([text(script)]).collect();
            let question = message(json!(parts));
            (question.clone(), question)
        }
        Content::Picture(words) => {
            let picture = json!({"type": "image_url", "image_url": {"url": PNG}});
            let question = message(json!([text(&format!("{words} {script}")), picture]));
            (question.clone(), question)
        }
    }
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": format!("Does {name}."),
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}})
}

/// Returns the content of a result.
pub fn content_of(result: &ResultForm) -> Value {
    let picture = json!({"type": "image_url", "image_url": {"url": PNG}});
    match result {
        ResultForm::Text(text) => json!(text),
        ResultForm::Empty => json!(""),
        ResultForm::Parts(parts) => parts.iter().map(|text| json!({"type": "text", "text": text})).collect(),
        ResultForm::Picture => json!([picture]),
        ResultForm::PictureAndText(text) => json!([picture, {"type": "text", "text": text}]),
    }
}

/// Returns an answer as a client sends it back.
pub fn in_form(answer: &Outcome, form: Form) -> Vec<Value> {
    let mut message = answer.message();
    if answer.calls.is_empty() {
        message.as_object_mut().unwrap().remove("tool_calls");
        match form {
            Form::Same | Form::CallsOnly | Form::MessagePerCall => {}
            Form::SpaceAtEnd => message["content"] = json!(format!("{}\n ", answer.text)),
            Form::Parts => message["content"] = parts_of(&answer.text),
        }
        if message["content"].is_null() {
            message["content"] = "".into();
        }
        return vec![message];
    }
    match form {
        Form::Same => vec![message],
        Form::SpaceAtEnd => {
            if !answer.text.is_empty() {
                message["content"] = json!(format!("{} \n", answer.text));
            }
            vec![message]
        }
        Form::Parts => {
            if !answer.text.is_empty() {
                message["content"] = parts_of(&answer.text);
            }
            vec![message]
        }
        Form::CallsOnly => {
            message["content"] = "".into();
            for call in message["tool_calls"].as_array_mut().unwrap() {
                let arguments: Value =
                    serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
                call["function"]["arguments"] = format!(" {arguments:#} ").into();
            }
            vec![message]
        }
        Form::MessagePerCall => {
            let calls = message["tool_calls"]
                .as_array()
                .unwrap()
                .iter()
                .map(|call| json!({"role": "assistant", "content": null, "tool_calls": [call]}));
            let text =
                (!answer.text.is_empty()).then(|| json!({"role": "assistant", "content": answer.text}));
            text.into_iter().chain(calls).collect()
        }
    }
}

/// Divides a text into two parts.
fn parts_of(text: &str) -> Value {
    let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    let (first, second) = text.split_at(middle);
    json!([{"type": "text", "text": first}, {"type": "text", "text": second}])
}
