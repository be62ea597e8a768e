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

use super::procfs::descendants;

/// How long the kernel may take to bury killed processes before we give up on them.
const BURIAL: Duration = Duration::from_secs(5);

/// What to contain.
#[derive(Debug, Clone)]
pub struct SupervisorArgs {
    /// The process that must be our parent; when it is gone, so are we.
    pub parent: u32,
    /// Time between the request to stop and the kill.
    pub grace: Duration,
    /// Folders to remove at the end, if the parent no longer can.
    pub remove: Vec<PathBuf>,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

/// Runs the command to its end, passes stop signals on to it, then ends whatever it left.
/// The exit code is the command's, or 128 plus the signal that ended it.
pub fn run(contained: &SupervisorArgs) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(contain(contained)));
    if !has_parent(contained.parent) {
        // Our parent would have removed them, after a look into them.
        for folder in &contained.remove {
            drop(std::fs::remove_dir_all(folder));
        }
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

async fn contain(contained: &SupervisorArgs) -> io::Result<ExitStatus> {
    // Listeners first: from here on no signal ends us before our work is done.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut orphaned = signal(SignalKind::user_defined1())?;
    let mut child_changed = signal(SignalKind::child())?;

    set_child_subreaper(Some(getpid()))?;
    set_parent_process_death_signal(Some(Signal::USR1))?;
    if !has_parent(contained.parent) {
        return Err(io::Error::other("the parent is gone"));
    }

    let child = spawn(&contained.command)?;
    let mut status = None;
    let (mut deadline, mut is_orphan) = (None, false);
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
            _ = orphaned.recv() => {
                is_orphan = true;
                deadline = Some(stop(child, deadline, contained.grace));
            }
            () = overdue => break,
        }
    }
    let swept = sweep(child, &mut child_changed).await;
    let swept_at = Instant::now();
    while is_orphan && has_parent(contained.parent) && swept_at.elapsed() < BURIAL {
        // The first of its threads tells us; the last one may take a while.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    status.or(swept).ok_or_else(|| io::Error::other("the command could not be ended"))
}

/// One that is dying has lost its memory, and its pipes, some time before it is gone.
fn has_parent(pid: u32) -> bool {
    let is_parent = getppid().is_some_and(|parent| parent.as_raw_nonzero().get().unsigned_abs() == pid);
    is_parent && !std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
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

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Our stderr is Codex's stderr, which the engine keeps: the only place for our own last words.
fn report(text: &str) {
    drop(io::Write::write_all(&mut io::stderr(), text.as_bytes()));
}
