//! The process between us and Codex: it adopts every orphan that Codex leaves behind and ends them all, so that no
//! command of the agent outlives its turn, whatever session it moved to and even when we are killed.
//! Started as the hidden command `codex-api contain`; does not know what it contains.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, kill_process, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, wait,
};
use tokio::signal::unix::{SignalKind, signal};

/// How long the kernel may take to bury killed processes before we give up on them.
const BURIAL: Duration = Duration::from_secs(5);

/// What to contain.
#[derive(Debug, Clone)]
pub struct Contained {
    /// The process that must be our parent; when it is gone, so are we.
    pub parent: u32,
    /// Time between the request to stop and the kill.
    pub grace: Duration,
    /// A folder to remove at the end.
    pub remove: Option<PathBuf>,
    /// A folder that our parent shares among its children, to remove if it is gone.
    pub inherit: Option<PathBuf>,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

/// Runs the command to its end, passes stop signals on to it, then ends whatever it left.
/// The exit code is the command's, or 128 plus the signal that ended it.
pub fn run(contained: &Contained) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(contain(contained)));
    if let Some(folder) = &contained.remove {
        // Usually our parent removes it; when it was killed, this is the only chance.
        drop(std::fs::remove_dir_all(folder));
    }
    if let Some(folder) = contained.inherit.as_ref().filter(|_| is_orphan(contained)) {
        drop(std::fs::remove_dir_all(folder));
    }
    match outcome {
        Ok(status) => ExitCode::from(code(status)),
        Err(error) => {
            report(&format!("codex-api contain: {error}\n"));
            // What a shell says of a command that cannot be executed, or is not there.
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

async fn contain(contained: &Contained) -> io::Result<ExitStatus> {
    // Listeners first: from here on no signal ends us before our work is done.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child_changed = signal(SignalKind::child())?;

    set_child_subreaper(Some(getpid()))?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if is_orphan(contained) {
        return Err(io::Error::other("the parent is gone"));
    }

    let child = spawn(&contained.command)?;
    let mut status = None;
    let mut deadline = None;
    while status.is_none() {
        let overdue = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = child_changed.recv() => status = reap(child).found,
            _ = interrupt.recv() => deadline = Some(stop(child, deadline, contained.grace)),
            _ = terminate.recv() => deadline = Some(stop(child, deadline, contained.grace)),
            _ = hangup.recv() => deadline = Some(stop(child, deadline, contained.grace)),
            () = overdue => break,
        }
    }
    let swept = sweep(child, &mut child_changed).await;
    status.or(swept).ok_or_else(|| io::Error::other("the command could not be ended"))
}

fn is_orphan(contained: &Contained) -> bool {
    getppid().map(Pid::as_raw_nonzero).map(|p| p.get().unsigned_abs()) != Some(contained.parent)
}

fn spawn(command: &[OsString]) -> io::Result<Pid> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    #[expect(unsafe_code, reason = "prctl is async-signal-safe; the only way to tie a child's life to ours")]
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let child = command.spawn()?;
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("no process id"))
}

/// Asks the command to stop; asked again, it has no time left.
fn stop(child: Pid, deadline: Option<tokio::time::Instant>, grace: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    if deadline.is_some() {
        return now;
    }
    // SIGINT is the one signal on which Codex ends the commands it runs.
    let _gone_already = kill_process_group(child, Signal::INT);
    now + grace
}

struct Reaped {
    found: Option<ExitStatus>,
    any_left: bool,
}

/// Buries every dead child, adopted ones included.
fn reap(child: Pid) -> Reaped {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => found = Some(ExitStatus::from_raw(status.as_raw())),
            Ok(Some(_)) => {}
            Ok(None) => return Reaped { found, any_left: true },
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Reaped { found, any_left: false },
        }
    }
}

/// Kills every descendant until none is left. Orphans of the killed become our children, so nobody escapes by dying.
async fn sweep(child: Pid, child_changed: &mut tokio::signal::unix::Signal) -> Option<ExitStatus> {
    let started = Instant::now();
    let mut status = None;
    loop {
        for pid in descendants(getpid()) {
            let _gone_already = kill_process(pid, Signal::KILL);
        }
        let reaped = reap(child);
        status = status.or(reaped.found);
        if !reaped.any_left || started.elapsed() > BURIAL {
            return status;
        }
        // A death wakes us; the tick is for those who forked while we looked.
        drop(tokio::time::timeout(Duration::from_millis(10), child_changed.recv()).await);
    }
}

/// All processes below `root`, by one reading of `/proc`.
fn descendants(root: Pid) -> Vec<Pid> {
    let parents = parents();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Every process with its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(entry.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything: the fields go on after the last one.
            let after_name = stat.iter().rposition(|byte| *byte == b')')?;
            let rest = std::str::from_utf8(stat.get(after_name + 1..)?).ok()?;
            let parent = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
            Some((Pid::from_raw(pid)?, Pid::from_raw(parent)?))
        })
        .collect()
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Our stderr is Codex's stderr, which the engine keeps: the only place for our own last words.
fn report(text: &str) {
    drop(io::Write::write_all(&mut io::stderr(), text.as_bytes()));
}
