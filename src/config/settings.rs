//! The table of all settings: names, kinds, defaults and help. Flags, `--help`, `docs/configuration.md` and
//! `.env.example` are generated from it or tested against it. Each setting is a constant, so that a misspelt name
//! does not compile.

use super::{
    SUMMARIES,
    kinds::{
        Key, List, Number, OneOf, OptionalPath, OptionalSize, OptionalText, Paths, Seconds, Size, Switch,
        Text,
    },
};

/// The description of one setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name in the environment and in `.env`.
    pub env: &'static str,
    /// Name of the flag, without dashes.
    pub flag: &'static str,
    /// Placeholder of the value in `--help`.
    pub value: &'static str,
    /// The default as text. Empty if there is none.
    pub default: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Heading in `--help`.
    pub group: &'static str,
}

impl Setting {
    /// Returns `true` for a switch. Its flag without a value means 1.
    pub fn is_switch(&self) -> bool {
        self.value == "0|1"
    }
}

/// Defines a constant for each setting, and [`SETTINGS`] with all of them in the order of `--help`.
macro_rules! settings {
    (@const $group:literal $key:ident $kind:ty, $make:expr, $env:literal $flag:literal $value:literal $default:literal $help:literal) => {
        pub(super) const $key: Key<$kind> = Key {
            setting: Setting {
                env: $env,
                flag: $flag,
                value: $value,
                default: $default,
                help: $help,
                group: $group,
            },
            kind: $make,
        };
    };
    ($(
        [$group:literal]
        $($key:ident: $kind:ty = $make:expr => {
            env: $env:literal, flag: $flag:literal, value: $value:literal, default: $default:literal,
            help: $help:literal,
        })*
    )*) => {
        $($(settings!(@const $group $key $kind, $make, $env $flag $value $default $help);)*)*
        /// Every setting, in the order of `--help`.
        pub const SETTINGS: &[Setting] = &[$($($key.setting),*),*];
    };
}

settings! {
    ["Listening"]
    GATEWAY_HOST: Text = Text => {
        env: "CODEX_GATEWAY_HOST", flag: "host", value: "ADDRESS", default: "127.0.0.1",
        help: "IP address of both doors; other addresses than loopback need CODEX_GATEWAY_TOKEN",
    }
    GATEWAY_PORT: Number = Number { min: 0, max: 65_535 } => {
        env: "CODEX_GATEWAY_PORT", flag: "port", value: "PORT", default: "8000",
        help: "Port of both doors; 0 selects a free port",
    }
    GRPC_LISTEN: OptionalText = OptionalText => {
        env: "CODEX_GRPC_LISTEN", flag: "grpc-listen", value: "ADDRESS:PORT", default: "",
        help: "Separate address of the gRPC door; when empty, gRPC shares the address above",
    }
    GATEWAY_TOKEN: OptionalText = OptionalText => {
        env: "CODEX_GATEWAY_TOKEN", flag: "gateway-token", value: "TOKEN", default: "",
        help: "Bearer token that callers must send; set it in the environment, because other users of the machine can read flags",
    }
    ALLOWED_HOSTS: List = List => {
        env: "CODEX_ALLOWED_HOSTS", flag: "allowed-hosts", value: "LIST", default: "",
        help: "Host names that callers may use besides loopback names if no token is set (comma-separated)",
    }
    CORS_ORIGINS: List = List => {
        env: "CODEX_CORS_ORIGINS", flag: "cors-origins", value: "LIST", default: "",
        help: "Web origins that may call from a browser (comma-separated; * for any); none when empty",
    }
    ["Models"]
    MODEL: Text = Text => {
        env: "CODEX_MODEL", flag: "model", value: "NAME", default: "gpt-5-codex",
        help: "Model of requests that name none; when not set, gpt-5-codex, which stands for the default model of the CLI if the CLI does not know it",
    }
    MODEL_ALIASES: Text = Text => {
        env: "CODEX_MODEL_ALIASES", flag: "model-aliases", value: "JSON", default: "{}",
        help: "Model aliases: a JSON object from requested name to real name; the name * stands for every unknown name; a real name may end with :chat or :agent",
    }
    ADVERTISED_MODELS: List = List => {
        env: "CODEX_ADVERTISED_MODELS", flag: "advertised-models", value: "LIST", default: "",
        help: "Models in /v1/models besides the aliases and their targets (comma-separated); when empty, CODEX_MODEL and the models of the CLI",
    }
    MODEL_REASONING_EFFORT: Text = Text => {
        env: "CODEX_MODEL_REASONING_EFFORT", flag: "model-reasoning-effort", value: "WORD", default: "high",
        help: "Default reasoning effort: minimal, low, medium, high, xhigh or a word that the model advertises",
    }
    MODEL_REASONING_SUMMARY: OneOf = OneOf(&SUMMARIES) => {
        env: "CODEX_MODEL_REASONING_SUMMARY", flag: "model-reasoning-summary", value: "WORD", default: "auto",
        help: "Default reasoning summary: auto, concise, detailed or none; some OpenAI accounts need verification for summaries, use none otherwise",
    }
    ["Agent"]
    PROFILE: OneOf = OneOf(&["agent", "chat"]) => {
        env: "CODEX_PROFILE", flag: "profile", value: "NAME", default: "agent",
        help: "Default profile: agent (Codex with its own tools) or chat (the model alone, with the client's tools); chat needs the app-server engine",
    }
    WORKSPACE: OptionalPath = OptionalPath => {
        env: "CODEX_WORKSPACE", flag: "workspace", value: "DIR", default: "",
        help: "Working folder of the agent; the current folder when empty; workspace-write needs a folder without .env, the CLI and this program",
    }
    ADD_DIRS: Paths = Paths => {
        env: "CODEX_ADD_DIRS", flag: "add-dirs", value: "LIST", default: "",
        help: "Additional folders that the agent may write to under workspace-write (comma-separated)",
    }
    SANDBOX: OneOf = OneOf(&["read-only", "workspace-write", "danger-full-access"]) => {
        env: "CODEX_SANDBOX", flag: "sandbox", value: "MODE", default: "read-only",
        help: "Sandbox of the agent's commands: read-only, workspace-write or danger-full-access",
    }
    APPROVAL_POLICY: OneOf = OneOf(&["untrusted", "on-failure", "on-request", "never"]) => {
        env: "CODEX_APPROVAL_POLICY", flag: "approval-policy", value: "POLICY", default: "never",
        help: "Approval policy: untrusted, on-failure, on-request or never; use never, because the server cannot answer approval prompts",
    }
    ENABLE_SEARCH: Switch = Switch => {
        env: "CODEX_ENABLE_SEARCH", flag: "enable-search", value: "0|1", default: "0",
        help: "Enable live web search for the agent",
    }
    ENABLE_APPS: Switch = Switch => {
        env: "CODEX_ENABLE_APPS", flag: "enable-apps", value: "0|1", default: "0",
        help: "Offer the apps of the server's ChatGPT account, such as mail, to the agent of every caller",
    }
    SKIP_GIT_REPO_CHECK: Switch = Switch => {
        env: "CODEX_SKIP_GIT_REPO_CHECK", flag: "skip-git-repo-check", value: "0|1", default: "1",
        help: "Accept a workspace that is not a git repository",
    }
    STRIP_ANSWER_TAGS: Switch = Switch => {
        env: "CODEX_STRIP_ANSWER_TAGS", flag: "strip-answer-tags", value: "0|1", default: "0",
        help: "Remove </answer> from answers, also across chunks",
    }
    ["Limits"]
    TIMEOUT_SECONDS: Seconds = Seconds { min: 1, max: 604_800 } => {
        env: "CODEX_TIMEOUT_SECONDS", flag: "timeout-seconds", value: "SECONDS", default: "600",
        help: "Time limit of a request, including its time in the queue",
    }
    MAX_CONCURRENCY: OptionalSize = OptionalSize { min: 1, max: 10_000 } => {
        env: "CODEX_MAX_CONCURRENCY", flag: "max-concurrency", value: "N", default: "",
        help: "Maximum number of running turns; when empty, 2 with the exec engine and 32 per worker with app-server",
    }
    MAX_QUEUE: Size = Size { min: 0, max: 100_000 } => {
        env: "CODEX_MAX_QUEUE", flag: "max-queue", value: "N", default: "32",
        help: "Maximum number of turns that wait for a slot; further requests get 429 at once",
    }
    MAX_CHOICES: Number = Number { min: 1, max: 128 } => {
        env: "CODEX_MAX_CHOICES", flag: "max-choices", value: "N", default: "4",
        help: "Maximum n of a request",
    }
    MAX_PROMPT_CHARS: Size = Size { min: 1, max: 1_048_576 } => {
        env: "CODEX_MAX_PROMPT_CHARS", flag: "max-prompt-chars", value: "N", default: "200000",
        help: "Maximum length of messages, tool calls, tools and schemas of a request together, in characters (413 above it)",
    }
    MAX_MESSAGES: Size = Size { min: 1, max: 1_000_000 } => {
        env: "CODEX_MAX_MESSAGES", flag: "max-messages", value: "N", default: "10000",
        help: "Maximum number of messages of a request; also of its content parts and of its tool calls, each counted over all messages",
    }
    MAX_TOOLS: Size = Size { min: 0, max: 100_000 } => {
        env: "CODEX_MAX_TOOLS", flag: "max-tools", value: "N", default: "128",
        help: "Maximum number of tools of a request; the default is the limit of OpenAI",
    }
    MAX_IMAGES: Size = Size { min: 0, max: 1000 } => {
        env: "CODEX_MAX_IMAGES", flag: "max-images", value: "N", default: "50",
        help: "Maximum number of images per request",
    }
    MAX_IMAGE_BYTES: Size = Size { min: 1, max: 1 << 30 } => {
        env: "CODEX_MAX_IMAGE_BYTES", flag: "max-image-bytes", value: "BYTES", default: "10485760",
        help: "Maximum size of a decoded image",
    }
    MAX_IMAGE_PIXELS: Number = Number { min: 1, max: 1 << 40 } => {
        env: "CODEX_MAX_IMAGE_PIXELS", flag: "max-image-pixels", value: "N", default: "50000000",
        help: "Maximum width times height of an image, because Codex takes 12 to 18 bytes per pixel to decode and resize it; the images of a request may have twice as many pixels together",
    }
    MAX_BODY_BYTES: Size = Size { min: 1024, max: 1 << 30 } => {
        env: "CODEX_MAX_BODY_BYTES", flag: "max-body-bytes", value: "BYTES", default: "33554432",
        help: "Maximum size of a request body or gRPC message",
    }
    MAX_BODY_BYTES_TOTAL: Size = Size { min: 1 << 20, max: 1 << 40 } => {
        env: "CODEX_MAX_BODY_BYTES_TOTAL", flag: "max-body-bytes-total", value: "BYTES", default: "268435456",
        help: "Maximum size of all request bodies whose content is in memory, until Codex has it; further requests get 429, and an eighth is kept for bodies of up to 64 KiB",
    }
    MAX_CONNECTIONS: Size = Size { min: 1, max: 1_000_000 } => {
        env: "CODEX_MAX_CONNECTIONS", flag: "max-connections", value: "N", default: "1024",
        help: "Maximum number of open connections; a further connection replaces the longest unused one, or waits",
    }
    MAX_CONNECTIONS_PER_PEER: OptionalSize = OptionalSize { min: 1, max: 1_000_000 } => {
        env: "CODEX_MAX_CONNECTIONS_PER_PEER", flag: "max-connections-per-peer", value: "N", default: "",
        help: "Maximum number of open connections of one address (of one /64 network with IPv6); when empty, three quarters of CODEX_MAX_CONNECTIONS",
    }
    MAX_REQUEST_RATE: Number = Number { min: 0, max: 1_000_000 } => {
        env: "CODEX_MAX_REQUEST_RATE", flag: "max-request-rate", value: "N", default: "1000",
        help: "Maximum number of requests per second of one address (of one /64 network with IPv6), after 4096 at once; beyond it, the address is read later; 0 for no limit",
    }
    THREADS: OptionalSize = OptionalSize { min: 1, max: 1024 } => {
        env: "CODEX_THREADS", flag: "threads", value: "N", default: "",
        help: "Number of server threads; when empty, half of the available CPUs, at least 1; the rest are left to Codex",
    }
    SUBPROCESS_STREAM_LIMIT: Size = Size { min: 1024, max: 1 << 30 } => {
        env: "CODEX_SUBPROCESS_STREAM_LIMIT", flag: "subprocess-stream-limit", value: "BYTES", default: "8388608",
        help: "Maximum length of an output line of the CLI; a longer line ends its turn and is not buffered",
    }
    HEADER_TIMEOUT_SECONDS: Seconds = Seconds { min: 1, max: 3600 } => {
        env: "CODEX_HEADER_TIMEOUT_SECONDS", flag: "header-timeout-seconds", value: "SECONDS", default: "30",
        help: "Time limit for the first bytes of a connection and for request headers",
    }
    IDLE_TIMEOUT_SECONDS: Seconds = Seconds { min: 1, max: 86_400 } => {
        env: "CODEX_IDLE_TIMEOUT_SECONDS", flag: "idle-timeout-seconds", value: "SECONDS", default: "120",
        help: "Close a connection without a request for this long, HTTP/2 too; must exceed the idle limit of a load balancer in front of the server",
    }
    CONNECTION_AGE_SECONDS: Seconds = Seconds { min: 0, max: 2_592_000 } => {
        env: "CODEX_CONNECTION_AGE_SECONDS", flag: "connection-age-seconds", value: "SECONDS", default: "0",
        help: "Maximum age of a connection, so that clients spread over new servers; running requests finish first; 0 for no limit",
    }
    CONNECTION_AGE_GRACE_SECONDS: Seconds = Seconds { min: 0, max: 604_800 } => {
        env: "CODEX_CONNECTION_AGE_GRACE_SECONDS", flag: "connection-age-grace-seconds", value: "SECONDS", default: "0",
        help: "Time that running requests get to finish at the maximum age; 0 for no limit",
    }
    CONNECTION_AGE_JITTER_PERCENT: Number = Number { min: 0, max: 100 } => {
        env: "CODEX_CONNECTION_AGE_JITTER_PERCENT", flag: "connection-age-jitter-percent", value: "PERCENT", default: "10",
        help: "Random deviation of the maximum age, so that connections opened together do not end together",
    }
    BODY_TIMEOUT_SECONDS: Seconds = Seconds { min: 1, max: 3600 } => {
        env: "CODEX_BODY_TIMEOUT_SECONDS", flag: "body-timeout-seconds", value: "SECONDS", default: "30",
        help: "Maximum pause within a request body",
    }
    WRITE_TIMEOUT_SECONDS: Seconds = Seconds { min: 1, max: 3600 } => {
        env: "CODEX_WRITE_TIMEOUT_SECONDS", flag: "write-timeout-seconds", value: "SECONDS", default: "60",
        help: "Close the connection if the client reads nothing for this long",
    }
    SSE_KEEPALIVE_SECONDS: Number = Number { min: 0, max: 3600 } => {
        env: "CODEX_SSE_KEEPALIVE_SECONDS", flag: "sse-keepalive-seconds", value: "SECONDS", default: "15",
        help: "Interval of keep-alives in a silent stream, for proxies; 0 disables them",
    }
    SSE_KEEPALIVE_FORM: OneOf = OneOf(&["comment", "chunk"]) => {
        env: "CODEX_SSE_KEEPALIVE_FORM", flag: "sse-keepalive-form", value: "FORM", default: "comment",
        help: "Form of keep-alives: an SSE comment, or a chunk with an empty delta for clients that parse every line as JSON",
    }
    GRPC_HEARTBEAT_SECONDS: Number = Number { min: 0, max: 3600 } => {
        env: "CODEX_GRPC_HEARTBEAT_SECONDS", flag: "grpc-heartbeat-seconds", value: "SECONDS", default: "30",
        help: "Silence after which StreamChat sends a heartbeat event, for meshes that count data; 0 disables them",
    }
    JSON_KEEPALIVE_SECONDS: Number = Number { min: 0, max: 3600 } => {
        env: "CODEX_JSON_KEEPALIVE_SECONDS", flag: "json-keepalive-seconds", value: "SECONDS", default: "0",
        help: "Interval of white space before the JSON of an answer that is not streamed, for proxies with a time limit; an error after the first interval has status 200; 0 disables it",
    }
    DRAIN_SECONDS: Seconds = Seconds { min: 0, max: 86_400 } => {
        env: "CODEX_DRAIN_SECONDS", flag: "drain-seconds", value: "SECONDS", default: "25",
        help: "Time from SIGTERM that running turns get to finish, including CODEX_LAME_DUCK_SECONDS; the server ends at most 4 seconds later, so that the default fits into the 30 seconds of Kubernetes",
    }
    LAME_DUCK_SECONDS: Seconds = Seconds { min: 0, max: 3600 } => {
        env: "CODEX_LAME_DUCK_SECONDS", flag: "lame-duck-seconds", value: "SECONDS", default: "3",
        help: "Time after SIGTERM in which the server reports not ready but still serves new requests, until load balancers have noticed; SIGINT skips it",
    }
    ["Codex CLI"]
    BIN: OptionalText = OptionalText => {
        env: "CODEX_BIN", flag: "codex-bin", value: "PATH", default: "",
        help: "Path or name of the codex executable; codex on PATH when empty",
    }
    ENGINE: OneOf = OneOf(&["auto", "exec", "app-server"]) => {
        env: "CODEX_ENGINE", flag: "engine", value: "NAME", default: "auto",
        help: "Engine: app-server (warm processes, each token at once), exec (one process per turn) or auto (app-server if the installed CLI supports it, otherwise exec)",
    }
    WORKERS: Size = Size { min: 0, max: 64 } => {
        env: "CODEX_WORKERS", flag: "workers", value: "N", default: "0",
        help: "Number of warm processes of the app-server engine; 0 selects one per CPU, 2 to 8",
    }
    WORKER_MAX_TURNS: Number = Number { min: 1, max: 1_000_000_000 } => {
        env: "CODEX_WORKER_MAX_TURNS", flag: "worker-max-turns", value: "N", default: "2000",
        help: "Maximum number of turns per worker before it is replaced; running turns finish first",
    }
    WORKER_MAX_SECONDS: Seconds = Seconds { min: 1, max: 2_592_000 } => {
        env: "CODEX_WORKER_MAX_SECONDS", flag: "worker-max-seconds", value: "SECONDS", default: "21600",
        help: "Maximum age of a worker before it is replaced",
    }
    WORKER_MAX_MEMORY_MB: Number = Number { min: 64, max: 1 << 20 } => {
        env: "CODEX_WORKER_MAX_MEMORY_MB", flag: "worker-max-memory-mb", value: "MIB", default: "1024",
        help: "Maximum memory of a worker before it is replaced",
    }
    KEPT_THREADS: Size = Size { min: 0, max: 100_000 } => {
        env: "CODEX_KEPT_THREADS", flag: "kept-threads", value: "N", default: "64",
        help: "Number of conversations per worker whose thread is kept, so that the next request of the conversation goes on there; the longest unused one is let go first; 0 starts a new thread for each request",
    }
    KEPT_THREADS_MAX_MB: Size = Size { min: 1, max: 1 << 20 } => {
        env: "CODEX_KEPT_THREADS_MAX_MB", flag: "kept-threads-max-mb", value: "MIB", default: "256",
        help: "Maximum estimated memory of the kept threads of one worker",
    }
    KEPT_THREAD_SECONDS: Seconds = Seconds { min: 1, max: 2_592_000 } => {
        env: "CODEX_KEPT_THREAD_SECONDS", flag: "kept-thread-seconds", value: "SECONDS", default: "1800",
        help: "Time without a request after which a kept thread is let go; the upstream forgets its cache after about as long",
    }
    KEPT_THREAD_MAX_SECONDS: Seconds = Seconds { min: 1, max: 2_592_000 } => {
        env: "CODEX_KEPT_THREAD_MAX_SECONDS", flag: "kept-thread-max-seconds", value: "SECONDS", default: "21600",
        help: "Maximum age of a kept thread",
    }
    PARKED_CALL_SECONDS: Seconds = Seconds { min: 1, max: 86_400 } => {
        env: "CODEX_PARKED_CALL_SECONDS", flag: "parked-call-seconds", value: "SECONDS", default: "600",
        help: "Time that a turn waits in Codex for the results of a client's tools; later results start a new turn with the whole conversation",
    }
    CLI_HOME: OptionalPath = OptionalPath => {
        env: "CODEX_CLI_HOME", flag: "cli-home", value: "DIR", default: "",
        help: "HOME of the CLI; created with a minimal .codex/config.toml, so that no MCP server starts",
    }
    UPSTREAM_RETRIES: Number = Number { min: 0, max: 100 } => {
        env: "CODEX_UPSTREAM_RETRIES", flag: "upstream-retries", value: "N", default: "2",
        help: "Maximum number of retries of a failing upstream before the turn fails",
    }
    UPSTREAM_TRANSPORT: OneOf = OneOf(&["https", "websocket", "auto"]) => {
        env: "CODEX_UPSTREAM_TRANSPORT", flag: "upstream-transport", value: "NAME", default: "https",
        help: "Transport to OpenAI, unless config.toml names another provider: https, websocket, or auto (WebSocket where several model calls follow each other: agent turns without client tools, and tools of clients on kept threads); a refused WebSocket falls back to https",
    }
    FAST_TLS_ROOTS: Switch = Switch => {
        env: "CODEX_FAST_TLS_ROOTS", flag: "fast-tls-roots", value: "0|1", default: "1",
        help: "Let the CLI read the trusted certificates by rustls instead of OpenSSL, which saves it 9 ms of CPU time per model call; without effect if CODEX_CA_CERTIFICATE or SSL_CERT_DIR is set",
    }
    PROMPT_CACHE_KEYS: OneOf = OneOf(&["auto", "off"]) => {
        env: "CODEX_PROMPT_CACHE_KEYS", flag: "prompt-cache-keys", value: "auto|off", default: "auto",
        help: "Send one prompt_cache_key for all requests of a conversation in the profile chat without client tools (app-server): auto (if the CLI allows it) or off",
    }
    CANCEL_GRACE_SECONDS: Seconds = Seconds { min: 0, max: 60 } => {
        env: "CODEX_CANCEL_GRACE_SECONDS", flag: "cancel-grace-seconds", value: "SECONDS", default: "2",
        help: "Time between the request to stop a cancelled turn and SIGKILL",
    }
    ["Log"]
    LOG: Text = Text => {
        env: "CODEX_LOG", flag: "log", value: "FILTER", default: "info",
        help: "Log filter: error, warn, info, debug, trace, or target=level, ...",
    }
    LOG_FORMAT: OneOf = OneOf(&["text", "json"]) => {
        env: "CODEX_LOG_FORMAT", flag: "log-format", value: "FORMAT", default: "text",
        help: "Log format: text or json",
    }
    LOG_MAX_CHARS: Size = Size { min: 80, max: 1 << 30 } => {
        env: "CODEX_LOG_MAX_CHARS", flag: "log-max-chars", value: "N", default: "4000",
        help: "Maximum length of a text in a log line, in characters",
    }
    DEBUG_LOG: Switch = Switch => {
        env: "CODEX_DEBUG_LOG", flag: "debug-log", value: "0|1", default: "0",
        help: "Also log prompts, events and answers, which are private; for debugging only",
    }
}

/// Disables `.env`. Read from the process environment only.
pub const NO_DOTENV: &str = "CODEX_NO_DOTENV";

/// Variables of the Codex CLI and its launchers (0.169). They reach the CLI unchanged and are never reported as typing
/// errors.
pub const CLI_VARIABLES: &[&str] = &[
    "CODEX_ACCESS_TOKEN",
    "CODEX_API_KEY",
    "CODEX_APPLY_GIT_CFG",
    "CODEX_CA_CERTIFICATE",
    "CODEX_CI",
    "CODEX_CONNECTORS_TOKEN",
    "CODEX_EXEC_SERVER_URL",
    "CODEX_GITHUB_PERSONAL_ACCESS_TOKEN",
    "CODEX_HOME",
    "CODEX_INTERNAL_ORIGINATOR_OVERRIDE",
    "CODEX_MANAGED_BY_BUN",
    "CODEX_MANAGED_BY_NPM",
    "CODEX_MANAGED_BY_PNPM",
    "CODEX_MANAGED_PACKAGE_ROOT",
    "CODEX_NON_INTERACTIVE",
    "CODEX_OSS_BASE_URL",
    "CODEX_OSS_PORT",
    "CODEX_PERMISSION_PROFILE",
    "CODEX_RELEASE",
    "CODEX_SANDBOX_NETWORK_DISABLED",
    "CODEX_SESSION_ID",
    "CODEX_SQLITE_HOME",
    "CODEX_STARTING_DIFF",
    "CODEX_THREAD_ID",
    "CODEX_TUI_RECORD_SESSION",
    "CODEX_VERSION",
];

/// Values that the Codex CLI sets for its own commands, in variables that are also settings. They count as not set.
pub(super) const CLI_VALUES: &[(&str, &str)] = &[("CODEX_SANDBOX", "seatbelt")];

/// Returns the setting with this environment name.
pub fn find(env: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.env == env)
}

/// Returns the setting with the most similar name, if `name` is probably a typing error.
pub fn closest_setting(name: &str) -> Option<&'static str> {
    let known = |n: &str| n == NO_DOTENV || CLI_VARIABLES.contains(&n) || find(n).is_some();
    if !name.starts_with("CODEX_") || known(name) {
        return None;
    }
    let distance = |known: &str| strsim::damerau_levenshtein(known, name);
    // Two changes of a short name lead to another word: CODEX_CI is no misspelt CODEX_BIN.
    let max_distance = |known: &str| if known.len().min(name.len()) < SHORT_NAME { 1 } else { 2 };
    SETTINGS
        .iter()
        .map(|setting| setting.env)
        .chain([NO_DOTENV])
        .filter(|known| distance(known) <= max_distance(known))
        .min_by_key(|known| distance(known))
}

/// Length from which two changes of a name are a typing error.
const SHORT_NAME: usize = "CODEX_".len() + 7;

/// Returns `true` if a variable is probably `CODEX_GATEWAY_TOKEN` with a typing error, so that it holds a secret.
pub(super) fn is_misspelt_token(name: &str) -> bool {
    closest_setting(name) == Some(GATEWAY_TOKEN.setting.env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_setting_of_typing_errors_only_returns_a_name() {
        assert_eq!(closest_setting("CODEX_MAX_CONCURENCY"), Some("CODEX_MAX_CONCURRENCY"));
        assert_eq!(closest_setting("CODEX_GATEWAY_TOKNE"), Some("CODEX_GATEWAY_TOKEN"));
        assert_eq!(closest_setting("CODEX_SANDBOXX"), Some("CODEX_SANDBOX"));
        assert_eq!(closest_setting("CODEX_BINN"), Some("CODEX_BIN"));
        for name in ["CODEX_CI", "CODEX_LAB", "CODEX_MODE1S", "CODEX_WORKING"] {
            assert_eq!(closest_setting(name), None, "{name}");
        }
        assert_eq!(closest_setting("CODEX_HOME"), None);
        assert_eq!(closest_setting("CODEX_THREAD_ID"), None);
        assert_eq!(closest_setting("CODEX_MODEL"), None);
        assert_eq!(closest_setting("PATH"), None);
    }

    #[test]
    fn settings_have_unique_names() {
        let mut names: Vec<_> = SETTINGS.iter().flat_map(|s| [s.env, s.flag]).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
