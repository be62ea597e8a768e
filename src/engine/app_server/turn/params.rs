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
    engine::{
        Role, Turn,
        cli::{thread_transport::ThreadTransport, transport::Workload},
    },
};

/// The parameters of `thread/start` of one turn, for any worker.
#[derive(Debug, Default)]
pub(crate) struct ThreadParams {
    params: Value,
    /// The part of the configuration that is the same on every worker.
    config: Map<String, Value>,
    profile: Profile,
    workload: Workload,
    transport: ThreadTransport,
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
        let workload = Workload::of(turn, codex.kept_threads.max_per_worker > 0);
        Self {
            params,
            config: config(turn),
            profile: turn.profile,
            workload,
            transport: ThreadTransport::Https,
        }
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
        self.transport = if provider.is_some() { ThreadTransport::WebSocket } else { ThreadTransport::Https };
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
        let names: Vec<&str> = turn.tools.iter().map(|tool| tool.name.as_str()).collect();
        // The texts are quoted, so that no two setups have the same form. The parameters may be large and are not copied.
        let setup = format!(
            "{:?} {:?} {} {:?} {} {names:?} {} {}",
            turn.caller,
            turn.prompt_cache_key,
            self.profile.as_str(),
            turn.tool_choice,
            turn.parallel_tool_calls,
            self.params,
            Value::from(config),
        );
        setup.into_bytes()
    }

    /// Returns the approximate size in bytes.
    pub(crate) fn heap_size(&self) -> usize {
        response_item::heap_size_of_value(&self.params)
    }

    /// Returns the transport that the last parameters of [`ThreadParams::for_worker`] select.
    pub(crate) const fn transport(&self) -> ThreadTransport {
        self.transport
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Sandbox,
        engine::{Format, Message, Part, ToolChoice, app_server::threads::conversation::Conversation},
    };

    fn message(role: Role, text: &str) -> Message {
        let parts = vec![Part::Text(text.into())];
        Message { role, name: None, parts, tool_calls: Vec::new(), tool_call_id: None }
    }

    fn turn() -> Turn {
        let messages = vec![
            message(Role::System, "Be brief."),
            message(Role::User, "Hi"),
            message(Role::Assistant, "Hello."),
            message(Role::User, "More"),
        ];
        let tool = |name: &str| crate::engine::Tool {
            name: name.into(),
            description: "Does it.".into(),
            ..crate::engine::Tool::default()
        };
        Turn {
            caller: "one".into(),
            model: "m".into(),
            messages,
            tools: [tool("f"), tool("g")].into(),
            parallel_tool_calls: true,
            ..Turn::default()
        }
    }

    fn codex(env: &[(&str, &str)]) -> Codex {
        let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let sources = crate::config::Sources { env, current_dir: "/work".into(), ..Default::default() };
        crate::config::Config::load(sources).unwrap().codex
    }

    /// Returns what identifies the conversation of a turn.
    fn key(turn: &Turn, codex: &Codex) -> impl PartialEq + std::fmt::Debug + use<> {
        let tools = ToolSet::new(turn).unwrap();
        let setup = ThreadParams::new(turn, codex, &tools).setup(turn);
        Conversation::of(turn, &setup).known.unwrap()
    }

    type Change = (&'static str, fn(&mut Turn));

    /// Changes that need another thread, by name.
    const CHANGES: &[Change] = &[
        ("caller", |turn| turn.caller = "two".into()),
        ("no caller", |turn| turn.caller = String::new()),
        ("model", |turn| turn.model = "n".into()),
        ("profile", |turn| turn.profile = Profile::Chat),
        ("sandbox", |turn| turn.sandbox = Sandbox::DangerFullAccess),
        ("search", |turn| turn.web_search = !turn.web_search),
        ("verbosity", |turn| turn.verbosity = Some("low".into())),
        ("service tier", |turn| turn.service_tier = Some("flex".into())),
        ("cache key", |turn| turn.prompt_cache_key = Some("key".into())),
        ("JSON", |turn| turn.format = Format::JsonObject),
        ("choice", |turn| turn.tool_choice = ToolChoice::Required),
        ("named choice", |turn| turn.tool_choice = ToolChoice::Named("f".into())),
        ("parallel calls", |turn| turn.parallel_tool_calls = false),
        ("no tools", |turn| turn.tools = [].into()),
        ("tool", |turn| turn.tools = turn.tools.iter().take(1).cloned().collect()),
        ("order of tools", |turn| turn.tools = turn.tools.iter().rev().cloned().collect()),
        ("name of a tool", |turn| change_tool(turn, |tool| tool.name = "exec_command".into())),
        ("description", |turn| change_tool(turn, |tool| tool.description = "Does more.".into())),
        ("instructions", |turn| turn.messages[0] = message(Role::System, "Be rude.")),
        ("role of instructions", |turn| turn.messages[0].role = Role::Developer),
        ("message", |turn| turn.messages[1] = message(Role::User, "Hi!")),
        ("name of the author", |turn| turn.messages[1].name = Some("Ann".into())),
        ("answer", |turn| turn.messages[2] = message(Role::Assistant, "Hello!")),
        ("name of the answer", |turn| turn.messages[2].name = Some("Ann".into())),
        ("answer with a name at its end", |turn| {
            turn.messages[2] = Message { name: Some("lo.".into()), ..message(Role::Assistant, "Hel") };
        }),
    ];

    fn change_tool(turn: &mut Turn, change: impl Fn(&mut crate::engine::Tool)) {
        let mut tools = turn.tools.to_vec();
        change(&mut tools[0]);
        turn.tools = tools.into();
    }

    #[test]
    fn setup_of_another_caller_or_setting_is_another_conversation() {
        let (turn, here) = (turn(), codex(&[]));
        let own = key(&turn, &here);
        assert_eq!(key(&turn.clone(), &here), own);
        for (name, change) in CHANGES {
            let mut other = turn.clone();
            change(&mut other);
            assert_ne!(key(&other, &here), own, "{name}");
        }
        let there = codex(&[("CODEX_WORKSPACE", "/elsewhere")]);
        assert_ne!(key(&turn, &there), own, "workspace");
    }

    #[test]
    fn setup_does_not_depend_on_what_each_turn_sets() {
        let (turn, codex) = (turn(), codex(&[]));
        let mut other = turn.clone();
        other.reasoning_effort = "high".into();
        other.reasoning_summary = "detailed".into();
        other.id = "another".into();
        assert_eq!(key(&other, &codex), key(&turn, &codex));
    }
}
