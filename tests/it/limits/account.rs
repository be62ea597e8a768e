//! The limits of the account: what the status says, and the delay in the error of a reached limit.

use std::time::Duration;

use codex_api::pb;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    both_engines,
    support::{AppConfig, Engine, TestApp, chat_request, http::body, login, with_app},
};

async fn status(app: &TestApp) -> Value {
    reqwest::get(app.url("/v1/codex/status")).await.unwrap().json().await.unwrap()
}

/// Sends the request, which must be refused. Returns the headers and the error of the HTTP door, and the delay and the
/// text of the gRPC door.
async fn refused(app: &TestApp, model: &str, text: &str) -> (HeaderMap, Value, Option<Duration>, String) {
    let response = app.post(&body(model, text)).await;
    assert_eq!(response.status(), 429, "{model} {text}");
    let headers = response.headers().clone();
    let mut error: Value = response.json().await.unwrap();
    let status = app.grpc().await.chat(chat_request(model, text)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
    (headers, error["error"].take(), delay, status.message().to_owned())
}

/// Asserts that a usage limit has the time of its reset, which is `seconds` after now.
async fn assert_reset(app: &TestApp, model: &str, text: &str, seconds: u64) {
    let (headers, error, delay, message) = refused(app, model, text).await;
    let near = |delay: u64| (seconds.saturating_sub(60)..=seconds).contains(&delay);
    let header: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(near(header), "{header}");
    assert!(delay.is_some_and(|delay| near(delay.as_secs())), "{delay:?}");
    assert_eq!(headers["x-should-retry"], "false", "SDKs must not wait for hours");
    assert_eq!(error["code"], "insufficient_quota");
    for text in [message.as_str(), error["message"].as_str().unwrap()] {
        let rest =
            text.strip_prefix(
                "You exceeded your current quota: The usage limit of the ChatGPT plan is reached. It resets at 20",
            )
            .unwrap();
        assert!(rest.ends_with(" UTC.") && rest.len() == "26-11-26 02:30 UTC.".len(), "{text}");
    }
}

#[tokio::test]
async fn limits_of_a_former_account_are_not_reported() {
    with_app(AppConfig::fake(Engine::AppServer), async |app| {
        let home = app.home.path().join("codex-home");
        for account in ["acc-1", "acc-2"] {
            login::replace(&home, &login::chatgpt(account, 1));
            assert_eq!(status(app).await["account_limits"], json!(null), "{account}");
            app.complete(&body("fake:limits:42", "hi")).await;
            assert_ne!(status(app).await["account_limits"], json!(null), "{account}");
        }
    })
    .await;
}

#[tokio::test]
async fn limits_of_the_account_are_reported_by_the_status() {
    with_app(AppConfig::fake(Engine::AppServer), async |app| {
        assert_eq!(status(app).await["account_limits"], json!(null), "before the first reading");
        app.complete(&body("fake:limits:42", "hi")).await;
        // A response without limits, which follows in the same turn, keeps the reading.
        app.complete(&body("fake:echo", "hi")).await;
        let limits = app.status().await.account_limits.expect("limits");
        assert_eq!(limits.plan_type, "pro");
        let read_at = limits.read_at.unwrap().seconds;
        let rows = limits.windows.iter().map(|window| {
            let resets_in = window.resets_at.unwrap().seconds - read_at;
            (
                window.used_percent as i64,
                window.duration.unwrap().seconds,
                resets_in.unsigned_abs().div_ceil(10),
            )
        });
        assert_eq!(rows.collect::<Vec<_>>(), [(42, 18_000, 720), (13, 604_800, 50_000)]);
        let credits = pb::Credits { has_credits: true, unlimited: false, balance: "12.50".to_owned() };
        assert_eq!(limits.credits, Some(credits));
        let over_http = status(app).await;
        assert_eq!((&over_http["ready"], &over_http["engine"]), (&json!(true), &json!("app-server")));
        let http_limits = &over_http["account_limits"];
        assert_eq!(http_limits["windows"][0]["used_percent"], 42.0);
        assert_eq!(http_limits["windows"][0]["window_seconds"], 18_000);
        assert_eq!(http_limits["windows"][1]["resets_at"], limits.windows[1].resets_at.unwrap().seconds);
        assert_eq!(http_limits["read_at"], read_at);
        let health = reqwest::get(app.url("/healthz")).await.unwrap().text().await.unwrap();
        assert!(!health.contains("account") && !health.contains("42"), "{health}");
    })
    .await;
}

#[tokio::test]
async fn usage_limit_with_a_known_reset_has_its_time_and_delay() {
    with_app(AppConfig::fake(Engine::AppServer).workers(2), async |app| {
        assert_reset(app, "fake:usage-limit:9000", "hi", 9000).await;
        // Every worker knows what one of them read.
        for _ in 0..4 {
            assert_reset(app, "fake:failed:429-usage-limit", "hi", 9000).await;
        }
        // Another failure has nothing to do with the reading.
        let (status, error) = app.http_error(&body("fake:failed:500", "hi")).await;
        assert_eq!((status, &error["code"]), (503, &json!("upstream_unavailable")));
    })
    .await;
}

both_engines!(usage_limit_without_a_reading_keeps_the_words_of_codex);
async fn usage_limit_without_a_reading_keeps_the_words_of_codex(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let (headers, error, delay, message) = refused(app, "fake:failed:429-usage-limit", "hi").await;
        assert!(!headers.contains_key("retry-after") && delay.is_none(), "{headers:?} {delay:?}");
        assert!(message.ends_with("try again at 4:27 PM."), "the time is at the end: {message}");
        assert_eq!(error["message"], message);
        assert_eq!(status(app).await["account_limits"], json!(null));
    })
    .await;
}

both_engines!(rate_limit_with_a_delay_in_its_text_has_it_as_header);
async fn rate_limit_with_a_delay_in_its_text_has_it_as_header(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let (headers, error, delay, _) = refused(app, "fake:failed:429-delay", "hi").await;
        assert_eq!(headers["retry-after"], "4");
        assert_eq!(error["code"], "rate_limit_exceeded");
        assert_eq!(delay, Some(Duration::from_millis(3200)));
        assert!(!headers.contains_key("x-should-retry"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn usage_limit_of_every_plan_has_its_time_and_delay() {
    with_app(AppConfig::real(Engine::AppServer).upstream_retries(0), async |app| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        // The last one is a plan that the CLI does not know.
        let plans = ["free", "go", "plus", "pro", "team", "business", "enterprise", "edu", "platinum"];
        for plan in plans.map(Value::from).into_iter().chain([Value::Null]) {
            let limit = json!({"error": {"type": "usage_limit_reached", "plan_type": plan, "resets_at": now + 7200}});
            let headers = json!({"x-codex-primary-used-percent": "100", "x-codex-primary-window-minutes": "300",
                "x-codex-primary-reset-at": (now + 7200).to_string()});
            let refusal = json!({"status": 429, "body": limit, "headers": headers});
            assert_reset(app, "gpt-5.5", &format!("@@{refusal}@@"), 7200).await;
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    usage_limit_of_every_plan_is_recognized_by_its_words
);
async fn usage_limit_of_every_plan_is_recognized_by_its_words(engine: Engine) {
    with_app(AppConfig::real(engine).upstream_retries(0), async |app| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        for plan in ["free", "plus", "team", "enterprise", "platinum"] {
            let limit =
                json!({"error": {"type": "usage_limit_reached", "plan_type": plan, "resets_at": now + 7200}});
            let refusal = json!({"status": 429, "body": limit});
            let (_, error, _, message) = refused(app, "gpt-5.5", &format!("@@{refusal}@@")).await;
            assert_eq!(error["code"], "insufficient_quota", "{plan}: {message}");
            assert!(message.to_lowercase().contains("try again at "), "{plan}: {message}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn limits_of_the_real_cli_reach_status_and_error() {
    with_app(AppConfig::real(Engine::AppServer).upstream_retries(0), async |app| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let headers = |used: u32| {
            json!({"x-codex-primary-used-percent": used.to_string(), "x-codex-primary-window-minutes": "300",
                   "x-codex-primary-reset-at": (now + 7200).to_string()})
        };
        let primary = json!({"used_percent": 42, "window_minutes": 300, "reset_at": now + 7200});
        let good = json!({"text": "fine", "rate_limits": {"primary": primary}});
        app.complete(&body("gpt-5.5", &format!("@@{good}@@"))).await;
        let limits = app.status().await.account_limits.expect("limits");
        let window = &limits.windows[0];
        assert_eq!((window.limit_id.as_str(), window.used_percent as i64), ("codex", 42));
        assert_eq!(window.duration.unwrap().seconds, 18_000);
        assert_eq!(window.resets_at.unwrap().seconds.unsigned_abs(), now + 7200);

        let limit =
            json!({"error": {"type": "usage_limit_reached", "plan_type": "plus", "resets_at": now + 7200}});
        let refusal = json!({"status": 429, "body": limit});
        // Without headers, only Codex's own words have the time.
        let (headers_without, error, ..) = refused(app, "gpt-5.5", &format!("@@{refusal}@@")).await;
        assert!(!headers_without.contains_key("retry-after"));
        assert!(error["message"].as_str().unwrap().contains("try again at "), "{error}");
        let refusal = json!({"status": 429, "body": limit, "headers": headers(100)});
        assert_reset(app, "gpt-5.5", &format!("@@{refusal}@@"), 7200).await;
    })
    .await;
}
