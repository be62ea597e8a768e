//! Child programs of the bench, and their time and memory as `/proc` reports them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{BenchResult, stats::float};

/// A child program. Killed if it is dropped before `end`.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) pid: u32,
}

impl Program {
    /// Starts a program with exactly the environment `env`. Its output goes to `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        env: &BTreeMap<OsString, OsString>,
        folder: &Path,
        log: &Path,
    ) -> BenchResult<Self> {
        let stdout = fs::OpenOptions::new().append(true).create(true).open(log)?;
        Self::spawn(program, arguments, env, folder, log, (Stdio::null(), stdout.into()))
    }

    /// Starts a program with pipes for stdin and stdout.
    pub(crate) fn start_with_pipes(
        program: &Path,
        arguments: &[OsString],
        env: &BTreeMap<OsString, OsString>,
        folder: &Path,
        log: &Path,
    ) -> BenchResult<Self> {
        Self::spawn(program, arguments, env, folder, log, (Stdio::piped(), Stdio::piped()))
    }

    fn spawn(
        program: &Path,
        arguments: &[OsString],
        env: &BTreeMap<OsString, OsString>,
        folder: &Path,
        log: &Path,
        (stdin, stdout): (Stdio, Stdio),
    ) -> BenchResult<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(env).current_dir(folder).kill_on_drop(true);
        let stderr = fs::OpenOptions::new().append(true).create(true).open(log)?;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        #[expect(clippy::disallowed_methods, reason = "the launcher of the crate is part of the measurement")]
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let pid = child.id().ok_or("a child without a process id")?;
        Ok(Self { child, pid })
    }

    /// Sends SIGTERM, and kills the program if it does not exit.
    pub(crate) async fn end(&mut self) -> BenchResult<()> {
        drop(self.child.stdin.take());
        if let Some(pid) = Pid::from_raw(self.pid.cast_signed()) {
            let _already_exited = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// Processor time in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Time of the gateway: its own and that of the supervisor processes.
    pub(crate) gateway: f64,
    /// Time of the CLI and its children, including exited ones.
    pub(crate) cli: f64,
}

impl Cost {
    /// Returns the difference to an earlier value.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { gateway: self.gateway - before.gateway, cli: self.cli - before.cli }
    }

    /// Returns the time of a gateway and all its descendants.
    pub(crate) fn read_tree(gateway: u32) -> Self {
        let executable = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
        let ours = executable(gateway);
        let mut cost = Self::default();
        for pid in tree(gateway) {
            let Some(stat) = Stat::read(pid) else { continue };
            // The time of reaped children includes their own children. Nearly all of it is time of the CLI.
            if executable(pid) == ours {
                cost.gateway += stat.own;
                cost.cli += stat.reaped_children;
            } else {
                cost.cli += stat.own + stat.reaped_children;
            }
        }
        cost
    }

    /// Returns the time of programs that are all CLI.
    pub(crate) fn read_clis(roots: impl IntoIterator<Item = u32>) -> Self {
        let stats = roots.into_iter().flat_map(tree).filter_map(Stat::read);
        Self { gateway: 0.0, cli: stats.map(|stat| stat.own + stat.reaped_children).sum() }
    }
}

/// Returns the processor time of our own exited children, in seconds.
pub(crate) fn reaped_children_time() -> f64 {
    Stat::read(std::process::id()).map_or(f64::NAN, |stat| stat.reaped_children)
}

/// Returns the processor time of one process, in seconds.
pub(crate) fn process_time(pid: u32) -> f64 {
    Stat::read(pid).map_or(f64::NAN, |stat| stat.own)
}

/// Ticks in `/proc`, independent of the kernel's own clock.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

struct Stat {
    parent: u32,
    own: f64,
    reaped_children: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain any character.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let seconds = |at: usize| Some(float(ticks(at)? + ticks(at + 1)?) / TICKS_PER_SECOND);
        // A tick is 10 ms, too coarse for a gateway's share of a turn.
        let own = clock(pid).or_else(|| seconds(11))?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, own, reaped_children: seconds(13)? })
    }
}

/// Returns a process's own processor clock in seconds, including exited threads, without children.
fn clock(pid: u32) -> Option<f64> {
    // The kernel's id for the clock of another process: CPUCLOCK_SCHED of its pid.
    let id = (!pid.cast_signed() << 3) | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "rustix cannot name another process's clock")]
    // SAFETY: the call writes to `time`, which outlives it, and to nothing else.
    let code = unsafe { libc::clock_gettime(id, &raw mut time) };
    (code == 0).then(|| float(time.tv_sec) + float(time.tv_nsec) / 1e9)
}

/// Returns a process and all its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found
}

/// Memory of one process, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident memory, including the program's own pages.
    pub(crate) resident: f64,
    /// The part that belongs to this process alone and to no file.
    pub(crate) anonymous: f64,
}

impl Memory {
    pub(crate) fn read(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().unwrap_or(f64::NAN)
        };
        Self { resident: value("VmRSS"), anonymous: value("RssAnon") }
    }

    /// Returns the memory of all processes below a gateway other than its own program.
    pub(crate) fn read_clis_below(gateway: u32) -> Self {
        let executable = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
        let ours = executable(gateway);
        let clis = tree(gateway).into_iter().filter(|&pid| executable(pid) != ours).map(Self::read);
        clis.fold(Self::default(), |sum, one| Self {
            resident: sum.resident + one.resident,
            anonymous: sum.anonymous + one.anonymous,
        })
    }
}

/// Copies a folder. Links stay links.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> BenchResult<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, kind) = (to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            copy_folder(&entry.path(), &path)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, path)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), path)?;
        }
    }
    Ok(())
}

/// Returns the absolute path of a program.
pub(crate) fn absolute(path: &Path) -> BenchResult<PathBuf> {
    fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
