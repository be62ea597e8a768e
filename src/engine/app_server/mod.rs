//! Warm `codex app-server` workers: every token as it is made, histories with their roles, tools of the client. One
//! request is one ephemeral thread on some worker; nothing of it stays.

mod capabilities;
mod history;
pub(crate) mod launch;
pub(crate) mod rpc;
mod tools;
mod translate;
mod turn;
mod worker;

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    history::{InitialHistory, turn_cache::TurnCache},
    tools::schema_compiler::SchemaCompiler,
    translate::Translator,
    turn::{TurnDriver, params::ThreadParams, start::TurnStart},
    worker::{
        factory::WorkerFactory,
        pool::{Pool, SpawnWorker},
    },
};
use super::{Check, Engine, EngineStatus, Events, Turn, TurnGuard, cli::probe::CliInfo, process::Launcher};
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
    memory: Arc<TurnCache>,
    workshop: Arc<WorkerFactory>,
    schemas: SchemaCompiler,
    launcher: Launcher,
    tasks: TaskTracker,
    /// Those that conduct turns.
    turns: TaskTracker,
    stop: CancellationToken,
}

impl AppServer {
    /// Starts the first worker and looks at what it can do. The error says why this engine is not to be used.
    pub(super) async fn start(
        config: &Config,
        launcher: Launcher,
        installed: &CliInfo,
    ) -> Result<Self, String> {
        let (codex, log) = (config.codex.clone(), config.log.clone());
        let tasks = TaskTracker::new();
        let workshop = WorkerFactory::new(config, &launcher, installed, &tasks).await?;
        let first = workshop.worker().await?;
        let rules = codex.workers.clone();
        let workshop = Arc::new(workshop);
        let nursery: Arc<dyn SpawnWorker> = Arc::<WorkerFactory>::clone(&workshop);
        let pool = Pool::start(first, rules, nursery, &tasks);
        Ok(Self {
            pool,
            workshop,
            schemas: SchemaCompiler::default(),
            memory: Arc::new(TurnCache::new(MEMORY_TURNS, MEMORY_BYTES)),
            launcher,
            tasks,
            turns: TaskTracker::new(),
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
    pub(super) async fn examine(config: &Config, launcher: &Launcher, installed: &CliInfo) -> Vec<Check> {
        let tasks = TaskTracker::new();
        let found = async {
            let workshop = WorkerFactory::new(config, launcher, installed, &tasks).await?;
            let worker = workshop.hatch(&workshop.kit()).await?;
            let found = capabilities::detect(&worker.rpc, &config.codex, installed).await;
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
}

#[tonic::async_trait]
impl Engine for AppServer {
    async fn run(&self, mut turn: Turn, slot: TurnGuard) -> Result<Events, Error> {
        let tools = self.schemas.tool_set(&turn).await?;
        let opening = InitialHistory::of(&turn, &tools, &self.memory);
        let setting = ThreadParams::of(&turn, &self.codex, &tools, &opening);
        if self.log.debug {
            let items = Value::from(opening.items.clone()).to_string();
            let items: String = items.chars().take(self.log.max_chars).collect();
            tracing::info!(turn.id = %turn.id, %items, "a thread starts");
        }
        let place = self.memory.place(&turn, turn.messages.len());
        // They are in the opening by now, pictures of many megabytes among them.
        turn.messages = Vec::new();
        let conductor = Box::new(TurnDriver {
            pool: Arc::clone(&self.pool),
            memory: Arc::clone(&self.memory),
            place,
            folder: None,
            translator: Translator::new(tools, turn.profile, self.codex.upstream_retries),
            profile: turn.profile,
            sandbox: turn.sandbox,
            deadline: turn.deadline,
            grace: self.codex.cancel_grace,
            stop: self.stop.clone(),
        });
        let (out, events) = mpsc::channel(EVENTS);
        self.turns.spawn(conductor.run(Box::new(TurnStart { turn, setting, opening }), slot, out));
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
        self.workshop.kit().check(turn)
    }

    fn profiles(&self) -> Vec<Profile> {
        self.workshop.kit().profiles()
    }

    async fn models(&self) -> Vec<pb::Model> {
        let known = worker::model_list::list(&self.workshop.kit(), &self.pool).await;
        known.inspect_err(|error| tracing::warn!(%error, "the models cannot be listed")).unwrap_or_default()
    }

    async fn drain(&self) {
        self.stop.cancel();
        self.turns.close();
        // Turns are interrupted first: with their workers gone they would be killed. What does not obey loses its time.
        drop(timeout(self.codex.cancel_grace, self.turns.wait()).await);
        self.pool.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.turns.wait().await;
        self.launcher.drain().await;
    }
}
