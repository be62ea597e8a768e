//! The way from a request to its answer, the same over both transports: record it, check its schemas, choose a step, plan
//! the acts.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{
    content,
    plan::{self, Acts},
    record::{Recorded, State, Transport},
    request::ParsedRequest,
    script::{Directive, Step},
    strict_schema,
};

/// A request as it arrived.
pub(super) struct Received<'a> {
    pub(super) transport: Transport,
    pub(super) headers: &'a HeaderMap,
    /// Bytes of the body.
    pub(super) size: usize,
    pub(super) body: Value,
}

/// A step and the acts that play it.
pub(super) struct Answer {
    pub(super) step: Step,
    pub(super) acts: Acts,
}

/// An error in OpenAI's shape in place of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: Value,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &str, message: &str) -> Self {
        let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
        Self { status, error: json!({"message": message, "type": kind, "param": null, "code": code}) }
    }

    pub(super) fn bad_request(code: &str, message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Names the parameter that is wrong.
    pub(super) fn param(mut self, param: &str) -> Self {
        self.error["param"] = json!(param);
        self
    }
}

/// Records a request and returns its answer.
pub(super) fn answer(state: &State, received: Received<'_>, number: u64) -> Result<Answer, Refusal> {
    let Received { transport, headers, size, body } = received;
    let (parsed, body) = (ParsedRequest::parse(&body), Arc::new(body));
    let recorded = Recorded::new(number, parsed.round, transport, headers, Arc::clone(&body));
    let is_warm_up = recorded.is_warm_up();
    state.record(size, recorded);
    if transport == Transport::Http && body["stream"] != true {
        let message = "the scripted upstream only answers with `stream: true`";
        return Err(Refusal::bad_request("unsupported_value", message));
    }
    strict_schema::check(&body)?;
    if is_warm_up {
        return Ok(Answer { step: Step::default(), acts: plan::warm_up(&parsed, number) });
    }
    if parsed.compacts {
        return Ok(Answer { step: Step::default(), acts: plan::compaction(&parsed, number) });
    }
    let invalid = |reason: String| Refusal::bad_request("invalid_directive", &reason);
    let step = choose(state, &parsed).map_err(invalid)?;
    let acts = plan::acts(&step, &parsed, number).map_err(invalid)?;
    Ok(Answer { step, acts })
}

/// Returns the step that answers a request.
fn choose(state: &State, request: &ParsedRequest) -> Result<Step, String> {
    let Some(directive) = Directive::find(&request.user)? else {
        return Ok(Step { delay_ms: content::DEFAULT_DELAY_MS, ..Step::default() });
    };
    let Some(step) = directive.steps.get(request.round) else {
        return Ok(Step { text: Some("(script over)".to_owned()), ..Step::default() });
    };
    if step.times.is_none() {
        return Ok(step.clone());
    }
    Ok(step.for_use(state.count(&format!("{} {}", request.round, directive.source))))
}

/// Returns the status and body of a step that refuses the request.
pub(super) fn refusal(step: &Step) -> Result<Option<(StatusCode, Value)>, Refusal> {
    let Some(status) = step.status else { return Ok(None) };
    let status = StatusCode::from_u16(status)
        .map_err(|reason| Refusal::bad_request("invalid_directive", &reason.to_string()))?;
    let scripted = || json!({"error": Refusal::new(status, "scripted", "a scripted error").error});
    Ok(Some((status, step.body.clone().unwrap_or_else(scripted))))
}

/// Returns the headers of a step, those of its rate limits included.
pub(super) fn headers(step: &Step) -> BTreeMap<String, String> {
    let limits = step.rate_limits.iter().flat_map(|limits| limits.headers());
    limits.chain(step.headers.clone()).collect()
}
