//! The model catalog of the installed CLI, for the processes of turns. A process without a catalog asks the upstream for
//! its models first, and waits for five seconds if the upstream is silent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Codex,
    engine::{
        ModelCatalog,
        cli::{
            models,
            probe::{BinaryId, CliInfo},
            provider,
        },
        process::Launcher,
    },
    task::catch_panic,
};

/// Age from which a catalog is read again. Codex's own cache has the same age.
const MAX_AGE: Duration = Duration::from_secs(300);

/// The catalog of the installed CLI.
#[derive(Debug)]
pub(super) struct CatalogText {
    codex: Codex,
    launcher: Launcher,
    loaded: Mutex<Option<Loaded>>,
    /// Held while the CLI prints the catalog, so that only one process does.
    loading: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The catalog of one program.
#[derive(Debug, Clone)]
struct Loaded {
    binary: Option<BinaryId>,
    at: Instant,
    /// `None` if the program prints no catalog.
    models: Option<Arc<ModelCatalog>>,
    /// The output of the program, 0.7 MB with 0.169. `None` if the program prints no catalog.
    text: Option<Arc<str>>,
}

impl CatalogText {
    pub(super) fn new(codex: Codex, launcher: Launcher) -> Self {
        Self {
            codex,
            launcher,
            loaded: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Returns the models of the catalog, or `None` if the CLI prints none. The first call runs the CLI, which goes on if
    /// the caller gives up. Otherwise a CLI that hangs would hold up each request until its deadline.
    pub(super) async fn models(self: &Arc<Self>, installed: &Arc<CliInfo>) -> Option<Arc<ModelCatalog>> {
        if let Some(loaded) = self.loaded(installed) {
            return loaded.models;
        }
        let (this, installed) = (Arc::clone(self), Arc::clone(installed));
        let loading = self.tasks.spawn(async move {
            let load = async {
                let _loading = this.loading.lock().await;
                match this.loaded(&installed) {
                    Some(loaded) => loaded.models,
                    None => this.load(&installed).await.models,
                }
            };
            this.stop.run_until_cancelled(catch_panic("model catalog", load)).await
        });
        loading.await.ok().flatten().flatten().flatten()
    }

    /// Returns the text for a turn, or `None` before the catalog was read. Reads a missing or old catalog in the
    /// background, so that no turn waits for it.
    pub(super) fn text(self: &Arc<Self>, installed: &Arc<CliInfo>) -> Option<Arc<str>> {
        if !provider::is_openai(&self.codex) {
            // The catalog has the models of OpenAI only.
            return None;
        }
        let loaded = self.loaded(installed);
        if loaded.as_ref().is_none_or(|loaded| loaded.at.elapsed() >= MAX_AGE) {
            let (this, installed) = (Arc::clone(self), Arc::clone(installed));
            self.tasks.spawn(async move {
                let Ok(_loading) = this.loading.try_lock() else { return };
                let load = catch_panic("model catalog", this.load(&installed));
                drop(this.stop.run_until_cancelled(load).await);
            });
        }
        loaded?.text
    }

    /// Stops reading.
    pub(super) async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn loaded(&self, installed: &CliInfo) -> Option<Loaded> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.as_ref().filter(|loaded| loaded.binary == installed.binary).cloned()
    }

    /// Runs the CLI. A failure counts as a program without a catalog for [`MAX_AGE`]. Otherwise each request would wait for a
    /// CLI that does not answer.
    async fn load(&self, installed: &CliInfo) -> Loaded {
        let printed = models::print(&self.codex, &self.launcher, installed).await;
        let printed = printed.inspect_err(|error| tracing::warn!(%error, "cannot read the model catalog"));
        let printed = printed.ok().flatten();
        let models =
            printed.as_deref().and_then(|text| models::parse(&self.codex, installed, text)).map(Arc::new);
        let text = printed.filter(|_| models.is_some()).map(Arc::from);
        let loaded = Loaded { binary: installed.binary.clone(), at: Instant::now(), models, text };
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded.clone());
        loaded
    }
}
