//! One turn under way: performs its acts one by one and says when to go on. Knows no other turn, and no thread but
//! by its id.

mod speech;

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    act::{Act, Then},
    failures::Failure,
    pending_requests::PendingRequests,
    version::Release,
    wire::{Out, Usage, new_id, unix_ms},
};
use crate::watch;
use speech::Message;

/// What a turn writes to, and takes ids from.
#[derive(Debug)]
pub(crate) struct World {
    /// The lines.
    pub(crate) out: Out,
    /// What is played.
    pub(crate) release: Release,
    /// The id of the next request to the client.
    pub(crate) next_request: u64,
    /// Memory that is never given back.
    pub(crate) leaked: Vec<Vec<u8>>,
}

impl World {
    /// The id of a request to the client.
    fn take_id(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request - 1
    }
}

/// How a turn goes on after an act.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// At once.
    Now,
    /// Then.
    At(Instant),
    /// When the client has answered, or interrupts.
    Wait,
    /// Not any more.
    Done,
    /// The process does this.
    Process(Fate),
}

/// What happens to the process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Exit { code: u8, words: &'static str },
    Stop,
    CloseStdin,
}

/// A turn.
pub(crate) struct Turn {
    thread: String,
    id: String,
    acts: VecDeque<Act>,
    began: Instant,
    began_s: u64,
    message: Option<Message>,
    last_message: Option<Value>,
    total: Usage,
    last: Usage,
    settled: bool,
    asked: PendingRequests,
    next_piece: Option<Instant>,
    /// Whether the client wants raw events.
    raw: bool,
    /// Whether the client still listens to this thread.
    pub(crate) muted: bool,
}

impl Turn {
    /// A turn that has not begun.
    pub(crate) fn new(thread: &str, acts: Vec<Act>, raw: bool) -> Self {
        Self {
            thread: thread.to_owned(),
            id: uuid::Uuid::now_v7().to_string(),
            acts: acts.into(),
            began: Instant::now(),
            began_s: unix_ms() / 1000,
            message: None,
            last_message: None,
            total: Usage::default(),
            last: Usage::default(),
            settled: true,
            asked: PendingRequests::default(),
            next_piece: None,
            raw,
            muted: false,
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has nothing to do and never ends.
    pub(crate) fn is_stuck(&self) -> bool {
        self.acts.is_empty()
    }

    /// Returns the turn object of answers and notifications.
    pub(crate) fn told(&self, status: &str, error: &Value, release: Release) -> Value {
        let ended = status != "inProgress";
        let mut told = json!({"id": self.id, "items": [], "status": status, "error": error});
        if release >= Release::V140 {
            let now = unix_ms() / 1000;
            told["itemsView"] = json!("notLoaded");
            told["startedAt"] = json!(self.began_s);
            told["completedAt"] = if ended { json!(now) } else { Value::Null };
            told["durationMs"] = if ended { json!(self.millis()) } else { Value::Null };
        }
        if release >= Release::V169 {
            told["rootTurnId"] = json!(self.id);
            if let Some(message) = self.last_message.as_ref().filter(|_| status == "completed") {
                told["items"] = json!([message]);
                told["itemsView"] = json!("summary");
            }
        }
        told
    }

    /// The words at its beginning.
    pub(crate) fn begin(&self, world: &mut World) {
        self.status(world, &json!({"type": "active", "activeFlags": []}));
        let turn = self.told("inProgress", &Value::Null, world.release);
        self.tell_of_thread(world, "turn/started", json!({"turn": turn}));
    }

    /// Performs acts till one of them takes time.
    pub(crate) fn run(&mut self, world: &mut World) -> Next {
        loop {
            match self.step(world) {
                Next::Now => {}
                next => return next,
            }
        }
    }

    fn step(&mut self, world: &mut World) -> Next {
        let Some(act) = self.acts.pop_front() else { return Next::Wait };
        match act {
            Act::Pause(time) => return Next::At(Instant::now() + time),
            Act::Open(phase) => self.open(world, phase),
            Act::Delta(text) => self.delta(world, &text),
            Act::Stream { left, every } => return self.stream(world, left, every),
            Act::Flood { left } => return self.flood(world, left),
            Act::Close => self.close(world),
            Act::Think { summary, raw } => self.think(world, &summary, raw),
            Act::Started(item) => self.started(world, item),
            Act::Completed(item) => self.completed(world, item, unix_ms()),
            Act::Notify(method, params) => self.tell(world, method, params),
            Act::Raw(item) => self.raw_item(world, item),
            Act::Response(usage) => self.response(world, usage),
            Act::Unfinished(usage) => self.unfinished(usage),
            Act::Settle => self.settle(world),
            Act::Call { tool, arguments } => self.call(world, &tool, &arguments),
            Act::Ask(method, params) => self.ask(world, method, params),
            Act::Await(then) => return self.wait(world, then),
            Act::Retry(error) => {
                // What was being said is never ended; the next attempt says it again.
                self.message = None;
                self.tell(world, "error", json!({"error": error, "willRetry": true}));
            }
            Act::Bytes(bytes) => world.out.bytes.extend_from_slice(&bytes),
            Act::Stderr(bytes) => crate::play::chatter(bytes),
            Act::Leak(bytes) => world.leaked.push(vec![1; bytes]),
            Act::Grandchild => drop::<io::Result<()>>(watch::start_grandchild()),
            Act::Gate(pipe) => return self.wait_at(pipe),
            Act::CloseStdin => return Next::Process(Fate::CloseStdin),
            Act::Stop => return Next::Process(Fate::Stop),
            Act::Exit { code, words } => return Next::Process(Fate::Exit { code, words }),
            Act::Hang => {
                self.acts.push_front(Act::Hang);
                return Next::Wait;
            }
            Act::Finish => return self.finish(world),
            Act::Fail(failure) => return self.fail(world, &failure),
        }
        Next::Now
    }

    fn wait_at(&mut self, pipe: String) -> Next {
        match watch::passes(&pipe) {
            Ok(true) => Next::Now,
            Ok(false) => {
                self.acts.push_front(Act::Gate(pipe));
                Next::At(Instant::now() + Duration::from_millis(5))
            }
            Err(_) => Next::Process(Fate::Exit { code: crate::FAKE_ONLY, words: "fake codex: no gate\n" }),
        }
    }

    fn call(&mut self, world: &mut World, tool: &str, arguments: &str) {
        let call = new_id("call");
        self.raw_item(
            world,
            json!({"type": "function_call", "status": "completed", "id": new_id("fc"), "name": tool,
                   "arguments": arguments, "call_id": call}),
        );
        // What is no JSON never gets here with the real one either.
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
        let id = world.take_id();
        let item = self.asked.call(id, &call, tool, &arguments, world.release);
        self.started(world, item);
        let mut params = json!({"threadId": self.thread, "turnId": self.id, "callId": call, "tool": tool,
                                "arguments": arguments});
        if world.release >= Release::V140 {
            params["namespace"] = Value::Null;
        }
        if !self.muted {
            world.out.request(id, "item/tool/call", &params);
        }
    }

    fn ask(&mut self, world: &mut World, method: &'static str, mut params: Value) {
        params["threadId"] = json!(self.thread);
        params["turnId"] = json!(self.id);
        let id = world.take_id();
        self.asked.ask(id, method);
        if !self.muted {
            world.out.request(id, method, &params);
        }
    }

    fn wait(&mut self, world: &mut World, then: Then) -> Next {
        if self.asked.open() {
            self.acts.push_front(Act::Await(then));
            return Next::Wait;
        }
        let answers = self.asked.take();
        for output in answers.outputs {
            self.raw_item(world, output);
        }
        for act in then(answers.answers).into_iter().rev() {
            self.acts.push_front(act);
        }
        Next::Now
    }

    /// The client answers a request; whether it was one of this turn.
    pub(crate) fn answered(&mut self, world: &mut World, id: u64, answer: &Value) -> bool {
        let Some(told) = self.asked.answered(id, answer) else { return false };
        match told {
            Ok(item) => self.completed(world, item, unix_ms()),
            Err(_) => self.tell(world, "serverRequest/resolved", json!({"requestId": id})),
        }
        true
    }

    /// The client wants no more of it. What the answer to the interrupt comes between is written by `answer`.
    pub(crate) fn interrupt(&mut self, world: &mut World, answer: impl FnOnce(&mut World)) {
        let cancelled = self.asked.cancel();
        if cancelled.items.is_empty() {
            self.settled = true;
        }
        for item in cancelled.items {
            self.completed(world, item, unix_ms());
        }
        for output in cancelled.outputs {
            self.raw_item(world, output);
        }
        self.settle(world);
        let text = "<turn_aborted>\nThe user interrupted the previous turn on purpose.\n</turn_aborted>";
        let parts = json!([{"type": "input_text", "text": text}]);
        self.raw_item(
            world,
            json!({"type": "message", "id": new_id("msg"), "role": "user", "content": parts}),
        );
        answer(world);
        self.status(world, &json!({"type": "idle"}));
        let turn = self.told("interrupted", &Value::Null, world.release);
        self.tell_of_thread(world, "turn/completed", json!({"turn": turn}));
    }

    fn finish(&mut self, world: &mut World) -> Next {
        self.status(world, &json!({"type": "idle"}));
        let turn = self.told("completed", &Value::Null, world.release);
        self.tell_of_thread(world, "turn/completed", json!({"turn": turn}));
        Next::Done
    }

    fn fail(&mut self, world: &mut World, failure: &Failure) -> Next {
        let error = failure.error(world.release);
        self.status(world, &json!({"type": "systemError"}));
        self.tell(world, "error", json!({"error": error, "willRetry": false}));
        let turn = self.told("failed", &error, world.release);
        self.tell_of_thread(world, "turn/completed", json!({"turn": turn}));
        Next::Done
    }

    /// An item begins.
    fn started(&self, world: &mut World, mut item: Value) {
        let now = unix_ms();
        if world.release >= Release::V169 {
            (item["startedAtMs"], item["completedAtMs"]) = (json!(now), Value::Null);
        }
        let mut params = json!({"item": item});
        if world.release >= Release::V140 {
            params["startedAtMs"] = json!(now);
        }
        self.tell(world, "item/started", params);
    }

    /// An item ends that began then.
    fn completed(&self, world: &mut World, mut item: Value, began_ms: u64) {
        let now = unix_ms();
        if world.release >= Release::V169 {
            (item["startedAtMs"], item["completedAtMs"]) = (json!(began_ms), json!(now));
        }
        let mut params = json!({"item": item});
        if world.release >= Release::V140 {
            params["completedAtMs"] = json!(now);
        }
        self.tell(world, "item/completed", params);
    }

    fn raw_item(&self, world: &mut World, item: Value) {
        if self.raw && !self.muted {
            world.out.raw_item(&self.thread, &self.id, &item);
        }
    }

    fn status(&self, world: &mut World, status: &Value) {
        self.tell_of_thread(world, "thread/status/changed", json!({"status": status}));
    }

    /// A notification about this turn.
    fn tell(&self, world: &mut World, method: &str, mut params: Value) {
        params["turnId"] = json!(self.id);
        self.tell_of_thread(world, method, params);
    }

    /// A notification about this thread.
    fn tell_of_thread(&self, world: &mut World, method: &str, mut params: Value) {
        if !self.muted {
            params["threadId"] = json!(self.thread);
            world.out.notify(method, &params);
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
