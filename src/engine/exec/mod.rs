//! The exec engine runs one `codex exec --json` process per turn. This engine gives turns the strongest isolation and supports every
//! CLI since 0.110. Text arrives in whole messages, as the CLI prints them.

mod catalog_text;
mod command;
mod diagnostics;
mod events;
mod installed_cli;
mod protocol;
mod transcript;

use std::{path::PathBuf, sync::Arc};

use async_stream::try_stream;
use tokio::process::ChildStdout;

use self::{
    catalog_text::CatalogText,
    command::{TurnCommand, TurnOptions},
    events::Translator,
    installed_cli::InstalledCli,
};
use super::{
    Engine, EngineStatus, Events, ModelCatalog, Turn, TurnEvent, TurnGuard,
    cli::{
        error_messages,
        login::watch::{LoginMark, LoginWatch, MAX_ATTEMPTS},
        probe::{CliInfo, PROBING, ProbeError},
        provider,
        transport::{TransportSelector, Workload},
    },
    process::{
        ChildHandle, Input, Launcher, Started,
        lines::{LineError, LineReader},
        output_pipe::OutputPipe,
    },
};
use crate::{
    config::{Codex, Log, Profile},
    error::Error,
    pb,
};

/// The exec engine, with the cached probe of its CLI.
#[derive(Debug)]
pub struct Exec {
    codex: Arc<Codex>,
    login: Arc<LoginWatch>,
    log: Log,
    launcher: Launcher,
    transport: Arc<TransportSelector>,
    cli: Arc<InstalledCli>,
    catalog: Arc<CatalogText>,
}

impl Exec {
    /// Creates the engine. The first use probes the CLI.
    pub fn new(codex: Codex, log: Log, launcher: Launcher) -> Self {
        let shared = Arc::new(codex.clone());
        Self {
            cli: Arc::new(InstalledCli::new(shared, launcher.clone())),
            catalog: Arc::new(CatalogText::new(Codex::clone(&codex), launcher.clone())),
            transport: Arc::new(TransportSelector::new(codex.upstream_transport)),
            login: Arc::new(LoginWatch::new(&codex)),
            codex: Arc::new(codex),
            log,
            launcher,
        }
    }
}

#[tonic::async_trait]
impl Engine for Exec {
    async fn run(&self, turn: Turn, guard: TurnGuard) -> Result<Events, Error> {
        // Codex deletes a login that its configuration forbids, so no process starts with such a login.
        if let Some(problem) = self.login.settled().await.problem {
            return Err(Error::EngineUnavailable { message: problem.with_remedy() });
        }
        let unavailable = |error: Arc<ProbeError>| Error::EngineUnavailable { message: error.to_string() };
        let installed = self.cli.get().await.map_err(unavailable)?;
        let starter = Starter {
            codex: Arc::clone(&self.codex),
            login: Arc::clone(&self.login),
            log: self.log.clone(),
            launcher: self.launcher.clone(),
            transport: Arc::clone(&self.transport),
            catalog: Arc::clone(&self.catalog),
            installed,
            turn: Arc::new(turn),
            guard: Arc::new(guard),
        };
        let first = starter.start().await?;
        Ok(events(starter, first))
    }

    async fn prepare(&self) {
        // `run` reports the failure.
        drop(self.cli.get().await);
    }

    async fn status(&self) -> EngineStatus {
        let problem = self.login.current().problem;
        if let Some(problem) = problem.as_ref().filter(|problem| problem.endangers_login()) {
            let unavailable_reason = Some(problem.with_remedy());
            return EngineStatus {
                kind: "exec",
                version: String::new(),
                unavailable_reason,
                degraded_reason: None,
                account: None,
                threads: None,
            };
        }
        let (version, unavailable_reason) = match self.cli.last().await {
            Some(Ok(installed)) => (installed.version.clone(), problem.map(|problem| problem.with_remedy())),
            Some(Err(error)) => (String::new(), Some(error.to_string())),
            None => (String::new(), Some(PROBING.to_owned())),
        };
        EngineStatus {
            kind: "exec",
            version,
            unavailable_reason,
            degraded_reason: None,
            account: None,
            threads: None,
        }
    }

    fn usual_concurrency(&self) -> usize {
        2
    }

    fn check(&self, turn: &Turn) -> Result<(), Error> {
        if turn.profile == Profile::Chat {
            return Err(Error::unsupported("model", "the exec engine has no chat profile; remove `:chat`"));
        }
        if turn.tools.is_empty() {
            return Ok(());
        }
        Err(Error::unsupported("tools", "the exec engine does not support client tools; remove `tools`"))
    }

    async fn model_catalog(&self) -> Option<Arc<ModelCatalog>> {
        let installed = self.cli.get().await.ok()?;
        self.catalog.models(&installed).await
    }

    fn profiles(&self) -> Vec<Profile> {
        vec![Profile::Agent]
    }

    async fn models(&self) -> Vec<pb::Model> {
        // The catalog has the models of OpenAI only.
        if !provider::is_openai(&self.codex) {
            return Vec::new();
        }
        let Some(catalog) = self.model_catalog().await else { return Vec::new() };
        catalog.listed.iter().filter_map(|name| catalog.models.get(name)).cloned().collect()
    }

    async fn drain(&self) {
        self.cli.drain().await;
        self.catalog.drain().await;
        self.launcher.drain().await;
    }
}

/// Starts the processes of one turn. Dropped at the first output, because until then the turn may start again.
struct Starter {
    codex: Arc<Codex>,
    login: Arc<LoginWatch>,
    log: Log,
    launcher: Launcher,
    transport: Arc<TransportSelector>,
    catalog: Arc<CatalogText>,
    installed: Arc<CliInfo>,
    turn: Arc<Turn>,
    /// Dropped when the last process has exited and the turn cannot start again.
    guard: Arc<TurnGuard>,
}

impl Starter {
    async fn start(&self) -> Result<TurnProcess, Error> {
        // An agent usually calls the model several times.
        let is_websocket =
            self.transport.selects_websocket(Workload::SeveralCalls, tokio::time::Instant::now());
        let provider = provider::websocket_provider(&self.codex, &self.installed).filter(|_| is_websocket);
        let options =
            TurnOptions { websocket_provider: provider, catalog: self.catalog.text(&self.installed) };
        let (turn, codex, installed) =
            (Arc::clone(&self.turn), Arc::clone(&self.codex), Arc::clone(&self.installed));
        let guard = Arc::clone(&self.guard);
        // Writes images of many megabytes. The guard outlives the files, also if this future is dropped meanwhile.
        let built = tokio::task::spawn_blocking(move || {
            command::build(&turn, &codex, &installed, &options).map(|command| (command, guard))
        });
        let (TurnCommand { spec, inputs }, guard) = built.await.map_err(Error::internal)??;
        if self.log.debug {
            let prompt = match &spec.stdin {
                Input::Text(text) => String::from_utf8_lossy(text),
                Input::Open => "".into(),
            };
            let prompt = truncate(&prompt, self.log.max_chars);
            tracing::info!(turn.id = %self.turn.id, arguments = ?spec.arguments, %prompt, "starting codex exec");
        }
        // Marked before the process starts, so that a login that is written meanwhile does not count as refused.
        let mark = self.login.mark();
        let started = self.launcher.start(spec, guard);
        let Started { stdout, process, .. } = started.map_err(|error| Error::EngineUnavailable {
            message: format!("the Codex CLI cannot be started: {error}"),
        })?;
        let lines = LineReader::new(stdout, self.codex.line_limit);
        let uses_websocket = provider.is_some();
        let retries_silently = uses_websocket || provider::configures_websocket(&self.codex);
        Ok(TurnProcess { process, lines, mark, inputs, uses_websocket, retries_silently })
    }

    /// Starts the turn again after a refusal of the login of the process, if the login has changed since. Another process
    /// refreshed the tokens, which ended the former ones, or the operator replaced the login.
    async fn start_again(&self, refused: TurnProcess, attempts: u32) -> Option<Result<TurnProcess, Error>> {
        if attempts == MAX_ATTEMPTS {
            self.login.exhaust();
            return None;
        }
        self.login.changed_since(&refused.mark).await?;
        refused.process.stop().await;
        tracing::info!(turn.id = %self.turn.id, "login changed; starting the turn again");
        Some(self.start().await)
    }
}

/// A process with its output lines, and the mark of the login before its start.
struct TurnProcess {
    process: ChildHandle,
    lines: LineReader<OutputPipe<ChildStdout>>,
    mark: LoginMark,
    /// The client's files, until they are removed.
    inputs: Vec<PathBuf>,
    /// The process uses the server's provider with a WebSocket.
    uses_websocket: bool,
    /// The process may retry a response without a report.
    retries_silently: bool,
}

impl TurnProcess {
    /// Removes the client's files, which the CLI has read, so that commands of other turns cannot read them.
    async fn remove_inputs(&mut self) {
        let files = std::mem::take(&mut self.inputs);
        if files.is_empty() {
            return;
        }
        let removed = tokio::task::spawn_blocking(move || {
            for file in files {
                drop(std::fs::remove_file(file));
            }
        });
        drop(removed.await);
    }

    /// Returns the next line, or `None` at the end of the output.
    async fn next_line(&mut self, debug: Option<usize>) -> Result<Option<&[u8]>, Error> {
        let line = match self.lines.next().await {
            Ok(line) => line,
            Err(LineError::TooLong { limit }) => {
                return Err(Error::TurnFailed {
                    message: format!(
                        "the Codex CLI printed a line of more than {limit} bytes (CODEX_SUBPROCESS_STREAM_LIMIT)"
                    ),
                });
            }
            Err(LineError::Io(error)) => return Err(Error::internal(error)),
        };
        if let (Some(line), Some(max_chars)) = (line, debug) {
            tracing::info!(line = %truncate(&String::from_utf8_lossy(line), max_chars), "codex printed a line");
        }
        Ok(line)
    }
}

/// Returns the events of a turn. Dropping the stream stops its process.
fn events(starter: Starter, first: TurnProcess) -> Events {
    let (login, transport) = (Arc::clone(&starter.login), Arc::clone(&starter.transport));
    let debug = starter.log.debug.then_some(starter.log.max_chars);
    let max_retries = starter.codex.upstream_retries;
    let events = try_stream! {
        let effects = starter.turn.effects.clone();
        let mut starter = Some(starter);
        let mut process = first;
        let mut attempts = 1;
        loop {
            let mut translator = Translator::new(max_retries, process.retries_silently);
            let error = loop {
                let translated = match process.next_line(debug).await {
                    Ok(Some(line)) => translator.push(line),
                    Ok(None) => {
                        let code = process.process.exit().await.and_then(|exit| exit.status.code());
                        if code.is_none() {
                            // A signal ended the process, perhaps before it reported an action.
                            effects.record();
                        }
                        break translator.on_exit(code, &process.process.stderr());
                    }
                    Err(error) => break error,
                };
                let new = match translated {
                    Ok(new) => new,
                    Err(error) => break error,
                };
                for event in new {
                    effects.record_event(&event);
                    if let TurnEvent::Notice(notice) = &event {
                        if error_messages::is_transport_fallback(&notice.message) {
                            transport.record_fallback(tokio::time::Instant::now());
                        }
                        if error_messages::is_loss_of_events(&notice.message) {
                            // A lost event may have been that of an action.
                            effects.record();
                            starter = None;
                        }
                    } else {
                        starter = None;
                        process.remove_inputs().await;
                    }
                    if !matches!(event, TurnEvent::Finished { .. }) {
                        yield event;
                        continue;
                    }
                    login.accept();
                    if process.uses_websocket {
                        transport.record_success();
                    }
                    process.process.detach();
                    if translator.is_lossy(&event) {
                        let last_message = process.process.exit().await.and_then(|exit| exit.output_file);
                        for lost in translator.recover(last_message)? {
                            yield lost;
                        }
                    }
                    yield event;
                    return;
                }
            };
            let is_rejected =
                matches!(error, Error::Rejected { .. } | Error::UpstreamUnavailable { .. });
            if process.uses_websocket && is_rejected {
                transport.record_rejection(tokio::time::Instant::now());
            }
            let is_refused = error_messages::is_login_refused(&error);
            let mark = process.mark.clone();
            let next = match &starter {
                Some(starter) if is_refused => starter.start_again(process, attempts).await,
                Some(_) | None => None,
            };
            if let Some(next) = next {
                process = next?;
                attempts += 1;
                continue;
            }
            if is_refused {
                login.refuse(&mark);
            }
            // The slot must be free although the stream still exists.
            drop(starter.take());
            Err(error)?;
            return;
        }
    };
    Events::from_stream(events)
}

/// Returns at most the first `max_chars` characters.
fn truncate(text: &str, max_chars: usize) -> &str {
    text.char_indices().nth(max_chars).map_or(text, |(end, _)| &text[..end])
}
