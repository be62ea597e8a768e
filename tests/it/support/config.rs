//! The configuration of a test server.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt::Display,
    path::Path,
};

use codex_api::{
    config::{Config, Sources},
    demo::Transport,
};

use super::{Codex, Engine, UpstreamAs, WebSocketLimit, executable, login, processes, upstream};

/// Settings of a test server, by typed setters or by names of environment variables. Only `PATH` is taken from the
/// environment of the machine.
#[derive(Debug, Clone)]
pub struct AppConfig {
    pub codex: Codex,
    pub engine: Engine,
    pub upstream_as: UpstreamAs,
    /// The transport that the requests must have, if the test did not select its own.
    pub expected_transport: Option<Transport>,
    env: Vec<(String, OsString)>,
}

macro_rules! setters {
    ($($setter:ident($type:ty) = $name:literal;)*) => {
        $(pub fn $setter(self, value: $type) -> Self {
            self.display($name, value)
        })*
    };
}

impl AppConfig {
    /// Configures a server over the fake codex.
    pub fn fake(engine: Engine) -> Self {
        Self::new(Codex::Fake, engine)
    }

    /// Configures a server over the real CLI and the scripted upstream.
    pub fn real(engine: Engine) -> Self {
        Self::new(Codex::Real, engine)
    }

    pub fn new(codex: Codex, engine: Engine) -> Self {
        let config = Self {
            codex,
            engine,
            upstream_as: UpstreamAs::default(),
            expected_transport: None,
            env: Vec::new(),
        };
        match (codex, upstream::selected()) {
            // The fake has no forks, so a probe of them would only take time.
            (Codex::Fake, _) => config.env("CODEX_PROMPT_CACHE_KEYS", "off"),
            (Codex::Real, (_, None)) => config,
            (Codex::Real, (upstream_as, Some(transport))) => Self {
                expected_transport: Some(transport),
                ..config.upstream_as(upstream_as).upstream_transport(transport)
            },
        }
    }

    /// Sets how the real CLI reaches the scripted upstream, also against `CODEX_TEST_UPSTREAM`.
    pub fn upstream_as(self, upstream_as: UpstreamAs) -> Self {
        let env = self.env.into_iter().filter(|(name, _)| name != "CODEX_UPSTREAM_TRANSPORT").collect();
        Self { upstream_as, expected_transport: None, env, ..self }
    }

    /// Leaves the server on HTTP if `CODEX_TEST_UPSTREAM` selects the WebSocket.
    pub fn without_websocket(self, _limit: WebSocketLimit) -> Self {
        match self.expected_transport {
            Some(_) => {
                Self { expected_transport: Some(Transport::Http), ..self.upstream_transport(Transport::Http) }
            }
            None => self,
        }
    }

    /// Sets the transport to the upstream.
    pub fn upstream_transport(self, transport: Transport) -> Self {
        let setting = match transport {
            Transport::Http => "https",
            Transport::WebSocket => "websocket",
        };
        self.env("CODEX_UPSTREAM_TRANSPORT", setting)
    }

    setters! {
        max_concurrency(u32) = "CODEX_MAX_CONCURRENCY";
        max_queue(u32) = "CODEX_MAX_QUEUE";
        max_prompt_chars(u64) = "CODEX_MAX_PROMPT_CHARS";
        workers(u32) = "CODEX_WORKERS";
        upstream_retries(u32) = "CODEX_UPSTREAM_RETRIES";
        cancel_grace_seconds(f64) = "CODEX_CANCEL_GRACE_SECONDS";
        drain_seconds(f64) = "CODEX_DRAIN_SECONDS";
        timeout_seconds(f64) = "CODEX_TIMEOUT_SECONDS";
        write_timeout_seconds(f64) = "CODEX_WRITE_TIMEOUT_SECONDS";
        profile(&str) = "CODEX_PROFILE";
        sandbox(&str) = "CODEX_SANDBOX";
        token(&str) = "CODEX_GATEWAY_TOKEN";
    }

    /// Sets the program that the server runs as the CLI.
    pub fn codex_bin(self, program: impl AsRef<OsStr>) -> Self {
        self.env("CODEX_BIN", program)
    }

    /// Sets `CODEX_ENGINE=auto`.
    pub fn automatic_engine(self) -> Self {
        self.env("CODEX_ENGINE", "auto")
    }

    /// Sets a variable of the server's environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets several variables of the server's environment.
    pub fn envs(self, settings: &[(&str, &str)]) -> Self {
        settings.iter().fold(self, |config, (name, value)| config.env(name, value))
    }

    fn display(self, name: &str, value: impl Display) -> Self {
        self.env(name, value.to_string())
    }

    /// Loads the configuration of a server that writes below `home` and whose processes inherit the marker.
    pub fn load(&self, home: &Path, marker: &str) -> Config {
        for folder in ["scratch", "work", "codex-home"] {
            std::fs::create_dir_all(home.join(folder)).unwrap();
        }
        if self.codex == Codex::Fake {
            login::write(&home.join("codex-home"), &login::key("sk-fake"));
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
        set("CODEX_LAME_DUCK_SECONDS", "0".into());
        set("CODEX_BIN", executable(self.codex).into());
        set("CODEX_ENGINE", self.engine.name().into());
        for (name, value) in &self.env {
            set(name, value.clone());
        }
        Config::load(Sources { env, current_dir: home.join("work"), ..Sources::default() }).unwrap()
    }
}
