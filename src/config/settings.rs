//! The one table of settings: names, defaults and texts. Flags, `--help`, the README's table and `.env.example`
//! all come from it or are tested against it.

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name in the environment and in `.env`.
    pub env: &'static str,
    /// Name of the flag, without dashes.
    pub flag: &'static str,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    /// The default, as one would write it; empty when there is none.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// Heading in `--help`.
    pub group: &'static str,
}

impl Setting {
    /// Whether the setting is a switch: the bare flag then means 1.
    pub fn is_switch(&self) -> bool {
        self.value == "0|1"
    }
}

const LISTEN: &str = "Listening";
const MODELS: &str = "Models";
const AGENT: &str = "Agent";
const LIMITS: &str = "Limits";
const CLI: &str = "Codex CLI";
const LOG: &str = "Log";

macro_rules! settings {
    ($($group:ident $env:ident $flag:literal $value:literal $default:literal $help:literal)*) => {
        /// Every setting, in the order of `--help`.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            env: stringify!($env), flag: $flag, value: $value, default: $default, help: $help, group: $group,
        }),*];
    };
}

settings! {
    LISTEN CODEX_GATEWAY_HOST "host" "ADDRESS" "127.0.0.1" "Address that both doors listen on; any but loopback needs CODEX_GATEWAY_TOKEN"
    LISTEN CODEX_GATEWAY_PORT "port" "PORT" "8000" "Port that both doors listen on; 0 takes a free one"
    LISTEN CODEX_GRPC_LISTEN "grpc-listen" "ADDRESS:PORT" "" "An address of its own for gRPC, which then leaves the shared one"
    LISTEN CODEX_GATEWAY_TOKEN "gateway-token" "TOKEN" "" "Bearer token that callers must send (better in the environment: others on the machine can read flags)"
    LISTEN CODEX_ALLOWED_HOSTS "allowed-hosts" "LIST" "" "Host names that callers may use besides loopback names, where no token is set (comma list)"
    LISTEN CODEX_CORS_ORIGINS "cors-origins" "LIST" "" "Web origins that may call from a browser (comma list; * for any); off when empty"
    MODELS CODEX_MODEL "model" "NAME" "gpt-5-codex" "Model of requests that name none"
    MODELS CODEX_MODEL_ALIASES "model-aliases" "JSON" "{}" "Other names for models: a JSON object, requested to real"
    MODELS CODEX_ADVERTISED_MODELS "advertised-models" "LIST" "" "Models that /v1/models lists besides the aliases and their targets (comma list); when empty, CODEX_MODEL and what the CLI knows"
    MODELS CODEX_MODEL_REASONING_EFFORT "model-reasoning-effort" "WORD" "high" "Effort of requests that name none: minimal, low, medium, high, xhigh or a word the model advertises"
    MODELS CODEX_MODEL_REASONING_SUMMARY "model-reasoning-summary" "WORD" "auto" "How the model tells its thoughts in requests that do not say it: auto, concise, detailed or none (some OpenAI accounts must be verified for summaries: without that, none)"
    AGENT CODEX_PROFILE "profile" "NAME" "agent" "What the model is given: agent (Codex with its own tools) or chat (the model alone, with the client's tools); needs the app-server engine"
    AGENT CODEX_WORKSPACE "workspace" "DIR" "" "Folder that the agent works in; the current one when empty"
    AGENT CODEX_ADD_DIRS "add-dirs" "LIST" "" "Further folders that the agent may write to under workspace-write (comma list)"
    AGENT CODEX_SANDBOX "sandbox" "MODE" "read-only" "What commands of the agent may touch: read-only, workspace-write, danger-full-access"
    AGENT CODEX_APPROVAL_POLICY "approval-policy" "POLICY" "never" "untrusted, on-failure, on-request or never; nobody is there to be asked, so keep never"
    AGENT CODEX_ENABLE_SEARCH "enable-search" "0|1" "0" "Live web search for the agent"
    AGENT CODEX_SKIP_GIT_REPO_CHECK "skip-git-repo-check" "0|1" "1" "Work also where the workspace is not a git repository"
    AGENT CODEX_STRIP_ANSWER_TAGS "strip-answer-tags" "0|1" "0" "Take </answer> out of answers, also across chunks"
    LIMITS CODEX_TIMEOUT_SECONDS "timeout-seconds" "SECONDS" "600" "Longest time of one request, queueing included"
    LIMITS CODEX_MAX_CONCURRENCY "max-concurrency" "N" "" "Turns that run at once; when empty, 2 with the exec engine and 32 for each worker with app-server"
    LIMITS CODEX_MAX_QUEUE "max-queue" "N" "32" "Turns that wait for a slot; more are refused at once (429)"
    LIMITS CODEX_MAX_CHOICES "max-choices" "N" "4" "Largest n of a request"
    LIMITS CODEX_MAX_PROMPT_CHARS "max-prompt-chars" "N" "200000" "Longest prompt, in characters (413 beyond)"
    LIMITS CODEX_MAX_IMAGES "max-images" "N" "8" "Most images in one request"
    LIMITS CODEX_MAX_IMAGE_BYTES "max-image-bytes" "BYTES" "10485760" "Largest image, decoded"
    LIMITS CODEX_MAX_BODY_BYTES "max-body-bytes" "BYTES" "33554432" "Largest request body or gRPC message"
    LIMITS CODEX_MAX_CONNECTIONS "max-connections" "N" "1024" "Open connections; more wait to be accepted"
    LIMITS CODEX_THREADS "threads" "N" "" "Threads of the server itself; when empty, half of the processors, one at least: the others are for the CLI, which needs ten times as much"
    LIMITS CODEX_SUBPROCESS_STREAM_LIMIT "subprocess-stream-limit" "BYTES" "8388608" "Longest line read from the CLI; a longer one ends its turn, and is never kept in memory"
    LIMITS CODEX_HEADER_TIMEOUT_SECONDS "header-timeout-seconds" "SECONDS" "30" "Time for a connection's first bytes and for request headers; also how long an idle connection is kept"
    LIMITS CODEX_BODY_TIMEOUT_SECONDS "body-timeout-seconds" "SECONDS" "30" "Longest pause within a request body"
    LIMITS CODEX_WRITE_TIMEOUT_SECONDS "write-timeout-seconds" "SECONDS" "60" "How long a client may read nothing before it is cut off"
    LIMITS CODEX_SSE_KEEPALIVE_SECONDS "sse-keepalive-seconds" "SECONDS" "15" "Silence in a stream after which a comment keeps proxies from closing it; 0 for none"
    LIMITS CODEX_DRAIN_SECONDS "drain-seconds" "SECONDS" "30" "How long running turns may go on after SIGTERM"
    CLI CODEX_BIN "codex-bin" "PATH" "" "The codex executable; found on PATH when empty"
    CLI CODEX_ENGINE "engine" "NAME" "auto" "How turns run: app-server (warm processes, every token as it is made), exec (a process for each turn), or auto (app-server where the installed CLI can be trusted with it)"
    CLI CODEX_WORKERS "workers" "N" "0" "Warm processes of the app-server engine; 0 takes one for each processor, 2 to 8"
    CLI CODEX_WORKER_MAX_TURNS "worker-max-turns" "N" "2000" "A worker is replaced after so many turns, without losing one"
    CLI CODEX_WORKER_MAX_SECONDS "worker-max-seconds" "SECONDS" "21600" "A worker is replaced when it is so old"
    CLI CODEX_WORKER_MAX_MEMORY_MB "worker-max-memory-mb" "MIB" "1024" "A worker is replaced when it holds so much memory"
    CLI CODEX_CLI_HOME "cli-home" "DIR" "" "HOME of the CLI; gets a minimal .codex/config.toml if it has none, so that no MCP server starts"
    CLI CODEX_UPSTREAM_RETRIES "upstream-retries" "N" "2" "How often the CLI may ask a failing upstream again before the turn fails"
    CLI CODEX_CANCEL_GRACE_SECONDS "cancel-grace-seconds" "SECONDS" "2" "Time between the request to stop and the kill, when a turn is cancelled"
    LOG CODEX_LOG "log" "FILTER" "info" "What is logged: error, warn, info, debug, trace, or target=level, ..."
    LOG CODEX_LOG_FORMAT "log-format" "FORMAT" "text" "text or json"
    LOG CODEX_LOG_MAX_CHARS "log-max-chars" "N" "4000" "Longest text in one log line"
    LOG CODEX_DEBUG_LOG "debug-log" "0|1" "0" "Log prompts, events and answers too (they are private: for debugging only)"
}

/// Read from the process environment only: switches off reading `.env`.
pub const NO_DOTENV: &str = "CODEX_NO_DOTENV";

/// Variables of the Codex CLI itself: not ours, passed on to it, never suspected to be typing errors.
pub const FOREIGN: &[&str] =
    &["CODEX_HOME", "CODEX_API_KEY", "CODEX_ACCESS_TOKEN", "CODEX_SQLITE_HOME", "CODEX_CA_CERTIFICATE"];

/// The setting of a name, or none.
pub fn find(env: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.env == env)
}

/// The setting that a variable's name was probably meant to be, if the name looks like a typing error.
pub fn meant_by(name: &str) -> Option<&'static str> {
    let known = |n: &str| n == NO_DOTENV || FOREIGN.contains(&n) || find(n).is_some();
    if !name.starts_with("CODEX_") || known(name) {
        return None;
    }
    SETTINGS
        .iter()
        .map(|setting| setting.env)
        .chain([NO_DOTENV])
        .filter(|ours| strsim::damerau_levenshtein(ours, name) <= 2)
        .min_by_key(|ours| strsim::damerau_levenshtein(ours, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_suspected_and_foreign_names_are_not() {
        assert_eq!(meant_by("CODEX_MAX_CONCURENCY"), Some("CODEX_MAX_CONCURRENCY"));
        assert_eq!(meant_by("CODEX_GATEWAY_TOKNE"), Some("CODEX_GATEWAY_TOKEN"));
        assert_eq!(meant_by("CODEX_HOME"), None);
        assert_eq!(meant_by("CODEX_THREAD_ID"), None);
        assert_eq!(meant_by("CODEX_MODEL"), None);
        assert_eq!(meant_by("PATH"), None);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = SETTINGS.iter().flat_map(|s| [s.env, s.flag]).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
