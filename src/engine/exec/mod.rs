//! One `codex exec --json` per turn: the engine of the first system. The most isolated one, and the one that works
//! with every CLI since 0.110; its text comes in whole messages, as the CLI prints it.

mod command;
mod diagnostics;
mod events;
mod items;
mod transcript;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_stream::try_stream;
use tokio::process::ChildStdout;

use self::events::Translator;
use super::{
    Engine, EngineStatus, Events, Turn, TurnEvent, TurnGuard,
    cli::{probe, probe::CliInfo, provider},
    process::{
        ChildHandle, Input, Launcher, Started,
        lines::{LineError, LineReader},
    },
};
use crate::{
    config::{Codex, Log, Profile},
    error::Error,
    pb,
};

/// How long a bad finding about the CLI is believed before it is looked at again.
const DOUBT: Duration = Duration::from_secs(2);

/// The engine.
#[derive(Debug)]
pub struct Exec {
    codex: Codex,
    log: Log,
    launcher: Launcher,
    found: RwLock<Option<(Instant, Finding)>>,
    probing: tokio::sync::Mutex<()>,
}

type Finding = Result<Arc<CliInfo>, String>;

impl Exec {
    /// An engine that has not looked for its CLI yet.
    pub fn new(codex: Codex, log: Log, launcher: Launcher) -> Self {
        Self { codex, log, launcher, found: RwLock::new(None), probing: tokio::sync::Mutex::new(()) }
    }

    /// The installed CLI. A good finding is kept while it is the same one, a bad one is doubted after a while.
    async fn installed(&self) -> Finding {
        if let Some(finding) = self.remembered() {
            return finding;
        }
        let _one_at_a_time = self.probing.lock().await;
        if let Some(finding) = self.remembered() {
            return finding;
        }
        let finding = probe::look(&self.codex, &self.launcher).await.map(Arc::new);
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        let before = found.replace((Instant::now(), finding.clone()));
        let before = before.and_then(|(_, finding)| finding.err());
        match &finding {
            Err(trouble) if before.as_ref() != Some(trouble) => tracing::error!(%trouble, "no turn can run"),
            Ok(_) if before.is_some() => tracing::info!("turns can run again"),
            Ok(_) | Err(_) => {}
        }
        finding
    }

    fn remembered(&self) -> Option<Finding> {
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        let (when, finding) = found.as_ref()?;
        let believed = match finding {
            Ok(installed) => probe::fingerprint(&self.codex) == installed.fingerprint,
            Err(_) => when.elapsed() < DOUBT,
        };
        believed.then(|| finding.clone())
    }
}

#[tonic::async_trait]
impl Engine for Exec {
    async fn run(&self, turn: Turn, slot: TurnGuard) -> Result<Events, Error> {
        let installed = self.installed().await.map_err(|message| Error::EngineUnavailable { message })?;
        let launch = command::of(&turn, &self.codex, &installed)?;
        if self.log.debug {
            let prompt = match &launch.stdin {
                Input::Text(text) => String::from_utf8_lossy(text),
                Input::Open => "".into(),
            };
            let prompt = clip(&prompt, self.log.max_chars);
            tracing::info!(turn.id = %turn.id, arguments = ?launch.arguments, %prompt, "codex starts");
        }
        let Started { stdout, process, .. } = self.launcher.start(launch, slot).map_err(|error| {
            Error::EngineUnavailable { message: format!("the Codex CLI cannot be started: {error}") }
        })?;
        let debug = self.log.debug.then_some(self.log.max_chars);
        let lines = LineReader::new(stdout, self.codex.line_limit);
        Ok(events(Output { process, lines, debug }, Translator::new(self.codex.upstream_retries)))
    }

    async fn status(&self) -> EngineStatus {
        let (version, trouble) = match self.installed().await {
            Ok(installed) => (installed.version.clone(), provider::missing_key(&self.codex)),
            Err(trouble) => (String::new(), Some(trouble)),
        };
        EngineStatus { kind: "exec", version, trouble }
    }

    fn usual_concurrency(&self) -> usize {
        2
    }

    fn check(&self, turn: &Turn) -> Result<(), Error> {
        if turn.profile == Profile::Chat {
            return Err(Error::unsupported(
                "model",
                "the exec engine has no chat profile; leave `:chat` out",
            ));
        }
        if turn.tools.is_empty() {
            return Ok(());
        }
        Err(Error::unsupported(
            "tools",
            "the exec engine cannot call the client's functions; leave `tools` out",
        ))
    }

    fn profiles(&self) -> Vec<Profile> {
        vec![Profile::Agent]
    }

    async fn models(&self) -> Vec<pb::Model> {
        Vec::new()
    }

    async fn drain(&self) {
        self.launcher.drain().await;
    }
}

/// A process, what it prints, and how much of that is logged.
struct Output {
    process: ChildHandle,
    lines: LineReader<ChildStdout>,
    debug: Option<usize>,
}

/// The events of one process. Dropped, the process ends with them.
fn events(output: Output, mut translator: Translator) -> Events {
    let events = try_stream! {
        // Moved in whole: a stream captures single fields, and a guard left behind would end the turn at once.
        let Output { mut process, mut lines, debug } = output;
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(LineError::TooLong { limit }) => Err(Error::TurnFailed {
                    message: format!("the Codex CLI printed a line of more than {limit} bytes (CODEX_SUBPROCESS_STREAM_LIMIT)"),
                })?,
                Err(LineError::Io(error)) => Err(Error::internal(error))?,
            };
            if let Some(most) = debug {
                tracing::info!(line = %clip(&String::from_utf8_lossy(line), most), "codex says");
            }
            for event in translator.push(line)? {
                if !matches!(event, TurnEvent::Finished { .. }) {
                    yield event;
                    continue;
                }
                process.leave();
                if translator.is_lossy(&event) {
                    let last_words = process.exit().await.and_then(|exit| exit.last_words);
                    for lost in translator.recovered(last_words)? {
                        yield lost;
                    }
                }
                yield event;
                return;
            }
        }
        let code = process.exit().await.and_then(|exit| exit.status.code());
        Err(translator.cut_off(code, &process.stderr()))?;
    };
    Box::pin(events)
}

/// The beginning of a text, at most `most` characters.
fn clip(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}
