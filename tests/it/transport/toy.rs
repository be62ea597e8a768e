//! A small service behind the real listener and layers. The test feeds its streams and receives the events of its
//! handlers.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    middleware::{from_fn, from_fn_with_state},
    response::Response,
    routing::{any, get},
};
use codex_api::{
    config::{Config, ServerConfig, Sources},
    pb::{self, codex_service_server as server},
    transport::{self, access_log as access, catch_panic as panics},
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

/// The time limit of every wait.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits for a future; panics after [`TIMEOUT`].
pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, work).await.expect("the work completes in time")
}

/// The life cycle of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerEvent {
    Opened,
    Dropped,
}

/// Sends `Dropped` when the handler is dropped.
struct Guard(mpsc::Sender<HandlerEvent>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.try_send(HandlerEvent::Dropped);
    }
}

#[derive(Clone)]
struct Toy {
    events: mpsc::Sender<HandlerEvent>,
    feed: Arc<Mutex<Vec<mpsc::Receiver<&'static str>>>>,
}

impl Toy {
    /// Sends `Opened` and returns the guard that sends `Dropped`.
    fn guard(&self) -> Guard {
        self.events.try_send(HandlerEvent::Opened).unwrap();
        Guard(self.events.clone())
    }

    /// Returns a stream of the texts that the test feeds. The text `panic` panics.
    fn fed_texts(&self) -> impl Stream<Item = &'static str> + Send + use<> {
        let guard = self.guard();
        let feed = self.feed.lock().unwrap().pop().expect("one feed for each stream");
        stream::unfold((feed, guard), |(mut feed, guard)| async {
            let text = feed.recv().await?;
            assert_ne!(text, "panic", "midway");
            Some((text, (feed, guard)))
        })
    }

    async fn hang(&self) {
        let _guard = self.guard();
        std::future::pending::<()>().await;
    }

    fn router(self) -> Router {
        let (events, flood, hang) = (self.clone(), self.clone(), self.clone());
        let http = Router::new()
            .route("/hello", any(|| async { "hello" }))
            .route("/peer", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
            .route("/panic", get(|| async { panic!("now") as Response }))
            .route("/hang", any(|| async move { hang.hang().await }))
            .route("/flood", get(|| async move { endless(flood.guard()) }))
            .route("/events", get(|| async move { event_stream(events.fed_texts()) }));
        let grpc = tonic::service::Routes::new(server::CodexServiceServer::new(self));
        http.merge(grpc.prepare().into_axum_router())
            .fallback(|| async { http::StatusCode::NOT_FOUND })
            .layer(from_fn_with_state(
                panics::ErrorRenderer {
                    response: codex_api::http::refusal,
                    event: codex_api::http::refusal_event,
                },
                panics::catch,
            ))
            .layer(from_fn(access::log))
    }
}

fn event_stream(texts: impl Stream<Item = &'static str> + Send + 'static) -> Response {
    let body = Body::from_stream(texts.map(|text| Ok::<_, io::Error>(format!("data: {text}\n\n"))));
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

fn endless(guard: Guard) -> Body {
    let chunk = bytes::Bytes::from(vec![b'x'; 16 * 1024]);
    Body::from_stream(stream::repeat(chunk).map(move |chunk| {
        let _held = &guard;
        Ok::<_, io::Error>(chunk)
    }))
}

#[tonic::async_trait]
impl server::CodexService for Toy {
    type StreamChatStream = Pin<Box<dyn Stream<Item = Result<pb::ChatEvent, Status>> + Send>>;

    /// Returns the request id in the response.
    async fn chat(
        &self,
        request: Request<pb::ChatRequest>,
    ) -> Result<tonic::Response<pb::ChatResponse>, Status> {
        let id = request_id(request.metadata());
        match request.get_ref().model.as_str() {
            "panic" => panic!("now"),
            "hang" => self.hang().await,
            _ => {}
        }
        Ok(tonic::Response::new(pb::ChatResponse { id, ..Default::default() }))
    }

    async fn stream_chat(
        &self,
        _: Request<pb::ChatRequest>,
    ) -> Result<tonic::Response<Self::StreamChatStream>, Status> {
        let events = self.fed_texts().map(|id| Ok(pb::ChatEvent { id: id.to_owned(), ..Default::default() }));
        Ok(tonic::Response::new(events.boxed()))
    }

    async fn list_models(
        &self,
        _: Request<pb::ListModelsRequest>,
    ) -> Result<tonic::Response<pb::ListModelsResponse>, Status> {
        Ok(tonic::Response::new(Default::default()))
    }

    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<tonic::Response<pb::GetStatusResponse>, Status> {
        Ok(tonic::Response::new(Default::default()))
    }
}

pub type Client = pb::codex_service_client::CodexServiceClient<tonic::transport::Channel>;

/// A running server. Dropping it stops the server.
pub struct Server {
    pub addr: SocketAddr,
    pub drain: CancellationToken,
    pub kill: CancellationToken,
    serving: JoinSet<()>,
    events: mpsc::Receiver<HandlerEvent>,
    feed: Arc<Mutex<Vec<mpsc::Receiver<&'static str>>>>,
}

impl Server {
    pub fn start(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = Config::load(Sources::default()).unwrap().server;
        change(&mut config);
        let (sender, events) = mpsc::channel(10_000);
        let toy = Toy { events: sender, feed: Arc::default() };
        let feed = Arc::clone(&toy.feed);
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let listener = transport::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        let tokens = (drain.clone(), kill.clone());
        serving.spawn(
            async move { transport::serve(listener, toy.router(), &config, tokens.0, tokens.1).await },
        );
        Self { addr, drain, kill, serving, events, feed }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Returns the sender for the texts of the next stream. Dropping it ends the stream.
    pub fn feed(&self) -> mpsc::Sender<&'static str> {
        let (sender, receiver) = mpsc::channel(10);
        self.feed.lock().unwrap().push(receiver);
        sender
    }

    /// Waits for the next event of a handler.
    pub async fn next_handler_event(&mut self) -> HandlerEvent {
        in_time(self.events.recv()).await.unwrap()
    }

    /// Returns the events of handlers so far, without waiting.
    pub fn handler_events_so_far(&mut self) -> Vec<HandlerEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    pub async fn client(&self) -> Client {
        let endpoint = tonic::transport::Endpoint::new(self.url("")).unwrap();
        Client::new(in_time(endpoint.connect()).await.unwrap())
    }

    /// Waits until the server has stopped by itself.
    pub async fn wait_until_stopped(&mut self) {
        in_time(self.serving.join_next()).await.unwrap().unwrap();
    }
}

/// Builds a chat request. The model `panic` or `hang` selects the behaviour of the handler.
pub fn chat(model: &str) -> pb::ChatRequest {
    pb::ChatRequest { model: model.to_owned(), ..Default::default() }
}

/// Returns the request id in the metadata.
pub fn request_id(metadata: &tonic::metadata::MetadataMap) -> String {
    metadata.get("x-request-id").unwrap().to_str().unwrap().to_owned()
}
