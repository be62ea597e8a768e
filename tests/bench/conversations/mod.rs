//! Conversations through the real CLI: the bare client in two recipes, with a fresh thread for each request and with one
//! thread for all turns, and the gateway over both doors, which gets the whole history with each request.

pub(crate) mod table;
mod talk;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    BenchResult,
    bare::{Bare, Thread},
    cache::Totals,
    gateway::Gateway,
    load::{Client, Door},
    options::Options,
    process::{Cost, Memory, process_time},
    sse,
    stats::{Spread, float, median},
    tally::Tally,
    upstream::Upstream,
};

pub(crate) use talk::tools_request;

/// The turns of a conversation.
pub(crate) const TURNS: usize = 8;

/// The turns of a conversation that shows what a cache would hit.
const CACHED_TURNS: usize = 10;

/// The turns and conversations that show what a kept thread costs.
const HELD_TURNS: usize = 2;
const HELD: usize = 16;

/// Maximum time of one measurement.
const LIMIT: Duration = Duration::from_secs(300);

/// The client or door of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Each request has a thread of its own with the whole history.
    Fresh,
    /// One thread has all turns, and gets the new items only.
    Continued,
    Http,
    Grpc,
}

impl Contender {
    pub(crate) const ALL: [Self; 4] = [Self::Fresh, Self::Continued, Self::Http, Self::Grpc];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Fresh => "bare client, fresh",
            Self::Continued => "bare client, continued",
            Self::Http => "app-server, HTTP",
            Self::Grpc => "app-server, gRPC",
        }
    }
}

/// The size and kind of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Size of the history before the first turn.
    pub(crate) kilobytes: usize,
    /// Each turn begins with a call of a client's tool.
    pub(crate) tools: bool,
}

impl Shape {
    pub(crate) fn label(self) -> String {
        let tools = if self.tools { ", a tool call in each turn" } else { "" };
        format!("{} kB{tools}", self.kilobytes)
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// First token of the turns behind the first one. With tools: from the result of the call.
    pub(crate) first: Spread,
    pub(crate) per_second: f64,
    /// Milliseconds of processor time per turn.
    pub(crate) gateway_ms: f64,
    pub(crate) cli_ms: f64,
    pub(crate) load_ms: f64,
    /// Bytes to the upstream per turn, in kB.
    pub(crate) sent_kb: f64,
    /// Conversations that a failed turn ended. Their turns do not count.
    pub(crate) failures: usize,
}

/// One row of the table with its rounds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) contender: Contender,
    pub(crate) shape: Shape,
    pub(crate) clients: usize,
    pub(crate) rounds: Vec<Sample>,
}

impl Row {
    pub(crate) fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }
}

/// What is measured once for a contender and a shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) contender: Contender,
    pub(crate) shape: Shape,
    /// The bytes that a cache would hit, as a share of the former request of the same conversation.
    pub(crate) of_former: f64,
    /// The same as a share of all input.
    pub(crate) of_input: f64,
    /// The share of the former request if two servers get the requests in turn. Only over HTTP.
    pub(crate) of_former_replicas: Option<f64>,
    /// Growth of the memory per conversation: gateway and CLI, in KiB.
    pub(crate) kept: (f64, f64),
}

/// All rows and facts.
#[derive(Debug, Default)]
pub(crate) struct Conversations {
    pub(crate) rows: Vec<Row>,
    pub(crate) facts: Vec<Facts>,
}

impl Conversations {
    pub(crate) fn row(&self, contender: Contender, shape: Shape, clients: usize) -> Option<&Row> {
        self.rows.iter().find(|row| (row.contender, row.shape, row.clients) == (contender, shape, clients))
    }

    pub(crate) fn fact(&self, contender: Contender, shape: Shape) -> Option<&Facts> {
        self.facts.iter().find(|fact| (fact.contender, fact.shape) == (contender, shape))
    }

    /// Returns the median over the rounds of the ratio of a row's value to that of another contender in the same round.
    pub(crate) fn ratio(&self, row: &Row, under: Contender, value: impl Fn(&Sample) -> f64) -> f64 {
        let Some(under) = self.row(under, row.shape, row.clients) else { return f64::NAN };
        median(row.rounds.iter().zip(&under.rounds).map(|(one, other)| value(one) / value(other)))
    }
}

/// The servers under comparison.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) upstream: Upstream,
    pub(crate) gateway: Gateway,
    /// Shares no state with the other one.
    pub(crate) replica: Gateway,
    pub(crate) bare: Arc<Bare>,
}

pub(crate) async fn measure(servers: &Servers, options: &Options) -> BenchResult<Conversations> {
    let shapes = |tools| {
        let sizes = options.pick(&[1, 100][..], &[1, 10, 100]);
        sizes.iter().map(move |&kilobytes| Shape { kilobytes, tools })
    };
    let shapes: Vec<Shape> = shapes(false).chain(shapes(true)).collect();
    let mut found = Conversations { rows: Vec::new(), facts: facts(servers, &shapes, options).await? };
    for &shape in &shapes {
        for &clients in options.pick(&[1, 16][..], &[1, 4, 16, 64]) {
            let row = |contender| Row { contender, shape, clients, rounds: Vec::new() };
            found.rows.extend(Contender::ALL.map(row));
        }
    }
    let rounds = options.pick(1, 3);
    for round in 0..rounds {
        // Every second round runs in reverse order, so that no contender is always the first.
        let count = Contender::ALL.len();
        for group in found.rows.chunks_mut(count) {
            for at in 0..count {
                let row = &mut group[if round % 2 == 0 { at } else { count - 1 - at }];
                options.log_progress(&format!(
                    "conversations, round {} of {rounds}: {}, {}, {} clients",
                    round + 1,
                    row.contender.label(),
                    row.shape.label(),
                    row.clients
                ));
                row.rounds.push(sample(servers, row, options).await?);
            }
        }
    }
    Ok(found)
}

/// A number of conversations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) contender: Contender,
    pub(crate) shape: Shape,
    pub(crate) clients: usize,
    pub(crate) conversations: usize,
    pub(crate) turns: usize,
    /// The first request has an answer in its history, which another server gave.
    pub(crate) resumed: bool,
    /// The bare client holds the threads of its continued recipe. Otherwise it releases each at the end of its conversation,
    /// as the gateway releases one for each that it keeps beyond its bound.
    pub(crate) hold: bool,
}

/// The outcome of a plan.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) wall: Duration,
    pub(crate) tally: Tally,
    /// The threads that the bare client holds.
    held: Vec<Thread>,
}

impl Servers {
    fn door(&self, contender: Contender) -> Door {
        match contender {
            Contender::Fresh | Contender::Continued => Door::Bare(Arc::clone(&self.bare)),
            Contender::Http => Door::Sse(self.gateway.address),
            Contender::Grpc => Door::Grpc(self.gateway.address),
        }
    }
}

async fn sample(servers: &Servers, row: &Row, options: &Options) -> BenchResult<Sample> {
    let Row { contender, shape, clients, .. } = *row;
    let conversations = options.pick((clients * 2).max(8), (clients * 4).clamp(16, 64));
    let cost = || match contender {
        Contender::Fresh | Contender::Continued => Cost::read_clis(servers.bare.pids()),
        Contender::Http | Contender::Grpc => servers.gateway.cost(),
    };
    let load = || process_time(std::process::id()) + process_time(servers.upstream.program.pid);
    let plan = Plan { contender, shape, clients, conversations, turns: TURNS, resumed: false, hold: false };
    let (before, load_before, sent) = (cost(), load(), servers.upstream.state().await?.received);
    let Outcome { wall, tally, .. } = run(&servers.door(contender), plan).await?;
    let (spent, load_spent) = (cost().since(before), load() - load_before);
    let sent = servers.upstream.state().await?.received - sent;
    let done = float(tally.turns());
    Ok(Sample {
        first: tally.first_tokens(TURNS).1,
        per_second: done / wall.as_secs_f64(),
        gateway_ms: spent.gateway * 1000.0 / done,
        cli_ms: spent.cli * 1000.0 / done,
        load_ms: load_spent * 1000.0 / done,
        sent_kb: float(sent) / 1000.0 / done,
        failures: tally.failures.len(),
    })
}

/// Measures the cacheable share and the memory of kept threads, on servers that have kept none.
async fn facts(servers: &Servers, shapes: &[Shape], options: &Options) -> BenchResult<Vec<Facts>> {
    let mut facts = Vec::new();
    // All threads stay until the end. Memory of released ones would be used again.
    let mut kept = Vec::new();
    // The first turns of a worker use memory of their own.
    for contender in Contender::ALL {
        let warm = Plan {
            contender,
            shape: shapes[0],
            clients: 4,
            conversations: 8,
            turns: 1,
            resumed: true,
            hold: false,
        };
        run(&servers.door(contender), warm).await?;
    }
    for &shape in shapes {
        for contender in Contender::ALL {
            options.log_progress(&format!("conversations, facts: {}, {}", contender.label(), shape.label()));
            let one = Plan {
                contender,
                shape,
                clients: 1,
                conversations: 1,
                turns: CACHED_TURNS,
                resumed: true,
                hold: false,
            };
            servers.upstream.record().await?;
            run(&servers.door(contender), one).await?;
            let cache = servers.upstream.end_record().await?;
            let of_former_replicas = match contender {
                Contender::Http => Some(of_former(alternate(servers, one).await?)),
                Contender::Fresh | Contender::Continued | Contender::Grpc => None,
            };
            let memory = || match contender {
                Contender::Fresh | Contender::Continued => (0.0, memory_of(servers.bare.pids())),
                Contender::Http | Contender::Grpc => {
                    let clis = Memory::read_clis_below(servers.gateway.pid());
                    (servers.gateway.memory().anonymous, clis.anonymous)
                }
            };
            let before = memory();
            let plan = Plan {
                contender,
                shape,
                clients: 4,
                conversations: HELD,
                turns: HELD_TURNS,
                resumed: false,
                hold: true,
            };
            kept.extend(run(&servers.door(contender), plan).await?.held);
            let after = memory();
            let each = |before: f64, after: f64| (after - before) / float(HELD);
            facts.push(Facts {
                contender,
                shape,
                of_former: of_former(cache),
                of_input: float(cache.hit) / float(cache.whole),
                of_former_replicas,
                kept: (each(before.0, after.0), each(before.1, after.1)),
            });
        }
    }
    for thread in kept {
        thread.unsubscribe().await?;
    }
    Ok(facts)
}

fn of_former(totals: Totals) -> f64 {
    float(totals.hit) / float(totals.former)
}

/// Returns what a cache would hit in a conversation whose requests two servers get in turn.
async fn alternate(servers: &Servers, plan: Plan) -> BenchResult<Totals> {
    let [mut one, mut other] =
        [&servers.gateway, &servers.replica].map(|gateway| sse::Client::new(gateway.address));
    servers.upstream.record().await?;
    let mut ask = talk::Replicas::new([&mut one, &mut other], plan.shape.tools);
    talk::talk(&mut ask, plan, &mut Tally::default()).await?;
    servers.upstream.end_record().await
}

fn memory_of(pids: impl Iterator<Item = u32>) -> f64 {
    let processes = pids.flat_map(crate::process::tree);
    processes.map(|pid| Memory::read(pid).anonymous).filter(|memory| memory.is_finite()).sum()
}

/// Runs the conversations of a plan, with one client for each conversation at a time.
pub(crate) async fn run(door: &Door, plan: Plan) -> BenchResult<Outcome> {
    let left = Arc::new(AtomicUsize::new(plan.conversations));
    let clients = door.clients(plan.clients).await?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            let (mut tally, mut held) = (Tally::default(), Vec::new());
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                let mut one = Tally::default();
                match converse(&mut client, plan, &mut one).await {
                    Ok(thread) => {
                        held.extend(thread);
                        tally.add(one);
                    }
                    Err(error) => tally.failures.push(error.to_string()),
                }
            }
            (tally, held)
        });
    }
    let mut outcome = Outcome::default();
    let all = async {
        while let Some(one) = tasks.join_next().await {
            let (tally, held) = one?;
            outcome.tally.add(tally);
            outcome.held.extend(held);
        }
        BenchResult::Ok(())
    };
    tokio::time::timeout(LIMIT, all).await.map_err(|_| "the conversations take too long")??;
    outcome.wall = started.elapsed();
    let failures = &outcome.tally.failures;
    match failures.first().filter(|_| failures.len() * 20 > plan.conversations) {
        Some(failure) => {
            let (failed, label) = (failures.len(), plan.contender.label());
            Err(format!("{failed} of {} conversations of {label} failed: {failure}", plan.conversations)
                .into())
        }
        None => Ok(outcome),
    }
}

/// Runs one conversation. Returns the thread that the bare client holds.
async fn converse(client: &mut Client, plan: Plan, tally: &mut Tally) -> BenchResult<Option<Thread>> {
    let tools = plan.shape.tools;
    match client {
        Client::Sse(client) => {
            talk::talk(&mut talk::Http::new(client, tools), plan, tally).await?;
        }
        Client::Grpc(client) => {
            talk::talk(&mut talk::Grpc::new(client, tools), plan, tally).await?;
        }
        Client::Bare(bare) if plan.contender == Contender::Fresh => {
            talk::talk(&mut talk::Fresh::new(bare, tools), plan, tally).await?;
        }
        Client::Bare(bare) => {
            let mut asker = talk::Continued::new(bare, tools);
            talk::talk(&mut asker, plan, tally).await?;
            match asker.into_thread() {
                Some(thread) if !plan.hold => thread.unsubscribe().await?,
                held => return Ok(held),
            }
        }
    }
    Ok(None)
}
