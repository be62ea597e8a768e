//! The methods of the app-server, without I/O and clock: input lines return output lines and turns to run.

use serde_json::{Value, json};

use super::{
    catalog,
    check::{self, Refusal},
    history,
    model::{Model, user_message},
    scenario::{self, Scenario},
    script::TurnInput,
    threads::{self, Thread, Threads},
    turn::{Context, Turn},
    version::Release,
    wire::Out,
};

/// One app-server.
pub(crate) struct Server {
    pub(crate) context: Context,
    pub(crate) threads: Threads,
    catalog: Vec<Value>,
    /// The model of the command line.
    model: Option<String>,
    initialized: bool,
    experimental: bool,
}

/// The configuration of a server.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) catalog: Vec<Value>,
    pub(crate) model: Option<String>,
    /// Whether threads without a subscriber are unloaded.
    pub(crate) unload: bool,
}

/// The response to a request.
enum Reply {
    /// A result.
    Now(Value),
    /// A result followed by a notification.
    AndThen(Value, &'static str, Value),
    /// An empty result followed by the injected items as raw items of this thread and turn.
    AndEcho { thread: String, turn: String, items: Vec<Value> },
    /// No response.
    Never,
}

type CallResult = Result<Reply, Refusal>;

impl Server {
    /// Creates a server before its first line.
    pub(crate) fn new(release: Release, setup: Setup) -> Self {
        let context = Context { out: Out::new(release), release, next_request: 0, leaked: Vec::new() };
        let threads = Threads::new(setup.unload);
        let Setup { catalog, model, unload: _ } = setup;
        Self { context, threads, catalog, model, initialized: false, experimental: false }
    }

    /// Handles a line and returns the numbers of the turns that can continue.
    pub(crate) fn on_line(&mut self, line: &[u8]) -> Vec<u64> {
        // Lines that are not messages are ignored.
        let Ok(message) = serde_json::from_slice::<Value>(line) else { return Vec::new() };
        let Some(id) = message.get("id").filter(|id| !id.is_null()) else { return Vec::new() };
        let Some(method) = message["method"].as_str() else { return self.on_response(id, &message) };
        let mut started_turns = Vec::new();
        match self.call(method, id, message.get("params"), &mut started_turns) {
            Ok(Reply::Now(result)) => self.context.out.answer(id, Ok(result)),
            Ok(Reply::AndThen(result, method, params)) => {
                self.context.out.answer(id, Ok(result));
                self.context.out.notify(method, &params);
            }
            Ok(Reply::AndEcho { thread, turn, items }) => {
                self.context.out.answer(id, Ok(json!({})));
                for item in &items {
                    self.context.out.raw_item(&thread, &turn, item);
                }
            }
            Ok(Reply::Never) => {}
            Err(refusal) => self.context.out.answer(id, Err(refusal)),
        }
        self.notify_after(method, message.get("params"), &started_turns);
        started_turns
    }

    /// Handles a response to a request of a turn.
    fn on_response(&mut self, id: &Value, message: &Value) -> Vec<u64> {
        let Some(id) = id.as_u64() else { return Vec::new() };
        let context = &mut self.context;
        let mut turns = self.threads.turns();
        turns
            .find_map(|(number, turn)| turn.on_response(context, id, message).then_some((number, turn)))
            // A turn that pauses continues at its time.
            .filter(|(_, turn)| turn.is_waiting())
            .map(|(number, _)| number)
            .into_iter()
            .collect()
    }

    fn call(
        &mut self,
        method: &str,
        id: &Value,
        params: Option<&Value>,
        started_turns: &mut Vec<u64>,
    ) -> CallResult {
        check::method(method, self.context.release)?;
        check::required(params, &[])?;
        let params = params.unwrap_or(&Value::Null);
        if method == "initialize" {
            return self.initialize(params);
        }
        if !self.initialized {
            return Err(Refusal::invalid("Not initialized"));
        }
        let answer = match method {
            "thread/start" => return self.thread_start(params),
            "thread/inject_items" => return self.inject_items(params),
            "turn/start" => return self.turn_start(params, started_turns),
            "turn/interrupt" => return self.interrupt(id, params),
            "thread/unsubscribe" => {
                let thread = check::thread_id(&params["threadId"])?;
                json!({"status": self.threads.unsubscribe(thread)})
            }
            "thread/backgroundTerminals/clean" => {
                check::required(Some(params), &["threadId"])?;
                self.threads.get(check::thread_id(&params["threadId"])?)?.cleans += 1;
                json!({})
            }
            "thread/loaded/list" => json!({"data": self.threads.ids(), "nextCursor": null}),
            "model/list" => catalog::list(&self.catalog, params)?,
            "account/read" => account(self.context.release),
            _ => return Err(Refusal::invalid(format!("fake codex: `{method}` is not supported"))),
        };
        Ok(Reply::Now(answer))
    }

    /// Sends the notifications after a response.
    fn notify_after(&mut self, method: &str, params: Option<&Value>, started_turns: &[u64]) {
        for number in started_turns {
            if let Some(turn) = self.threads.turn(*number) {
                turn.notify_started(&mut self.context);
            }
        }
        if method == "thread/unsubscribe"
            && let Some(thread) = params.and_then(|params| params["threadId"].as_str())
        {
            self.threads.unload(&mut self.context, thread);
        }
    }

    fn initialize(&mut self, params: &Value) -> CallResult {
        check::required(Some(params), &["clientInfo"])?;
        check::required(params.get("clientInfo"), &["name", "version"])
            .map_err(|refusal| Refusal::invalid(refusal.message))?;
        if std::mem::replace(&mut self.initialized, true) {
            return Err(Refusal::invalid("Already initialized"));
        }
        let capabilities = &params["capabilities"];
        self.experimental = capabilities["experimentalApi"] == json!(true);
        self.context.out.opt_out(&capabilities["optOutNotificationMethods"]);
        let text = |name: &str| params["clientInfo"][name].as_str().unwrap_or_default().to_owned();
        let (name, version, codex) = (text("name"), text("version"), crate::version());
        let agent = format!("{name}/{codex} (Fake 1.0.0; x86_64) unknown ({name}; {version})");
        let mut answer = json!({"userAgent": agent});
        if self.context.release >= Release::V140 {
            let home = super::codex_home().unwrap_or_default();
            answer["codexHome"] = json!(home);
            answer["platformFamily"] = json!("unix");
            answer["platformOs"] = json!("linux");
        }
        Ok(Reply::Now(answer))
    }

    fn thread_start(&mut self, params: &Value) -> CallResult {
        check::thread_start(params, self.experimental, self.context.release)?;
        let model = params["model"].as_str().or(self.model.as_deref()).unwrap_or("gpt-5.5").to_owned();
        let scenario = parse_scenario(&model)?;
        if scenario == Scenario::MuteStart {
            return Ok(Reply::Never);
        }
        let id = uuid::Uuid::now_v7().to_string();
        let answer = threads::start_response(&id, params, &model, self.context.release);
        self.threads.add(&id, Thread::new(scenario, params.clone()));
        let started = json!({"thread": answer["thread"]});
        Ok(Reply::AndThen(answer, "thread/started", started))
    }

    fn inject_items(&mut self, params: &Value) -> CallResult {
        check::required(Some(params), &["threadId", "items"])?;
        let id = check::thread_id(&params["threadId"])?;
        let thread = self.threads.get(id)?;
        let Value::Array(items) = &params["items"] else {
            let kind = history::serde_name(&params["items"]);
            return Err(Refusal::invalid(format!(
                "Invalid request: invalid type: {kind}, expected a sequence"
            )));
        };
        history::check(items).map_err(Refusal::invalid)?;
        let turn = format!("auto-compact-{}", thread.injections);
        thread.injections += 1;
        if thread.turn.is_some() {
            if let Some((_, running)) = self.threads.turn_of(id) {
                running.steer(items.iter().cloned());
            }
            return Ok(Reply::Now(json!({})));
        }
        thread.items.extend(items.iter().cloned());
        if thread.scenario == Scenario::MuteInject {
            return Ok(Reply::Never);
        }
        if thread.raw() {
            return Ok(Reply::AndEcho { thread: id.to_owned(), turn, items: items.clone() });
        }
        Ok(Reply::Now(json!({})))
    }

    fn turn_start(&mut self, params: &Value, started_turns: &mut Vec<u64>) -> CallResult {
        check::required(Some(params), &["threadId", "input"])?;
        let id = check::thread_id(&params["threadId"])?;
        let release = self.context.release;
        let loaded = self.threads.ids().len();
        self.threads.get(id)?;
        check::input(&params["input"])?;
        if let Some((_, running)) = self.threads.turn_of(id) {
            // The real app-server also drops the response that streams.
            running.steer(Some(input_items(&params["input"]).ok_or_else(Refusal::empty_input)?));
            return Ok(Reply::Now(json!({"turn": running.to_json("inProgress", &Value::Null, release)})));
        }
        let thread = self.threads.get(id)?;
        if let Some(model) = params["model"].as_str() {
            thread.scenario = parse_scenario(model)?;
        }
        if let Scenario::Overloaded(times) = thread.scenario
            && thread.refused < times
        {
            thread.refused += 1;
            return Err(Refusal::overloaded());
        }
        thread.items.extend(input_items(&params["input"]));
        if let Some(effort) = params["effort"].as_str() {
            thread.effort = Some(effort.to_owned());
        }
        let turn_input = TurnInput {
            release,
            items: std::mem::take(&mut thread.items),
            thread_start: thread.params.clone(),
            turn_start: params.clone(),
            cwd: threads::cwd(&thread.params),
            threads: loaded,
            effort: thread.effort(),
            turns: thread.turns,
            cleans: thread.cleans,
            thread: id.to_owned(),
        };
        let (mute, total) = (thread.scenario == Scenario::MuteTurn, thread.usage);
        let model = Model::new(thread.scenario.clone(), turn_input);
        // 0.110 never ends a turn without input.
        let never_ends = release == Release::V110 && params["input"].as_array().is_some_and(Vec::is_empty);
        let acts = if never_ends { Vec::new() } else { user_message(&params["input"], model.acts()) };
        let turn = Turn::new(id, model, acts, total);
        let mut object = turn.to_json("inProgress", &Value::Null, release);
        for name in ["startedAt", "completedAt", "durationMs"] {
            if object.get(name).is_some() {
                object[name] = Value::Null;
            }
        }
        let number = self.threads.start_turn(id, turn);
        if !never_ends && !mute {
            started_turns.push(number);
        }
        Ok(if mute { Reply::Never } else { Reply::Now(json!({"turn": object})) })
    }

    fn interrupt(&mut self, id: &Value, params: &Value) -> CallResult {
        check::required(Some(params), &["threadId", "turnId"])?;
        let thread = check::thread_id(&params["threadId"])?;
        let deaf = matches!(self.threads.get(thread)?.scenario, Scenario::Deaf { .. });
        let release = self.context.release;
        let Some((number, turn)) = self.threads.turn_of(thread) else {
            return Err(Refusal::invalid("no active turn to interrupt"));
        };
        if params["turnId"] != json!(turn.id()) {
            let (wanted, running) = (params["turnId"].as_str().unwrap_or_default(), turn.id());
            return Err(Refusal::invalid(format!("expected active turn id {wanted} but found {running}")));
        }
        if deaf || release <= Release::V110 && turn.never_ends() {
            return Ok(Reply::Never);
        }
        turn.interrupt(&mut self.context, |context| context.out.answer(id, Ok(json!({}))));
        self.threads.end_turn(&mut self.context, number);
        Ok(Reply::Never)
    }
}

fn parse_scenario(model: &str) -> Result<Scenario, Refusal> {
    let scenario = match crate::env("FAKE_CODEX_SCENARIO") {
        Some(name) => scenario::parse_name(&name),
        None => scenario::parse_model(model),
    };
    scenario.map_err(Refusal::invalid)
}

fn account(release: Release) -> Value {
    let (account, required) = match crate::env("FAKE_CODEX_LOGIN").as_deref() {
        Some("0") => (Value::Null, true),
        Some("chatgpt") => {
            (json!({"type": "chatgpt", "email": "fake@example.com", "planType": "plus"}), true)
        }
        _ => (json!({"type": "apiKey"}), true),
    };
    let mut answer = json!({"account": account, "requiresOpenaiAuth": required});
    if release >= Release::V169 {
        answer["userId"] = Value::Null;
        answer["workspaceRouting"] = Value::Null;
    }
    answer
}

/// Converts the input of a turn to an item of its thread.
fn input_items(input: &Value) -> Option<Value> {
    let parts: Vec<Value> = input
        .as_array()?
        .iter()
        .map(|part| match part["type"].as_str() {
            Some("image") => json!({"type": "input_image", "image_url": part["url"]}),
            Some("localImage") => json!({"type": "input_image", "image_url": part["path"]}),
            _ => json!({"type": "input_text", "text": part["text"]}),
        })
        .collect();
    (!parts.is_empty()).then(|| json!({"type": "message", "role": "user", "content": parts}))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
