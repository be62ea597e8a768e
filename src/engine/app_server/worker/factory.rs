//! Spawns workers. The factory makes one spec per installed program. After an update of the CLI, the factory makes a
//! new spec and probes one worker of it before any worker of the spec gets turns.

use std::{
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::{
    Worker, account_limits::LimitsByAccount, error::StartError, pool::SpawnWorker, spec::WorkerSpec,
};
use crate::{
    config::{Codex, Config, Models},
    engine::{
        RateLimits,
        app_server::{capabilities, capabilities::WorkerFeatures, launch::worker_home},
        cli::{login::watch::LoginWatch, probe, probe::CliInfo},
        process::{Input, Launcher, SpawnSpec, private_dir::PrivateDir},
    },
};

/// Maximum number of starts of one worker while the login is being written.
const MAX_STARTS: u32 = 3;

/// Spawns workers of the installed CLI.
#[derive(Debug)]
pub(crate) struct WorkerFactory {
    codex: Codex,
    login: Arc<LoginWatch>,
    launcher: Launcher,
    /// The names of the models that the catalogs must contain.
    model_names: Vec<String>,
    tasks: TaskTracker,
    /// The spec of the workers that may run turns.
    spec: RwLock<Arc<WorkerSpec>>,
    /// The spec of a replaced program, until its first worker passes the probe. The lock lets one task at a
    /// time make the spec.
    unprobed: Mutex<Option<Arc<WorkerSpec>>>,
    /// Whether the installed program failed the probe.
    refused: AtomicBool,
    /// The parent of the catalogs' directories.
    private_dir: PrivateDir,
    /// The limits of the accounts, which every worker reports.
    account_limits: LimitsByAccount,
}

/// The reason why no worker was spawned.
enum SpawnFailure {
    /// The installed program must not be used.
    Refused(StartError),
    /// The program is missing or fails temporarily.
    Temporary(StartError),
}

impl WorkerFactory {
    /// Creates a factory for the program that was probed as `installed`.
    pub(crate) async fn new(
        config: &Config,
        launcher: &Launcher,
        installed: &CliInfo,
        tasks: &TaskTracker,
    ) -> Result<Self, StartError> {
        let codex = config.codex.clone();
        let private_dir = worker_home::create_private_dir(&codex)
            .map_err(directory_error("a private directory", &codex.scratch))?;
        let model_names = model_names(&config.models);
        let spec =
            WorkerSpec::new(&codex, launcher, installed.clone(), private_dir.path(), &model_names).await?;
        Ok(Self {
            login: Arc::new(LoginWatch::new(&codex)),
            codex,
            launcher: launcher.clone(),
            model_names,
            tasks: tasks.clone(),
            spec: RwLock::new(Arc::new(spec)),
            unprobed: Mutex::default(),
            refused: AtomicBool::new(false),
            private_dir,
            account_limits: LimitsByAccount::default(),
        })
    }

    /// Returns the watch of the login.
    pub(crate) fn login(&self) -> &Arc<LoginWatch> {
        &self.login
    }

    /// Returns the spec of the workers that may run turns.
    pub(crate) fn spec(&self) -> Arc<WorkerSpec> {
        Arc::clone(&self.spec.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the limits of the current account.
    pub(crate) fn rate_limits(&self) -> Arc<RateLimits> {
        self.account_limits.of(self.login.current().identity)
    }

    /// Returns `true` if the installed program failed the probe. Such a program has replaced a program that passed the probe.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Spawns a worker without probing it.
    pub(crate) async fn spawn_unprobed(&self, spec: &Arc<WorkerSpec>) -> Result<Worker, StartError> {
        let scratch = &self.codex.scratch;
        // Read before the process starts. A login that changes meanwhile makes the worker outdated at once.
        let login = self.login.current().identity;
        let home = worker_home::WorkerHome::create(&self.codex, &spec.installed)
            .map_err(directory_error("a home for a worker", scratch))?;
        let commands = worker_home::create_commands_dir(&self.codex)
            .map_err(directory_error("a directory for commands", scratch))?;
        let seeds_dir = home.seeds_dir().to_owned();
        let commands_dir = commands.as_ref().map(|dir| dir.path().to_owned());
        let launch = SpawnSpec {
            program: spec.installed.program.clone(),
            arguments: spec.arguments.clone(),
            env: home.env(),
            working_dir: self.codex.workspace.clone(),
            stdin: Input::Open,
            temp_dirs: [home.into_dir()].into_iter().chain(commands).collect(),
            shared_dir: Some(self.private_dir.path().to_owned()),
            ..SpawnSpec::default()
        };
        let limits = self.account_limits.of(login);
        let mut worker = Worker::start(launch, &self.launcher, spec, limits, &self.tasks).await?;
        worker.commands_dir = commands_dir;
        worker.seeds_dir = Some(seeds_dir);
        worker.login = login;
        Ok(worker)
    }

    /// Returns the spec of the installed program. Makes the spec if the program is new.
    async fn current_spec(&self) -> Result<Arc<WorkerSpec>, SpawnFailure> {
        let mut unprobed = self.unprobed.lock().await;
        let binary = probe::binary_id(&self.codex);
        let known = [Some(self.spec()), unprobed.clone()].into_iter().flatten();
        if let Some(spec) = known.into_iter().find(|spec| binary.is_some() && spec.installed.binary == binary)
        {
            return Ok(spec);
        }
        let installed = probe::run(&self.codex, &self.launcher).await;
        let installed = installed.map_err(|error| SpawnFailure::Temporary(error.into()))?;
        let parent = self.private_dir.path();
        let spec = WorkerSpec::new(&self.codex, &self.launcher, installed, parent, &self.model_names).await;
        let spec = Arc::new(spec.map_err(SpawnFailure::Refused)?);
        *unprobed = Some(Arc::clone(&spec));
        Ok(spec)
    }

    /// Spawns a worker that may run turns. Probes the worker if no worker of its spec was probed before.
    async fn spawn_probed(&self) -> Result<Worker, SpawnFailure> {
        // Codex deletes a login that its configuration forbids, so no process starts with such a login.
        if let Some(problem) = self.login.settled().await.problem {
            return Err(SpawnFailure::Temporary(StartError::Login(problem)));
        }
        let spec = self.current_spec().await?;
        let is_probed = spec.features().is_some();
        let failure = |error| match is_probed {
            true => SpawnFailure::Temporary(error),
            false => SpawnFailure::Refused(error),
        };
        let worker = self.spawn_unprobed(&spec).await.map_err(failure)?;
        let features = match is_probed {
            true => None,
            false => {
                let found = capabilities::probe(worker.probe_subject()).await;
                Some(found.map_err(|error| failure(error.into()))?)
            }
        };
        if spec.installed.is_outdated(&self.codex) {
            return Err(SpawnFailure::Temporary(StartError::Replaced));
        }
        if let Some(features) = features {
            self.accept(spec, features);
        }
        Ok(worker)
    }

    /// Makes a probed spec the spec of all further workers.
    fn accept(&self, spec: Arc<WorkerSpec>, features: WorkerFeatures) {
        spec.set_features(features);
        let (new, version) = (spec.installed.binary.clone(), spec.installed.version.clone());
        let former = std::mem::replace(&mut *self.spec.write().unwrap_or_else(PoisonError::into_inner), spec);
        // At the first call, the spec replaces itself.
        if former.installed.binary != new {
            tracing::info!(old = %former.installed.version, new = %version, "Codex CLI was replaced");
        }
    }
}

#[tonic::async_trait]
impl SpawnWorker for WorkerFactory {
    async fn spawn(&self) -> Result<Worker, StartError> {
        let mut worker;
        let mut attempts = 0;
        loop {
            attempts += 1;
            self.login.settled().await;
            let login = self.login.mark();
            worker = self.spawn_probed().await;
            self.login.settled().await;
            // A process that started within a write of the login may have read a part of the file.
            if attempts == MAX_STARTS || worker.is_err() || self.login.mark() == login {
                break;
            }
        }
        self.refused.store(matches!(worker, Err(SpawnFailure::Refused(_))), Ordering::Relaxed);
        worker.map_err(|(SpawnFailure::Refused(error) | SpawnFailure::Temporary(error))| error)
    }

    fn is_outdated(&self, worker: &Worker) -> bool {
        worker.spec.installed.is_outdated(&self.codex)
    }
}

fn directory_error(purpose: &'static str, parent: &Path) -> impl FnOnce(std::io::Error) -> StartError {
    let parent = parent.to_owned();
    move |cause| StartError::Directory { purpose, parent, cause }
}

/// Returns the names that clients may use for models.
fn model_names(models: &Models) -> Vec<String> {
    let targets = models.aliases.values();
    targets.chain(&models.advertised).chain([&models.default]).cloned().collect()
}
