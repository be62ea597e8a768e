//! A connection that is cut at any event of a response: the client receives nothing twice, whatever the model sends next.

use std::{collections::BTreeMap, ops::RangeInclusive};

use codex_api::{
    demo::Transport,
    pb::{self, chat_event::Event},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{both_transports, logged_in, with_login};
use crate::{
    support::{
        Engine, TestApp,
        http::{body, chunks, streamed},
    },
    tools::{
        contract::contract,
        routes::{ROUTES, Route},
    },
};

const MODEL: &str = "gpt-5.5";
const REASONING: &str = "I think hard";
const TEXT: &str = "one two three four";
const ARGUMENTS: &str = r#"{"city":"Paris"}"#;
/// Number of turns at a time.
const TURNS: u32 = 6;

/// Events of a response: `response.created`, the reasoning, the text.
const CREATED: usize = 1;
const REASONING_EVENTS: usize = 6;
const TEXT_EVENTS: usize = 6;
const CALL_EVENTS: usize = 5;
const END_OF_REASONING: usize = CREATED + REASONING_EVENTS;
const END_OF_TEXT: usize = END_OF_REASONING + TEXT_EVENTS;
const END_OF_CALL: usize = END_OF_TEXT + CALL_EVENTS;

/// What a client receives in a turn.
#[derive(Debug, Default)]
struct Received {
    text: String,
    reasoning: String,
    /// Names and arguments.
    calls: Vec<(String, String)>,
    /// Own commands of the agent: ids and statuses.
    commands: Vec<(String, i32)>,
    finish_reason: String,
    error: Option<String>,
}

impl Received {
    fn push_event(&mut self, event: Event) {
        match event {
            Event::TextDelta(delta) => self.text.push_str(&delta.text),
            Event::ReasoningDelta(delta) => self.reasoning.push_str(&delta.text),
            Event::ToolCall(call) => self.calls.push((call.name, call.arguments)),
            Event::Item(item) => self.push_item(&item),
            Event::ChoiceFinished(finished) => self.finish_reason = reason(finished.finish_reason()),
            Event::Started(_)
            | Event::MessageStarted(_)
            | Event::Notice(_)
            | Event::Heartbeat(_)
            | Event::Completed(_) => {}
        }
    }

    fn push_item(&mut self, item: &pb::Item) {
        if matches!(item.kind, Some(pb::item::Kind::CommandExecution(_))) {
            self.commands.push((item.id.clone(), item.status));
        }
    }

    /// Adds the deltas of a chunk.
    fn push_chunk(&mut self, chunk: &Value) {
        if let Some(message) = chunk["error"]["message"].as_str() {
            self.error = Some(message.to_owned());
        }
        let choice = &chunk["choices"][0];
        self.push_message(&choice["delta"]);
        if let Some(reason) = choice["finish_reason"].as_str() {
            reason.clone_into(&mut self.finish_reason);
        }
    }

    fn push_message(&mut self, message: &Value) {
        self.text.push_str(message["content"].as_str().unwrap_or_default());
        self.reasoning.push_str(message["reasoning_content"].as_str().unwrap_or_default());
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        for call in calls {
            let part = |name: &str| call["function"][name].as_str().unwrap_or_default().to_owned();
            let index =
                call["index"].as_u64().map_or(self.calls.len(), |index| usize::try_from(index).unwrap());
            if index == self.calls.len() {
                self.calls.push((part("name"), part("arguments")));
            } else {
                self.calls[index].1.push_str(&part("arguments"));
            }
        }
    }
}

fn reason(reason: pb::FinishReason) -> String {
    reason.as_str_name().trim_start_matches("FINISH_REASON_").to_lowercase()
}

/// Sends a request and returns all that the client receives, also before an error.
async fn receive(app: &TestApp, route: Route, body: &Value) -> Received {
    let mut received = Received::default();
    match route {
        Route::Unary => match app.grpc().await.chat(contract(body)).await {
            Ok(response) => {
                let response = response.into_inner();
                let choice = &response.choices[0];
                received.text.clone_from(&choice.text);
                received.reasoning.clone_from(&choice.reasoning);
                let calls = choice.tool_calls.iter();
                received.calls = calls.map(|call| (call.name.clone(), call.arguments.clone())).collect();
                received.finish_reason = reason(choice.finish_reason());
            }
            Err(status) => received.error = Some(status.to_string()),
        },
        Route::Stream => match app.grpc().await.stream_chat(contract(body)).await {
            Ok(response) => {
                let mut events = response.into_inner();
                loop {
                    match events.message().await {
                        Ok(Some(event)) => received.push_event(event.event.unwrap()),
                        Ok(None) => break,
                        Err(status) => {
                            received.error = Some(status.to_string());
                            break;
                        }
                    }
                }
            }
            Err(status) => received.error = Some(status.to_string()),
        },
        Route::Http => {
            let response = app.post(body).await;
            let whole: Value = response.json().await.unwrap();
            match whole["error"]["message"].as_str() {
                Some(message) => received.error = Some(message.to_owned()),
                None => {
                    received.push_message(&whole["choices"][0]["message"]);
                    received.finish_reason =
                        whole["choices"][0]["finish_reason"].as_str().unwrap().to_owned();
                }
            }
        }
        Route::Sse => {
            let response = app.post(&streamed(body.clone())).await;
            let text = response.text().await.unwrap();
            match serde_json::from_str::<Value>(&text) {
                Ok(refusal) => received.push_chunk(&refusal),
                Err(_) => chunks(&text).0.iter().for_each(|chunk| received.push_chunk(chunk)),
            }
        }
    }
    received
}

/// The ends of a WebSocket, as values of `ws`. Over HTTP each of them is a cut.
fn endings(transport: Transport) -> Vec<Value> {
    match transport {
        Transport::Http => vec![json!(null)],
        Transport::WebSocket => vec![json!({"close": 1011}), json!({"reset": true}), json!(null)],
    }
}

/// A response with reasoning and text, and a call of a client tool if `call` is set.
fn answer(call: bool) -> Value {
    let calls = if call { json!([{"name": "get_weather", "arguments": ARGUMENTS}]) } else { json!([]) };
    json!({"reasoning": REASONING, "text": TEXT, "delay_ms": 1, "calls": calls})
}

/// A turn whose first response is cut.
#[derive(Debug, Clone)]
struct Case {
    note: String,
    route: Route,
    ending: Value,
    /// The number of events before the cut.
    cut: usize,
}

fn cases(transport: Transport, cuts: RangeInclusive<usize>) -> Vec<Case> {
    let mut cases = Vec::new();
    for ending in endings(transport) {
        for cut in cuts.clone() {
            for route in ROUTES {
                let note = format!("{route:?} {} {cut}", ending.to_string().replace('"', ""));
                cases.push(Case { note, route, ending: ending.clone(), cut });
            }
        }
    }
    cases
}

impl Case {
    /// Returns the step that is cut. Its repetition gets `next`.
    fn cut(&self, step: &Value, next: &Value) -> Value {
        let mut cut = step.clone();
        cut["note"] = json!(self.note);
        cut["cut_after_events"] = json!(self.cut);
        cut["ws"] = self.ending.clone();
        cut["times"] = json!(1);
        cut["then"] = next.clone();
        cut
    }

    /// Returns the request whose first model call gets `step` up to the cut. Its repetition gets `next`, and so does the
    /// model call that follows if the broken response left a call.
    fn request(&self, step: &Value, next: &Value) -> Value {
        prompt(&json!([self.cut(step, next), next]))
    }
}

fn prompt(steps: &Value) -> Value {
    body(MODEL, &format!("Please. @@{steps}@@"))
}

/// Runs all cases and returns what the clients received.
async fn receive_all(
    app: &TestApp,
    cases: Vec<Case>,
    request: impl Fn(&Case) -> Value,
) -> Vec<(Case, Received)> {
    let turns = cases.into_iter().map(|case| {
        let request = request(&case);
        async move {
            let received = receive(app, case.route, &request).await;
            (case, received)
        }
    });
    stream::iter(turns).buffer_unordered(TURNS as usize).collect().await
}

/// Asserts that the client has received a part of the answer before an error, or else the whole answer.
fn assert_nothing_twice(case: &Case, received: &Received, calls: &[(&str, &str)]) {
    let got: Vec<(&str, &str)> = received.calls.iter().map(|(name, args)| (&**name, &**args)).collect();
    if received.error.is_some() {
        assert!(TEXT.starts_with(&received.text), "{case:?}: {received:?}");
        assert!(REASONING.starts_with(&received.reasoning), "{case:?}: {received:?}");
        assert!(got.is_empty(), "{case:?}: {received:?}");
    } else {
        assert_eq!(received.text, TEXT, "{case:?}: {received:?}");
        assert_eq!(received.reasoning, REASONING, "{case:?}: {received:?}");
        assert_eq!(got, calls, "{case:?}: {received:?}");
        let reason = if calls.is_empty() { "stop" } else { "tool_calls" };
        assert_eq!(received.finish_reason, reason, "{case:?}: {received:?}");
    }
}

/// Asserts that a repetition which is announced after delivered text fails the turn, and that nothing else does.
fn assert_fails_only_after_text(outcomes: &[(Case, Received)], transport: Transport, engine: Engine) {
    for (case, received) in outcomes {
        // Codex announces the first retry over HTTP only. The exec engine delivers whole messages.
        let has_text = case.cut > END_OF_REASONING + 1;
        // The turn of a whole answer starts again.
        let fails = transport == Transport::Http
            && engine == Engine::AppServer
            && has_text
            && matches!(case.route, Route::Stream | Route::Sse);
        assert_eq!(received.error.is_some(), fails, "{case:?}: {received:?}");
    }
}

fn with_tool(mut request: Value) -> Value {
    let parameters =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    request["tools"] =
        json!([{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]);
    request
}

both_transports!(response_with_a_call_that_is_cut_and_repeated_is_delivered_once, [app_server = AppServer]);
async fn response_with_a_call_that_is_cut_and_repeated_is_delivered_once(
    engine: Engine,
    transport: Transport,
) {
    let config = logged_in(engine, transport).max_concurrency(TURNS);
    with_login(config, transport, async |app| {
        let request = |case: &Case| with_tool(case.request(&answer(true), &answer(true)));
        let outcomes = receive_all(app, cases(transport, 0..=END_OF_CALL), request).await;
        for (case, received) in &outcomes {
            assert_nothing_twice(case, received, &[("get_weather", ARGUMENTS)]);
        }
        assert_fails_only_after_text(&outcomes, transport, engine);
    })
    .await;
}

both_transports!(response_that_is_cut_and_repeated_is_delivered_once);
async fn response_that_is_cut_and_repeated_is_delivered_once(engine: Engine, transport: Transport) {
    let config = logged_in(engine, transport).max_concurrency(TURNS);
    with_login(config, transport, async |app| {
        let request = |case: &Case| case.request(&answer(false), &answer(false));
        let outcomes = receive_all(app, cases(transport, 0..=END_OF_TEXT), request).await;
        for (case, received) in &outcomes {
            assert_nothing_twice(case, received, &[]);
        }
        assert_fails_only_after_text(&outcomes, transport, engine);
    })
    .await;
}

both_transports!(cut_without_retries_delivers_nothing_twice);
async fn cut_without_retries_delivers_nothing_twice(engine: Engine, transport: Transport) {
    let has_calls = engine == Engine::AppServer;
    let end = if has_calls { END_OF_CALL } else { END_OF_TEXT };
    let calls: &[(&str, &str)] = if has_calls { &[("get_weather", ARGUMENTS)] } else { &[] };
    let endings = endings(transport);
    for cut in 0..=end {
        // Each cut has its own server, because the server remembers that a turn fell back to HTTP.
        with_login(logged_in(engine, transport).upstream_retries(0), transport, async |app| {
            let (route, ending) = (ROUTES[cut % ROUTES.len()], endings[cut % endings.len()].clone());
            let case = Case { note: String::new(), route, ending, cut };
            let request = case.request(&answer(has_calls), &answer(has_calls));
            let request = if has_calls { with_tool(request) } else { request };
            let received = receive(app, route, &request).await;
            assert_nothing_twice(&case, &received, calls);
            let answers = |transport| {
                let requests = app.upstream().requests();
                requests.iter().filter(|r| r.transport == transport && !r.is_warm_up()).count()
            };
            match transport {
                Transport::Http => assert_eq!(answers(Transport::Http), 1, "{case:?}: {received:?}"),
                // Codex falls back to HTTP and sends the request again.
                Transport::WebSocket => {
                    assert!(received.error.is_none(), "{case:?}: {received:?}");
                    assert_eq!(
                        [Transport::WebSocket, Transport::Http].map(answers),
                        [1, 1],
                        "{case:?}: {received:?}"
                    );
                }
            }
        })
        .await;
    }
}

both_transports!(model_that_continues_behind_a_cut_leaves_no_ghost_call, [app_server = AppServer]);
async fn model_that_continues_behind_a_cut_leaves_no_ghost_call(engine: Engine, transport: Transport) {
    let config = logged_in(engine, transport).max_concurrency(TURNS);
    with_login(config, transport, async |app| {
        // A whole answer starts again without the items of the broken response, so that only streams continue.
        let streams = || {
            let cases = cases(transport, END_OF_TEXT..=END_OF_CALL).into_iter();
            cases.filter(|case| matches!(case.route, Route::Stream | Route::Sse)).collect::<Vec<_>>()
        };
        // The text is complete, and the repetition holds only what followed it.
        let next = json!({"calls": [{"name": "get_weather", "arguments": ARGUMENTS}]});
        let request = |case: &Case| with_tool(case.request(&answer(true), &next));
        for (case, received) in receive_all(app, streams(), request).await {
            assert_nothing_twice(&case, &received, &[("get_weather", ARGUMENTS)]);
        }
        // The repetition holds no call any more.
        let next = json!({"text": "It is warm."});
        let request = |case: &Case| with_tool(case.request(&answer(true), &next));
        for (case, received) in receive_all(app, streams(), request).await {
            assert!(received.calls.is_empty(), "{case:?}: {received:?}");
            let whole = format!("{TEXT}\n\nIt is warm.");
            let expected = if received.error.is_some() { TEXT } else { &whole };
            let is_unary_error = received.error.is_some() && received.text.is_empty();
            assert!(received.text == expected || is_unary_error, "{case:?}: {received:?}");
        }
    })
    .await;
}

both_transports!(command_of_a_response_that_is_cut_runs_once);
async fn command_of_a_response_that_is_cut_runs_once(engine: Engine, transport: Transport) {
    let config = logged_in(engine, transport).max_concurrency(TURNS).sandbox("danger-full-access");
    with_login(config, transport, async |app| {
        let mut cases = cases(transport, END_OF_TEXT..=END_OF_CALL);
        cases.retain(|case| case.route == Route::Stream);
        let ran =
            |case: &Case| app.home.path().join("work").join(case.note.replace([' ', '{', '}', ':'], "_"));
        let done = json!({"text": "done"});
        let command = |case: &Case| {
            let arguments = json!({"cmd": format!("echo line >> {}", ran(case).display()), "login": false});
            let mut step = answer(false);
            step["calls"] = json!([{"name": "exec_command", "arguments": arguments}]);
            step
        };
        // The response with the command is cut, or the response behind it.
        for first_is_cut in [true, false] {
            let request = |case: &Case| {
                let command = command(case);
                prompt(&if first_is_cut {
                    json!([case.cut(&command, &command), done])
                } else {
                    json!([command, Case { cut: case.cut % 4, ..case.clone() }.cut(&done, &done)])
                })
            };
            let mut runs = BTreeMap::new();
            for (case, received) in receive_all(app, cases.clone(), request).await {
                let lines = std::fs::read_to_string(ran(&case)).unwrap_or_default();
                drop(std::fs::remove_file(ran(&case)));
                let expected = if received.error.is_some() && lines.is_empty() { "" } else { "line\n" };
                assert_eq!(lines, expected, "{case:?}: {received:?}");
                let mut seen = received.commands.clone();
                seen.dedup();
                assert_eq!(seen.len(), received.commands.len(), "{case:?}: {received:?}");
                assert!(seen.len() <= 2 * lines.lines().count(), "{case:?}: {received:?}");
                let whole = format!("{TEXT}\n\ndone");
                if received.error.is_some() {
                    assert!(whole.starts_with(&received.text), "{case:?}: {received:?}");
                } else {
                    assert_eq!(received.text, whole, "{case:?}: {received:?}");
                }
                *runs.entry(lines.len()).or_insert(0) += 1;
            }
            assert!(runs.contains_key(&"line\n".len()), "a command ran: {runs:?}");
        }
    })
    .await;
}
