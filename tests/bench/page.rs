//! The page: all tables, the goals, the plots.

use std::{fmt::Write as _, fs};

use crate::{
    BenchResult, Results, conversations, deltas,
    flood::{self, Flood},
    goals, network,
    options::Options,
    plot::{Bar, Frame, Series, bars, lines, number},
    turns::{Contender, Pace, Row, Sample},
};

/// Writes `benchmarks.md` and the plots.
pub(crate) fn write(results: &Results, options: &Options) -> BenchResult<()> {
    fs::create_dir_all(&options.out)?;
    let mut page = String::new();
    head(&mut page, results, options)?;
    goals_table(&mut page, results)?;
    if !NOTES.trim().is_empty() {
        writeln!(page, "{}\n", NOTES.trim())?;
    }
    if !results.turns.0.is_empty() {
        turns(&mut page, results, options)?;
    }
    if !results.conversations.rows.is_empty() {
        conversations::table::write(&mut page, &results.conversations)?;
    }
    if !results.network.distant.is_empty() {
        network::write(&mut page, &results.network)?;
    }
    if !results.deltas.is_empty() {
        delta_table(&mut page, results, options)?;
    }
    flood_table(&mut page, results)?;
    small_tables(&mut page, results)?;
    fs::write(options.out.join("benchmarks.md"), page)?;
    Ok(())
}

/// Explanations of the figures, written by hand.
const NOTES: &str = include_str!("notes.md");

fn head(page: &mut String, results: &Results, options: &Options) -> BenchResult<()> {
    let kind = if options.quick { "a quick run: one short round" } else { "three rounds" };
    writeln!(
        page,
        "# Benchmarks\n\nMade by `scripts/bench.sh` ({kind}, {} s); do not edit. All figures are from one run on one machine, on \
         127.0.0.1, with the load generator and the upstreams on the same cores as the servers. Compare ratios, not absolute \
         numbers. Each value is the median of its rounds.\n\n| | |\n| --- | --- |",
        options.elapsed_seconds()
    )?;
    for (name, value) in results.machine.lines() {
        writeln!(page, "| {name} | {value} |")?;
    }
    writeln!(page)?;
    Ok(())
}

fn goals_table(page: &mut String, results: &Results) -> BenchResult<()> {
    writeln!(page, "## Goals\n\n| | goal | target | measured | |\n| --- | --- | --- | --- | --- |")?;
    for goal in goals::all(results) {
        let verdict = goal.verdict();
        writeln!(
            page,
            "| {} | {} | {} | {} | {verdict} |",
            goal.number, goal.label, goal.target, goal.measured
        )?;
    }
    writeln!(page)?;
    Ok(())
}

fn turns(page: &mut String, results: &Results, options: &Options) -> BenchResult<()> {
    writeln!(
        page,
        "## Turns through the real CLI\n\nThe *bare client* is the limit: it starts as many app-servers as the gateway, with \
         the same flags, environment and kind of home, and sends the messages of the gateway byte for byte. *exec* was \
         measured in the first round only; its tokens arrive with the whole answer. The processor time of its supervisors \
         is measured separately ({} ms each). `load` is the load generator and the upstream, which share the cores with \
         the servers.\n\n\
         The first plot uses the slow upstream, the second the instant one.\n\n\
         ![First token](bench-first-token.svg)\n\n![Turns per second](bench-turns.svg)\n\n\
         ![Processor time of a turn](bench-cpu.svg)\n",
        number(results.supervisor_ms)
    )?;
    for pace in Pace::ALL {
        writeln!(
            page,
            "### {}\n\n| clients | | first token p50, p95 (ms) | relative to bare | turns/s | relative to bare | CPU per turn: \
             gateway, CLI, load (ms) | RSS gateway, CLI (MiB) | token to client p50, p99 (ms) | failed |\n\
             | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            pace.label()
        )?;
        for row in results.turns.0.iter().filter(|row| row.pace == pace && !row.rounds.is_empty()) {
            turn_line(page, results, row)?;
        }
        writeln!(page)?;
    }
    let plot = |name: &str, text: String| fs::write(options.out.join(name), text);
    plot("bench-first-token.svg", first_token_plot(results))?;
    plot("bench-turns.svg", rate_plot(results))?;
    plot("bench-cpu.svg", cpu_plot(results))?;
    Ok(())
}

fn turn_line(page: &mut String, results: &Results, row: &Row) -> BenchResult<()> {
    let value = |of: fn(&Sample) -> f64| number(row.median(of));
    let against = |of: fn(&Sample) -> f64| {
        let bare = (Contender::Bare, row.pace, row.clients);
        format!("{} ×", number(results.turns.ratio((row.contender, row.pace, row.clients), bare, of)))
    };
    let mib = |kib: f64| if kib > 0.0 { number(kib / 1024.0) } else { "–".to_owned() };
    let lag = if row.contender == Contender::Exec {
        "–".to_owned()
    } else {
        format!("{}, {}", value(|sample| sample.lag.p50), value(|sample| sample.lag.p99))
    };
    writeln!(
        page,
        "| {} | {} | {}, {} | {} | {} | {} | {}, {}, {} | {}, {} | {lag} | {} |",
        row.clients,
        row.contender.label(),
        value(|sample| sample.first.p50),
        value(|sample| sample.first.p95),
        against(|sample| sample.first.p50),
        value(|sample| sample.per_second),
        against(|sample| sample.per_second),
        value(|sample| sample.gateway_ms),
        value(|sample| sample.cli_ms),
        value(|sample| sample.load_ms),
        mib(row.memory.0.resident),
        mib(row.memory.1.resident),
        row.rounds.iter().map(|sample| sample.failures).sum::<usize>(),
    )?;
    Ok(())
}

fn over_clients(results: &Results, pace: Pace, value: fn(&Sample) -> f64) -> (Vec<String>, Vec<Series>) {
    let mut clients: Vec<usize> = results.turns.0.iter().map(|row| row.clients).collect();
    clients.sort_unstable();
    clients.dedup();
    let series = Contender::ALL.iter().enumerate().map(|(colour, &contender)| Series {
        name: contender.label().to_owned(),
        colour,
        dashed: false,
        values: clients
            .iter()
            .map(|&count| results.turns.row(contender, pace, count).map_or(f64::NAN, |row| row.median(value)))
            .collect(),
    });
    (clients.iter().map(ToString::to_string).collect(), series.collect())
}

fn first_token_plot(results: &Results) -> String {
    let (places, series) = over_clients(results, Pace::Slow, |sample| sample.first.p50);
    let title = format!("Time to the first token, p50; answers of {}", Pace::Slow.label());
    lines(&Frame { title: &title, x: "clients", y: "ms", places }, &series)
}

fn rate_plot(results: &Results) -> String {
    let (places, series) = over_clients(results, Pace::Instant, |sample| sample.per_second);
    let title = format!("Turns per second; answers of {}", Pace::Instant.label());
    lines(&Frame { title: &title, x: "clients", y: "turns/s", places }, &series)
}

fn cpu_plot(results: &Results) -> String {
    let bar = |&contender: &Contender| {
        let row = results.turns.row(contender, Pace::Instant, 16)?;
        let parts = vec![row.median(|sample| sample.gateway_ms), row.median(|sample| sample.cli_ms)];
        Some(Bar { name: contender.label().to_owned(), parts })
    };
    let found: Vec<Bar> = Contender::ALL.iter().filter_map(bar).collect();
    let places = vec!["gateway".to_owned(), "CLI".to_owned()];
    let title = format!("Processor time of a turn, 16 clients; answers of {}", Pace::Instant.label());
    bars(&Frame { title: &title, x: "", y: "ms", places }, &found)
}

fn delta_table(page: &mut String, results: &Results, options: &Options) -> BenchResult<()> {
    writeln!(
        page,
        "## Time per delta\n\nThe fake codex writes {} deltas per second into each stream, each with its time of \
         writing. The latency is measured from there to the client's read and includes the pipe and the socket. The bare \
         client's latency is the part that is not the gateway's. gRPC streams share connections, 20 on each.\n\n![Time per delta](bench-deltas.svg)\n\n\
         | streams | | p50 (ms) | p95 (ms) | p99 (ms) | delivered | gateway CPU per delta (µs) | cores: gateway, fake |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        1000 / deltas::PAUSE.as_millis()
    )?;
    for row in &results.deltas {
        let value = |of: fn(&deltas::Sample) -> f64| number(row.median(of));
        let cpu =
            if row.path == deltas::Path::Bare { "–".to_owned() } else { value(|sample| sample.gateway_us) };
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {:.1} % | {cpu} | {}, {} |",
            row.streams,
            row.path.label(),
            value(|sample| sample.lag.p50),
            value(|sample| sample.lag.p95),
            value(|sample| sample.lag.p99),
            row.median(|sample| sample.delivered) * 100.0,
            value(|sample| sample.cores.0),
            value(|sample| sample.cores.1),
        )?;
    }
    writeln!(page)?;
    fs::write(options.out.join("bench-deltas.svg"), delta_plot(results))?;
    Ok(())
}

fn delta_plot(results: &Results) -> String {
    let mut streams: Vec<usize> = results.deltas.iter().map(|row| row.streams).collect();
    streams.dedup();
    let mut series = Vec::new();
    for (colour, path) in deltas::Path::ALL.into_iter().enumerate() {
        let p50: fn(&deltas::Sample) -> f64 = |sample| sample.lag.p50;
        let p99: fn(&deltas::Sample) -> f64 = |sample| sample.lag.p99;
        for (dashed, name, value) in [(false, "p50", p50), (true, "p99", p99)] {
            let at = |&count: &usize| {
                let row = results.deltas.iter().find(|row| (row.path, row.streams) == (path, count));
                row.map_or(f64::NAN, |row| row.median(value))
            };
            let values = streams.iter().map(at).collect();
            series.push(Series { name: format!("{}, {name}", path.label()), colour, dashed, values });
        }
    }
    let places = streams.iter().map(ToString::to_string).collect();
    let title = "From the fake codex's write of a delta to the client's read";
    lines(&Frame { title, x: "streams of 20 deltas/s", y: "ms", places }, &series)
}

fn flood_table(page: &mut String, results: &Results) -> BenchResult<()> {
    if results.floods.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "## Deltas per second of processor time\n\n{} unlimited streams, and {} streams of 20 deltas/s. Only the proxy's own \
         time counts, not the time of the fake codex or of LiteLLM's fake upstream. Paced deltas cannot be batched.\n\n\
         | | deltas/s | deltas per CPU second | relative to LiteLLM | deltas per frame | paced: deltas per CPU second | \
         relative to LiteLLM | paced: p50, p99 (ms) | RSS after (MiB) |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        flood::STREAMS,
        flood::PACED_STREAMS
    )?;
    let other = results.floods.iter().find(|flood| flood.proxy_name == flood::LITELLM);
    let against = |value: f64, of: fn(&Flood) -> f64| {
        other.map_or("–".to_owned(), |other| format!("{} ×", number(value / of(other))))
    };
    for flood in &results.floods {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {}, {} | {} |",
            flood.proxy_name,
            number(flood.per_second),
            number(flood.per_cpu_second),
            against(flood.per_cpu_second, |other| other.per_cpu_second),
            number(flood.deltas_per_frame),
            number(flood.paced.per_cpu_second),
            against(flood.paced.per_cpu_second, |other| other.paced.per_cpu_second),
            number(flood.paced.lag.p50),
            number(flood.paced.lag.p99),
            number(flood.memory.resident / 1024.0),
        )?;
    }
    writeln!(page)?;
    Ok(())
}

fn small_tables(page: &mut String, results: &Results) -> BenchResult<()> {
    if !results.starts.is_empty() {
        writeln!(
            page,
            "## Cold start, idle memory\n\nTime from the start of the program until `/healthz` returns 200, and the memory half a \
             second later, before any turn.\n\n\
             | engine | ready (ms) | gateway RSS, anonymous (MiB) | CLI RSS, anonymous (MiB) | processes below |\n\
             | --- | ---: | ---: | ---: | ---: |"
        )?;
        for start in &results.starts {
            let mib = |kib: f64| number(kib / 1024.0);
            writeln!(
                page,
                "| {} | {} | {}, {} | {}, {} | {} |",
                start.engine,
                number(start.ready_ms),
                mib(start.gateway.resident),
                mib(start.gateway.anonymous),
                mib(start.cli.resident),
                mib(start.cli.anonymous),
                start.processes
            )?;
        }
        writeln!(page)?;
    }
    if !results.idles.is_empty() {
        writeln!(
            page,
            "## Idle streams\n\nGrowth of the gateway's memory for each started, silent stream. gRPC streams share \
             connections, 20 on each.\n\n\
             | | streams | RSS (KiB each) | anonymous (KiB each) |\n| --- | ---: | ---: | ---: |"
        )?;
        for idle in &results.idles {
            let (all, own) = (number(idle.resident), number(idle.anonymous));
            writeln!(page, "| {} | {} | {all} | {own} |", idle.door, idle.streams)?;
        }
        writeln!(page)?;
    }
    if !results.hazards.is_empty() {
        writeln!(
            page,
            "## Requests that cost too much\n\nEach runs ten times on a new gateway with the fake codex, beside a stream of 20 \
             deltas a second and a health report every 20 ms.\n\n\
             | | longest pause of the stream (ms) | slowest health report (ms) | growth of RSS (MiB) |\n\
             | --- | ---: | ---: | ---: |"
        )?;
        for hazard in &results.hazards {
            let (stream, health) = (number(hazard.stream_ms), number(hazard.health_ms));
            writeln!(page, "| {} | {stream} | {health} | {} |", hazard.name, number(hazard.grown_mib))?;
        }
        writeln!(page)?;
    }
    if !results.cancels.is_empty() {
        writeln!(
            page,
            "## Cancellation\n\nTime from the client's disconnect in the middle of an answer until the upstream saw the CLI \
             disconnect, and until the slot was free and the processes were gone.\n\n\
             | | model call ended p50, p99 (ms) | slot free p50, p99 (ms) | samples |\n| --- | ---: | ---: | ---: |"
        )?;
        for cancel in &results.cancels {
            let (over, free) = (cancel.call_over, cancel.slot_free);
            writeln!(
                page,
                "| {} | {}, {} | {}, {} | {} |",
                cancel.label,
                number(over.p50),
                number(over.p99),
                number(free.p50),
                number(free.p99),
                free.count
            )?;
        }
        writeln!(page)?;
    }
    Ok(())
}
