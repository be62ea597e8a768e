//! The app-server engine. Runs turns on warm `codex app-server` workers, streams each token, keeps the roles of the
//! history, and supports client tools. Each request is one ephemeral thread on a worker.

mod capabilities;
mod history;
pub(crate) mod launch;
pub(crate) mod rpc;
mod threads;
mod tools;
mod translate;
mod turn;
mod worker;

use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    history::turn_cache::TurnCache,
    threads::{
        cache_key,
        conversation::Conversation,
        index::{IndexLimits, ThreadIndex},
    },
    tools::schema_compiler::SchemaCompiler,
    turn::{
        NextTurn, TurnDriver, TurnParts, live_thread::TurnOptions, params::ThreadParams, start::TurnStart,
    },
    worker::{
        error::StartError,
        factory::WorkerFactory,
        pool::{Pool, SpawnWorker},
    },
};
use super::{
    Check, Engine, EngineStatus, Events, ModelCatalog, ThreadOrigin, Turn, TurnGuard, cli::probe::CliInfo,
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
    parts: Arc<TurnParts>,
    factory: Arc<WorkerFactory>,
    schemas: SchemaCompiler,
    launcher: Launcher,
    tasks: TaskTracker,
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
        let kept_threads = codex.kept_threads.clone();
        let limits = IndexLimits { threads: kept_threads.max_per_worker, bytes: kept_threads.max_bytes };
        let parts = TurnParts {
            pool,
            cache: Arc::new(TurnCache::new(MAX_CACHED_TURNS, MAX_CACHED_BYTES)),
            threads: ThreadIndex::new(limits),
            kept_threads,
            max_retries: codex.upstream_retries,
            cancel_grace: codex.cancel_grace,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Ok(Self {
            parts: Arc::new(parts),
            factory,
            schemas: SchemaCompiler::default(),
            launcher,
            tasks,
            codex,
            log,
        })
    }

    /// Returns `true` if no turn can run because a CLI that fails the probe replaced the former one.
    pub(super) fn is_refused(&self) -> bool {
        self.factory.is_refused() && self.parts.pool.unavailable_reason().is_some()
    }

    /// Returns the doctor's checks of the worker start and of each capability.
    pub(super) async fn examine(config: &Config, launcher: &Launcher, installed: &CliInfo) -> Vec<Check> {
        let tasks = TaskTracker::new();
        let found = async {
            let factory = WorkerFactory::new(config, launcher, installed, &tasks).await?;
            let worker = factory.spawn_unprobed(&factory.spec()).await?;
            let found = capabilities::probe_all(worker.probe_subject()).await;
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

/// Digests the conversation of a turn, a large one on a blocking thread. `setup` is `None` if no thread is kept.
async fn digest(turn: Turn, setup: Option<Vec<u8>>) -> Result<(Turn, Option<Conversation>), Error> {
    let Some(setup) = setup else { return Ok((turn, None)) };
    let is_large = history::is_large(&turn.messages);
    let digest = move || {
        let conversation = Conversation::of(&turn, &setup);
        (turn, Some(conversation))
    };
    history::inline_or_blocking(is_large, digest).await
}

#[tonic::async_trait]
impl Engine for AppServer {
    async fn run(&self, turn: Turn, guard: TurnGuard) -> Result<Events, Error> {
        let tools = Arc::new(self.schemas.tool_set(&turn).await?);
        let thread_params = ThreadParams::new(&turn, &self.codex, &tools);
        let is_kept = self.parts.threads.is_enabled();
        let setup = is_kept.then(|| thread_params.setup(&turn));
        let (turn, conversation) = digest(turn, setup).await?;
        if self.log.debug {
            let messages: String = format!("{:?}", turn.messages).chars().take(self.log.max_chars).collect();
            tracing::info!(turn.id = %turn.id, %messages, "starting a turn");
        }
        let driver = TurnDriver {
            parts: Arc::clone(&self.parts),
            cache_key: self.parts.cache.key(&turn),
            tools,
            profile: turn.profile,
            sandbox: turn.sandbox,
            deadline: turn.deadline,
            effects: turn.effects.clone(),
            continuation: turn.continuation.clone(),
            options: TurnOptions::of(&turn),
            was_sent: false,
            rate_limits: self.factory.rate_limits(),
            next: None,
            pending_events: Vec::new(),
            conversation,
        };
        let known = driver.conversation.as_ref().and_then(|conversation| conversation.known);
        let thread = known.and_then(|key| self.parts.threads.take(&key));
        let can_fork = || self.factory.spec().features().is_some_and(|features| features.forks);
        let origin = match &thread {
            Some(_) => ThreadOrigin::Continued,
            None if cache_key::applies_to(&turn) && can_fork() => ThreadOrigin::Forked,
            None => ThreadOrigin::Fresh,
        };
        driver.continuation.set_origin(origin);
        let (out, events) = Events::channel(EVENT_CAPACITY);
        let start = Box::new(TurnStart { turn, thread_params, history: None, cache_key: None });
        let next = Box::new(NextTurn { driver, start, guard, events: out });
        let next = match thread {
            // Fails if the thread was lost in this moment.
            Some(thread) => thread.send(next).err(),
            None => Some(next),
        };
        if let Some(next) = next {
            self.parts.tasks.spawn(next.run_with_successors());
        }
        Ok(events)
    }

    async fn status(&self) -> EngineStatus {
        let version = self.factory.spec().installed.version.clone();
        EngineStatus {
            kind: "app-server",
            version,
            unavailable_reason: self.parts.pool.unavailable_reason(),
            degraded_reason: None,
            account: self.factory.rate_limits().current(),
            threads: Some(self.parts.threads.counts()),
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
        let known = worker::model_list::list(&self.factory.spec(), &self.parts.pool).await;
        known.inspect_err(|error| tracing::warn!(%error, "cannot list models")).unwrap_or_default()
    }

    async fn drain(&self) {
        self.parts.stop.cancel();
        self.parts.tasks.close();
        // Turns are interrupted before their workers stop. A turn that ignores the interrupt is killed with its worker.
        drop(timeout(self.codex.cancel_grace, self.parts.tasks.wait()).await);
        self.parts.pool.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.parts.tasks.wait().await;
        self.launcher.drain().await;
    }
}
