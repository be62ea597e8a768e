//! From the start of the server until it is ready, what it holds then, and what containing a process costs.

use std::{ffi::OsString, path::Path, time::Duration};

use crate::{
    Outcome,
    gateway::{Gateway, Setup},
    options::Options,
    process::{Memory, Program, buried_children},
    stats::{float, median},
};

/// One engine's start.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) engine: &'static str,
    /// Until `/healthz` said 200, milliseconds.
    pub(crate) ready_ms: f64,
    pub(crate) gateway: Memory,
    pub(crate) cli: Memory,
    pub(crate) processes: usize,
}

pub(crate) async fn measure(setups: &[Setup], options: &Options) -> Outcome<Vec<Start>> {
    let mut starts = Vec::new();
    for setup in setups {
        options.say(&format!("cold starts of {}", setup.name));
        let mut times = Vec::new();
        let mut last = None;
        for _ in 0..options.pick(3, 7) {
            let gateway = Gateway::start(setup).await?;
            times.push(gateway.start.as_secs_f64() * 1000.0);
            // Whatever the start has left to do.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let below = crate::process::tree(gateway.pid()).len() - 1;
            last = Some((gateway.memory(), Memory::of_clis_below(gateway.pid()), below));
            gateway.end().await?;
        }
        let (gateway, cli, processes) = last.ok_or("no start")?;
        starts.push(Start { engine: setup.engine, ready_ms: median(times), gateway, cli, processes });
    }
    Ok(starts)
}

/// Processor seconds of `codex-api contain` around a program that does nothing, that program's share included.
pub(crate) async fn containment(gateway: &Path, folder: &Path) -> Outcome<f64> {
    const TIMES: usize = 40;
    let arguments: Vec<OsString> =
        ["contain", &format!("--parent={}", std::process::id()), "--grace-ms=1000", "--", "/bin/true"]
            .map(OsString::from)
            .to_vec();
    let before = buried_children();
    for _ in 0..TIMES {
        let log = folder.join("contain.log");
        let mut program = Program::start(gateway, &arguments, &Default::default(), folder, &log)?;
        tokio::time::timeout(Duration::from_secs(10), program.child.wait()).await??;
    }
    Ok((buried_children() - before) / float(TIMES))
}
