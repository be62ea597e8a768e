//! What workers of one program are started with, and what is known of them: made once for each program, shared by its
//! workers and their turns, and removed with the last of them. Another program at the same path gets another kit.

use std::{ffi::OsString, path::Path, sync::OnceLock};

use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::engine::app_server::{
    capabilities::WorkerFeatures,
    launch::{cli_config, model_catalog, model_catalog::Catalogs},
};
use crate::{
    config::{Codex, Profile},
    engine::{Turn, cli::probe::CliInfo, process::Launcher},
    error::Error,
    pb,
};

/// What workers are started with.
#[derive(Debug)]
pub(crate) struct WorkerSpec {
    pub(crate) codex: Codex,
    pub(crate) installed: CliInfo,
    pub(crate) arguments: Vec<OsString>,
    catalogs: Catalogs,
    /// Set when a worker was found fit.
    features: OnceLock<WorkerFeatures>,
    models: OnceCell<Vec<pb::Model>>,
    /// The catalogs: an app-server reads its own again at every thread, so they stay as long as it does.
    _folder: TempDir,
}

impl WorkerSpec {
    /// One for the program that was looked at; its catalogs, which are in `place`, know `names`.
    pub(crate) async fn make(
        codex: &Codex,
        launcher: &Launcher,
        installed: CliInfo,
        place: &Path,
        names: &[String],
    ) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("kit-").tempdir_in(place);
        let folder = folder.map_err(|error| format!("a folder for catalogs: {error}"))?;
        let catalogs = model_catalog::write_catalogs(codex, launcher, &installed, folder.path(), names)
            .await
            .map_err(|error| error.to_string())?;
        let arguments = cli_config::arguments(codex, &installed, &catalogs);
        let features = OnceLock::new();
        let models = OnceCell::new();
        Ok(Self { codex: codex.clone(), installed, arguments, catalogs, features, models, _folder: folder })
    }

    /// What its workers can do; none before one was found fit.
    pub(crate) fn features(&self) -> Option<&WorkerFeatures> {
        self.features.get()
    }

    /// Its workers were found fit.
    pub(crate) fn found_fit(&self, features: WorkerFeatures) {
        // Two of them may be looked at, which find the same.
        drop(self.features.set(features));
    }

    /// What its workers list. Whoever else asks meanwhile waits for the same answer.
    pub(crate) const fn models(&self) -> &OnceCell<Vec<pb::Model>> {
        &self.models
    }

    /// What makes a thread one of `profile`.
    pub(crate) fn thread_config(&self, profile: Profile) -> Map<String, Value> {
        cli_config::thread_config(&self.codex, &self.installed, &self.catalogs, profile)
    }

    /// Profiles that its workers have: nobody may ask for the agent where the operator wants none.
    pub(crate) fn profiles(&self) -> Vec<Profile> {
        match self.codex.profile {
            Profile::Chat => vec![Profile::Chat],
            Profile::Agent if self.features().is_none_or(WorkerFeatures::per_thread_profiles) => {
                vec![Profile::Agent, Profile::Chat]
            }
            Profile::Agent => vec![Profile::Agent],
        }
    }

    /// Whether its workers can run a turn.
    pub(crate) fn check(&self, turn: &Turn) -> Result<(), Error> {
        let nothing = WorkerFeatures::default();
        let features = self.features().unwrap_or(&nothing);
        if !turn.tools.is_empty()
            && let Some(reason) = &features.no_tools
        {
            return Err(Error::unsupported("tools", reason.clone()));
        }
        if turn.profile != self.codex.profile && !features.per_thread_profiles() {
            return Err(Error::unsupported("model", "the installed Codex CLI has one profile for all turns"));
        }
        if turn.format.is_schema()
            && let Some(reason) = &features.no_output_schema
        {
            return Err(Error::unsupported("response_format", reason.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
impl WorkerSpec {
    /// One for workers that are no processes.
    pub(crate) fn for_test() -> Self {
        let sources = crate::config::Sources { current_dir: "/work".into(), ..Default::default() };
        Self {
            codex: crate::config::Config::load(sources).unwrap().codex,
            installed: CliInfo::default(),
            arguments: Vec::new(),
            catalogs: Catalogs::for_test("agent", "chat"),
            features: OnceLock::new(),
            models: OnceCell::new(),
            _folder: tempfile::tempdir().unwrap(),
        }
    }
}
