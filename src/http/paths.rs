//! The routes of the facade under the paths of misconfigured base URLs: without `/v1`, with it twice, with the path of
//! an endpoint, with additional slashes. The path is rewritten before routing. A redirect would lose the body or the
//! key of most clients.

use axum::extract::Request;
use http::{Uri, uri::PathAndQuery};

use crate::context::is_grpc;

/// The path of chat completions without `/v1`.
const CHAT: [&str; 2] = ["chat", "completions"];

/// Replaces the path of a request by the path of the route that it means. Other paths and gRPC calls are unchanged.
pub fn normalize(mut request: Request) -> Request {
    if is_grpc(request.headers()) {
        return request;
    }
    if let Some(uri) = routed_path(request.uri().path()).and_then(|path| with_path(request.uri(), &path)) {
        *request.uri_mut() = uri;
    }
    request
}

/// Returns the path of the route that `path` means. Escapes are compared as they are, so that no layer in front of the
/// server sees another path than the router.
fn routed_path(path: &str) -> Option<String> {
    let all: Vec<&str> = path.strip_prefix('/')?.split('/').filter(|segment| !segment.is_empty()).collect();
    let mut rest = all.as_slice();
    loop {
        rest = match rest {
            ["v1", rest @ ..] => rest,
            // The endpoint was given as the base URL, and the client appended its own path.
            [first, second, rest @ ..] if [*first, *second] == CHAT && !rest.is_empty() => rest,
            _ => break,
        };
    }
    let routed = match rest {
        [] => "/".to_owned(),
        ["health" | "healthz" | "livez" | "readyz"] => "/healthz".to_owned(),
        ["chat", "completions"] | ["models"] | ["codex", "status"] => format!("/v1/{}", rest.join("/")),
        // Names of models contain slashes.
        ["models", ..] => format!("/v1/{}", rest.join("/")),
        _ => return None,
    };
    (routed != path).then_some(routed)
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}")).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routed_path_of_a_wrong_base_url_is_the_route() {
        for (path, expected) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/", "/v1/chat/completions"),
            ("//v1/chat/completions", "/v1/chat/completions"),
            ("/v1//chat//completions//", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/models", "/v1/models"),
            ("/models", "/v1/models"),
            ("/v1/models/", "/v1/models"),
            ("/models/openai/gpt-5.5", "/v1/models/openai/gpt-5.5"),
            ("/v1/models/gpt%2F5", "/v1/models/gpt%2F5"),
            ("/codex/status/", "/v1/codex/status"),
            ("/health", "/healthz"),
            ("/healthz/", "/healthz"),
            ("/v1/healthz", "/healthz"),
            ("/v1/health/", "/healthz"),
            ("/v1", "/"),
            ("/v1/", "/"),
            ("//", "/"),
            ("/", "/"),
        ] {
            assert_eq!(routed_path(path).unwrap_or_else(|| path.to_owned()), expected, "{path}");
        }
    }

    #[test]
    fn routed_path_of_another_path_is_none() {
        for path in [
            "/codex.v1.CodexService/Chat",
            "/codex.v1.CodexService/Chat/",
            "/v1/codex.v1.CodexService/Chat",
            "/grpc.health.v1.Health/Check",
            "/v1/nothing",
            "/v2/models",
            "/%761/models",
            "/v1/chat%2Fcompletions",
            "/v1/chat",
            "/v1/../models",
            "/healthz/models",
            "/v1/codex/status/more",
            "*",
            "",
        ] {
            assert_eq!(routed_path(path), None, "{path}");
        }
    }

    #[test]
    fn normalize_keeps_the_query_and_the_authority() {
        let rewritten = |uri: &str, kind: &str| {
            let request =
                Request::builder().uri(uri).header("content-type", kind).body(axum::body::Body::empty());
            normalize(request.unwrap()).uri().to_string()
        };
        assert_eq!(rewritten("/models?limit=2", "application/json"), "/v1/models?limit=2");
        assert_eq!(rewritten("http://a.test//v1/models?x=/v1", ""), "http://a.test/v1/models?x=/v1");
        assert_eq!(rewritten("/v1/v1/models", "application/grpc"), "/v1/v1/models");
    }
}
