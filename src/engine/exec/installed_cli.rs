//! The installed CLI as exec's turns see it. Probes run in tasks of their own, so that a request or a status that gives up
//! does not stop the probe, and a CLI that hangs does not hold up a status.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Codex,
    engine::{
        cli::probe::{self, CliInfo, ProbeError},
        process::Launcher,
    },
    task::catch_panic,
};

/// Time after which a failed probe is repeated.
const NEGATIVE_CACHE_TTL: Duration = Duration::from_secs(2);

/// Maximum time that a status waits for a probe, which usually takes some 50 ms.
const STATUS_WAIT: Duration = Duration::from_millis(150);

pub(super) type ProbeResult = Result<Arc<CliInfo>, Arc<ProbeError>>;

/// The cached probe.
#[derive(Debug)]
pub(super) struct InstalledCli {
    codex: Arc<Codex>,
    launcher: Launcher,
    last: RwLock<Option<(Instant, ProbeResult)>>,
    /// Held during a probe, so that only one probe runs.
    probing: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl InstalledCli {
    /// The first use probes the CLI.
    pub(super) fn new(codex: Arc<Codex>, launcher: Launcher) -> Self {
        Self {
            codex,
            launcher,
            last: RwLock::default(),
            probing: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Returns the installed CLI. A success is cached until the program changes, a failure for [`NEGATIVE_CACHE_TTL`].
    /// Otherwise waits for a probe, which goes on if the caller gives up.
    pub(super) async fn get(self: &Arc<Self>) -> ProbeResult {
        if let Some(result) = self.cached() {
            return result;
        }
        let this = Arc::clone(self);
        let probe = self.tasks.spawn(async move {
            this.stop.run_until_cancelled(catch_panic("probe of the CLI", this.probe())).await.flatten()
        });
        probe.await.ok().flatten().unwrap_or_else(|| Err(Arc::new(ProbeError::Interrupted)))
    }

    /// Returns the result of the last probe, and waits only shortly for a probe that is due. Returns `None` before the end
    /// of the first probe.
    pub(super) async fn last(self: &Arc<Self>) -> Option<ProbeResult> {
        match timeout(STATUS_WAIT, self.get()).await {
            Ok(result) => Some(result),
            Err(_) => {
                let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
                last.as_ref().map(|(_, result)| result.clone())
            }
        }
    }

    /// Stops a running probe.
    pub(super) async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn probe(&self) -> ProbeResult {
        let _probing = self.probing.lock().await;
        if let Some(result) = self.cached() {
            return result;
        }
        let result = probe::run(&self.codex, &self.launcher).await.map(Arc::new).map_err(Arc::new);
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        let before = last.replace((Instant::now(), result.clone()));
        let before = before.and_then(|(_, result)| result.err()).map(|error| error.detail());
        match &result {
            Err(error) if before.as_ref() != Some(&error.detail()) => {
                tracing::error!(error = error.detail(), "no turn can run");
            }
            Ok(_) if before.is_some() => tracing::info!("turns can run again"),
            Ok(_) | Err(_) => {}
        }
        result
    }

    fn cached(&self) -> Option<ProbeResult> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        let (probed_at, result) = last.as_ref()?;
        let is_valid = match result {
            Ok(installed) => probe::binary_id(&self.codex) == installed.binary,
            Err(_) => probed_at.elapsed() < NEGATIVE_CACHE_TTL,
        };
        is_valid.then(|| result.clone())
    }
}
