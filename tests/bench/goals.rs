//! The goals and whether they are reached.

use crate::{
    Results, conversations,
    deltas::{Path, Sample},
    flood,
    hazards::Hazard,
    plot::number,
    stats::median,
    turns::{self, Contender, Pace},
};

/// One goal.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) number: u8,
    pub(crate) label: &'static str,
    pub(crate) target: &'static str,
    pub(crate) measured: String,
    /// `None` if it was not measured.
    pub(crate) reached: Option<bool>,
}

impl Goal {
    pub(crate) fn verdict(&self) -> &'static str {
        match self.reached {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "not measured",
        }
    }
}

pub(crate) fn all(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    first_token(results, &mut goals);
    throughput(results, &mut goals);
    deltas(results, &mut goals);
    costs(results, &mut goals);
    hazards(results, &mut goals);
    conversations(results, &mut goals);
    network(results, &mut goals);
    goals
}

fn first_token(results: &Results, goals: &mut Vec<Goal>) {
    let turns = &results.turns;
    let ratio =
        |pace| turns.ratio((Contender::Http, pace, 1), (Contender::Bare, pace, 1), |sample| sample.first.p50);
    let worst = worst([ratio(Pace::Instant), ratio(Pace::Slow)]);
    goals.push(Goal {
        number: 1,
        label: "first token over HTTP, one client, relative to the bare client (p50, the worse of both upstreams)",
        target: "at most 1.15 ×",
        measured: format!("{} ×", number(worst)),
        reached: at_most(worst, 1.15),
    });
    let sooner = turns
        .ratio((Contender::Exec, Pace::Slow, 1), (Contender::Http, Pace::Slow, 1), |sample| sample.first.p50);
    goals.push(Goal {
        number: 1,
        label: "first token of exec relative to app-server, HTTP, one client, slow upstream (p50)",
        target: "at least 25 ×",
        measured: format!("{} ×", number(sooner)),
        reached: at_least(sooner, 25.0),
    });
}

fn throughput(results: &Results, goals: &mut Vec<Goal>) {
    for (clients, label) in [
        (16, "turns/s over HTTP with 16 clients, relative to the bare client's best of the same round"),
        (64, "turns/s over HTTP with 64 clients, relative to the bare client's best of the same round"),
    ] {
        let ratio = against_best(results, clients);
        goals.push(Goal {
            number: 2,
            label,
            target: "at least 0.9 ×",
            measured: format!("{} ×", number(ratio)),
            reached: at_least(ratio, 0.9),
        });
    }
}

fn against_best(results: &Results, clients: usize) -> f64 {
    let Some(ours) = results.turns.row(Contender::Http, Pace::Instant, clients) else { return f64::NAN };
    let bare: Vec<&turns::Row> = results
        .turns
        .0
        .iter()
        .filter(|row| (row.contender, row.pace) == (Contender::Bare, Pace::Instant))
        .collect();
    let ratios = ours.rounds.iter().enumerate().map(|(round, sample)| {
        let rates = bare.iter().filter_map(|row| Some(row.rounds.get(round)?.per_second));
        sample.per_second / worst(rates)
    });
    median(ratios)
}

fn deltas(results: &Results, goals: &mut Vec<Goal>) {
    for (path, label) in [
        (
            Path::Sse,
            "latency added to a delta, 256 streams of 20 deltas/s, SSE (minus the bare client's): p50, p99",
        ),
        (
            Path::Grpc,
            "latency added to a delta, 256 streams of 20 deltas/s, gRPC (minus the bare client's): p50, p99",
        ),
    ] {
        let (p50, p99) =
            (added(results, path, |sample| sample.lag.p50), added(results, path, |sample| sample.lag.p99));
        goals.push(Goal {
            number: 3,
            label,
            target: "under 0.2 ms, 2 ms",
            measured: format!("{}, {} ms", number(p50), number(p99)),
            reached: at_most(p50, 0.2).zip(at_most(p99, 2.0)).map(|(p50, p99)| p50 && p99),
        });
    }
    for (door, limit, label, target) in [
        ("SSE", 32.0, "memory of an idle SSE stream", "at most 32 KiB"),
        ("gRPC", 12.0, "memory of an idle gRPC stream", "at most 12 KiB"),
    ] {
        let held = results.idles.iter().find(|idle| idle.door == door).map_or(f64::NAN, |idle| idle.resident);
        let measured = format!("{} KiB", number(held));
        goals.push(Goal { number: 3, label, target, measured, reached: at_most(held, limit) });
    }
    let joined = results.floods.iter().find(|flood| flood.proxy_name == "ours, SSE");
    let joined = joined.map_or(f64::NAN, |flood| flood.deltas_per_frame);
    goals.push(Goal {
        number: 3,
        label: "batching: deltas per frame of an unlimited SSE stream",
        target: "more than 1",
        measured: number(joined),
        reached: at_least(joined, 1.5),
    });
}

/// Latency that the gateway adds at 256 streams: the difference within each round.
fn added(results: &Results, path: Path, value: fn(&Sample) -> f64) -> f64 {
    let row = |path| results.deltas.iter().find(|row| (row.path, row.streams) == (path, 256));
    let (Some(ours), Some(bare)) = (row(path), row(Path::Bare)) else { return f64::NAN };
    median(ours.rounds.iter().zip(&bare.rounds).map(|(one, other)| value(one) - value(other)))
}

fn costs(results: &Results, goals: &mut Vec<Goal>) {
    for (pace, label) in [
        (
            Pace::Instant,
            "processor time of the gateway per turn over HTTP, relative to the CLI's: instant upstream, worst row",
        ),
        (Pace::Slow, "the same with the slow upstream (each token by itself), worst row"),
    ] {
        let rows = results.turns.0.iter().filter(|row| (row.contender, row.pace) == (Contender::Http, pace));
        let share = worst(rows.map(|row| row.median(|sample| sample.gateway_ms / sample.cli_ms)));
        goals.push(Goal {
            number: 4,
            label,
            target: "at most 0.1 ×",
            measured: format!("{} ×", number(share)),
            reached: at_most(share, 0.1),
        });
    }
    let idle = results.starts.iter().find(|start| start.engine == "app-server");
    let idle = idle.map_or(f64::NAN, |start| start.gateway.resident / 1024.0);
    goals.push(Goal {
        number: 4,
        label: "memory of the idle gateway (RSS)",
        target: "at most 20 MiB",
        measured: format!("{} MiB", number(idle)),
        reached: at_most(idle, 20.0),
    });
    let rate = |name: &str| {
        let flood = results.floods.iter().find(|flood| flood.proxy_name == name);
        flood.map_or(f64::NAN, |flood| flood.per_cpu_second)
    };
    let ratio = rate("ours, SSE") / rate(flood::LITELLM);
    goals.push(Goal {
        number: 4,
        label: "deltas per second of processor time, unlimited SSE streams, relative to LiteLLM's proxy",
        target: "at least 50 ×",
        measured: format!("{} ×", number(ratio)),
        reached: at_least(ratio, 50.0),
    });
}

fn hazards(results: &Results, goals: &mut Vec<Goal>) {
    for (label, target, limit, value) in [
        (
            "longest pause of a stream of 20 deltas a second while a request that costs too much runs ten times, worst request",
            "at most 250 ms",
            250.0,
            (|hazard| hazard.stream_ms) as fn(&Hazard) -> f64,
        ),
        ("the same for `/healthz`", "at most 250 ms", 250.0, |hazard| hazard.health_ms),
        ("memory that is not given back after such requests (RSS)", "at most 64 MiB", 64.0, |hazard| {
            hazard.grown_mib
        }),
    ] {
        let measured = worst(results.hazards.iter().map(value));
        let unit = target.rsplit(' ').next().unwrap_or_default();
        goals.push(Goal {
            number: 5,
            label,
            target,
            measured: format!("{} {unit}", number(measured)),
            reached: at_most(measured, limit),
        });
    }
}

fn conversations(results: &Results, goals: &mut Vec<Goal>) {
    use conversations::{Contender, Row, Sample};
    let found = &results.conversations;
    let rows = |contender: Contender, tools: bool, clients: usize| {
        let is_wanted =
            move |row: &&Row| (row.contender, row.shape.tools, row.clients) == (contender, tools, clients);
        found.rows.iter().filter(is_wanted)
    };
    let first = |sample: &Sample| sample.first.p50;
    let rate = |sample: &Sample| sample.per_second;
    let ratios = |tools, clients, under, value: fn(&Sample) -> f64| {
        rows(Contender::Http, tools, clients)
            .map(move |row| found.ratio(row, under, value))
            .collect::<Vec<_>>()
    };
    for (label, target, limit, under) in [
        (
            "first token of a conversation's later turns over HTTP, one client, relative to the bare client's continued recipe \
             (p50, the worst history)",
            "at most 1.15 ×",
            1.15,
            Contender::Continued,
        ),
        ("the same relative to its fresh recipe", "at most 0.6 ×", 0.6, Contender::Fresh),
    ] {
        let measured = worst(ratios(false, 1, under, first));
        let (reached, measured) = (at_most(measured, limit), format!("{} ×", number(measured)));
        goals.push(Goal { number: 6, label, target, measured, reached });
    }
    for (label, target, limit, under) in [
        (
            "turns/s of conversations over HTTP with 16 clients, relative to the bare client's continued recipe (the worst \
             history)",
            "at least 0.9 ×",
            0.9,
            Contender::Continued,
        ),
        ("the same relative to its fresh recipe", "at least 1.7 ×", 1.7, Contender::Fresh),
    ] {
        let measured = least(ratios(false, 16, under, rate));
        let (reached, measured) = (at_least(measured, limit), format!("{} ×", number(measured)));
        goals.push(Goal { number: 6, label, target, measured, reached });
    }
    let measured = worst(ratios(true, 1, Contender::Fresh, first));
    goals.push(Goal {
        number: 7,
        label: "result of a client's tool to the next token over HTTP, one client, relative to the bare client's fresh recipe \
                (p50, the worst history)",
        target: "at most 0.55 ×",
        measured: format!("{} ×", number(measured)),
        reached: at_most(measured, 0.55),
    });
    for (contender, label) in [
        (
            Contender::Http,
            "share of the former request that a prompt cache would hit, HTTP, the worst history",
        ),
        (Contender::Grpc, "the same over gRPC"),
    ] {
        let shares = found.facts.iter().filter(|fact| fact.contender == contender).map(|fact| fact.of_former);
        let measured = least(shares);
        goals.push(Goal {
            number: 8,
            label,
            target: "at least 0.95",
            measured: number(measured),
            reached: at_least(measured, 0.95),
        });
    }
    for (tools, label) in [
        (false, "the same if two servers without shared state get the requests in turn, without tools"),
        (true, "the same with tools"),
    ] {
        let facts = found.facts.iter().filter(|fact| fact.shape.tools == tools);
        let measured = least(facts.filter_map(|fact| fact.of_former_replicas));
        let (reached, measured) = (at_least(measured, 0.95), number(measured));
        goals.push(Goal { number: 8, label, target: "at least 0.95", measured, reached });
    }
}

fn network(results: &Results, goals: &mut Vec<Goal>) {
    let found = &results.network;
    for (conversations, label, target, limit) in [
        (
            false,
            "turns/s of single turns with 16 clients, relative to a CLI that reads the system's whole certificate store",
            "at least 1.5 ×",
            1.5,
        ),
        (true, "the same in conversations, relative to single turns with that CLI", "at least 3 ×", 3.0),
    ] {
        let gain = found.gain(conversations);
        let (measured, reached) = (format!("{} ×", number(gain)), at_least(gain, limit));
        goals.push(Goal { number: 9, label, target, measured, reached });
    }
    let later = worst([1, 100].map(|size| found.websocket(size).map_or(f64::NAN, |row| row.first.1.p50)));
    goals.push(Goal {
        number: 10,
        label: "first token of a conversation's later turns over a WebSocket with a round trip of 50 ms (p50, the worst history)",
        target: "at most 70 ms",
        measured: format!("{} ms", number(later)),
        reached: at_most(later, 70.0),
    });
    let sent = found.websocket(100).map_or(f64::NAN, |row| row.sent_kb);
    goals.push(Goal {
        number: 10,
        label: "bytes of a short question to the upstream over a WebSocket, after 100 kB",
        target: "at most 3 kB",
        measured: format!("{} kB", number(sent)),
        reached: at_most(sent, 3.0),
    });
}

/// Returns the smallest value.
fn least(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NAN, f64::min)
}

/// Returns the largest value.
fn worst(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NAN, f64::max)
}

fn at_most(value: f64, limit: f64) -> Option<bool> {
    value.is_finite().then_some(value <= limit)
}

fn at_least(value: f64, limit: f64) -> Option<bool> {
    value.is_finite().then_some(value >= limit)
}
