//! The turns of the capability probe. Each turn has its own thread, with the scripted upstream as its provider. The
//! probe therefore uses neither the user's login nor the user's MCP servers.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{CALL_TIMEOUT, PROBE_TOOL, ProbeSubject, accepted};
use crate::{
    demo::{Recorded, Upstream},
    engine::app_server::{
        launch::{cli_config, seed::Seed},
        rpc::{
            client::RpcClient,
            dispatch::CallError,
            protocol::{
                ForkThread, InjectItems, Notification, ReadThread, StartThread, StartTurn, Thread, Turn,
                UnsubscribeThread,
            },
            thread_queue::{self, ThreadMessage, ThreadReceiver},
        },
    },
};

/// Time limit of a turn with the scripted upstream, which answers at once. 0.110 never completes a turn without input.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Features with tools that act in an environment. The probe enables them in every profile, because the absence of a
/// disabled tool proves nothing.
const ENV_FEATURES: &[&str] = &["shell_tool", "view_image"];

/// A directive that makes the model call a command under each name that command tools have had, and then answer. The
/// answer `{}` is valid for any schema without requirements. The command does not contain its own output, so that an
/// echo of the call does not count as an execution.
pub(super) const CALL_COMMANDS: &str = r#"@@ [{"calls": [
    {"name": "exec_command", "arguments": {"cmd": "echo codex-api-$((20000+2026))", "login": false}},
    {"name": "shell_command", "arguments": {"command": "echo codex-api-$((20000+2026))", "login": false}},
    {"name": "shell", "arguments": {"command": ["sh", "-c", "echo codex-api-$((20000+2026))"]}}
]}, {"pieces": ["{}"]}] @@"#;

/// The output of the command of [`CALL_COMMANDS`], and the number of its calls.
const COMMAND_OUTPUT: &str = "codex-api-22026";
const COMMAND_CALLS: usize = 3;

/// A directive that makes the model answer.
pub(super) const ANSWER: &str = r#"@@ {"pieces": ["{}"]} @@"#;

/// A directive that makes the upstream refuse the request with [`REFUSAL_STATUS`].
pub(super) const REFUSE: &str =
    r#"@@ {"status": 403, "body": {"error": {"message": "the probe refuses"}}} @@"#;

/// The status of [`REFUSE`]. Codex answers a 401 with a refresh of the user's login, which spends the refresh token
/// (0.169).
pub(super) const REFUSAL_STATUS: u16 = 403;

/// Runs turns on one app-server.
pub(super) struct ProbeTurns<'a> {
    pub(super) subject: ProbeSubject<'a>,
    pub(super) upstream: &'a Upstream,
}

/// How the thread of a turn begins.
enum Origin {
    New,
    /// A fork of a seed, which is removed when the app-server has answered.
    Fork(Seed),
}

/// The result of a turn.
#[derive(Debug, Default)]
pub(super) struct ProbeResult {
    pub(super) thread: Thread,
    /// The completed turn, if `turn/completed` arrived.
    pub(super) end: Option<Turn>,
    /// `rawResponse/completed` arrived.
    pub(super) raw_completed: bool,
    /// The environments of a fork after its turn.
    pub(super) environments_after: Option<Vec<Value>>,
}

impl ProbeTurns<'_> {
    /// Runs a turn without environment in which the model calls commands. Only starts the thread if `run_turn`
    /// is `false`.
    pub(super) async fn without_environment(&self, run_turn: bool) -> Result<ProbeResult, CallError> {
        let mut thread = self.thread_params();
        thread["environments"] = json!([]);
        self.run(Origin::New, &thread, run_turn.then_some(CALL_COMMANDS)).await
    }

    /// Runs a turn like [`ProbeTurns::without_environment`] on a fork. Only `turn/start` closes the environment of a fork.
    pub(super) async fn on_fork(&self, seed: Seed) -> Result<ProbeResult, CallError> {
        let mut thread = self.thread_params();
        thread["environments"] = json!([]);
        self.run(Origin::Fork(seed), &thread, Some(CALL_COMMANDS)).await
    }

    /// Runs a turn with an environment in which the model answers.
    pub(super) async fn with_environment(&self) -> Result<ProbeResult, CallError> {
        self.run(Origin::New, &self.thread_params(), Some(ANSWER)).await
    }

    /// Runs a turn whose request the upstream refuses.
    pub(super) async fn refused(&self) -> Result<ProbeResult, CallError> {
        let mut thread = self.thread_params();
        thread["environments"] = json!([]);
        self.run(Origin::New, &thread, Some(REFUSE)).await
    }

    /// Returns the requests of a thread, in order.
    pub(super) fn requests_of_thread(&self, thread_id: &str) -> Vec<Recorded> {
        let of_thread =
            |request: &Recorded| request.headers.get("thread-id").is_some_and(|id| id == thread_id);
        self.upstream.requests().into_iter().filter(of_thread).collect()
    }

    /// Returns the requests that the upstream received for a directive, in order.
    pub(super) fn requests(&self, directive: &str) -> Vec<Value> {
        let requests = self.upstream.requests().into_iter();
        let requests = requests.filter(|request| has_text(&request.body, directive));
        requests.map(|request| Value::clone(&request.body)).collect()
    }

    async fn run(
        &self,
        origin: Origin,
        thread: &Value,
        directive: Option<&str>,
    ) -> Result<ProbeResult, CallError> {
        let client = self.subject.client;
        let (sender, mut receiver) = thread_queue::pair();
        let is_fork = matches!(origin, Origin::Fork(_));
        let started = match origin {
            Origin::New => client.start_thread(&StartThread(thread), CALL_TIMEOUT, sender).await,
            Origin::Fork(seed) => {
                let fork = ForkThread { thread_id: seed.thread_id(), path: seed.path(), params: thread };
                client.fork_thread(&fork, CALL_TIMEOUT, sender).await
            }
        };
        let Some(started) = accepted(started)? else { return Ok(ProbeResult::default()) };
        let mut result = ProbeResult { thread: started.thread, ..ProbeResult::default() };
        let id = result.thread.id.clone();
        if let Some(directive) = directive {
            let content = json!([{"type": "input_text", "text": directive}]);
            let message = json!({"type": "message", "role": "user", "content": content});
            accepted(
                client.call(&InjectItems { thread_id: &id, items: &[message.into()] }, CALL_TIMEOUT).await,
            )?;
            let output_schema = Some(
                json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false}),
            );
            let environments = is_fork.then_some([]);
            let start = StartTurn {
                thread_id: &id,
                input: [],
                environments,
                effort: None,
                summary: None,
                output_schema,
            };
            if accepted(client.call(&start, CALL_TIMEOUT).await)?.is_some() {
                // A turn that times out counts as not completed.
                drop(tokio::time::timeout(TURN_TIMEOUT, receive_until_end(&mut receiver, &mut result)).await);
            }
        }
        if is_fork {
            let read = accepted(client.call(&ReadThread { thread_id: &id }, CALL_TIMEOUT).await)?;
            result.environments_after = read.and_then(|read| read.thread.environments);
        }
        release(client, &id).await?;
        Ok(result)
    }

    pub(super) fn thread_params(&self) -> Value {
        let provider = |name: &str| format!("model_providers.codex-api-gate.{name}");
        let mut config: Map<String, Value> = cli_config::without_servers(self.subject.codex);
        // The probe must not run the user's notification command.
        config.insert("notify".into(), json!([]));
        config.insert("features.hooks".into(), false.into());
        for feature in ENV_FEATURES.iter().filter(|name| self.subject.installed.features.contains_key(**name))
        {
            config.insert(format!("features.{feature}"), true.into());
        }
        config.insert(provider("name"), "gate".into());
        config.insert(provider("base_url"), self.upstream.base_url().into());
        config.insert(provider("wire_api"), "responses".into());
        config.insert(provider("request_max_retries"), 0.into());
        config.insert(provider("stream_max_retries"), 0.into());
        let tool = json!({"type": "function", "name": PROBE_TOOL, "description": "none",
            "inputSchema": {"type": "object", "properties": {}}});
        json!({
            "ephemeral": true, "cwd": self.subject.codex.workspace, "sandbox": "read-only", "approvalPolicy": "never",
            "dynamicTools": [tool], "experimentalRawEvents": true,
            "modelProvider": "codex-api-gate", "config": config,
        })
    }
}

pub(super) async fn receive_until_end(receiver: &mut ThreadReceiver, result: &mut ProbeResult) {
    loop {
        match receiver.recv().await {
            ThreadMessage::Notification(Notification::TurnCompleted(turn)) => {
                result.end = Some(*turn);
                return;
            }
            ThreadMessage::Notification(notification) => {
                result.raw_completed |= matches!(notification, Notification::RawResponseCompleted(_));
            }
            ThreadMessage::Delta(_) | ThreadMessage::ToolCall(_) => {}
            ThreadMessage::Closed(_) | ThreadMessage::Overflow | ThreadMessage::TooLong { .. } => return,
        }
    }
}

/// Returns `true` if a request reports that each call of [`CALL_COMMANDS`] has an output and no command has run.
pub(super) fn ran_nothing(request: &Value) -> bool {
    let items = request["input"].as_array().into_iter().flatten();
    let outputs = items.filter(|item| item["type"] == "function_call_output");
    let outputs: Vec<String> = outputs.map(Value::to_string).collect();
    outputs.len() == COMMAND_CALLS && !outputs.iter().any(|output| output.contains(COMMAND_OUTPUT))
}

/// Returns `true` if a message of the request has exactly this text.
fn has_text(request: &Value, text: &str) -> bool {
    let items = request["input"].as_array().into_iter().flatten();
    let parts = items.flat_map(|item| item["content"].as_array().into_iter().flatten());
    parts.into_iter().any(|part| part["text"] == text)
}

/// Releases a thread. Ignores a refusal, because the capability `unsubscribe` reports the missing method.
pub(super) async fn release(client: &RpcClient, thread_id: &str) -> Result<(), CallError> {
    accepted(client.call(&UnsubscribeThread { thread_id }, CALL_TIMEOUT).await)?;
    client.forget_thread(thread_id);
    Ok(())
}
