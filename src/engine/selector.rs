//! The engine that the installed CLI can be trusted with: chosen as soon as there is one, and again when it is another
//! one. Installing or updating the CLI needs no restart.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Check, Engine, EngineStatus, Events, Turn, TurnGuard,
    app_server::AppServer,
    cli::{probe, probe::BinaryId, provider},
    exec::Exec,
    process::Launcher,
};
use crate::{
    config::{Codex, Config, EngineChoice, Profile},
    error::Error,
    pb,
};

/// How often it is looked whether there is something to choose.
const ROUND: Duration = Duration::from_secs(2);

/// After how long an app-server that could not be used is tried again, though the CLI is the same: the machine may only
/// have been too busy.
const SECOND_CHANCE: Duration = Duration::from_secs(300);

/// The configuration asks for what the installed CLI does not do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ChoiceError(pub(super) String);

/// What the doctor asks of the engines.
pub async fn examine(config: &Config, launcher: &Launcher) -> Vec<Check> {
    let codex = &config.codex;
    let exec = Exec::new(codex.clone(), config.log.clone(), launcher.clone());
    let mut checks = exec.examine().await;
    if let Ok(installed) = probe::look(codex, launcher).await
        && codex.engine != EngineChoice::Exec
    {
        let mut found = AppServer::examine(config, launcher, &installed).await;
        if may_be_exec(codex) {
            // There is another engine: what this one lacks is worth knowing, but turns do not fail.
            for check in &mut found {
                check.soften();
            }
        }
        checks.extend(found);
    }
    checks
}

/// Looks at the CLI and chooses. A CLI that is missing is no error: it is looked for again, and health tells why no turn
/// can run.
pub async fn choose(config: &Config, launcher: Launcher) -> Result<Arc<dyn Engine>, ChoiceError> {
    let codex = &config.codex;
    match codex.engine {
        EngineChoice::Exec => match probe::look(codex, &launcher).await {
            Err(trouble) if is_misconfigured(&trouble) => Err(ChoiceError(trouble)),
            Ok(_) | Err(_) => Ok(Arc::new(Exec::new(codex.clone(), config.log.clone(), launcher))),
        },
        EngineChoice::Auto | EngineChoice::AppServer => {
            Ok(EngineSelector::start(config.clone(), launcher).await?)
        }
    }
}

/// Whether a process for each turn may take the place of the app-server: it cannot leave the agent out.
fn may_be_exec(codex: &Codex) -> bool {
    codex.engine == EngineChoice::Auto && codex.profile == Profile::Agent
}

/// Whether it is the configuration that has to be changed, and not the CLI.
fn is_misconfigured(trouble: &str) -> bool {
    trouble.contains("CODEX_APPROVAL_POLICY")
}

/// One of both engines, or none yet.
#[derive(Debug)]
pub(super) struct EngineSelector {
    config: Config,
    launcher: Launcher,
    exec: Exec,
    last: RwLock<ProbeOutcome>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A look at the CLI.
#[derive(Debug)]
struct ProbeOutcome {
    found: Selection,
    /// Which program it was.
    program: Option<BinaryId>,
    when: Instant,
}

/// What the CLI can be used for.
#[derive(Debug)]
enum Selection {
    /// This engine, which looks after itself when the CLI is replaced.
    Warm(Arc<AppServer>),
    /// A process for each turn; why not the app-server.
    Exec(String),
    /// Nothing, because its app-server cannot be used and nothing else may be.
    Unfit(String),
    /// Nothing: there is none, or it is too old, or broken, or has no key.
    Missing(String),
}

/// What runs turns now.
enum Active<'a> {
    Warm(Arc<AppServer>),
    Exec(&'a Exec),
    Nothing(String),
}

impl EngineSelector {
    /// Looks and chooses; keeps looking where the best is not to be had yet.
    pub(super) async fn start(config: Config, launcher: Launcher) -> Result<Arc<Self>, ChoiceError> {
        let last = look(&config, &launcher).await;
        match &last.found {
            Selection::Unfit(trouble) if config.codex.engine == EngineChoice::AppServer => {
                return Err(ChoiceError(trouble.clone()));
            }
            Selection::Missing(trouble) if is_misconfigured(trouble) => {
                return Err(ChoiceError(trouble.clone()));
            }
            Selection::Warm(_) | Selection::Exec(_) | Selection::Unfit(_) | Selection::Missing(_) => {
                last.found.tell(None)
            }
        }
        let chosen = Arc::new(Self {
            exec: Exec::new(config.codex.clone(), config.log.clone(), launcher.clone()),
            config,
            launcher,
            last: RwLock::new(last),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let keeper = Arc::clone(&chosen);
        chosen.tasks.spawn(async move {
            tokio::select! {
                () = keeper.keep_looking() => {}
                () = keeper.stop.cancelled() => {}
            }
        });
        Ok(chosen)
    }

    async fn keep_looking(&self) {
        while self.warm().is_none() {
            sleep(ROUND).await;
            if self.is_due() {
                let new = look(&self.config, &self.launcher).await;
                let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
                new.found.tell(Some(&last.found));
                *last = new;
            }
        }
    }

    /// The engine that looks after itself, also while it must not be used.
    fn warm(&self) -> Option<Arc<AppServer>> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        match &last.found {
            Selection::Warm(warm) => Some(Arc::clone(warm)),
            Selection::Exec(_) | Selection::Unfit(_) | Selection::Missing(_) => None,
        }
    }

    fn is_due(&self) -> bool {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        match &last.found {
            Selection::Warm(_) => false,
            Selection::Missing(_) => true,
            Selection::Exec(_) | Selection::Unfit(_) => {
                last.program != probe::fingerprint(&self.config.codex) || last.when.elapsed() >= SECOND_CHANCE
            }
        }
    }

    fn now(&self) -> Active<'_> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        match &last.found {
            Selection::Warm(warm) if may_be_exec(&self.config.codex) && warm.is_refused() => {
                Active::Exec(&self.exec)
            }
            Selection::Warm(warm) => Active::Warm(Arc::clone(warm)),
            Selection::Exec(_) => Active::Exec(&self.exec),
            Selection::Unfit(trouble) | Selection::Missing(trouble) => Active::Nothing(trouble.clone()),
        }
    }
}

async fn look(config: &Config, launcher: &Launcher) -> ProbeOutcome {
    // Taken first: one that is replaced meanwhile is another one.
    let program = probe::fingerprint(&config.codex);
    let usable = probe::look(&config.codex, launcher).await;
    let usable = usable.and_then(|installed| provider::missing_key(&config.codex).map_or(Ok(installed), Err));
    let found = match usable {
        Err(trouble) => Selection::Missing(trouble),
        Ok(installed) => match AppServer::start(config, launcher.clone(), &installed).await {
            Ok(engine) => Selection::Warm(Arc::new(engine)),
            Err(reason) if config.codex.engine == EngineChoice::AppServer => {
                Selection::Unfit(format!("CODEX_ENGINE=app-server cannot be used: {reason}"))
            }
            Err(reason) if !may_be_exec(&config.codex) => Selection::Unfit(format!(
                "CODEX_PROFILE=chat needs the app-server engine, which cannot be used: {reason}"
            )),
            Err(reason) => Selection::Exec(reason),
        },
    };
    ProbeOutcome { found, program, when: Instant::now() }
}

impl Selection {
    /// Tells the log what is new.
    fn tell(&self, before: Option<&Self>) {
        match (self, before) {
            (Self::Missing(new), Some(Self::Missing(old)))
            | (Self::Unfit(new), Some(Self::Unfit(old)))
            | (Self::Exec(new), Some(Self::Exec(old)))
                if new == old => {}
            (Self::Missing(trouble) | Self::Unfit(trouble), _) => {
                tracing::error!(%trouble, "no turn can run");
            }
            (Self::Exec(reason), _) => {
                tracing::warn!(%reason, "the app-server engine is not used: each turn gets a process of its own");
            }
            (Self::Warm(_), Some(_)) => tracing::info!("turns run by the app-server engine from now on"),
            (Self::Warm(_), None) => {}
        }
    }
}

#[tonic::async_trait]
impl Engine for EngineSelector {
    async fn run(&self, turn: Turn, slot: TurnGuard) -> Result<Events, Error> {
        match self.now() {
            Active::Warm(engine) => engine.run(turn, slot).await,
            Active::Exec(engine) => engine.run(turn, slot).await,
            Active::Nothing(message) => Err(Error::EngineUnavailable { message }),
        }
    }

    async fn status(&self) -> EngineStatus {
        match self.now() {
            Active::Warm(engine) => engine.status().await,
            Active::Exec(engine) => engine.status().await,
            Active::Nothing(trouble) => {
                let kind = match self.config.codex.engine {
                    EngineChoice::Auto => "auto",
                    EngineChoice::Exec => "exec",
                    EngineChoice::AppServer => "app-server",
                };
                EngineStatus { kind, version: String::new(), trouble: Some(trouble) }
            }
        }
    }

    fn usual_concurrency(&self) -> usize {
        match self.now() {
            Active::Warm(engine) => engine.usual_concurrency(),
            Active::Exec(_) | Active::Nothing(_) => self.exec.usual_concurrency(),
        }
    }

    fn check(&self, turn: &Turn) -> Result<(), Error> {
        match self.now() {
            Active::Warm(engine) => engine.check(turn),
            Active::Exec(engine) => engine.check(turn),
            // What cannot be done is not known yet.
            Active::Nothing(_) => Ok(()),
        }
    }

    fn profiles(&self) -> Vec<Profile> {
        match self.now() {
            Active::Warm(engine) => engine.profiles(),
            Active::Exec(_) | Active::Nothing(_) => self.exec.profiles(),
        }
    }

    async fn models(&self) -> Vec<pb::Model> {
        match self.now() {
            Active::Warm(engine) => engine.models().await,
            Active::Exec(engine) => engine.models().await,
            Active::Nothing(_) => Vec::new(),
        }
    }

    async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(warm) = self.warm() {
            warm.drain().await;
        }
        self.exec.drain().await;
    }
}
