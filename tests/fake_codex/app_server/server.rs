//! The methods of the app-server. Knows no pipe and no clock: lines come in, lines and turns to run come out.

use serde_json::{Value, json};

use super::{
    act::Act,
    catalog,
    check::{self, Refusal},
    history,
    scenario::{self, Scenario},
    script::{self, TurnInput},
    threads::{self, Thread, Threads},
    turn::{Turn, World},
    upstream,
    version::Release,
    wire::Out,
};

/// One app-server.
pub(crate) struct Server {
    pub(crate) world: World,
    pub(crate) threads: Threads,
    catalog: Vec<Value>,
    /// The model of the command line.
    model: Option<String>,
    initialized: bool,
    experimental: bool,
}

/// What is set up before any line comes.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) catalog: Vec<Value>,
    pub(crate) model: Option<String>,
    /// Whether threads go when nobody listens to them.
    pub(crate) unload: bool,
}

/// What an answer waits for.
enum Answer {
    /// It is written.
    Now(Value),
    /// It is written, and this notification behind it.
    AndThen(Value, &'static str, Value),
    /// It is empty, and what was injected is said back behind it: these items, as those of this thread and turn.
    AndEcho { thread: String, turn: String, items: Vec<Value> },
    /// Nobody gets one.
    Never,
}

type Answered = Result<Answer, Refusal>;

impl Server {
    /// Before its first line.
    pub(crate) fn new(release: Release, setup: Setup) -> Self {
        let world = World { out: Out::new(release), release, next_request: 0, leaked: Vec::new() };
        let threads = Threads::new(setup.unload);
        let Setup { catalog, model, unload: _ } = setup;
        Self { world, threads, catalog, model, initialized: false, experimental: false }
    }

    /// Takes a line and returns the numbers of the turns that can go on because of it.
    pub(crate) fn take(&mut self, line: &[u8]) -> Vec<u64> {
        // What is no JSON, or no message, is passed over.
        let Ok(message) = serde_json::from_slice::<Value>(line) else { return Vec::new() };
        let Some(id) = message.get("id").filter(|id| !id.is_null()) else { return Vec::new() };
        let Some(method) = message["method"].as_str() else { return self.answered(id, &message) };
        let mut begun = Vec::new();
        match self.call(method, id, message.get("params"), &mut begun) {
            Ok(Answer::Now(result)) => self.world.out.answer(id, Ok(result)),
            Ok(Answer::AndThen(result, method, params)) => {
                self.world.out.answer(id, Ok(result));
                self.world.out.notify(method, &params);
            }
            Ok(Answer::AndEcho { thread, turn, items }) => {
                self.world.out.answer(id, Ok(json!({})));
                for item in &items {
                    self.world.out.raw_item(&thread, &turn, item);
                }
            }
            Ok(Answer::Never) => {}
            Err(refusal) => self.world.out.answer(id, Err(refusal)),
        }
        self.after(method, message.get("params"), &begun);
        begun
    }

    /// The client answers a request of a turn.
    fn answered(&mut self, id: &Value, message: &Value) -> Vec<u64> {
        let Some(id) = id.as_u64() else { return Vec::new() };
        let world = &mut self.world;
        let mut turns = self.threads.turns();
        turns
            .find_map(|(number, turn)| turn.answered(world, id, message).then_some(number))
            .into_iter()
            .collect()
    }

    fn call(&mut self, method: &str, id: &Value, params: Option<&Value>, begun: &mut Vec<u64>) -> Answered {
        check::method(method, self.world.release)?;
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
            "thread/inject_items" => return self.inject(params),
            "turn/start" => return self.turn_start(params, begun),
            "turn/interrupt" => return self.interrupt(id, params),
            "thread/unsubscribe" => {
                let thread = check::thread_id(&params["threadId"])?;
                json!({"status": self.threads.unsubscribe(thread)})
            }
            "thread/loaded/list" => json!({"data": self.threads.ids(), "nextCursor": null}),
            "model/list" => catalog::list(&self.catalog, params)?,
            "account/read" => account(self.world.release),
            _ => return Err(Refusal::invalid(format!("fake codex: `{method}` is not played"))),
        };
        Ok(Answer::Now(answer))
    }

    /// Notifications after an answer.
    fn after(&mut self, method: &str, params: Option<&Value>, begun: &[u64]) {
        for number in begun {
            if let Some(turn) = self.threads.turn(*number) {
                turn.begin(&mut self.world);
            }
        }
        if method == "thread/unsubscribe"
            && let Some(thread) = params.and_then(|params| params["threadId"].as_str())
        {
            self.threads.unload(&mut self.world, thread);
        }
    }

    fn initialize(&mut self, params: &Value) -> Answered {
        check::required(Some(params), &["clientInfo"])?;
        check::required(params.get("clientInfo"), &["name", "version"])
            .map_err(|refusal| Refusal::invalid(refusal.message))?;
        if std::mem::replace(&mut self.initialized, true) {
            return Err(Refusal::invalid("Already initialized"));
        }
        let capabilities = &params["capabilities"];
        self.experimental = capabilities["experimentalApi"] == json!(true);
        self.world.out.opt_out(&capabilities["optOutNotificationMethods"]);
        let text = |name: &str| params["clientInfo"][name].as_str().unwrap_or_default().to_owned();
        let (name, version, codex) = (text("name"), text("version"), crate::version());
        let agent = format!("{name}/{codex} (Fake 1.0.0; x86_64) unknown ({name}; {version})");
        let mut answer = json!({"userAgent": agent});
        if self.world.release >= Release::V140 {
            let home = super::codex_home().unwrap_or_default();
            answer["codexHome"] = json!(home);
            answer["platformFamily"] = json!("unix");
            answer["platformOs"] = json!("linux");
        }
        Ok(Answer::Now(answer))
    }

    fn thread_start(&mut self, params: &Value) -> Answered {
        check::thread_start(params, self.experimental, self.world.release)?;
        let model = params["model"].as_str().or(self.model.as_deref()).unwrap_or("gpt-5.5").to_owned();
        let scenario = scenario_of(&model)?;
        if scenario == Scenario::MuteStart {
            return Ok(Answer::Never);
        }
        let id = uuid::Uuid::now_v7().to_string();
        let answer = threads::told(&id, params, &model, self.world.release);
        self.threads.add(&id, Thread::new(scenario, params.clone()));
        let started = json!({"thread": answer["thread"]});
        Ok(Answer::AndThen(answer, "thread/started", started))
    }

    fn inject(&mut self, params: &Value) -> Answered {
        check::required(Some(params), &["threadId", "items"])?;
        let id = check::thread_id(&params["threadId"])?;
        let thread = self.threads.get(id)?;
        let Value::Array(items) = &params["items"] else {
            let what = history::shown(&params["items"]);
            return Err(Refusal::invalid(format!(
                "Invalid request: invalid type: {what}, expected a sequence"
            )));
        };
        history::check(items).map_err(Refusal::invalid)?;
        thread.items.extend(items.iter().cloned());
        let turn = format!("auto-compact-{}", thread.injections);
        thread.injections += 1;
        if thread.scenario == Scenario::MuteInject {
            return Ok(Answer::Never);
        }
        if thread.raw() {
            return Ok(Answer::AndEcho { thread: id.to_owned(), turn, items: items.clone() });
        }
        Ok(Answer::Now(json!({})))
    }

    fn turn_start(&mut self, params: &Value, begun: &mut Vec<u64>) -> Answered {
        check::required(Some(params), &["threadId", "input"])?;
        let id = check::thread_id(&params["threadId"])?;
        let release = self.world.release;
        let loaded = self.threads.ids().len();
        let thread = self.threads.get(id)?;
        check::input(&params["input"])?;
        if let Some(model) = params["model"].as_str() {
            thread.scenario = scenario_of(model)?;
        }
        if let Scenario::Overloaded(times) = thread.scenario
            && thread.refused < times
        {
            thread.refused += 1;
            return Err(Refusal::overloaded());
        }
        thread.items.extend(input_items(&params["input"]));
        let given = TurnInput {
            release,
            items: thread.items.clone(),
            thread_start: thread.params.clone(),
            turn_start: params.clone(),
            cwd: threads::cwd(&thread.params),
            threads: loaded,
        };
        let (mute, raw) = (thread.scenario == Scenario::MuteTurn, thread.raw());
        // 0.110 never ends a turn without input.
        let stuck = release == Release::V110 && params["input"].as_array().is_some_and(Vec::is_empty);
        if let Some((_, running)) = self.threads.turn_of(id) {
            // The real one would have the running turn read this.
            return Ok(Answer::Now(json!({"turn": running.told("inProgress", &Value::Null, release)})));
        }
        let thread = self.threads.get(id)?;
        let acts = if stuck { Vec::new() } else { user_message(&params["input"], acts(thread, &given)) };
        let turn = Turn::new(id, acts, raw);
        let mut told = turn.told("inProgress", &Value::Null, release);
        for name in ["startedAt", "completedAt", "durationMs"] {
            if told.get(name).is_some() {
                told[name] = Value::Null;
            }
        }
        let number = self.threads.begin(id, turn);
        if !stuck && !mute {
            begun.push(number);
        }
        Ok(if mute { Answer::Never } else { Answer::Now(json!({"turn": told})) })
    }

    fn interrupt(&mut self, id: &Value, params: &Value) -> Answered {
        check::required(Some(params), &["threadId", "turnId"])?;
        let thread = check::thread_id(&params["threadId"])?;
        let deaf = matches!(self.threads.get(thread)?.scenario, Scenario::Deaf { .. });
        let release = self.world.release;
        let Some((number, turn)) = self.threads.turn_of(thread) else {
            return Err(Refusal::invalid("no active turn to interrupt"));
        };
        if params["turnId"] != json!(turn.id()) {
            let (wanted, running) = (params["turnId"].as_str().unwrap_or_default(), turn.id());
            return Err(Refusal::invalid(format!("expected active turn id {wanted} but found {running}")));
        }
        if deaf || release <= Release::V110 && turn.is_stuck() {
            return Ok(Answer::Never);
        }
        turn.interrupt(&mut self.world, |world| world.out.answer(id, Ok(json!({}))));
        self.threads.end(&mut self.world, number);
        Ok(Answer::Never)
    }
}

/// What the turn plays, which is up to the upstream where the thread brings one along and no scenario.
fn acts(thread: &Thread, given: &TurnInput) -> Vec<Act> {
    let upstream = upstream::named(&thread.params).filter(|_| thread.scenario == Scenario::Echo);
    match upstream {
        Some(base_url) => {
            let model = thread.params["model"].as_str().unwrap_or("gpt-5.5");
            upstream::acts(&base_url, model, given)
        }
        None => script::acts(&thread.scenario, given),
    }
}

fn scenario_of(model: &str) -> Result<Scenario, Refusal> {
    let scenario = match crate::env("FAKE_CODEX_SCENARIO") {
        Some(name) => scenario::named(&name),
        None => scenario::of_model(model),
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

/// The input of a turn as an item of its thread.
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

/// The input of a turn is told as an item of it.
fn user_message(input: &Value, acts: Vec<Act>) -> Vec<Act> {
    if input.as_array().is_none_or(Vec::is_empty) {
        return acts;
    }
    let id = uuid::Uuid::now_v7();
    let item = json!({"type": "userMessage", "id": id.to_string(), "clientId": null, "content": input});
    [Act::Started(item.clone()), Act::Completed(item)].into_iter().chain(acts).collect()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
