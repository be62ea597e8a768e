//! Measures the gateway. `scripts/bench.sh` builds and runs this program, and `docs/benchmarks.md` is its output. The program
//! starts and stops all servers, clients and upstreams on 127.0.0.1. It uses only the contract of the crate.

#[path = "../hazards/attacks.rs"]
mod attacks;
mod bare;
mod cache;
mod cancel;
mod conversations;
mod deltas;
mod flood;
mod gateway;
mod goals;
mod grpc;
mod hazards;
mod http;
mod idle;
mod load;
mod machine;
mod network;
#[path = "../hazards/observer.rs"]
mod observer;
mod options;
mod page;
mod plot;
mod process;
mod recording;
mod relay;
mod sse;
mod start;
mod stats;
mod tally;
mod tls;
mod turns;
mod upstream;
mod websocket;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use bare::Bare;
use gateway::{Gateway, Setup};
use load::Door;
use machine::Machine;
use options::Options;
use recording::Recording;
use tally::Prompt;
use upstream::Upstream;

/// Errors are printed for a person, so they are not typed.
type BenchResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// All measurements.
#[derive(Debug)]
struct Results {
    machine: Machine,
    supervisor_ms: f64,
    starts: Vec<start::Start>,
    turns: turns::Turns,
    conversations: conversations::Conversations,
    network: network::Network,
    cancels: Vec<cancel::Cancel>,
    deltas: Vec<deltas::Row>,
    idles: Vec<idle::Idle>,
    floods: Vec<flood::Flood>,
    hazards: Vec<hazards::Hazard>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let upstream = arguments.next_if(|argument| argument == "upstream").is_some();
    // One thread, so that the load generator takes as little as possible of the two cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            if upstream {
                return upstream::serve().await;
            }
            let options = Options::read(arguments)?;
            tokio::select! {
                outcome = measure(&options) => outcome,
                signal = tokio::signal::ctrl_c() => Err(signal.map_or_else(Into::into, |()| "interrupted".into())),
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: &Options) -> BenchResult<()> {
    let folder = tempfile::Builder::new().prefix("codex-api-bench-").tempdir()?;
    let machine = Machine::read(options, folder.path()).await?;
    let mut results = Results {
        machine,
        supervisor_ms: f64::NAN,
        starts: Vec::new(),
        turns: turns::Turns::default(),
        conversations: conversations::Conversations::default(),
        network: network::Network::default(),
        cancels: Vec::new(),
        deltas: Vec::new(),
        idles: Vec::new(),
        floods: Vec::new(),
        hazards: Vec::new(),
    };
    let outcome = all(options, &folder, &mut results).await;
    if let Err(error) = &outcome {
        // The logs contain the cause.
        let kept = folder.keep();
        options.log_progress(&format!("failed: {error}; logs are kept in {}", kept.display()));
    }
    outcome?;
    page::write(&results, options)?;
    for goal in goals::all(&results) {
        options.log_progress(&format!(
            "{}: {} (target: {}): {}",
            goal.verdict(),
            goal.label,
            goal.target,
            goal.measured
        ));
    }
    options.log_progress(&format!("see {}", options.out.join("benchmarks.md").display()));
    Ok(())
}

async fn all(options: &Options, folder: &TempDir, results: &mut Results) -> BenchResult<()> {
    let folder = folder.path();
    let mut upstream = Upstream::start(folder).await?;
    if let Some(bundle) = &options.bundle {
        tls::trust(bundle, &upstream.authority)?;
    }
    let supervisor_seconds = start::supervisor_seconds(&options.gateway, folder).await?;
    results.supervisor_ms = supervisor_seconds * 1000.0;
    let stage = Stage { options, folder, base_url: upstream.base_url() };
    if options.is_selected("start") {
        results.starts = start::measure(&[stage.real("app-server"), stage.real("exec")], options).await?;
    }
    if options.is_selected("turns") || options.is_selected("cancel") {
        let servers = turns::Servers {
            app_server: Gateway::start(&stage.real("app-server")).await?,
            exec: Gateway::start(&stage.real("exec")).await?,
            bare: stage.bare(&stage.real("app-server")).await?,
            supervisor_seconds,
            upstream,
        };
        if options.is_selected("turns") {
            results.turns = turns::measure(&servers, options).await?;
        }
        if options.is_selected("cancel") {
            results.cancels = cancel::measure(&servers, options).await?;
        }
        servers.app_server.end().await?;
        servers.exec.end().await?;
        end(servers.bare).await?;
        upstream = servers.upstream;
    }
    if options.is_selected("conversations") {
        let setup = stage.chat();
        let servers = conversations::Servers {
            gateway: Gateway::start(&setup).await?,
            replica: Gateway::start(&Setup { name: "replica".to_owned(), ..setup.clone() }).await?,
            bare: stage.recorded(&setup, Some(conversations::tools_request)).await?,
            upstream,
        };
        results.conversations = conversations::measure(&servers, options).await?;
        servers.gateway.end().await?;
        servers.replica.end().await?;
        end(servers.bare).await?;
        upstream = servers.upstream;
    }
    if options.is_selected("network") {
        results.network = network::measure(&stage, &upstream).await?;
    }
    if options.is_selected("deltas") || options.is_selected("flood") {
        let servers = deltas::Servers {
            gateway: Gateway::start(&stage.fake()).await?,
            bare: stage.bare(&stage.fake()).await?,
        };
        if options.is_selected("deltas") {
            results.deltas = deltas::measure(&servers, options).await?;
        }
        if options.is_selected("flood") {
            results.floods = flood::ours(&servers.gateway, options).await?;
        }
        servers.gateway.end().await?;
        end(servers.bare).await?;
    }
    if let Some(litellm) = options.litellm.as_ref().filter(|_| options.is_selected("flood")) {
        match flood::litellm(litellm, &upstream, folder, options).await {
            Ok(flood) => results.floods.push(flood),
            // LiteLLM may fail; the other measurements are kept.
            Err(error) => options.log_progress(&format!("LiteLLM could not be measured: {error}")),
        }
    }
    if options.is_selected("idle") {
        results.idles = idle::measure(&stage.fake(), options).await?;
    }
    if options.is_selected("hazards") {
        results.hazards = hazards::measure(&stage.fake(), options).await?;
    }
    upstream.program.end().await
}

async fn end(bare: Arc<Bare>) -> BenchResult<()> {
    Arc::into_inner(bare).ok_or("the bare client is still in use")?.end().await
}

/// Settings that all servers share.
struct Stage<'a> {
    options: &'a Options,
    folder: &'a Path,
    base_url: String,
}

impl Stage<'_> {
    /// Starts a server with the real CLI and the bench's upstream, without a limit that would refuse requests.
    fn real(&self, engine: &'static str) -> Setup {
        // More codex processes than this only compete for memory.
        let running = if engine == "exec" { "16" } else { "64" };
        Setup {
            gateway: self.options.gateway.clone(),
            codex: self.options.codex.clone(),
            engine,
            base_url: Some(self.base_url.clone()),
            builtin: false,
            settings: self
                .settings(engine, &[("CODEX_MAX_CONCURRENCY", running), ("CODEX_MAX_QUEUE", "256")]),
            folder: self.folder.to_owned(),
            name: format!("real-{engine}"),
        }
    }

    /// Starts a server with the real CLI as a plain model, as chat clients use it.
    fn chat(&self) -> Setup {
        let mut setup = self.real("app-server");
        setup.settings.insert(0, ("CODEX_PROFILE".to_owned(), "chat".to_owned()));
        "conversations".clone_into(&mut setup.name);
        setup
    }

    fn fake(&self) -> Setup {
        const MANY: &str = "1200";
        let settings =
            [("CODEX_MAX_CONCURRENCY", MANY), ("CODEX_MAX_QUEUE", MANY), ("CODEX_MAX_CONNECTIONS", "4096")];
        Setup {
            codex: self.options.fake.clone(),
            base_url: None,
            settings: self.settings("app-server", &settings),
            name: "fake".to_owned(),
            ..self.real("app-server")
        }
    }

    fn settings(&self, engine: &str, ours: &[(&str, &str)]) -> Vec<(String, String)> {
        let ours = ours.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let chosen = self.options.set.iter().filter(|_| engine == "app-server");
        ours.chain(chosen.cloned()).collect()
    }

    /// Starts the bare client with a fresh recording of this server.
    async fn bare(&self, setup: &Setup) -> BenchResult<Arc<Bare>> {
        self.recorded(setup, None).await
    }

    /// Starts the bare client with a recording of a turn, whose request has this body or is that of the load generator.
    async fn recorded(&self, setup: &Setup, body: Option<fn(&Prompt) -> String>) -> BenchResult<Arc<Bare>> {
        let folder = self.folder.join(format!("{}-recording", setup.name));
        std::fs::create_dir_all(&folder)?;
        let mut recorded = setup.clone();
        recorded.codex = recording::script(&folder, &setup.codex)?;
        recorded.name = format!("{}-recorded", setup.name);
        let gateway = Gateway::start(&recorded).await?;
        let mut prompt = Prompt::upstream(1, Duration::ZERO);
        if setup.base_url.is_none() {
            prompt.model = Prompt::fake("stream:1:1").model;
        }
        match body {
            Some(body) => drop(
                sse::Client::new(gateway.address).ask(&body(&prompt), &mut tally::Tally::default()).await?,
            ),
            None => drop(
                load::closed_loop(&Door::Sse(gateway.address), 1, 1, &prompt, Duration::from_secs(30))
                    .await?,
            ),
        }
        let recording = Recording::read(&folder, &setup.codex, &prompt)?;
        let workers = recording::workers(&folder)?;
        Ok(Arc::new(Bare::start(gateway, recording, workers, self.folder).await?))
    }
}
