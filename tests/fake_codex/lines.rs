//! The lines of `codex exec --json`, with the members in the order of the real CLI.

use serde_json::Value;

/// Token counts of a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) cache_write: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

/// The usage of every scenario except `fake:usage`.
pub(crate) const DEFAULT_USAGE: Usage =
    Usage { input: 100, cached: 40, cache_write: 0, output: 5, reasoning: 0 };

/// Returns a text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns the first line.
pub(crate) fn thread_started() -> String {
    format!(r#"{{"type":"thread.started","thread_id":"{}"}}"#, uuid::Uuid::now_v7())
}

/// Returns the second line.
pub(crate) fn turn_started() -> String {
    r#"{"type":"turn.started"}"#.to_owned()
}

/// Returns an item line. `phase` is `started`, `updated` or `completed`. `members` are the members of the item after its
/// id, beginning with `"type":`.
pub(crate) fn item(phase: &str, number: usize, members: &str) -> String {
    format!(r#"{{"type":"item.{phase}","item":{{"id":"item_{number}",{members}}}}}"#)
}

/// Returns the line of an agent message.
pub(crate) fn message(number: usize, text: &str) -> String {
    item("completed", number, &format!(r#""type":"agent_message","text":{}"#, quoted(text)))
}

/// Returns the line of a warning item.
pub(crate) fn warning(number: usize, text: &str) -> String {
    item("completed", number, &format!(r#""type":"error","message":{}"#, quoted(text)))
}

/// Returns the line of a retry, or of the error before a failed turn.
pub(crate) fn error(text: &str) -> String {
    format!(r#"{{"type":"error","message":{}}}"#, quoted(text))
}

/// Returns the last line of a failed turn.
pub(crate) fn failed(text: &str) -> String {
    format!(r#"{{"type":"turn.failed","error":{{"message":{}}}}}"#, quoted(text))
}

/// Returns the last line of a successful turn.
pub(crate) fn completed(usage: Usage) -> String {
    let Usage { input, cached, cache_write, output, reasoning } = usage;
    format!(
        r#"{{"type":"turn.completed","usage":{{"input_tokens":{input},"cached_input_tokens":{cached},"cache_write_input_tokens":{cache_write},"output_tokens":{output},"reasoning_output_tokens":{reasoning}}}}}"#
    )
}
