//! Functions for the raw items of a finished turn. Measures their size in memory, and prepares them for injection.

use std::collections::HashSet;

use serde_json::Value;

use crate::{engine::app_server::rpc::protocol::RawItem, pb};

/// Returns the approximate heap size of an item in bytes. Errs on the large side. A small object takes many times the
/// size of its text.
pub(crate) fn heap_size(item: &RawItem) -> usize {
    heap_size_of_value(item.as_value())
}

/// Returns the approximate heap size of a JSON value in bytes.
pub(crate) fn heap_size_of_value(value: &Value) -> usize {
    /// Overhead of the allocator for each block.
    const BLOCK: usize = 16;
    /// Capacity of eleven members, which is allocated for every six members.
    const SIX_MEMBERS: usize = 11 * (size_of::<String>() + size_of::<Value>()) + BLOCK;
    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity() + BLOCK,
        Value::Array(list) => list.iter().map(heap_size_of_value).sum::<usize>() + BLOCK,
        Value::Object(members) => {
            // The table of the members may be only a little more than half full.
            let table = members.len().div_ceil(6) * SIX_MEMBERS;
            let member =
                |(name, value): (&String, &Value)| name.capacity() + BLOCK + heap_size_of_value(value);
            table + members.iter().map(member).sum::<usize>()
        }
    };
    size_of::<Value>() + inner
}

/// Returns the approximate heap size of a call in the turn cache in bytes.
pub(crate) const fn heap_size_of_call(call: &pb::ToolCall) -> usize {
    // The index of the cache has a copy of the id.
    size_of::<pb::ToolCall>() + 2 * (call.id.len() + 64) + call.name.len() + call.arguments.len()
}

/// Returns the items of a turn that can be injected. Returns `None` if a call has no item, because the items then differ
/// from the calls that the client received. In code mode, calls have no items of their own.
pub(super) fn sanitize_items(calls: &[pb::ToolCall], items: Vec<RawItem>) -> Option<Vec<RawItem>> {
    let client: HashSet<&str> = calls.iter().map(|call| call.id.as_str()).collect();
    let is_client_call = |item: &RawItem| {
        item.kind() == "function_call" && item.call_id().is_some_and(|id| client.contains(id))
    };
    if items.iter().filter(|item| is_client_call(item)).count() != calls.len() {
        return None;
    }
    let ids = |suffix: &str| -> HashSet<String> {
        let matching = items.iter().filter(|item| item.kind().ends_with(suffix));
        matching.filter_map(|item| item.call_id().map(str::to_owned)).collect()
    };
    let (called, answered) = (ids("_call"), ids("_output"));
    let is_codex_call = |item: &RawItem, ids: &HashSet<String>| {
        item.call_id().is_some_and(|id| ids.contains(id) && !client.contains(id))
    };
    let keep = |item: &RawItem| match item.kind() {
        "reasoning" => item.has_encrypted_content(),
        "message" => item.role() == Some("assistant") && item.has_content(),
        // A call without an output did not finish, unless the client must answer the call.
        "function_call" | "custom_tool_call" | "local_shell_call" | "tool_search_call" => {
            is_client_call(item) || is_codex_call(item, &answered)
        }
        "function_call_output" | "custom_tool_call_output" | "tool_search_output" => {
            is_codex_call(item, &called)
        }
        "web_search_call" => true,
        _ => false,
    };
    let mut kept: Vec<RawItem> = items.into_iter().filter(keep).map(strip).collect();
    // The upstream refuses reasoning at the end of the items.
    while kept.last().is_some_and(|item| item.kind() == "reasoning") {
        kept.pop();
    }
    Some(kept)
}

/// Removes the fields that belong to the original response, and empty fields.
fn strip(mut item: RawItem) -> RawItem {
    // Codex cannot read these kinds without a status.
    let needs_status = matches!(item.kind(), "local_shell_call" | "tool_search_output" | "web_search_call");
    item.retain_fields(|name, value| match name {
        "id" | "internal_chat_message_metadata_passthrough" => false,
        "status" => needs_status,
        _ => !value.is_null(),
    });
    item
}
