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

/// Time that the validations of one response may take of a thread.
const MAX_VALIDATION_TIME: Duration = Duration::from_secs(1);

/// Time that a response waits for its validations, other turns' jobs before them included.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Validates calls. Returns each with the model's mistake in it, or an error if a call cannot be judged.
///
/// Cancel safe: a validation that has begun goes on to its end, for [`MAX_VALIDATION_TIME`] at most.
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

/// Validates calls on this thread, until `deadline` at most.
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
            // The model could not do better.
            Err(ValidationError::TooExpensive(message)) => Err(Error::TurnFailed { message }),
        }
    });
    validated.collect()
}
