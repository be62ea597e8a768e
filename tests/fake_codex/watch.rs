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

/// The argument that makes this program its own grandchild.
pub(crate) const GRANDCHILD: &str = "__fake-codex-grandchild";

/// What SIGINT, SIGTERM and SIGHUP do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Signals {
    /// As with the real one: SIGINT ends it with code 1, the others kill.
    Heeded,
    /// As with the app-server: SIGTERM ends it with code 0, the others kill.
    Served,
    /// Nothing.
    Ignored,
}

/// Starts the thread that receives signals and ends the process when its time is over. Signals are in force
/// when this returns.
pub(crate) fn start(signals: Signals) -> io::Result<()> {
    start_for(signals, LIFETIME)
}

/// The same with another bound.
pub(crate) fn start_for(signals: Signals, lifetime: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ready, is_ready) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let code = runtime.block_on(async { tokio::time::timeout(lifetime, receive(signals, &ready)).await });
        leave(if code.is_err() { 124 } else { i32::from(signals != Signals::Served) });
    });
    is_ready.recv().unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// Ends when a signal does, and reports when signals are in force.
async fn receive(signals: Signals, ready: &mpsc::SyncSender<io::Result<()>>) {
    let installed = match signals {
        Signals::Heeded => signal(SignalKind::interrupt()).map(|s| vec![s]),
        Signals::Served => signal(SignalKind::terminate()).map(|s| vec![s]),
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
                (Signals::Heeded | Signals::Served, Some(ending)) => drop(ending.recv().await),
                (Signals::Heeded | Signals::Served, None) | (Signals::Ignored, _) => {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Parks until the watching thread ends the process.
pub(crate) fn forever() -> ! {
    loop {
        thread::park();
    }
}

/// Appends a process id to the file of the test.
pub(crate) fn note_pid(pid: u32) -> io::Result<()> {
    let Some(path) = std::env::var_os("FAKE_CODEX_PID_FILE") else { return Ok(()) };
    OpenOptions::new().create(true).append(true).open(path)?.write_all(format!("{pid}\n").as_bytes())
}

/// Takes a byte out of a pipe; returns whether there was one.
pub(crate) fn passes(pipe: &str) -> io::Result<bool> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut pipe = OpenOptions::new().read(true).custom_flags(nonblocking).open(pipe)?;
    match pipe.read(&mut [0]) {
        Ok(read) => Ok(read > 0),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Starts the grandchild. On return it has its own session, ignores signals, and its id is recorded.
pub(crate) fn start_grandchild() -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(GRANDCHILD).stdin(Stdio::from(writer)).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let child = command.spawn()?;
    // The command holds the writer: without it gone, a grandchild that dies at once would never be noticed.
    drop(command);
    let mut line = String::new();
    if BufReader::new(reader).read_line(&mut line)? == 0 {
        return Err(io::Error::other("the grandchild died before it was ready"));
    }
    note_pid(child.id())
}

/// Runs the grandchild: own session and group, signals ignored, stdout and stderr held open.
pub(crate) fn grandchild() -> ExitCode {
    let ready = || -> io::Result<()> {
        rustix::process::setsid()?;
        start(Signals::Ignored)?;
        // Its stdin is the writing end of the pipe that the parent waits at.
        OpenOptions::new().write(true).open("/proc/self/fd/0")?.write_all(b"ready\n")
    };
    match ready() {
        Ok(()) => forever(),
        Err(e) => {
            let _ = writeln!(io::stderr(), "fake codex: grandchild: {e}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::exit, clippy::disallowed_methods, reason = "a signal ends the fake wherever it is")]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}
