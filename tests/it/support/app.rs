//! A server in the process of the tests, on its own port.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, resume_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use codex_api::{
    demo::{Transport, Upstream},
    pb::{self, codex_service_client::CodexServiceClient},
    server::{Options, Server},
    shutdown::Shutdown,
};
use futures_util::FutureExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{AppConfig, Codex, Engine, TIMEOUT, UpstreamAs, WebSocketLimit, processes};
use crate::eventually;

/// Time for the drain after a failed scenario. Afterwards the remaining processes are killed.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a scenario against its own server. Asserts at the end that no turn runs or waits, and after the drain that no
/// process and no file is left. If the scenario panics, prints the log, stops the server and resumes the panic.
pub async fn with_app<T>(config: AppConfig, scenario: impl AsyncFnOnce(&TestApp) -> T) -> T {
    let log = Log::default();
    let _logging = log.capture();
    let app = TestApp::start(&config).await;
    let checked = async {
        let outcome = Box::pin(scenario(&app)).await;
        app.assert_slots_are_free().await;
        app.assert_transport_was_used();
        app.stop().await;
        outcome
    };
    match AssertUnwindSafe(Box::pin(checked)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => {
            eprintln!("log of the server:\n{}", log.text());
            app.kill().await;
            resume_unwind(panic)
        }
    }
}

/// The log of the servers on this thread. The runtime of a test logs on no other thread.
#[derive(Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let writer = Arc::clone(&self.0);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || Writer(Arc::clone(&writer)));
        tracing::subscriber::set_default(subscriber.finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A running server. [`with_app`] starts and stops it.
pub struct TestApp {
    pub address: std::net::SocketAddr,
    pub grpc_address: std::net::SocketAddr,
    pub engine: Engine,
    /// The folder of all files that this server writes.
    pub home: TempDir,
    marker: String,
    shutdown: Shutdown,
    draining: AtomicBool,
    running: Mutex<Option<JoinHandle<()>>>,
    upstream: Mutex<Option<Arc<Upstream>>>,
    /// The transport of the requests of a login that `CODEX_TEST_UPSTREAM` has selected.
    expected_transport: Option<Transport>,
    turn_folders: processes::TurnFolders,
}

impl TestApp {
    async fn start(config: &AppConfig) -> Self {
        let home = tempfile::Builder::new().prefix("codex-api-test-").tempdir().unwrap();
        let marker = format!("{}-{}", std::process::id(), home.path().file_name().unwrap().display());
        let upstream = match config.codex {
            Codex::Fake => None,
            Codex::Real => Some(Arc::new(Upstream::start().await.unwrap())),
        };
        let (engine, upstream_as, expected_transport) =
            (config.engine, config.upstream_as, config.expected_transport);
        let mut config = config.load(home.path(), &marker);
        let codex_home = home.path().join("codex-home");
        if let Some(upstream) = &upstream {
            let base_url = upstream.base_url();
            upstream_as.write_home(&codex_home, &base_url);
            config.codex.scripted_upstream = (upstream_as == UpstreamAs::Provider)
                .then_some(codex_api::config::ScriptedUpstream { base_url, codex_home });
        }
        let options = Options {
            demo: false,
            reap_orphans: false,
            supervisor: Some(env!("CARGO_BIN_EXE_codex-api").into()),
        };
        let app = Server::start(config, options).await.unwrap();
        let (address, grpc_address) = (app.address().unwrap(), app.grpc_address().unwrap());
        let shutdown = Shutdown::default();
        let run = app.run(shutdown.clone());
        let running = Mutex::new(Some(tokio::spawn(async move { run.await.unwrap() })));
        let (draining, upstream) = (AtomicBool::new(false), Mutex::new(upstream));
        Self {
            address,
            grpc_address,
            engine,
            home,
            marker,
            shutdown,
            draining,
            running,
            upstream,
            expected_transport,
            turn_folders: processes::TurnFolders::default(),
        }
    }

    /// Returns the scripted upstream of the real CLI.
    pub fn upstream(&self) -> Arc<Upstream> {
        self.upstream.lock().unwrap().clone().expect("the real CLI has a scripted upstream")
    }

    /// Closes the scripted upstream. The next connection of the CLI is refused.
    pub fn close_upstream(&self) {
        drop(self.upstream.lock().unwrap().take());
    }

    /// Returns the echo of the fake codex for a single user message.
    pub fn echo(&self, text: &str) -> String {
        self.engine.echo(text)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Opens a connection and returns a gRPC client for it.
    pub async fn grpc(&self) -> CodexServiceClient<Channel> {
        CodexServiceClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc_address)).unwrap().connect().await.unwrap()
    }

    /// Returns the command lines of the running processes of this server, including workers.
    pub fn processes(&self) -> Vec<String> {
        processes::with_marker(&self.marker)
    }

    /// Returns the files of turns, also those in memory, without the lock folder of the CLI's sandbox. The CLI keeps one lock folder per user of
    /// the machine.
    pub fn scratch_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home.path().join("scratch")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let on_disk =
            paths.filter(|path| !path.to_string_lossy().contains("/codex-bwrap-synthetic-mount-targets-"));
        let in_memory = self.turn_folders.existing(&self.processes());
        let all: BTreeSet<PathBuf> = on_disk.chain(in_memory).collect();
        all.into_iter().collect()
    }

    pub async fn status(&self) -> pb::GetStatusResponse {
        self.grpc().await.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner()
    }

    /// Starts the drain without waiting for its end.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.shutdown.begin_drain();
    }

    /// Waits for the end of a running drain and asserts that no process and no file is left.
    pub async fn wait_until_stopped(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some(running) = running {
            tokio::time::timeout(TIMEOUT, running).await.expect("the server drains").unwrap();
        }
        assert_eq!(self.processes(), Vec::<String>::new(), "processes are left");
        assert_eq!(self.scratch_files(), Vec::<PathBuf>::new(), "files are left");
    }

    /// Drains the server and asserts that no process and no file is left.
    pub async fn stop(&self) {
        self.begin_drain();
        self.wait_until_stopped().await;
    }

    /// Waits until no turn runs or waits. A drained server passes.
    async fn assert_slots_are_free(&self) {
        eventually!("every slot is free", {
            // `/healthz` needs no token. If the scenario has drained the server, the port is closed.
            match reqwest::get(self.url("/healthz")).await {
                Ok(response) => {
                    let health: Value = response.json().await.unwrap();
                    (&health["running"], &health["waiting"]) == (&0.into(), &0.into())
                }
                Err(_) => self.draining.load(Ordering::Relaxed),
            }
        });
    }

    /// Returns whether this holds for the server, which is so if `CODEX_TEST_UPSTREAM` selects the WebSocket.
    pub fn is_limited_by(&self, _limit: WebSocketLimit) -> bool {
        self.expected_transport == Some(Transport::WebSocket)
    }

    /// Asserts that the upstream got its requests with a login and over the transport of `CODEX_TEST_UPSTREAM`. A
    /// WebSocket that fails may lead to HTTP.
    fn assert_transport_was_used(&self) {
        let Some(expected) = self.expected_transport else { return };
        let Some(upstream) = self.upstream.lock().unwrap().clone() else { return };
        let requests = upstream.requests();
        let of_websocket = requests.iter().any(|request| request.transport == Transport::WebSocket);
        if !requests.is_empty() {
            assert_eq!(of_websocket, expected == Transport::WebSocket, "the WebSocket was used");
        }
        for request in requests {
            // A test may set another key.
            assert_ne!(request.headers["authorization"], "Bearer scripted");
        }
    }

    /// Drains the server within [`TEARDOWN_TIMEOUT`] and kills its remaining processes.
    async fn kill(&self) {
        self.begin_drain();
        let running = self.running.lock().unwrap().take();
        if let Some(mut running) = running
            && tokio::time::timeout(TEARDOWN_TIMEOUT, &mut running).await.is_err()
        {
            running.abort();
        }
        processes::kill_marked(&self.marker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn with_app_after_a_panic_kills_the_server_processes() {
        let marker = Mutex::new(String::new());
        let scenario = with_app(AppConfig::fake(Engine::AppServer), async |app| {
            app.marker.clone_into(&mut marker.lock().unwrap());
            eventually!("a worker runs", !app.workers().is_empty());
            panic!("this panic is a part of the test");
        });
        let outcome: Result<(), _> = AssertUnwindSafe(scenario).catch_unwind().await;
        assert!(outcome.is_err());
        let marker = marker.into_inner().unwrap();
        eventually!("no process is left", processes::with_marker(&marker).is_empty());
    }
}
