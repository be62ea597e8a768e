//! The context of a request, which its door passes to the core.

pub mod body_budget;
pub mod deadline;
pub mod peer;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

/// Header with the id of a request, in both directions. The access log sets it before a door reads it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Facts about a request before its body is read. Each door creates one context per request, in its authentication
/// middleware, and passes it to the core in the extensions of the `tonic::Request`.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The authentication of the caller.
    pub caller: Caller,
    /// The id in logs. Absent where no access log is in front of the door.
    pub request_id: Option<String>,
    /// The address of the peer. Absent where no listener is in front of the door.
    pub peer: Option<IpAddr>,
    /// Time of the request's head. The time limit of the request begins here.
    pub received_at: Instant,
}

/// The authentication of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The request had a valid token.
    TokenHolder,
    /// The server has no token, so every request that reaches it is accepted.
    Anonymous,
    /// The request is a call inside of this process and came through no door.
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
    /// Describes a request whose head a door has read at `received_at`.
    pub fn new(caller: Caller, headers: &HeaderMap, peer: Option<IpAddr>, received_at: Instant) -> Self {
        let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        Self { caller, request_id, peer, received_at }
    }

    /// Describes a call inside of this process, received now.
    pub fn in_process() -> Self {
        Self { caller: Caller::InProcess, request_id: None, peer: None, received_at: Instant::now() }
    }
}

/// Returns `true` if a request is a gRPC call, by its content type. gRPC-Web is another protocol.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    let rest = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';' | b' ', ..]))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn request_context_with_an_unprintable_id_has_none() {
        let id = |value: HeaderValue| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, value)]);
            RequestContext::new(Caller::Anonymous, &headers, None, Instant::now()).request_id
        };
        assert_eq!(id(HeaderValue::from_static("r-1")).as_deref(), Some("r-1"));
        assert_eq!(id(HeaderValue::from_bytes(b"\xff").unwrap()), None);
    }
}
