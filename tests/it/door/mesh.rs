//! gRPC behind proxies and in a mesh: compression, gRPC-Web, reflection, health watches.

use codex_api::pb;
use futures_util::FutureExt;
use tonic::{Code, codec::CompressionEncoding};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, chat_request,
        grpc::{answers, code_and_reason, collect_events},
        with_app,
    },
};

const ENCODINGS: [(CompressionEncoding, &str); 3] = [
    (CompressionEncoding::Gzip, "gzip"),
    (CompressionEncoding::Deflate, "deflate"),
    (CompressionEncoding::Zstd, "zstd"),
];

both_engines!(compressed_calls_get_compressed_answers);
async fn compressed_calls_get_compressed_answers(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for (encoding, name) in ENCODINGS {
            let mut client = app.grpc().await.send_compressed(encoding).accept_compressed(encoding);
            let answer = client.chat(chat_request("fake:echo", "compressed")).await.unwrap();
            assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), name);
            assert!(answer.into_inner().choices[0].text.contains("compressed"), "{name}");
            let stream = client.stream_chat(chat_request("fake:echo", "compressed")).await.unwrap();
            assert_eq!(stream.metadata().get("grpc-encoding").unwrap(), name);
            let events = collect_events(stream.into_inner()).await.unwrap();
            assert!(answers(&events)[0].0.contains("compressed"), "{name}");
        }
        let mut client = app.grpc().await;
        let plain = client.chat(chat_request("fake:echo", "plain")).await.unwrap();
        assert!(!plain.metadata().contains_key("grpc-encoding"), "the client accepts no compression");
    })
    .await;
}

both_engines!(decompressed_bytes_count_for_the_size_limit);
async fn decompressed_bytes_count_for_the_size_limit(engine: Engine) {
    with_app(AppConfig::fake(engine).env("CODEX_MAX_BODY_BYTES", "100000"), async |app| {
        for (encoding, name) in ENCODINGS {
            let mut client = app.grpc().await.send_compressed(encoding);
            let bomb = chat_request("fake:echo", &"a".repeat(50_000_000));
            let error = client.chat(bomb).await.unwrap_err();
            assert_eq!(code_and_reason(&error), (Code::InvalidArgument, "INVALID_VALUE".into()), "{name}");
            assert!(error.message().contains("CODEX_MAX_BODY_BYTES"), "{name}: {error}");
            client.chat(chat_request("fake:echo", &"a".repeat(50_000))).await.unwrap();
        }
    })
    .await;
}

both_engines!(grpc_web_is_not_run_as_grpc);
async fn grpc_web_is_not_run_as_grpc(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"] {
            for client in [&http2, &reqwest::Client::new()] {
                let call =
                    client.post(app.url("/codex.v1.CodexService/GetStatus")).header("content-type", kind);
                let answer = call.body(vec![0; 5]).send().await.unwrap();
                assert_eq!(answer.status(), 415, "{kind}");
                assert!(!answer.headers().contains_key("grpc-status"), "{kind}");
            }
        }
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            let call = http2.post(app.url("/codex.v1.CodexService/GetStatus")).header("content-type", kind);
            let answer = call.body(vec![0; 5]).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{kind}");
        }
    })
    .await;
}

both_engines!(reflection_knows_the_details_of_errors);
async fn reflection_knows_the_details_of_errors(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let symbols = ["ErrorInfo", "RetryInfo", "BadRequest", "QuotaFailure", "DebugInfo"];
        let requests = symbols.map(|symbol| ServerReflectionRequest {
            message_request: Some(MessageRequest::FileContainingSymbol(format!("google.rpc.{symbol}"))),
            ..Default::default()
        });
        let mut client = ServerReflectionClient::new(app.channel().await);
        let answers = client.server_reflection_info(futures_util::stream::iter(requests)).await.unwrap();
        let mut answers = answers.into_inner();
        for symbol in symbols {
            let answer = answers.message().await.unwrap().unwrap().message_response;
            assert!(
                matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))),
                "{symbol}: {answer:?}"
            );
        }
    })
    .await;
}

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

both_engines!(health_watch_of_an_unknown_service_stays_open);
async fn health_watch_of_an_unknown_service_stays_open(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let mut client = HealthClient::new(app.channel().await);
        let mut watch = client.watch(named("elsewhere.v1.Unknown")).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
        // A later call on the same connection proves that the stream had time to end.
        let unknown = client.check(named("elsewhere.v1.Unknown")).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
        assert!(watch.message().now_or_never().is_none(), "the stream is open");
    })
    .await;
}

both_engines!(health_watches_of_a_connection_are_limited);
async fn health_watches_of_a_connection_are_limited(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let mut client = HealthClient::new(app.channel().await);
        let mut open = Vec::new();
        let refused = loop {
            match client.watch(named("")).await {
                Ok(watch) => open.push(watch),
                Err(status) => break status,
            }
            assert!(open.len() < 100, "the watches are limited");
        };
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(open.len(), 16);
        client.check(named("")).await.unwrap();
        app.grpc().await.get_status(pb::GetStatusRequest {}).await.unwrap();
        HealthClient::new(app.channel().await).watch(named("")).await.unwrap();
        open.pop();
        eventually!("a place is free", client.watch(named("")).await.is_ok());
    })
    .await;
}
