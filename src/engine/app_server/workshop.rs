//! Makes workers. What they are started with is made once, and again when the program at its path is another one: its
//! catalog is bound to its version, and it must be found fit before a turn is given to it.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::{gate, home, kit::Kit, pool::Nursery, worker::Worker};
use crate::{
    config::{Codex, Config, Models},
    engine::{
        installed::{self, Installed},
        process::{Input, Launch, Launcher},
    },
};

/// Makes workers.
#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) codex: Codex,
    launcher: Launcher,
    /// Models that the catalogs must know.
    names: Vec<String>,
    tasks: TaskTracker,
    /// What workers are started with now.
    kit: RwLock<Arc<Kit>>,
    /// The last one whose workers were found fit.
    fit: RwLock<Option<Arc<Kit>>>,
    renewing: Mutex<()>,
}

impl Workshop {
    /// One for the program that was looked at.
    pub(super) async fn new(
        config: &Config,
        launcher: &Launcher,
        installed: &Installed,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let codex = config.codex.clone();
        home::sweep_up(&codex);
        let names = names(&config.models);
        let kit = Kit::make(&codex, launcher, installed.clone(), &names).await?;
        Ok(Self {
            codex,
            launcher: launcher.clone(),
            names,
            tasks: tasks.clone(),
            kit: RwLock::new(Arc::new(kit)),
            fit: RwLock::default(),
            renewing: Mutex::default(),
        })
    }

    /// What workers are started with now.
    pub(super) fn kit(&self) -> Arc<Kit> {
        Arc::clone(&self.kit.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// That of the newest workers that turns are given to.
    pub(super) fn fit(&self) -> Arc<Kit> {
        let fit = self.fit.read().unwrap_or_else(PoisonError::into_inner).clone();
        fit.unwrap_or_else(|| self.kit())
    }

    /// A worker that nobody has looked at yet.
    pub(super) async fn hatch(&self, kit: &Arc<Kit>) -> Result<Worker, String> {
        let home = home::ScratchHome::make(&self.codex, &kit.installed)
            .map_err(|error| format!("a home for a worker: {error}"))?;
        let commands = home::commands_folder(&self.codex)
            .map_err(|error| format!("a folder for commands: {}: {error}", self.codex.scratch.display()))?;
        let folder = commands.as_ref().map(|folder| folder.path().to_owned());
        let launch = Launch {
            program: kit.installed.program.clone(),
            arguments: kit.arguments.clone(),
            env: home.env(),
            folder: self.codex.workspace.clone(),
            stdin: Input::Open,
            scratch: [home.into_folder()].into_iter().chain(commands).collect(),
            shared: Some(kit.folder().to_owned()),
            ..Launch::default()
        };
        let mut worker = Worker::start(launch, &self.launcher, kit, &self.tasks).await?;
        worker.commands = folder;
        Ok(worker)
    }

    /// The kit of the program that is there now.
    async fn renewed(&self) -> Result<Arc<Kit>, String> {
        let _one_at_a_time = self.renewing.lock().await;
        let kit = self.kit();
        if !kit.is_outdated() {
            return Ok(kit);
        }
        let installed = installed::look(&self.codex, &self.launcher).await?;
        tracing::info!(old = %kit.installed.version, new = %installed.version, "the Codex CLI is another one");
        let kit = Kit::make(&self.codex, &self.launcher, installed, &self.names).await?;
        let kit = Arc::new(kit);
        *self.kit.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&kit);
        Ok(kit)
    }
}

#[tonic::async_trait]
impl Nursery for Workshop {
    async fn worker(&self) -> Result<Worker, String> {
        let kit = self.renewed().await?;
        let worker = self.hatch(&kit).await?;
        if kit.features().is_none() {
            kit.found_fit(gate::examine(&worker.peer, &self.codex, &kit.installed).await?);
            *self.fit.write().unwrap_or_else(PoisonError::into_inner) = Some(kit);
        }
        Ok(worker)
    }

    fn due(&self, worker: &Worker) -> Option<&'static str> {
        worker.kit.is_replaced().then_some("its program was replaced")
    }
}

/// Names that clients may use for models.
fn names(models: &Models) -> Vec<String> {
    let targets = models.aliases.values();
    targets.chain(&models.advertised).chain([&models.default]).cloned().collect()
}
