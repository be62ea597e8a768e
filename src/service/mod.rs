//! The core: implements the generated `CodexService`. What must hold for both doors is here: validation, admission,
//! deadline, cancellation, policy, the account of each turn.

mod admission;
mod choice;
mod collect;
mod event_stream;
mod models;
mod output_filter;
mod turn_log;
mod validate;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, stream};
use tokio::time::timeout_at;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use self::{
    admission::{Admission, QueueTicket},
    choice::ChoiceBuilder,
    event_stream::{Choice, EventStream, StartedRequest},
    output_filter::TextFilter,
    turn_log::TurnLog,
    validate::{RequestPolicy, ValidatedRequest},
};
use super::{
    config::Config,
    context::{RequestContext, deadline::Deadline},
    engine::{Engine, Events, Turn, TurnGuard},
    error::Error,
    pb::{self, codex_service_server::CodexService},
};

/// The service behind both doors.
#[derive(Debug)]
pub struct Service {
    engine: Arc<dyn Engine>,
    rules: RequestPolicy,
    admission: Admission,
    /// Turns that run at once, where the operator has said it.
    max_running: Option<usize>,
    strip_answer_tags: bool,
    demo: bool,
    /// Requests that are here.
    present: TaskTracker,
    /// Cancelled when the drain's patience is over.
    stop: CancellationToken,
    /// Cancelled when the drain begins.
    draining: CancellationToken,
}

impl Service {
    /// A service over an engine.
    pub fn new(config: &Config, engine: Arc<dyn Engine>) -> Self {
        let max_running = config.limits.max_concurrency;
        let running = max_running.unwrap_or_else(|| engine.usual_concurrency());
        let admission = Admission::new(running, config.limits.max_queue);
        let rules = RequestPolicy {
            models: config.models.clone(),
            limits: config.limits.clone(),
            sandbox: config.codex.sandbox,
            search: config.codex.search,
            profile: config.codex.profile,
        };
        Self {
            engine,
            rules,
            admission,
            max_running,
            strip_answer_tags: config.codex.strip_answer_tags,
            demo: config.codex.scripted_upstream.is_some(),
            present: TaskTracker::new(),
            stop: CancellationToken::new(),
            draining: CancellationToken::new(),
        }
    }

    /// The engine may be another one by now, and want another number of turns.
    fn resize(&self) {
        if self.max_running.is_none() {
            self.admission.resize(self.engine.usual_concurrency());
        }
    }

    /// Says no to new requests from now on, those that wait for a slot included.
    pub fn begin_drain(&self) {
        self.draining.cancel();
        self.admission.close();
        self.present.close();
    }

    /// Waits for the turns that run, `grace` at most, then ends the rest; returns when nothing of them is left.
    pub async fn drain(&self, grace: Duration) {
        self.begin_drain();
        if tokio::time::timeout(grace, self.present.wait()).await.is_err() {
            tracing::warn!(turns = self.present.len(), "the time to drain is over: turns are interrupted");
        }
        self.stop.cancel();
        self.engine.drain().await;
    }

    /// Checks, admits and starts a request; the stream of a request that could not start is an error of the call.
    async fn start(&self, request: Request<pb::ChatRequest>) -> Result<EventStream, Error> {
        let (metadata, mut extensions, request) = request.into_parts();
        let context = extensions.remove().unwrap_or_else(RequestContext::in_process);
        let presence = self.present.token();
        self.resize();
        let parsed = self.rules.validate(request, self.admission.capacity())?;
        self.engine.check(&parsed.turn)?;
        let deadline =
            Deadline::new(context.received_at, self.rules.limits.timeout, &metadata, parsed.timeout)?;
        let mut account = TurnLog::new(chat_id(), parsed.turn.model.clone(), context, parsed.n);
        account.metadata.clone_from(&parsed.metadata);
        let begun = async {
            let tickets = self.admission.enter(parsed.n)?;
            let status = self.engine.status().await;
            account.engine = status.kind;
            if let Some(message) = status.trouble {
                return Err(Error::EngineUnavailable { message });
            }
            let choices = self.choices(&account.id, &parsed, tickets, deadline).await?;
            account.record_slot();
            Ok((choices, self.fingerprint(&status.version)))
        };
        let begun = tokio::select! {
            begun = begun => begun,
            () = self.stop.cancelled() => Err(Error::Draining),
        };
        let (choices, system_fingerprint) = begun.inspect_err(|error| account.fail(error))?;
        let started = pb::Started {
            created_unix_seconds: unix_seconds(),
            model: parsed.requested_model,
            system_fingerprint,
        };
        Ok(StartedRequest { account, deadline, started, choices, stop: self.stop.clone(), presence }.run())
    }

    /// The first choice has its slot and runs; the others take theirs as they come.
    async fn choices(
        &self,
        id: &str,
        parsed: &ValidatedRequest,
        tickets: Vec<QueueTicket>,
        deadline: Deadline,
    ) -> Result<Vec<Choice>, Error> {
        let mut choices = Vec::new();
        for (index, ticket) in tickets.into_iter().enumerate() {
            let mut turn = parsed.turn.clone();
            turn.id = if parsed.n == 1 { id.to_owned() } else { format!("{id}.{index}") };
            turn.deadline = Some(deadline.at());
            let opened = open(Arc::clone(&self.engine), turn, ticket, deadline);
            let events = if index == 0 { opened.await? } else { later(opened, deadline) };
            let events = if parsed.n == 1 { events } else { beside_others(events) };
            let filter = TextFilter::new(self.strip_answer_tags, &parsed.stop, parsed.max_output_tokens);
            choices.push(Choice { events, answer: ChoiceBuilder::new(&parsed.turn, filter) });
        }
        Ok(choices)
    }

    fn fingerprint(&self, version: &str) -> String {
        let demo = if self.demo { "demo-" } else { "" };
        format!("{demo}codex-{version}")
    }
}

/// Waits for a slot and starts the turn.
async fn open(
    engine: Arc<dyn Engine>,
    turn: Turn,
    ticket: QueueTicket,
    deadline: Deadline,
) -> Result<Events, Error> {
    let permit = ticket.slot(deadline.at()).await?;
    timeout_at(deadline.at(), engine.run(turn, TurnGuard::new(permit)))
        .await
        .map_err(|_| deadline.exceeded())?
}

/// A turn that is opened when its events are first asked for.
fn later(opened: impl Future<Output = Result<Events, Error>> + Send + 'static, deadline: Deadline) -> Events {
    Box::pin(stream::once(opened).flat_map(move |opened| match opened {
        Ok(events) => events,
        // Another choice has run by now: who is told to come back later would run its agent again.
        Err(Error::Overloaded { .. }) => Box::pin(stream::iter([Err(deadline.exceeded())])) as Events,
        Err(error) => Box::pin(stream::iter([Err(error)])) as Events,
    }))
}

/// The events of a turn that is not the only one of its request. The engine may find out late that it has no room, and
/// the others run by then.
fn beside_others(events: Events) -> Events {
    let told = |error| {
        if let Error::Overloaded { message, .. } = error {
            return Error::TurnFailed { message: format!("another answer: {message}") };
        }
        error
    };
    Box::pin(events.map(move |event| event.map_err(told)))
}

fn chat_id() -> String {
    format!("chatcmpl-{}", uuid::Uuid::now_v7().simple())
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}

#[tonic::async_trait]
impl CodexService for Service {
    type StreamChatStream = EventStream;

    async fn chat(&self, request: Request<pb::ChatRequest>) -> Result<Response<pb::ChatResponse>, Status> {
        let events = self.start(request).await?;
        Ok(Response::new(collect::response(events).await?))
    }

    async fn stream_chat(&self, request: Request<pb::ChatRequest>) -> Result<Response<EventStream>, Status> {
        Ok(Response::new(self.start(request).await?))
    }

    async fn list_models(
        &self,
        _request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let known = self.engine.models().await;
        let models = models::list(&self.rules.models, &known, &self.engine.profiles());
        Ok(Response::new(pb::ListModelsResponse { models }))
    }

    async fn get_status(
        &self,
        _request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let engine = self.engine.status().await;
        self.resize();
        let draining = self.draining.is_cancelled();
        let reason = if draining { Some(Error::Draining.to_string()) } else { engine.trouble };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (load, limits) = (self.admission.load(), self.admission.limits());
        Ok(Response::new(pb::GetStatusResponse {
            ready: reason.is_none(),
            reason: reason.unwrap_or_default(),
            draining,
            demo: self.demo,
            engine: engine.kind.to_owned(),
            codex_version: engine.version,
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            running_turns: count(load.running),
            waiting_turns: count(load.waiting),
            max_running_turns: count(limits.running),
            max_waiting_turns: count(limits.waiting),
        }))
    }
}
