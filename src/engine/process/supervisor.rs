//! The process between the server and Codex, which runs as the hidden command `codex-api supervise`. The supervisor
//! adopts every orphan of Codex and kills all descendants before its own exit. No command of the agent outlives its
//! turn, even in another session or after a kill of the server.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, kill_process, kill_process_group, test_kill_process_group,
    wait,
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    REAP_TIMEOUT,
    platform::{
        SIGNALS_PARENT_DEATH, descendants, is_exiting, kill_on_parent_death, reap_orphans_of_descendants,
        signal_on_parent_death,
    },
    private_dir::remove_tree,
};

/// Pause between two checks of processes that cannot be waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Pause between two checks of the parent, on systems that send no signal at its exit.
const PARENT_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Arguments of the supervisor.
#[derive(Debug, Clone)]
pub struct SupervisorArgs {
    /// PID of the required parent. The supervisor stops when this process exits.
    pub parent: u32,
    /// Time between the request to stop (SIGINT) and SIGKILL.
    pub grace: Duration,
    /// Folders to remove at the end if the parent has exited.
    pub remove: Vec<PathBuf>,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

/// Runs the command to its end, forwards stop signals to it, then kills its remaining descendants.
///
/// Returns the exit code of the command, or 128 plus the signal that killed it.
pub fn run(args: &SupervisorArgs) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(supervise(args)));
    if !has_parent(args.parent) {
        // A running parent reads files in the folders first, and removes the folders itself.
        for folder in &args.remove {
            drop(remove_tree(folder));
        }
    }
    match outcome {
        Ok(status) => ExitCode::from(code(status)),
        Err(error) => {
            report(&format!("codex-api supervise: {error}\n"));
            // A shell uses the same codes for a command that is missing or not executable.
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

async fn supervise(args: &SupervisorArgs) -> io::Result<ExitStatus> {
    // The listeners are registered first, so that no signal kills the supervisor before its descendants.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut parent_died = signal(SignalKind::user_defined1())?;
    let mut child_changed = signal(SignalKind::child())?;

    reap_orphans_of_descendants()?;
    signal_on_parent_death(Signal::USR1)?;
    if !has_parent(args.parent) {
        return Err(io::Error::other("the parent process has exited"));
    }

    let child = spawn(&args.command)?;
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
            _ = child_changed.recv() => status = reap(child).status,
            _ = interrupt.recv() => deadline = Some(stop(child, deadline, args.grace)),
            _ = terminate.recv() => deadline = Some(stop(child, deadline, args.grace)),
            _ = hangup.recv() => deadline = Some(stop(child, deadline, args.grace)),
            _ = parent_died.recv() => {
                is_orphan = true;
                deadline = Some(stop(child, deadline, args.grace));
            }
            () = parent_exit(args.parent), if !SIGNALS_PARENT_DEATH && !is_orphan => {
                is_orphan = true;
                deadline = Some(stop(child, deadline, args.grace));
            }
            () = overdue => break,
        }
    }
    let killed = kill_descendants(child, &mut child_changed).await;
    let killed_at = Instant::now();
    while is_orphan && has_parent(args.parent) && killed_at.elapsed() < REAP_TIMEOUT {
        // The signal comes from the first exiting thread of the parent; the process exits with its last thread.
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    status.or(killed).ok_or_else(|| io::Error::other("the command could not be killed"))
}

/// Completes when the parent has exited.
async fn parent_exit(pid: u32) {
    while has_parent(pid) {
        tokio::time::sleep(PARENT_POLL_INTERVAL).await;
    }
}

/// Returns `true` if `pid` is the parent of this process and is not exiting.
fn has_parent(pid: u32) -> bool {
    let is_parent = getppid().is_some_and(|parent| parent.as_raw_nonzero().get().unsigned_abs() == pid);
    is_parent && !is_exiting(pid)
}

fn spawn(command: &[OsString]) -> io::Result<Pid> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    #[expect(unsafe_code, reason = "prctl is async-signal-safe and must run in the child")]
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(kill_on_parent_death);
    }
    let child = command.spawn()?;
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("no process id"))
}

/// Sends SIGINT to the command and returns its deadline. A second call returns a deadline that has passed.
fn stop(child: Pid, deadline: Option<tokio::time::Instant>, grace: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    if deadline.is_some() {
        return now;
    }
    // SIGINT is the only signal on which Codex kills its commands (0.169).
    let _already_exited = kill_process_group(child, Signal::INT);
    now + grace
}

struct Reaped {
    /// The status of the command itself.
    status: Option<ExitStatus>,
    has_children: bool,
}

/// Reaps every exited child, including adopted orphans.
fn reap(child: Pid) -> Reaped {
    let mut status = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, reaped))) if pid == child => status = Some(ExitStatus::from_raw(reaped.as_raw())),
            Ok(Some(_)) => {}
            Ok(None) => return Reaped { status, has_children: true },
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Reaped { status, has_children: false },
        }
    }
}

/// Kills every descendant until none is left. Orphans of killed processes become children of the supervisor. Where
/// descendants cannot be listed, kills the process group of the command.
async fn kill_descendants(child: Pid, child_changed: &mut tokio::signal::unix::Signal) -> Option<ExitStatus> {
    let started = Instant::now();
    let mut status = None;
    loop {
        for pid in descendants(getpid()) {
            let _already_exited = kill_process(pid, Signal::KILL);
        }
        if !SIGNALS_PARENT_DEATH {
            let _already_exited = kill_process_group(child, Signal::KILL);
        }
        let reaped = reap(child);
        status = status.or(reaped.status);
        let group_exists = !SIGNALS_PARENT_DEATH && test_kill_process_group(child).is_ok();
        if !(reaped.has_children || group_exists) || started.elapsed() > REAP_TIMEOUT {
            return status;
        }
        // SIGCHLD ends the wait early; the interval covers processes that forked during the listing.
        drop(tokio::time::timeout(POLL_INTERVAL, child_changed.recv()).await);
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Writes to stderr. Codex has the same stderr, and the server keeps its end.
fn report(text: &str) {
    drop(io::Write::write_all(&mut io::stderr(), text.as_bytes()));
}
