//! The checks of calls against their schemas, on a thread that nobody waits for, and not for ever.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use super::{step::Call, tools::ToolSet};
use crate::error::Error;

/// How long the checks of one response may take. Their work is bounded, and done in far less.
const LIMIT: Duration = Duration::from_secs(20);

/// Each call with what is wrong with it. A call that was not checked is nobody's.
pub(super) async fn of(
    tools: Arc<ToolSet>,
    calls: Vec<Call>,
) -> Result<Vec<(Call, Result<(), String>)>, Error> {
    let check = move || {
        let verdict = |call: Call| {
            let verdict = tools.check(&tools.original(&call.alias), &call.arguments);
            (call, verdict)
        };
        calls.into_iter().map(verdict).collect()
    };
    match timeout(LIMIT, spawn_blocking(check)).await {
        Ok(verdicts) => verdicts.map_err(Error::internal),
        Err(_) => Err(Error::TurnFailed {
            message: "the arguments of a call could not be checked against their schema in time".to_owned(),
        }),
    }
}
