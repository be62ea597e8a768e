//! A scripted service for the tests of the facade, which returns prepared results and records its requests.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use http::{Request, Response, StatusCode, header};
use tonic::Status;
use tower::ServiceExt;

use crate::{
    auth::Authenticator,
    config::{Config, ServerConfig, Sources},
    context::{Caller, RequestContext, body_budget::BodyBudget},
    pb::{
        self, chat_event::Event, codex_service_server::CodexService,
        responses_service_server::ResponsesService,
    },
};

type Events = BoxStream<'static, Result<pb::ChatEvent, Status>>;
type ResponseEvents = BoxStream<'static, Result<pb::ResponseEvent, Status>>;

/// The scripted service.
#[derive(Default)]
pub(in crate::http) struct TestService {
    answer: Mutex<Option<Result<pb::ChatResponse, Status>>>,
    events: Mutex<Option<Result<Events, Status>>>,
    response: Mutex<Option<Result<pb::Response, Status>>>,
    response_events: Mutex<Option<Result<ResponseEvents, Status>>>,
    response_requests: Mutex<Vec<pb::CreateResponseRequest>>,
    models: Vec<pb::Model>,
    status: pb::GetStatusResponse,
    requests: Mutex<Vec<RecordedRequest>>,
}

/// A recorded request.
#[derive(Debug, Clone)]
pub(in crate::http) struct RecordedRequest {
    pub(in crate::http) request: pb::ChatRequest,
    pub(in crate::http) caller: Option<Caller>,
    pub(in crate::http) request_id: Option<String>,
}

impl TestService {
    pub(in crate::http) fn answering(answer: Result<pb::ChatResponse, Status>) -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(Some(answer)), ..Self::default() })
    }

    pub(in crate::http) fn streaming(
        events: impl Stream<Item = Result<pb::ChatEvent, Status>> + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { events: Mutex::new(Some(Ok(events.boxed()))), ..Self::default() })
    }

    /// Returns a service that streams `events` after `started`. An error ends the stream.
    pub(in crate::http) fn scripted(events: Vec<(u32, Result<Event, Status>)>) -> Arc<Self> {
        Self::streaming(stream::iter(framed(events)))
    }

    pub(in crate::http) fn refusing(status: Status) -> Arc<Self> {
        let events = Mutex::new(Some(Err(status.clone())));
        Arc::new(Self { answer: Mutex::new(Some(Err(status))), events, ..Self::default() })
    }

    /// Returns a service that answers with a response, or streams its events.
    pub(in crate::http) fn responding(
        response: Result<pb::Response, Status>,
        events: Vec<Result<pb::ResponseEvent, Status>>,
    ) -> Arc<Self> {
        let events = Mutex::new(Some(Ok(stream::iter(events).boxed())));
        Arc::new(Self { response: Mutex::new(Some(response)), response_events: events, ..Self::default() })
    }

    pub(in crate::http) fn response_requests(&self) -> Vec<pb::CreateResponseRequest> {
        self.response_requests.lock().unwrap().clone()
    }

    pub(in crate::http) fn listing(models: &[&str]) -> Arc<Self> {
        let models = models.iter().map(|id| pb::Model { id: (*id).to_owned(), ..pb::Model::default() });
        Arc::new(Self { models: models.collect(), ..Self::default() })
    }

    pub(in crate::http) fn in_state(status: pb::GetStatusResponse) -> Arc<Self> {
        Arc::new(Self { status, ..Self::default() })
    }

    pub(in crate::http) fn requests(&self) -> Vec<RecordedRequest> {
        self.requests.lock().unwrap().clone()
    }

    fn record(&self, request: tonic::Request<pb::ChatRequest>) {
        let context: Option<&RequestContext> = request.extensions().get();
        let caller = context.map(|context| context.caller);
        let request_id = context.and_then(|context| context.request_id.clone());
        let request = request.into_inner();
        self.requests.lock().unwrap().push(RecordedRequest { request, caller, request_id });
    }
}

/// Returns events in the contract's framing, `started` first.
pub(in crate::http) fn framed(
    events: Vec<(u32, Result<Event, Status>)>,
) -> Vec<Result<pb::ChatEvent, Status>> {
    let started = Event::Started(pb::Started {
        created_unix_seconds: 1_700_000_000,
        model: "alias".into(),
        system_fingerprint: "codex-1.2.3".into(),
        thread: pb::ThreadOrigin::Continued.into(),
    });
    let all = std::iter::once((0, Ok(started))).chain(events);
    let frame = |(number, (choice_index, event)): (usize, (u32, Result<Event, Status>))| {
        event.map(|event| pb::ChatEvent {
            id: "chatcmpl-1".into(),
            sequence_number: number as u64,
            choice_index,
            event: Some(event),
        })
    };
    all.enumerate().map(frame).collect()
}

pub(in crate::http) fn text(text: &str) -> Result<Event, Status> {
    Ok(Event::TextDelta(pb::TextDelta { text: text.into() }))
}

pub(in crate::http) fn finished(reason: pb::FinishReason) -> Result<Event, Status> {
    Ok(Event::ChoiceFinished(pb::ChoiceFinished { finish_reason: reason.into() }))
}

pub(in crate::http) fn completed(usage: Option<pb::Usage>) -> Result<Event, Status> {
    Ok(Event::Completed(pb::Completed { usage, ..pb::Completed::default() }))
}

pub(in crate::http) const USAGE: pb::Usage = pb::Usage {
    input_tokens: 100,
    cached_input_tokens: 64,
    output_tokens: 20,
    reasoning_output_tokens: 12,
    estimated: false,
};

#[tonic::async_trait]
impl CodexService for TestService {
    async fn chat(
        &self,
        request: tonic::Request<pb::ChatRequest>,
    ) -> Result<tonic::Response<pb::ChatResponse>, Status> {
        self.record(request);
        let answer = self.answer.lock().unwrap().take();
        answer.expect("no answer was scripted").map(tonic::Response::new)
    }

    type StreamChatStream = Events;

    async fn stream_chat(
        &self,
        request: tonic::Request<pb::ChatRequest>,
    ) -> Result<tonic::Response<Events>, Status> {
        self.record(request);
        let events = self.events.lock().unwrap().take();
        events.expect("no events were scripted").map(tonic::Response::new)
    }

    async fn list_models(
        &self,
        _: tonic::Request<pb::ListModelsRequest>,
    ) -> Result<tonic::Response<pb::ListModelsResponse>, Status> {
        Ok(tonic::Response::new(pb::ListModelsResponse { models: self.models.clone() }))
    }

    async fn get_status(
        &self,
        _: tonic::Request<pb::GetStatusRequest>,
    ) -> Result<tonic::Response<pb::GetStatusResponse>, Status> {
        Ok(tonic::Response::new(self.status.clone()))
    }
}

#[tonic::async_trait]
impl ResponsesService for TestService {
    type StreamResponseStream = ResponseEvents;

    async fn create_response(
        &self,
        request: tonic::Request<pb::CreateResponseRequest>,
    ) -> Result<tonic::Response<pb::Response>, Status> {
        self.response_requests.lock().unwrap().push(request.into_inner());
        self.response.lock().unwrap().take().unwrap().map(tonic::Response::new)
    }

    async fn stream_response(
        &self,
        request: tonic::Request<pb::CreateResponseRequest>,
    ) -> Result<tonic::Response<ResponseEvents>, Status> {
        self.response_requests.lock().unwrap().push(request.into_inner());
        self.response_events.lock().unwrap().take().unwrap().map(tonic::Response::new)
    }
}

/// Returns the default configuration.
pub(in crate::http) fn config() -> ServerConfig {
    let sources = Sources { current_dir: "/here".into(), ..Sources::default() };
    Config::load(sources).unwrap().server
}

/// Sends one request through the whole router.
pub(in crate::http) async fn send(
    service: &Arc<TestService>,
    config: &ServerConfig,
    request: Request<Body>,
) -> Response<Body> {
    let authenticator = Arc::new(Authenticator::new(config));
    let budget = BodyBudget::new(config.max_body_bytes_total, config.max_body_bytes);
    super::router(Arc::clone(service), config, authenticator, &budget).oneshot(request).await.unwrap()
}

/// Returns a chat request from loopback.
pub(in crate::http) fn chat(body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/chat/completions")
        .header(header::HOST, "localhost:8000")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

/// Returns a request for a response from loopback.
pub(in crate::http) fn response_request(body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/responses")
        .header(header::HOST, "localhost:8000")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

pub(in crate::http) fn get(path: &str) -> Request<Body> {
    Request::get(path).header(header::HOST, "localhost:8000").body(Body::empty()).unwrap()
}

/// Returns the status and the whole body.
pub(in crate::http) async fn read(response: Response<Body>) -> (StatusCode, String) {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (parts.status, String::from_utf8(bytes.to_vec()).unwrap())
}

pub(in crate::http) fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
