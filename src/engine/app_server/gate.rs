//! What the installed app-server can do, found out at the start by what it does: a parameter is known if a value of
//! the wrong type is refused, the rest is read from answers and from a turn with an upstream of our own. Version
//! numbers decide nothing here, and an "ok" proves nothing: what an app-server does not know it ignores.

mod upstream;

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::{Map, Value, json};

use self::upstream::Upstream;
use super::{
    flags,
    mailbox::{self, Mail, Mailbox},
    peer::{CallError, Peer},
};
use crate::{
    config::Codex,
    engine::{Check, installed::Installed},
};

/// For all of it; it takes some 150 ms.
const LIMIT: Duration = Duration::from_secs(30);

/// For one call.
const CALL: Duration = Duration::from_secs(10);

/// For a turn with our own upstream, which answers at once. 0.110 never ends one without input.
const TURN: Duration = Duration::from_secs(5);

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
pub(super) struct Features {
    pub(super) no_tools: Option<String>,
    pub(super) no_output_schema: Option<String>,
    /// Nothing can be listed: the configured names are.
    pub(super) no_models: Option<String>,
    /// A refused key looks like any failed turn.
    pub(super) no_typed_401: Option<String>,
}

impl Features {
    /// Whether a thread can have another profile than its worker: 0.140, which lacks the same signs, takes no
    /// catalog for a single thread.
    pub(super) fn per_thread_profiles(&self) -> bool {
        self.no_tools.is_none()
    }
}

/// Looks at a started app-server. The error says why it must not be used.
pub(super) async fn examine(peer: &Peer, codex: &Codex, installed: &Installed) -> Result<Features, String> {
    let found = detect(peer, codex, installed).await?;
    tracing::debug!(?found, "the app-server was examined");
    found.verdict()
}

/// Finds out what a started app-server can do.
pub(super) async fn detect(
    peer: &Peer,
    codex: &Codex,
    installed: &Installed,
) -> Result<Capabilities, String> {
    let version = installed.version.clone();
    let looked = tokio::time::timeout(LIMIT, look(peer, codex, version)).await;
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
    pub(super) fn verdict(&self) -> Result<Features, String> {
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
        Ok(Features {
            no_tools: tools.or(ends),
            no_output_schema: schemas,
            no_models: models,
            no_typed_401: errors,
        })
    }
}

async fn look(peer: &Peer, codex: &Codex, version: String) -> Result<Capabilities, CallError> {
    let methods = methods(peer).await?;
    let has = |name: &str| methods.contains(name);
    let mut found = Capabilities {
        version,
        inject_items: has("thread/inject_items"),
        unsubscribe: has("thread/unsubscribe"),
        models: lists_models(peer).await?,
        ..Capabilities::default()
    };
    let knows_environments = knows(peer, "environments", &codex.workspace).await?;
    let Ok(upstream) = Upstream::bind().await else { return Ok(found) };
    tokio::select! {
        // Serves the turn meanwhile; ends only when the listener breaks.
        _ = upstream.serve() => {}
        taken = take_turns(peer, codex, &upstream, &mut found) => taken?,
    }
    if let Some(asked) = upstream.asked() {
        let tools = tools(&asked);
        found.dynamic_tools = tools.contains(TOOL);
        found.output_schema = asked["text"]["format"]["type"] == "json_schema";
        // 0.140 does not repeat what it was told, and leaves these tools out; later ones repeat it, and refuse.
        let none_acts = !ACTING.iter().any(|name| tools.contains(*name));
        found.no_environment |= knows_environments && none_acts;
    }
    Ok(found)
}

/// All methods: the refusal of an unknown one lists them.
async fn methods(peer: &Peer) -> Result<BTreeSet<String>, CallError> {
    match peer.call("codex-api/which", &json!({}), CALL).await {
        Err(CallError::Refused(error)) => {
            Ok(error.message.split('`').skip(1).step_by(2).map(str::to_owned).collect())
        }
        Err(error @ (CallError::TimedOut(_) | CallError::Gone(_))) => Err(error),
        Ok(_) => Ok(BTreeSet::new()),
    }
}

async fn lists_models(peer: &Peer) -> Result<bool, CallError> {
    let listed = asked(peer.call("model/list", &json!({}), CALL).await)?;
    Ok(listed.is_some_and(|listed| listed["data"].as_array().is_some_and(|models| !models.is_empty())))
}

/// Whether a parameter of `thread/start` is known: then it has a type.
async fn knows(peer: &Peer, parameter: &str, folder: &Path) -> Result<bool, CallError> {
    let mut thread =
        json!({"ephemeral": true, "cwd": folder, "sandbox": "read-only", "approvalPolicy": "never"});
    thread[parameter] = "of the wrong type".into();
    let made = asked(peer.call("thread/start", &thread, CALL).await)?;
    if let Some(made) = &made {
        release(peer, made).await?;
    }
    Ok(made.is_none())
}

/// Two turns: one that is answered, one that is refused.
async fn take_turns(
    peer: &Peer,
    codex: &Codex,
    upstream: &Upstream,
    found: &mut Capabilities,
) -> Result<(), CallError> {
    let answered = turn(peer, codex, &upstream.base_url(upstream::ANSWERS), found.inject_items).await?;
    let thread = &answered.thread;
    found.ephemeral = thread["ephemeral"] == true && thread["path"].is_null();
    found.no_environment = thread["environments"] == json!([]);
    found.empty_input = answered.end.is_some();
    found.raw_completed = answered.raw_completed;
    if found.empty_input {
        let refused = turn(peer, codex, &upstream.base_url(upstream::REFUSES), true).await?;
        let error = refused.end.unwrap_or_default()["turn"]["error"]["codexErrorInfo"].take();
        found.typed_401 = error["httpConnectionFailed"]["httpStatusCode"] == 401;
    }
    Ok(())
}

/// What a turn told.
#[derive(Debug, Default)]
struct Told {
    thread: Value,
    /// The parameters of `turn/completed`, if it came.
    end: Option<Value>,
    raw_completed: bool,
}

async fn turn(peer: &Peer, codex: &Codex, base_url: &str, whole: bool) -> Result<Told, CallError> {
    let (letterbox, mut mailbox) = mailbox::pair();
    let made = peer.call_for("thread/start", &thread(codex, base_url), CALL, Some(letterbox)).await;
    let Some(made) = asked(made)? else { return Ok(Told::default()) };
    let mut told = Told { thread: made["thread"].clone(), ..Told::default() };
    if whole {
        let id = made["thread"]["id"].as_str().unwrap_or_default().to_owned();
        let said =
            json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]);
        let items = json!({"threadId": id, "items": said});
        asked(peer.call("thread/inject_items", &items, CALL).await)?;
        let begin = json!({"threadId": id, "input": [], "outputSchema": {"type": "object"}});
        if asked(peer.call("turn/start", &begin, CALL).await)?.is_some() {
            // A turn that does not end in time has told what there is to know.
            drop(tokio::time::timeout(TURN, listen(&mut mailbox, &mut told)).await);
        }
    }
    release(peer, &made).await?;
    Ok(told)
}

/// A thread of nobody: nothing of the user's login or servers is used for it.
fn thread(codex: &Codex, base_url: &str) -> Value {
    let provider = |name: &str| format!("model_providers.codex-api-gate.{name}");
    let mut config: Map<String, Value> = flags::without_servers(codex);
    // Nor is the user told of it.
    config.insert("notify".into(), json!([]));
    config.insert("features.hooks".into(), false.into());
    config.insert(provider("name"), "gate".into());
    config.insert(provider("base_url"), base_url.into());
    config.insert(provider("wire_api"), "responses".into());
    config.insert(provider("request_max_retries"), 0.into());
    config.insert(provider("stream_max_retries"), 0.into());
    let tool = json!({"type": "function", "name": TOOL, "description": "none",
        "inputSchema": {"type": "object", "properties": {}}});
    json!({
        "ephemeral": true, "cwd": codex.workspace, "sandbox": "read-only", "approvalPolicy": "never",
        "environments": [], "dynamicTools": [tool], "experimentalRawEvents": true,
        "modelProvider": "codex-api-gate", "config": config,
    })
}

async fn listen(mailbox: &mut Mailbox, told: &mut Told) {
    loop {
        match mailbox.next().await {
            Mail::Notification { method, params } if method == "turn/completed" => {
                told.end = Some(params);
                return;
            }
            Mail::Notification { method, .. } => told.raw_completed |= method == "rawResponse/completed",
            Mail::ToolCall(_) => {}
            Mail::Gone(_) | Mail::Overflow | Mail::TooLong { .. } => return,
        }
    }
}

/// Lets a thread go. One that cannot be let go is said elsewhere.
async fn release(peer: &Peer, made: &Value) -> Result<(), CallError> {
    let id = &made["thread"]["id"];
    asked(peer.call("thread/unsubscribe", &json!({"threadId": id}), CALL).await)?;
    peer.forget_thread(id.as_str().unwrap_or_default());
    Ok(())
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
fn asked(answer: Result<Value, CallError>) -> Result<Option<Value>, CallError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(CallError::Refused(error)) => {
            tracing::trace!(message = %error.message, "the gate is refused something");
            Ok(None)
        }
        Err(error @ (CallError::TimedOut(_) | CallError::Gone(_))) => Err(error),
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
