//! The configuration: defaults, overridden by `.env`, the environment and flags, in this order. All errors are
//! reported at once, and secrets are never printed. The only room that reads the process environment.

mod dotenv;
mod exposure;
mod kinds;
mod parse;
pub mod settings;
mod sources;

use std::{collections::BTreeMap, ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use self::sources::RawSettings;
use sha2::{Digest, Sha256};

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Listeners and connections of both doors.
    pub server: ServerConfig,
    /// Models and defaults of reasoning.
    pub models: Models,
    /// Limits of requests.
    pub limits: Limits,
    /// The Codex CLI and its engines.
    pub codex: Codex,
    /// Options of the log.
    pub log: Log,
    /// Warnings for the log.
    pub warnings: Vec<String>,
}

/// Listeners and connections.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address of both doors.
    pub listen: SocketAddr,
    /// Separate address of the gRPC door.
    pub grpc_listen: Option<SocketAddr>,
    /// Token that callers must send.
    pub token: Option<Secret>,
    /// Host names that callers may use without a token, besides loopback names.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may call.
    pub cors_origins: Vec<String>,
    /// Interval of keep-alives in a silent stream.
    pub sse_keepalive: Option<Duration>,
    /// Form of keep-alives, unless the request selects another.
    pub sse_keepalive_form: KeepAliveForm,
    /// Silence after which a stream of the gRPC door has a heartbeat event.
    pub stream_heartbeat: Option<Duration>,
    /// Interval of white space before an answer in JSON that is not streamed.
    pub json_keepalive: Option<Duration>,
    /// Time limit for first bytes and headers.
    pub header_timeout: Duration,
    /// Maximum time without a request on a connection.
    pub idle_timeout: Duration,
    /// Maximum age of a connection.
    pub connection_age: Option<ConnectionAge>,
    /// Time limit of a request, the same as [`Limits::timeout`]. It begins with the head.
    pub request_timeout: Duration,
    /// Maximum pause within a request body.
    pub body_timeout: Duration,
    /// Maximum time in which the client reads nothing.
    pub write_timeout: Duration,
    /// Maximum size of a request body.
    pub max_body_bytes: usize,
    /// Maximum size of all bodies whose content is in memory.
    pub max_body_bytes_total: usize,
    /// Limits of the lists of a body, which are counted while it is read.
    pub lists: ListLimits,
    /// Maximum number of open connections.
    pub max_connections: usize,
    /// Maximum number of open connections of one peer.
    pub max_connections_per_peer: usize,
    /// Maximum number of requests per second of one address; zero for no limit.
    pub max_request_rate: u32,
    /// Number of runtime threads. Defaults to half of the processors, at least one.
    pub threads: usize,
    /// Time that running turns get to finish from the end of `Serving`, including the lame duck.
    pub drain_grace: Duration,
    /// Time after SIGTERM in which the server is not ready but serves.
    pub lame_duck: Duration,
}

impl ServerConfig {
    /// Returns `true` if a listener has another address than loopback.
    pub fn is_public(&self) -> bool {
        let addresses = [Some(self.listen), self.grpc_listen];
        addresses.into_iter().flatten().any(|address| !address.ip().is_loopback())
    }
}

/// Form of keep-alives in a stream of server-sent events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAliveForm {
    /// A comment, which clients of server-sent events skip.
    Comment,
    /// A chunk with an empty delta, for clients that parse every line as JSON.
    Chunk,
}

impl KeepAliveForm {
    /// Returns the form of a word of the setting.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "comment" => Some(Self::Comment),
            "chunk" => Some(Self::Chunk),
            _ => None,
        }
    }
}

/// Maximum age of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionAge {
    /// The age.
    pub max: Duration,
    /// Time that running requests get to finish. Zero for no limit.
    pub grace: Duration,
    /// Random deviation of the age, from 0 to 1.
    pub jitter: f64,
}

/// Limits of the lists of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLimits {
    /// Maximum number of messages, of their parts, and of their tool calls.
    pub messages: usize,
    /// Maximum number of tools.
    pub tools: usize,
}

/// Models and defaults of reasoning.
#[derive(Debug, Clone)]
pub struct Models {
    /// Model of requests without one.
    pub default: String,
    /// Whether the operator chose the default.
    pub default_is_configured: bool,
    /// Real name by requested name. [`CATCH_ALL`] stands for every unknown name.
    pub aliases: BTreeMap<String, String>,
    /// Profile by requested name, for aliases whose target has a suffix, such as `gpt-5.5:chat`.
    pub alias_profiles: BTreeMap<String, Profile>,
    /// Listed models besides the aliases and their targets.
    pub advertised: Vec<String>,
    /// Reasoning effort of requests without one.
    pub reasoning_effort: String,
    /// Reasoning summary of requests without one, one of [`SUMMARIES`].
    pub reasoning_summary: String,
}

/// Limits of requests.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time limit of a request, including its time in the queue.
    pub timeout: Duration,
    /// Maximum number of running turns. `None` selects the default of the engine.
    pub max_concurrency: Option<usize>,
    /// Maximum number of waiting turns.
    pub max_queue: usize,
    /// Maximum `n`.
    pub max_choices: u32,
    /// Maximum length of messages, tool calls, tools and schemas together, in characters.
    pub max_prompt_chars: usize,
    /// Limits of the lists of a request.
    pub lists: ListLimits,
    /// Maximum number of images per request.
    pub max_images: usize,
    /// Maximum image size in bytes.
    pub max_image_bytes: usize,
    /// Maximum width times height of an image. All images together may have twice as many pixels.
    pub max_image_pixels: u64,
}

/// The Codex CLI and its engines.
#[derive(Debug, Clone)]
pub struct Codex {
    /// The configured engine.
    pub engine: EngineChoice,
    /// Workers of the app-server engine.
    pub workers: Workers,
    /// Threads that are kept between turns.
    pub kept_threads: KeptThreads,
    /// The executable. `None` selects `codex` on `PATH`.
    pub bin: Option<PathBuf>,
    /// Working folder of the agent.
    pub workspace: PathBuf,
    /// Additional writable folders.
    pub add_dirs: Vec<PathBuf>,
    /// `HOME` of the CLI.
    pub cli_home: Option<PathBuf>,
    /// The default profile.
    pub profile: Profile,
    /// Sandbox of the agent's commands.
    pub sandbox: Sandbox,
    /// Approval policy of the agent.
    pub approval_policy: String,
    /// Whether live web search is enabled.
    pub search: bool,
    /// Whether the agent may use the apps (connectors) of the server's ChatGPT account.
    pub apps: bool,
    /// Whether the workspace may be outside of a git repository.
    pub skip_git_repo_check: bool,
    /// Whether `</answer>` is removed from answers.
    pub strip_answer_tags: bool,
    /// Maximum length of an output line of the CLI in bytes.
    pub line_limit: usize,
    /// Maximum number of retries of a failing upstream.
    pub upstream_retries: u32,
    /// Transport to OpenAI and to the scripted upstream.
    pub upstream_transport: UpstreamTransport,
    /// Whether the CLI may read the trusted certificates the fast way.
    pub fast_tls_roots: bool,
    /// Whether the requests of a conversation have a stable prompt-cache key, if the CLI allows it.
    pub prompt_cache_keys: bool,
    /// Time between the request to stop and SIGKILL.
    pub cancel_grace: Duration,
    /// Environment of the CLI: the server's environment and `.env`, without the server's own settings.
    pub env: BTreeMap<OsString, OsString>,
    /// The `.env` file that each start reads, even if there is none. `None` if `.env` is not read.
    pub dotenv_file: Option<PathBuf>,
    /// Parent of temporary folders of turns (`TMPDIR`).
    pub scratch: PathBuf,
    /// The scripted upstream of `serve --demo` and of tests.
    pub scripted_upstream: Option<ScriptedUpstream>,
}

/// The configured engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// app-server if the installed CLI supports it, otherwise exec.
    Auto,
    /// One process per turn.
    Exec,
    /// Warm processes.
    AppServer,
}

/// Transport to OpenAI and to the scripted upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamTransport {
    /// HTTPS with server-sent events.
    Https,
    /// A WebSocket. Codex falls back to HTTPS if the network refuses it.
    WebSocket,
    /// A WebSocket for turns with several model calls, otherwise HTTPS.
    Auto,
}

/// Workers of the app-server engine.
#[derive(Debug, Clone)]
pub struct Workers {
    /// Number of workers.
    pub count: usize,
    /// Maximum number of turns before a worker is replaced.
    pub max_turns: u32,
    /// Maximum age before a worker is replaced.
    pub max_age: Duration,
    /// Maximum memory before a worker is replaced.
    pub max_memory_bytes: u64,
}

/// Threads that are kept for the next turn of their conversation.
#[derive(Debug, Clone)]
pub struct KeptThreads {
    /// Maximum number per worker. 0 keeps none.
    pub max_per_worker: usize,
    /// Maximum estimated memory per worker in bytes.
    pub max_bytes: usize,
    /// Maximum time between two turns.
    pub idle: Duration,
    /// Maximum time that a turn waits for the results of a client's calls.
    pub parked: Duration,
    /// Maximum age.
    pub max_age: Duration,
}

/// The scripted upstream that replaces the model.
#[derive(Debug, Clone)]
pub struct ScriptedUpstream {
    /// Base URL, `http://127.0.0.1:…/v1`.
    pub base_url: String,
    /// A separate `CODEX_HOME`, so that the user's login and configuration are not used.
    pub codex_home: PathBuf,
}

/// Options of the log.
#[derive(Debug, Clone)]
pub struct Log {
    /// Filter of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Whether lines are JSON instead of text.
    pub json: bool,
    /// Maximum length of a text in a line, in characters.
    pub max_chars: usize,
    /// Whether prompts and answers are logged.
    pub debug: bool,
}

/// Sandbox of the agent's commands, strictest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sandbox {
    /// Reads are allowed, writes and network are not.
    #[default]
    ReadOnly,
    /// Writes below the workspace are allowed.
    WorkspaceWrite,
    /// No sandbox.
    DangerFullAccess,
}

impl Sandbox {
    /// Returns the name in the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::WorkspaceWrite => "workspace-write",
            Self::DangerFullAccess => "danger-full-access",
        }
    }
}

/// Whether a turn has Codex's instructions, tools and workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// Instructions, tools and workspace of Codex.
    #[default]
    Agent,
    /// The model alone, with the client's tools.
    Chat,
}

impl Profile {
    /// Returns the name in settings and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Chat => "chat",
        }
    }

    /// Splits the suffix of a name that selects a profile. Returns `None` if there is none.
    fn split_suffix(name: &str) -> Option<(&str, Self)> {
        let (name, suffix) = name.rsplit_once(':')?;
        [Self::Agent, Self::Chat]
            .into_iter()
            .find(|profile| profile.as_str() == suffix)
            .map(|found| (name, found))
    }
}

impl Models {
    /// Returns `true` if the real name of `requested` depends on the models that the CLI knows.
    pub fn depends_on_catalog(&self, requested: &str) -> bool {
        if self.aliases.contains_key(CATCH_ALL) {
            return true;
        }
        let name = self.with_profile(requested).map_or(requested, |(name, _)| name);
        let name = self.aliases.get(name).map_or(name, String::as_str);
        !self.default_is_configured && (name.is_empty() || name == self.default)
    }

    /// Splits a name with a profile suffix, such as `gpt-5.5:chat`. Returns `None` if there is no suffix or if the
    /// whole name is an alias.
    pub fn with_profile<'a>(&self, requested: &'a str) -> Option<(&'a str, Profile)> {
        if self.aliases.contains_key(requested) { None } else { Profile::split_suffix(requested) }
    }
}

/// The hash of a secret, which suffices for a comparison and cannot leak the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Hashes a secret.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Returns the hash, for a comparison in constant time.
    pub fn hash(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The errors of a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// The sources of settings, unparsed.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Flags, by the environment name of their setting.
    pub flags: BTreeMap<String, String>,
    /// The process environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Text of the `.env` file, if there is one.
    pub dotenv: Option<String>,
    /// The path of the `.env` file, even if there is none. `None` if `.env` is not read.
    pub dotenv_file: Option<PathBuf>,
    /// The current directory.
    pub current_dir: PathBuf,
}

impl Sources {
    /// Reads the process environment and, unless disabled, `.env` in the current directory.
    pub fn from_process(flags: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let env: BTreeMap<_, _> = std::env::vars_os().collect();
        let disabled = env.get(&OsString::from(settings::NO_DOTENV));
        let disabled = disabled.is_some_and(|v| kinds::parse_switch(&v.to_string_lossy()) == Some(true));
        let fail = |message: String| ConfigError(vec![message]);
        let current_dir = std::env::current_dir().map_err(|e| fail(format!("current directory: {e}")))?;
        let dotenv_file = (!disabled).then(|| current_dir.join(".env"));
        let dotenv = match dotenv_file.as_ref().map(std::fs::read_to_string) {
            None => None,
            Some(Ok(text)) => Some(text),
            Some(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => None,
            Some(Err(e)) => return Err(fail(format!(".env: {e}"))),
        };
        Ok(Self { flags, env, dotenv, dotenv_file, current_dir })
    }
}

impl Config {
    /// Merges the sources and parses every setting. The error lists all problems.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let mut values = RawSettings::merge(sources);
        let limits = parse::limits(&mut values);
        let config = Self {
            server: parse::server(&mut values, limits.timeout),
            models: parse::models(&mut values),
            limits,
            codex: parse::codex(&mut values),
            log: parse::log(&mut values),
            warnings: values.warnings(),
        };
        if config.server.is_public() && config.server.token.is_none() {
            values.push_error(
                "CODEX_GATEWAY_TOKEN: required when listening on an address that is not loopback; \
                 set it, or listen on 127.0.0.1",
            );
        }
        if config.codex.engine == EngineChoice::Exec && config.codex.profile == Profile::Chat {
            values.push_error(
                "CODEX_PROFILE: chat needs the app-server engine, and CODEX_ENGINE=exec excludes it; \
                 set CODEX_ENGINE=app-server, or CODEX_PROFILE=agent",
            );
        }
        for (alias, profile) in &config.models.alias_profiles {
            let problem = match profile {
                Profile::Chat if config.codex.engine == EngineChoice::Exec => {
                    "needs the app-server engine, and CODEX_ENGINE=exec excludes it"
                }
                Profile::Agent if config.codex.profile == Profile::Chat => {
                    "is not allowed by CODEX_PROFILE=chat"
                }
                Profile::Agent | Profile::Chat => continue,
            };
            let suffix = profile.as_str();
            values.push_error(&format!("CODEX_MODEL_ALIASES: the suffix :{suffix} of {alias:?} {problem}"));
        }
        values.finish(config)
    }
}

/// The alias of every name that neither the configuration nor the CLI knows.
pub const CATCH_ALL: &str = "*";

/// Values for reasoning summaries.
pub const SUMMARIES: [&str; 4] = ["auto", "concise", "detailed", "none"];

/// Returns `true` for a short lower-case word, which can be a reasoning effort.
pub fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests;
