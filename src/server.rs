//! The composition root: configuration → engine, service, doors, listeners → a server that runs until it is told to
//! stop, and stops in order.

use std::{
    fs::Permissions, io, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc,
    time::Duration,
};

use axum::{Router, extract::Request, middleware, response::Response};
use futures_util::future::OptionFuture;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Request as Call;

use super::{
    auth::Authenticator,
    config::{Config, ScriptedUpstream},
    demo::Upstream,
    engine::{self, cli::environment, process::Launcher},
    error::Error,
    grpc::{self, Health},
    http,
    pb::{self, codex_service_server::CodexService},
    service::Service,
    shutdown::{Phase, Shutdown},
    transport,
    transport::{access_log, catch_panic},
};

/// Our own executable, also after it was replaced on disk.
pub(crate) const OURSELVES: &str = "/proc/self/exe";

/// How often a server that is not healthy, or may no longer be, looks again.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// Time for the last bytes of finished answers to reach their readers, when the server stops.
const FLUSH: Duration = Duration::from_secs(2);

/// A server whose listeners are open.
#[derive(Debug)]
pub struct Server {
    config: Config,
    service: Arc<Service>,
    shared: TcpListener,
    grpc_only: Option<TcpListener>,
    demo: Option<Demo>,
}

/// What the scripted upstream needs to live.
#[derive(Debug)]
struct Demo {
    upstream: Upstream,
    _home: TempDir,
}

/// How an [`Server`] differs from the usual.
#[derive(Debug, Default)]
pub struct Options {
    /// Answers come from the scripted upstream.
    pub demo: bool,
    /// This process has no children of its own but those of turns: orphans among them are adopted and ended.
    pub foster: bool,
    /// The `codex-api` executable that contains children; our own if absent.
    pub containment: Option<PathBuf>,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        cause: io::Error,
    },
    /// Something that must be there cannot be made.
    #[error("{what}: {cause}")]
    Prepare {
        /// What.
        what: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// The configuration asks for what the installed CLI does not do.
    #[error("{0}")]
    Engine(#[from] engine::ChoiceError),
}

impl Server {
    /// Opens the listeners and looks at the CLI. A CLI that is missing is no reason not to start: health tells
    /// it, until it is there.
    pub async fn start(mut config: Config, options: Options) -> Result<Self, StartError> {
        let demo = if options.demo { Some(Demo::start(&mut config).await?) } else { None };
        let prepare = |what| move |cause| StartError::Prepare { what, cause };
        environment::prepare(&config.codex).map_err(prepare("CODEX_CLI_HOME"))?;
        let shared = bind(config.doors.listen)?;
        let grpc_only = config.doors.grpc_listen.map(bind).transpose()?;

        let containment = options.containment.unwrap_or_else(|| PathBuf::from(OURSELVES));
        let mut launcher = Launcher::new(containment, config.codex.cancel_grace);
        if options.foster {
            launcher = launcher.fostering().map_err(prepare("the adoption of orphans"))?;
        }
        let engine = engine::choose(&config, launcher).await?;
        let status = engine.status().await;
        let service = Arc::new(Service::new(&config, engine));
        tracing::info!(
            listen = %shared.local_addr().unwrap_or(config.doors.listen),
            grpc.listen = grpc_only.as_ref().and_then(|l| l.local_addr().ok()).map(tracing::field::display),
            engine.kind = status.kind,
            codex.version = status.version,
            demo = demo.is_some(),
            "codex-api is listening"
        );
        Ok(Self { config, service, shared, grpc_only, demo })
    }

    /// Where both doors listen; the HTTP door only, if gRPC has an address of its own.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.shared.local_addr()
    }

    /// Where gRPC listens.
    pub fn grpc_address(&self) -> io::Result<SocketAddr> {
        self.grpc_only.as_ref().unwrap_or(&self.shared).local_addr()
    }

    /// Where the scripted upstream listens, in a demo.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.demo.as_ref().map(|demo| &demo.upstream)
    }

    /// Serves until `shutdown` says to drain, then drains: not ready → no new connections or turns → running turns
    /// may end within their grace → the rest is ended → connections are closed.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { config, service, shared, grpc_only, demo } = self;
        let gate = Arc::new(Authenticator::new(&config.doors));
        let facade = http::router(Arc::clone(&service), &config.doors, Arc::clone(&gate));
        let (calls, health) = grpc::routes(Arc::clone(&service), &config.doors, gate)?;
        let (shared_app, grpc_app) = match grpc_only {
            Some(_) => (around(facade), around(calls)),
            None => (around(facade.merge(calls)), Router::new()),
        };
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let serve =
            |listener, app| transport::serve(listener, app, &config.doors, drain.clone(), kill.clone());
        let serve_grpc = OptionFuture::from(grpc_only.map(|listener| serve(listener, grpc_app)));
        let serving = async { tokio::join!(serve(shared, shared_app), serve_grpc) };
        let stopping = async {
            shutdown.draining().await;
            health.set(false).await;
            service.begin_drain();
            drain.cancel();
            let impatient = shutdown.kill_token();
            tokio::select! {
                () = service.drain(config.doors.drain_grace) => {}
                () = impatient.cancelled() => service.drain(Duration::ZERO).await,
            }
        };
        let served = async {
            tokio::pin!(serving, stopping);
            tokio::select! {
                _ = &mut serving => stopping.await,
                () = &mut stopping => {
                    // Connections whose answers are out close by themselves; a health watch or half a header does not.
                    if tokio::time::timeout(FLUSH, &mut serving).await.is_err() {
                        kill.cancel();
                        serving.await;
                    }
                }
            }
        };
        tokio::join!(served, follow(&service, &health, &shutdown));
        drop(demo);
        shutdown.stop();
        Ok(())
    }
}

impl Demo {
    async fn start(config: &mut Config) -> Result<Self, StartError> {
        let prepare = |what| move |cause| StartError::Prepare { what, cause };
        let upstream = Upstream::start().await.map_err(prepare("the scripted upstream"))?;
        let home = tempfile::Builder::new()
            .prefix("codex-api-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&config.codex.scratch);
        let home = home.map_err(prepare("a folder for the demo"))?;
        config.codex.scripted_upstream =
            Some(ScriptedUpstream { base_url: upstream.base_url(), codex_home: home.path().to_owned() });
        tracing::warn!("demo: the Codex CLI runs against a scripted upstream; no model answers");
        Ok(Self { upstream, _home: home })
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    transport::bind(address).map_err(|cause| StartError::Listen { address, cause })
}

/// What is around the routes of either door.
fn around(routes: Router) -> Router {
    routes
        .fallback(unknown)
        .layer(middleware::from_fn(catch_panic::catch))
        .layer(middleware::from_fn(access_log::log))
}

async fn unknown(request: Request) -> Response {
    if grpc::is_call(&request) {
        return grpc::unknown_method();
    }
    http::not_found(request.method(), request.uri())
}

/// Health follows readiness, until the drain.
async fn follow(service: &Service, health: &Health, shutdown: &Shutdown) {
    while shutdown.phase() == Phase::Serving {
        let status = service.get_status(Call::new(pb::GetStatusRequest {})).await;
        health.set(status.is_ok_and(|status| status.into_inner().ready)).await;
        tokio::select! {
            () = shutdown.draining() => {}
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
    health.set(false).await;
}
