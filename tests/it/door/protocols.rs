//! Two protocols on one address: each request gets a response of its own protocol, errors included.

use codex_api::pb;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tonic::{Code, Request};
use tonic_reflection::pb::{v1, v1alpha};

use crate::{
    both_engines,
    support::{AppConfig, Engine, TestApp, chat_request, http::body, with_app},
};

const CHAT: &str = "/codex.v1.CodexService/Chat";

fn http2() -> reqwest::Client {
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

fn grpc_post(app: &TestApp, path: &str) -> RequestBuilder {
    http2().post(app.url(path)).header("content-type", "application/grpc").header("te", "trailers")
}

async fn http_error(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert!(body["error"]["message"].is_string(), "{body}");
    (status, body["error"].clone())
}

both_engines!(unknown_route_is_refused_in_the_callers_protocol);
async fn unknown_route_is_refused_in_the_callers_protocol(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let http = reqwest::Client::new();
        for client in [&http, &http2()] {
            let (status, error) = http_error(client.get(app.url("/v1/nothing"))).await;
            assert_eq!((status, &error["code"]), (404, &json!("unknown_url")));
            assert!(error["message"].as_str().unwrap().contains("GET /v1/nothing"), "{error}");
            assert!(error["message"].as_str().unwrap().contains("POST /v1/chat/completions"), "{error}");
        }
        // An unknown method of a known service, an unknown service, and a path without a service.
        for path in ["/codex.v1.CodexService/Nothing", "/codex.v1.Nothing/Chat", "/v1/nothing"] {
            let response = grpc_post(app, path).send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()["grpc-status"], "12", "{path}");
            assert_eq!(response.headers()["content-type"], "application/grpc", "{path}");
        }
        let (status, error) = http_error(http.get(app.url("/v1/chat/completions"))).await;
        assert_eq!((status, &error["code"]), (405, &json!("method_not_allowed")));
        for (method, path, allow) in [
            (Method::GET, "/v1/chat/completions", "POST"),
            (Method::POST, "/v1/models", "GET,HEAD"),
            (Method::DELETE, "/healthz", "GET,HEAD"),
            (Method::GET, CHAT, "POST"),
        ] {
            let response = http.request(method.clone(), app.url(path)).send().await.unwrap();
            assert_eq!(
                (response.status().as_u16(), &response.headers()["allow"]),
                (405, &allow.parse().unwrap())
            );
        }
    })
    .await;
}

both_engines!(malformed_grpc_call_is_refused_over_http);
async fn malformed_grpc_call_is_refused_over_http(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let json = http2().post(app.url(CHAT)).json(&body("fake:echo", "x")).send().await.unwrap();
        assert_eq!(json.status(), 415);
        let bare = http2().post(app.url(CHAT)).send().await.unwrap();
        assert_eq!(bare.status(), 415);
        let old = reqwest::Client::new().post(app.url(CHAT)).header("content-type", "application/grpc");
        let old = old.send().await.unwrap();
        assert_eq!(old.status(), 505);
        assert!(old.text().await.unwrap().contains("HTTP/2"));
    })
    .await;
}

both_engines!(reflection_lists_the_services_in_both_versions);
async fn reflection_lists_the_services_in_both_versions(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let expected = ["codex.v1.CodexService", "grpc.health.v1.Health"];
        macro_rules! listed {
            ($version:ident) => {{
                use $version::{
                    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
                };
                let requests = [
                    MessageRequest::ListServices(String::new()),
                    MessageRequest::FileContainingSymbol("codex.v1.CodexService".into()),
                ];
                let requests = requests.map(|request| ServerReflectionRequest {
                    message_request: Some(request),
                    ..Default::default()
                });
                let mut client = ServerReflectionClient::new(app.channel().await);
                let answers =
                    client.server_reflection_info(futures_util::stream::iter(requests)).await.unwrap();
                let mut answers = answers.into_inner();
                let services = answers.message().await.unwrap().unwrap().message_response.unwrap();
                let MessageResponse::ListServicesResponse(services) = services else {
                    panic!("{services:?}")
                };
                let names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
                for service in expected {
                    assert!(names.iter().any(|name| name == service), "{names:?}");
                }
                let file = answers.message().await.unwrap().unwrap().message_response.unwrap();
                let MessageResponse::FileDescriptorResponse(file) = file else { panic!("{file:?}") };
                assert!(!file.file_descriptor_proto.is_empty());
            }};
        }
        listed!(v1);
        listed!(v1alpha);
    })
    .await;
}

both_engines!(separate_grpc_address_serves_grpc_only);
async fn separate_grpc_address_serves_grpc_only(engine: Engine) {
    with_app(AppConfig::fake(engine).env("CODEX_GRPC_LISTEN", "127.0.0.1:0"), async |app| {
        assert_ne!(app.address, app.grpc_address);
        assert_eq!(app.chat(chat_request("fake:echo", "x")).await, engine.echo("x"));
        assert_eq!(
            app.complete(&body("fake:echo", "x")).await["choices"][0]["message"]["content"],
            engine.echo("x")
        );
        // Each address refuses the other protocol.
        let response = grpc_post(app, CHAT).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["grpc-status"]),
            (200, &"12".parse().unwrap())
        );
        let path = format!("http://{}/v1/models", app.grpc_address);
        assert_eq!(http_error(reqwest::Client::new().get(path)).await.0, 404);
    })
    .await;
}

both_engines!(request_id_is_returned_at_both_doors);
async fn request_id_is_returned_at_both_doors(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let client = reqwest::Client::new();
        let send_http = |id: &'static str| {
            let request = client.post(app.url("/v1/chat/completions")).json(&body("fake:echo", "x"));
            if id.is_empty() { request.send() } else { request.header("x-request-id", id).send() }
        };
        let send_grpc = async |id: &str| {
            let mut request = Request::new(chat_request("fake:echo", "x"));
            if !id.is_empty() {
                request.metadata_mut().insert("x-request-id", id.parse().unwrap());
            }
            let answer = app.grpc().await.chat(request).await.unwrap();
            answer.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(send_http("my-id/1").await.unwrap().headers()["x-request-id"], "my-id/1");
        assert_eq!(send_grpc("my-id/2").await, "my-id/2");
        // The server generates an id if the request has none or an invalid one.
        let mut generated = vec![send_grpc("").await, send_grpc("two words").await];
        for invalid in ["", "two words"] {
            let answer = send_http(invalid).await.unwrap();
            generated.push(answer.headers()["x-request-id"].to_str().unwrap().to_owned());
        }
        assert!(generated.iter().all(|id| id.starts_with("req_") && id.len() > 20), "{generated:?}");
        generated.sort_unstable();
        generated.dedup();
        assert_eq!(generated.len(), 4, "the generated ids differ");
        // Errors have a request id too.
        let lost = client.get(app.url("/nowhere")).header("x-request-id", "lost").send().await.unwrap();
        assert_eq!(lost.headers()["x-request-id"], "lost");
        let mut request = Request::new(pb::ChatRequest::default());
        request.metadata_mut().insert("x-request-id", "wrong".parse().unwrap());
        let refused = app.grpc().await.chat(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.metadata().get("x-request-id").unwrap(), "wrong");
    })
    .await;
}

both_engines!(models_and_aliases_are_equal_at_both_doors);
async fn models_and_aliases_are_equal_at_both_doors(engine: Engine) {
    with_app(
        AppConfig::fake(engine)
            .env("CODEX_MODEL", "fake:echo")
            .env("CODEX_MODEL_ALIASES", r#"{"gpt-4o":"fake:usage","a/b":"fake:echo"}"#)
            .env("CODEX_ADVERTISED_MODELS", "fake:echo, extra"),
        async |app| {
            let list = reqwest::get(app.url("/v1/models")).await.unwrap().json::<Value>().await.unwrap();
            assert_eq!(list["object"], "list");
            // The HTTP list also has the names with a profile; gRPC has the profiles in the model.
            let names = list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap());
            let has_profile = |name: &&str| name.ends_with(":agent") || name.ends_with(":chat");
            let over_http: Vec<&str> = names.filter(|name| !has_profile(name)).collect();
            let request = pb::ListModelsRequest {};
            let over_grpc = app.grpc().await.list_models(request).await.unwrap().into_inner().models;
            assert_eq!(over_http, over_grpc.iter().map(|model| model.id.as_str()).collect::<Vec<_>>());
            assert_eq!(over_http, ["fake:echo", "a/b", "extra", "fake:usage", "gpt-4o"]);
            assert!(over_grpc[0].is_default && over_grpc[1..].iter().all(|model| !model.is_default));
            assert_eq!(over_grpc[4].target, "fake:usage");

            for name in ["gpt-4o", "a/b"] {
                let one = reqwest::get(app.url(&format!("/v1/models/{name}"))).await.unwrap();
                let one: Value = one.json().await.unwrap();
                assert_eq!((&one["id"], &one["object"]), (&json!(name), &json!("model")));
            }
            // A model with a profile suffix is found, also if there is no other profile and the list lacks it.
            let profiles: &[&str] = match engine {
                Engine::Exec => &["agent"],
                Engine::AppServer => &["agent", "chat"],
            };
            assert!(over_grpc.iter().all(|model| model.profiles == profiles));
            for (name, offered) in
                [("gpt-4o:agent", true), ("gpt-4o:chat", profiles.len() > 1), ("none:agent", false)]
            {
                let request = reqwest::Client::new().get(app.url(&format!("/v1/models/{name}")));
                if offered {
                    let found: Value = request.send().await.unwrap().json().await.unwrap();
                    assert_eq!(found["id"], name);
                } else {
                    let (status, error) = http_error(request).await;
                    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")), "{name}");
                }
            }
            let (status, error) = http_error(reqwest::Client::new().get(app.url("/v1/models/none"))).await;
            assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));

            // The answer has the requested name, and the engine gets the target of the alias.
            let answer = app.complete(&body("gpt-4o", "x")).await;
            assert_eq!(
                (&answer["model"], &answer["choices"][0]["message"]["content"]),
                (&json!("gpt-4o"), &json!("counted"))
            );
            assert_eq!(app.chat(chat_request("gpt-4o", "x")).await, "counted");
            let default = app.complete(&json!({"messages": [{"role": "user", "content": "x"}]})).await;
            assert_eq!(
                (&default["model"], &default["choices"][0]["message"]["content"]),
                (&json!("fake:echo"), &json!(engine.echo("x")))
            );
        },
    )
    .await;
}
