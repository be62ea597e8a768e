//! Makes workers. What they are started with is made once, and again when the program at its path is another one: its
//! catalog is bound to its version, and it must be found fit before a turn is given to it.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::{Worker, pool::SpawnWorker, spec::WorkerSpec};
use crate::engine::app_server::{capabilities, capabilities::WorkerFeatures, launch::worker_home};
use crate::{
    config::{Codex, Config, Models},
    engine::{
        cli::{probe, probe::CliInfo},
        process::{Input, Launcher, SpawnSpec},
    },
};

/// Makes workers.
#[derive(Debug)]
pub(crate) struct WorkerFactory {
    pub(crate) codex: Codex,
    launcher: Launcher,
    /// Models that the catalogs must know.
    names: Vec<String>,
    tasks: TaskTracker,
    /// What workers are started with that may run turns.
    kit: RwLock<Arc<WorkerSpec>>,
    /// That of a program that nobody has found fit yet. One task at a time makes it.
    next: Mutex<Option<Arc<WorkerSpec>>>,
    /// The program that is there now was looked at, and must not be used.
    refused: AtomicBool,
    /// The catalogs.
    private: TempDir,
}

/// Why there is no worker.
enum Failure {
    /// The program must not be used, as far as one can see.
    Refused(String),
    /// There is no program, or it was good once.
    Other(String),
}

impl WorkerFactory {
    /// One for the program that was looked at.
    pub(crate) async fn new(
        config: &Config,
        launcher: &Launcher,
        installed: &CliInfo,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let codex = config.codex.clone();
        let private =
            worker_home::create_private_dir(&codex).map_err(|error| format!("a private folder: {error}"))?;
        let names = names(&config.models);
        let kit = WorkerSpec::make(&codex, launcher, installed.clone(), private.path(), &names).await?;
        Ok(Self {
            codex,
            launcher: launcher.clone(),
            names,
            tasks: tasks.clone(),
            kit: RwLock::new(Arc::new(kit)),
            next: Mutex::default(),
            refused: AtomicBool::new(false),
            private,
        })
    }

    /// What workers that run turns are started with.
    pub(crate) fn kit(&self) -> Arc<WorkerSpec> {
        Arc::clone(&self.kit.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the program that is there now must not be used: it took the place of one that could.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// A worker that nobody has looked at yet.
    pub(crate) async fn hatch(&self, kit: &Arc<WorkerSpec>) -> Result<Worker, String> {
        let home = worker_home::WorkerHome::create(&self.codex, &kit.installed)
            .map_err(|error| format!("a home for a worker: {error}"))?;
        let commands = worker_home::create_commands_dir(&self.codex)
            .map_err(|error| format!("a folder for commands: {}: {error}", self.codex.scratch.display()))?;
        let folder = commands.as_ref().map(|folder| folder.path().to_owned());
        let launch = SpawnSpec {
            program: kit.installed.program.clone(),
            arguments: kit.arguments.clone(),
            env: home.env(),
            working_dir: self.codex.workspace.clone(),
            stdin: Input::Open,
            temp_dirs: [home.into_dir()].into_iter().chain(commands).collect(),
            shared_dir: Some(self.private.path().to_owned()),
            ..SpawnSpec::default()
        };
        let mut worker = Worker::start(launch, &self.launcher, kit, &self.tasks).await?;
        worker.commands = folder;
        Ok(worker)
    }

    /// The kit of the program that is there now.
    async fn renewed(&self) -> Result<Arc<WorkerSpec>, Failure> {
        let mut next = self.next.lock().await;
        let now = probe::binary_id(&self.codex);
        let made = [Some(self.kit()), next.clone()].into_iter().flatten();
        if let Some(kit) = made.into_iter().find(|kit| now.is_some() && kit.installed.binary == now) {
            return Ok(kit);
        }
        let installed = probe::run(&self.codex, &self.launcher).await;
        let installed = installed.map_err(|error| Failure::Other(error.to_string()))?;
        let kit =
            WorkerSpec::make(&self.codex, &self.launcher, installed, self.private.path(), &self.names).await;
        let kit = Arc::new(kit.map_err(Failure::Refused)?);
        *next = Some(Arc::clone(&kit));
        Ok(kit)
    }

    /// A worker that may run turns.
    async fn fit_worker(&self) -> Result<Worker, Failure> {
        let kit = self.renewed().await?;
        let is_known = kit.features().is_some();
        let failure = |why| if is_known { Failure::Other(why) } else { Failure::Refused(why) };
        let worker = self.hatch(&kit).await.map_err(failure)?;
        let features = match is_known {
            true => None,
            false => Some(
                capabilities::probe(&worker.rpc, &self.codex, &kit.installed)
                    .await
                    .map_err(|error| failure(error.to_string()))?,
            ),
        };
        if kit.installed.is_outdated(&self.codex) {
            // Which of both programs this worker runs, nobody knows.
            return Err(Failure::Other("the Codex CLI was replaced while it was started".to_owned()));
        }
        if let Some(features) = features {
            self.is_found_fit(kit, features);
        }
        Ok(worker)
    }

    fn is_found_fit(&self, kit: Arc<WorkerSpec>, features: WorkerFeatures) {
        kit.found_fit(features);
        let version = kit.installed.version.clone();
        let old = std::mem::replace(&mut *self.kit.write().unwrap_or_else(PoisonError::into_inner), kit);
        // The first one takes its own place.
        if old.installed.binary != self.kit().installed.binary {
            tracing::info!(old = %old.installed.version, new = %version, "the Codex CLI is another one");
        }
    }
}

#[tonic::async_trait]
impl SpawnWorker for WorkerFactory {
    async fn worker(&self) -> Result<Worker, String> {
        let worker = self.fit_worker().await;
        self.refused.store(matches!(worker, Err(Failure::Refused(_))), Ordering::Relaxed);
        worker.map_err(|(Failure::Refused(why) | Failure::Other(why))| why)
    }

    fn is_stale(&self, worker: &Worker) -> bool {
        worker.kit.installed.is_outdated(&self.codex)
    }
}

/// Names that clients may use for models.
fn names(models: &Models) -> Vec<String> {
    let targets = models.aliases.values();
    targets.chain(&models.advertised).chain([&models.default]).cloned().collect()
}
