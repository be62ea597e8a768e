//! The gateway's share of each delta's latency. The fake codex writes the time of sending into each delta: many streams
//! at twenty deltas a second each, over both doors and directly from the fake codex.

use std::{sync::Arc, time::Duration};

use crate::{
    BenchResult,
    bare::Bare,
    gateway::Gateway,
    load::{Door, staggered},
    options::Options,
    process::Cost,
    stats::{Spread, float, median, micros, now_us},
    tally::Prompt,
};

/// Interval between two deltas of a stream.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The reader of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Bare,
    Sse,
    Grpc,
}

impl Path {
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Sse, Self::Grpc];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare client",
            Self::Sse => "SSE",
            Self::Grpc => "gRPC",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) lag: Spread,
    /// Share of the expected deltas that arrived.
    pub(crate) delivered: f64,
    /// Processor time of the gateway per delta, in microseconds.
    pub(crate) gateway_us: f64,
    /// Processor seconds per second of the window: gateway and fake codex.
    pub(crate) cores: (f64, f64),
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) path: Path,
    pub(crate) streams: usize,
    pub(crate) rounds: Vec<Sample>,
}

impl Row {
    pub(crate) fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }
}

/// The servers under test.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) gateway: Gateway,
    pub(crate) bare: Arc<Bare>,
}

pub(crate) async fn measure(servers: &Servers, options: &Options) -> BenchResult<Vec<Row>> {
    let mut rows = Vec::new();
    for &streams in options.pick(&[1, 64, 256][..], &[1, 64, 256, 1000]) {
        rows.extend(Path::ALL.map(|path| Row { path, streams, rounds: Vec::new() }));
    }
    let rounds = options.pick(1, 3);
    for round in 1..=rounds {
        for row in &mut rows {
            let (path, streams) = (row.path, row.streams);
            options.log_progress(&format!(
                "deltas, round {round} of {rounds}: {}, {streams} streams",
                path.label()
            ));
            row.rounds.push(sample(servers, path, streams, options).await?);
        }
    }
    Ok(rows)
}

async fn sample(servers: &Servers, path: Path, streams: usize, options: &Options) -> BenchResult<Sample> {
    let door = match path {
        Path::Bare => Door::Bare(Arc::clone(&servers.bare)),
        Path::Sse => Door::Sse(servers.gateway.address),
        Path::Grpc => Door::Grpc(servers.gateway.address),
    };
    let cost = || match path {
        Path::Bare => Cost::read_clis(servers.bare.pids()),
        Path::Sse | Path::Grpc => servers.gateway.cost(),
    };
    let spread = PAUSE.max(Duration::from_micros(2500) * u32::try_from(streams)?);
    let (calm, length) = (Duration::from_millis(500), Duration::from_secs(options.pick(2, 5)));
    // The first stream must outlast the window.
    let deltas = (spread + calm * 2 + length).as_millis().div_ceil(PAUSE.as_millis());
    let prompt = Prompt::fake(&format!("stream:{deltas}:{}", PAUSE.as_millis()));

    let started = now_us();
    let window = async {
        tokio::time::sleep(spread + calm).await;
        let (from, before) = (now_us(), cost());
        tokio::time::sleep(length).await;
        (from..now_us(), cost().since(before))
    };
    let limit = spread * 2 + length * 3 + Duration::from_secs(20);
    let (run, (window, spent)) = tokio::join!(staggered(&door, streams, &prompt, spread, limit), window);
    let tally = run?.tally;
    if window.start < started + micros(spread) {
        return Err("the clock went backwards".into());
    }
    let lag = tally.lag_within(window.clone());
    let seconds = float(window.end - window.start) / 1e6;
    let expected = seconds / PAUSE.as_secs_f64() * float(streams);
    Ok(Sample {
        lag,
        delivered: float(lag.count) / expected,
        gateway_us: spent.gateway * 1e6 / float(lag.count.max(1)),
        cores: (spent.gateway / seconds, spent.cli / seconds),
    })
}
