//! The OpenAI facade: the generated service trait as the OpenAI HTTP API. This file has all routes and layers.
//! Validation, admission and deadlines are behind the trait.

mod chat;
mod completions;
mod counted;
mod error;
mod extract;
mod field_names;
mod forms;
mod health;
mod index;
mod json_body;
mod models;
mod paths;
mod responses;
mod sse;
mod sse_stream;
mod status;
mod stream_headers;

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, Method, Uri, header};
use tokio::time::Instant;
use tonic::Status;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

pub use self::paths::normalize;

use self::error::{ApiError, SHOULD_RETRY};
use self::extract::BodyLimits;
use self::field_names::FieldNames;
use super::{
    auth::Authenticator,
    config::{KeepAliveForm, ServerConfig},
    context::{REQUEST_ID, RequestContext, body_budget::BodyBudget, peer::peer_of},
    error::Error,
    pb::{ThreadOrigin, codex_service_server::CodexService, responses_service_server::ResponsesService},
};

/// Header with the parameters of a request that had no effect.
const IGNORED_PARAMS: HeaderName = HeaderName::from_static("x-codex-ignored-params");

/// Header with the thread of Codex that the turn runs on: `continued`, `forked` or `fresh`.
const THREAD: HeaderName = HeaderName::from_static("x-codex-thread");

/// Returns every route of the facade over `service`, with its layers.
///
/// Other paths are left to the caller, which merges the gRPC routes and falls back to [`not_found`].
pub fn router<S: CodexService + ResponsesService>(
    service: Arc<S>,
    config: &ServerConfig,
    authenticator: Arc<Authenticator>,
    budget: &BodyBudget,
) -> Router {
    let facade = Facade {
        service,
        body_limits: BodyLimits {
            max_bytes: config.max_body_bytes,
            pause: config.body_timeout,
            request: config.request_timeout,
            lists: config.lists,
            budget: budget.clone(),
        },
        keep_alive: config.sse_keepalive,
        keep_alive_form: config.sse_keepalive_form,
        json_keep_alive: config.json_keepalive,
    };
    let authenticated = Router::new()
        .route("/v1/chat/completions", post(chat::complete::<S>))
        .route("/v1/completions", post(completions::complete::<S>))
        .route("/v1/responses", post(responses::create::<S>))
        .route("/v1/models", get(models::list::<S>))
        .route("/v1/models/{*id}", get(models::retrieve::<S>))
        .route("/v1/codex/status", get(status::show::<S>))
        .route_layer(middleware::from_fn_with_state(authenticator, authenticate));
    let routes = Router::new()
        .route("/", get(index::show))
        .route("/healthz", get(health::show::<S>))
        .merge(authenticated)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(facade);
    match cors(config) {
        // Outermost, because a browser's preflight has no token.
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// Returns the response to an unknown path.
pub fn not_found(method: &Method, uri: &Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    let routes = index::endpoints();
    ApiError::unknown_url(format!("this server has no route {method} {path}; it has {routes}"))
        .into_response()
}

/// Renders a status as an OpenAI error response, for layers around the facade.
pub fn refusal(status: &Status) -> Response {
    ApiError::from_status(status, &FieldNames::default()).into_response()
}

/// Renders a status as the last frame of an SSE stream, for layers around the facade.
pub fn refusal_event(status: &Status) -> Bytes {
    let mut out = BytesMut::new();
    sse::write_event(&mut out, &ApiError::from_status(status, &FieldNames::default()).body());
    out.freeze()
}

/// The state of every handler.
struct Facade<S> {
    service: Arc<S>,
    body_limits: BodyLimits,
    keep_alive: Option<Duration>,
    keep_alive_form: KeepAliveForm,
    json_keep_alive: Option<Duration>,
}

impl<S> Clone for Facade<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            body_limits: self.body_limits.clone(),
            keep_alive: self.keep_alive,
            keep_alive_form: self.keep_alive_form,
            json_keep_alive: self.json_keep_alive,
        }
    }
}

impl<S> fmt::Debug for Facade<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facade").field("body_limits", &self.body_limits).finish_non_exhaustive()
    }
}

/// Authenticates requests and adds their context.
async fn authenticate(
    State(authenticator): State<Arc<Authenticator>>,
    mut request: Request,
    next: Next,
) -> Response {
    let (peer, received_at) = (peer_of(request.extensions()), Instant::now());
    match authenticator.admit(request.headers(), request.uri(), peer).await {
        Ok(caller) => {
            let context = RequestContext::new(caller, request.headers(), peer, received_at);
            request.extensions_mut().insert(context);
            next.run(request).await
        }
        Err(error) => refusal(&Status::from(error)),
    }
}

/// Returns the response to an unsupported method. axum adds `Allow`.
async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::method_not_allowed(format!("{path} does not support {method}")).into_response()
}

/// Adds the header with the names of the parameters without effect, if there are any.
fn with_ignored(mut response: Response, names: &[String]) -> Response {
    let names = names.join(", ");
    if let Some(value) = HeaderValue::from_str(&names).ok().filter(|_| !names.is_empty()) {
        response.headers_mut().insert(IGNORED_PARAMS, value);
    }
    response
}

/// Returns the first event of a stream. The head of a response waits for it, so that an earlier failure is an HTTP status.
async fn first_event<T>(events: &mut (impl Stream<Item = Result<T, Status>> + Unpin)) -> Result<T, Status> {
    let ended = || Err(Error::internal("the stream of events ended without an event").into());
    events.next().await.unwrap_or_else(ended)
}

/// Adds the header with the thread of the turn, if it is known.
fn with_thread(mut response: Response, thread: ThreadOrigin) -> Response {
    let name = match thread {
        ThreadOrigin::Unspecified => return response,
        ThreadOrigin::Fresh => "fresh",
        ThreadOrigin::Forked => "forked",
        ThreadOrigin::Continued => "continued",
    };
    response.headers_mut().insert(THREAD, HeaderValue::from_static(name));
    response
}

/// Returns the CORS layer for the configured origins, `None` without origins.
fn cors(config: &ServerConfig) -> Option<CorsLayer> {
    let origins = &config.cors_origins;
    let origin = match origins.as_slice() {
        [] => return None,
        any if any.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        listed => AllowOrigin::list(
            listed.iter().filter_map(|o| HeaderValue::from_str(o.trim_end_matches('/')).ok()),
        ),
    };
    Some(
        CorsLayer::new()
            .allow_origin(origin)
            .allow_methods([Method::GET, Method::POST])
            // SDKs add headers of their own (`x-stainless-…`).
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([REQUEST_ID, IGNORED_PARAMS, THREAD, header::RETRY_AFTER, SHOULD_RETRY])
            .max_age(Duration::from_secs(600)),
    )
}

#[cfg(test)]
mod test_service;

#[cfg(test)]
mod tests;
