//! Time from the start of the server to readiness, its memory then, and the cost of supervising a process.

use std::{ffi::OsString, path::Path, time::Duration};

use crate::{
    BenchResult,
    gateway::{Gateway, Setup},
    options::Options,
    process::{Memory, Program, reaped_children_time},
    stats::{float, median},
};

/// The start of one engine.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) engine: &'static str,
    /// Milliseconds until `/healthz` returned 200.
    pub(crate) ready_ms: f64,
    pub(crate) gateway: Memory,
    pub(crate) cli: Memory,
    pub(crate) processes: usize,
}

pub(crate) async fn measure(setups: &[Setup], options: &Options) -> BenchResult<Vec<Start>> {
    let mut starts = Vec::new();
    for setup in setups {
        options.log_progress(&format!("cold starts of {}", setup.name));
        let mut times = Vec::new();
        let mut last = None;
        for _ in 0..options.pick(3, 7) {
            let gateway = Gateway::start(setup).await?;
            times.push(gateway.start.as_secs_f64() * 1000.0);
            // Lets the start finish its remaining work.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let below = crate::process::tree(gateway.pid()).len() - 1;
            last = Some((gateway.memory(), Memory::read_clis_below(gateway.pid()), below));
            gateway.end().await?;
        }
        let (gateway, cli, processes) = last.ok_or("no start")?;
        starts.push(Start { engine: setup.engine, ready_ms: median(times), gateway, cli, processes });
    }
    Ok(starts)
}

/// Returns the processor seconds of a supervisor around an empty program, including that program.
pub(crate) async fn supervisor_seconds(gateway: &Path, folder: &Path) -> BenchResult<f64> {
    const TIMES: usize = 40;
    let arguments: Vec<OsString> =
        ["supervise", &format!("--parent={}", std::process::id()), "--grace-ms=1000", "--", "/bin/true"]
            .map(OsString::from)
            .to_vec();
    let before = reaped_children_time();
    for _ in 0..TIMES {
        let log = folder.join("supervisor.log");
        let mut program = Program::start(gateway, &arguments, &Default::default(), folder, &log)?;
        tokio::time::timeout(Duration::from_secs(10), program.child.wait()).await??;
    }
    Ok((reaped_children_time() - before) / float(TIMES))
}
