//! Memory of the gateway for each idle stream.

use std::time::Duration;

use crate::{
    BenchResult,
    gateway::{Gateway, Setup},
    load::{Door, closed_loop, hold},
    options::Options,
    stats::float,
    tally::Prompt,
};

/// Results of one door.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) door: &'static str,
    pub(crate) streams: usize,
    /// KiB per stream: all memory, and the part that belongs to no file.
    pub(crate) resident: f64,
    pub(crate) anonymous: f64,
}

pub(crate) async fn measure(setup: &Setup, options: &Options) -> BenchResult<Vec<Idle>> {
    let streams = options.pick(300, 1000);
    let mut idles = Vec::new();
    for door in ["SSE", "gRPC"] {
        options.log_progress(&format!("{streams} idle streams over {door}"));
        let mut setup = setup.clone();
        setup.name = format!("{}-{door}", setup.name);
        // A new server, so that memory of earlier streams is not reused.
        let gateway = Gateway::start(&setup).await?;
        let entrance = if door == "SSE" { Door::Sse(gateway.address) } else { Door::Grpc(gateway.address) };
        // One-time allocations do not count for the streams.
        closed_loop(&entrance, 4, 20, &Prompt::fake("stream:2:1"), Duration::from_secs(30)).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = gateway.memory();
        let prompt = Prompt::fake("stream:2:90000");
        let held = hold(&entrance, streams, &prompt, 50, Duration::from_secs(60)).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = gateway.memory();
        idles.push(Idle {
            door,
            streams,
            resident: (after.resident - before.resident) / float(streams),
            anonymous: (after.anonymous - before.anonymous) / float(streams),
        });
        drop(held);
        gateway.end().await?;
    }
    Ok(idles)
}
