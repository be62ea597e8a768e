//! The checks of calls against their schemas, on a thread that nobody waits for, and not for ever.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use super::{
    ToolSet,
    argument_validator::ValidationError,
    call::{Call, CheckedCall},
};
use crate::error::Error;

/// How long the checks of one response may take. Their work is bounded, and done in far less.
const LIMIT: Duration = Duration::from_secs(20);

/// Each call with what is wrong with it. A call that was not checked is nobody's.
pub(crate) async fn of(tools: Arc<ToolSet>, calls: Vec<Call>) -> Result<Vec<CheckedCall>, Error> {
    match timeout(LIMIT, spawn_blocking(move || verdicts(&tools, calls))).await {
        Ok(verdicts) => verdicts.map_err(Error::internal)?,
        Err(_) => Err(Error::TurnFailed {
            message: "the arguments of a call could not be checked against their schema in time".to_owned(),
        }),
    }
}

/// The same, here and now.
pub(crate) fn verdicts(tools: &ToolSet, calls: Vec<Call>) -> Result<Vec<CheckedCall>, Error> {
    let verdict = |call: Call| match tools.check(&tools.original(&call.alias), &call.arguments) {
        Ok(()) => Ok((call, Ok(()))),
        Err(ValidationError::Wrong(mistake)) => Ok((call, Err(mistake))),
        // The model could not do better.
        Err(ValidationError::Unknown(message)) => Err(Error::TurnFailed { message }),
    };
    calls.into_iter().map(verdict).collect()
}
