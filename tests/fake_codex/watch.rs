//! Signals, the time limit of every process, and the grandchild that ignores signals.

use std::{
    fs::OpenOptions,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

/// The time limit of a scenario and a grandchild, so that a failed test leaves nothing behind.
pub(crate) const LIFETIME: Duration = Duration::from_secs(120);

/// The argument that runs this program as the grandchild.
pub(crate) const GRANDCHILD: &str = "__fake-codex-grandchild";

/// The handling of SIGINT, SIGTERM and SIGHUP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Signals {
    /// Like the real `exec`: SIGINT exits with code 1, the others kill the process.
    Exec,
    /// Like the real `app-server`: SIGTERM exits with code 0, the others kill the process.
    AppServer,
    /// All three signals are ignored.
    Ignored,
}

/// Starts the thread that handles signals and exits after [`LIFETIME`]. The handlers are installed on return.
pub(crate) fn start(signals: Signals) -> io::Result<()> {
    start_for(signals, LIFETIME)
}

/// Like [`start`], with another time limit.
pub(crate) fn start_for(signals: Signals, lifetime: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ready, is_ready) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let code = runtime.block_on(async { tokio::time::timeout(lifetime, receive(signals, &ready)).await });
        exit(if code.is_err() { 124 } else { i32::from(signals != Signals::AppServer) });
    });
    is_ready.recv().unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// Sends to `ready` when the handlers are installed. Completes at a signal that exits.
async fn receive(signals: Signals, ready: &mpsc::SyncSender<io::Result<()>>) {
    let installed = match signals {
        Signals::Exec => signal(SignalKind::interrupt()).map(|s| vec![s]),
        Signals::AppServer => signal(SignalKind::terminate()).map(|s| vec![s]),
        Signals::Ignored => [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect(),
    };
    match installed {
        Err(e) => drop(ready.send(Err(e))),
        Ok(mut received) => {
            drop(ready.send(Ok(())));
            match (signals, received.first_mut()) {
                (Signals::Exec | Signals::AppServer, Some(ending)) => drop(ending.recv().await),
                (Signals::Exec | Signals::AppServer, None) | (Signals::Ignored, _) => {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Parks this thread until the signal thread exits the process.
pub(crate) fn park_forever() -> ! {
    loop {
        thread::park();
    }
}

/// Appends a process id to `FAKE_CODEX_PID_FILE`.
pub(crate) fn record_pid(pid: u32) -> io::Result<()> {
    let Some(path) = std::env::var_os("FAKE_CODEX_PID_FILE") else { return Ok(()) };
    OpenOptions::new().create(true).append(true).open(path)?.write_all(format!("{pid}\n").as_bytes())
}

/// Reads one byte from a pipe without blocking. Returns whether a byte was available.
pub(crate) fn try_read_byte(pipe: &str) -> io::Result<bool> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut pipe = OpenOptions::new().read(true).custom_flags(nonblocking).open(pipe)?;
    match pipe.read(&mut [0]) {
        Ok(read) => Ok(read > 0),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Starts the grandchild and records its id. On return the grandchild has its own session and ignores signals.
pub(crate) fn start_grandchild() -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(GRANDCHILD).stdin(Stdio::from(writer)).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let child = command.spawn()?;
    // The command holds the writer of the pipe. Dropping it lets the read below end if the grandchild exits early.
    drop(command);
    let mut line = String::new();
    if BufReader::new(reader).read_line(&mut line)? == 0 {
        return Err(io::Error::other("the grandchild exited before it was ready"));
    }
    record_pid(child.id())
}

/// Runs the grandchild with its own session. It ignores signals and holds stdout and stderr open.
pub(crate) fn grandchild() -> ExitCode {
    let ready = || -> io::Result<()> {
        rustix::process::setsid()?;
        start(Signals::Ignored)?;
        // The stdin of the grandchild is the writing end of the pipe that the parent reads.
        OpenOptions::new().write(true).open("/proc/self/fd/0")?.write_all(b"ready\n")
    };
    match ready() {
        Ok(()) => park_forever(),
        Err(e) => {
            let _ = writeln!(io::stderr(), "fake codex: grandchild: {e}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::exit, clippy::disallowed_methods, reason = "a signal exits the fake in any state")]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}
