//! Which engine runs: the one that is named, or the best that the installed CLI can be trusted with.

use std::sync::Arc;

use super::{Check, Engine, app_server::AppServer, exec::Exec, installed, process::Launcher};
use crate::config::{Config, EngineChoice};

/// The configuration asks for what the installed CLI does not do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ChoiceError(String);

/// What the doctor asks of the engines.
pub async fn examine(config: &Config, launcher: &Launcher) -> Vec<Check> {
    let codex = &config.codex;
    let exec = Exec::new(codex.clone(), config.log.clone(), launcher.clone());
    let mut checks = exec.examine().await;
    if let Ok(installed) = installed::look(codex, launcher).await
        && codex.engine != EngineChoice::Exec
    {
        let mut found = AppServer::examine(config, launcher, &installed).await;
        if codex.engine == EngineChoice::Auto {
            // There is another engine: what this one lacks is worth knowing, but turns do not fail.
            for check in &mut found {
                check.soften();
            }
        }
        checks.extend(found);
    }
    checks
}

/// Looks at the CLI and chooses. A CLI that is missing is no error: the exec engine looks again at each turn, and
/// health tells why none can run.
pub async fn choose(config: &Config, launcher: Launcher) -> Result<Arc<dyn Engine>, ChoiceError> {
    let (codex, log) = (&config.codex, &config.log);
    let exec = || Arc::new(Exec::new(codex.clone(), log.clone(), launcher.clone()));
    let installed = match installed::look(codex, &launcher).await {
        Ok(installed) => installed,
        Err(trouble) if trouble.contains("CODEX_APPROVAL_POLICY") => return Err(ChoiceError(trouble)),
        Err(_) => return Ok(exec()),
    };
    if codex.engine == EngineChoice::Exec {
        return Ok(exec());
    }
    match AppServer::start(config, launcher.clone(), &installed).await {
        Ok(engine) => Ok(Arc::new(engine)),
        Err(reason) if codex.engine == EngineChoice::AppServer => {
            Err(ChoiceError(format!("CODEX_ENGINE=app-server cannot be used: {reason}")))
        }
        Err(reason) => {
            tracing::warn!(%reason, "the app-server engine is not used: each turn gets a process of its own");
            Ok(exec())
        }
    }
}
