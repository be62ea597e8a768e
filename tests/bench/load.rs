//! Load: a number of clients of one kind, each sending its next request at the end of the last, or all streams at once
//! with evenly spread starts.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    BenchResult,
    bare::Bare,
    grpc, sse,
    tally::{Prompt, Tally},
};

/// Streams per gRPC connection.
const STREAMS_PER_CONNECTION: usize = 20;

/// The target of the clients.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    Sse(SocketAddr),
    Grpc(SocketAddr),
    Bare(Arc<Bare>),
}

/// One client.
#[derive(Debug)]
pub(crate) enum Client {
    Sse(sse::Client),
    Grpc(grpc::Client),
    Bare(Arc<Bare>),
}

impl Client {
    pub(crate) async fn turn(&mut self, prompt: &Prompt, tally: &mut Tally) -> BenchResult<()> {
        match self {
            Self::Sse(client) => client.turn(prompt, tally).await,
            Self::Grpc(client) => client.turn(prompt, tally).await,
            Self::Bare(bare) => bare.turn(prompt, tally).await,
        }
    }

    /// Runs a turn to its first token. The returned value holds the stream.
    pub(crate) async fn start_stream(&mut self, prompt: &Prompt, tally: &mut Tally) -> BenchResult<Held> {
        match self {
            Self::Sse(client) => Ok(Held::Sse(client.start_stream(prompt, tally).await?)),
            Self::Grpc(client) => Ok(Held::Grpc(client.start_stream(prompt, tally).await?)),
            Self::Bare(_) => Err("the bare client cannot hold a stream".into()),
        }
    }
}

/// A started stream. Dropping it cancels the turn.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(crate) enum Held {
    Sse(sse::StartedStream),
    Grpc(grpc::StartedStream),
}

impl Door {
    pub(crate) async fn clients(&self, count: usize) -> BenchResult<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        let mut channel: Option<Channel> = None;
        for number in 0..count {
            clients.push(match self {
                Self::Sse(address) => Client::Sse(sse::Client::new(*address)),
                Self::Bare(bare) => Client::Bare(Arc::clone(bare)),
                Self::Grpc(address) => {
                    let shared = match channel.take() {
                        Some(shared) if number % STREAMS_PER_CONNECTION != 0 => shared,
                        _ => grpc::connect(*address).await?,
                    };
                    channel = Some(shared.clone());
                    Client::Grpc(grpc::Client(shared))
                }
            });
        }
        Ok(clients)
    }
}

/// Results of a load.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) wall: Duration,
    pub(crate) tally: Tally,
}

/// Runs `turns` turns with `clients` clients.
pub(crate) async fn closed_loop(
    door: &Door,
    clients: usize,
    turns: usize,
    prompt: &Prompt,
    limit: Duration,
) -> BenchResult<Run> {
    let left = Arc::new(AtomicUsize::new(turns));
    let clients = door.clients(clients).await?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (left, prompt) = (Arc::clone(&left), prompt.clone());
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                if let Err(error) = client.turn(&prompt, &mut tally).await {
                    tally.failures.push(error.to_string());
                    // A server that refuses everything must not get a request flood.
                    if tally.failures.len() > 3 {
                        break;
                    }
                }
            }
            tally
        });
    }
    let tally = gather(tasks, limit).await?;
    Ok(Run { wall: started.elapsed(), tally })
}

/// Runs `count` streams at once, one turn each, with their starts spread evenly over `spread`.
pub(crate) async fn staggered(
    door: &Door,
    count: usize,
    prompt: &Prompt,
    spread: Duration,
    limit: Duration,
) -> BenchResult<Run> {
    let clients = door.clients(count).await?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (mut client, number) in clients.into_iter().zip(0u32..) {
        let prompt = prompt.clone();
        let wait = spread * number / u32::try_from(count)?;
        tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let mut tally = Tally::default();
            if let Err(error) = client.turn(&prompt, &mut tally).await {
                tally.failures.push(error.to_string());
            }
            tally
        });
    }
    let tally = gather(tasks, limit).await?;
    Ok(Run { wall: started.elapsed(), tally })
}

/// Opens `count` streams, `at_once` at a time, and holds them.
pub(crate) async fn hold(
    door: &Door,
    count: usize,
    prompt: &Prompt,
    at_once: usize,
    limit: Duration,
) -> BenchResult<Vec<Held>> {
    let mut clients = door.clients(count).await?;
    let held = async {
        let mut held = Vec::with_capacity(count);
        while !clients.is_empty() {
            let mut opening = JoinSet::new();
            for mut client in clients.drain(..clients.len().min(at_once)) {
                let prompt = prompt.clone();
                opening.spawn(async move {
                    client
                        .start_stream(&prompt, &mut Tally::default())
                        .await
                        .map_err(|error| error.to_string())
                });
            }
            while let Some(opened) = opening.join_next().await {
                held.push(opened??);
            }
        }
        Ok(held)
    };
    tokio::time::timeout(limit, held).await.map_err(|_| "the streams did not open in time")?
}

async fn gather(mut tasks: JoinSet<Tally>, limit: Duration) -> BenchResult<Tally> {
    let mut tally = Tally::default();
    let all = async {
        while let Some(one) = tasks.join_next().await {
            tally.add(one?);
        }
        BenchResult::Ok(())
    };
    if tokio::time::timeout(limit, all).await.is_err() {
        tally.failures.push(format!("not completed after {} s", limit.as_secs()));
    }
    if let Some(failure) = tally.failures.first().filter(|_| tally.failures.len() * 20 > tally.turns()) {
        return Err(format!(
            "{} of {} turns failed: {failure}",
            tally.failures.len(),
            tally.turns() + tally.failures.len()
        )
        .into());
    }
    Ok(tally)
}
