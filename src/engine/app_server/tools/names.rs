//! Names under which the model sees the client's tools. These names never collide with the names of Codex's own tools.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::engine::Turn;

/// Names that Codex or the upstream reserves, in any profile. A client's tool with such a name would be refused or silently
/// dropped. A superfluous name in this list only adds the prefix to a tool's name.
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

/// Maximum length of a name that the model sees.
pub(super) const MAX_NAME_BYTES: usize = 64;

/// Returns an alias for each name that Codex would refuse, drop or confuse with its own tools. Aliases are unique. Names in
/// the calls of the history are included, because their tools may no longer be offered.
pub(super) fn aliases(turn: &Turn) -> BTreeMap<String, String> {
    let offered = turn.tools.iter().map(|tool| &tool.name);
    let called = turn.messages.iter().flat_map(|message| &message.tool_calls).map(|call| &call.name);
    let names: BTreeSet<&String> = offered.chain(called).collect();
    let (usable, unusable): (Vec<&String>, Vec<&String>) =
        names.into_iter().partition(|name| is_usable(name));
    let mut taken: BTreeSet<String> = usable.into_iter().cloned().collect();
    let mut tries: HashMap<String, usize> = HashMap::new();
    let mut aliases = BTreeMap::new();
    for name in unusable {
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

fn is_usable(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && !name.starts_with("mcp__")
        && RESERVED.binary_search(&name).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_sorted_for_the_search() {
        assert!(RESERVED.is_sorted());
    }
}
