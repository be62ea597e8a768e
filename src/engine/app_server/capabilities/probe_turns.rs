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
                protocol::{
                    InjectItems, Notification, StartThread, StartTurn, Thread, Turn, UnsubscribeThread,
                },
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
    pub(crate) thread: Thread,
    /// The turn at its end, if `turn/completed` came.
    pub(crate) end: Option<Turn>,
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
        let made = peer.start_thread(&StartThread(thread), CALL, letterbox).await;
        let Some(made) = asked(made)? else { return Ok(ProbeResult::default()) };
        let mut told = ProbeResult { thread: made.thread, ..ProbeResult::default() };
        let id = told.thread.id.clone();
        if whole {
            let said =
                json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]});
            asked(peer.call(&InjectItems { thread_id: &id, items: vec![said] }, CALL).await)?;
            let output_schema = Some(json!({"type": "object"}));
            let begin = StartTurn { thread_id: &id, input: [], effort: None, summary: None, output_schema };
            if asked(peer.call(&begin, CALL).await)?.is_some() {
                // A turn that does not end in time has told what there is to know.
                drop(tokio::time::timeout(TURN, listen(&mut mailbox, &mut told)).await);
            }
        }
        release(peer, &id).await?;
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
        match mailbox.recv().await {
            ThreadMessage::Notification(Notification::TurnCompleted(turn)) => {
                told.end = Some(*turn);
                return;
            }
            ThreadMessage::Notification(notification) => {
                told.raw_completed |= matches!(notification, Notification::RawResponseCompleted(_));
            }
            ThreadMessage::Delta(_) | ThreadMessage::ToolCall(_) => {}
            ThreadMessage::Closed(_) | ThreadMessage::Overflow | ThreadMessage::TooLong { .. } => return,
        }
    }
}

/// Lets a thread go. One that cannot be let go is said elsewhere.
pub(crate) async fn release(peer: &RpcClient, thread_id: &str) -> Result<(), CallError> {
    asked(peer.call(&UnsubscribeThread { thread_id }, CALL).await)?;
    peer.forget_thread(thread_id);
    Ok(())
}
