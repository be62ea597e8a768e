//! Checks that each tool call of a conversation has exactly one result.

use std::collections::HashMap;

use crate::{
    engine::{Message, Role},
    error::Error,
};

/// Checks the tool calls and results of a conversation.
///
/// Returns an error for a call without a result, a result without a call, and a second one of either. The results of
/// a message may have any order, but must precede a message of another role. The app-server would repair an invalid
/// history without notice, and the exec engine would flatten it, so the service refuses it.
pub(super) fn check(messages: &[Message]) -> Result<(), Error> {
    // Calls of the last assistant message that have no result yet, by id: message and index.
    let mut open: HashMap<&str, (usize, usize)> = HashMap::new();
    for (place, message) in messages.iter().enumerate() {
        if message.role == Role::Tool {
            let id = message.tool_call_id.as_deref().unwrap_or_default();
            if open.remove(id).is_none() {
                return Err(Error::invalid(
                    format!("messages[{place}].tool_call_id"),
                    format!("{id:?} is not an open call of the assistant's message before it"),
                ));
            }
            continue;
        }
        check_all_answered(&open)?;
        open.clear();
        for (index, call) in message.tool_calls.iter().enumerate() {
            if open.insert(&call.id, (place, index)).is_some() {
                return Err(Error::invalid(
                    format!("messages[{place}].tool_calls[{index}].id"),
                    format!("another call of the same message has the id {:?}", call.id),
                ));
            }
        }
    }
    check_all_answered(&open)
}

fn check_all_answered(open: &HashMap<&str, (usize, usize)>) -> Result<(), Error> {
    let Some((id, (place, index))) = open.iter().min_by_key(|(_, place)| **place) else { return Ok(()) };
    Err(Error::invalid(
        format!("messages[{place}].tool_calls[{index}]"),
        format!("the call {id:?} has no result: its result must follow before any other message"),
    ))
}

#[cfg(test)]
mod tests;
