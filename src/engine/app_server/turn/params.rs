//! The parameters of `thread/start`. Some depend on the turn and some on the worker. The parameters do not contain the
//! conversation.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::engine::app_server::{
    history::{self, response_item},
    launch::cli_config,
    tools::ToolSet,
    worker::spec::WorkerSpec,
};
use crate::{
    config::{Codex, Profile},
    engine::{Role, Turn, cli::transport::Workload},
};

/// The parameters of `thread/start` of one turn, for any worker.
#[derive(Debug, Default)]
pub(crate) struct ThreadParams {
    params: Value,
    /// The part of the configuration that is the same on every worker.
    config: Map<String, Value>,
    profile: Profile,
    workload: Workload,
    uses_websocket: bool,
}

impl ThreadParams {
    /// Creates the parameters of a turn.
    pub(crate) fn new(turn: &Turn, codex: &Codex, tools: &ToolSet) -> Self {
        let mut params = json!({
            "ephemeral": true,
            "model": turn.model,
            "cwd": codex.workspace,
            "approvalPolicy": codex.approval_policy,
            "sandbox": turn.sandbox.as_str(),
            "experimentalRawEvents": true,
        });
        if let Some(instructions) = history::developer_instructions(turn, tools) {
            params["developerInstructions"] = instructions.into();
        }
        if let Some(tier) = &turn.service_tier {
            params["serviceTier"] = tier.as_str().into();
        }
        let dynamic_tools = tools.dynamic_tools();
        if !dynamic_tools.is_empty() {
            params["dynamicTools"] = dynamic_tools.into();
        }
        match turn.profile {
            Profile::Agent => {}
            Profile::Chat => {
                params["environments"] = json!([]);
                params["baseInstructions"] = "".into();
            }
        }
        let workload = match turn.profile {
            Profile::Agent if turn.tools.is_empty() => Workload::SeveralCalls,
            // A turn with client tools ends at their calls.
            Profile::Agent | Profile::Chat => Workload::SingleCall,
        };
        Self { params, config: config(turn), profile: turn.profile, workload, uses_websocket: false }
    }

    /// Returns the parameters for a worker of this specification. Workers may differ in their model catalog. Commands may
    /// write to `temp_dir`.
    pub(crate) fn for_worker(&mut self, spec: &WorkerSpec, temp_dir: Option<&Path>) -> &Value {
        let mut config = spec.thread_config(self.profile);
        if let Some(temp_dir) = temp_dir {
            config.extend(cli_config::temp_dir_overrides(&spec.codex, temp_dir));
        }
        config.extend(self.config.clone());
        self.params["config"] = config.into();
        let provider = spec.thread_provider(self.workload);
        self.uses_websocket = provider.is_some();
        match provider {
            Some(provider) => self.params["modelProvider"] = provider.into(),
            // A former worker may have set the provider.
            None => drop(self.params.as_object_mut().and_then(|params| params.remove("modelProvider"))),
        }
        &self.params
    }

    /// Returns everything that a thread must have been set up with to run a turn with these parameters. Effort and summary
    /// are not among them, because each turn sets them.
    pub(crate) fn setup(&self, turn: &Turn) -> Vec<u8> {
        let mut config = self.config.clone();
        for per_turn in ["model_reasoning_effort", "model_reasoning_summary"] {
            config.remove(per_turn);
        }
        let choice = format!("{:?} {}", turn.tool_choice, turn.parallel_tool_calls);
        let setup = json!([
            turn.caller,
            turn.prompt_cache_key,
            self.profile.as_str(),
            choice,
            turn.tools.iter().map(|tool| &tool.name).collect::<Vec<_>>(),
            self.params,
            config
        ]);
        setup.to_string().into_bytes()
    }

    /// Returns the approximate size in bytes.
    pub(crate) fn heap_size(&self) -> usize {
        response_item::heap_size_of_value(&self.params)
    }

    /// Returns `true` if the last parameters of [`ThreadParams::for_worker`] select the WebSocket.
    pub(crate) const fn uses_websocket(&self) -> bool {
        self.uses_websocket
    }
}

fn config(turn: &Turn) -> Map<String, Value> {
    let mut config = Map::new();
    // `turn/start` sets both too. Over a WebSocket Codex sends the thread's configuration ahead, and sends the whole
    // request again if the turn differs from it.
    config.insert("model_reasoning_effort".into(), turn.reasoning_effort.as_str().into());
    config.insert("model_reasoning_summary".into(), turn.reasoning_summary.as_str().into());
    config.insert("web_search".into(), if turn.web_search { "live" } else { "disabled" }.into());
    if let Some(verbosity) = &turn.verbosity {
        config.insert("model_verbosity".into(), verbosity.as_str().into());
    }
    let has_results = turn.messages.iter().any(|message| message.role == Role::Tool);
    if has_results || !turn.tools.is_empty() {
        // Codex must not truncate the results of the client's tools.
        config.insert(cli_config::TOOL_OUTPUT_LIMIT.0.into(), cli_config::TOOL_OUTPUT_LIMIT.1.into());
    }
    config
}
