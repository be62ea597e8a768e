//! The gRPC door: the contract, health and reflection as routes, behind the same gate as the HTTP door.
//! What a request means is the service's business.

pub mod codec;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tonic::{Code, Status, service::Routes};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};
use tower::{ServiceBuilder, util::MapRequestLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;

use super::{
    auth::Authenticator,
    config::ServerConfig,
    context::RequestContext,
    error::Error,
    pb::{
        self,
        codex_service_server::{CodexService, CodexServiceServer, SERVICE_NAME},
    },
};

/// Names that health is asked of: the whole server, and the one service.
const HEALTH_NAMES: &[&str] = &["", SERVICE_NAME];

/// Paths that need no token: whoever asks them is a load balancer.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";

/// The routes, and the handle that says whether the server is healthy.
pub fn routes<S: CodexService>(
    service: Arc<S>,
    doors: &ServerConfig,
    gate: Arc<Authenticator>,
) -> Result<(Router, Health), Error> {
    let contract = CodexServiceServer::from_arc(service).max_decoding_message_size(doors.max_body_bytes);
    let (reporter, health) = health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(contract)
        .add_service(health)
        .add_service(reflection().build_v1().map_err(Error::internal)?)
        // Older clients (grpcurl before 1.8.9, Python's reflection package) ask this one only.
        .add_service(reflection().build_v1alpha().map_err(Error::internal)?);
    let patience = ServiceBuilder::new()
        .layer(RequestBodyTimeoutLayer::new(doors.body_timeout))
        .layer(MapRequestLayer::new(|request: Request<_>| request.map(Body::new)));
    let router = routes
        .routes()
        .prepare()
        .into_axum_router()
        .reset_fallback()
        .layer(patience)
        .layer(middleware::from_fn_with_state(gate, guard));
    Ok((router, Health(reporter)))
}

/// Whether a request means to be a gRPC call, so that a refusal should be one too.
pub fn is_call<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a method that no service has.
pub fn unknown_method() -> Response {
    Status::unimplemented("there is no such method on this server").into_http()
}

/// Says to load balancers whether to send requests here.
#[derive(Debug, Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Sets the health of all names.
    pub async fn set(&self, healthy: bool) {
        let status = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in HEALTH_NAMES {
            self.0.set_service_status(*name, status).await;
        }
    }
}

/// Lets in gRPC calls of callers whom the gate lets in.
async fn guard(State(gate): State<Arc<Authenticator>>, mut request: Request, next: Next) -> Response {
    if let Some(refusal) = not_a_call(&request) {
        return refusal;
    }
    if !request.uri().path().starts_with(HEALTH_PATH) {
        match gate.check(request.headers(), request.uri()) {
            Ok(caller) => {
                let context = RequestContext::new(caller, request.headers());
                request.extensions_mut().insert(context);
            }
            Err(error) => return Status::from(error).into_http(),
        }
    }
    in_our_words(next.run(request).await)
}

/// What tonic cannot read it refuses in words of its own: as our fault, and without the details that every failure
/// of the contract has. Such a status is all there is of the response.
fn in_our_words(response: Response) -> Response {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let too_large = status.code() == Code::OutOfRange;
    // What is ours has details, also where it is our fault.
    let garbled = status.code() == Code::Internal;
    if !(too_large || garbled) || !status.details().is_empty() {
        return response;
    }
    let hint = if too_large { " (CODEX_MAX_BODY_BYTES)" } else { "" };
    // Of the message as a whole: no field has a name.
    Status::from(Error::invalid("", format!("{}{hint}", status.message()))).into_http()
}

/// What tonic would answer with a status in trailers that such a client cannot read.
fn not_a_call(request: &Request) -> Option<Response> {
    if request.method() != Method::POST {
        return Some(([(header::ALLOW, "POST")], StatusCode::METHOD_NOT_ALLOWED).into_response());
    }
    if !is_call(request) {
        return Some(
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this path takes application/grpc\n").into_response(),
        );
    }
    if request.version() != Version::HTTP_2 {
        return Some((StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n").into_response());
    }
    None
}
