//! Config: defaults < `.env` < environment < flags. Every mistake is reported at once; secrets do not print.
//! The only place that reads the process environment.

mod dotenv;
mod parse;
pub mod settings;
mod sources;

use std::{collections::BTreeMap, ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use self::sources::RawSettings;
use sha2::{Digest, Sha256};

/// Everything the operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    /// Both doors.
    pub doors: ServerConfig,
    /// Names of models.
    pub models: Models,
    /// How much and how long.
    pub limits: Limits,
    /// How Codex is driven.
    pub codex: Codex,
    /// The log.
    pub log: Log,
    /// Things to tell the operator once there is a log.
    pub warnings: Vec<String>,
}

/// What is about listening and connections.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where both doors listen.
    pub listen: SocketAddr,
    /// Where gRPC listens instead, if it has an address of its own.
    pub grpc_listen: Option<SocketAddr>,
    /// What callers must show.
    pub token: Option<Secret>,
    /// Host names that callers may use where no token is set; loopback names always may.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may call.
    pub cors_origins: Vec<String>,
    /// Silence after which a stream says that it is alive.
    pub sse_keepalive: Option<Duration>,
    /// Time for first bytes and headers.
    pub header_timeout: Duration,
    /// Longest pause within a request body.
    pub body_timeout: Duration,
    /// How long a client may read nothing.
    pub write_timeout: Duration,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Threads that serve connections and turns; by default half of the processors, one at least.
    pub threads: usize,
    /// How long running turns may go on when the server is told to stop.
    pub drain_grace: Duration,
}

/// Names of models.
#[derive(Debug, Clone)]
pub struct Models {
    /// For requests that name none.
    pub default: String,
    /// Requested name → real name.
    pub aliases: BTreeMap<String, String>,
    /// What is listed besides the aliases and their targets.
    pub advertised: Vec<String>,
    /// Effort of requests that name none.
    pub reasoning_effort: String,
    /// Summaries of thoughts for requests that do not name any, one of [`SUMMARIES`].
    pub reasoning_summary: String,
}

/// How much and how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// One request, queueing included.
    pub timeout: Duration,
    /// Turns that run at once; what suits the engine if absent.
    pub max_concurrency: Option<usize>,
    /// Turns that wait.
    pub max_queue: usize,
    /// Largest `n`.
    pub max_choices: u32,
    /// Longest prompt in characters.
    pub max_prompt_chars: usize,
    /// Most images of a request.
    pub max_images: usize,
    /// Largest image in bytes.
    pub max_image_bytes: usize,
}

/// How Codex is driven.
#[derive(Debug, Clone)]
pub struct Codex {
    /// Which engine runs turns.
    pub engine: EngineChoice,
    /// The warm processes of the app-server engine.
    pub workers: Workers,
    /// The executable; looked for on `PATH` when absent.
    pub bin: Option<PathBuf>,
    /// Folder that the agent works in.
    pub workspace: PathBuf,
    /// Further folders.
    pub add_dirs: Vec<PathBuf>,
    /// `HOME` of the CLI.
    pub cli_home: Option<PathBuf>,
    /// What the model is given besides the conversation (warm engine).
    pub profile: Profile,
    /// What the agent's commands may touch.
    pub sandbox: Sandbox,
    /// When the agent asks.
    pub approval_policy: String,
    /// Live web search.
    pub search: bool,
    /// Whether a workspace without git is fine.
    pub skip_git_repo_check: bool,
    /// `</answer>` is taken out.
    pub strip_answer_tags: bool,
    /// Longest line of the CLI in bytes.
    pub line_limit: usize,
    /// How often a failing upstream is asked again.
    pub upstream_retries: u32,
    /// Time between the request to stop and the kill.
    pub cancel_grace: Duration,
    /// The environment that the CLI gets: ours without our own settings, and what `.env` adds.
    pub env: BTreeMap<OsString, OsString>,
    /// Where files of turns live for as long as they run (`TMPDIR`).
    pub scratch: PathBuf,
    /// The scripted upstream, in `serve --demo` and in tests.
    pub scripted_upstream: Option<ScriptedUpstream>,
}

/// Which engine runs turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// app-server where the installed CLI can be trusted with it, exec elsewhere.
    Auto,
    /// A process for each turn.
    Exec,
    /// Warm processes.
    AppServer,
}

/// The warm processes of the app-server engine.
#[derive(Debug, Clone)]
pub struct Workers {
    /// How many.
    pub count: usize,
    /// A worker is replaced after so many turns.
    pub max_turns: u32,
    /// … or after so long.
    pub max_age: Duration,
    /// … or when it holds so much memory.
    pub max_memory_bytes: u64,
}

/// Where the CLI finds the scripted upstream instead of a model.
#[derive(Debug, Clone)]
pub struct ScriptedUpstream {
    /// `http://127.0.0.1:…/v1`
    pub base_url: String,
    /// A `CODEX_HOME` of its own, so that nobody's login or configuration is touched.
    pub codex_home: PathBuf,
}

/// The log.
#[derive(Debug, Clone)]
pub struct Log {
    /// `tracing` filter.
    pub filter: String,
    /// JSON lines instead of text.
    pub json: bool,
    /// Longest text of one line, in characters.
    pub max_chars: usize,
    /// Prompts and answers too.
    pub debug: bool,
}

/// What commands of the agent may touch, strictest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sandbox {
    /// Read everything, write nothing.
    #[default]
    ReadOnly,
    /// Write below the workspace.
    WorkspaceWrite,
    /// No sandbox.
    DangerFullAccess,
}

impl Sandbox {
    /// The CLI's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::WorkspaceWrite => "workspace-write",
            Self::DangerFullAccess => "danger-full-access",
        }
    }
}

/// What the model is given besides the conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// Codex as it is: its instructions, its tools, the workspace.
    #[default]
    Agent,
    /// Nothing: the model alone, with the client's tools.
    Chat,
}

impl Profile {
    /// The word for it in settings and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Chat => "chat",
        }
    }
}

impl Models {
    /// The name and the profile that are asked for together: `gpt-5.5:chat`. None where the whole is an alias.
    pub fn with_profile<'a>(&self, asked: &'a str) -> Option<(&'a str, Profile)> {
        let (name, suffix) = asked.rsplit_once(':').filter(|_| !self.aliases.contains_key(asked))?;
        let known = [Profile::Agent, Profile::Chat];
        known.into_iter().find(|profile| profile.as_str() == suffix).map(|profile| (name, profile))
    }
}

/// A secret, kept as its hash: enough to compare, nothing to leak.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Hashes a secret.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// The hash, for a comparison in constant time.
    pub fn hash(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// All that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Where settings come from, before they are read: flags given by the command line, and the process.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Flags, by the setting's environment name.
    pub flags: BTreeMap<String, String>,
    /// The process environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Text of the `.env` file, if there is one.
    pub dotenv: Option<String>,
    /// The current directory.
    pub current_dir: PathBuf,
}

impl Sources {
    /// Reads the process environment and, unless switched off, `.env` in the current directory.
    pub fn of_process(flags: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let env: BTreeMap<_, _> = std::env::vars_os().collect();
        let off = env.get(&OsString::from(settings::NO_DOTENV));
        let off = off.is_some_and(|v| sources::truthy(&v.to_string_lossy()) == Some(true));
        let fail = |what: String| ConfigError(vec![what]);
        let current_dir = std::env::current_dir().map_err(|e| fail(format!("current directory: {e}")))?;
        let dotenv = match std::fs::read_to_string(current_dir.join(".env")) {
            _ if off => None,
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(fail(format!(".env: {e}"))),
        };
        Ok(Self { flags, env, dotenv, current_dir })
    }
}

impl Config {
    /// Merges the sources and checks every value; the error lists all mistakes.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let mut values = RawSettings::merge(sources);
        let config = Self {
            doors: parse::doors(&mut values),
            models: parse::models(&mut values),
            limits: parse::limits(&mut values),
            codex: parse::codex(&mut values),
            log: parse::log(&mut values),
            warnings: values.warnings(),
        };
        let public = !config.doors.listen.ip().is_loopback()
            || config.doors.grpc_listen.is_some_and(|a| !a.ip().is_loopback());
        if public && config.doors.token.is_none() {
            values.mistake(
                "CODEX_GATEWAY_TOKEN: required when listening on an address that is not loopback; \
                 set it, or listen on 127.0.0.1",
            );
        }
        if config.codex.engine == EngineChoice::Exec && config.codex.profile == Profile::Chat {
            values.mistake(
                "CODEX_PROFILE: chat needs the app-server engine, and CODEX_ENGINE=exec excludes it; \
                 set CODEX_ENGINE=app-server, or CODEX_PROFILE=agent",
            );
        }
        values.finish(config)
    }
}

/// How a model can be asked to tell its thoughts.
pub const SUMMARIES: [&str; 4] = ["auto", "concise", "detailed", "none"];

/// Whether a text can be a reasoning effort or a verbosity: a short lower-case word.
pub fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests;
