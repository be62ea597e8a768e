//! The gRPC door: contract, health and reflection as routes, behind the same authentication as the HTTP door. The
//! service handles the requests.

mod body_deadline;
pub mod codec;
mod compression;
mod health;
mod request_body;
mod wire_counts;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::time::Instant;
use tonic::{Code, Status, codec::CompressionEncoding, service::Routes};
use tower::{ServiceBuilder, util::MapRequestLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;

pub use self::health::Health;
use self::request_body::MessageLimits;
use super::{
    auth::Authenticator,
    config::ServerConfig,
    context::{RequestContext, body_budget::BodyBudget, is_grpc, peer::peer_of},
    error::Error,
    pb::{
        self,
        codex_service_server::{CodexService, CodexServiceServer},
        responses_service_server::{ResponsesService, ResponsesServiceServer},
    },
};

/// Path without authentication, because load balancers call it.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";

/// Returns the routes and the handle of the health service.
pub fn routes<S: CodexService + ResponsesService>(
    service: Arc<S>,
    config: &ServerConfig,
    authenticator: Arc<Authenticator>,
    budget: &BodyBudget,
) -> Result<(Router, Health), Error> {
    let mut contract =
        CodexServiceServer::from_arc(Arc::clone(&service)).max_decoding_message_size(config.max_body_bytes);
    let mut responses =
        ResponsesServiceServer::from_arc(service).max_decoding_message_size(config.max_body_bytes);
    // `request_body` decompresses the messages; tonic refuses other encodings and names these. A response is compressed if
    // the client accepts it.
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd] {
        contract = contract.accept_compressed(encoding).send_compressed(encoding);
        responses = responses.accept_compressed(encoding).send_compressed(encoding);
    }
    let (handle, health) = Health::new();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of errors, which clients resolve by name.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(contract)
        .add_service(responses)
        .add_service(health)
        .add_service(reflection().build_v1().map_err(Error::internal)?)
        // Older clients (grpcurl before 1.8.9, Python's reflection package) support only this version.
        .add_service(reflection().build_v1alpha().map_err(Error::internal)?);
    let limits =
        MessageLimits { max_bytes: config.max_body_bytes, lists: config.lists, budget: budget.clone() };
    let body_layers = ServiceBuilder::new()
        .layer(RequestBodyTimeoutLayer::new(config.body_timeout))
        .layer(MapRequestLayer::new(|request: Request<_>| request.map(Body::new)));
    let router = routes
        .routes()
        .prepare()
        .into_axum_router()
        .reset_fallback()
        .layer(middleware::from_fn_with_state(limits, request_body::read))
        .layer(body_layers)
        .layer(middleware::from_fn_with_state(config.request_timeout, body_deadline::limit))
        .layer(middleware::from_fn_with_state(authenticator, authenticate));
    Ok((router, handle))
}

/// Returns `true` if a request is a gRPC call, so that it gets a gRPC status.
pub fn is_call<B>(request: &Request<B>) -> bool {
    is_grpc(request.headers())
}

/// Returns the response to an unknown method.
pub fn unknown_method() -> Response {
    Status::unimplemented("unknown method").into_http()
}

/// Authenticates gRPC calls and adds their request context.
async fn authenticate(
    State(authenticator): State<Arc<Authenticator>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(refusal) = refuse_non_call(&request) {
        return refusal;
    }
    if !request.uri().path().starts_with(HEALTH_PATH) {
        let (peer, received_at) = (peer_of(request.extensions()), Instant::now());
        match authenticator.admit(request.headers(), request.uri(), peer).await {
            Ok(caller) => {
                let context = RequestContext::new(caller, request.headers(), peer, received_at);
                request.extensions_mut().insert(context);
            }
            Err(error) => return Status::from(error).into_http(),
        }
    }
    rewrite_codec_error(next.run(request).await)
}

/// Rewrites tonic's own errors for messages that it cannot decode. tonic returns INTERNAL or OUT_OF_RANGE without
/// details; the contract promises INVALID_ARGUMENT with details. tonic offers no hook before its codec.
fn rewrite_codec_error(response: Response) -> Response {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let too_large = status.code() == Code::OutOfRange;
    // The server's own errors have details, including INTERNAL.
    let is_undecodable = status.code() == Code::Internal;
    if !(too_large || is_undecodable) || !status.details().is_empty() {
        return response;
    }
    let hint = if too_large { " (CODEX_MAX_BODY_BYTES)" } else { "" };
    // The error is about the whole message, so it names no field.
    Status::from(Error::invalid("", format!("{}{hint}", status.message()))).into_http()
}

/// Returns a plain HTTP response to a request that is no gRPC call. tonic would send trailers, which such a client
/// cannot read.
fn refuse_non_call(request: &Request) -> Option<Response> {
    if request.method() != Method::POST {
        return Some(([(header::ALLOW, "POST")], StatusCode::METHOD_NOT_ALLOWED).into_response());
    }
    if !is_call(request) {
        return Some(
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this path requires `content-type: application/grpc`\n")
                .into_response(),
        );
    }
    if request.version() != Version::HTTP_2 {
        return Some((StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC requires HTTP/2\n").into_response());
    }
    None
}
