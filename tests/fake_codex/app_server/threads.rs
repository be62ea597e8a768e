//! The threads of one app-server and the turns that run in them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::{
    check::Refusal,
    scenario::Scenario,
    turn::{Turn, World},
    version::Release,
    wire::unix_ms,
};

/// A thread.
pub(crate) struct Thread {
    pub(crate) scenario: Scenario,
    /// The parameters of its `thread/start`.
    pub(crate) params: Value,
    /// Its items, as they were injected.
    pub(crate) items: Vec<Value>,
    /// How many turns were refused.
    pub(crate) refused: usize,
    /// How often items were injected.
    pub(crate) injections: usize,
    /// The number of the turn that runs.
    pub(crate) turn: Option<u64>,
    subscribed: bool,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Threads {
    by_id: BTreeMap<String, Thread>,
    turns: HashMap<u64, Turn>,
    last_turn: u64,
    /// Whether a thread without a subscriber is unloaded, as with `thread_unload_delay_secs=0`.
    unload: bool,
}

impl Thread {
    /// A new one.
    pub(crate) fn new(scenario: Scenario, params: Value) -> Self {
        let (items, refused, injections) = (Vec::new(), 0, 0);
        Self { scenario, params, items, refused, injections, turn: None, subscribed: true }
    }

    /// Whether the client wants raw events.
    pub(crate) fn raw(&self) -> bool {
        self.params["experimentalRawEvents"] == json!(true)
    }
}

impl Threads {
    /// None yet.
    pub(crate) fn new(unload: bool) -> Self {
        Self { unload, ..Self::default() }
    }

    /// The ids of those that are loaded.
    pub(crate) fn ids(&self) -> Vec<&String> {
        self.by_id.keys().collect()
    }

    /// Adds one.
    pub(crate) fn add(&mut self, id: &str, thread: Thread) {
        self.by_id.insert(id.to_owned(), thread);
    }

    /// The thread of this id.
    pub(crate) fn get(&mut self, id: &str) -> Result<&mut Thread, Refusal> {
        self.by_id.get_mut(id).ok_or_else(|| Refusal::invalid(format!("thread not found: {id}")))
    }

    /// The turn of this number.
    pub(crate) fn turn(&mut self, number: u64) -> Option<&mut Turn> {
        self.turns.get_mut(&number)
    }

    /// The turn that runs in this thread.
    pub(crate) fn turn_of(&mut self, id: &str) -> Option<(u64, &mut Turn)> {
        let number = self.by_id.get(id)?.turn?;
        Some((number, self.turns.get_mut(&number)?))
    }

    /// Every turn, with its number.
    pub(crate) fn turns(&mut self) -> impl Iterator<Item = (u64, &mut Turn)> {
        self.turns.iter_mut().map(|(number, turn)| (*number, turn))
    }

    /// Begins a turn.
    pub(crate) fn begin(&mut self, id: &str, mut turn: Turn) -> u64 {
        self.last_turn += 1;
        if let Some(thread) = self.by_id.get_mut(id) {
            thread.turn = Some(self.last_turn);
            turn.muted = !thread.subscribed;
        }
        self.turns.insert(self.last_turn, turn);
        self.last_turn
    }

    /// A turn is over.
    pub(crate) fn end(&mut self, world: &mut World, number: u64) {
        self.turns.remove(&number);
        let ended = self.by_id.iter_mut().find(|(_, thread)| thread.turn == Some(number));
        let Some((id, thread)) = ended else { return };
        thread.turn = None;
        let id = id.clone();
        let abandoned = !thread.subscribed;
        if abandoned {
            let status = json!({"threadId": id, "status": {"type": "idle"}});
            world.out.notify("thread/status/changed", &status);
            self.unload(world, &id);
        }
    }

    /// Nobody listens any more: it goes now, or when its turn is over. Returns the status of the answer.
    pub(crate) fn unsubscribe(&mut self, id: &str) -> &'static str {
        let Some(thread) = self.by_id.get_mut(id) else { return "notLoaded" };
        if !std::mem::replace(&mut thread.subscribed, false) {
            return "notSubscribed";
        }
        if let Some(turn) = thread.turn.and_then(|number| self.turns.get_mut(&number)) {
            turn.muted = true;
        }
        "unsubscribed"
    }

    /// Unloads an idle thread without a subscriber.
    pub(crate) fn unload(&mut self, world: &mut World, id: &str) {
        let idle = self.by_id.get(id).is_some_and(|thread| thread.turn.is_none() && !thread.subscribed);
        if idle && self.unload {
            self.by_id.remove(id);
            let status = json!({"threadId": id, "status": {"type": "notLoaded"}});
            world.out.notify("thread/status/changed", &status);
            world.out.notify("thread/closed", &json!({"threadId": id}));
        }
    }
}

/// The answer to `thread/start`.
pub(crate) fn told(id: &str, params: &Value, model: &str, release: Release) -> Value {
    let (now, cwd) = (unix_ms() / 1000, cwd(params));
    // 0.77 keeps every thread, whatever it is asked for.
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

/// The working folder of a thread: not checked, only joined.
pub(crate) fn cwd(params: &Value) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    here.join(params["cwd"].as_str().unwrap_or_default()).to_string_lossy().into_owned()
}

fn add(object: &mut Value, members: &Value) {
    for (name, value) in members.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
}
