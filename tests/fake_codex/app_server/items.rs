//! One item and notification of every kind, with the members of the real app-server, and some unknown kinds. The sequence
//! is that of `items.rs` of `exec`.

use serde_json::{Value, json};

use super::act::{Act, message, split_words};

/// Returns the acts of `fake:items` before the last message.
pub(crate) fn every(cwd: &str) -> Vec<Act> {
    let mut acts = vec![
        Act::Notify("warning", json!({"message": UNKNOWN_MODEL})),
        Act::Reasoning { summary: vec!["pondering ".to_owned(), "deeply ".to_owned()], raw: None },
    ];
    acts.extend(message(split_words("I will look."), Some("commentary")));
    acts.extend(command("cmd_1", cwd, "echo fine", "fine\n", 0));
    acts.extend(command("cmd_2", cwd, "echo hi; echo err >&2; exit 3", "err\nhi\n", 3));
    acts.extend(both(|status| {
        json!({"type": "fileChange", "id": "patch_1", "status": status, "changes": [
            {"path": format!("{cwd}/hello.txt"), "kind": {"type": "add"}, "diff": "hello\n"},
            {"path": format!("{cwd}/new.txt"), "kind": {"type": "update", "move_path": null}, "diff": "@@ -1 +1 @@\n-a\n+b\n"},
            {"path": format!("{cwd}/old.txt"), "kind": {"type": "delete"}, "diff": "bye\n"},
        ]})
    }));
    acts.push(Act::Notify("turn/diff/updated", json!({"diff": "diff --git a/hello.txt b/hello.txt\n"})));
    acts.push(plan("inProgress", "pending"));
    acts.push(plan("completed", "inProgress"));
    let search = |query: &str, action: Value| json!({"type": "webSearch", "id": "ws_226", "query": query, "action": action, "results": null});
    acts.push(Act::Started(search("", json!({"type": "other"}))));
    acts.push(Act::Completed(search(
        "rust gateways",
        json!({"type": "search", "query": "rust gateways", "queries": null}),
    )));
    acts.push(Act::Raw(json!({"type": "web_search_call", "id": "ws_226", "status": "completed",
                              "action": {"type": "search", "query": "rust gateways"}})));
    let content = |text: &str| json!({"content": [{"type": "text", "text": text}], "structuredContent": null, "_meta": null});
    acts.push(Act::Started(mcp("mcp_1", "inProgress", "hi", &Value::Null)));
    acts.push(Act::Completed(mcp("mcp_1", "completed", "hi", &content("echo hi"))));
    acts.push(Act::Started(mcp("mcp_2", "inProgress", "fail", &Value::Null)));
    acts.push(Act::Completed(mcp("mcp_2", "failed", "fail", &content("it failed"))));
    let hologram = json!({"type": "hologram", "id": "h_1", "depth": 3, "layers": ["a", "b"]});
    acts.push(Act::Completed(hologram));
    acts.push(Act::Notify("hologram/projected", json!({"at": {"x": 1}})));
    acts.push(Act::Raw(json!({"type": "hologram_call", "depth": 3})));
    // A command that still runs when the turn ends.
    acts.push(Act::Started(command_item("cmd_3", cwd, "sleep 5; echo slow", "inProgress", None)));
    acts.push(plan("completed", "completed"));
    acts
}

/// The warning of the real CLI about an unknown model.
pub(crate) const UNKNOWN_MODEL: &str = "Model metadata for `x` not found. Defaulting to fallback metadata; this can \
    degrade performance and cause issues.";

/// Returns the acts of a complete command of the agent.
pub(crate) fn command(id: &str, cwd: &str, line: &str, output: &str, code: i32) -> Vec<Act> {
    let status = if code == 0 { "completed" } else { "failed" };
    vec![
        Act::Started(command_item(id, cwd, line, "inProgress", None)),
        Act::Notify("item/commandExecution/outputDelta", json!({"itemId": id, "delta": output})),
        Act::Completed(command_item(id, cwd, line, status, Some((output, code)))),
    ]
}

/// Builds a `commandExecution` item, with output and exit code if it has ended.
pub(crate) fn command_item(id: &str, cwd: &str, line: &str, status: &str, end: Option<(&str, i32)>) -> Value {
    json!({
        "type": "commandExecution", "id": id, "pluginId": null, "scriptPath": null,
        "command": format!("/bin/bash -lc '{line}'"), "cwd": cwd, "processId": "4711",
        "source": "unifiedExecStartup", "status": status,
        "commandActions": [{"type": "unknown", "command": line}],
        "aggregatedOutput": end.map(|(output, _)| output), "exitCode": end.map(|(_, code)| code),
        "durationMs": end.map(|_| 12),
    })
}

fn both(item: impl Fn(&str) -> Value) -> [Act; 2] {
    [Act::Started(item("inProgress")), Act::Completed(item("completed"))]
}

fn plan(first: &str, second: &str) -> Act {
    let steps = json!([{"step": "look", "status": first}, {"step": "answer", "status": second}]);
    Act::Notify("turn/plan/updated", json!({"explanation": null, "plan": steps}))
}

fn mcp(id: &str, status: &str, x: &str, result: &Value) -> Value {
    json!({
        "type": "mcpToolCall", "id": id, "server": "t", "tool": "echo", "status": status, "arguments": {"x": x},
        "result": result, "error": null, "durationMs": null, "appContext": null, "mcpAppResourceUri": null,
        "mcpAppUi": null, "pluginId": null, "readOnlyHint": null,
    })
}
