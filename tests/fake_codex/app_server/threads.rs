//! The threads of one app-server and the turns that run in them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::{
    check::Refusal,
    scenario::Scenario,
    turn::{Context, Turn},
    version::Release,
    wire::{Usage, unix_ms},
};

/// One loaded thread.
pub(crate) struct Thread {
    pub(crate) scenario: Scenario,
    /// The parameters of `thread/start`.
    pub(crate) params: Value,
    /// All items. The running turn owns them.
    pub(crate) items: Vec<Value>,
    /// The usage of all turns.
    pub(crate) usage: Usage,
    /// The effort of the last `turn/start` that set one.
    pub(crate) effort: Option<String>,
    /// The number of turns.
    pub(crate) turns: usize,
    /// The number of `thread/backgroundTerminals/clean`.
    pub(crate) cleans: usize,
    /// The number of refused turns.
    pub(crate) refused: usize,
    /// The number of injections.
    pub(crate) injections: usize,
    /// The number of the running turn.
    pub(crate) turn: Option<u64>,
    subscribed: bool,
}

/// All loaded threads and running turns.
#[derive(Default)]
pub(crate) struct Threads {
    by_id: BTreeMap<String, Thread>,
    turns: HashMap<u64, Turn>,
    last_turn: u64,
    /// Whether a thread without a subscriber is unloaded, as with `thread_unload_delay_secs=0`.
    unload: bool,
}

impl Thread {
    /// Creates a thread with a subscriber and without items.
    pub(crate) fn new(scenario: Scenario, params: Value) -> Self {
        Self {
            scenario,
            params,
            items: Vec::new(),
            usage: Usage::default(),
            effort: None,
            turns: 0,
            cleans: 0,
            refused: 0,
            injections: 0,
            turn: None,
            subscribed: true,
        }
    }

    /// Returns the effort of the next turn.
    pub(crate) fn effort(&self) -> String {
        let configured = self.params["config"]["model_reasoning_effort"].as_str();
        self.effort.as_deref().or(configured).unwrap_or("low").to_owned()
    }

    /// Returns whether the client requested raw events.
    pub(crate) fn raw(&self) -> bool {
        self.params["experimentalRawEvents"] == json!(true)
    }
}

impl Threads {
    /// Creates an empty set of threads.
    pub(crate) fn new(unload: bool) -> Self {
        Self { unload, ..Self::default() }
    }

    /// Returns the ids of the loaded threads.
    pub(crate) fn ids(&self) -> Vec<&String> {
        self.by_id.keys().collect()
    }

    /// Adds a thread.
    pub(crate) fn add(&mut self, id: &str, thread: Thread) {
        self.by_id.insert(id.to_owned(), thread);
    }

    /// Returns the thread of an id.
    pub(crate) fn get(&mut self, id: &str) -> Result<&mut Thread, Refusal> {
        self.by_id.get_mut(id).ok_or_else(|| Refusal::invalid(format!("thread not found: {id}")))
    }

    /// Returns the turn of a number.
    pub(crate) fn turn(&mut self, number: u64) -> Option<&mut Turn> {
        self.turns.get_mut(&number)
    }

    /// Returns number and turn of the running turn of a thread.
    pub(crate) fn turn_of(&mut self, id: &str) -> Option<(u64, &mut Turn)> {
        let number = self.by_id.get(id)?.turn?;
        Some((number, self.turns.get_mut(&number)?))
    }

    /// Returns every running turn with its number.
    pub(crate) fn turns(&mut self) -> impl Iterator<Item = (u64, &mut Turn)> {
        self.turns.iter_mut().map(|(number, turn)| (*number, turn))
    }

    /// Adds a turn to a thread and returns its number.
    pub(crate) fn start_turn(&mut self, id: &str, mut turn: Turn) -> u64 {
        self.last_turn += 1;
        if let Some(thread) = self.by_id.get_mut(id) {
            thread.turn = Some(self.last_turn);
            thread.turns += 1;
            turn.is_muted = !thread.subscribed;
        }
        self.turns.insert(self.last_turn, turn);
        self.last_turn
    }

    /// Removes an ended turn, and its thread if that has no subscriber. Its items go back to the thread.
    pub(crate) fn end_turn(&mut self, context: &mut Context, number: u64) {
        let turn = self.turns.remove(&number);
        let ended = self.by_id.iter_mut().find(|(_, thread)| thread.turn == Some(number));
        let Some((id, thread)) = ended else { return };
        thread.turn = None;
        if let Some(turn) = turn {
            (thread.items, thread.usage) = turn.into_history();
        }
        let id = id.clone();
        let unsubscribed = !thread.subscribed;
        if unsubscribed {
            let status = json!({"threadId": id, "status": {"type": "idle"}});
            context.out.notify("thread/status/changed", &status);
            self.unload(context, &id);
        }
    }

    /// Removes the subscriber of a thread and mutes its running turn. Returns the status for the response.
    pub(crate) fn unsubscribe(&mut self, id: &str) -> &'static str {
        let Some(thread) = self.by_id.get_mut(id) else { return "notLoaded" };
        if !std::mem::replace(&mut thread.subscribed, false) {
            return "notSubscribed";
        }
        if let Some(turn) = thread.turn.and_then(|number| self.turns.get_mut(&number)) {
            turn.is_muted = true;
        }
        "unsubscribed"
    }

    /// Unloads an idle thread without a subscriber.
    pub(crate) fn unload(&mut self, context: &mut Context, id: &str) {
        let idle = self.by_id.get(id).is_some_and(|thread| thread.turn.is_none() && !thread.subscribed);
        if idle && self.unload {
            self.by_id.remove(id);
            let status = json!({"threadId": id, "status": {"type": "notLoaded"}});
            context.out.notify("thread/status/changed", &status);
            context.out.notify("thread/closed", &json!({"threadId": id}));
        }
    }
}

/// Returns the result of `thread/start`.
pub(crate) fn start_response(id: &str, params: &Value, model: &str, release: Release) -> Value {
    let (now, cwd) = (unix_ms() / 1000, cwd(params));
    // 0.77 ignores `ephemeral` and keeps every thread.
    let ephemeral = params["ephemeral"] == json!(true) && release >= Release::V110;
    let path = if ephemeral { Value::Null } else { json!(format!("/nowhere/sessions/rollout-{id}.jsonl")) };
    let mut thread = json!({
        "id": id, "preview": "", "ephemeral": ephemeral, "modelProvider": "fake", "createdAt": now, "updatedAt": now,
        "status": {"type": "idle"}, "path": path, "cwd": cwd, "cliVersion": crate::version(), "source": "vscode",
        "agentNickname": null, "agentRole": null, "gitInfo": null, "name": null, "turns": [],
    });
    let sandbox = match params["sandbox"].as_str() {
        Some("danger-full-access") => json!({"type": "dangerFullAccess"}),
        Some("workspace-write") => {
            json!({"type": "workspaceWrite", "writableRoots": [], "networkAccess": false,
                                          "excludeTmpdirEnvVar": false, "excludeSlashTmp": false})
        }
        _ => json!({"type": "readOnly", "networkAccess": false}),
    };
    let approval = if params["approvalPolicy"].is_null() {
        json!("on-request")
    } else {
        params["approvalPolicy"].clone()
    };
    let mut answer = json!({
        "model": model, "modelProvider": "fake", "serviceTier": null, "cwd": cwd, "approvalPolicy": approval,
        "sandbox": sandbox, "reasoningEffort": "low",
    });
    if release >= Release::V140 {
        add(
            &mut thread,
            &json!({"sessionId": id, "forkedFromId": null, "parentThreadId": null, "threadSource": null}),
        );
        add(
            &mut answer,
            &json!({"runtimeWorkspaceRoots": [cwd], "instructionSources": [], "approvalsReviewer": "user",
                    "activePermissionProfile": null}),
        );
    }
    if release >= Release::V169 {
        let environments = match &params["environments"] {
            Value::Array(given) => json!(given),
            _ => json!([{"environmentId": "local", "cwd": cwd, "runtimeWorkspaceRoots": [cwd]}]),
        };
        add(
            &mut thread,
            &json!({
                "environments": environments, "extra": null, "attachedToThreadId": null, "section": null,
                "sectionEnteredAt": null, "projectId": null, "historyMode": "paginated", "model": model,
                "reasoningEffort": "low", "recencyAt": now, "originator": "fake", "canAcceptDirectInput": true,
                "daybreakEnabled": null,
            }),
        );
        add(&mut answer, &json!({"disabledPluginIds": [], "multiAgentMode": "explicitRequestOnly"}));
    }
    answer["thread"] = thread;
    answer
}

/// Returns the absolute working folder of a thread, which need not exist.
pub(crate) fn cwd(params: &Value) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    here.join(params["cwd"].as_str().unwrap_or_default()).to_string_lossy().into_owned()
}

fn add(object: &mut Value, members: &Value) {
    for (name, value) in members.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
}
