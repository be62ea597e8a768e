//! The parameters of `thread/start`: what the turn says, and what the worker's program makes of it. Says nothing about
//! the conversation.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::engine::app_server::{
    history::InitialHistory, launch::cli_config, tools::ToolSet, worker::spec::WorkerSpec,
};
use crate::{
    config::{Codex, Profile},
    engine::{Role, Turn},
};

/// What a thread is started with, on whichever worker.
#[derive(Debug, Default)]
pub(crate) struct ThreadParams {
    params: Value,
    /// What its configuration says on every worker.
    config: Map<String, Value>,
    profile: Profile,
}

impl ThreadParams {
    /// That of a turn.
    pub(crate) fn of(turn: &Turn, codex: &Codex, tools: &ToolSet, opening: &InitialHistory) -> Self {
        let mut params = json!({
            "ephemeral": true,
            "model": turn.model,
            "cwd": codex.workspace,
            "approvalPolicy": codex.approval_policy,
            "sandbox": turn.sandbox.as_str(),
            "experimentalRawEvents": true,
        });
        if let Some(instructions) = &opening.developer_instructions {
            params["developerInstructions"] = instructions.as_str().into();
        }
        let offered = tools.dynamic_tools();
        if !offered.is_empty() {
            params["dynamicTools"] = offered.into();
        }
        match turn.profile {
            Profile::Agent => {}
            Profile::Chat => {
                params["environments"] = json!([]);
                params["baseInstructions"] = "".into();
            }
        }
        Self { params, config: config(turn), profile: turn.profile }
    }

    /// The parameters on a worker of this kit: another one may have another catalog. Commands that may write do so in
    /// `folder`.
    pub(crate) fn on(&mut self, kit: &WorkerSpec, folder: Option<&Path>) -> &Value {
        let mut config = kit.thread_config(self.profile);
        if let Some(folder) = folder {
            config.extend(cli_config::temp_dir_overrides(&kit.codex, folder));
        }
        config.extend(self.config.clone());
        self.params["config"] = config.into();
        &self.params
    }
}

fn config(turn: &Turn) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("web_search".into(), if turn.web_search { "live" } else { "disabled" }.into());
    if let Some(verbosity) = &turn.verbosity {
        config.insert("model_verbosity".into(), verbosity.as_str().into());
    }
    let results = turn.messages.iter().any(|message| message.role == Role::Tool);
    if results || !turn.tools.is_empty() {
        // What the client's tools say reaches the model whole.
        config.insert(cli_config::TOOL_OUTPUT_LIMIT.0.into(), cli_config::TOOL_OUTPUT_LIMIT.1.into());
    }
    config
}
