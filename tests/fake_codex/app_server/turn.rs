//! One running turn. It performs its acts in order and returns when to continue. It owns the items of its thread while it
//! runs, and has no access to other turns.

mod speech;

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    act::{Act, Continuation},
    failures::Failure,
    items,
    model::Model,
    pending_requests::PendingRequests,
    version::Release,
    wire::{Out, Usage, new_id, unix_ms},
};
use crate::watch;
use speech::Message;

/// The state that all turns share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The buffered output.
    pub(crate) out: Out,
    /// The emulated release.
    pub(crate) release: Release,
    /// The id of the next request to the client.
    pub(crate) next_request: u64,
    /// Memory that is never freed.
    pub(crate) leaked: Vec<Vec<u8>>,
}

impl Context {
    /// Returns the id of the next request to the client.
    fn take_id(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request - 1
    }
}

/// The continuation of a turn after an act.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Continues immediately.
    Now,
    /// Continues at this time.
    At(Instant),
    /// Waits for a response or an interrupt of the client.
    Wait,
    /// Has ended.
    Done,
    /// Performs an action of the whole process.
    Process(ProcessAction),
}

/// An action of the whole process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProcessAction {
    Exit { code: u8, stderr: &'static str },
    Stop,
    CloseStdin,
}

/// A turn and its remaining acts.
pub(crate) struct Turn {
    thread: String,
    id: String,
    acts: VecDeque<Act>,
    began: Instant,
    began_s: u64,
    message: Option<Message>,
    last_message: Option<Value>,
    model: Model,
    /// Items that were injected while the turn runs. The next model call gets them.
    steered: Vec<Value>,
    /// The usage of the whole thread.
    total: Usage,
    last: Usage,
    usage_reported: bool,
    pending: PendingRequests,
    next_piece: Option<Instant>,
    /// Set if the client requested raw events.
    raw: bool,
    /// Set if the client has unsubscribed from the thread. The turn then sends nothing.
    pub(crate) is_muted: bool,
}

impl Turn {
    /// Creates a turn that has not started. `total` is the usage of the former turns of the thread.
    pub(crate) fn new(thread: &str, model: Model, acts: Vec<Act>, total: Usage) -> Self {
        Self {
            thread: thread.to_owned(),
            raw: model.has_raw_events(),
            model,
            steered: Vec::new(),
            id: uuid::Uuid::now_v7().to_string(),
            acts: acts.into(),
            began: Instant::now(),
            began_s: unix_ms() / 1000,
            message: None,
            last_message: None,
            total,
            last: Usage::default(),
            usage_reported: true,
            pending: PendingRequests::default(),
            next_piece: None,
            is_muted: false,
        }
    }

    /// Returns the id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Returns `true` if the turn has no acts and therefore never ends.
    pub(crate) fn never_ends(&self) -> bool {
        self.acts.is_empty()
    }

    /// Returns whether the turn waits for responses of the client.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.acts.front(), Some(Act::Await(_)))
    }

    /// Adds items that the next model call gets.
    pub(crate) fn steer(&mut self, items: impl IntoIterator<Item = Value>) {
        self.steered.extend(items);
    }

    /// Returns the items of the thread and the usage of all its turns.
    pub(crate) fn into_history(self) -> (Vec<Value>, Usage) {
        (self.model.into_items(), self.total)
    }

    /// Returns the turn object of responses and notifications.
    pub(crate) fn to_json(&self, status: &str, error: &Value, release: Release) -> Value {
        let ended = status != "inProgress";
        let mut turn = json!({"id": self.id, "items": [], "status": status, "error": error});
        if release >= Release::V140 {
            let now = unix_ms() / 1000;
            turn["itemsView"] = json!("notLoaded");
            turn["startedAt"] = json!(self.began_s);
            turn["completedAt"] = if ended { json!(now) } else { Value::Null };
            turn["durationMs"] = if ended { json!(self.millis()) } else { Value::Null };
        }
        if release >= Release::V169 {
            turn["rootTurnId"] = json!(self.id);
            if let Some(message) = self.last_message.as_ref().filter(|_| status == "completed") {
                turn["items"] = json!([message]);
                turn["itemsView"] = json!("summary");
            }
        }
        turn
    }

    /// Sends the notifications of a started turn.
    pub(crate) fn notify_started(&self, context: &mut Context) {
        self.status(context, &json!({"type": "active", "activeFlags": []}));
        let turn = self.to_json("inProgress", &Value::Null, context.release);
        self.notify_thread(context, "turn/started", json!({"turn": turn}));
    }

    /// Performs acts until one of them waits.
    pub(crate) fn run(&mut self, context: &mut Context) -> Next {
        loop {
            match self.step(context) {
                Next::Now => {}
                next => return next,
            }
        }
    }

    fn step(&mut self, context: &mut Context) -> Next {
        let Some(act) = self.acts.pop_front() else { return Next::Wait };
        match act {
            Act::Pause(time) => return Next::At(Instant::now() + time),
            Act::Open(phase) => self.open(context, phase),
            Act::Delta(text) => self.delta(context, &text),
            Act::Stream { left, every } => return self.stream(context, left, every),
            Act::Flood { left } => return self.flood(context, left),
            Act::Close => self.close(context),
            Act::Reasoning { summary, raw } => self.reasoning(context, &summary, raw),
            Act::Started(item) => self.started(context, item),
            Act::Completed(item) => self.completed(context, item, unix_ms()),
            Act::Notify(method, params) => self.notify(context, method, params),
            Act::NotifyAll(method, params) => context.out.notify(method, &params),
            Act::Raw(item) => self.raw_item(context, item),
            Act::Response(usage) => self.response(context, usage),
            Act::Unfinished(usage) => self.unfinished(usage),
            Act::ReportUsage => {
                self.report_usage(context);
                // A response that was the last one is followed by another one about the new items.
                if self.take_steered(context) && matches!(self.acts.front(), Some(Act::Finish)) {
                    self.acts = VecDeque::from([Act::CallModel]);
                }
            }
            Act::Call { tool, arguments } => self.call(context, &tool, &arguments),
            Act::OwnCall { command } => self.own_call(context, &command),
            Act::StartOwn => self.start_own(context),
            Act::FinishOwn => self.finish_own(context),
            Act::Request(method, params) => self.request(context, method, params),
            Act::Await(then) => return self.wait(context, then),
            Act::CallModel => self.push_front(self.model.acts()),
            Act::Retry(error) => {
                // The unfinished message never completes. The next attempt sends it again.
                self.message = None;
                self.notify(context, "error", json!({"error": error, "willRetry": true}));
            }
            Act::Bytes(bytes) => context.out.bytes.extend_from_slice(&bytes),
            Act::Stderr(bytes) => crate::play::write_log(bytes),
            Act::Leak(bytes) => context.leaked.push(vec![1; bytes]),
            Act::Grandchild => drop::<io::Result<()>>(watch::start_grandchild()),
            Act::Gate(pipe) => return self.wait_at(pipe),
            Act::CloseStdin => return Next::Process(ProcessAction::CloseStdin),
            Act::Stop => return Next::Process(ProcessAction::Stop),
            Act::Exit { code, stderr } => return Next::Process(ProcessAction::Exit { code, stderr }),
            Act::Hang => {
                self.acts.push_front(Act::Hang);
                return Next::Wait;
            }
            Act::Finish => return self.finish(context),
            Act::Fail(failure) => return self.fail(context, &failure),
        }
        Next::Now
    }

    fn wait_at(&mut self, pipe: String) -> Next {
        match watch::try_read_byte(&pipe) {
            Ok(true) => Next::Now,
            Ok(false) => {
                self.acts.push_front(Act::Gate(pipe));
                Next::At(Instant::now() + Duration::from_millis(5))
            }
            Err(_) => Next::Process(ProcessAction::Exit {
                code: crate::FAKE_ONLY,
                stderr: "fake codex: the pipe of the gate cannot be read\n",
            }),
        }
    }

    fn call(&mut self, context: &mut Context, tool: &str, arguments: &str) {
        let call = new_id("call");
        self.raw_item(
            context,
            json!({"type": "function_call", "status": "completed", "id": new_id("fc"), "name": tool,
                   "arguments": arguments, "call_id": call}),
        );
        // Arguments are always JSON here. The real CLI does not forward other arguments either.
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
        let id = context.take_id();
        let item = self.pending.add_call(id, &call, tool, &arguments, context.release);
        self.started(context, item);
        let mut params = json!({"threadId": self.thread, "turnId": self.id, "callId": call, "tool": tool,
                                "arguments": arguments});
        if context.release >= Release::V140 {
            params["namespace"] = Value::Null;
        }
        if !self.is_muted {
            context.out.request(id, "item/tool/call", &params);
        }
    }

    fn own_call(&mut self, context: &mut Context, command: &str) {
        let call = new_id("call");
        let arguments = json!({"cmd": command}).to_string();
        self.raw_item(
            context,
            json!({"type": "function_call", "status": "completed", "id": new_id("fc"), "name": "exec_command",
                   "arguments": arguments, "call_id": call}),
        );
        self.pending.add_own_call(&call, command);
    }

    fn start_own(&self, context: &mut Context) {
        for (call, command) in self.pending.own_calls().into_iter().filter(|_| self.model.runs_commands()) {
            let item = items::command_item(&call, self.model.cwd(), &command, "inProgress", None);
            self.started(context, item);
        }
    }

    fn finish_own(&mut self, context: &mut Context) {
        for (call, command) in self.pending.own_calls() {
            if self.model.runs_commands() {
                let printed = format!("ran {command}\n");
                let end = Some((printed.as_str(), 0));
                let item = items::command_item(&call, self.model.cwd(), &command, "completed", end);
                let delta = json!({"itemId": call, "delta": printed});
                self.notify(context, "item/commandExecution/outputDelta", delta);
                self.completed(context, item, unix_ms());
                let output = format!("Process exited with code 0\nOutput:\n{printed}");
                self.pending.finish_own_call(&call, &output);
            } else {
                self.pending.finish_own_call(&call, "unsupported call: exec_command");
            }
        }
        self.deliver_outputs(context);
    }

    /// Adds the outputs that are ready to the thread.
    fn deliver_outputs(&mut self, context: &mut Context) {
        for output in self.pending.take_outputs() {
            self.raw_item(context, output);
        }
    }

    /// Adds the items that were injected during the turn to the thread. Returns `false` without such items.
    fn take_steered(&mut self, context: &mut Context) -> bool {
        let items = std::mem::take(&mut self.steered);
        let has_items = !items.is_empty();
        for item in items {
            self.raw_item(context, item);
        }
        has_items
    }

    fn push_front(&mut self, acts: Vec<Act>) {
        for act in acts.into_iter().rev() {
            self.acts.push_front(act);
        }
    }

    fn request(&mut self, context: &mut Context, method: &'static str, mut params: Value) {
        params["threadId"] = json!(self.thread);
        params["turnId"] = json!(self.id);
        let id = context.take_id();
        self.pending.add_request(id, method);
        if !self.is_muted {
            context.out.request(id, method, &params);
        }
    }

    fn wait(&mut self, context: &mut Context, then: Continuation) -> Next {
        if self.pending.has_open() {
            self.acts.push_front(Act::Await(then));
            return Next::Wait;
        }
        self.deliver_outputs(context);
        let answers = self.pending.take_answers();
        self.report_usage(context);
        self.take_steered(context);
        self.push_front(then(answers));
        Next::Now
    }

    /// Handles a response of the client. Returns `false` if the request belongs to another turn.
    pub(crate) fn on_response(&mut self, context: &mut Context, id: u64, answer: &Value) -> bool {
        let Some(turn) = self.pending.on_response(id, answer) else { return false };
        match turn {
            Ok(item) => self.completed(context, item, unix_ms()),
            Err(_) => self.notify(context, "serverRequest/resolved", json!({"requestId": id})),
        }
        self.deliver_outputs(context);
        true
    }

    /// Ends the turn after an interrupt. `answer` writes the response to the interrupt between the notifications. Like the
    /// real app-server, drops the items that were injected during the turn.
    pub(crate) fn interrupt(&mut self, context: &mut Context, answer: impl FnOnce(&mut Context)) {
        let cancelled = self.pending.cancel();
        if cancelled.items.is_empty() {
            self.usage_reported = true;
        }
        for item in cancelled.items {
            self.completed(context, item, unix_ms());
        }
        for output in cancelled.outputs {
            self.raw_item(context, output);
        }
        self.report_usage(context);
        let text = "<turn_aborted>\nThe user interrupted the previous turn on purpose. Any running unified exec processes \
                    may still be running in the background. If any tools/commands were aborted, they may have partially \
                    executed.\n</turn_aborted>";
        let parts = json!([{"type": "input_text", "text": text}]);
        self.raw_item(
            context,
            json!({"type": "message", "id": new_id("msg"), "role": "user", "content": parts}),
        );
        answer(context);
        self.status(context, &json!({"type": "idle"}));
        let turn = self.to_json("interrupted", &Value::Null, context.release);
        self.notify_thread(context, "turn/completed", json!({"turn": turn}));
    }

    fn finish(&mut self, context: &mut Context) -> Next {
        if self.take_steered(context) {
            self.acts = VecDeque::from([Act::CallModel]);
            return Next::Now;
        }
        self.status(context, &json!({"type": "idle"}));
        let turn = self.to_json("completed", &Value::Null, context.release);
        self.notify_thread(context, "turn/completed", json!({"turn": turn}));
        Next::Done
    }

    fn fail(&mut self, context: &mut Context, failure: &Failure) -> Next {
        let error = failure.error(context.release);
        self.status(context, &json!({"type": "systemError"}));
        self.notify(context, "error", json!({"error": error, "willRetry": false}));
        self.take_steered(context);
        let turn = self.to_json("failed", &error, context.release);
        self.notify_thread(context, "turn/completed", json!({"turn": turn}));
        Next::Done
    }

    /// Sends `item/started`.
    fn started(&self, context: &mut Context, mut item: Value) {
        let now = unix_ms();
        if context.release >= Release::V169 {
            (item["startedAtMs"], item["completedAtMs"]) = (json!(now), Value::Null);
        }
        let mut params = json!({"item": item});
        if context.release >= Release::V140 {
            params["startedAtMs"] = json!(now);
        }
        self.notify(context, "item/started", params);
    }

    /// Sends `item/completed` for an item that started at `began_ms`.
    fn completed(&self, context: &mut Context, mut item: Value, began_ms: u64) {
        let now = unix_ms();
        if context.release >= Release::V169 {
            (item["startedAtMs"], item["completedAtMs"]) = (json!(began_ms), json!(now));
        }
        let mut params = json!({"item": item});
        if context.release >= Release::V140 {
            params["completedAtMs"] = json!(now);
        }
        self.notify(context, "item/completed", params);
    }

    /// Adds an item to the thread, and sends it if the client requested raw events.
    fn raw_item(&mut self, context: &mut Context, item: Value) {
        if self.raw && !self.is_muted {
            context.out.raw_item(&self.thread, &self.id, &item);
        }
        self.model.push(item);
    }

    fn status(&self, context: &mut Context, status: &Value) {
        self.notify_thread(context, "thread/status/changed", json!({"status": status}));
    }

    /// Sends a notification with the id of this turn.
    fn notify(&self, context: &mut Context, method: &str, mut params: Value) {
        params["turnId"] = json!(self.id);
        self.notify_thread(context, method, params);
    }

    /// Sends a notification with the id of the thread.
    fn notify_thread(&self, context: &mut Context, method: &str, mut params: Value) {
        if !self.is_muted {
            params["threadId"] = json!(self.thread);
            context.out.notify(method, &params);
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
