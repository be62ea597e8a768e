//! Time from a client's disconnect in the middle of an answer to the end of the model call and to a free slot.

use std::time::Duration;

use crate::{
    BenchResult,
    gateway::Gateway,
    load::Door,
    options::Options,
    stats::{Spread, now_us},
    tally::{Prompt, Tally},
    turns::Servers,
};

/// One way to cancel.
#[derive(Debug)]
pub(crate) struct Cancel {
    pub(crate) label: &'static str,
    /// Time until the upstream saw the CLI disconnect.
    pub(crate) call_over: Spread,
    /// Time until nothing of the turn was left.
    pub(crate) slot_free: Spread,
}

pub(crate) async fn measure(servers: &Servers, options: &Options) -> BenchResult<Vec<Cancel>> {
    let (app_server, exec) = (&servers.app_server, &servers.exec);
    let mut cancels = Vec::new();
    for (label, gateway, door, times) in [
        ("app-server, HTTP disconnect", app_server, Door::Sse(app_server.address), options.pick(10, 40)),
        ("app-server, gRPC reset", app_server, Door::Grpc(app_server.address), options.pick(10, 40)),
        ("exec, HTTP disconnect", exec, Door::Sse(exec.address), options.pick(2, 10)),
    ] {
        options.log_progress(&format!("cancelling: {label}"));
        let (mut call_over, mut slot_free) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let (over, free) = once(servers, gateway, &door).await?;
            call_over.push(over);
            slot_free.push(free);
        }
        cancels.push(Cancel {
            label,
            call_over: Spread::from_micros(call_over),
            slot_free: Spread::from_micros(slot_free),
        });
    }
    Ok(cancels)
}

async fn once(servers: &Servers, gateway: &Gateway, door: &Door) -> BenchResult<(u64, u64)> {
    // exec sends nothing before the answer is complete, so the turn is cancelled while the model streams.
    let prompt = Prompt::upstream(200, Duration::from_millis(50));
    let mut clients = door.clients(1).await?;
    let mut client = clients.pop().ok_or("no client")?;
    let turn = async move { client.start_stream(&prompt, &mut Tally::default()).await };
    let mut turn = Box::pin(turn);
    let limit = Duration::from_secs(20);
    let mut held = None;
    // Streaming, or at least a model call in flight.
    tokio::select! {
        started = &mut turn => held = Some(started?),
        open = poll_until(limit, async || Ok((servers.upstream.state().await?.open > 0).then_some(()))) => open?,
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = now_us();
    drop(held);
    drop(turn);
    let freed = poll_until(limit, async || Ok((gateway.running().await? == 0).then(now_us))).await?;
    let over = poll_until(limit, async || {
        let state = servers.upstream.state().await?;
        Ok((state.open == 0 && state.disconnected_at >= started).then_some(state.disconnected_at))
    });
    Ok((over.await? - started, freed - started))
}

/// Polls until the function returns a value.
async fn poll_until<T>(limit: Duration, poll: impl AsyncFn() -> BenchResult<Option<T>>) -> BenchResult<T> {
    let answer = async {
        loop {
            if let Some(answer) = poll().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    };
    tokio::time::timeout(limit, answer).await.map_err(|_| "the turn did not end in time")?
}
