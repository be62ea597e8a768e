//! Turns through the real CLI: the bare client, the app-server engine over both doors and the exec engine, side by side
//! in each round, with an instant and a slow upstream.

use std::{sync::Arc, time::Duration};

use crate::{
    BenchResult,
    bare::Bare,
    gateway::Gateway,
    load::{Door, Run, closed_loop},
    options::Options,
    process::{Cost, Memory, process_time},
    stats::{Spread, float, median},
    tally::Prompt,
    upstream::Upstream,
};

/// Pace of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Instant,
    Slow,
}

impl Pace {
    pub(crate) const ALL: [Self; 2] = [Self::Instant, Self::Slow];

    pub(crate) fn prompt(self) -> Prompt {
        match self {
            Self::Instant => Prompt::upstream(20, Duration::ZERO),
            Self::Slow => Prompt::upstream(SLOW_TOKENS, SLOW_PAUSE),
        }
    }

    pub(crate) fn label(self) -> String {
        match self {
            Self::Instant => "20 tokens at once".to_owned(),
            Self::Slow => format!("{SLOW_TOKENS} tokens, {} ms each", SLOW_PAUSE.as_millis()),
        }
    }
}

/// A short answer: two seconds of text.
pub(crate) const SLOW_TOKENS: usize = 40;
const SLOW_PAUSE: Duration = Duration::from_millis(50);

/// The server or client that runs the turns of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Bare,
    Http,
    Grpc,
    Exec,
}

impl Contender {
    pub(crate) const ALL: [Self; 4] = [Self::Bare, Self::Http, Self::Grpc, Self::Exec];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare client",
            Self::Http => "app-server, HTTP",
            Self::Grpc => "app-server, gRPC",
            Self::Exec => "exec, HTTP",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) first: Spread,
    pub(crate) per_second: f64,
    /// Milliseconds of processor time per turn.
    pub(crate) gateway_ms: f64,
    pub(crate) cli_ms: f64,
    /// Time of the load generator and the upstream together.
    pub(crate) load_ms: f64,
    /// Latency from the upstream's write of a token to the client's read.
    pub(crate) lag: Spread,
    pub(crate) failures: usize,
}

/// One row of the table with its rounds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) contender: Contender,
    pub(crate) pace: Pace,
    pub(crate) clients: usize,
    pub(crate) rounds: Vec<Sample>,
    /// Memory of the gateway and of all its CLI processes, after the last round.
    pub(crate) memory: (Memory, Memory),
}

impl Row {
    pub(crate) fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Turns(pub(crate) Vec<Row>);

impl Turns {
    pub(crate) fn row(&self, contender: Contender, pace: Pace, clients: usize) -> Option<&Row> {
        self.0.iter().find(|row| (row.contender, row.pace, row.clients) == (contender, pace, clients))
    }

    /// Returns the median over the rounds of the ratio of two values of the same round.
    pub(crate) fn ratio(
        &self,
        over: (Contender, Pace, usize),
        under: (Contender, Pace, usize),
        value: impl Fn(&Sample) -> f64,
    ) -> f64 {
        let (Some(over), Some(under)) =
            (self.row(over.0, over.1, over.2), self.row(under.0, under.1, under.2))
        else {
            return f64::NAN;
        };
        median(over.rounds.iter().zip(&under.rounds).map(|(one, other)| value(one) / value(other)))
    }
}

/// The servers under comparison.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) upstream: Upstream,
    pub(crate) app_server: Gateway,
    pub(crate) exec: Gateway,
    pub(crate) bare: Arc<Bare>,
    /// Processor seconds for supervising one process.
    pub(crate) supervisor_seconds: f64,
}

const CLIENTS: [usize; 4] = [1, 4, 16, 64];

pub(crate) async fn measure(servers: &Servers, options: &Options) -> BenchResult<Turns> {
    let mut turns = Turns::default();
    for pace in Pace::ALL {
        for &clients in options.pick(&[1, 16, 64][..], &CLIENTS) {
            for contender in Contender::ALL {
                let memory = Default::default();
                turns.0.push(Row { contender, pace, clients, rounds: Vec::new(), memory });
            }
        }
    }
    let rounds = options.pick(1, 3);
    for round in 0..rounds {
        // Every second round runs in reverse order, so that no server is always the first.
        let count = turns.0.len();
        for group in (0..count).step_by(Contender::ALL.len()) {
            for at in 0..Contender::ALL.len() {
                let at = if round % 2 == 0 { at } else { Contender::ALL.len() - 1 - at };
                let row = &mut turns.0[group + at];
                // Slow servers run once; the ratios pair this with the first round.
                let too_long = options.quick && row.pace == Pace::Slow && row.clients > 16;
                if row.contender == Contender::Exec && (round > 0 || too_long) {
                    continue;
                }
                options.log_progress(&format!(
                    "turns, round {} of {rounds}: {}, {}, {} clients",
                    round + 1,
                    row.contender.label(),
                    row.pace.label(),
                    row.clients
                ));
                let sample = sample(servers, row.contender, row.pace, row.clients, options).await?;
                row.rounds.push(sample);
                let gateway = match row.contender {
                    Contender::Bare => continue,
                    Contender::Http | Contender::Grpc => &servers.app_server,
                    Contender::Exec => &servers.exec,
                };
                row.memory = (gateway.memory(), Memory::read_clis_below(gateway.pid()));
            }
        }
    }
    Ok(turns)
}

/// Returns the number of turns of a measurement.
fn count(contender: Contender, pace: Pace, clients: usize, options: &Options) -> usize {
    let full = match (contender, pace) {
        (Contender::Exec, Pace::Instant) => clients.max(6),
        (Contender::Exec, Pace::Slow) => clients.max(2),
        (Contender::Bare | Contender::Http | Contender::Grpc, Pace::Instant) => (clients * 8).clamp(60, 320),
        (Contender::Bare | Contender::Http | Contender::Grpc, Pace::Slow) => (clients * 2).max(5),
    };
    options.pick(full.div_ceil(3).max(clients).min(full), full)
}

async fn sample(
    servers: &Servers,
    contender: Contender,
    pace: Pace,
    clients: usize,
    options: &Options,
) -> BenchResult<Sample> {
    let (door, cost): (Door, Box<dyn Fn() -> Cost + '_>) = match contender {
        Contender::Bare => {
            let bare = Arc::clone(&servers.bare);
            (Door::Bare(bare), Box::new(|| Cost::read_clis(servers.bare.pids())))
        }
        Contender::Http => (Door::Sse(servers.app_server.address), Box::new(|| servers.app_server.cost())),
        Contender::Grpc => (Door::Grpc(servers.app_server.address), Box::new(|| servers.app_server.cost())),
        Contender::Exec => (Door::Sse(servers.exec.address), Box::new(|| servers.exec.cost())),
    };
    let load = || process_time(std::process::id()) + process_time(servers.upstream.program.pid);
    let prompt = pace.prompt();
    let turns = count(contender, pace, clients, options);
    let (before, load_before) = (cost(), load());
    let Run { wall, tally } = closed_loop(&door, clients, turns, &prompt, Duration::from_secs(120)).await?;
    if contender == Contender::Exec {
        settle(&servers.exec).await?;
    }
    let (mut spent, load_spent) = (cost().since(before), load() - load_before);
    let done = float(tally.turns());
    if contender == Contender::Exec {
        // The supervisors were reaped together with their children.
        spent.gateway += servers.supervisor_seconds * done;
        spent.cli -= servers.supervisor_seconds * done;
    }
    Ok(Sample {
        first: tally.first_token(),
        per_second: done / wall.as_secs_f64(),
        gateway_ms: spent.gateway * 1000.0 / done,
        cli_ms: spent.cli * 1000.0 / done,
        load_ms: load_spent * 1000.0 / done,
        lag: tally.lag(),
        failures: tally.failures.len(),
    })
}

/// Waits until the last process of the last turn is reaped, so that its time counts.
async fn settle(gateway: &Gateway) -> BenchResult<()> {
    for _ in 0..2000 {
        if gateway.running().await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err("turns of the exec engine do not end".into())
}
