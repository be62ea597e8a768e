//! Validates the calls of a response against their tools' schemas, on a thread of the blocking pool.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::timeout};

use super::{
    ToolSet,
    argument_validator::ValidationError,
    call::{Call, CheckedCall, InvalidArguments},
};
use crate::error::Error;

/// Maximum time that the validations of one response may occupy a thread.
const MAX_VALIDATION_TIME: Duration = Duration::from_secs(1);

/// Maximum time that a response waits for its validations, including the queued jobs of other turns.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Validates calls. Returns each call with its verdict, or an error if the validation of a call exceeds a limit.
///
/// Cancel safe. A validation that has begun runs to its end, for at most [`MAX_VALIDATION_TIME`].
pub(crate) async fn validate(tools: Arc<ToolSet>, calls: Vec<Call>) -> Result<Vec<CheckedCall>, Error> {
    let validated = async {
        let job = Arc::clone(&tools.jobs).acquire_owned().await.map_err(Error::internal)?;
        let validated = spawn_blocking(move || {
            let _job = job;
            validate_now(&tools, calls, Some(Instant::now() + MAX_VALIDATION_TIME))
        });
        validated.await.map_err(Error::internal)?
    };
    timeout(VALIDATION_TIMEOUT, validated).await.map_err(|_| Error::TurnFailed {
        message: "the arguments of a call could not be checked against their schema in time".to_owned(),
    })?
}

/// Validates calls on this thread, at most until `deadline`.
pub(crate) fn validate_now(
    tools: &ToolSet,
    calls: Vec<Call>,
    deadline: Option<Instant>,
) -> Result<Vec<CheckedCall>, Error> {
    let validated = calls.into_iter().map(|call| {
        let verdict = tools.validate(&tools.original(&call.alias), &call.arguments, deadline);
        match verdict {
            Ok(()) => Ok((call, Ok(()))),
            Err(ValidationError::Invalid(mistake)) => Ok((call, Err(InvalidArguments(mistake)))),
            // The arguments may be correct, so the model cannot correct them.
            Err(ValidationError::TooExpensive(message)) => Err(Error::TurnFailed { message }),
        }
    });
    validated.collect()
}
