//! The values of the settings, read into the types of the configuration.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    Codex, EngineChoice, Limits, Log, Models, Profile, SUMMARIES, Sandbox, Secret, ServerConfig, Workers,
    is_word, sources::RawSettings,
};

pub(super) fn doors(v: &mut RawSettings) -> ServerConfig {
    let host: IpAddr = match v.text("CODEX_GATEWAY_HOST").as_str() {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        text => v
            .parsed_text("CODEX_GATEWAY_HOST", text, "an IP address such as 127.0.0.1 or 0.0.0.0")
            .unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    let port = v.number("CODEX_GATEWAY_PORT", 0, 65535);
    let keepalive = v.number("CODEX_SSE_KEEPALIVE_SECONDS", 0, 3600);
    ServerConfig {
        listen: SocketAddr::new(host, u16::try_from(port).unwrap_or_default()),
        grpc_listen: v.optional("CODEX_GRPC_LISTEN").and_then(|text| {
            let text = text.replace("localhost:", "127.0.0.1:");
            v.parsed_text("CODEX_GRPC_LISTEN", &text, "an address and port such as 127.0.0.1:50051")
        }),
        token: token(v),
        allowed_hosts: allowed_hosts(v),
        cors_origins: cors_origins(v),
        sse_keepalive: (keepalive > 0).then(|| Duration::from_secs(keepalive)),
        header_timeout: v.seconds("CODEX_HEADER_TIMEOUT_SECONDS", 1, 3600),
        body_timeout: v.seconds("CODEX_BODY_TIMEOUT_SECONDS", 1, 3600),
        write_timeout: v.seconds("CODEX_WRITE_TIMEOUT_SECONDS", 1, 3600),
        max_body_bytes: v.size("CODEX_MAX_BODY_BYTES", 1024, 1 << 30),
        max_connections: v.size("CODEX_MAX_CONNECTIONS", 1, 1_000_000),
        threads: match v.optional("CODEX_THREADS") {
            Some(_) => v.size("CODEX_THREADS", 1, 1024),
            None => half_of_the_processors(),
        },
        drain_grace: v.seconds("CODEX_DRAIN_SECONDS", 0, 86400),
    }
}

/// The others are for the CLI. On few processors fewer threads are faster, too: a token that is read by one thread and
/// written by another costs twice what it costs on one.
fn half_of_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |all| (all.get() / 2).max(1))
}

fn allowed_hosts(v: &mut RawSettings) -> Vec<String> {
    let hosts = v.list("CODEX_ALLOWED_HOSTS");
    for host in &hosts {
        if host.contains("://") || host.parse::<http::uri::Authority>().is_err() {
            v.mistake(&format!(
                "CODEX_ALLOWED_HOSTS: {host:?} is not a host name such as codex.example:8000"
            ));
        }
    }
    hosts
}

fn cors_origins(v: &mut RawSettings) -> Vec<String> {
    let origins = v.list("CODEX_CORS_ORIGINS");
    for origin in origins.iter().filter(|origin| *origin != "*") {
        let uri = origin.parse::<http::Uri>().ok();
        let whole = uri.is_some_and(|uri| uri.scheme().is_some() && matches!(uri.path(), "" | "/"));
        if !whole {
            v.mistake(&format!(
                "CODEX_CORS_ORIGINS: {origin:?} is not an origin such as https://chat.example"
            ));
        }
    }
    origins
}

fn token(v: &mut RawSettings) -> Option<Secret> {
    let text = v.optional("CODEX_GATEWAY_TOKEN")?;
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        v.mistake("CODEX_GATEWAY_TOKEN: must be printable ASCII without blanks, to fit into a header");
    }
    Some(Secret::new(&text))
}

pub(super) fn models(v: &mut RawSettings) -> Models {
    let default = v.text("CODEX_MODEL");
    let advertised = v.list("CODEX_ADVERTISED_MODELS");
    let effort = v.text("CODEX_MODEL_REASONING_EFFORT");
    if !is_word(&effort) {
        v.mistake("CODEX_MODEL_REASONING_EFFORT: expected a word such as low, medium, high or xhigh");
    }
    let summary = v.text("CODEX_MODEL_REASONING_SUMMARY");
    if !SUMMARIES.contains(&summary.as_str()) {
        v.mistake(&format!(
            "CODEX_MODEL_REASONING_SUMMARY: {summary:?} is not one of {}",
            SUMMARIES.join(", ")
        ));
    }
    let aliases = v.text("CODEX_MODEL_ALIASES");
    let aliases = serde_json::from_str(&aliases).unwrap_or_else(|e| {
        v.mistake(&format!(
            "CODEX_MODEL_ALIASES: expected a JSON object of texts such as {{\"gpt-4o\":\"gpt-5.5\"}}: {e}"
        ));
        BTreeMap::new()
    });
    Models { default, aliases, advertised, reasoning_effort: effort, reasoning_summary: summary }
}

pub(super) fn limits(v: &mut RawSettings) -> Limits {
    Limits {
        timeout: v.seconds("CODEX_TIMEOUT_SECONDS", 1, 7 * 86400),
        max_concurrency: v
            .optional("CODEX_MAX_CONCURRENCY")
            .map(|_| v.size("CODEX_MAX_CONCURRENCY", 1, 10_000)),
        max_queue: v.size("CODEX_MAX_QUEUE", 0, 100_000),
        max_choices: u32::try_from(v.number("CODEX_MAX_CHOICES", 1, 128)).unwrap_or(1),
        // The CLI itself refuses 1,048,577 characters.
        max_prompt_chars: v.size("CODEX_MAX_PROMPT_CHARS", 1, 1_048_576),
        max_images: v.size("CODEX_MAX_IMAGES", 0, 1000),
        max_image_bytes: v.size("CODEX_MAX_IMAGE_BYTES", 1, 1 << 30),
    }
}

pub(super) fn codex(v: &mut RawSettings) -> Codex {
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
    let profile = match v.text("CODEX_PROFILE").as_str() {
        "agent" => Profile::Agent,
        "chat" => Profile::Chat,
        other => {
            v.mistake(&format!("CODEX_PROFILE: {other:?} is not one of agent, chat"));
            Profile::Agent
        }
    };
    let approval_policy = v.text("CODEX_APPROVAL_POLICY");
    if !["untrusted", "on-failure", "on-request", "never"].contains(&approval_policy.as_str()) {
        v.mistake(&format!(
            "CODEX_APPROVAL_POLICY: {approval_policy:?} is not one of untrusted, on-failure, on-request, never"
        ));
    }
    Codex {
        engine: engine(v),
        workers: workers(v),
        // A bare name is looked for on PATH.
        bin: v
            .optional("CODEX_BIN")
            .filter(|name| !name.contains('/'))
            .map(PathBuf::from)
            .or_else(|| v.path("CODEX_BIN")),
        workspace: v.path("CODEX_WORKSPACE").unwrap_or_else(|| v.current_dir()),
        add_dirs: v.paths("CODEX_ADD_DIRS"),
        cli_home: v.path("CODEX_CLI_HOME"),
        profile,
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

fn engine(v: &mut RawSettings) -> EngineChoice {
    match v.text("CODEX_ENGINE").as_str() {
        "auto" => EngineChoice::Auto,
        "exec" => EngineChoice::Exec,
        "app-server" => EngineChoice::AppServer,
        other => {
            v.mistake(&format!("CODEX_ENGINE: {other:?} is not one of auto, exec, app-server"));
            EngineChoice::Auto
        }
    }
}

fn workers(v: &mut RawSettings) -> Workers {
    Workers {
        count: match v.size("CODEX_WORKERS", 0, 64) {
            0 => std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            count => count,
        },
        max_turns: u32::try_from(v.number("CODEX_WORKER_MAX_TURNS", 1, 1_000_000_000)).unwrap_or(u32::MAX),
        max_age: v.seconds("CODEX_WORKER_MAX_SECONDS", 1, 30 * 86400),
        max_memory_bytes: v.number("CODEX_WORKER_MAX_MEMORY_MB", 64, 1 << 20) << 20,
    }
}

pub(super) fn log(v: &mut RawSettings) -> Log {
    let format = v.text("CODEX_LOG_FORMAT");
    if !["text", "json"].contains(&format.as_str()) {
        v.mistake(&format!("CODEX_LOG_FORMAT: {format:?} is not one of text, json"));
    }
    let filter = v.text("CODEX_LOG");
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    for word in filter.split(',').map(str::trim) {
        // A target without a level would be legal.
        if !is_level(word) && !word.contains(['=', '[']) {
            v.mistake(&format!(
                "CODEX_LOG: {word:?} is not one of error, warn, info, debug, trace, off, or target=level"
            ));
        }
    }
    if filter.contains("codex-api") {
        v.mistake("CODEX_LOG: codex-api is no target; the module is called codex_api");
    }
    // What is not named is logged as usual, or a misspelt target would silence everything.
    let filter = match filter.trim() {
        named if named.is_empty() || filter.split(',').map(str::trim).any(is_level) => filter,
        named => format!("info,{named}"),
    };
    Log {
        filter,
        json: format == "json",
        max_chars: v.size("CODEX_LOG_MAX_CHARS", 80, 1 << 30),
        debug: v.switch("CODEX_DEBUG_LOG"),
    }
}
