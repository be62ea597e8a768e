//! Checks that each tool call of a conversation has exactly one result.

use std::collections::HashSet;

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
    // Calls of the last assistant message that have no result yet: message, index, id.
    let mut open: Vec<(usize, usize, &str)> = Vec::new();
    for (place, message) in messages.iter().enumerate() {
        if message.role == Role::Tool {
            let id = message.tool_call_id.as_deref().unwrap_or_default();
            let Some(position) = open.iter().position(|(_, _, open)| *open == id) else {
                return Err(Error::invalid(
                    format!("messages[{place}].tool_call_id"),
                    format!(
                        "messages[{place}] answers the call {id:?}, which is not an open call of the assistant \
                         message before it"
                    ),
                ));
            };
            open.swap_remove(position);
            continue;
        }
        check_all_answered(&open)?;
        let mut ids = HashSet::new();
        for (index, call) in message.tool_calls.iter().enumerate() {
            if !ids.insert(&call.id) {
                return Err(Error::invalid(
                    format!("messages[{place}].tool_calls[{index}].id"),
                    format!("another call of messages[{place}] has the id {:?}", call.id),
                ));
            }
        }
        open = message.tool_calls.iter().enumerate().map(|(index, call)| (place, index, &*call.id)).collect();
    }
    check_all_answered(&open)
}

fn check_all_answered(open: &[(usize, usize, &str)]) -> Result<(), Error> {
    let Some((place, index, id)) = open.iter().min() else { return Ok(()) };
    Err(Error::invalid(
        format!("messages[{place}].tool_calls[{index}]"),
        format!(
            "the call {id:?} has no result: a message of the role `tool` must follow before any other role"
        ),
    ))
}

#[cfg(test)]
mod tests;
