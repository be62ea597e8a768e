//! Deltas per second of processor time, compared with LiteLLM's proxy, unlimited and paced. Our server relays the
//! output of the fake codex, LiteLLM that of a fake chat completions API. Only the proxy's own time counts.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    BenchResult,
    gateway::{Gateway, free_address, tail},
    http,
    load::{Door, closed_loop, staggered},
    options::Options,
    process::{Cost, Memory, Program},
    stats::{Spread, float},
    tally::{Prompt, Tally},
    upstream::Upstream,
};

/// Results of one proxy.
#[derive(Debug)]
pub(crate) struct Flood {
    pub(crate) proxy_name: String,
    /// Unlimited: deltas per second, and per second of its processor time.
    pub(crate) per_second: f64,
    pub(crate) per_cpu_second: f64,
    pub(crate) deltas_per_frame: f64,
    /// Paced.
    pub(crate) paced: Paced,
    pub(crate) memory: Memory,
}

/// Results for streams of twenty deltas a second.
#[derive(Debug)]
pub(crate) struct Paced {
    pub(crate) per_cpu_second: f64,
    pub(crate) lag: Spread,
}

/// Name of the other proxy.
pub(crate) const LITELLM: &str = "LiteLLM";
/// Number of unlimited streams.
pub(crate) const STREAMS: usize = 16;
/// Number of paced streams; LiteLLM can serve these.
pub(crate) const PACED_STREAMS: usize = 16;

const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn ours(gateway: &Gateway, options: &Options) -> BenchResult<Vec<Flood>> {
    let mut floods = Vec::new();
    let deltas = options.pick(4_000, 20_000);
    for (proxy_name, door) in
        [("ours, SSE", Door::Sse(gateway.address)), ("ours, gRPC", Door::Grpc(gateway.address))]
    {
        options.log_progress(&format!("flood: {proxy_name}"));
        let cost = || gateway.cost().gateway;
        let (flood, paced) = both(
            &door,
            &cost,
            &|count, pause: Duration| Prompt::fake(&format!("stream:{count}:{}", pause.as_millis())),
            deltas,
            options,
        )
        .await?;
        floods.push(flood.named(proxy_name, &paced, gateway.memory()));
    }
    Ok(floods)
}

pub(crate) async fn litellm(
    program: &Path,
    upstream: &Upstream,
    folder: &Path,
    options: &Options,
) -> BenchResult<Flood> {
    options.log_progress("flood: LiteLLM");
    let mut proxy = LiteLlm::start(program, upstream, folder).await?;
    let prompt =
        |count: usize, pause: Duration| Prompt { model: "fake".to_owned(), ..Prompt::upstream(count, pause) };
    let pid = proxy.program.pid;
    let cost = || Cost::read_clis([pid]).cli;
    let door = Door::Sse(proxy.address);
    let (flood, paced) = both(&door, &cost, &prompt, options.pick(100, 400), options).await?;
    let flood = flood.named(LITELLM, &paced, Memory::read(pid));
    proxy.program.end().await?;
    Ok(flood)
}

async fn both(
    door: &Door,
    cost: &dyn Fn() -> f64,
    prompt: &dyn Fn(usize, Duration) -> Prompt,
    deltas: usize,
    options: &Options,
) -> BenchResult<(Sample, Sample)> {
    // Excludes the cost of the first request.
    closed_loop(door, STREAMS, STREAMS * 2, &prompt(50, Duration::ZERO), LIMIT).await?;
    let before = cost();
    let run = closed_loop(door, STREAMS, STREAMS, &prompt(deltas, Duration::ZERO), LIMIT).await?;
    let flood = Sample { seconds: run.wall.as_secs_f64(), cpu: cost() - before, tally: run.tally };
    let (pause, count) = (Duration::from_millis(50), options.pick(40, 120));
    let before = cost();
    let run = staggered(door, PACED_STREAMS, &prompt(count, pause), pause, LIMIT).await?;
    let paced = Sample { seconds: run.wall.as_secs_f64(), cpu: cost() - before, tally: run.tally };
    Ok((flood, paced))
}

struct Sample {
    seconds: f64,
    cpu: f64,
    tally: Tally,
}

impl Sample {
    fn per_cpu_second(&self) -> f64 {
        float(self.tally.lags.len()) / self.cpu
    }

    fn named(self, proxy_name: &str, paced: &Self, memory: Memory) -> Flood {
        Flood {
            proxy_name: proxy_name.to_owned(),
            per_second: float(self.tally.lags.len()) / self.seconds,
            per_cpu_second: self.per_cpu_second(),
            deltas_per_frame: self.tally.deltas_per_frame(),
            paced: Paced { per_cpu_second: paced.per_cpu_second(), lag: paced.tally.lag() },
            memory,
        }
    }
}

struct LiteLlm {
    program: Program,
    address: SocketAddr,
}

impl LiteLlm {
    async fn start(program: &Path, upstream: &Upstream, folder: &Path) -> BenchResult<Self> {
        let home = folder.join("litellm");
        fs::create_dir_all(&home)?;
        let config = home.join("config.yaml");
        fs::write(
            &config,
            format!(
                "model_list:\n  - model_name: fake\n    litellm_params:\n      model: openai/fake\n      \
                 api_base: {}\n      api_key: bench\nlitellm_settings:\n  telemetry: false\n",
                upstream.base_url()
            ),
        )?;
        let address = free_address()?;
        let port = address.port().to_string();
        let flags = [
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--num_workers",
            "1",
            "--telemetry",
            "False",
            "--config",
        ];
        let mut arguments: Vec<OsString> = flags.map(OsString::from).to_vec();
        arguments.push(config.into());
        let env: BTreeMap<OsString, OsString> = [
            ("PATH", std::env::var_os("PATH").unwrap_or_default()),
            ("HOME", home.clone().into()),
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True".into()),
            // No key is needed: the proxy listens on loopback for a minute.
            ("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true".into()),
            ("NO_PROXY", "127.0.0.1".into()),
            ("LITELLM_LOG", "ERROR".into()),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        let log = home.join("log");
        let mut program = Program::start(program, &arguments, &env, &home, &log)?;
        let started = Instant::now();
        while !http::get(address, "/health/liveliness").await.is_ok_and(|answer| answer.status == 200) {
            if started.elapsed() > LIMIT || program.child.try_wait()?.is_some() {
                return Err(format!("LiteLLM does not start: {}", tail(&log)).into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(Self { program, address })
    }
}
