//! Builds the sections of the configuration from the settings.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    Codex, ConnectionAge, EngineChoice, KeepAliveForm, KeptThreads, Limits, ListLimits, Log, Models, Profile,
    Sandbox, Secret, ServerConfig, UpstreamTransport, Workers, exposure, is_word,
    kinds::{Key, OptionalText, Text},
    settings,
    sources::RawSettings,
};

pub(super) fn server(raw: &mut RawSettings, request_timeout: Duration) -> ServerConfig {
    let port = u16::try_from(raw.get(&settings::GATEWAY_PORT)).unwrap_or_default();
    let interval = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
    let max_connections = raw.get(&settings::MAX_CONNECTIONS);
    let per_peer = raw.get(&settings::MAX_CONNECTIONS_PER_PEER);
    let server = ServerConfig {
        listen: SocketAddr::new(host(raw), port),
        grpc_listen: grpc_listen(raw),
        token: token(raw),
        allowed_hosts: allowed_hosts(raw),
        cors_origins: cors_origins(raw),
        sse_keepalive: interval(raw.get(&settings::SSE_KEEPALIVE_SECONDS)),
        sse_keepalive_form: KeepAliveForm::parse(raw.get(&settings::SSE_KEEPALIVE_FORM))
            .unwrap_or(KeepAliveForm::Comment),
        stream_heartbeat: interval(raw.get(&settings::GRPC_HEARTBEAT_SECONDS)),
        json_keepalive: interval(raw.get(&settings::JSON_KEEPALIVE_SECONDS)),
        idle_timeout: raw.get(&settings::IDLE_TIMEOUT_SECONDS),
        connection_age: connection_age(raw),
        header_timeout: raw.get(&settings::HEADER_TIMEOUT_SECONDS),
        request_timeout,
        body_timeout: raw.get(&settings::BODY_TIMEOUT_SECONDS),
        write_timeout: raw.get(&settings::WRITE_TIMEOUT_SECONDS),
        max_body_bytes: raw.get(&settings::MAX_BODY_BYTES),
        max_body_bytes_total: raw.get(&settings::MAX_BODY_BYTES_TOTAL),
        lists: lists(raw),
        max_connections,
        max_connections_per_peer: per_peer.unwrap_or(max_connections - max_connections / 4),
        max_request_rate: u32::try_from(raw.get(&settings::MAX_REQUEST_RATE)).unwrap_or_default(),
        threads: raw.get(&settings::THREADS).unwrap_or_else(default_threads),
        drain_grace: raw.get(&settings::DRAIN_SECONDS),
        lame_duck: raw.get(&settings::LAME_DUCK_SECONDS),
    };
    exposure::check(&server, raw);
    server
}

fn connection_age(raw: &mut RawSettings) -> Option<ConnectionAge> {
    let max = raw.get(&settings::CONNECTION_AGE_SECONDS);
    let grace = raw.get(&settings::CONNECTION_AGE_GRACE_SECONDS);
    let percent = u32::try_from(raw.get(&settings::CONNECTION_AGE_JITTER_PERCENT)).unwrap_or_default();
    (!max.is_zero()).then(|| ConnectionAge { max, grace, jitter: f64::from(percent) / 100.0 })
}

/// Returns half of the processors. The others are left to the CLI. On few processors fewer threads are also faster: a
/// token that is read by one thread and written by another costs twice as much as on one thread.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |all| (all.get() / 2).max(1))
}

fn host(raw: &mut RawSettings) -> IpAddr {
    let key: &Key<Text> = &settings::GATEWAY_HOST;
    let text = raw.get(key);
    if text == "localhost" {
        return Ipv4Addr::LOCALHOST.into();
    }
    text.parse().unwrap_or_else(|_| {
        raw.push_error_of(key, &format!("{text:?} is not an IP address such as 127.0.0.1 or 0.0.0.0"));
        Ipv4Addr::LOCALHOST.into()
    })
}

fn grpc_listen(raw: &mut RawSettings) -> Option<SocketAddr> {
    let key: &Key<OptionalText> = &settings::GRPC_LISTEN;
    let text = raw.get(key)?.replace("localhost:", "127.0.0.1:");
    let address = text.parse().ok();
    if address.is_none() {
        raw.push_error_of(key, &format!("{text:?} is not an address and port such as 127.0.0.1:50051"));
    }
    address
}

fn allowed_hosts(raw: &mut RawSettings) -> Vec<String> {
    let key = &settings::ALLOWED_HOSTS;
    let hosts = raw.get(key);
    for host in &hosts {
        if host.contains("://") || host.parse::<http::uri::Authority>().is_err() {
            raw.push_error_of(key, &format!("{host:?} is not a host name such as codex.example:8000"));
        }
    }
    hosts
}

fn cors_origins(raw: &mut RawSettings) -> Vec<String> {
    let key = &settings::CORS_ORIGINS;
    let origins = raw.get(key);
    for origin in origins.iter().filter(|origin| *origin != "*") {
        let uri = origin.parse::<http::Uri>().ok();
        let is_origin = uri.is_some_and(|uri| uri.scheme().is_some() && matches!(uri.path(), "" | "/"));
        if !is_origin {
            raw.push_error_of(key, &format!("{origin:?} is not an origin such as https://chat.example"));
        }
    }
    origins
}

fn token(raw: &mut RawSettings) -> Option<Secret> {
    let key = &settings::GATEWAY_TOKEN;
    let text = raw.get(key)?;
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        raw.push_error_of(key, "must be printable ASCII without blanks, because it is sent in a header");
    }
    Some(Secret::new(&text))
}

pub(super) fn models(raw: &mut RawSettings) -> Models {
    let effort_key = &settings::MODEL_REASONING_EFFORT;
    let reasoning_effort = raw.get(effort_key);
    if !is_word(&reasoning_effort) {
        raw.push_error_of(effort_key, "expected a word such as low, medium, high or xhigh");
    }
    let aliases_key = &settings::MODEL_ALIASES;
    let aliases = raw.get(aliases_key);
    let mut aliases: BTreeMap<String, String> = serde_json::from_str(&aliases).unwrap_or_else(|error| {
        let expected = "expected a JSON object of strings such as {\"gpt-4o\":\"gpt-5.5\"}";
        raw.push_error_of(aliases_key, &format!("{expected}: {error}"));
        BTreeMap::new()
    });
    let default = raw.get(&settings::MODEL);
    let mut alias_profiles = BTreeMap::new();
    for (alias, target) in &mut aliases {
        if let Some((name, profile)) = Profile::split_suffix(target) {
            alias_profiles.insert(alias.clone(), profile);
            let default = Profile::split_suffix(&default).map_or(default.as_str(), |(name, _)| name);
            *target = if name.is_empty() { default } else { name }.to_owned();
        }
    }
    Models {
        default,
        default_is_configured: raw.is_set(&settings::MODEL),
        aliases,
        alias_profiles,
        advertised: raw.get(&settings::ADVERTISED_MODELS),
        reasoning_effort,
        reasoning_summary: raw.get(&settings::MODEL_REASONING_SUMMARY).to_owned(),
    }
}

fn lists(raw: &mut RawSettings) -> ListLimits {
    ListLimits { messages: raw.get(&settings::MAX_MESSAGES), tools: raw.get(&settings::MAX_TOOLS) }
}

pub(super) fn limits(raw: &mut RawSettings) -> Limits {
    Limits {
        timeout: raw.get(&settings::TIMEOUT_SECONDS),
        max_concurrency: raw.get(&settings::MAX_CONCURRENCY),
        max_queue: raw.get(&settings::MAX_QUEUE),
        max_choices: u32::try_from(raw.get(&settings::MAX_CHOICES)).unwrap_or(1),
        // The CLI itself refuses 1,048,577 characters (0.169).
        max_prompt_chars: raw.get(&settings::MAX_PROMPT_CHARS),
        max_images: raw.get(&settings::MAX_IMAGES),
        lists: lists(raw),
        max_image_bytes: raw.get(&settings::MAX_IMAGE_BYTES),
        max_image_pixels: raw.get(&settings::MAX_IMAGE_PIXELS),
    }
}

pub(super) fn codex(raw: &mut RawSettings) -> Codex {
    let env = raw.child_env();
    Codex {
        engine: match raw.get(&settings::ENGINE) {
            "exec" => EngineChoice::Exec,
            "app-server" => EngineChoice::AppServer,
            _ => EngineChoice::Auto,
        },
        workers: workers(raw),
        kept_threads: kept_threads(raw),
        bin: raw.get(&settings::BIN).map(|text| match text.contains('/') {
            true => raw.absolute(&text),
            // A bare name is searched on PATH.
            false => PathBuf::from(text),
        }),
        workspace: raw.get(&settings::WORKSPACE).unwrap_or_else(|| raw.current_dir()),
        dotenv_file: raw.dotenv_file(),
        add_dirs: raw.get(&settings::ADD_DIRS),
        cli_home: raw.get(&settings::CLI_HOME),
        profile: match raw.get(&settings::PROFILE) {
            "chat" => Profile::Chat,
            _ => Profile::Agent,
        },
        sandbox: match raw.get(&settings::SANDBOX) {
            "workspace-write" => Sandbox::WorkspaceWrite,
            "danger-full-access" => Sandbox::DangerFullAccess,
            _ => Sandbox::ReadOnly,
        },
        approval_policy: raw.get(&settings::APPROVAL_POLICY).to_owned(),
        search: raw.get(&settings::ENABLE_SEARCH),
        apps: raw.get(&settings::ENABLE_APPS),
        skip_git_repo_check: raw.get(&settings::SKIP_GIT_REPO_CHECK),
        strip_answer_tags: raw.get(&settings::STRIP_ANSWER_TAGS),
        line_limit: raw.get(&settings::SUBPROCESS_STREAM_LIMIT),
        upstream_retries: u32::try_from(raw.get(&settings::UPSTREAM_RETRIES)).unwrap_or(0),
        fast_tls_roots: raw.get(&settings::FAST_TLS_ROOTS),
        prompt_cache_keys: raw.get(&settings::PROMPT_CACHE_KEYS) == "auto",
        cancel_grace: raw.get(&settings::CANCEL_GRACE_SECONDS),
        scratch: env.get(&OsString::from("TMPDIR")).map_or_else(|| "/tmp".into(), PathBuf::from),
        env,
        upstream_transport: match raw.get(&settings::UPSTREAM_TRANSPORT) {
            "websocket" => UpstreamTransport::WebSocket,
            "auto" => UpstreamTransport::Auto,
            _ => UpstreamTransport::Https,
        },
        scripted_upstream: None,
    }
}

fn workers(raw: &mut RawSettings) -> Workers {
    Workers {
        count: match raw.get(&settings::WORKERS) {
            0 => std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            count => count,
        },
        max_turns: u32::try_from(raw.get(&settings::WORKER_MAX_TURNS)).unwrap_or(u32::MAX),
        max_age: raw.get(&settings::WORKER_MAX_SECONDS),
        max_memory_bytes: raw.get(&settings::WORKER_MAX_MEMORY_MB) << 20,
    }
}

fn kept_threads(raw: &mut RawSettings) -> KeptThreads {
    KeptThreads {
        max_per_worker: raw.get(&settings::KEPT_THREADS),
        max_bytes: raw.get(&settings::KEPT_THREADS_MAX_MB) << 20,
        idle: raw.get(&settings::KEPT_THREAD_SECONDS),
        parked: raw.get(&settings::PARKED_CALL_SECONDS),
        max_age: raw.get(&settings::KEPT_THREAD_MAX_SECONDS),
    }
}

pub(super) fn log(raw: &mut RawSettings) -> Log {
    let key = &settings::LOG;
    let filter = raw.get(key);
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    for word in filter.split(',').map(str::trim) {
        // The filter's own syntax allows a target without a level, which is usually a misspelt level.
        if !is_level(word) && !word.contains(['=', '[']) {
            let levels = "error, warn, info, debug, trace, off, or target=level";
            raw.push_error_of(key, &format!("{word:?} is not one of {levels}"));
        }
    }
    if filter.contains("codex-api") {
        raw.push_error_of(key, "codex-api is not a target; the module is named codex_api");
    }
    // Targets without a directive keep their level. Otherwise a misspelt target would disable the log.
    let filter = match filter.trim() {
        text if text.is_empty() || filter.split(',').map(str::trim).any(is_level) => filter,
        text => format!("info,{text}"),
    };
    Log {
        filter,
        json: raw.get(&settings::LOG_FORMAT) == "json",
        max_chars: raw.get(&settings::LOG_MAX_CHARS),
        debug: raw.get(&settings::DEBUG_LOG),
    }
}
