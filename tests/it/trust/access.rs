//! Access control: tokens, hosts, origins, content types.

use codex_api::{
    config::{Config, Sources},
    pb::{self, codex_service_client::CodexServiceClient},
};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tonic::{Code, Request, Status, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    both_engines,
    support::{
        AppConfig, Engine, TestApp, chat_request, grpc::code_and_reason, http::body, wire::Wire, with_app,
    },
};

const TOKEN: &str = "correct-horse";

fn chat(app: &TestApp) -> RequestBuilder {
    Client::new().post(app.url("/v1/chat/completions")).json(&body("fake:echo", "x"))
}

async fn status_and_code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// Sends a gRPC call with an additional header. The name `:authority` sets the authority.
async fn grpc_call(app: &TestApp, name: &'static str, value: &str) -> Result<(), Status> {
    let mut endpoint = Endpoint::from_shared(format!("http://{}", app.grpc_address)).unwrap();
    let mut request = Request::new(chat_request("fake:echo", "x"));
    match name {
        "" => {}
        ":authority" => endpoint = endpoint.origin(format!("http://{value}").parse().unwrap()),
        _ => drop(request.metadata_mut().insert(name, value.parse().unwrap())),
    }
    let channel = endpoint.connect().await.unwrap();
    CodexServiceClient::new(channel).chat(request).await.map(drop)
}

both_engines!(request_without_the_token_is_refused_except_health);
async fn request_without_the_token_is_refused_except_health(engine: Engine) {
    with_app(AppConfig::fake(engine).token(TOKEN), async |app| {
        let unauthenticated = (Code::Unauthenticated, "INVALID_API_KEY".to_owned());
        let bearer = format!("Bearer {TOKEN}");
        for (name, value) in [
            ("", ""),
            ("authorization", "Bearer wrong"),
            ("authorization", TOKEN),
            ("x-api-key", "correct-hors"),
        ] {
            let request = if name.is_empty() { chat(app) } else { chat(app).header(name, value) };
            let response = request.send().await.unwrap();
            assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{name}");
            let status = response.status().as_u16();
            let error = response.json::<Value>().await.unwrap()["error"].take();
            assert_eq!((status, &error["code"]), (401, &"invalid_api_key".into()), "{name}: {value}");
            assert!(
                error["message"].as_str().unwrap().starts_with("Incorrect API key provided: the token is")
            );
            assert_eq!(
                code_and_reason(&grpc_call(app, name, value).await.unwrap_err()),
                unauthenticated,
                "{name}: {value}"
            );
        }
        for (name, value) in
            [("authorization", &*bearer), ("x-api-key", TOKEN), ("authorization", "bearer correct-horse")]
        {
            assert_eq!(chat(app).header(name, value).send().await.unwrap().status(), 200, "{name}: {value}");
            grpc_call(app, name, value).await.unwrap();
        }
        for path in ["/v1/models", "/v1/models/gpt-5-codex", "/v1/codex/status"] {
            let bare = Client::new().get(app.url(path));
            assert_eq!(bare.try_clone().unwrap().send().await.unwrap().status(), 401, "{path}");
            assert_eq!(bare.bearer_auth(TOKEN).send().await.unwrap().status(), 200, "{path}");
        }
        let mut grpc = app.grpc().await;
        let models = grpc.list_models(pb::ListModelsRequest {}).await.unwrap_err();
        assert_eq!(models.code(), Code::Unauthenticated);
        assert_eq!(grpc.get_status(pb::GetStatusRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
        // Health contains no secret, and health checkers have no token.
        assert_eq!(reqwest::get(app.url("/healthz")).await.unwrap().status(), 200);
        HealthClient::new(app.channel().await).check(HealthCheckRequest::default()).await.unwrap();
    })
    .await;
}

both_engines!(host_without_a_token_must_be_loopback);
async fn host_without_a_token_must_be_loopback(engine: Engine) {
    with_app(AppConfig::fake(engine).env("CODEX_ALLOWED_HOSTS", "codex.test, other.test:81"), async |app| {
        let port = app.address.port();
        let refused = (Code::PermissionDenied, "HOST_REFUSED".to_owned());
        for host in [
            "evil.test",
            "localhost.evil.test",
            "127.0.0.1.evil.test",
            "10.0.0.1",
            "other.test",
            "other.test:82",
        ] {
            let response = chat(app).header("host", host).send().await.unwrap();
            assert_eq!(status_and_code(response).await, (403, "host_refused".into()), "{host}");
            assert_eq!(
                code_and_reason(&grpc_call(app, ":authority", host).await.unwrap_err()),
                refused,
                "{host}"
            );
        }
        for host in [
            "localhost",
            "LOCALHOST.",
            "127.0.0.1",
            "[::1]:1",
            "codex.test",
            "codex.test:9",
            "other.test:81",
            &format!("localhost:{port}"),
        ] {
            assert_eq!(chat(app).header("host", host).send().await.unwrap().status(), 200, "{host}");
            grpc_call(app, ":authority", host).await.unwrap();
        }
        // With DNS rebinding, a browser sends the foreign name in `Host`. A missing `Host` is refused too.
        let mut wire = Wire::open(app.address).await;
        wire.send("GET /v1/models HTTP/1.0\r\n\r\n").await;
        assert_eq!(wire.response().await.status, 403);
    })
    .await;

    // With a valid token, any host name is accepted.
    with_app(AppConfig::fake(engine).token(TOKEN), async |app| {
        let request = chat(app).header("host", "evil.test").bearer_auth(TOKEN);
        assert_eq!(request.send().await.unwrap().status(), 200);
    })
    .await;
}

const FOREIGN_ORIGINS: [&str; 9] = [
    "https://evil.test",
    "null",
    "http://localhost:1",
    "http://127.0.0.1",
    "app://obsidian.md",
    "tauri://localhost",
    "vscode-webview://1a2b3c",
    "file://",
    "capacitor://localhost",
];

both_engines!(foreign_origin_without_a_token_is_refused);
async fn foreign_origin_without_a_token_is_refused(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for origin in FOREIGN_ORIGINS {
            let response = chat(app).bearer_auth(TOKEN).header("origin", origin).send().await.unwrap();
            assert_eq!(status_and_code(response).await, (403, "origin_refused".into()), "{origin}");
            let refused = grpc_call(app, "origin", origin).await.unwrap_err();
            assert_eq!(
                code_and_reason(&refused),
                (Code::PermissionDenied, "ORIGIN_REFUSED".into()),
                "{origin}"
            );
        }
        let server_origin = format!("http://{}", app.address);
        let response = chat(app).header("origin", server_origin).send().await.unwrap();
        assert_eq!(response.status(), 200);
    })
    .await;
}

both_engines!(token_is_accepted_from_any_origin);
async fn token_is_accepted_from_any_origin(engine: Engine) {
    let pages = AppConfig::fake(engine).env("CODEX_CORS_ORIGINS", "https://app.test");
    with_app(pages.token(TOKEN), async |app| {
        for origin in FOREIGN_ORIGINS {
            let response = chat(app).bearer_auth(TOKEN).header("origin", origin).send().await.unwrap();
            assert_eq!(response.status(), 200, "{origin}");
            // A browser shows the answer to no page of an origin that is not configured.
            assert!(!response.headers().contains_key("access-control-allow-origin"), "{origin}");
            let response = chat(app).bearer_auth("wrong").header("origin", origin).send().await.unwrap();
            assert_eq!(status_and_code(response).await, (401, "invalid_api_key".into()), "{origin}");
            let refused = grpc_call(app, "origin", origin).await.unwrap_err();
            assert_eq!(code_and_reason(&refused).0, Code::Unauthenticated, "{origin}");
        }
    })
    .await;
}

both_engines!(content_type_other_than_json_is_refused);
async fn content_type_other_than_json_is_refused(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let json = body("fake:echo", "x").to_string();
        let post = |kind: Option<&str>| {
            let request = Client::new().post(app.url("/v1/chat/completions")).body(json.clone());
            let request = match kind {
                Some(kind) => request.header("content-type", kind),
                None => request,
            };
            request.send()
        };
        for kind in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("multipart/form-data"),
            Some("text/json"),
        ] {
            let response = post(kind).await.unwrap();
            assert_eq!(status_and_code(response).await, (415, "unsupported_media_type".into()), "{kind:?}");
        }
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(post(Some(kind)).await.unwrap().status(), 200, "{kind}");
        }
    })
    .await;
}

fn cors_headers(response: &Response) -> Vec<&str> {
    let headers = response.headers().iter();
    headers.map(|(name, _)| name.as_str()).filter(|name| name.starts_with("access-control-")).collect()
}

async fn preflight(app: &TestApp, origin: &str) -> Response {
    Client::new()
        .request(Method::OPTIONS, app.url("/v1/chat/completions"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type, x-stainless-lang")
        .send()
        .await
        .unwrap()
}

both_engines!(cors_allows_the_configured_origins_only);
async fn cors_allows_the_configured_origins_only(engine: Engine) {
    const PAGE: &str = "https://app.test";
    with_app(AppConfig::fake(engine), async |app| {
        let response = preflight(app, PAGE).await;
        assert_eq!((response.status().as_u16(), cors_headers(&response)), (405, vec![]));
        assert!(cors_headers(&chat(app).send().await.unwrap()).is_empty());
    })
    .await;

    with_app(
        AppConfig::fake(engine).env("CODEX_CORS_ORIGINS", "https://app.test, https://b.test/").token(TOKEN),
        async |app| {
            for page in [PAGE, "https://b.test"] {
                let response = preflight(app, page).await;
                assert_eq!(response.status(), 200, "a preflight has no token");
                assert_eq!(response.headers()["access-control-allow-origin"], page);
                let allowed = response.headers()["access-control-allow-headers"].to_str().unwrap();
                assert!(
                    allowed.contains("authorization") && allowed.contains("x-stainless-lang"),
                    "{allowed}"
                );
                let response = chat(app).bearer_auth(TOKEN).header("origin", page).send().await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.headers()["access-control-allow-origin"], page);
                let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
                assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
                // A page can read the error of a refused request.
                let response = chat(app).header("origin", page).send().await.unwrap();
                assert_eq!(
                    (response.status(), &response.headers()["access-control-allow-origin"]),
                    (reqwest::StatusCode::UNAUTHORIZED, &page.parse().unwrap())
                );
            }
            let response = preflight(app, "https://evil.test").await;
            assert!(!response.headers().contains_key("access-control-allow-origin"));
            let response = chat(app).header("origin", "https://evil.test").send().await.unwrap();
            assert_eq!(status_and_code(response).await, (401, "invalid_api_key".into()));
        },
    )
    .await;
}

#[test]
fn public_address_without_a_token_is_refused() {
    let load = |settings: &[(&str, &str)]| {
        let env = settings.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Config::load(Sources { env, ..Sources::default() })
    };
    for (name, value) in [
        ("CODEX_GATEWAY_HOST", "0.0.0.0"),
        ("CODEX_GATEWAY_HOST", "::"),
        ("CODEX_GATEWAY_HOST", "192.168.0.1"),
        ("CODEX_GRPC_LISTEN", "0.0.0.0:50051"),
    ] {
        let error = load(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains("CODEX_GATEWAY_TOKEN"), "{value}: {error}");
        // An empty token counts as unset.
        load(&[(name, value), ("CODEX_GATEWAY_TOKEN", "")]).unwrap_err();
        load(&[(name, value), ("CODEX_GATEWAY_TOKEN", TOKEN)]).unwrap();
    }
    for host in ["127.0.0.1", "127.8.8.8", "::1", "localhost"] {
        load(&[("CODEX_GATEWAY_HOST", host)]).unwrap();
    }
}
