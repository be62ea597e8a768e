//! The real Codex CLI behind a relay that breaks the protocol on an order of a test, for a broken app-server with
//! turns of the real CLI. The relay forwards every line of `app-server` until it receives an order; it passes all
//! other commands to the CLI.
//!
//! Environment: `SABOTEUR_CODEX` (the real CLI), `SABOTEUR_FOLDER`. Each app-server creates two files there, named after
//! its process id: `PID.orders`, a fifo with one order a line (see [`Order`]), and `PID.turns`, with one byte for
//! each received turn.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Lines outside of the protocol or without a turn. None of them may end a turn.
const GARBAGE: &[&[u8]] = &[
    b"thread 'main' panicked\n",
    b"\n",
    b"\xff\xfe\x00\n",
    b"{\"method\":\n",
    b"null\n",
    b"{}\n",
    b"{\"id\":987654321,\"result\":{}}\n",
    b"{\"method\":\"item/agentMessage/delta\",\"params\":{\"threadId\":\"unknown\",\"delta\":\"X\"}}\n",
];

/// An order of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `garbage`: writes some lines of garbage between those of the CLI.
    Garbage,
    /// `nonsense`: replaces every further line by garbage.
    Nonsense,
    /// `long`: writes one line of 20 MB.
    Long,
    /// `mute`: writes no further line.
    Mute,
    /// `deaf`: reads and drops every further line.
    Deaf,
    /// `close-stdin`
    CloseStdin,
    /// `close-stdout`
    CloseStdout,
}

impl Order {
    fn parse(text: &str) -> io::Result<Self> {
        Ok(match text {
            "garbage" => Self::Garbage,
            "nonsense" => Self::Nonsense,
            "long" => Self::Long,
            "mute" => Self::Mute,
            "deaf" => Self::Deaf,
            "close-stdin" => Self::CloseStdin,
            "close-stdout" => Self::CloseStdout,
            other => return Err(io::Error::other(format!("unknown order: {other}"))),
        })
    }
}

/// State of both directions and the orders.
struct Relay {
    /// The last order that changes the forwarding of lines.
    order: Mutex<Option<Order>>,
    /// `None` after `close-stdout`. Whole lines are written under the lock.
    stdout: Mutex<Option<File>>,
}

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut codex = Command::new(variable("SABOTEUR_CODEX")?);
    codex.args(&arguments);
    if arguments.first().is_none_or(|first| first != "app-server") {
        return Err(codex.exec());
    }
    let folder = PathBuf::from(variable("SABOTEUR_FOLDER")?);
    let (stdin, stdout) = pipes();
    let relay = Arc::new(Relay { order: Mutex::default(), stdout: Mutex::new(Some(stdout)) });

    let orders = orders(&folder)?;
    let (executor, turns) = (Arc::clone(&relay), File::create(file_of_process(&folder, "turns"))?);
    thread::spawn(move || executor.execute_orders(orders));
    let mut child = codex.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("a pipe is missing"));
    };
    let forwarder = Arc::clone(&relay);
    // The CLI ends when its stdin closes, and the relay ends with the CLI.
    thread::spawn(move || forwarder.forward_to_codex(stdin, to, turns));
    relay.forward_to_server(from)?;
    let status = child.wait()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

impl Relay {
    fn order(&self) -> Option<Order> {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forwards lines from the server to the CLI. Returns at the end of the pipe; `to` is then closed.
    fn forward_to_codex(&self, stdin: File, mut to: impl Write, mut turns: File) -> io::Result<()> {
        let (mut stdin, mut line) = (BufReader::new(stdin), Vec::new());
        while stdin.read_until(b'\n', &mut line)? > 0 {
            let order = self.order();
            if order == Some(Order::CloseStdin) {
                drop(stdin);
                // The stdin of the CLI stays open, so the CLI keeps running.
                loop {
                    thread::park();
                }
            }
            if order != Some(Order::Deaf) {
                if line.windows(TURN.len()).any(|part| part == TURN) {
                    // Recorded before the turn can produce output.
                    turns.write_all(b".")?;
                }
                to.write_all(&line)?;
            }
            line.clear();
        }
        Ok(())
    }

    /// Forwards lines from the CLI to the server until the CLI ends.
    fn forward_to_server(&self, from: impl Read) -> io::Result<()> {
        let (mut from, mut line) = (BufReader::new(from), Vec::new());
        while from.read_until(b'\n', &mut line)? > 0 {
            let order = self.order();
            if order != Some(Order::Mute) {
                self.write(if order == Some(Order::Nonsense) { GARBAGE[0] } else { &line });
            }
            line.clear();
        }
        Ok(())
    }

    /// Writes to the server. Ignores a closed pipe, which some orders cause.
    fn write(&self, bytes: &[u8]) {
        let mut stdout = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = stdout.as_mut() {
            let _ = pipe.write_all(bytes);
        }
    }

    /// Executes orders until an I/O error or an unknown order.
    fn execute_orders(&self, orders: BufReader<File>) -> io::Result<()> {
        for line in orders.lines() {
            let order = Order::parse(&line?)?;
            match order {
                Order::Garbage => GARBAGE.iter().for_each(|line| self.write(line)),
                Order::Long => self.write(&[vec![b'x'; 20_000_000], b"\n".to_vec()].concat()),
                Order::CloseStdout => {
                    drop(self.stdout.lock().unwrap_or_else(PoisonError::into_inner).take());
                }
                Order::Nonsense | Order::Mute | Order::Deaf | Order::CloseStdin => {
                    *self.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
                }
            }
        }
        Ok(())
    }
}

/// The method of a turn start in a line of the protocol.
const TURN: &[u8] = br#""turn/start""#;

#[expect(unsafe_code, reason = "the relay must own both pipes to close them, and no other code uses them")]
fn pipes() -> (File, File) {
    // SAFETY: both descriptors are open at the start, and the handles of std are not used.
    unsafe { (OwnedFd::from_raw_fd(0).into(), OwnedFd::from_raw_fd(1).into()) }
}

fn orders(folder: &Path) -> io::Result<BufReader<File>> {
    let path = file_of_process(folder, "orders");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // Opened for writing too, so that the end of a test's order does not end the fifo.
    Ok(BufReader::new(OpenOptions::new().read(true).write(true).open(path)?))
}

fn file_of_process(folder: &Path, extension: &str) -> PathBuf {
    folder.join(format!("{}.{extension}", std::process::id()))
}

fn variable(name: &str) -> io::Result<OsString> {
    std::env::var_os(name).ok_or_else(|| io::Error::other(format!("{name} is not set")))
}
