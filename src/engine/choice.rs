//! Which engine runs: the one that is named, or the best that the installed CLI can be trusted with.

use std::sync::Arc;

use super::{
    Check, Engine, app_server::AppServer, cli::probe, exec::Exec, process::Launcher, selector::EngineSelector,
};
use crate::config::{Codex, Config, EngineChoice, Profile};

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
pub(super) fn may_be_exec(codex: &Codex) -> bool {
    codex.engine == EngineChoice::Auto && codex.profile == Profile::Agent
}

/// Whether it is the configuration that has to be changed, and not the CLI.
pub(super) fn is_misconfigured(trouble: &str) -> bool {
    trouble.contains("CODEX_APPROVAL_POLICY")
}
