//! Config: defaults < `.env` < environment < flags. Every mistake is reported at once; secrets do not print.
//! The only place that reads the process environment.

mod dotenv;
pub mod settings;
mod values;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use sha2::{Digest, Sha256};
use values::Values;

/// Everything the operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    /// Both doors.
    pub doors: Doors,
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
pub struct Doors {
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
}

/// How much and how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// One request, queueing included.
    pub timeout: Duration,
    /// Turns that run at once.
    pub max_concurrency: usize,
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
    /// The executable; looked for on `PATH` when absent.
    pub bin: Option<PathBuf>,
    /// Folder that the agent works in.
    pub workspace: PathBuf,
    /// Further folders.
    pub add_dirs: Vec<PathBuf>,
    /// `HOME` of the CLI.
    pub cli_home: Option<PathBuf>,
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
        let off = off.is_some_and(|v| values::truthy(&v.to_string_lossy()) == Some(true));
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
        let mut values = Values::merge(sources);
        let config = Self {
            doors: doors(&mut values),
            models: models(&mut values),
            limits: limits(&mut values),
            codex: codex(&mut values),
            log: log(&mut values),
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
        values.finish(config)
    }
}

fn doors(v: &mut Values) -> Doors {
    let host: IpAddr = match v.text("CODEX_GATEWAY_HOST").as_str() {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        text => v
            .parsed_text("CODEX_GATEWAY_HOST", text, "an IP address such as 127.0.0.1 or 0.0.0.0")
            .unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    let port = v.number("CODEX_GATEWAY_PORT", 0, 65535);
    let keepalive = v.number("CODEX_SSE_KEEPALIVE_SECONDS", 0, 3600);
    Doors {
        listen: SocketAddr::new(host, u16::try_from(port).unwrap_or_default()),
        grpc_listen: v.optional("CODEX_GRPC_LISTEN").and_then(|text| {
            let text = text.replace("localhost:", "127.0.0.1:");
            v.parsed_text("CODEX_GRPC_LISTEN", &text, "an address and port such as 127.0.0.1:50051")
        }),
        token: token(v),
        allowed_hosts: v.list("CODEX_ALLOWED_HOSTS"),
        cors_origins: v.list("CODEX_CORS_ORIGINS"),
        sse_keepalive: (keepalive > 0).then(|| Duration::from_secs(keepalive)),
        header_timeout: v.seconds("CODEX_HEADER_TIMEOUT_SECONDS", 1, 3600),
        body_timeout: v.seconds("CODEX_BODY_TIMEOUT_SECONDS", 1, 3600),
        write_timeout: v.seconds("CODEX_WRITE_TIMEOUT_SECONDS", 1, 3600),
        max_body_bytes: v.size("CODEX_MAX_BODY_BYTES", 1024, 1 << 30),
        max_connections: v.size("CODEX_MAX_CONNECTIONS", 1, 1_000_000),
        drain_grace: v.seconds("CODEX_DRAIN_SECONDS", 0, 86400),
    }
}

fn token(v: &mut Values) -> Option<Secret> {
    let text = v.optional("CODEX_GATEWAY_TOKEN")?;
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        v.mistake("CODEX_GATEWAY_TOKEN: must be printable ASCII without blanks, to fit into a header");
    }
    Some(Secret::new(&text))
}

fn models(v: &mut Values) -> Models {
    let default = v.text("CODEX_MODEL");
    let mut advertised = v.list("CODEX_ADVERTISED_MODELS");
    if advertised.is_empty() {
        advertised.push(default.clone());
    }
    let effort = v.text("CODEX_MODEL_REASONING_EFFORT");
    if !is_word(&effort) {
        v.mistake("CODEX_MODEL_REASONING_EFFORT: expected a word such as low, medium, high or xhigh");
    }
    let aliases = v.text("CODEX_MODEL_ALIASES");
    let aliases = serde_json::from_str(&aliases).unwrap_or_else(|e| {
        v.mistake(&format!(
            "CODEX_MODEL_ALIASES: expected a JSON object of texts such as {{\"gpt-4o\":\"gpt-5.5\"}}: {e}"
        ));
        BTreeMap::new()
    });
    Models { default, aliases, advertised, reasoning_effort: effort }
}

/// Whether a text can be a reasoning effort or a verbosity: a short lower-case word.
pub fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn limits(v: &mut Values) -> Limits {
    Limits {
        timeout: v.seconds("CODEX_TIMEOUT_SECONDS", 1, 7 * 86400),
        max_concurrency: v.size("CODEX_MAX_CONCURRENCY", 1, 10_000),
        max_queue: v.size("CODEX_MAX_QUEUE", 0, 100_000),
        max_choices: u32::try_from(v.number("CODEX_MAX_CHOICES", 1, 128)).unwrap_or(1),
        // The CLI itself refuses 1,048,577 characters.
        max_prompt_chars: v.size("CODEX_MAX_PROMPT_CHARS", 1, 1_048_576),
        max_images: v.size("CODEX_MAX_IMAGES", 0, 1000),
        max_image_bytes: v.size("CODEX_MAX_IMAGE_BYTES", 1, 1 << 30),
    }
}

fn codex(v: &mut Values) -> Codex {
    let sandbox = match v.text("CODEX_SANDBOX").as_str() {
        "read-only" => Sandbox::ReadOnly,
        "workspace-write" => Sandbox::WorkspaceWrite,
        "danger-full-access" => Sandbox::DangerFullAccess,
        other => {
            v.mistake(&format!(
                "CODEX_SANDBOX: {other:?} is not one of read-only, workspace-write, danger-full-access"
            ));
            Sandbox::ReadOnly
        }
    };
    let approval_policy = v.text("CODEX_APPROVAL_POLICY");
    if !["untrusted", "on-failure", "on-request", "never"].contains(&approval_policy.as_str()) {
        v.mistake(&format!(
            "CODEX_APPROVAL_POLICY: {approval_policy:?} is not one of untrusted, on-failure, on-request, never"
        ));
    }
    match v.text("CODEX_ENGINE").as_str() {
        "auto" | "exec" => {}
        "app-server" => v.mistake("CODEX_ENGINE: app-server is not built yet; use exec or auto"),
        other => v.mistake(&format!("CODEX_ENGINE: {other:?} is not one of auto, exec, app-server")),
    }
    Codex {
        bin: v.path("CODEX_BIN"),
        workspace: v.path("CODEX_WORKSPACE").unwrap_or_else(|| v.current_dir()),
        add_dirs: v.paths("CODEX_ADD_DIRS"),
        cli_home: v.path("CODEX_CLI_HOME"),
        sandbox,
        approval_policy,
        search: v.switch("CODEX_ENABLE_SEARCH"),
        skip_git_repo_check: v.switch("CODEX_SKIP_GIT_REPO_CHECK"),
        strip_answer_tags: v.switch("CODEX_STRIP_ANSWER_TAGS"),
        line_limit: v.size("CODEX_SUBPROCESS_STREAM_LIMIT", 1024, 1 << 30),
        upstream_retries: u32::try_from(v.number("CODEX_UPSTREAM_RETRIES", 0, 100)).unwrap_or(0),
        cancel_grace: v.seconds("CODEX_CANCEL_GRACE_SECONDS", 0, 60),
        scratch: v.child_env().get(&OsString::from("TMPDIR")).map_or_else(|| "/tmp".into(), PathBuf::from),
        env: v.child_env(),
        scripted_upstream: None,
    }
}

fn log(v: &mut Values) -> Log {
    let format = v.text("CODEX_LOG_FORMAT");
    if !["text", "json"].contains(&format.as_str()) {
        v.mistake(&format!("CODEX_LOG_FORMAT: {format:?} is not one of text, json"));
    }
    Log {
        filter: v.text("CODEX_LOG"),
        json: format == "json",
        max_chars: v.size("CODEX_LOG_MAX_CHARS", 80, 1 << 30),
        debug: v.switch("CODEX_DEBUG_LOG"),
    }
}

#[cfg(test)]
mod tests;
