//! Warm `codex app-server` workers: every token as it is made, histories with their roles, tools of the client. One
//! request is one ephemeral thread on some worker; nothing of it stays.

mod call_ids;
mod catalog;
mod checks;
mod events;
mod failure;
mod flags;
mod gate;
mod history;
mod home;
mod item;
mod mailbox;
mod memory;
mod models;
mod own_calls;
mod peer;
mod pool;
mod requests;
mod schema;
mod step;
mod strict;
mod sweep;
mod tools;
mod turn;
mod usage;
mod wire;
mod work;
mod worker;
mod workshop;

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    events::Translator,
    history::Opening,
    memory::Memory,
    pool::{Nursery, Pool},
    tools::ToolSet,
    turn::Conductor,
    workshop::{Kit, Workshop},
};
use super::{Check, Engine, EngineStatus, Events, Role, Slot, Turn, installed::Installed, process::Launcher};
use crate::{
    config::{Codex, Config, Log, Profile},
    error::Error,
    pb,
};

/// Events of a turn on their way to the service. A slow reader's text waits in the mailbox, joined.
const EVENTS: usize = 64;

/// Turns that one worker runs well at once; at twice as many it begins to refuse calls.
const TURNS_OF_A_WORKER: usize = 32;

/// Bounds of what is remembered of turns that ended at a call of a client's tool.
const MEMORY_TURNS: usize = 4096;
const MEMORY_BYTES: usize = 64 << 20;

/// The engine.
#[derive(Debug)]
pub(super) struct AppServer {
    codex: Codex,
    log: Log,
    pool: Arc<Pool>,
    memory: Arc<Memory>,
    workshop: Arc<Workshop>,
    /// As a worker listed them, and of which kit it was.
    models: Mutex<Option<(Arc<Kit>, Vec<pb::Model>)>>,
    launcher: Launcher,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl AppServer {
    /// Starts the first worker and looks at what it can do. The error says why this engine is not to be used.
    pub(super) async fn start(
        config: &Config,
        launcher: Launcher,
        installed: &Installed,
    ) -> Result<Self, String> {
        let (codex, log) = (config.codex.clone(), config.log.clone());
        let tasks = TaskTracker::new();
        let workshop = Workshop::new(config, &launcher, installed, &tasks).await?;
        let first = workshop.worker().await?;
        let rules = codex.workers.clone();
        let workshop = Arc::new(workshop);
        let nursery: Arc<dyn Nursery> = Arc::<Workshop>::clone(&workshop);
        let pool = Pool::start(first, rules, nursery, &tasks);
        Ok(Self {
            pool,
            workshop,
            models: Mutex::default(),
            memory: Arc::new(Memory::new(MEMORY_TURNS, MEMORY_BYTES)),
            launcher,
            tasks,
            stop: CancellationToken::new(),
            codex,
            log,
        })
    }

    /// Whether it can run nothing because the CLI was replaced by one that it must not use.
    pub(super) fn is_refused(&self) -> bool {
        self.workshop.is_refused() && self.pool.trouble().is_some()
    }

    /// What the doctor finds: whether a worker starts, and each thing that the gate looks at.
    pub(super) async fn examine(config: &Config, launcher: &Launcher, installed: &Installed) -> Vec<Check> {
        let tasks = TaskTracker::new();
        let found = async {
            let workshop = Workshop::new(config, launcher, installed, &tasks).await?;
            let worker = workshop.hatch(&workshop.kit()).await?;
            let found = gate::detect(&worker.peer, &config.codex, installed).await;
            worker.dismiss();
            found
        };
        let checks = match found.await {
            Ok(found) => found.checks(),
            Err(trouble) => {
                vec![Check::bad(
                    "engine: app-server",
                    trouble,
                    "CODEX_ENGINE=auto with CODEX_PROFILE=agent runs turns by `codex exec` instead; \
                     see docs/app-server-engine.md",
                )]
            }
        };
        tasks.close();
        tasks.wait().await;
        checks
    }

    /// The parameters of `thread/start` that come from the turn.
    fn thread(&self, turn: &Turn, tools: &ToolSet, opening: &Opening) -> Value {
        let mut thread = json!({
            "ephemeral": true,
            "model": turn.model,
            "cwd": self.codex.workspace,
            "approvalPolicy": self.codex.approval_policy,
            "sandbox": turn.sandbox.as_str(),
            "experimentalRawEvents": true,
            "config": self.thread_config(turn),
        });
        if let Some(instructions) = &opening.developer_instructions {
            thread["developerInstructions"] = instructions.as_str().into();
        }
        let offered = tools.dynamic_tools();
        if !offered.is_empty() {
            thread["dynamicTools"] = offered.into();
        }
        match turn.profile {
            Profile::Agent => {}
            Profile::Chat => {
                thread["environments"] = json!([]);
                thread["baseInstructions"] = "".into();
            }
        }
        thread
    }

    fn thread_config(&self, turn: &Turn) -> Value {
        let kit = self.workshop.kit();
        let mut config = flags::thread_config(&self.codex, &kit.installed, &kit.catalogs, turn.profile);
        config.insert("web_search".into(), if turn.web_search { "live" } else { "disabled" }.into());
        if let Some(verbosity) = &turn.verbosity {
            config.insert("model_verbosity".into(), verbosity.as_str().into());
        }
        let results = turn.messages.iter().any(|message| message.role == Role::Tool);
        if results || !turn.tools.is_empty() {
            // What the client's tools say reaches the model whole.
            config.insert(flags::UNCUT.0.into(), flags::UNCUT.1.into());
        }
        config.into()
    }
}

#[tonic::async_trait]
impl Engine for AppServer {
    async fn run(&self, mut turn: Turn, slot: Slot) -> Result<Events, Error> {
        let tools = ToolSet::new(&turn)?;
        let opening = Opening::of(&turn, &tools, &self.memory);
        let thread = self.thread(&turn, &tools, &opening);
        if self.log.debug {
            let items = Value::from(opening.items.clone()).to_string();
            let items: String = items.chars().take(self.log.max_chars).collect();
            tracing::info!(turn.id = %turn.id, %items, "a thread starts");
        }
        let place = self.memory.place(&turn.messages);
        // Pictures among them; a turn may take hours.
        turn.messages = Vec::new();
        let conductor = Box::new(Conductor {
            pool: Arc::clone(&self.pool),
            memory: Arc::clone(&self.memory),
            place,
            thread,
            opening,
            translator: Translator::new(tools, turn.profile, self.codex.upstream_retries),
            profile: turn.profile,
            grace: self.codex.cancel_grace,
            stop: self.stop.clone(),
        });
        let (out, events) = mpsc::channel(EVENTS);
        self.tasks.spawn(conductor.run(Box::new(turn), slot, out));
        Ok(stream::unfold(events, async |mut events| Some((*events.recv().await?, events))).boxed())
    }

    async fn status(&self) -> EngineStatus {
        let version = self.workshop.kit().installed.version.clone();
        EngineStatus { kind: "app-server", version, trouble: self.pool.trouble() }
    }

    fn usual_concurrency(&self) -> usize {
        self.codex.workers.count * TURNS_OF_A_WORKER
    }

    fn check(&self, turn: &Turn) -> Result<(), Error> {
        history::check_calls(&turn.messages)?;
        let features = self.workshop.features();
        if !turn.tools.is_empty()
            && let Some(reason) = &features.no_tools
        {
            return Err(Error::unsupported("tools", reason.clone()));
        }
        if turn.profile != self.codex.profile && !features.per_thread_profiles() {
            return Err(Error::unsupported("model", "the installed Codex CLI has one profile for all turns"));
        }
        if turn.format.is_schema()
            && let Some(reason) = &features.no_output_schema
        {
            return Err(Error::unsupported("response_format", reason.clone()));
        }
        ToolSet::new(turn).map(drop)
    }

    async fn models(&self) -> Vec<pb::Model> {
        if self.workshop.features().no_models.is_some() {
            return Vec::new();
        }
        let mut known = self.models.lock().await;
        if let Some((kit, models)) = &*known
            && Arc::ptr_eq(kit, &self.workshop.kit())
        {
            return models.clone();
        }
        match models::ask(&self.pool).await {
            Ok((kit, models)) => {
                *known = kit.map(|kit| (kit, models.clone()));
                models
            }
            Err(error) => {
                tracing::warn!(%error, "the models cannot be listed");
                Vec::new()
            }
        }
    }

    async fn drain(&self) {
        self.stop.cancel();
        self.pool.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.launcher.drain().await;
    }
}
