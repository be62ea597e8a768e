//! `codex app-server`: many threads and turns in one process, on one event loop with a heap of what is due. A turn
//! is a list of acts; nothing here asks a model or runs a command.

mod act;
mod catalog;
mod check;
mod failures;
mod history;
mod input;
mod items;
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
    say,
    watch::{self, Signals},
};
use input::Input;
use server::{Server, Setup};
use turn::{Fate, Next};
use version::Release;

/// Longer than any load test, shorter than for ever.
const LIFETIME: Duration = Duration::from_secs(3600);

/// As much as is written at once.
const WRITE_AT: usize = 64 << 10;

/// How the whole process behaves; from `FAKE_CODEX_APP_SERVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Like the real one.
    Good,
    /// Never answers.
    Mute,
    /// Answers every line with what is no answer.
    Garbage,
    /// Deaf to signals and to the end of its input.
    Stubborn,
}

/// Plays `codex app-server` with these `-c` overrides and this `-m`.
pub(crate) fn serve(overrides: &[String], model: Option<String>) -> io::Result<u8> {
    let mode = match env("FAKE_CODEX_APP_SERVER").as_deref() {
        // Careless ones are so in what they do, not in how they talk.
        None | Some("" | "careless") => Mode::Good,
        Some("mute") => Mode::Mute,
        Some("dies") => return say(1, "Error: the fake was asked to die\n"),
        Some("garbage") => Mode::Garbage,
        Some("stubborn") => Mode::Stubborn,
        Some(other) => return say(crate::FAKE_ONLY, &format!("fake codex: no mode `{other}`\n")),
    };
    if let Err(text) = codex_home() {
        return say(1, &text);
    }
    let of = |key: &str| {
        let value =
            overrides.iter().rev().find_map(|o| o.split_once('=').filter(|(name, _)| name.trim() == key));
        value.map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let catalog = match catalog::load(of("model_catalog_json").as_deref()) {
        Ok(catalog) => catalog,
        Err(text) => return say(1, &text),
    };
    let unload = of("thread_unload_delay_secs").as_deref() == Some("0");
    let setup = Setup { catalog, model: model.or_else(|| of("model")), unload };
    let (inputs, close) = input::start()?;
    watch::start_for(if mode == Mode::Stubborn { Signals::Ignored } else { Signals::Served }, LIFETIME)?;
    watch::note_pid(std::process::id())?;
    let server = Server::new(Release::from_version(&crate::version()), setup);
    Loop { mode, server, due: BinaryHeap::new(), close, sequence: 0 }.run(&inputs)
}

/// The folder of `codex`, which must exist if it is named.
pub(crate) fn codex_home() -> Result<String, String> {
    match env("CODEX_HOME") {
        Some(home) if std::path::Path::new(&home).is_dir() => Ok(home),
        Some(home) => Err(format!("Error: CODEX_HOME points to {home:?}, but that path does not exist\n")),
        None => Ok(format!("{}/.codex", env("HOME").unwrap_or_default())),
    }
}

/// What is due so soon is done now: many streams share their writes, and one alone is hardly early.
const TOGETHER: Duration = Duration::from_micros(100);

struct Loop {
    mode: Mode,
    server: Server,
    /// When which turn goes on. The middle number keeps the order of what is due at once.
    due: BinaryHeap<Reverse<(Instant, u64, u64)>>,
    close: Arc<Notify>,
    sequence: u64,
}

impl Loop {
    fn run(mut self, inputs: &Receiver<Input>) -> io::Result<u8> {
        loop {
            let now = Instant::now() + TOGETHER;
            while let Some(Reverse((_, _, turn))) = self.due.peek().copied().filter(|due| due.0.0 <= now) {
                self.due.pop();
                if let Some(code) = self.go_on(turn)? {
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
                    if let Some(code) = self.take(&lines)? {
                        return Ok(code);
                    }
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Ok(Input::End) | Err(RecvTimeoutError::Disconnected) => true,
            };
            if ended && self.mode == Mode::Stubborn {
                watch::forever();
            }
            if ended {
                // As the real one: at once, whatever is under way.
                return Ok(0);
            }
        }
    }

    fn take(&mut self, lines: &[u8]) -> io::Result<Option<u8>> {
        match self.mode {
            Mode::Mute => return Ok(None),
            Mode::Garbage => {
                let garbage = GARBAGE.iter().flat_map(|line| format!("{line}\n").into_bytes());
                self.server.world.out.bytes.extend(garbage);
                return Ok(None);
            }
            Mode::Good | Mode::Stubborn => {}
        }
        for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            for turn in self.server.take(line) {
                if let Some(code) = self.go_on(turn)? {
                    return Ok(Some(code));
                }
            }
        }
        Ok(None)
    }

    /// A turn goes on; the exit code if the process ends with it.
    fn go_on(&mut self, number: u64) -> io::Result<Option<u8>> {
        loop {
            let Server { world, threads, .. } = &mut self.server;
            // It may have been interrupted in the meantime.
            let Some(turn) = threads.turn(number) else { return Ok(None) };
            let next = turn.run(world);
            if world.out.bytes.len() >= WRITE_AT {
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
                    let Server { world, threads, .. } = &mut self.server;
                    threads.end(world, number);
                    return Ok(None);
                }
                Next::Process(fate) => {
                    self.flush()?;
                    match fate {
                        Fate::Exit { code, words } => return say(code, words).map(Some),
                        Fate::CloseStdin => self.close.notify_one(),
                        Fate::Stop => {
                            let me = rustix::process::getpid();
                            rustix::process::kill_process(me, rustix::process::Signal::STOP)?;
                        }
                    }
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &mut self.server.world.out.bytes;
        if !bytes.is_empty() {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()?;
            bytes.clear();
        }
        Ok(())
    }
}
