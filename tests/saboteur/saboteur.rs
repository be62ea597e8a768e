//! The real Codex CLI behind a relay that goes wrong when a test says so: what the fake codex plays of a broken
//! app-server, with the real one's turns. It passes on every line of `app-server` until it gets an order; all other
//! commands are the CLI's alone.
//!
//! Environment: `SABOTEUR_CODEX` (the real CLI), `SABOTEUR_FOLDER`. Each app-server makes two files there, named for its
//! process id: `PID.orders`, a fifo that takes orders, one a line (see [`Order`]), and `PID.turns`, which has a byte for each
//! turn that it was given.

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

/// Lines that are of no protocol, or of nobody's turn. None of them may end any.
const GARBAGE: &[&[u8]] = &[
    b"thread 'main' panicked\n",
    b"\n",
    b"\xff\xfe\x00\n",
    b"{\"method\":\n",
    b"null\n",
    b"{}\n",
    b"{\"id\":987654321,\"result\":{}}\n",
    b"{\"method\":\"item/agentMessage/delta\",\"params\":{\"threadId\":\"nobody\",\"delta\":\"X\"}}\n",
];

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `garbage`: some lines of it, between those of the CLI.
    Garbage,
    /// `nonsense`: garbage in place of every line from now on.
    Nonsense,
    /// `long`: one line of 20 MB.
    Long,
    /// `mute`: nothing is said any more.
    Mute,
    /// `deaf`: nothing is heard any more, although it is read.
    Deaf,
    /// `close-stdin`
    CloseStdin,
    /// `close-stdout`
    CloseStdout,
}

impl Order {
    fn of(word: &str) -> io::Result<Self> {
        Ok(match word {
            "garbage" => Self::Garbage,
            "nonsense" => Self::Nonsense,
            "long" => Self::Long,
            "mute" => Self::Mute,
            "deaf" => Self::Deaf,
            "close-stdin" => Self::CloseStdin,
            "close-stdout" => Self::CloseStdout,
            other => return Err(io::Error::other(format!("no such order: {other}"))),
        })
    }
}

/// What both directions and the orders share.
struct Relay {
    /// The last order that changes how lines are passed on.
    order: Mutex<Option<Order>>,
    /// `None` once it was closed. Whole lines are written under the lock.
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
    let (taker, turns) = (Arc::clone(&relay), File::create(named(&folder, "turns"))?);
    thread::spawn(move || taker.take(orders));
    let mut child = codex.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("a pipe is missing"));
    };
    let listener = Arc::clone(&relay);
    // The CLI ends when its stdin does, and so do we.
    thread::spawn(move || listener.listen(stdin, to, turns));
    relay.speak(from)?;
    let status = child.wait()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

impl Relay {
    fn order(&self) -> Option<Order> {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From us to the CLI. Returns when the pipe is at its end; `to` is then closed.
    fn listen(&self, stdin: File, mut to: impl Write, mut turns: File) -> io::Result<()> {
        let (mut stdin, mut line) = (BufReader::new(stdin), Vec::new());
        while stdin.read_until(b'\n', &mut line)? > 0 {
            let order = self.order();
            if order == Some(Order::CloseStdin) {
                drop(stdin);
                // The CLI's own stays open: it is not told.
                loop {
                    thread::park();
                }
            }
            if order != Some(Order::Deaf) {
                if line.windows(TURN.len()).any(|part| part == TURN) {
                    // Told before the turn can say anything.
                    turns.write_all(b".")?;
                }
                to.write_all(&line)?;
            }
            line.clear();
        }
        Ok(())
    }

    /// From the CLI to the server, till the CLI ends.
    fn speak(&self, from: impl Read) -> io::Result<()> {
        let (mut from, mut line) = (BufReader::new(from), Vec::new());
        while from.read_until(b'\n', &mut line)? > 0 {
            let order = self.order();
            if order != Some(Order::Mute) {
                self.say(if order == Some(Order::Nonsense) { GARBAGE[0] } else { &line });
            }
            line.clear();
        }
        Ok(())
    }

    /// Says something to the server. That it no longer reads is no reason to end: it is what some orders are about.
    fn say(&self, words: &[u8]) {
        let mut stdout = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = stdout.as_mut() {
            let _ = pipe.write_all(words);
        }
    }

    /// Takes orders for ever.
    fn take(&self, orders: BufReader<File>) -> io::Result<()> {
        for word in orders.lines() {
            let order = Order::of(&word?)?;
            match order {
                Order::Garbage => GARBAGE.iter().for_each(|line| self.say(line)),
                Order::Long => self.say(&[vec![b'x'; 20_000_000], b"\n".to_vec()].concat()),
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

/// The beginning of a turn, in a line of the protocol.
const TURN: &[u8] = br#""turn/start""#;

#[expect(unsafe_code, reason = "closing them is what this program is for; nobody else in it uses them")]
fn pipes() -> (File, File) {
    // SAFETY: both are open at the start, and std's handles are not used.
    unsafe { (OwnedFd::from_raw_fd(0).into(), OwnedFd::from_raw_fd(1).into()) }
}

fn orders(folder: &Path) -> io::Result<BufReader<File>> {
    let path = named(folder, "orders");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // For writing too, so that it does not end when a test has said what it wants.
    Ok(BufReader::new(OpenOptions::new().read(true).write(true).open(path)?))
}

fn named(folder: &Path, what: &str) -> PathBuf {
    folder.join(format!("{}.{what}", std::process::id()))
}

fn variable(name: &str) -> io::Result<OsString> {
    std::env::var_os(name).ok_or_else(|| io::Error::other(format!("{name} is not set")))
}
