//! The errors of a turn that the turn driver reports.

use std::{fmt::Display, time::Duration};

use crate::{
    config::Profile,
    engine::app_server::{
        rpc::{dispatch::CallError, thread_queue::MAX_BUFFERED_BYTES},
        worker::lease::WorkerLease,
    },
    error::{Error, foreign_text},
};

/// Maps the error of a call that starts a turn. Kills the worker if the call timed out.
pub(super) fn call_error(error: CallError, lease: &WorkerLease, profile: Profile) -> Error {
    match error {
        CallError::Closed(reason) => worker_lost_error(reason),
        CallError::TimedOut(method) => {
            lease.kill();
            worker_lost_error(format_args!("{method} timed out"))
        }
        CallError::Refused(error) if error.is_overloaded() => Error::Overloaded {
            message: "the Codex CLI is busy; try again later".to_owned(),
            retry_after: Duration::from_secs(1),
        },
        CallError::Refused(error) if error.is_input_too_large() => {
            Error::PromptTooLarge { field: "messages", message: error.message }
        }
        CallError::Refused(error) => {
            tracing::warn!(
                code = error.code,
                text = foreign_text::bounded(&error.message),
                ?profile,
                "app-server refused a turn"
            );
            Error::Rejected {
                message: format!(
                    "the Codex CLI refuses the request: {}",
                    foreign_text::bounded(&error.message)
                ),
            }
        }
    }
}

/// Returns the error of a turn whose buffered output exceeds the bound of its queue.
pub(super) fn slow_consumer_error() -> Error {
    let limit = MAX_BUFFERED_BYTES >> 20;
    let message = format!("the client reads too slowly: more than {limit} MiB of output are buffered");
    Error::TurnFailed { message }
}

/// Returns the error of a turn that lost a message because Codex wrote an oversized line.
pub(super) fn oversized_line_error(limit: usize) -> Error {
    let message = format!(
        "Codex wrote a line about this turn that is longer than {limit} bytes (CODEX_SUBPROCESS_STREAM_LIMIT)"
    );
    Error::TurnFailed { message }
}

/// Returns the error of a turn whose worker died. Another worker is ready or starts.
pub(super) fn worker_lost_error(reason: impl Display) -> Error {
    Error::WorkerLost { message: format!("the Codex process of this turn was lost: {reason}") }
}
