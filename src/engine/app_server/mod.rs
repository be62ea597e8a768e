//! The app-server engine. Runs turns on warm `codex app-server` workers, streams each token, keeps the roles of the
//! history, and supports client tools. Each request is one ephemeral thread on a worker.

mod capabilities;
mod history;
pub(crate) mod launch;
pub(crate) mod rpc;
mod tools;
mod translate;
mod turn;
mod worker;

use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    history::{InitialHistory, turn_cache::TurnCache},
    tools::schema_compiler::SchemaCompiler,
    turn::{TurnDriver, params::ThreadParams, start::TurnStart},
    worker::{
        error::StartError,
        factory::WorkerFactory,
        pool::{Pool, SpawnWorker},
    },
};
use super::{
    Check, Engine, EngineStatus, Events, ModelCatalog, Turn, TurnGuard, cli::probe::CliInfo,
    process::Launcher,
};
use crate::{
    config::{Codex, Config, Log, Profile},
    error::Error,
    pb,
};

/// Capacity of the channel between a turn and the service. For a slow reader, the thread's queue buffers and joins text.
const EVENT_CAPACITY: usize = 64;

/// Recommended concurrent turns per worker. At twice as many, Codex 0.169 starts to refuse calls.
const TURNS_PER_WORKER: usize = 32;

/// Limits of the turn cache.
const MAX_CACHED_TURNS: usize = 4096;
const MAX_CACHED_BYTES: usize = 64 << 20;

/// The app-server engine.
#[derive(Debug)]
pub(super) struct AppServer {
    codex: Codex,
    log: Log,
    pool: Arc<Pool>,
    turn_cache: Arc<TurnCache>,
    factory: Arc<WorkerFactory>,
    schemas: SchemaCompiler,
    launcher: Launcher,
    tasks: TaskTracker,
    /// The tasks of [`TurnDriver`]s.
    turns: TaskTracker,
    stop: CancellationToken,
}

impl AppServer {
    /// Starts the engine with a probed worker.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the installed CLI cannot run this engine.
    pub(super) async fn start(
        config: &Config,
        launcher: Launcher,
        installed: &CliInfo,
    ) -> Result<Self, StartError> {
        let (codex, log) = (config.codex.clone(), config.log.clone());
        let tasks = TaskTracker::new();
        let factory = WorkerFactory::new(config, &launcher, installed, &tasks).await?;
        let first = factory.spawn().await?;
        let limits = codex.workers.clone();
        let factory = Arc::new(factory);
        let spawner: Arc<dyn SpawnWorker> = Arc::<WorkerFactory>::clone(&factory);
        let pool = Pool::start(first, limits, spawner, Arc::clone(factory.login()), &tasks);
        Ok(Self {
            pool,
            factory,
            schemas: SchemaCompiler::default(),
            turn_cache: Arc::new(TurnCache::new(MAX_CACHED_TURNS, MAX_CACHED_BYTES)),
            launcher,
            tasks,
            turns: TaskTracker::new(),
            stop: CancellationToken::new(),
            codex,
            log,
        })
    }

    /// Returns `true` if no turn can run because a CLI that fails the probe replaced the former one.
    pub(super) fn is_refused(&self) -> bool {
        self.factory.is_refused() && self.pool.unavailable_reason().is_some()
    }

    /// Returns the doctor's checks of the worker start and of each capability.
    pub(super) async fn examine(config: &Config, launcher: &Launcher, installed: &CliInfo) -> Vec<Check> {
        let tasks = TaskTracker::new();
        let found = async {
            let factory = WorkerFactory::new(config, launcher, installed, &tasks).await?;
            let worker = factory.spawn_unprobed(&factory.spec()).await?;
            let found = capabilities::probe_all(&worker.rpc, &config.codex, installed).await;
            worker.kill();
            found.map_err(StartError::from)
        };
        let checks = match found.await {
            Ok(found) => found.checks(),
            Err(error) => {
                vec![Check::failed(
                    "engine: app-server",
                    error.detail(),
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
    async fn run(&self, turn: Turn, guard: TurnGuard) -> Result<Events, Error> {
        let tools = Arc::new(self.schemas.tool_set(&turn).await?);
        let (mut turn, history) =
            InitialHistory::build(turn, Arc::clone(&tools), Arc::clone(&self.turn_cache)).await?;
        let thread_params = ThreadParams::new(&turn, &self.codex, &tools, &history);
        if self.log.debug {
            let items = serde_json::to_string(&history.items).unwrap_or_default();
            let items: String = items.chars().take(self.log.max_chars).collect();
            tracing::info!(turn.id = %turn.id, %items, "starting a thread");
        }
        let conversation = self.turn_cache.key(&turn);
        // The history holds a copy of the messages, with images of many megabytes.
        turn.messages = Vec::new();
        let driver = Box::new(TurnDriver {
            pool: Arc::clone(&self.pool),
            cache: Arc::clone(&self.turn_cache),
            conversation,
            temp_dir: None,
            tools,
            max_retries: self.codex.upstream_retries,
            profile: turn.profile,
            sandbox: turn.sandbox,
            deadline: turn.deadline,
            effects: turn.effects.clone(),
            was_sent: false,
            cancel_grace: self.codex.cancel_grace,
            rate_limits: self.factory.rate_limits(),
            stop: self.stop.clone(),
        });
        let (out, events) = Events::channel(EVENT_CAPACITY);
        self.turns.spawn(driver.run(Box::new(TurnStart { turn, thread_params, history }), guard, out));
        Ok(events)
    }

    async fn status(&self) -> EngineStatus {
        let version = self.factory.spec().installed.version.clone();
        EngineStatus {
            kind: "app-server",
            version,
            unavailable_reason: self.pool.unavailable_reason(),
            degraded_reason: None,
            account: self.factory.rate_limits().current(),
        }
    }

    fn usual_concurrency(&self) -> usize {
        self.codex.workers.count * TURNS_PER_WORKER
    }

    fn check(&self, turn: &Turn) -> Result<(), Error> {
        self.factory.spec().check(turn)
    }

    async fn model_catalog(&self) -> Option<Arc<ModelCatalog>> {
        self.factory.spec().known_models.clone()
    }

    fn profiles(&self) -> Vec<Profile> {
        self.factory.spec().profiles()
    }

    async fn models(&self) -> Vec<pb::Model> {
        let known = worker::model_list::list(&self.factory.spec(), &self.pool).await;
        known.inspect_err(|error| tracing::warn!(%error, "cannot list models")).unwrap_or_default()
    }

    async fn drain(&self) {
        self.stop.cancel();
        self.turns.close();
        // Turns are interrupted before their workers stop. A turn that ignores the interrupt is killed with its worker.
        drop(timeout(self.codex.cancel_grace, self.turns.wait()).await);
        self.pool.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.turns.wait().await;
        self.launcher.drain().await;
    }
}
