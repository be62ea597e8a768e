//! The core: implements the generated `CodexService` for both doors, with validation, admission, deadline,
//! cancellation, policy and the log line of each request.

mod admission;
mod choice;
mod choice_stream;
mod collect;
mod event_stream;
mod json_answer;
mod models;
mod output_filter;
mod responses;
mod turn_log;
mod upstream_health;
mod usage_estimate;
mod validate;

use std::{
    sync::{Arc, Once},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prost::Message;
use tokio::{
    task::spawn_blocking,
    time::{timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use self::{
    admission::{Admission, QueueTicket},
    choice::ChoiceBuilder,
    choice_stream::{ChoiceStream, TurnStarter},
    event_stream::{AdmittedRequest, EventStream},
    json_answer::AnswerPlan,
    output_filter::TextFilter,
    turn_log::TurnLog,
    upstream_health::UpstreamHealth,
    usage_estimate::UsageEstimate,
    validate::{RequestPolicy, ValidatedRequest},
};
use super::{
    config::Config,
    context::{RequestContext, body_budget::HeldBody, deadline::Deadline},
    engine::{AccountLimits, ContentGuard, Continuation, Engine, ModelCatalog, ThreadCounts, Turn},
    error::Error,
    pb::{self, codex_service_server::CodexService},
};

/// Maximum time that a list of models waits for the CLI. The list then lacks what the CLI has not told yet.
const LIST_WAIT: Duration = Duration::from_secs(1);
/// Maximum number of further turns for an answer that is not of the demanded format.
const MAX_REPEATS: u32 = 2;

/// Size of a request that is validated on a thread of the runtime, in bytes.
const MAX_INLINE_BYTES: usize = 256 << 10;

/// The service behind both doors. Shared by them in an `Arc`.
#[derive(Debug)]
pub struct Service {
    engine: Arc<dyn Engine>,
    policy: Arc<RequestPolicy>,
    admission: Admission,
    /// The operator's limit of concurrent turns. `None` selects the limit of the engine.
    max_running: Option<usize>,
    strip_answer_tags: bool,
    /// Maximum length of a cause in the log, in characters.
    max_cause_chars: usize,
    /// How often the turn of a whole answer may start again.
    upstream_retries: u32,
    /// Silence after which a stream yields a heartbeat.
    heartbeat: Option<Duration>,
    demo: bool,
    upstream: Arc<UpstreamHealth>,
    /// Counts the running requests, for the drain.
    requests: TaskTracker,
    /// Cancelled when the grace of the drain has expired.
    interrupt: CancellationToken,
    /// Cancelled when the server begins to leave: with the lame duck, or with the drain.
    leaving: CancellationToken,
    /// Limits the log to one line about the alias of the default model.
    alias_logged: Once,
    /// Start of the server, in seconds since 1970.
    started_at: i64,
}

impl Service {
    /// Builds the service for an engine.
    pub fn new(config: &Config, engine: Arc<dyn Engine>) -> Self {
        let max_running = config.limits.max_concurrency;
        let running = max_running.unwrap_or_else(|| engine.usual_concurrency());
        let admission = Admission::new(running, config.limits.max_queue);
        let policy = Arc::new(RequestPolicy {
            models: config.models.clone(),
            limits: config.limits.clone(),
            sandbox: config.codex.sandbox,
            search: config.codex.search,
            profile: config.codex.profile,
        });
        Self {
            engine,
            policy,
            admission,
            max_running,
            strip_answer_tags: config.codex.strip_answer_tags,
            max_cause_chars: config.log.max_chars,
            upstream_retries: config.codex.upstream_retries,
            heartbeat: config.server.stream_heartbeat,
            demo: config.codex.scripted_upstream.is_some(),
            upstream: Arc::default(),
            requests: TaskTracker::new(),
            interrupt: CancellationToken::new(),
            leaving: CancellationToken::new(),
            alias_logged: Once::new(),
            started_at: unix_seconds(),
        }
    }

    /// Applies the engine's concurrency, which changes with the installed CLI.
    fn resize(&self) {
        if self.max_running.is_none() {
            self.admission.resize(self.engine.usual_concurrency());
        }
    }

    /// Reports not ready from now on.
    pub fn begin_lame_duck(&self) {
        self.leaving.cancel();
    }

    /// Refuses new requests from now on, and requests that wait for a slot.
    pub fn begin_drain(&self) {
        self.leaving.cancel();
        self.admission.close();
        self.requests.close();
    }

    /// Returns the models that the CLI knows.
    async fn model_catalog(&self) -> Option<Arc<ModelCatalog>> {
        let catalog = self.engine.model_catalog().await?;
        let model = &self.policy.models.default;
        if let Some(target) = catalog.alias_of_default(&self.policy.models) {
            self.alias_logged.call_once(|| {
                tracing::info!(model, target, "Codex lacks the default model; its own replaces it");
            });
        }
        Some(catalog)
    }

    /// Waits for running turns up to `grace`, then interrupts the rest. Completes when no turn is left.
    pub async fn drain(&self, grace: Duration) {
        self.begin_drain();
        if timeout(grace, self.requests.wait()).await.is_err() {
            tracing::warn!(turns = self.requests.len(), "drain grace expired; interrupting turns");
        }
        self.interrupt.cancel();
        self.engine.drain().await;
    }

    /// Validates and admits a request, whose response has this id. Returns an error if no turn can run. The turns start while the stream is polled, so
    /// that a request that waits for a slot already has its stream.
    async fn admit(
        &self,
        request: Request<pb::ChatRequest>,
        id: String,
        delivery: Delivery,
    ) -> Result<EventStream, Error> {
        let (metadata, mut extensions, request) = request.into_parts();
        let context = extensions.remove().unwrap_or_else(RequestContext::in_process);
        let drain_token = self.requests.token();
        self.resize();
        let limit = self.policy.limits.timeout;
        let requested = validate::timeout(request.timeout)?;
        // The deadline is around everything that may wait for the CLI.
        let deadline = Deadline::new(context.received_at, limit, &metadata, requested)?;
        let catalog = match self.policy.needs_catalog(&request) {
            true => timeout_at(deadline.at(), async {
                self.engine.prepare().await;
                self.model_catalog().await
            })
            .await
            .map_err(|_| deadline.exceeded())?,
            false => None,
        };
        let mut request = self.validate(request, catalog).await?;
        if let Some(permit) = extensions.remove::<HeldBody>().and_then(|held| held.take()) {
            request.turn.content = ContentGuard::new(permit);
        }
        let user = std::mem::take(&mut request.turn.caller);
        request.turn.caller = format!("{}\n{user}", context.caller.as_str());
        self.engine.check(&request.turn)?;
        let mut log = TurnLog::new(id, request.turn.model.clone(), context, request.n);
        log.max_cause_chars = self.max_cause_chars;
        log.upstream = Arc::clone(&self.upstream);
        log.metadata = request.metadata;
        let effects = request.turn.effects.clone();
        let choices = ChoiceRequest {
            turn: request.turn,
            stop: request.stop,
            max_output_tokens: request.max_output_tokens,
            separate_messages: request.separate_messages,
            deadline,
            restarts: match delivery {
                Delivery::Stream => 0,
                Delivery::Whole => self.upstream_retries,
            },
            is_whole: matches!(delivery, Delivery::Whole),
        };
        let admit = async {
            let tickets = self.admission.enter(request.n)?;
            let status = timeout_at(deadline.at(), async {
                self.engine.prepare().await;
                self.engine.status().await
            });
            let status = status.await.map_err(|_| deadline.exceeded())?;
            log.engine = status.kind;
            if let Some(message) = status.unavailable_reason {
                return Err(Error::EngineUnavailable { message });
            }
            Ok((tickets, self.fingerprint(&status.version)))
        };
        let admitted = tokio::select! {
            admitted = admit => admitted,
            () = self.interrupt.cancelled() => Err(Error::Draining),
        };
        let (tickets, system_fingerprint) = admitted.inspect_err(|error| log.fail(error))?;
        let choices = self.queue_choices(&log.id, choices, tickets).await;
        let choices = choices.inspect_err(|error| log.fail(error))?;
        let started = pb::Started {
            created_unix_seconds: unix_seconds(),
            model: request.requested_model,
            system_fingerprint,
            thread: pb::ThreadOrigin::Unspecified.into(),
        };
        let interrupt = self.interrupt.clone();
        let is_streamed = matches!(delivery, Delivery::Stream);
        let heartbeat = self.heartbeat.filter(|_| is_streamed);
        let request = AdmittedRequest {
            log,
            deadline,
            started,
            choices,
            effects,
            heartbeat,
            is_streamed,
            interrupt,
            drain_token,
        };
        Ok(request.into_stream())
    }

    /// Validates a request. A large one is validated on the blocking pool, because all streams share the runtime's threads.
    async fn validate(
        &self,
        request: pb::ChatRequest,
        catalog: Option<Arc<ModelCatalog>>,
    ) -> Result<ValidatedRequest, Error> {
        let (policy, capacity) = (Arc::clone(&self.policy), self.admission.capacity());
        let is_large = request.encoded_len() > MAX_INLINE_BYTES;
        let validate = move || policy.validate(request, capacity, catalog.as_deref());
        if is_large { spawn_blocking(validate).await.map_err(Error::internal)? } else { validate() }
    }

    /// Returns the choices, which wait for their slots.
    async fn queue_choices(
        &self,
        id: &str,
        request: ChoiceRequest,
        tickets: Vec<QueueTicket>,
    ) -> Result<Vec<ChoiceStream>, Error> {
        let ChoiceRequest {
            mut turn,
            stop,
            max_output_tokens,
            separate_messages,
            deadline,
            restarts,
            is_whole,
        } = request;
        turn.deadline = Some(deadline.at());
        let mut plan =
            timeout_at(deadline.at(), AnswerPlan::of(&mut turn)).await.map_err(|_| deadline.exceeded())??;
        if is_whole {
            plan.set_whole();
        }
        let count = tickets.len();
        let estimate = UsageEstimate::new(&turn);
        let mut choices = Vec::with_capacity(count);
        for (index, ticket) in tickets.into_iter().enumerate() {
            let (strip, stop, plan) = (self.strip_answer_tags, stop.clone(), plan.clone());
            let repeats = if plan.may_refuse() { MAX_REPEATS } else { 0 };
            let builder = Box::new(move |turn: &Turn| {
                let filter = TextFilter::new(strip, &stop, max_output_tokens);
                ChoiceBuilder::new(turn, plan.clone(), filter).separating_messages(separate_messages)
            });
            let is_last = index + 1 == count;
            let mut turn = if is_last { std::mem::take(&mut turn) } else { turn.clone() };
            turn.continuation = Continuation::default();
            turn.id = if count == 1 { id.to_owned() } else { format!("{id}.{index}") };
            let starter = TurnStarter {
                engine: Arc::clone(&self.engine),
                turn,
                deadline,
                is_first: index == 0,
                restarts,
                repeats,
                builder,
                estimate: estimate.clone(),
                permit: None,
            };
            choices.push(ChoiceStream::queued(ticket.slot(deadline.at()), starter, count > 1));
        }
        Ok(choices)
    }

    fn fingerprint(&self, version: &str) -> String {
        let demo = if self.demo { "demo-" } else { "" };
        format!("{demo}codex-{version}")
    }
}

/// The part of a validated request that its choices need.
struct ChoiceRequest {
    turn: Turn,
    stop: Vec<String>,
    max_output_tokens: Option<u32>,
    separate_messages: bool,
    deadline: Deadline,
    /// How often a turn may start again.
    restarts: u32,
    /// The caller gets the answer as a whole.
    is_whole: bool,
}

/// How the caller gets the answer.
#[derive(Debug, Clone, Copy)]
enum Delivery {
    /// Event by event.
    Stream,
    /// As a whole, so that the caller has seen nothing of a response that breaks off.
    Whole,
}

fn chat_id() -> String {
    format!("chatcmpl-{}", uuid::Uuid::now_v7().simple())
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}

fn threads(counts: &ThreadCounts) -> pb::Threads {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    pb::Threads {
        kept: count(counts.kept),
        parked: count(counts.parked),
        continued_turns: counts.continued,
        forked_turns: counts.forked,
        fresh_turns: counts.fresh,
        evicted: counts.evicted().map(|(reason, count)| (reason.as_str().to_owned(), count)).collect(),
    }
}

fn account_limits(limits: &AccountLimits) -> pb::AccountLimits {
    let windows = limits.windows.iter().map(|window| pb::LimitWindow {
        limit_id: window.limit_id.clone(),
        used_percent: window.used_percent,
        duration: window.duration.and_then(|duration| duration.try_into().ok()),
        resets_at: window.resets_at.map(Into::into),
    });
    pb::AccountLimits {
        plan_type: limits.plan.clone(),
        windows: windows.collect(),
        credits: limits.credits.as_ref().map(|credits| pb::Credits {
            has_credits: credits.has_credits,
            unlimited: credits.unlimited,
            balance: credits.balance.clone(),
        }),
        read_at: Some(limits.read_at.into()),
    }
}

#[tonic::async_trait]
impl CodexService for Service {
    type StreamChatStream = EventStream;

    async fn chat(
        &self,
        mut request: Request<pb::ChatRequest>,
    ) -> Result<Response<pb::ChatResponse>, Status> {
        request.get_mut().separate_messages = false;
        let events = self.admit(request, chat_id(), Delivery::Whole).await?;
        Ok(Response::new(collect::collect(events).await?))
    }

    async fn stream_chat(&self, request: Request<pb::ChatRequest>) -> Result<Response<EventStream>, Status> {
        Ok(Response::new(self.admit(request, chat_id(), Delivery::Stream).await?))
    }

    async fn list_models(
        &self,
        _request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let (cli_models, catalog) =
            tokio::join!(timeout(LIST_WAIT, self.engine.models()), timeout(LIST_WAIT, self.model_catalog()));
        let (cli_models, catalog) = (cli_models.unwrap_or_default(), catalog.unwrap_or_default());
        let models = &self.policy.models;
        let profiles = self.engine.profiles();
        let models = models::list(models, &cli_models, catalog.as_deref(), &profiles, self.started_at);
        Ok(Response::new(pb::ListModelsResponse { models }))
    }

    async fn get_status(
        &self,
        _request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let engine = self.engine.status().await;
        self.resize();
        let draining = self.leaving.is_cancelled();
        let reason = if draining { Some(Error::Draining.to_string()) } else { engine.unavailable_reason };
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
            warnings: engine
                .degraded_reason
                .into_iter()
                .chain(self.upstream.warning(Instant::now()))
                .collect(),
            account_limits: engine.account.as_deref().map(account_limits),
            threads: engine.threads.as_ref().map(threads),
        }))
    }
}
