//! Makes workers. What they are started with is made once, and again when the program at its path is another one: its
//! catalog is bound to its version, and it must be found fit before a turn is given to it.

use std::{
    ffi::OsString,
    sync::{Arc, PoisonError, RwLock},
};

use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::{
    catalog::{self, Catalogs},
    flags,
    gate::{self, Features},
    home,
    pool::Nursery,
    worker::Worker,
};
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
    kit: RwLock<Arc<Kit>>,
    /// What the last program that was found fit can do, and which kit that was.
    fit: RwLock<Option<(Arc<Kit>, Arc<Features>)>>,
    renewing: Mutex<()>,
    /// The catalogs, which all workers share.
    private: TempDir,
}

/// What workers are started with.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) installed: Installed,
    pub(super) catalogs: Catalogs,
    arguments: Vec<OsString>,
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
        let private = home::private_folder(&codex).map_err(|error| format!("a private folder: {error}"))?;
        let names = names(&config.models);
        let kit = Kit::make(&codex, launcher, installed.clone(), &private, &names).await?;
        Ok(Self {
            codex,
            launcher: launcher.clone(),
            names,
            tasks: tasks.clone(),
            kit: RwLock::new(Arc::new(kit)),
            fit: RwLock::default(),
            renewing: Mutex::default(),
            private,
        })
    }

    /// What workers are started with now.
    pub(super) fn kit(&self) -> Arc<Kit> {
        Arc::clone(&self.kit.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the newest worker can do; nothing is known before the first one.
    pub(super) fn features(&self) -> Arc<Features> {
        let fit = self.fit.read().unwrap_or_else(PoisonError::into_inner);
        fit.as_ref().map(|(_, features)| Arc::clone(features)).unwrap_or_default()
    }

    /// A worker that nobody has looked at yet.
    pub(super) async fn hatch(&self, kit: &Kit) -> Result<Worker, String> {
        let home = home::ScratchHome::make(&self.codex, &kit.installed)
            .map_err(|error| format!("a home for a worker: {error}"))?;
        let (mut arguments, mut env) = (kit.arguments.clone(), home.env());
        // Commands that may write get a temporary folder of the worker's own, not the one where everybody's files are.
        let temporary = home.temporary_folder().map_err(|error| format!("a folder for a worker: {error}"))?;
        let variable = toml::Value::from(temporary.to_string_lossy().into_owned());
        arguments.extend(["-c".into(), format!("shell_environment_policy.set.TMPDIR={variable}").into()]);
        env.insert("TMPDIR".into(), temporary.into());
        let launch = Launch {
            program: kit.installed.program.clone(),
            arguments,
            env,
            folder: self.codex.workspace.clone(),
            stdin: Input::Open,
            scratch: Some(home.into_folder()),
            shared: Some(self.private.path().to_owned()),
            ..Launch::default()
        };
        Worker::start(launch, &self.launcher, self.codex.line_limit, &self.tasks).await
    }

    /// The kit of the program that is there now.
    async fn renewed(&self) -> Result<Arc<Kit>, String> {
        let _one_at_a_time = self.renewing.lock().await;
        let kit = self.kit();
        if !kit.catalogs.outdated(&kit.installed) {
            return Ok(kit);
        }
        let installed = installed::look(&self.codex, &self.launcher).await?;
        tracing::info!(old = %kit.installed.version, new = %installed.version, "the Codex CLI is another one");
        let kit = Kit::make(&self.codex, &self.launcher, installed, &self.private, &self.names).await?;
        let kit = Arc::new(kit);
        *self.kit.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&kit);
        Ok(kit)
    }

    fn is_fit(&self, kit: &Arc<Kit>) -> bool {
        let fit = self.fit.read().unwrap_or_else(PoisonError::into_inner);
        fit.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, kit))
    }
}

#[tonic::async_trait]
impl Nursery for Workshop {
    async fn worker(&self) -> Result<Worker, String> {
        let kit = self.renewed().await?;
        let worker = self.hatch(&kit).await?;
        if !self.is_fit(&kit) {
            let features = gate::examine(&worker.peer, &self.codex, &kit.installed).await?;
            let fit = Some((kit, Arc::new(features)));
            *self.fit.write().unwrap_or_else(PoisonError::into_inner) = fit;
        }
        Ok(worker)
    }
}

impl Kit {
    async fn make(
        codex: &Codex,
        launcher: &Launcher,
        installed: Installed,
        private: &TempDir,
        names: &[String],
    ) -> Result<Self, String> {
        let catalogs = catalog::write(codex, launcher, &installed, private.path(), names).await?;
        let arguments = flags::arguments(codex, &installed, &catalogs);
        Ok(Self { installed, catalogs, arguments })
    }
}

/// Names that clients may use for models.
fn names(models: &Models) -> Vec<String> {
    let targets = models.aliases.values();
    targets.chain(&models.advertised).chain([&models.default]).cloned().collect()
}
