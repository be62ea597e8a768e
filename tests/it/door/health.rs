//! Health over both doors: what it says, when it changes, and what it does not wait for.

use codex_api::pb;
use serde_json::Value;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    eventually,
    support::{
        Codex, TestApp, ask,
        engines::{echo, engine},
        executable,
        grpc::kind,
        http::body,
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

#[tokio::test]
async fn a_healthy_server_says_so_at_both_doors() {
    let app = TestApp::fake(&[]).await;
    eventually!("health is known", check(&app, "").await.unwrap() == ServingStatus::Serving);
    assert_eq!(check(&app, "codex.v1.CodexService").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check(&app, "nobody").await.unwrap_err().code(), Code::NotFound);
    let (status, health) = healthz(&app).await;
    assert_eq!(status, 200);
    let version = env!("CARGO_PKG_VERSION");
    let expected = serde_json::json!({
        "ok": true, "engine": engine().name(), "codex_version": "0.169.0", "version": version, "running": 0, "waiting": 0,
        "draining": false, "demo": false, "reason": null,
    });
    assert_eq!(health, expected);
    app.stop().await;
}

#[tokio::test]
async fn without_codex_the_server_is_unhealthy_until_codex_appears() {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("codex");
    let app = TestApp::fake(&[("CODEX_BIN", bin.to_str().unwrap())]).await;
    let (status, health) = healthz(&app).await;
    assert_eq!((status, &health["ok"]), (503, &Value::Bool(false)), "{health}");
    assert_eq!(health["engine"], engine().name());
    let reason = health["reason"].as_str().unwrap();
    assert!(reason.contains("CODEX_BIN") && reason.contains(bin.to_str().unwrap()), "{reason}");
    assert_eq!(check(&app, "").await.unwrap(), ServingStatus::NotServing);
    // What cannot run is told as such, and not as the caller's mistake.
    let (status, error) = app.refused(&body("fake:echo", "x")).await;
    assert_eq!((status, &error["code"]), (503, &"engine_unavailable".into()), "{error}");
    let refused = app.grpc_refused(ask("fake:echo", "x")).await;
    assert_eq!(kind(&refused), (Code::FailedPrecondition, "ENGINE_UNAVAILABLE".into()));
    // The models are what the operator advertises, with or without an engine.
    let mut client = app.grpc().await;
    assert!(!client.list_models(pb::ListModelsRequest {}).await.unwrap().into_inner().models.is_empty());

    std::os::unix::fs::symlink(executable(Codex::Fake), &bin).unwrap();
    eventually!("the HTTP door is healthy again", healthz(&app).await.0 == 200);
    eventually!("the gRPC door is healthy again", check(&app, "").await.unwrap() == ServingStatus::Serving);
    assert_eq!(app.chat(ask("fake:echo", "x")).await, echo("x"), "the engine that was asked for");
    app.stop().await;
}
