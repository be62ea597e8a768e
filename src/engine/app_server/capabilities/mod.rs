//! What the installed app-server can do, found out at the start by what it does: a parameter is known if a value of
//! the wrong type is refused, the rest is read from answers and from a turn with an upstream of our own. Version
//! numbers decide nothing here, and an "ok" proves nothing: what an app-server does not know it ignores.

pub(crate) mod mock_upstream;
pub(crate) mod probe_turns;

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::{Value, json};

use self::{
    mock_upstream::Upstream,
    probe_turns::{Turns, release},
};
use super::rpc::{
    client::RpcClient,
    dispatch::CallError,
    protocol::{CodexErrorInfo, ListModels, StartThread, UnknownMethod, UpstreamStatus},
};
use crate::{
    config::Codex,
    engine::{Check, cli::probe::CliInfo},
};

/// For all of it; it takes some 200 ms.
const LIMIT: Duration = Duration::from_secs(30);

/// For one call.
const CALL: Duration = Duration::from_secs(10);

/// The tool that the gate's turn offers.
const TOOL: &str = "codex_api_gate";

/// Tools that act in the environment.
const ACTING: &[&str] =
    &["exec_command", "write_stdin", "shell", "shell_command", "local_shell", "apply_patch", "view_image"];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) version: String,
    /// Histories can be put in.
    pub(super) inject_items: bool,
    /// Threads can be let go.
    pub(super) unsubscribe: bool,
    /// Threads leave nothing on the disk.
    pub(super) ephemeral: bool,
    /// A thread without environment has none: nothing can be run.
    pub(super) no_environment: bool,
    /// A turn without input ends.
    pub(super) empty_input: bool,
    /// The end of each response of the model is told.
    pub(super) raw_completed: bool,
    /// A refused key is told from other failures.
    pub(super) typed_401: bool,
    /// Tools of clients reach the model.
    pub(super) dynamic_tools: bool,
    /// Schemas of answers reach the model.
    pub(super) output_schema: bool,
    /// It knows its models.
    pub(super) models: bool,
}

/// What of the engine can be used; each that cannot says why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WorkerFeatures {
    pub(super) no_tools: Option<String>,
    pub(super) no_output_schema: Option<String>,
    /// Nothing can be listed: the configured names are.
    pub(super) no_models: Option<String>,
    /// A refused key looks like any failed turn.
    pub(super) no_typed_401: Option<String>,
}

impl WorkerFeatures {
    /// Whether a thread can have another profile than its worker: 0.140, which lacks the same signs, takes no
    /// catalog for a single thread.
    pub(super) fn per_thread_profiles(&self) -> bool {
        self.no_tools.is_none()
    }
}

/// Looks at a started app-server. The error says why it must not be used.
pub(super) async fn examine(
    peer: &RpcClient,
    codex: &Codex,
    installed: &CliInfo,
) -> Result<WorkerFeatures, String> {
    let found = detect(peer, codex, installed).await?;
    tracing::debug!(?found, "the app-server was examined");
    found.verdict()
}

/// Finds out what a started app-server can do.
pub(super) async fn detect(
    peer: &RpcClient,
    codex: &Codex,
    installed: &CliInfo,
) -> Result<Capabilities, String> {
    let looked = tokio::time::timeout(LIMIT, look(peer, codex, installed)).await;
    looked
        .map_err(|_| format!("the app-server was not examined within {} s", LIMIT.as_secs()))?
        .map_err(|error| format!("the app-server cannot be examined: {error}"))
}

impl Capabilities {
    /// What the doctor says of it: what the engine cannot do without, then what it can.
    pub(super) fn checks(&self) -> Vec<Check> {
        let needed = self.needed().map(|(name, there, what)| {
            let bad = || {
                Check::bad(name, format!("it {what}"), "install a newer Codex CLI, or set CODEX_ENGINE=exec")
            };
            if there { Check::good(name, String::new()) } else { bad() }
        });
        let useful = self.useful().map(|(name, there, what)| {
            let odd = || Check::odd(name, format!("it {what}"), "install a newer Codex CLI");
            if there { Check::good(name, String::new()) } else { odd() }
        });
        needed.into_iter().chain(useful).collect()
    }

    /// What the engine is refused without: a name, whether it is there, what is said where it is not.
    fn needed(&self) -> [(&'static str, bool, &'static str); 5] {
        [
            ("engine: histories", self.inject_items, "takes no history (thread/inject_items)"),
            ("engine: threads end", self.unsubscribe, "cannot let threads go (thread/unsubscribe)"),
            (
                "engine: nothing is stored",
                self.ephemeral,
                "stores every conversation (thread/start.ephemeral)",
            ),
            (
                "engine: no environment",
                self.no_environment,
                "runs commands where it is asked for no environment",
            ),
            ("engine: turns without input", self.empty_input, "does not end a turn without input"),
        ]
    }

    /// What it has limits without.
    fn useful(&self) -> [(&'static str, bool, &'static str); 5] {
        [
            ("engine: client tools", self.dynamic_tools, "does not offer tools of clients to the model"),
            (
                "engine: ends of responses",
                self.raw_completed,
                "does not tell when all calls of a response are there, so there are no client tools",
            ),
            ("engine: output schemas", self.output_schema, "does not pass schemas of answers on"),
            ("engine: list of models", self.models, "does not list its models"),
            ("engine: typed errors", self.typed_401, "does not tell a refused key from other failures"),
        ]
    }

    /// What follows from it.
    pub(super) fn verdict(&self) -> Result<WorkerFeatures, String> {
        let Self { version, .. } = self;
        let missing: Vec<&str> =
            self.needed().into_iter().filter(|(_, there, _)| !there).map(|(_, _, what)| what).collect();
        if !missing.is_empty() {
            return Err(format!(
                "the app-server of Codex {version} {}; 0.140 is the oldest that serves, 0.169 the one to have",
                missing.join(", ")
            ));
        }
        let [tools, ends, schemas, models, errors] = self.useful().map(|(_, there, what)| {
            (!there).then(|| format!("the installed Codex {version} {what}; 0.169 does not have this limit"))
        });
        Ok(WorkerFeatures {
            no_tools: tools.or(ends),
            no_output_schema: schemas,
            no_models: models,
            no_typed_401: errors,
        })
    }
}

async fn look(peer: &RpcClient, codex: &Codex, installed: &CliInfo) -> Result<Capabilities, CallError> {
    let methods = methods(peer).await?;
    let has = |name: &str| methods.contains(name);
    let mut found = Capabilities {
        version: installed.version.clone(),
        inject_items: has("thread/inject_items"),
        unsubscribe: has("thread/unsubscribe"),
        models: lists_models(peer).await?,
        ..Capabilities::default()
    };
    let knows_environments = knows(peer, "environments", &codex.workspace).await?;
    let Ok(upstream) = Upstream::bind().await else { return Ok(found) };
    let turns = Turns { peer, codex, installed, upstream: &upstream };
    tokio::select! {
        // Serves the turns meanwhile; ends only when the listener breaks.
        _ = upstream.serve() => {}
        taken = take_turns(&turns, knows_environments, &mut found) => taken?,
    }
    Ok(found)
}

/// Turns that show what no parameter does.
async fn take_turns(
    turns: &Turns<'_>,
    knows_environments: bool,
    found: &mut Capabilities,
) -> Result<(), CallError> {
    let told = turns.without_environment(found.inject_items).await?;
    let thread = &told.thread;
    found.ephemeral = thread.ephemeral && thread.path.is_none();
    found.empty_input = told.end.is_some();
    found.raw_completed = told.raw_completed;
    let asked = turns.upstream.asked(mock_upstream::CALLS);
    let Some(first) = asked.first() else { return Ok(()) };
    let offered = tools(first);
    found.dynamic_tools = offered.contains(TOOL);
    found.output_schema = first["text"]["format"]["type"] == "json_schema";
    // Whatever it says of environments: the commands that its model called for must not have run.
    if found.empty_input && asked.last().is_some_and(mock_upstream::ran_nothing) {
        found.no_environment = thread.environments.as_ref().is_some_and(Vec::is_empty);
        if !found.no_environment && knows_environments && offered.is_disjoint(&acting()) {
            // 0.140 does not repeat what it was told, and leaves out the tools that act; later ones repeat it, and
            // refuse the calls. That they are missing means something only where they would be there otherwise.
            turns.with_environment().await?;
            let asked = turns.upstream.asked(mock_upstream::ANSWERS);
            found.no_environment = asked.iter().any(|request| !tools(request).is_disjoint(&acting()));
        }
    }
    if found.empty_input {
        let refused = turns.refused().await?;
        let expected = CodexErrorInfo::HttpConnectionFailed(UpstreamStatus { http_status_code: Some(401) });
        found.typed_401 = refused.end.is_some_and(|turn| turn.error.codex_error_info == expected);
    }
    Ok(())
}

/// All methods: the refusal of an unknown one lists them.
async fn methods(peer: &RpcClient) -> Result<BTreeSet<String>, CallError> {
    match peer.call(&UnknownMethod {}, CALL).await {
        Err(CallError::Refused(error)) => {
            Ok(error.message.split('`').skip(1).step_by(2).map(str::to_owned).collect())
        }
        Err(error @ (CallError::TimedOut(_) | CallError::Closed(_))) => Err(error),
        Ok(_) => Ok(BTreeSet::new()),
    }
}

async fn lists_models(peer: &RpcClient) -> Result<bool, CallError> {
    let listed = asked(peer.call(&ListModels::default(), CALL).await)?;
    Ok(listed.is_some_and(|listed| !listed.data.is_empty()))
}

/// Whether a parameter of `thread/start` is known: then it has a type.
async fn knows(peer: &RpcClient, parameter: &str, folder: &Path) -> Result<bool, CallError> {
    let mut thread =
        json!({"ephemeral": true, "cwd": folder, "sandbox": "read-only", "approvalPolicy": "never"});
    thread[parameter] = "of the wrong type".into();
    let made = asked(peer.call(&StartThread(&thread), CALL).await)?;
    if let Some(made) = &made {
        release(peer, &made.thread.id).await?;
    }
    Ok(made.is_none())
}

fn acting() -> BTreeSet<&'static str> {
    ACTING.iter().copied().collect()
}

/// The names of the tools that a request offers.
fn tools(request: &Value) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut queue = vec![request];
    queue.extend(request["input"].as_array().into_iter().flatten());
    // Some models are told of their tools by an item, some of those in groups.
    while let Some(holder) = queue.pop() {
        for tool in holder["tools"].as_array().into_iter().flatten() {
            names.extend(tool["name"].as_str().or_else(|| tool["type"].as_str()));
            queue.push(tool);
        }
    }
    names
}

/// A refusal is an answer too: none.
fn asked<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(CallError::Refused(error)) => {
            tracing::trace!(message = %error.message, "the gate is refused something");
            Ok(None)
        }
        Err(error @ (CallError::TimedOut(_) | CallError::Closed(_))) => Err(error),
    }
}

#[cfg(test)]
mod tests;
