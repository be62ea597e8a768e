//! The health report at both doors.

use codex_api::pb;
use serde_json::Value;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Codex, Engine, TestApp, chat_request, executable, grpc::code_and_reason, http::body,
        with_app,
    },
};

async fn healthz(app: &TestApp) -> (u16, Value) {
    let response = reqwest::get(app.url("/healthz")).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn check(app: &TestApp, service: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest { service: service.into() };
    let answer = HealthClient::new(app.channel().await).check(request).await?;
    Ok(answer.into_inner().status())
}

both_engines!(health_of_a_ready_server_is_serving_at_both_doors);
async fn health_of_a_ready_server_is_serving_at_both_doors(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
    eventually!("the gRPC health is serving", check(app, "").await.unwrap() == ServingStatus::Serving);
    assert_eq!(check(app, "codex.v1.CodexService").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check(app, "no.such.Service").await.unwrap_err().code(), Code::NotFound);
    let (status, health) = healthz(app).await;
    assert_eq!(status, 200);
    let version = env!("CARGO_PKG_VERSION");
    let expected = serde_json::json!({
        "ok": true, "engine": engine.name(), "codex_version": "0.169.0", "version": version, "running": 0, "waiting": 0,
        "draining": false, "demo": false, "reason": null,
    });
    assert_eq!(health, expected);
    }).await;
}

both_engines!(health_without_a_cli_is_not_serving_until_one_appears);
async fn health_without_a_cli_is_not_serving_until_one_appears(engine: Engine) {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("codex");
    with_app(AppConfig::fake(engine).codex_bin(bin.to_str().unwrap()), async |app| {
        let (status, health) = healthz(app).await;
        assert_eq!((status, &health["ok"]), (503, &Value::Bool(false)), "{health}");
        assert_eq!(health["engine"], engine.name());
        let reason = health["reason"].as_str().unwrap();
        assert!(reason.contains("CODEX_BIN") && !reason.contains('/'), "{reason}");
        assert_eq!(check(app, "").await.unwrap(), ServingStatus::NotServing);
        // A missing CLI is an unavailable engine, not a mistake of the client.
        let (status, error) = app.http_error(&body("fake:echo", "x")).await;
        assert_eq!((status, &error["code"]), (503, &"engine_unavailable".into()), "{error}");
        let refused = app.grpc_error(chat_request("fake:echo", "x")).await;
        assert_eq!(code_and_reason(&refused), (Code::FailedPrecondition, "ENGINE_UNAVAILABLE".into()));
        // The configured models are listed with or without an engine.
        let mut client = app.grpc().await;
        assert!(!client.list_models(pb::ListModelsRequest {}).await.unwrap().into_inner().models.is_empty());

        std::os::unix::fs::symlink(executable(Codex::Fake), &bin).unwrap();
        eventually!("the HTTP door is healthy again", healthz(app).await.0 == 200);
        eventually!(
            "the gRPC door is healthy again",
            check(app, "").await.unwrap() == ServingStatus::Serving
        );
        assert_eq!(
            app.chat(chat_request("fake:echo", "x")).await,
            engine.echo("x"),
            "the configured engine runs"
        );
    })
    .await;
}

both_engines!(health_after_failures_of_the_upstream_has_a_warning);
async fn health_after_failures_of_the_upstream_has_a_warning(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let warnings = async || healthz(app).await.1.get("warnings").cloned();
        app.http_error(&body("fake:failed:400-context", "x")).await;
        assert_eq!(warnings().await, None, "one caller caused this failure");
        for _ in 0..2 {
            app.http_error(&body("fake:failed:401", "x")).await;
        }
        let status = app.grpc().await.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
        let [warning] = &status.warnings[..] else { panic!("{status:?}") };
        assert!(warning.starts_with("the last 2 turns failed with ENGINE_UNAVAILABLE"), "{warning}");
        assert!(status.ready && warnings().await.is_some());
        app.chat(chat_request("fake:echo", "x")).await;
        assert_eq!(warnings().await, None);
    })
    .await;
}
