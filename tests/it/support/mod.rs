//! A server in this process, on a port of its own, over the fake codex or the real one; it asserts at its end that
//! nothing of it is left.

pub mod engines;
pub mod grpc;
pub mod http;
pub mod processes;
pub mod program;
pub mod staged;
pub mod wire;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use codex_api::{
    config::{Config, Sources},
    demo::Upstream,
    pb::{self, codex_service_client::CodexServiceClient},
    server::{Options, Server},
    shutdown::Shutdown,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Longer than anything here takes; what hangs fails.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until a condition holds; fails when it does not within [`SOON`].
#[macro_export]
macro_rules! eventually {
    ($what:literal, $condition:expr) => {{
        let waited = tokio::time::timeout($crate::support::SOON, async {
            let mut pause = std::time::Duration::from_millis(1);
            while !$condition {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_millis(50));
            }
        });
        assert!(waited.await.is_ok(), "it never became true that {}", $what);
    }};
}

/// Which codex a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codex {
    /// `tests/fake_codex`: the scenario is the model's name.
    Fake,
    /// The installed CLI against the scripted upstream: the scenario is a directive in the prompt.
    Real,
}

/// A running server.
pub struct TestApp {
    pub address: std::net::SocketAddr,
    pub grpc_address: std::net::SocketAddr,
    /// Folder of everything this server writes.
    pub home: TempDir,
    marker: String,
    shutdown: Shutdown,
    running: Option<JoinHandle<()>>,
    /// The scripted upstream, with the real CLI.
    pub upstream: Option<Upstream>,
}

impl TestApp {
    /// A server over the fake codex, with settings by their environment names.
    pub async fn fake(settings: &[(&str, &str)]) -> Self {
        Self::start(Codex::Fake, settings).await
    }

    /// A server over the real CLI and the scripted upstream.
    pub async fn real(settings: &[(&str, &str)]) -> Self {
        Self::start(Codex::Real, settings).await
    }

    /// A server over either.
    pub async fn start(codex: Codex, settings: &[(&str, &str)]) -> Self {
        let home = tempfile::Builder::new().prefix("codex-api-test-").tempdir().unwrap();
        let marker = format!("{}-{}", std::process::id(), home.path().file_name().unwrap().display());
        let mut config = config(codex, home.path(), &marker, settings);
        let upstream = match codex {
            Codex::Fake => None,
            Codex::Real => Some(Upstream::start().await.unwrap()),
        };
        config.codex.scripted_upstream =
            upstream.as_ref().map(|upstream| codex_api::config::ScriptedUpstream {
                base_url: upstream.base_url(),
                codex_home: home.path().join("codex-home"),
            });
        let options =
            Options { demo: false, foster: false, containment: Some(env!("CARGO_BIN_EXE_codex-api").into()) };
        let app = Server::start(config, options).await.unwrap();
        let (address, grpc_address) = (app.address().unwrap(), app.grpc_address().unwrap());
        let shutdown = Shutdown::default();
        let run = app.run(shutdown.clone());
        let running = tokio::spawn(async move { run.await.unwrap() });
        Self { address, grpc_address, home, marker, shutdown, running: Some(running), upstream }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A gRPC client on a connection of its own.
    pub async fn grpc(&self) -> CodexServiceClient<Channel> {
        CodexServiceClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc_address)).unwrap().connect().await.unwrap()
    }

    /// Processes that this server has started and that are alive, warm workers too.
    pub fn processes(&self) -> Vec<String> {
        processes::marked(&self.marker)
    }

    /// Files of turns that are there. The folder with the lock of the CLI's sandbox is not one of a turn: there is one
    /// for each user of the machine, and it stays.
    pub fn scratch_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home.path().join("scratch")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| !path.to_string_lossy().contains("/codex-bwrap-synthetic-mount-targets-"))
            .collect()
    }

    pub async fn status(&self) -> pb::GetStatusResponse {
        self.grpc().await.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner()
    }

    /// Tells the server to drain, without waiting.
    pub fn begin_drain(&self) {
        self.shutdown.begin_drain();
    }

    /// Waits for the end of a server that was told to drain, and asserts that nothing is left.
    pub async fn stopped(mut self) {
        let running = self.running.take().unwrap();
        tokio::time::timeout(SOON, running).await.expect("the server drains").unwrap();
        assert_eq!(self.processes(), Vec::<String>::new(), "processes are left");
        assert_eq!(self.scratch_files(), Vec::<PathBuf>::new(), "files are left");
    }

    /// Drains and asserts that nothing is left. Every test ends with it.
    pub async fn stop(self) {
        self.begin_drain();
        self.stopped().await;
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if self.running.is_some() && !std::thread::panicking() {
            panic!("a test must end with `stop` or `stopped`, which look for what is left");
        }
    }
}

/// The configuration of a test: nothing of the machine's but `PATH`.
pub fn config(codex: Codex, home: &Path, marker: &str, settings: &[(&str, &str)]) -> Config {
    for folder in ["scratch", "work", "codex-home"] {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    let mut set = |name: &str, value: OsString| drop(env.insert(name.into(), value));
    set("PATH", std::env::var_os("PATH").unwrap());
    set("HOME", home.into());
    set("CODEX_HOME", home.join("codex-home").into());
    set("TMPDIR", home.join("scratch").into());
    set(processes::MARKER, marker.into());
    set("CODEX_GATEWAY_PORT", "0".into());
    set("CODEX_WORKSPACE", home.join("work").into());
    set("CODEX_CANCEL_GRACE_SECONDS", "0.5".into());
    set("CODEX_BIN", executable(codex).into());
    // The same tests run over both engines, one after the other: see scripts/test.sh.
    set("CODEX_ENGINE", engines::engine().name().into());
    for (name, value) in settings {
        set(name, value.into());
    }
    Config::load(Sources { env, current_dir: home.join("work"), ..Sources::default() }).unwrap()
}

/// Where a codex is.
pub fn executable(codex: Codex) -> PathBuf {
    match codex {
        Codex::Fake => example("fake-codex"),
        Codex::Real => std::env::var_os("CODEX_BIN").map(PathBuf::from).expect(
            "the tests through the real CLI need CODEX_BIN: run ./scripts/test.sh, which installs it",
        ),
    }
}

/// A program of ours for tests.
pub fn example(name: &str) -> PathBuf {
    // `cargo test` builds examples beside the test binaries' folder.
    let target = Path::new(env!("CARGO_BIN_EXE_codex-api")).parent().unwrap();
    let program = target.join("examples").join(name);
    assert!(program.exists(), "{name} is not built: run `cargo test`, or `cargo build --examples` first");
    program
}

/// A request of one user message.
pub fn ask(model: &str, text: &str) -> pb::ChatRequest {
    let part = pb::ContentPart { part: Some(pb::content_part::Part::Text(text.into())) };
    let message = pb::Message { role: pb::Role::User.into(), parts: vec![part], ..Default::default() };
    pb::ChatRequest { model: model.into(), messages: vec![message], ..Default::default() }
}
