//! What a turn costs besides the model: the CLI's reading of certificates, and round trips to a distant upstream.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use crate::{
    BenchResult, Stage,
    conversations::{Contender, Outcome, Plan, Shape, TURNS, run},
    gateway::{Gateway, Setup},
    load::{Door, Run, closed_loop},
    plot::number,
    relay::Relay,
    stats::{Spread, float, median},
    tally::Prompt,
    upstream::Upstream,
};

/// The setting that lets the CLI read one certificate instead of the system's store.
const FAST_ROOTS: &str = "CODEX_FAST_TLS_ROOTS";

/// Clients of the measurement of certificates.
const CLIENTS: usize = 16;

/// Round trip to the distant upstream.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// All measurements.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) roots: Vec<Roots>,
    pub(crate) distant: Vec<Distant>,
}

/// Turns of a gateway whose CLI reads certificates in one way.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) fast: bool,
    /// The turns belong to conversations.
    pub(crate) conversations: bool,
    /// Turns per second and milliseconds of the CLI per turn, of each round.
    pub(crate) rounds: Vec<(f64, f64)>,
}

/// A conversation with a distant upstream.
#[derive(Debug)]
pub(crate) struct Distant {
    pub(crate) label: &'static str,
    pub(crate) websocket: bool,
    pub(crate) contender: Contender,
    pub(crate) kilobytes: usize,
    /// First token of the first turn and of the others.
    pub(crate) first: (Spread, Spread),
    /// Bytes to the upstream in a later turn, in kB.
    pub(crate) sent_kb: f64,
}

impl Network {
    /// Returns the median over the rounds of the turns per second, relative to single turns with the system's store.
    pub(crate) fn gain(&self, conversations: bool) -> f64 {
        let rates = |fast, conversations| {
            let found = self.roots.iter().find(|row| (row.fast, row.conversations) == (fast, conversations));
            found.into_iter().flat_map(|row| row.rounds.iter().map(|round| round.0))
        };
        median(rates(true, conversations).zip(rates(false, false)).map(|(one, other)| one / other))
    }

    /// Returns the gateway's conversation over the WebSocket.
    pub(crate) fn websocket(&self, kilobytes: usize) -> Option<&Distant> {
        self.distant
            .iter()
            .find(|row| row.websocket && row.contender == Contender::Http && row.kilobytes == kilobytes)
    }
}

pub(crate) async fn measure(stage: &Stage<'_>, upstream: &Upstream) -> BenchResult<Network> {
    Ok(Network { roots: roots(stage, upstream).await?, distant: distant(stage, upstream).await? })
}

/// Measures turns over TLS. Without a bundle that trusts the upstream there are none.
async fn roots(stage: &Stage<'_>, upstream: &Upstream) -> BenchResult<Vec<Roots>> {
    if stage.options.bundle.is_none() {
        return Ok(Vec::new());
    }
    let fast = Setup { base_url: Some(upstream.tls_base_url()), name: "tls".to_owned(), ..stage.chat() };
    let mut slow = Setup { name: "slow-tls".to_owned(), ..fast.clone() };
    slow.settings.push((FAST_ROOTS.to_owned(), "0".to_owned()));
    let gateways = [(false, Gateway::start(&slow).await?), (true, Gateway::start(&fast).await?)];
    let mut rows = Vec::new();
    for (fast, _) in &gateways {
        for conversations in [false, true] {
            rows.push(Roots { fast: *fast, conversations, rounds: Vec::new() });
        }
    }
    let rounds = stage.options.pick(1, 3);
    for round in 0..rounds {
        for row in &mut rows {
            let kind = if row.conversations { "conversations" } else { "single turns" };
            stage.options.log_progress(&format!(
                "certificates, round {} of {rounds}: {kind}, fast roots: {}",
                round + 1,
                row.fast
            ));
            let gateway = &gateways[usize::from(row.fast)].1;
            let door = Door::Sse(gateway.address);
            let before = gateway.cost();
            let (wall, tally) = if row.conversations {
                let shape = Shape { kilobytes: 1, tools: false };
                let plan = plan(Contender::Http, shape, CLIENTS, TURNS);
                let Outcome { wall, tally, .. } = run(&door, plan).await?;
                (wall, tally)
            } else {
                let prompt = Prompt::upstream(20, Duration::ZERO);
                let turns = CLIENTS * TURNS;
                let Run { wall, tally } =
                    closed_loop(&door, CLIENTS, turns, &prompt, Duration::from_secs(120)).await?;
                (wall, tally)
            };
            let done = float(tally.turns());
            let cli_ms = gateway.cost().since(before).cli * 1000.0 / done;
            row.rounds.push((done / wall.as_secs_f64(), cli_ms));
        }
    }
    for (_, gateway) in gateways {
        gateway.end().await?;
    }
    Ok(rows)
}

fn plan(contender: Contender, shape: Shape, clients: usize, turns: usize) -> Plan {
    Plan { contender, shape, clients, conversations: clients, turns, resumed: false, hold: false }
}

async fn distant(stage: &Stage<'_>, upstream: &Upstream) -> BenchResult<Vec<Distant>> {
    let relay = Relay::start(upstream.address, ROUND_TRIP).await?;
    let setup = |transport: &'static str| {
        let mut setup: Setup = stage.chat();
        setup.base_url = Some(format!("http://{}/v1", relay.address));
        setup.builtin = true;
        setup.settings.push(("CODEX_UPSTREAM_TRANSPORT".to_owned(), transport.to_owned()));
        transport.clone_into(&mut setup.name);
        setup
    };
    let mut rows = Vec::new();
    for (websocket, transport) in [(false, "https"), (true, "websocket")] {
        let setup = setup(transport);
        let gateway = Gateway::start(&setup).await?;
        let bare = stage.recorded(&setup, None).await?;
        for kilobytes in [1, 100] {
            for contender in [Contender::Fresh, Contender::Continued, Contender::Http] {
                let label = contender.label();
                stage
                    .options
                    .log_progress(&format!("distant upstream over {transport}: {label}, {kilobytes} kB"));
                let door = match contender {
                    Contender::Fresh | Contender::Continued => Door::Bare(Arc::clone(&bare)),
                    Contender::Http | Contender::Grpc => Door::Sse(gateway.address),
                };
                let shape = Shape { kilobytes, tools: false };
                let first = upstream.state().await?.received;
                run(&door, plan(contender, shape, 1, 1)).await?;
                let between = upstream.state().await?.received;
                let conversations = stage.options.pick(2, 5);
                let plan = Plan { conversations, ..plan(contender, shape, 1, TURNS) };
                let outcome = run(&door, plan).await?;
                let after = upstream.state().await?.received;
                let later = float(after - between) - float(between - first) * float(conversations);
                rows.push(Distant {
                    label,
                    websocket,
                    contender,
                    kilobytes,
                    first: outcome.tally.first_tokens(TURNS),
                    sent_kb: later / 1000.0 / float(conversations * (TURNS - 1)),
                });
            }
        }
        gateway.end().await?;
        crate::end(bare).await?;
    }
    Ok(rows)
}

/// Writes the sections of the page.
pub(crate) fn write(page: &mut String, network: &Network) -> BenchResult<()> {
    writeln!(
        page,
        "## Certificates\n\nTurns over HTTP with {CLIENTS} clients, `CODEX_PROFILE=chat`, instant upstream over TLS, whose authority \
         is in the system's store. The CLI reads certificates for each model call, and makes a new connection: it reads the \
         whole store with `{FAST_ROOTS}=0`.\n\n\
         | certificates | turns | turns/s | relative to the first row | CPU of the CLI per turn (ms) |\n\
         | --- | --- | ---: | ---: | ---: |"
    )?;
    let all = network.roots.first();
    for row in &network.roots {
        let value = |of: fn(&(f64, f64)) -> f64| number(median(row.rounds.iter().map(of)));
        let pairs = all.into_iter().flat_map(|all| row.rounds.iter().zip(&all.rounds));
        let relative = number(median(pairs.map(|(one, other)| one.0 / other.0)));
        let roots = if row.fast { "as by default" } else { "whole store" };
        let turns = if row.conversations { "conversations of 8" } else { "single" };
        let (rate, cli) = (value(|round| round.0), value(|round| round.1));
        writeln!(page, "| {roots} | {turns} | {rate} | {relative} × | {cli} |")?;
    }
    writeln!(
        page,
        "\n## A distant upstream\n\nConversations of {TURNS} turns, one client, the built-in provider, a round trip of {} ms to the \
         upstream, without TLS. A connection takes one round trip more.\n\n\
         | transport | history (kB) | | first token of the first turn p50 (ms) | of a later turn p50, p95 (ms) | to the upstream in a \
         later turn (kB) |\n| --- | ---: | --- | ---: | ---: | ---: |",
        ROUND_TRIP.as_millis()
    )?;
    for row in &network.distant {
        let transport = if row.websocket { "WebSocket" } else { "HTTP" };
        let (first, later) = row.first;
        writeln!(
            page,
            "| {transport} | {} | {} | {} | {}, {} | {} |",
            row.kilobytes,
            row.label,
            number(first.p50),
            number(later.p50),
            number(later.p95),
            number(row.sent_kb)
        )?;
    }
    writeln!(page)?;
    Ok(())
}
