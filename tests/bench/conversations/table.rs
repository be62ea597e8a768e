//! The section of the page.

use std::fmt::Write as _;

use super::{CACHED_TURNS, Contender, Conversations, HELD, HELD_TURNS, Row, Sample, Shape, TURNS};
use crate::{BenchResult, plot::number};

/// Writes the section.
pub(crate) fn write(page: &mut String, conversations: &Conversations) -> BenchResult<()> {
    writeln!(
        page,
        "## Conversations\n\n{TURNS} turns each, `CODEX_PROFILE=chat`, instant upstream, answers of 20 tokens. The first question \
         has the size in the title. Both doors get the whole history with each request. The *fresh* recipe of the \
         bare client sends the whole history to a new thread for each request; the *continued* one sends the new items to the \
         thread of the conversation and answers a call in its turn. The first token is that of the turns behind the \
         first one; with tools, it is measured from the result of the call, and a turn is two requests. The last columns are measured once: the bytes that begin a request \
         like the former one with the same `prompt_cache_key` in {CACHED_TURNS} turns of a conversation that another server began, as a share of the former \
         request (also if two servers without shared state get the requests in turn) and of all input, and the \
         growth of the memory by each of {HELD} conversations of {HELD_TURNS} turns.\n"
    )?;
    let mut shapes: Vec<Shape> = Vec::new();
    for row in &conversations.rows {
        if !shapes.contains(&row.shape) {
            shapes.push(row.shape);
        }
    }
    for shape in shapes {
        writeln!(
            page,
            "### Histories of {}\n\n| clients | | first token p50, p95 (ms) | relative to continued, fresh | turns/s | relative to \
             continued, fresh | CPU per turn: gateway, CLI, load (ms) | to the upstream per turn (kB) | cacheable: of the former \
             request, with two servers, of the input | memory each: gateway, CLI (KiB) | failed |\n\
             | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            shape.label()
        )?;
        for row in conversations.rows.iter().filter(|row| row.shape == shape) {
            line(page, conversations, row)?;
        }
        writeln!(page)?;
    }
    Ok(())
}

fn line(page: &mut String, conversations: &Conversations, row: &Row) -> BenchResult<()> {
    let value = |of: fn(&Sample) -> f64| number(row.median(of));
    let against = |of: fn(&Sample) -> f64| {
        let ratio = |under| number(conversations.ratio(row, under, of));
        format!("{} ×, {} ×", ratio(Contender::Continued), ratio(Contender::Fresh))
    };
    let (mut cache, mut memory) = ("–".to_owned(), "–".to_owned());
    if let Some(fact) = conversations.fact(row.contender, row.shape) {
        let replicas = fact.of_former_replicas.map_or("–".to_owned(), number);
        cache = format!("{}, {replicas}, {}", number(fact.of_former), number(fact.of_input));
        memory = match row.contender {
            Contender::Fresh | Contender::Continued => format!("–, {}", number(fact.kept.1)),
            Contender::Http | Contender::Grpc => {
                format!("{}, {}", number(fact.kept.0), number(fact.kept.1))
            }
        };
    }
    writeln!(
        page,
        "| {} | {} | {}, {} | {} | {} | {} | {}, {}, {} | {} | {cache} | {memory} | {} |",
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
        value(|sample| sample.sent_kb),
        row.rounds.iter().map(|sample| sample.failures).sum::<usize>(),
    )?;
    Ok(())
}
