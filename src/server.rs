//! The composition root: builds engine, service, doors and listeners from the configuration, runs the server, and
//! drains it in order.

use std::{
    fs::Permissions,
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::Request, middleware, response::Response};
use futures_util::future::OptionFuture;
use tempfile::TempDir;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Request as Call;
use tower::util::MapRequest;

use super::{
    auth::Authenticator,
    config::{Config, ScriptedUpstream},
    context::body_budget::BodyBudget,
    demo::Upstream,
    engine::{
        Severity,
        cli::{environment, writable_roots},
        process::{Launcher, platform},
        selector,
    },
    error::Error,
    grpc::{self, Health},
    http,
    pb::{self, codex_service_server::CodexService},
    service::Service,
    shutdown::{Phase, Shutdown},
    transport,
    transport::{
        access_log,
        catch_panic::{self, ErrorRenderer},
        open_files,
    },
};

/// Pause between two updates of the gRPC health service.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// Time for the last bytes of completed responses to reach the clients at the end of the drain.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A server with open listeners.
#[derive(Debug)]
pub struct Server {
    config: Config,
    service: Arc<Service>,
    shared: TcpListener,
    grpc_only: Option<TcpListener>,
    demo: Option<Demo>,
}

/// The scripted upstream with the home of the CLI.
#[derive(Debug)]
struct Demo {
    _upstream: Upstream,
    _home: TempDir,
}

/// Options of a [`Server`] besides the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Answer from the scripted upstream.
    pub demo: bool,
    /// Reap orphans of killed supervisors. Only for a process whose children all belong to turns.
    pub reap_orphans: bool,
    /// The `codex-api` executable that supervises children. `None` selects this executable.
    pub supervisor: Option<PathBuf>,
}

/// The error of a server that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be opened.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        cause: io::Error,
    },
    /// A required resource cannot be created.
    #[error("{resource}: {cause}")]
    Prepare {
        /// The resource.
        resource: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The binary was built without the demo.
    #[error("--demo needs a binary that was built with the cargo feature `demo`")]
    NoDemo,
    /// Commands of the agent could replace what the server runs or reads.
    #[error("{finding}; {remedy}")]
    Unsafe {
        /// The finding.
        finding: String,
        /// The action for the operator.
        remedy: &'static str,
    },
    /// The configuration requires an engine that the installed CLI does not support.
    #[error("{0}")]
    Engine(#[from] selector::ChoiceError),
}

impl Server {
    /// Opens the listeners and probes the CLI. Succeeds without a CLI. Health reports the missing CLI until a CLI is installed.
    pub async fn start(mut config: Config, options: Options) -> Result<Self, StartError> {
        if options.demo && !cfg!(feature = "demo") {
            return Err(StartError::NoDemo);
        }
        let demo = if options.demo { Some(Demo::start(&mut config).await?) } else { None };
        let prepare = |resource| move |cause| StartError::Prepare { resource, cause };
        let supervisor = options.supervisor.unwrap_or_else(platform::own_executable);
        check_writable_folders(&config, &supervisor)?;
        environment::prepare(&config.codex).map_err(prepare("CODEX_CLI_HOME"))?;
        let listeners = 1 + usize::from(config.server.grpc_listen.is_some());
        let files = open_files::raise_limit(config.server.max_connections, listeners);
        if files.connections < config.server.max_connections {
            let (limit, connections) = (files.limit, files.connections);
            tracing::warn!(
                limit,
                connections,
                "the limit of open files allows fewer connections than CODEX_MAX_CONNECTIONS; raise `ulimit -n`"
            );
            let per_peer = &mut config.server.max_connections_per_peer;
            *per_peer = (*per_peer).min(connections - connections / 4);
            config.server.max_connections = connections;
        }
        let shared = bind(config.server.listen)?;
        let grpc_only = config.server.grpc_listen.map(bind).transpose()?;

        let mut launcher = Launcher::new(supervisor, config.codex.cancel_grace);
        if options.reap_orphans {
            launcher = launcher.with_orphan_reaper().map_err(prepare("orphan reaper"))?;
        }
        let engine = selector::choose(&config, launcher).await?;
        let status = engine.status().await;
        let service = Arc::new(Service::new(&config, engine));
        tracing::info!(
            listen = %shared.local_addr().unwrap_or(config.server.listen),
            grpc.listen = grpc_only.as_ref().and_then(|l| l.local_addr().ok()).map(tracing::field::display),
            engine.kind = status.kind,
            codex.version = status.version,
            demo = demo.is_some(),
            "codex-api is listening"
        );
        Ok(Self { config, service, shared, grpc_only, demo })
    }

    /// Returns the address of both doors, or of the HTTP door only if gRPC has its own address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.shared.local_addr()
    }

    /// Returns the address of the gRPC door.
    pub fn grpc_address(&self) -> io::Result<SocketAddr> {
        self.grpc_only.as_ref().unwrap_or(&self.shared).local_addr()
    }

    /// Serves until `shutdown` begins the drain, then drains.
    ///
    /// After SIGTERM the server first reports not ready and still serves for the lame-duck time. The drain refuses new connections and turns. Running turns may finish within their grace,
    /// then the rest is interrupted. The connections are closed at the end.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { config, service, shared, grpc_only, demo } = self;
        let authenticator = Arc::new(Authenticator::new(&config.server));
        let budget = BodyBudget::new(config.server.max_body_bytes_total, config.server.max_body_bytes);
        let http_routes =
            http::router(Arc::clone(&service), &config.server, Arc::clone(&authenticator), &budget);
        let (grpc_routes, health) =
            grpc::routes(Arc::clone(&service), &config.server, authenticator, &budget)?;
        let (shared_app, grpc_app) = match grpc_only {
            Some(_) => (apply_outer_layers(http_routes), apply_outer_layers(grpc_routes)),
            None => (apply_outer_layers(http_routes.merge(grpc_routes)), Router::new()),
        };
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let serve =
            |listener, app| transport::serve(listener, app, &config.server, drain.clone(), kill.clone());
        let serve_grpc = OptionFuture::from(grpc_only.map(|listener| serve(listener, grpc_app)));
        let serving = async { tokio::join!(serve(shared, shared_app), serve_grpc) };
        let stopping = async {
            shutdown.leaving().await;
            health.set(false);
            service.begin_lame_duck();
            let lame_duck = config.server.lame_duck.min(config.server.drain_grace);
            let left_at = Instant::now();
            tokio::select! {
                () = shutdown.draining() => {}
                () = tokio::time::sleep(lame_duck) => shutdown.begin_drain(),
            }
            let grace = config.server.drain_grace.saturating_sub(left_at.elapsed());
            service.begin_drain();
            drain.cancel();
            let kill_requested = shutdown.kill_token();
            tokio::select! {
                () = service.drain(grace) => {}
                () = kill_requested.cancelled() => service.drain(Duration::ZERO).await,
            }
        };
        let served = async {
            tokio::pin!(serving, stopping);
            tokio::select! {
                _ = &mut serving => stopping.await,
                () = &mut stopping => {
                    // Connections close by themselves after their responses, except for a health watch or an
                    // incomplete request head.
                    if tokio::time::timeout(FLUSH_TIMEOUT, &mut serving).await.is_err() {
                        kill.cancel();
                        serving.await;
                    }
                }
            }
        };
        tokio::join!(served, sync_health(&service, &health, &shutdown));
        drop(demo);
        shutdown.stop();
        Ok(())
    }
}

impl Demo {
    async fn start(config: &mut Config) -> Result<Self, StartError> {
        let prepare = |resource| move |cause| StartError::Prepare { resource, cause };
        let upstream = Upstream::start().await.map_err(prepare("scripted upstream"))?;
        let home = tempfile::Builder::new()
            .prefix("codex-api-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&config.codex.scratch);
        let home = home.map_err(prepare("home folder of the demo"))?;
        config.codex.scripted_upstream =
            Some(ScriptedUpstream { base_url: upstream.base_url(), codex_home: home.path().to_owned() });
        tracing::warn!("demo: a scripted upstream replaces the model");
        Ok(Self { _upstream: upstream, _home: home })
    }
}

/// Refuses what the doctor reports as a failure, and logs its warnings.
fn check_writable_folders(config: &Config, supervisor: &Path) -> Result<(), StartError> {
    for check in writable_roots::examine(&config.codex, supervisor) {
        match check.severity {
            Severity::Passed => {}
            Severity::Warning => {
                let (finding, remedy) = (check.finding, check.remedy);
                tracing::warn!(check = check.name, finding, remedy, "workspace or sandbox is risky");
            }
            Severity::Failed => {
                return Err(StartError::Unsafe { finding: check.finding, remedy: check.remedy });
            }
        }
    }
    Ok(())
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    transport::bind(address).map_err(|cause| StartError::Listen { address, cause })
}

/// Renders panics as errors of the HTTP door.
const RENDERER: ErrorRenderer = ErrorRenderer { response: http::refusal, event: http::refusal_event };

/// Adds the layers around the routes of either door.
fn apply_outer_layers(routes: Router) -> Router {
    let routes = routes
        .fallback(unknown_route)
        .layer(middleware::from_fn_with_state(RENDERER, catch_panic::catch))
        .layer(middleware::from_fn(access_log::log));
    // The layers of a router run after its routing, so the path is rewritten in front of a second router.
    Router::new().fallback_service(MapRequest::new(routes, http::normalize))
}

async fn unknown_route(request: Request) -> Response {
    if grpc::is_call(&request) {
        return grpc::unknown_method();
    }
    http::not_found(request.method(), request.uri())
}

/// Updates the health service until the drain.
async fn sync_health(service: &Service, health: &Health, shutdown: &Shutdown) {
    while shutdown.phase() == Phase::Serving {
        let status = service.get_status(Call::new(pb::GetStatusRequest {})).await;
        health.set(status.is_ok_and(|status| status.into_inner().ready));
        tokio::select! {
            () = shutdown.leaving() => {}
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
    health.set(false);
}
