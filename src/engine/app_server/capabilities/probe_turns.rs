//! The turns that the gate takes, each in a thread of nobody: nothing of the user's login or servers is used for it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{CALL, TOOL, asked, mock_upstream, mock_upstream::Upstream};
use crate::{
    config::Codex,
    engine::{
        app_server::{
            launch::cli_config,
            rpc::{
                client::RpcClient,
                dispatch::CallError,
                thread_queue,
                thread_queue::{ThreadMessage, ThreadReceiver},
            },
        },
        cli::probe::CliInfo,
    },
};

/// For a turn with our own upstream, which answers at once. 0.110 never ends one without input.
const TURN: Duration = Duration::from_secs(5);

/// Features that give the model tools to act with, in an environment. On, whatever the worker's profile is: what is
/// switched off tells nothing.
const ACTIVE: &[&str] = &["shell_tool", "view_image"];

/// Where turns are taken.
pub(crate) struct Turns<'a> {
    pub(crate) peer: &'a RpcClient,
    pub(crate) codex: &'a Codex,
    pub(crate) installed: &'a CliInfo,
    pub(crate) upstream: &'a Upstream,
}

/// What a turn told.
#[derive(Debug, Default)]
pub(crate) struct ProbeResult {
    pub(crate) thread: Value,
    /// The parameters of `turn/completed`, if it came.
    pub(crate) end: Option<Value>,
    pub(crate) raw_completed: bool,
}

impl Turns<'_> {
    /// The model calls for commands where there is no environment. Without `whole`, only the thread is started.
    pub(crate) async fn without_environment(&self, whole: bool) -> Result<ProbeResult, CallError> {
        let mut thread = self.thread(mock_upstream::CALLS);
        thread["environments"] = json!([]);
        self.take(&thread, whole).await
    }

    /// The model just answers, where there is one.
    pub(crate) async fn with_environment(&self) -> Result<ProbeResult, CallError> {
        self.take(&self.thread(mock_upstream::ANSWERS), true).await
    }

    /// The upstream refuses our key.
    pub(crate) async fn refused(&self) -> Result<ProbeResult, CallError> {
        let mut thread = self.thread(mock_upstream::REFUSES);
        thread["environments"] = json!([]);
        self.take(&thread, true).await
    }

    async fn take(&self, thread: &Value, whole: bool) -> Result<ProbeResult, CallError> {
        let peer = self.peer;
        let (letterbox, mut mailbox) = thread_queue::pair();
        let made = peer.call_for("thread/start", thread, CALL, Some(letterbox)).await;
        let Some(made) = asked(made)? else { return Ok(ProbeResult::default()) };
        let mut told = ProbeResult { thread: made["thread"].clone(), ..ProbeResult::default() };
        if whole {
            let id = made["thread"]["id"].as_str().unwrap_or_default().to_owned();
            let said = json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]);
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

    fn thread(&self, path: &str) -> Value {
        let provider = |name: &str| format!("model_providers.codex-api-gate.{name}");
        let mut config: Map<String, Value> = cli_config::without_servers(self.codex);
        // Nor is the user told of it.
        config.insert("notify".into(), json!([]));
        config.insert("features.hooks".into(), false.into());
        for feature in ACTIVE.iter().filter(|name| self.installed.features.contains_key(**name)) {
            config.insert(format!("features.{feature}"), true.into());
        }
        config.insert(provider("name"), "gate".into());
        config.insert(provider("base_url"), self.upstream.base_url(path).into());
        config.insert(provider("wire_api"), "responses".into());
        config.insert(provider("request_max_retries"), 0.into());
        config.insert(provider("stream_max_retries"), 0.into());
        let tool = json!({"type": "function", "name": TOOL, "description": "none",
            "inputSchema": {"type": "object", "properties": {}}});
        json!({
            "ephemeral": true, "cwd": self.codex.workspace, "sandbox": "read-only", "approvalPolicy": "never",
            "dynamicTools": [tool], "experimentalRawEvents": true,
            "modelProvider": "codex-api-gate", "config": config,
        })
    }
}

async fn listen(mailbox: &mut ThreadReceiver, told: &mut ProbeResult) {
    loop {
        match mailbox.next().await {
            ThreadMessage::Notification { method, params } if method == "turn/completed" => {
                told.end = Some(params);
                return;
            }
            ThreadMessage::Notification { method, .. } => {
                told.raw_completed |= method == "rawResponse/completed"
            }
            ThreadMessage::Delta(_) | ThreadMessage::ToolCall(_) => {}
            ThreadMessage::Gone(_) | ThreadMessage::Overflow | ThreadMessage::TooLong { .. } => return,
        }
    }
}

/// Lets a thread go. One that cannot be let go is said elsewhere.
pub(crate) async fn release(peer: &RpcClient, made: &Value) -> Result<(), CallError> {
    let id = &made["thread"]["id"];
    asked(peer.call("thread/unsubscribe", &json!({"threadId": id}), CALL).await)?;
    peer.forget_thread(id.as_str().unwrap_or_default());
    Ok(())
}
