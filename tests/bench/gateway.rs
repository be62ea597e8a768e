//! A `codex-api` process: its home, settings, start and resource usage.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    BenchResult, http,
    process::{Cost, Memory, Program},
    tally::MODEL,
};

/// Maximum time for a server to become ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Parameters of a server.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) gateway: PathBuf,
    pub(crate) codex: PathBuf,
    pub(crate) engine: &'static str,
    /// The provider of the CLI. Without one, only the fake codex can answer.
    pub(crate) base_url: Option<String>,
    /// The base URL is that of the built-in provider, which can use a WebSocket.
    pub(crate) builtin: bool,
    pub(crate) settings: Vec<(String, String)>,
    /// Folder for homes and logs.
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
}

/// A ready server.
#[derive(Debug)]
pub(crate) struct Gateway {
    program: Program,
    pub(crate) address: SocketAddr,
    /// Time from its start to readiness.
    pub(crate) start: Duration,
}

impl Gateway {
    pub(crate) async fn start(setup: &Setup) -> BenchResult<Self> {
        let home = setup.folder.join(&setup.name);
        for folder in ["codex-home", "work", "tmp"] {
            fs::create_dir_all(home.join(folder))?;
        }
        fs::write(home.join("codex-home/config.toml"), config(setup))?;
        fs::write(
            home.join("codex-home/auth.json"),
            r#"{"auth_mode": "apikey", "OPENAI_API_KEY": "sk-bench"}"#,
        )?;
        let address = free_address()?;
        let env = env(setup, &home, address);
        let log = setup.folder.join(format!("{}.log", setup.name));
        let started = Instant::now();
        let program = Program::start(&setup.gateway, &["serve".into()], &env, &home.join("work"), &log)?;
        let mut gateway = Self { program, address, start: Duration::ZERO };
        tokio::select! {
            ready = gateway.ready(setup.engine) => ready.map_err(|error| format!("{}: {error}; see {}", setup.name, tail(&log)))?,
            () = tokio::time::sleep(START_LIMIT) => return Err(format!("{} is not ready: {}", setup.name, tail(&log)).into()),
        }
        gateway.start = started.elapsed();
        Ok(gateway)
    }

    async fn ready(&self, engine: &str) -> BenchResult<()> {
        loop {
            if let Ok(answer) = http::get(self.address, "/healthz").await
                && answer.status == 200
            {
                let health: serde_json::Value = serde_json::from_str(&answer.body)?;
                return if health["engine"] == engine {
                    Ok(())
                } else {
                    Err(format!("{engine} is configured, but {} runs", health["engine"]).into())
                };
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    }

    /// Returns the number of turns that hold a slot.
    pub(crate) async fn running(&self) -> BenchResult<u64> {
        let answer = http::get(self.address, "/healthz").await?;
        let health: serde_json::Value = serde_json::from_str(&answer.body)?;
        health["running"].as_u64().ok_or_else(|| "`/healthz` has no count of turns".into())
    }

    pub(crate) fn cost(&self) -> Cost {
        Cost::read_tree(self.program.pid)
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::read(self.program.pid)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid
    }

    pub(crate) async fn end(mut self) -> BenchResult<()> {
        self.program.end().await
    }
}

fn config(setup: &Setup) -> String {
    let Some(base_url) = &setup.base_url else { return String::new() };
    if setup.builtin {
        return format!("model = \"{MODEL}\"\nopenai_base_url = \"{base_url}\"\n");
    }
    format!(
        "model = \"{MODEL}\"\nmodel_provider = \"bench\"\n[model_providers.bench]\nname = \"bench\"\n\
         base_url = \"{base_url}\"\nwire_api = \"responses\"\nexperimental_bearer_token = \"bench\"\n"
    )
}

fn env(setup: &Setup, home: &Path, address: SocketAddr) -> BTreeMap<OsString, OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    let mut set = |name: &str, value: OsString| drop(env.insert(name.into(), value));
    set("PATH", path);
    set("HOME", home.into());
    set("CODEX_HOME", home.join("codex-home").into());
    set("TMPDIR", home.join("tmp").into());
    set("CODEX_NO_DOTENV", "1".into());
    set("CODEX_GATEWAY_PORT", address.port().to_string().into());
    set("CODEX_WORKSPACE", home.join("work").into());
    set("CODEX_BIN", setup.codex.clone().into());
    set("CODEX_ENGINE", setup.engine.into());
    set("CODEX_MODEL", MODEL.into());
    for (name, value) in &setup.settings {
        set(name, value.into());
    }
    env
}

/// Returns an address without a listener.
pub(crate) fn free_address() -> BenchResult<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Returns the end of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let is_relevant = |line: &&str| !line.contains("path=\"/healthz\"");
    let lines: Vec<&str> = text.lines().rev().filter(is_relevant).take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
