//! One line of every kind, as recorded from the real CLI, and three lines of unknown kinds.

/// All lines between `turn.started` and `turn.completed`. The last `agent_message` is the answer.
pub(crate) const EVERY: &[&str] = &[
    r#"{"type":"item.completed","item":{"id":"item_0","type":"error","message":"Model metadata for `fake:items` not found. Defaulting to fallback metadata; this can degrade performance and cause issues."}}"#,
    r#"{"type":"item.completed","item":{"id":"item_1","type":"reasoning","text":"pondering deeply "}}"#,
    r#"{"type":"item.completed","item":{"id":"item_2","type":"agent_message","text":"I will look."}}"#,
    r#"{"type":"item.started","item":{"id":"item_3","type":"command_execution","command":"/bin/bash -lc 'echo fine'","aggregated_output":"","exit_code":null,"status":"in_progress"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_3","type":"command_execution","command":"/bin/bash -lc 'echo fine'","aggregated_output":"fine\n","exit_code":0,"status":"completed"}}"#,
    r#"{"type":"item.started","item":{"id":"item_4","type":"command_execution","command":"/bin/bash -lc 'echo hi; echo err >&2; exit 3'","aggregated_output":"","exit_code":null,"status":"in_progress"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_4","type":"command_execution","command":"/bin/bash -lc 'echo hi; echo err >&2; exit 3'","aggregated_output":"err\nhi\n","exit_code":3,"status":"failed"}}"#,
    r#"{"type":"item.started","item":{"id":"item_5","type":"file_change","changes":[{"path":"/workspace/hello.txt","kind":"add"},{"path":"/workspace/old.txt","kind":"delete"}],"status":"in_progress"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_5","type":"file_change","changes":[{"path":"/workspace/hello.txt","kind":"add"},{"path":"/workspace/old.txt","kind":"delete"}],"status":"completed"}}"#,
    r#"{"type":"item.started","item":{"id":"item_6","type":"todo_list","items":[{"text":"look","completed":false},{"text":"answer","completed":false}]}}"#,
    r#"{"type":"item.updated","item":{"id":"item_6","type":"todo_list","items":[{"text":"look","completed":true},{"text":"answer","completed":false}]}}"#,
    r#"{"type":"item.started","item":{"id":"item_7","type":"web_search","id":"ws_226","query":"","action":{"type":"other"}}}"#,
    r#"{"type":"item.completed","item":{"id":"item_7","type":"web_search","id":"ws_226","query":"rust gateways","action":{"type":"search","query":"rust gateways"}}}"#,
    r#"{"type":"item.started","item":{"id":"item_8","type":"mcp_tool_call","server":"t","tool":"echo","arguments":{"x":"hi"},"result":null,"error":null,"status":"in_progress"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_8","type":"mcp_tool_call","server":"t","tool":"echo","arguments":{"x":"hi"},"result":{"content":[{"type":"text","text":"echo hi"}],"structured_content":null},"error":null,"status":"completed"}}"#,
    r#"{"type":"item.started","item":{"id":"item_9","type":"mcp_tool_call","server":"t","tool":"echo","arguments":{"x":"fail"},"result":null,"error":null,"status":"in_progress"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_9","type":"mcp_tool_call","server":"t","tool":"echo","arguments":{"x":"fail"},"result":{"content":[{"type":"text","text":"it failed"}],"structured_content":null},"error":null,"status":"failed"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_10","type":"hologram","depth":3,"layers":["a","b"]}}"#,
    r#"{"type":"hologram.projected","at":{"x":1}}"#,
    r#"{"type":"item.rotated","item":{"id":"item_10","type":"hologram","depth":3}}"#,
    r#"{"type":"item.started","item":{"id":"item_11","type":"command_execution","command":"/bin/bash -lc 'sleep 5; echo slow'","aggregated_output":"","exit_code":null,"status":"in_progress"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_12","type":"agent_message","text":"the end"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_6","type":"todo_list","items":[{"text":"look","completed":true},{"text":"answer","completed":false}]}}"#,
];

/// The lines of one command.
pub(crate) const COMMAND: &[&str] = &[
    r#"{"type":"item.started","item":{"id":"item_0","type":"command_execution","command":"/bin/bash -lc 'echo fine'","aggregated_output":"","exit_code":null,"status":"in_progress"}}"#,
    r#"{"type":"item.completed","item":{"id":"item_0","type":"command_execution","command":"/bin/bash -lc 'echo fine'","aggregated_output":"fine\n","exit_code":0,"status":"completed"}}"#,
];

/// Lines outside of the protocol.
pub(crate) const GARBAGE: &[&str] = &[
    "warning: this is not JSON",
    "",
    "   ",
    r#"{"type":"item.completed","item":{"id":"item_0""#,
    "[1,2,3]",
    "null",
    "{}",
    r#"{"type":42}"#,
    r#"{"type":"item.completed"}"#,
    r#"{"type":"item.completed","item":"text"}"#,
    r#"{"type":"item.completed","item":{"id":"item_0","type":"agent_message"}}"#,
];

#[cfg(test)]
mod tests {
    use super::EVERY;

    #[test]
    fn item_lines_are_json() {
        for line in EVERY {
            serde_json::from_str::<serde_json::Value>(line).expect(line);
        }
    }
}
