//! The machine of the measurement, without anything that identifies it.

use std::{fs, path::Path, thread::available_parallelism};

use crate::{
    BenchResult,
    options::Options,
    process::{Program, TICKS_PER_SECOND, process_time, reaped_children_time},
};

/// The machine and the versions.
#[derive(Debug)]
pub(crate) struct Machine {
    lines: Vec<(String, String)>,
    before: CpuTime,
}

/// Processor usage, in seconds since boot.
#[derive(Debug, Clone, Copy, Default)]
struct CpuTime {
    /// Available time.
    all: f64,
    /// Used time.
    used: f64,
    /// Time that the host took.
    stolen: f64,
    /// Time of this run, including programs that have exited.
    ours: f64,
}

impl Machine {
    pub(crate) async fn read(options: &Options, folder: &Path) -> BenchResult<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let memory = memory.trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) / (1 << 20);
        let cores = available_parallelism().map_or(0, usize::from);
        let mut lines = vec![
            ("processor".to_owned(), value(&read("/proc/cpuinfo"), "model name")),
            ("cores".to_owned(), cores.to_string()),
            ("memory".to_owned(), format!("{memory} GiB")),
            ("kernel".to_owned(), read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ];
        for (name, program) in [("codex-api", &options.gateway), ("codex", &options.codex)] {
            lines.push((name.to_owned(), version(program, folder).await?));
        }
        if let Some(litellm) = &options.litellm {
            let text = version(litellm, folder).await?;
            lines.push(("LiteLLM".to_owned(), text.rsplit(' ').next().unwrap_or_default().to_owned()));
        }
        Ok(Self { lines, before: CpuTime::now() })
    }

    /// Returns names and values. The load of other processes shows how reliable the figures are.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&str, String)> {
        let (before, after) = (self.before, CpuTime::now());
        let share = |of: fn(CpuTime) -> f64| {
            format!("{:.0} %", 100.0 * (of(after) - of(before)) / (after.all - before.all))
        };
        let taken = format!(
            "{} idle, {} this run, {} others, {} the host",
            share(|busy| busy.all - busy.used - busy.stolen),
            share(|busy| busy.ours),
            share(|busy| busy.used - busy.ours),
            share(|busy| busy.stolen)
        );
        let lines = self.lines.iter().map(|(name, value)| (name.as_str(), value.clone()));
        lines.chain([("processors during the run", taken)])
    }
}

impl CpuTime {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = first.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
        let seconds = |at: usize| ticks.get(at).copied().unwrap_or_default() / TICKS_PER_SECOND;
        // user, nice, system, idle, iowait, irq, softirq, steal
        let all = (0..8).map(seconds).sum();
        let stolen = seconds(7);
        let me = std::process::id();
        Self {
            all,
            used: all - seconds(3) - seconds(4) - stolen,
            stolen,
            ours: process_time(me) + reaped_children_time(),
        }
    }
}

/// Returns the last line that a program prints for `--version`.
async fn version(program: &Path, folder: &Path) -> BenchResult<String> {
    let log = tempfile::NamedTempFile::new_in(folder)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let env = [("PATH", path), ("HOME", folder.into()), ("LITELLM_LOCAL_MODEL_COST_MAP", "True".into())];
    let env = env.map(|(name, value)| (name.into(), value)).into();
    let mut program = Program::start(program, &["--version".into()], &env, folder, log.path())?;
    tokio::time::timeout(std::time::Duration::from_secs(60), program.child.wait()).await??;
    let text = fs::read_to_string(log.path())?;
    Ok(text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned())
}
