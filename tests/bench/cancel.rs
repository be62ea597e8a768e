//! From a client's hanging up in the middle of an answer until the model call has ended and the turn's slot is free.

use std::time::Duration;

use crate::{
    Outcome,
    gateway::Gateway,
    load::Door,
    options::Options,
    stats::{Spread, now_us},
    tally::{Ask, Tally},
    turns::Field,
};

/// One way to give up.
#[derive(Debug)]
pub(crate) struct Cancel {
    pub(crate) what: &'static str,
    /// Until the upstream saw the CLI go away.
    pub(crate) call_over: Spread,
    /// Until nothing of the turn was left.
    pub(crate) slot_free: Spread,
}

pub(crate) async fn measure(field: &Field, options: &Options) -> Outcome<Vec<Cancel>> {
    let (app_server, exec) = (&field.app_server, &field.exec);
    let mut cancels = Vec::new();
    for (what, gateway, door, times) in [
        ("app-server, HTTP hang-up", app_server, Door::Sse(app_server.address), options.pick(10, 40)),
        ("app-server, gRPC reset", app_server, Door::Grpc(app_server.address), options.pick(10, 40)),
        ("exec, HTTP hang-up", exec, Door::Sse(exec.address), options.pick(2, 10)),
    ] {
        options.say(&format!("cancelling: {what}"));
        let (mut call_over, mut slot_free) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let (over, free) = once(field, gateway, &door).await?;
            call_over.push(over);
            slot_free.push(free);
        }
        cancels.push(Cancel { what, call_over: Spread::of(call_over), slot_free: Spread::of(slot_free) });
    }
    Ok(cancels)
}

async fn once(field: &Field, gateway: &Gateway, door: &Door) -> Outcome<(u64, u64)> {
    // exec says nothing before the answer is whole: there the turn is given up while the model speaks.
    let ask = Ask::upstream(200, Duration::from_millis(50));
    let mut clients = door.clients(1).await?;
    let mut client = clients.pop().ok_or("no client")?;
    let turn = async move { client.begin(&ask, &mut Tally::default()).await };
    let mut turn = Box::pin(turn);
    let limit = Duration::from_secs(20);
    let mut held = None;
    // Speaking, or at least a model call under way.
    tokio::select! {
        begun = &mut turn => held = Some(begun?),
        open = until(limit, async || Ok((field.upstream.state().await?.open > 0).then_some(()))) => open?,
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = now_us();
    drop(held);
    drop(turn);
    let freed = until(limit, async || Ok((gateway.running().await? == 0).then(now_us))).await?;
    let over = until(limit, async || {
        let state = field.upstream.state().await?;
        Ok((state.open == 0 && state.given_up_at >= begun).then_some(state.given_up_at))
    });
    Ok((over.await? - begun, freed - begun))
}

/// Asks again and again until there is an answer.
async fn until<T>(limit: Duration, ask: impl AsyncFn() -> Outcome<Option<T>>) -> Outcome<T> {
    let answer = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    };
    tokio::time::timeout(limit, answer).await.map_err(|_| "it did not happen in time")?
}
