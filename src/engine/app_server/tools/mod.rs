//! The client's functions as Codex takes them: names that cannot be mistaken for its own, schemas that it passes on,
//! and what it has no switch for (required, one at a time, strict) as words for the model and checks on its answer.

pub(crate) mod argument_validator;
pub(crate) mod call;
pub(crate) mod schema_rewrite;
pub(crate) mod validate_calls;
pub(crate) mod validation_cost;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use serde_json::{Value, json};

use self::argument_validator::{ArgumentValidator, ValidationError};
use crate::{
    engine::{ToolChoice, Turn},
    error::Error,
    pb,
};

/// Names that Codex or the upstream keeps for itself, in any profile: a client's tool of that name is refused, or
/// silently left out. Taking a name too many costs nothing but the prefix.
const RESERVED: &[&str] = &[
    "apply_patch",
    "browser",
    "clock",
    "close_agent",
    "code_interpreter",
    "computer",
    "container_exec",
    "create_goal",
    "curr_time",
    "exec",
    "exec_command",
    "file_search",
    "followup_task",
    "functions",
    "get_context_remaining",
    "get_goal",
    "image_gen",
    "image_generation",
    "interrupt_agent",
    "js_repl",
    "list_agents",
    "list_mcp_resource_templates",
    "list_mcp_resources",
    "local_shell",
    "mcp",
    "multi_agent_v1",
    "multi_tool_use",
    "new_context",
    "python",
    "read_mcp_resource",
    "request_permissions",
    "request_plugin_install",
    "request_user_input",
    "resume_agent",
    "send_input",
    "send_message",
    "shell",
    "shell_command",
    "sleep",
    "spawn_agent",
    "tool_search",
    "tool_suggest",
    "unified_exec",
    "update_goal",
    "update_plan",
    "view_image",
    "wait",
    "wait_agent",
    "web",
    "web_run",
    "web_search",
    "write_stdin",
];

const MAX_NAME_BYTES: usize = 64;

/// Names that are spelled out in an instruction; more of them are only referred to.
const MAX_NAMES_TOLD: usize = 8;

/// The tools of one turn, and how it may use them.
#[derive(Debug)]
pub(super) struct ToolSet {
    offered: Vec<Offered>,
    choice: ToolChoice,
    parallel: bool,
    /// Names that the model sees, where they differ from the client's.
    aliases: BTreeMap<String, String>,
    originals: HashMap<String, String>,
}

#[derive(Debug)]
struct Offered {
    name: String,
    description: String,
    /// As Codex passes it on.
    schema: Value,
    /// Of strict tools: the client's full schema.
    strict: Option<ArgumentValidator>,
}

impl ToolSet {
    pub(super) fn new(turn: &Turn) -> Result<Self, Error> {
        let aliases = aliases(turn);
        let only = |name: &String| match &turn.tool_choice {
            ToolChoice::Auto | ToolChoice::Required => true,
            ToolChoice::Named(named) => named == name,
        };
        let tools = turn.tools.iter().enumerate().filter(|(_, tool)| only(&tool.name));
        Ok(Self {
            offered: tools
                .map(|(index, tool)| Offered::new(tool, index, aliases.get(&tool.name)))
                .collect::<Result<_, _>>()?,
            choice: turn.tool_choice.clone(),
            parallel: turn.parallel_tool_calls,
            originals: aliases.iter().map(|(name, alias)| (alias.clone(), name.clone())).collect(),
            aliases,
        })
    }

    /// For `thread/start.dynamicTools`.
    pub(super) fn dynamic_tools(&self) -> Vec<Value> {
        let tools = self.offered.iter().map(|tool| {
            json!({
                "type": "function",
                "name": self.alias(&tool.name),
                "description": tool.description,
                "inputSchema": tool.schema,
            })
        });
        tools.collect()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.offered.is_empty()
    }

    /// Whether a name that the model calls is one of the offered tools. Where a tool has an alias, its own name is that
    /// of a tool of Codex.
    pub(super) fn offers(&self, alias: &str) -> bool {
        self.offered.iter().any(|tool| self.alias(&tool.name) == alias)
    }

    /// What the model must be told, because Codex has no parameter for it.
    pub(super) fn instructions(&self) -> Option<String> {
        if self.offered.is_empty() {
            return None;
        }
        let names: Vec<String> =
            self.offered.iter().map(|tool| format!("`{}`", self.alias(&tool.name))).collect();
        let which = if names.len() > MAX_NAMES_TOLD {
            "functions that the application provides".to_owned()
        } else {
            format!("application's functions ({})", names.join(", "))
        };
        let must = match &self.choice {
            ToolChoice::Auto => None,
            ToolChoice::Required => Some(format!(
                "Your reply must call at least one of the {which}. A reply that has only text is not accepted."
            )),
            ToolChoice::Named(name) => Some(format!(
                "Your reply must call the application's function `{}`. A reply that has only text is not accepted.",
                self.alias(name)
            )),
        };
        let one = (!self.parallel)
            .then(|| format!("Call the {which} one at a time: never more than one call in a reply."));
        let told: Vec<String> = [must, one].into_iter().flatten().collect();
        (!told.is_empty()).then(|| told.join("\n"))
    }

    /// The name that the model sees.
    pub(super) fn alias<'a>(&'a self, name: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(self.aliases.get(name).map_or(name, String::as_str))
    }

    /// The name that the client knows.
    pub(super) fn original<'a>(&'a self, alias: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(self.originals.get(alias).map_or(alias, String::as_str))
    }

    /// Whether the arguments of a call are to be checked, by the tool's name in the client's words.
    pub(super) fn is_strict(&self, name: &str) -> bool {
        self.strict(name).is_some()
    }

    /// Checks the arguments of a call of a strict tool, by its name in the client's words. May take a while.
    pub(super) fn check(&self, name: &str, arguments: &str) -> Result<(), ValidationError> {
        let Some(strict) = self.strict(name) else { return Ok(()) };
        let of_this = |what: String| format!("the arguments of `{name}` {what}");
        strict.check(arguments).map_err(|flaw| match flaw {
            ValidationError::Wrong(what) => ValidationError::Wrong(of_this(what)),
            ValidationError::Unknown(what) => ValidationError::Unknown(of_this(what)),
        })
    }

    fn strict(&self, name: &str) -> Option<&ArgumentValidator> {
        self.offered.iter().find(|tool| tool.name == name)?.strict.as_ref()
    }

    /// What is wrong with an answer that has this many calls, if a call was demanded.
    pub(super) fn too_few_calls(&self, calls: usize) -> Option<String> {
        match &self.choice {
            ToolChoice::Required if calls == 0 => {
                Some("tool_choice requires a tool call, but the model answered without one".to_owned())
            }
            ToolChoice::Named(name) if calls == 0 => {
                Some(format!("tool_choice requires a call of `{name}`, but the model answered without one"))
            }
            ToolChoice::Auto | ToolChoice::Required | ToolChoice::Named(_) => None,
        }
    }

    /// How many of this many calls the client is to see.
    pub(super) fn keep(&self, calls: usize) -> usize {
        if self.parallel { calls } else { calls.min(1) }
    }
}

impl Offered {
    fn new(tool: &pb::Tool, index: usize, alias: Option<&String>) -> Result<Self, Error> {
        let full = tool.parameters.as_ref().map_or_else(|| json!({}), schema_rewrite::json);
        let clean = schema_rewrite::clean(&full);
        let mut paragraphs = Vec::new();
        if !tool.description.is_empty() {
            paragraphs.push(tool.description.clone());
        }
        if alias.is_some() {
            // Other instructions may speak of it by that name.
            paragraphs.push(format!("This is the application's function `{}`.", tool.name));
        }
        if clean.lossy {
            paragraphs.push(format!("The arguments must match this JSON Schema: {full}"));
        }
        let strict = tool.strict.then(|| ArgumentValidator::new(&full));
        Ok(Self {
            name: tool.name.clone(),
            description: paragraphs.join("\n\n"),
            schema: clean.schema,
            strict: strict.transpose().map_err(|what| {
                let field = format!("tools[{index}].parameters");
                Error::invalid(&field, format!("{field} is not a JSON Schema that can be checked: {what}"))
            })?,
        })
    }
}

/// Names that Codex would refuse, drop or mistake, each with one that nobody else has. History counts as well: what
/// was called there may not be offered any more.
fn aliases(turn: &Turn) -> BTreeMap<String, String> {
    let offered = turn.tools.iter().map(|tool| &tool.name);
    let called = turn.messages.iter().flat_map(|message| &message.tool_calls).map(|call| &call.name);
    let names: BTreeSet<&String> = offered.chain(called).collect();
    let (fit, unfit): (Vec<&String>, Vec<&String>) = names.into_iter().partition(|name| is_fit(name));
    let mut taken: BTreeSet<String> = fit.into_iter().cloned().collect();
    let mut tries: HashMap<String, usize> = HashMap::new();
    let mut aliases = BTreeMap::new();
    for name in unfit {
        let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' });
        let wanted: String = "client_".chars().chain(letters).take(MAX_NAME_BYTES).collect();
        let mut alias = wanted.clone();
        while !taken.insert(alias.clone()) {
            let attempt = tries.entry(wanted.clone()).or_insert(1);
            *attempt += 1;
            let suffix = format!("_{attempt}");
            alias = wanted.chars().take(MAX_NAME_BYTES - suffix.len()).chain(suffix.chars()).collect();
        }
        aliases.insert(name.clone(), alias);
    }
    aliases
}

fn is_fit(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && !name.starts_with("mcp__")
        && RESERVED.binary_search(&name).is_err()
}

#[cfg(test)]
mod tests;
