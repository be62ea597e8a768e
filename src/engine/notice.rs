//! Parts that both engines share: notices, the error of exhausted retries, and the instruction for JSON objects.

use super::TurnEvent;
use crate::{
    error::{Error, foreign_text},
    pb::{self, notice::Kind},
};

/// Instruction for [`Format::JsonObject`](super::Format::JsonObject). Codex has no such mode, and a schema would
/// force a shape that the caller did not request.
pub(crate) const JSON_OBJECT_INSTRUCTION: &str =
    "Answer with one JSON object and nothing else: no fence, no comment.";

/// Returns a notice event, without addresses of the upstream.
pub(crate) fn notice(kind: Kind, message: &str) -> TurnEvent {
    TurnEvent::Notice(Box::new(pb::Notice { kind: kind.into(), message: foreign_text::bounded(message) }))
}

/// Returns the error of a turn whose retries are exhausted. A text that cannot be classified counts as a failure of the
/// upstream, because the CLI retried it.
pub(crate) fn retries_exhausted(error: Error) -> Error {
    if let Error::TurnFailed { message } = error {
        return Error::UpstreamUnavailable { message };
    }
    error
}
