//! Selects the engine that the installed CLI supports. A background task probes again while the preferred engine is not
//! available, so that installing or updating the CLI needs no restart.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Check, Engine, EngineStatus, Events, ModelCatalog, Turn, TurnGuard,
    app_server::AppServer,
    cli::{
        login::{self, LoginError},
        models,
        probe::{self, BinaryId, PROBING, ProbeError, START_WAIT},
    },
    exec::Exec,
    process::{Launcher, private_dir},
};
use crate::{
    config::{Codex, Config, EngineChoice, Profile},
    error::Error,
    pb,
    task::catch_panic,
};

/// Pause between two checks of the installed program.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Time after which an unusable app-server is probed again although the program has not changed. The network or the
/// machine may have been too slow to start a worker in time. The time doubles with each failed probe.
const MIN_REPROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum time between two probes of an unusable app-server. A probe starts a worker, which costs a second of processor
/// time.
const MAX_REPROBE_INTERVAL: Duration = Duration::from_secs(300);

/// Maximum time that a turn waits for the first engine after the login appeared.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration requires an engine that the installed CLI does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChoiceError(String);

/// Returns the checks of `codex-api doctor` for the configured engines.
pub async fn examine(config: &Config, launcher: &Launcher) -> Vec<Check> {
    let codex = &config.codex;
    let exec = Exec::new(codex.clone(), config.log.clone(), launcher.clone());
    let mut checks = exec.examine().await;
    if login::check(codex).is_err_and(|error| error != LoginError::NotLoggedIn) {
        // A worker would find no login, and the CLI may delete a login that its configuration forbids.
        return checks;
    }
    let Ok(installed) = probe::run(codex, launcher).await else { return checks };
    checks.push(models::examine(config, launcher, &installed).await);
    if codex.engine != EngineChoice::Exec {
        let mut app_server_checks = AppServer::examine(config, launcher, &installed).await;
        if Requirement::new(codex) == Requirement::Any {
            // Turns run by exec, so a limitation of the app-server is a warning.
            for check in &mut app_server_checks {
                check.downgrade_failure();
            }
        }
        checks.extend(app_server_checks);
    }
    checks
}

/// Probes the CLI and returns an engine. A missing CLI is not an error. The engine reports it in its status until a CLI is
/// installed.
pub async fn choose(config: &Config, launcher: Launcher) -> Result<Arc<dyn Engine>, ChoiceError> {
    let codex = &config.codex;
    private_dir::remove_orphaned(&codex.scratch);
    login::checks::log_warnings(codex);
    match codex.engine {
        EngineChoice::Exec if login::check(codex).is_err_and(|error| error.endangers_login()) => {
            Ok(Arc::new(Exec::new(codex.clone(), config.log.clone(), launcher)))
        }
        EngineChoice::Exec => match timeout(START_WAIT, probe::run(codex, &launcher)).await {
            Ok(Err(error)) if error.is_misconfiguration() => Err(ChoiceError(error.to_string())),
            Ok(_) | Err(_) => Ok(Arc::new(Exec::new(codex.clone(), config.log.clone(), launcher))),
        },
        EngineChoice::Auto | EngineChoice::AppServer => {
            Ok(EngineSelector::start(config.clone(), launcher).await?)
        }
    }
}

/// The engines that the configuration allows besides the app-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requirement {
    /// exec may run turns.
    Any,
    /// `CODEX_ENGINE=app-server`.
    AppServer,
    /// `CODEX_PROFILE=chat`, which exec does not support.
    ChatProfile,
}

impl Requirement {
    fn new(codex: &Codex) -> Self {
        match (codex.engine, codex.profile) {
            (EngineChoice::AppServer, _) => Self::AppServer,
            (_, Profile::Chat) => Self::ChatProfile,
            (_, Profile::Agent) => Self::Any,
        }
    }
}

/// The result of probing the CLI. `E` is the started app-server engine.
#[derive(Debug)]
enum ProbeOutcome<E> {
    /// The app-server passed its probe.
    AppServer(E),
    /// The app-server cannot be used, for this reason.
    AppServerFailed(String),
    /// The CLI cannot be used at all.
    CliFailed(ProbeError),
    /// The CLI has no login for its upstream.
    NoLogin(LoginError),
}

/// The selected engine, and the reason if it is not the app-server.
#[derive(Debug, PartialEq, Eq)]
enum Selection<E> {
    /// The app-server. It handles a replaced CLI itself.
    AppServer(E),
    /// exec, because the app-server cannot be used.
    Exec(String),
    /// No engine: the app-server cannot be used and the configuration does not allow exec.
    Unusable(String),
    /// No engine: the CLI is missing, too old, broken or without a login.
    Missing(String),
}

impl<E> Selection<E> {
    /// Returns the selection for a probe. Pure.
    fn new(outcome: ProbeOutcome<E>, requirement: Requirement) -> Self {
        match (outcome, requirement) {
            (ProbeOutcome::AppServer(engine), _) => Self::AppServer(engine),
            (ProbeOutcome::AppServerFailed(reason), Requirement::Any) => Self::Exec(reason),
            (ProbeOutcome::AppServerFailed(reason), Requirement::AppServer) => {
                Self::Unusable(format!("CODEX_ENGINE=app-server cannot be used: {reason}"))
            }
            (ProbeOutcome::AppServerFailed(reason), Requirement::ChatProfile) => Self::Unusable(format!(
                "CODEX_PROFILE=chat needs the app-server engine, which cannot be used: {reason}"
            )),
            (ProbeOutcome::CliFailed(error), _) => Self::Missing(error.to_string()),
            (ProbeOutcome::NoLogin(error), _) => Self::Missing(error.with_remedy()),
        }
    }

    /// Returns `true` if the CLI should be probed again. Pure.
    ///
    /// `failed_probes` is the number of consecutive probes of this program that found the app-server unusable.
    fn is_due(&self, program_changed: bool, since_probe: Duration, failed_probes: u32) -> bool {
        match self {
            Self::AppServer(_) => false,
            Self::Missing(_) => true,
            Self::Exec(_) | Self::Unusable(_) => {
                program_changed || since_probe >= reprobe_interval(failed_probes)
            }
        }
    }

    /// Returns the change from `before` that the log must report. Pure.
    fn change_from(&self, before: Option<&Self>) -> Option<Change<'_>> {
        match (self, before) {
            (Self::Missing(new), Some(Self::Missing(old)))
            | (Self::Unusable(new), Some(Self::Unusable(old)))
            | (Self::Exec(new), Some(Self::Exec(old)))
                if new == old =>
            {
                None
            }
            (Self::Missing(reason) | Self::Unusable(reason), _) => Some(Change::Unavailable(reason)),
            (Self::Exec(reason), _) => Some(Change::Exec(reason)),
            (Self::AppServer(_), Some(_)) => Some(Change::AppServer),
            (Self::AppServer(_), None) => None,
        }
    }
}

/// Returns the time between the last of `failed_probes` probes and the next. Pure.
fn reprobe_interval(failed_probes: u32) -> Duration {
    let doublings = failed_probes.saturating_sub(1).min(16);
    MIN_REPROBE_INTERVAL.saturating_mul(1 << doublings).min(MAX_REPROBE_INTERVAL)
}

/// A change of the selection.
#[derive(Debug, PartialEq, Eq)]
enum Change<'a> {
    AppServer,
    Exec(&'a str),
    Unavailable(&'a str),
}

fn log_change(change: Option<&Change<'_>>) {
    match change {
        Some(Change::AppServer) => tracing::info!("turns run by the app-server engine"),
        Some(Change::Exec(reason)) => tracing::warn!(%reason, "app-server is unusable; turns run by exec"),
        Some(Change::Unavailable(reason)) => tracing::error!(%reason, "no turn can run"),
        None => {}
    }
}

/// Delegates to the selected engine.
#[derive(Debug)]
struct EngineSelector {
    config: Config,
    launcher: Launcher,
    exec: Exec,
    last: RwLock<Probed>,
    /// Notified when a missing login may be there.
    login_appeared: Notify,
    /// Notified after each probe.
    probed: Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A selection with its probe.
#[derive(Debug)]
struct Probed {
    selection: Selection<Arc<AppServer>>,
    /// The probed program.
    binary: Option<BinaryId>,
    at: Instant,
    /// The number of consecutive probes of this program that found the app-server unusable.
    failed_probes: u32,
    /// Only the login was missing.
    needs_login: bool,
    /// The first probe has not ended.
    is_probing: bool,
}

/// The engine that runs turns now.
enum Active<'a> {
    AppServer(Arc<AppServer>),
    Exec(&'a Exec),
    Unavailable(String),
}

impl fmt::Debug for Active<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AppServer(_) => "app-server",
            Self::Exec(_) => "exec",
            Self::Unavailable(_) => "unavailable",
        })
    }
}

impl EngineSelector {
    /// Probes the CLI, selects an engine, and starts the task that probes again.
    ///
    /// # Errors
    /// The configuration requires the app-server and the CLI does not support it, or the CLI does not support the
    /// approval policy.
    async fn start(config: Config, launcher: Launcher) -> Result<Arc<Self>, ChoiceError> {
        let binary = probe::binary_id(&config.codex);
        let mut first_probe = {
            let (config, launcher) = (config.clone(), launcher.clone());
            Box::pin(async move { run_probe(&config, &launcher).await })
        };
        let outcome = timeout(START_WAIT, &mut first_probe).await.ok();
        let is_probing = outcome.is_none();
        let is_misconfigured =
            matches!(&outcome, Some(ProbeOutcome::CliFailed(error)) if error.is_misconfiguration());
        let needs_login = matches!(outcome, Some(ProbeOutcome::NoLogin(_)));
        let selection = match outcome {
            Some(outcome) => Selection::new(outcome, Requirement::new(&config.codex)),
            None => Selection::Missing(PROBING.to_owned()),
        };
        match &selection {
            Selection::Unusable(reason) if config.codex.engine == EngineChoice::AppServer => {
                return Err(ChoiceError(reason.clone()));
            }
            Selection::Missing(reason) if is_misconfigured => return Err(ChoiceError(reason.clone())),
            Selection::AppServer(_) | Selection::Exec(_) | Selection::Unusable(_) | Selection::Missing(_) => {
            }
        }
        log_change(selection.change_from(None).as_ref());
        let selector = Arc::new(Self {
            exec: Exec::new(config.codex.clone(), config.log.clone(), launcher.clone()),
            config,
            launcher,
            last: RwLock::new(Probed {
                selection,
                binary: binary.clone(),
                at: Instant::now(),
                failed_probes: 1,
                needs_login,
                is_probing,
            }),
            login_appeared: Notify::new(),
            probed: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let reprobing = Arc::clone(&selector);
        selector.tasks.spawn(async move {
            let probes = async {
                if is_probing {
                    reprobing.record(first_probe.await, binary);
                }
                reprobing.probe_until_app_server().await;
            };
            tokio::select! {
                () = probes => {}
                () = reprobing.stop.cancelled() => {}
            }
        });
        Ok(selector)
    }

    async fn probe_until_app_server(&self) {
        while self.app_server().is_none() {
            tokio::select! {
                () = sleep(POLL_INTERVAL) => {}
                () = self.login_appeared.notified() => {}
            }
            // The id is read first, so that a program that is replaced during the probe counts as changed.
            let binary = probe::binary_id(&self.config.codex);
            if self.is_due(binary.as_ref()) {
                self.record(run_probe(&self.config, &self.launcher).await, binary);
            }
        }
    }

    fn record(&self, outcome: ProbeOutcome<Arc<AppServer>>, binary: Option<BinaryId>) {
        let needs_login = matches!(outcome, ProbeOutcome::NoLogin(_));
        let selection = Selection::new(outcome, Requirement::new(&self.config.codex));
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        log_change(selection.change_from(Some(&last.selection)).as_ref());
        let is_same = last.binary == binary && !last.is_probing;
        let failed_probes = if is_same { last.failed_probes.saturating_add(1) } else { 1 };
        let at = Instant::now();
        *last = Probed { selection, binary, at, failed_probes, needs_login, is_probing: false };
        drop(last);
        self.probed.notify_waiters();
    }

    fn is_due(&self, binary: Option<&BinaryId>) -> bool {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        let program_changed = last.binary.as_ref() != binary;
        last.selection.is_due(program_changed, last.at.elapsed(), last.failed_probes)
    }

    /// Returns the app-server engine if it is selected, even while turns fall back to exec.
    fn app_server(&self) -> Option<Arc<AppServer>> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        match &last.selection {
            Selection::AppServer(engine) => Some(Arc::clone(engine)),
            Selection::Exec(_) | Selection::Unusable(_) | Selection::Missing(_) => None,
        }
    }

    /// Returns the reason why exec runs turns.
    fn fallback_reason(&self) -> Option<String> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        match &last.selection {
            Selection::Exec(reason) => Some(format!("turns run by exec, because {reason}")),
            Selection::AppServer(_) => Some(
                "turns run by exec, because the installed CLI failed the probe of the app-server".to_owned(),
            ),
            Selection::Unusable(_) | Selection::Missing(_) => None,
        }
    }

    /// Waits for the probe of exec's own, if exec runs turns.
    async fn prepare_exec(&self) {
        if let Active::Exec(engine) = self.active() {
            engine.prepare().await;
        }
    }

    fn active(&self) -> Active<'_> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        let may_run_exec = Requirement::new(&self.config.codex) == Requirement::Any;
        match &last.selection {
            Selection::AppServer(engine) if may_run_exec && engine.is_refused() => Active::Exec(&self.exec),
            Selection::AppServer(engine) => Active::AppServer(Arc::clone(engine)),
            Selection::Exec(_) => Active::Exec(&self.exec),
            Selection::Unusable(reason) | Selection::Missing(reason) => Active::Unavailable(reason.clone()),
        }
    }
}

/// Probes the CLI and starts the app-server engine if the CLI supports it. A panic counts as a failed probe, so that the
/// CLI is probed again.
async fn run_probe(config: &Config, launcher: &Launcher) -> ProbeOutcome<Arc<AppServer>> {
    let probe = catch_panic("probe of the CLI", probe_engine(config, launcher)).await;
    probe.unwrap_or_else(|| {
        ProbeOutcome::AppServerFailed("the probe failed with an internal error".to_owned())
    })
}

async fn probe_engine(config: &Config, launcher: &Launcher) -> ProbeOutcome<Arc<AppServer>> {
    if let Err(error) = login::check(&config.codex)
        && error.endangers_login()
    {
        return ProbeOutcome::NoLogin(error);
    }
    let installed = match probe::run(&config.codex, launcher).await {
        Ok(installed) => installed,
        Err(error) => {
            probe::log_detail(&error.detail());
            return ProbeOutcome::CliFailed(error);
        }
    };
    if let Err(error) = login::check(&config.codex) {
        return ProbeOutcome::NoLogin(error);
    }
    match AppServer::start(config, launcher.clone(), &installed).await {
        Ok(engine) => ProbeOutcome::AppServer(Arc::new(engine)),
        Err(reason) => {
            probe::log_detail(&reason.detail());
            ProbeOutcome::AppServerFailed(reason.to_string())
        }
    }
}

#[tonic::async_trait]
impl Engine for EngineSelector {
    async fn run(&self, turn: Turn, guard: TurnGuard) -> Result<Events, Error> {
        match self.active() {
            Active::AppServer(engine) => engine.run(turn, guard).await,
            Active::Exec(engine) => engine.run(turn, guard).await,
            Active::Unavailable(message) => Err(Error::EngineUnavailable { message }),
        }
    }

    /// Waits for the first probe. Probes again at once if only the login was missing and is there now.
    async fn prepare(&self) {
        let mut probed = std::pin::pin!(self.probed.notified());
        // From now on, the end of a probe is not missed.
        probed.as_mut().enable();
        if self.last.read().unwrap_or_else(PoisonError::into_inner).is_probing {
            probed.await;
            return self.prepare_exec().await;
        }
        let needs_login = self.last.read().unwrap_or_else(PoisonError::into_inner).needs_login;
        if needs_login && login::check(&self.config.codex).is_ok() {
            self.login_appeared.notify_one();
            drop(timeout(LOGIN_TIMEOUT, probed).await);
        }
        self.prepare_exec().await;
    }

    async fn status(&self) -> EngineStatus {
        match self.active() {
            Active::AppServer(engine) => engine.status().await,
            Active::Exec(engine) => {
                let degraded_reason = self.fallback_reason();
                EngineStatus { degraded_reason, ..engine.status().await }
            }
            Active::Unavailable(reason) => {
                let kind = match self.config.codex.engine {
                    EngineChoice::Auto => "auto",
                    EngineChoice::Exec => "exec",
                    EngineChoice::AppServer => "app-server",
                };
                EngineStatus {
                    kind,
                    version: String::new(),
                    unavailable_reason: Some(reason),
                    degraded_reason: None,
                    account: None,
                    threads: None,
                }
            }
        }
    }

    fn usual_concurrency(&self) -> usize {
        match self.active() {
            Active::AppServer(engine) => engine.usual_concurrency(),
            Active::Exec(_) | Active::Unavailable(_) => self.exec.usual_concurrency(),
        }
    }

    fn check(&self, turn: &Turn) -> Result<(), Error> {
        match self.active() {
            Active::AppServer(engine) => engine.check(turn),
            Active::Exec(engine) => engine.check(turn),
            // The limits of the engine are not known yet.
            Active::Unavailable(_) => Ok(()),
        }
    }

    fn profiles(&self) -> Vec<Profile> {
        match self.active() {
            Active::AppServer(engine) => engine.profiles(),
            Active::Exec(_) | Active::Unavailable(_) => self.exec.profiles(),
        }
    }

    async fn model_catalog(&self) -> Option<Arc<ModelCatalog>> {
        match self.active() {
            Active::AppServer(engine) => engine.model_catalog().await,
            Active::Exec(engine) => engine.model_catalog().await,
            Active::Unavailable(_) => None,
        }
    }

    async fn models(&self) -> Vec<pb::Model> {
        match self.active() {
            Active::AppServer(engine) => engine.models().await,
            Active::Exec(engine) => engine.models().await,
            Active::Unavailable(_) => Vec::new(),
        }
    }

    async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(engine) = self.app_server() {
            engine.drain().await;
        }
        self.exec.drain().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_old() -> ProbeError {
        ProbeError::TooOld { version: "0.1.0".into() }
    }

    #[test]
    fn selection_of_each_outcome_follows_the_requirement() {
        use ProbeOutcome::{AppServer, AppServerFailed, CliFailed};
        let failed = || AppServerFailed("x".to_owned());
        for requirement in [Requirement::Any, Requirement::AppServer, Requirement::ChatProfile] {
            assert_eq!(Selection::new(AppServer(7), requirement), Selection::AppServer(7));
            let missing = Selection::<i32>::new(CliFailed(too_old()), requirement);
            assert!(matches!(missing, Selection::Missing(reason) if reason.contains("0.1.0")));
        }
        assert_eq!(Selection::<i32>::new(failed(), Requirement::Any), Selection::Exec("x".into()));
        for (requirement, setting) in
            [(Requirement::AppServer, "CODEX_ENGINE"), (Requirement::ChatProfile, "CODEX_PROFILE")]
        {
            let unusable = Selection::<i32>::new(failed(), requirement);
            assert!(matches!(unusable, Selection::Unusable(reason) if reason.contains(setting)));
        }
    }

    #[test]
    fn is_due_depends_on_selection_program_and_time() {
        let reason = || "x".to_owned();
        let (short, long) = (Duration::ZERO, MAX_REPROBE_INTERVAL);
        assert!(!Selection::AppServer(7).is_due(true, long, 1));
        assert!(Selection::<i32>::Missing(reason()).is_due(false, short, 1));
        for selection in [Selection::<i32>::Exec(reason()), Selection::Unusable(reason())] {
            assert!(!selection.is_due(false, short, 1));
            assert!(selection.is_due(true, short, 1));
            assert!(selection.is_due(false, MIN_REPROBE_INTERVAL, 1));
            assert!(!selection.is_due(false, MIN_REPROBE_INTERVAL, 2));
            assert!(selection.is_due(false, long, u32::MAX));
        }
    }

    #[test]
    fn reprobe_interval_doubles_up_to_its_maximum() {
        let seconds: Vec<u64> = (1..=7).map(|probes| reprobe_interval(probes).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn change_from_the_same_selection_is_none() {
        let all = || {
            [
                Selection::AppServer(7),
                Selection::Exec("e".into()),
                Selection::Unusable("u".into()),
                Selection::Missing("m".into()),
            ]
        };
        let expected = |selection: &Selection<i32>| match selection {
            Selection::AppServer(_) => "AppServer".to_owned(),
            Selection::Exec(reason) => format!("Exec({reason:?})"),
            Selection::Unusable(reason) | Selection::Missing(reason) => format!("Unavailable({reason:?})"),
        };
        for (index, new) in all().iter().enumerate() {
            for (other, old) in all().iter().enumerate() {
                let change = new.change_from(Some(old)).map(|change| format!("{change:?}"));
                // The app-server reports its own changes, and the selector never replaces it.
                let same = index == other && index != 0;
                assert_eq!(change, (!same).then(|| expected(new)), "{old:?} to {new:?}");
            }
        }
        assert_eq!(Selection::AppServer(7).change_from(None), None);
        assert_eq!(Selection::<i32>::Exec("e".into()).change_from(None), Some(Change::Exec("e")));
    }
}
