//! What a request carries from its door to the core.

pub mod deadline;

use http::HeaderMap;
use tokio::time::Instant;

/// Header of the request's id. The access log sets it before a door reads it.
const REQUEST_ID: &str = "x-request-id";

/// Facts about a request that its door knows before it reads the body. Each door makes it once, in its authentication
/// middleware, and passes it to the core in the extensions of the `tonic::Request`.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// How the caller was authenticated.
    pub caller: Caller,
    /// Names the request in logs. Absent where no access log is in front of the door.
    pub request_id: Option<String>,
    /// When the door had read the head. The time limit of the request begins here.
    pub received_at: Instant,
}

/// How a caller was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The request had a valid token.
    TokenHolder,
    /// The server has no token, so every request that reaches it is accepted.
    Anonymous,
    /// The request came through no door: a call inside of this process.
    InProcess,
}

impl Caller {
    /// Returns the value of the log field `caller`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokenHolder => "token",
            Self::Anonymous => "anonymous",
            Self::InProcess => "in-process",
        }
    }
}

impl RequestContext {
    /// Describes a request whose head a door has just read.
    pub fn new(caller: Caller, headers: &HeaderMap) -> Self {
        let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        Self { caller, request_id, received_at: Instant::now() }
    }

    /// Describes a call inside of this process, received now.
    pub fn in_process() -> Self {
        Self { caller: Caller::InProcess, request_id: None, received_at: Instant::now() }
    }
}

/// Returns `true` if a request is a gRPC call, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn request_context_request_id_is_kept_only_if_it_is_text() {
        let id = |value: HeaderValue| {
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(REQUEST_ID), value)]);
            RequestContext::new(Caller::Anonymous, &headers).request_id
        };
        assert_eq!(id(HeaderValue::from_static("r-1")).as_deref(), Some("r-1"));
        assert_eq!(id(HeaderValue::from_bytes(b"\xff").unwrap()), None);
    }
}
