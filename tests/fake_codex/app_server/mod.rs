//! `codex app-server`: many threads and turns in one process, on one event loop with a heap of timers. A turn is a list of
//! acts. No command is run, and a model is called only in `upstream`.

mod act;
mod catalog;
mod check;
mod conversation;
mod failures;
mod history;
mod input;
mod items;
mod model;
mod pending_requests;
mod scenario;
mod script;
#[cfg(test)]
mod selftest;
mod server;
mod threads;
mod tools;
mod turn;
mod upstream;
pub(crate) mod version;
mod wire;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    env,
    items::GARBAGE,
    print_error,
    watch::{self, Signals},
};
use input::Input;
use server::{Server, Setup};
use turn::{Next, ProcessAction};
use version::Release;

/// The time limit of the process, longer than any load test.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The number of buffered bytes that causes a write.
const FLUSH_BYTES: usize = 64 << 10;

/// The behaviour of the whole process, from `FAKE_CODEX_APP_SERVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Behaves like the real app-server.
    Good,
    /// Sends no response.
    Mute,
    /// Sends garbage instead of responses.
    Garbage,
    /// Ignores signals and the end of stdin.
    Stubborn,
}

/// Runs `codex app-server` with these `-c` overrides and this `-m`.
pub(crate) fn serve(overrides: &[String], model: Option<String>) -> io::Result<u8> {
    let mode = match env("FAKE_CODEX_APP_SERVER").as_deref() {
        // `careless` changes only whether commands run; see `upstream`.
        None | Some("" | "careless") => Mode::Good,
        Some("mute") => Mode::Mute,
        Some("dies") => return print_error(1, "Error: the mode `dies` ends the process\n"),
        Some("garbage") => Mode::Garbage,
        Some("stubborn") => Mode::Stubborn,
        Some(other) => {
            return print_error(crate::FAKE_ONLY, &format!("fake codex: unknown mode `{other}`\n"));
        }
    };
    if let Err(text) = codex_home() {
        return print_error(1, &text);
    }
    let override_of = |key: &str| {
        let value =
            overrides.iter().rev().find_map(|o| o.split_once('=').filter(|(name, _)| name.trim() == key));
        value.map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let catalog = match catalog::load(override_of("model_catalog_json").as_deref()) {
        Ok(catalog) => catalog,
        Err(text) => return print_error(1, &text),
    };
    let unload = override_of("thread_unload_delay_secs").as_deref() == Some("0");
    let setup = Setup { catalog, model: model.or_else(|| override_of("model")), unload };
    let (inputs, close) = input::start()?;
    watch::start_for(if mode == Mode::Stubborn { Signals::Ignored } else { Signals::AppServer }, LIFETIME)?;
    watch::record_pid(std::process::id())?;
    let server = Server::new(Release::from_version(&crate::version()), setup);
    EventLoop { mode, server, due: BinaryHeap::new(), close, sequence: 0 }.run(&inputs)
}

/// Returns `CODEX_HOME`, which must exist if it is set, or its default.
pub(crate) fn codex_home() -> Result<String, String> {
    match env("CODEX_HOME") {
        Some(home) if std::path::Path::new(&home).is_dir() => Ok(home),
        Some(home) => Err(format!("Error: CODEX_HOME points to {home:?}, but that path does not exist\n")),
        None => Ok(format!("{}/.codex", env("HOME").unwrap_or_default())),
    }
}

/// Timers within this window run together, so that many streams share one write. A single delta is early by at most this
/// time.
const BATCH_WINDOW: Duration = Duration::from_micros(100);

struct EventLoop {
    mode: Mode,
    server: Server,
    /// Time, sequence number and turn of each timer. The sequence number orders timers with the same time.
    due: BinaryHeap<Reverse<(Instant, u64, u64)>>,
    close: Arc<Notify>,
    sequence: u64,
}

impl EventLoop {
    fn run(mut self, inputs: &Receiver<Input>) -> io::Result<u8> {
        loop {
            let now = Instant::now() + BATCH_WINDOW;
            while let Some(Reverse((_, _, turn))) = self.due.peek().copied().filter(|due| due.0.0 <= now) {
                self.due.pop();
                if let Some(code) = self.run_turn(turn)? {
                    return Ok(code);
                }
            }
            self.flush()?;
            let input = match self.due.peek() {
                Some(Reverse((at, ..))) => inputs.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let ended = match input {
                Ok(Input::Lines(lines)) => {
                    if let Some(code) = self.on_lines(&lines)? {
                        return Ok(code);
                    }
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Ok(Input::End) | Err(RecvTimeoutError::Disconnected) => true,
            };
            if ended && self.mode == Mode::Stubborn {
                watch::park_forever();
            }
            if ended {
                // Like the real app-server, which exits without waiting for running turns.
                return Ok(0);
            }
        }
    }

    fn on_lines(&mut self, lines: &[u8]) -> io::Result<Option<u8>> {
        match self.mode {
            Mode::Mute => return Ok(None),
            Mode::Garbage => {
                let garbage = GARBAGE.iter().flat_map(|line| format!("{line}\n").into_bytes());
                self.server.context.out.bytes.extend(garbage);
                return Ok(None);
            }
            Mode::Good | Mode::Stubborn => {}
        }
        for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            for turn in self.server.on_line(line) {
                if let Some(code) = self.run_turn(turn)? {
                    return Ok(Some(code));
                }
            }
        }
        Ok(None)
    }

    /// Runs a turn until it waits. Returns an exit code if the turn ends the process.
    fn run_turn(&mut self, number: u64) -> io::Result<Option<u8>> {
        loop {
            let Server { context, threads, .. } = &mut self.server;
            // The turn may have been interrupted in the meantime.
            let Some(turn) = threads.turn(number) else { return Ok(None) };
            let next = turn.run(context);
            if context.out.bytes.len() >= FLUSH_BYTES {
                self.flush()?;
            }
            match next {
                Next::Now => {}
                Next::Wait => return Ok(None),
                Next::At(at) => {
                    self.sequence += 1;
                    self.due.push(Reverse((at, self.sequence, number)));
                    return Ok(None);
                }
                Next::Done => {
                    let Server { context, threads, .. } = &mut self.server;
                    threads.end_turn(context, number);
                    return Ok(None);
                }
                Next::Process(fate) => {
                    self.flush()?;
                    match fate {
                        ProcessAction::Exit { code, stderr } => return print_error(code, stderr).map(Some),
                        ProcessAction::CloseStdin => self.close.notify_one(),
                        ProcessAction::Stop => {
                            let own_pid = rustix::process::getpid();
                            rustix::process::kill_process(own_pid, rustix::process::Signal::STOP)?;
                        }
                    }
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &mut self.server.context.out.bytes;
        if !bytes.is_empty() {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()?;
            bytes.clear();
        }
        Ok(())
    }
}
