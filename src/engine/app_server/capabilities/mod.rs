//! Probes what the installed app-server supports, by its behaviour instead of its version. A parameter is supported
//! if a value of the wrong type is refused. Other capabilities are read from responses and from turns with the
//! scripted upstream. A success proves nothing, because an app-server ignores unknown members.

mod forks;
mod probe_turns;

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::{Value, json};

use self::{
    forks::ForkSupport,
    probe_turns::{ProbeResult, ProbeTurns, release},
};
use super::rpc::{
    client::RpcClient,
    dispatch::CallError,
    protocol::{CodexErrorInfo, ListModels, StartThread, UnknownMethod, UpstreamStatus},
};
use crate::{
    config::Codex,
    demo::Upstream,
    engine::{Check, cli::probe::CliInfo},
};

/// Time limit of the whole probe, which takes about 250 ms.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The client tool of the probe's turns.
const PROBE_TOOL: &str = "codex_api_gate";

/// Codex's tools that act in an environment.
const ENV_TOOLS: &[&str] =
    &["exec_command", "write_stdin", "shell", "shell_command", "local_shell", "apply_patch", "view_image"];

/// The capabilities of an app-server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) version: String,
    /// `thread/inject_items` exists.
    pub(super) inject_items: bool,
    /// `thread/unsubscribe` exists.
    pub(super) unsubscribe: bool,
    /// Ephemeral threads write nothing to disk.
    pub(super) ephemeral: bool,
    /// A thread without environment runs no command.
    pub(super) no_environment: bool,
    /// A turn without input completes.
    pub(super) empty_input: bool,
    /// The app-server reports the end of each model response.
    pub(super) raw_completed: bool,
    /// The app-server reports the HTTP status of a refusal by the upstream.
    pub(super) typed_errors: bool,
    /// Client tools reach the model.
    pub(super) dynamic_tools: bool,
    /// Response schemas reach the model.
    pub(super) output_schema: bool,
    /// `model/list` returns models.
    pub(super) models: bool,
    /// Turns may start on forks of a seed.
    pub(super) forks: ForkSupport,
}

/// The app-server that is probed.
#[derive(Clone, Copy)]
pub(super) struct ProbeSubject<'a> {
    pub(super) client: &'a RpcClient,
    pub(super) codex: &'a Codex,
    pub(super) installed: &'a CliInfo,
    /// The folder for seeds. `None` if no turn will start on a fork.
    pub(super) seeds_dir: Option<&'a Path>,
}

/// The optional features of a worker. Each missing feature has its reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WorkerFeatures {
    pub(super) no_tools: Option<String>,
    pub(super) no_output_schema: Option<String>,
    /// Without a list, only configured names are offered.
    pub(super) no_models: Option<String>,
    /// A refusal of the upstream is reported like any failed turn.
    pub(super) no_typed_errors: Option<String>,
    /// Turns start on forks of a seed.
    pub(super) forks: bool,
}

impl WorkerFeatures {
    /// Returns `true` if a thread can have another profile than its worker. 0.140 accepts no catalog
    /// per thread. 0.140 also lacks client tools, so their absence identifies such versions.
    pub(super) fn per_thread_profiles(&self) -> bool {
        self.no_tools.is_none()
    }
}

/// The reason why an app-server must not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CapabilityError {
    /// The probe did not complete in time.
    #[error("probing the app-server took longer than {} s", PROBE_TIMEOUT.as_secs())]
    TimedOut,
    /// A call of the probe failed.
    #[error("the app-server cannot be probed: {0}")]
    Call(#[from] CallError),
    /// Required capabilities are missing.
    #[error(
        "the app-server of Codex {version} {missing}; 0.140 is the oldest supported version, 0.169 the recommended one"
    )]
    Missing {
        /// The version of the CLI.
        version: String,
        /// The missing capabilities, as verb phrases.
        missing: String,
    },
}

impl CapabilityError {
    /// Returns the message for callers.
    pub(crate) fn public(&self) -> String {
        match self {
            Self::Call(_) => {
                "the app-server cannot be probed; `codex-api doctor` and the log have the cause".to_owned()
            }
            Self::TimedOut | Self::Missing { .. } => self.to_string(),
        }
    }
}

/// Probes a started app-server and returns its features.
pub(super) async fn probe(subject: ProbeSubject<'_>) -> Result<WorkerFeatures, CapabilityError> {
    let found = probe_all(subject).await?;
    tracing::debug!(?found, "probed the app-server");
    found.required_or_error()
}

/// Probes all capabilities of a started app-server.
pub(super) async fn probe_all(subject: ProbeSubject<'_>) -> Result<Capabilities, CapabilityError> {
    let probing = tokio::time::timeout(PROBE_TIMEOUT, run(subject));
    Ok(probing.await.map_err(|_| CapabilityError::TimedOut)??)
}

impl Capabilities {
    /// Returns the checks of the doctor. Required capabilities precede optional capabilities.
    pub(super) fn checks(&self) -> Vec<Check> {
        let required = self.required().map(|(name, supported, limitation)| match supported {
            true => Check::passed(name, String::new()),
            false => Check::failed(
                name,
                format!("the app-server {limitation}"),
                "install a newer Codex CLI, or set CODEX_ENGINE=exec",
            ),
        });
        let optional = self.optional().map(|(name, supported, limitation)| match supported {
            true => Check::passed(name, String::new()),
            false => {
                Check::warning(name, format!("the app-server {limitation}"), "install a newer Codex CLI")
            }
        });
        required.into_iter().chain(optional).chain(self.check_of_forks()).collect()
    }

    /// Returns the check of the forks, or `None` if they were not probed. Without forks every request works, but the upstream's
    /// prompt cache is used less.
    fn check_of_forks(&self) -> Option<Check> {
        const NAME: &str = "engine: stable prompt-cache keys";
        match self.forks {
            ForkSupport::NotProbed => None,
            ForkSupport::Supported => Some(Check::passed(NAME, String::new())),
            ForkSupport::Missing(limitation) => Some(Check::warning(
                NAME,
                format!(
                    "the app-server {limitation}, so each request of a conversation has a key of its own"
                ),
                "install a newer Codex CLI",
            )),
        }
    }

    /// Returns the capabilities without which the engine refuses the app-server. Each row has the name, the state, and
    /// the limitation as a verb phrase.
    fn required(&self) -> [(&'static str, bool, &'static str); 5] {
        [
            ("engine: histories", self.inject_items, "accepts no history (thread/inject_items)"),
            ("engine: threads end", self.unsubscribe, "cannot release threads (thread/unsubscribe)"),
            (
                "engine: nothing is stored",
                self.ephemeral,
                "stores every conversation (thread/start.ephemeral)",
            ),
            ("engine: no environment", self.no_environment, "runs commands in a thread without environment"),
            ("engine: turns without input", self.empty_input, "does not complete a turn without input"),
        ]
    }

    /// Returns the capabilities without which the engine refuses some requests, in rows as for [`Self::required`].
    fn optional(&self) -> [(&'static str, bool, &'static str); 5] {
        [
            ("engine: client tools", self.dynamic_tools, "does not offer client tools to the model"),
            (
                "engine: ends of responses",
                self.raw_completed,
                "does not report the end of a response, so client tools are not supported",
            ),
            ("engine: output schemas", self.output_schema, "does not pass response schemas to the model"),
            ("engine: list of models", self.models, "does not list its models"),
            (
                "engine: typed errors",
                self.typed_errors,
                "does not report the status of a refusal by the upstream",
            ),
        ]
    }

    /// Returns the features, or an error if a required capability is missing.
    pub(super) fn required_or_error(&self) -> Result<WorkerFeatures, CapabilityError> {
        let Self { version, .. } = self;
        let missing = self.required().into_iter().filter(|(_, supported, _)| !supported);
        let missing: Vec<&str> = missing.map(|(_, _, limitation)| limitation).collect();
        if !missing.is_empty() {
            return Err(CapabilityError::Missing { version: version.clone(), missing: missing.join(", ") });
        }
        let [tools, ends, schemas, models, errors] = self.optional().map(|(_, supported, limitation)| {
            (!supported).then(|| {
                format!("the installed Codex {version} {limitation}; 0.169 does not have this limit")
            })
        });
        Ok(WorkerFeatures {
            no_tools: tools.or(ends),
            no_output_schema: schemas,
            no_models: models,
            no_typed_errors: errors,
            forks: self.forks == ForkSupport::Supported,
        })
    }
}

async fn run(subject: ProbeSubject<'_>) -> Result<Capabilities, CallError> {
    let ProbeSubject { client, codex, installed, .. } = subject;
    let methods = methods(client).await?;
    let has = |name: &str| methods.contains(name);
    let mut found = Capabilities {
        version: installed.version.clone(),
        inject_items: has("thread/inject_items"),
        unsubscribe: has("thread/unsubscribe"),
        models: lists_models(client).await?,
        ..Capabilities::default()
    };
    let types_environments = accepts_parameter(client, "environments", &codex.workspace).await?;
    let Ok(upstream) = Upstream::start().await else { return Ok(found) };
    let turns = ProbeTurns { subject, upstream: &upstream };
    run_turns(&turns, types_environments, &mut found).await?;
    Ok(found)
}

/// Runs turns to probe the capabilities that no parameter shows.
async fn run_turns(
    turns: &ProbeTurns<'_>,
    types_environments: bool,
    found: &mut Capabilities,
) -> Result<(), CallError> {
    let result = turns.without_environment(found.inject_items).await?;
    let thread = &result.thread;
    found.ephemeral = thread.ephemeral && thread.path.is_none();
    found.empty_input = result.end.is_some();
    found.raw_completed = result.raw_completed;
    let requests = turns.requests(probe_turns::CALL_COMMANDS);
    let Some(first) = requests.first() else { return Ok(()) };
    let offered = tool_names(first);
    found.dynamic_tools = offered.contains(PROBE_TOOL);
    found.output_schema = first["text"]["format"]["type"] == "json_schema";
    // The commands that the model requested must not have run in any case.
    if found.empty_input && requests.last().is_some_and(probe_turns::ran_nothing) {
        found.no_environment = thread.environments.as_ref().is_some_and(Vec::is_empty);
        if !found.no_environment && types_environments && offered.is_disjoint(&env_tools()) {
            // 0.140 does not repeat `environments` and omits the tools of environments. Later versions repeat
            // `environments` and refuse the calls. The omission is proof only if a thread with an environment has these tools.
            turns.with_environment().await?;
            let requests = turns.requests(probe_turns::ANSWER);
            found.no_environment =
                requests.iter().any(|request| !tool_names(request).is_disjoint(&env_tools()));
        }
    }
    let forks = async {
        match found.no_environment {
            true => forks::probe(turns, &offered).await,
            false => Ok(ForkSupport::default()),
        }
    };
    let refused = async {
        match found.empty_input {
            true => turns.refused().await,
            false => Ok(ProbeResult::default()),
        }
    };
    // The two turns have threads of their own, and the server waits for the probe.
    let (forks, refused) = tokio::join!(forks, refused);
    let status = Some(probe_turns::REFUSAL_STATUS);
    let expected = CodexErrorInfo::HttpConnectionFailed(UpstreamStatus { http_status_code: status });
    found.typed_errors = refused?.end.is_some_and(|turn| turn.error.codex_error_info == expected);
    found.forks = forks?;
    Ok(())
}

/// Returns all methods of the app-server. The refusal of an unknown method lists them.
async fn methods(client: &RpcClient) -> Result<BTreeSet<String>, CallError> {
    match client.call(&UnknownMethod {}, CALL_TIMEOUT).await {
        Err(CallError::Refused(error)) => {
            Ok(error.message.split('`').skip(1).step_by(2).map(str::to_owned).collect())
        }
        Err(error @ (CallError::TimedOut(_) | CallError::Closed(_))) => Err(error),
        Ok(_) => Ok(BTreeSet::new()),
    }
}

async fn lists_models(client: &RpcClient) -> Result<bool, CallError> {
    let list = accepted(client.call(&ListModels::default(), CALL_TIMEOUT).await)?;
    Ok(list.is_some_and(|list| !list.data.is_empty()))
}

/// Returns `true` if `thread/start` refuses a value of the wrong type for `parameter`.
async fn accepts_parameter(client: &RpcClient, parameter: &str, folder: &Path) -> Result<bool, CallError> {
    let mut thread =
        json!({"ephemeral": true, "cwd": folder, "sandbox": "read-only", "approvalPolicy": "never"});
    thread[parameter] = "of the wrong type".into();
    let started = accepted(client.call(&StartThread(&thread), CALL_TIMEOUT).await)?;
    if let Some(started) = &started {
        release(client, &started.thread.id).await?;
    }
    Ok(started.is_none())
}

fn env_tools() -> BTreeSet<&'static str> {
    ENV_TOOLS.iter().copied().collect()
}

/// Returns the names of the tools that a request offers.
fn tool_names(request: &Value) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut queue = vec![request];
    queue.extend(request["input"].as_array().into_iter().flatten());
    // Some models get their tools in an item of the input. Some of these items contain groups of tools.
    while let Some(holder) = queue.pop() {
        for tool in holder["tools"].as_array().into_iter().flatten() {
            names.extend(tool["name"].as_str().or_else(|| tool["type"].as_str()));
            queue.push(tool);
        }
    }
    names
}

/// Converts a refusal to `None`.
fn accepted<T>(response: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match response {
        Ok(value) => Ok(Some(value)),
        Err(CallError::Refused(error)) => {
            tracing::trace!(text = error.message, "app-server refused a call of the probe");
            Ok(None)
        }
        Err(error @ (CallError::TimedOut(_) | CallError::Closed(_))) => Err(error),
    }
}

#[cfg(test)]
mod tests;
