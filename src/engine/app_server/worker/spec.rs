//! The spec of the workers of one installed program, with their arguments, catalogs and features. The factory makes one
//! spec per program. Workers and turns share the spec. Dropping the last reference removes the directory of the
//! catalogs.

use std::{
    ffi::OsString,
    path::Path,
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::{sync::OnceCell, time::Instant};

use super::error::StartError;
use crate::engine::app_server::{
    capabilities::WorkerFeatures,
    launch::{cli_config, model_catalog, model_catalog::Catalogs},
};
use crate::{
    config::{Codex, Profile},
    engine::{
        ModelCatalog, Turn,
        cli::{
            models,
            probe::CliInfo,
            provider,
            transport::{TransportSelector, Workload},
            user_config::UserConfig,
        },
        process::Launcher,
    },
    error::Error,
    pb,
};

/// Maximum number of kept threads with MCP servers per worker.
const MAX_KEPT_THREADS_WITH_MCP: usize = 4;

/// The spec of the workers of one installed program.
#[derive(Debug)]
pub(crate) struct WorkerSpec {
    pub(crate) codex: Codex,
    pub(crate) installed: CliInfo,
    pub(crate) arguments: Vec<OsString>,
    /// The transport of the threads. The workers of a spec share it, because they share the network.
    pub(crate) transport: TransportSelector,
    /// The id of the provider with a WebSocket, if the workers have one.
    websocket_provider: Option<&'static str>,
    /// The user has configured MCP servers, whose processes each thread of the agent has.
    has_mcp_servers: bool,
    catalogs: Catalogs,
    /// The models of the CLI, before this server's changes.
    pub(crate) known_models: Option<Arc<ModelCatalog>>,
    /// Set when the first worker has passed the probe.
    features: OnceLock<WorkerFeatures>,
    models: OnceCell<Vec<pb::Model>>,
    /// The directory of the catalogs. A worker reads its catalog at each thread, so the directory exists as long as the
    /// spec.
    _catalog_dir: TempDir,
}

impl WorkerSpec {
    /// Makes the spec of the program that was probed as `installed`. Writes catalogs that contain `model_names` to a
    /// directory in `parent`.
    pub(crate) async fn new(
        codex: &Codex,
        launcher: &Launcher,
        installed: CliInfo,
        parent: &Path,
        model_names: &[String],
    ) -> Result<Self, StartError> {
        let catalog_dir = tempfile::Builder::new().prefix("catalogs-").tempdir_in(parent);
        let catalog_dir = catalog_dir.map_err(|cause| StartError::Directory {
            purpose: "a directory for model catalogs",
            parent: parent.to_owned(),
            cause,
        })?;
        let printed = model_catalog::print(codex, launcher, &installed).await?;
        let catalogs = model_catalog::write_catalogs(&printed, catalog_dir.path(), model_names)?;
        let known_models = models::parse(codex, &installed, &printed).map(Arc::new);
        let arguments = cli_config::arguments(codex, &installed, &catalogs);
        Ok(Self {
            codex: codex.clone(),
            transport: TransportSelector::new(codex.upstream_transport),
            websocket_provider: provider::websocket_provider(codex, &installed),
            has_mcp_servers: UserConfig::load(codex).mcp_servers().next().is_some(),
            installed,
            arguments,
            catalogs,
            known_models,
            features: OnceLock::new(),
            models: OnceCell::new(),
            _catalog_dir: catalog_dir,
        })
    }

    /// Returns the features of the workers, or `None` before the first worker has passed the probe.
    pub(crate) fn features(&self) -> Option<&WorkerFeatures> {
        self.features.get()
    }

    /// Sets the features that the probe found.
    pub(crate) fn set_features(&self, features: WorkerFeatures) {
        // Two concurrent probes are possible and find the same features.
        drop(self.features.set(features));
    }

    /// Returns the cell of the models that the workers list. Concurrent callers wait for one `model/list`.
    pub(crate) const fn models(&self) -> &OnceCell<Vec<pb::Model>> {
        &self.models
    }

    /// Returns the configuration overrides of a thread of `profile`.
    pub(crate) fn thread_config(&self, profile: Profile) -> Map<String, Value> {
        cli_config::thread_config(&self.codex, &self.installed, &self.catalogs, profile)
    }

    /// Returns the provider of a thread that starts now, or `None` for the workers' default, which uses HTTPS.
    pub(crate) fn thread_provider(&self, workload: Workload) -> Option<&'static str> {
        self.websocket_provider.filter(|_| self.transport.selects_websocket(workload, Instant::now()))
    }

    /// Returns how many threads of `profile` a worker may keep. Each thread with MCP servers has processes of its own.
    pub(crate) fn max_kept_threads(&self, profile: Profile) -> usize {
        match profile {
            Profile::Agent if self.has_mcp_servers => MAX_KEPT_THREADS_WITH_MCP,
            Profile::Agent | Profile::Chat => usize::MAX,
        }
    }

    /// Returns the profiles that turns may have. With `CODEX_PROFILE=chat`, no turn gets the agent.
    pub(crate) fn profiles(&self) -> Vec<Profile> {
        match self.codex.profile {
            Profile::Chat => vec![Profile::Chat],
            Profile::Agent if self.features().is_none_or(WorkerFeatures::per_thread_profiles) => {
                vec![Profile::Agent, Profile::Chat]
            }
            Profile::Agent => vec![Profile::Agent],
        }
    }

    /// Checks that the workers support everything that `turn` needs.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with the parameter that the installed CLI does not support.
    pub(crate) fn check(&self, turn: &Turn) -> Result<(), Error> {
        let none = WorkerFeatures::default();
        let features = self.features().unwrap_or(&none);
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
    /// Returns a spec for workers without processes.
    pub(crate) fn for_test() -> Self {
        let sources = crate::config::Sources { current_dir: "/work".into(), ..Default::default() };
        Self {
            codex: crate::config::Config::load(sources).unwrap().codex,
            transport: TransportSelector::new(crate::config::UpstreamTransport::Https),
            websocket_provider: None,
            has_mcp_servers: false,
            installed: CliInfo::default(),
            arguments: Vec::new(),
            catalogs: Catalogs::for_test("agent", "chat"),
            known_models: None,
            features: OnceLock::new(),
            models: OnceCell::new(),
            _catalog_dir: tempfile::tempdir().unwrap(),
        }
    }
}
