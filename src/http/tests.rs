//! Tests of the facade over a scripted service: bodies compared with `tests/fixtures/openai`, errors of every kind,
//! authentication, the small routes.

use std::time::Duration;

use axum::body::Body;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode, header};
use serde_json::json;
use tonic::Status;

use super::test_service::*;
use crate::{
    config::Secret,
    context::Caller,
    error::Error,
    pb::{self, FinishReason, chat_event::Event},
};

const HELLO: &str = r#"{"model":"alias","messages":[{"role":"user","content":"hi"}]}"#;
const HELLO_STREAM: &str = r#"{"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

fn choice(index: u32, text: &str, finish_reason: FinishReason) -> pb::Choice {
    let finish_reason = finish_reason.into();
    pb::Choice { index, text: text.into(), finish_reason, ..pb::Choice::default() }
}

fn answer(choices: Vec<pb::Choice>, usage: Option<pb::Usage>) -> pb::ChatResponse {
    pb::ChatResponse {
        id: "chatcmpl-1".into(),
        created_unix_seconds: 1_700_000_000,
        model: "alias".into(),
        choices,
        usage,
        system_fingerprint: "codex-1.2.3".into(),
        ..pb::ChatResponse::default()
    }
}

fn tool_call() -> pb::ToolCall {
    pb::ToolCall { id: "call_1".into(), name: "get_time".into(), arguments: "{\"zone\": \"CET\"}".into() }
}

#[tokio::test]
async fn chat_unary_has_openais_shape() {
    let service =
        TestService::answering(Ok(answer(vec![choice(0, "Hé 👋\n", FinishReason::Stop)], Some(USAGE))));
    let response = send(&service, &config(), chat(HELLO)).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(!response.headers().contains_key("x-codex-ignored-params"));
    let (status, body) = read(response).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(json(&body), json(include_str!("../../tests/fixtures/openai/plain.json")));
}

#[tokio::test]
async fn chat_unary_choices_calls_and_reasoning_have_their_fields() {
    let reasoning = pb::Choice { reasoning: "Hm.".into(), ..choice(0, "cut", FinishReason::Length) };
    let calling = pb::Choice { tool_calls: vec![tool_call()], ..choice(1, "", FinishReason::ToolCalls) };
    let filtered = choice(2, "", FinishReason::ContentFilter);
    let mut all = answer(vec![reasoning, calling, filtered], None);
    all.system_fingerprint.clear();
    let (_, body) = read(send(&TestService::answering(Ok(all)), &config(), chat(HELLO)).await).await;
    assert_eq!(json(&body), json(include_str!("../../tests/fixtures/openai/choices.json")));
}

#[tokio::test]
async fn chat_stream_has_openais_shape() {
    let item = pb::Item { id: "item_1".into(), ..pb::Item::default() };
    let notice = pb::Notice { kind: pb::notice::Kind::Retry.into(), message: "Once\nmore.".into() };
    let events = vec![
        (0, Ok(Event::Notice(notice))),
        (0, Ok(Event::ReasoningDelta(pb::ReasoningDelta { text: "Hm.".into() }))),
        (0, text("Hé ")),
        (0, Ok(Event::Item(Box::new(item)))),
        (0, text("👋\n")),
        (0, finished(FinishReason::Stop)),
        (0, completed(Some(USAGE))),
    ];
    let with_usage = HELLO_STREAM.replace("true", "true,\"stream_options\":{\"include_usage\":true}");
    for (body, expected) in [
        (HELLO_STREAM, include_str!("../../tests/fixtures/openai/stream.sse")),
        (&with_usage, include_str!("../../tests/fixtures/openai/stream_usage.sse")),
    ] {
        let mut request = chat(body.to_owned());
        request.headers_mut().insert("x-codex-notices", "1".parse().unwrap());
        let response = send(&TestService::scripted(events.clone()), &config(), request).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert_eq!(read(response).await, (StatusCode::OK, expected.to_owned()));
        // Clients that did not ask for notices get lines of JSON only.
        let response = send(&TestService::scripted(events.clone()), &config(), chat(body.to_owned())).await;
        let (_, body) = read(response).await;
        assert!(body.lines().all(|line| line.is_empty() || line.starts_with("data: ")), "{body}");
        let frames = |body: &str| body.split("\n\n").filter(|frame| !frame.starts_with(':')).count();
        assert_eq!(frames(&body), frames(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn chat_stream_headers_select_notices_and_keep_alives() {
    let mut chunks = config();
    chunks.sse_keepalive_form = crate::config::KeepAliveForm::Chunk;
    let mut silent = config();
    silent.sse_keepalive = None;
    let comment = ": keep-alive\n\n";
    let is_chunk = |frame: &str| frame.starts_with("data: ") && frame.contains("\"delta\":{}");
    // The first frame after the roles, or `None` if the stream stays silent.
    for (config, header, expected) in [
        (&config(), None, Some("comment")),
        (&config(), Some("chunk"), Some("chunk")),
        (&config(), Some("off"), None),
        (&chunks, None, Some("chunk")),
        (&chunks, Some("comment"), Some("comment")),
        (&silent, Some("chunk"), None),
    ] {
        let events = stream::iter(framed(vec![])).chain(stream::pending());
        let mut request = chat(HELLO_STREAM);
        if let Some(header) = header {
            request.headers_mut().insert("x-codex-keepalive", header.parse().unwrap());
        }
        let response = send(&TestService::streaming(events), config, request).await;
        let mut body = response.into_body().into_data_stream();
        body.next().await.unwrap().unwrap();
        let frame = tokio::time::timeout(Duration::from_secs(60), body.next()).await;
        let frame = frame.ok().map(|frame| String::from_utf8(frame.unwrap().unwrap().to_vec()).unwrap());
        let found = frame.as_deref().map(|frame| match frame {
            frame if frame == comment => "comment",
            frame if is_chunk(frame) => "chunk",
            other => panic!("{other}"),
        });
        assert_eq!(found, expected, "{header:?}");
    }
    for (name, value) in [("x-codex-notices", "yes"), ("x-codex-keepalive", "json")] {
        let mut request = chat(HELLO_STREAM);
        request.headers_mut().insert(name, value.parse().unwrap());
        let (status, body) = read(send(&TestService::scripted(vec![]), &config(), request).await).await;
        assert_eq!((status, &json(&body)["error"]["param"]), (StatusCode::BAD_REQUEST, &name.into()));
    }
}

#[tokio::test]
async fn chat_unary_notices_are_an_extension() {
    let mut all = answer(vec![], None);
    let notice =
        |kind: pb::notice::Kind, message: &str| pb::Notice { kind: kind.into(), message: message.into() };
    all.notices = vec![notice(pb::notice::Kind::Warning, "Älter"), notice(pb::notice::Kind::Retry, "again")];
    let (_, body) = read(send(&TestService::answering(Ok(all.clone())), &config(), chat(HELLO)).await).await;
    let expected = serde_json::json!({"notices": [
        {"kind": "warning", "message": "Älter"}, {"kind": "retry", "message": "again"}]});
    assert_eq!(json(&body)["codex"], expected);
    all.notices.clear();
    let (_, body) = read(send(&TestService::answering(Ok(all)), &config(), chat(HELLO)).await).await;
    assert!(json(&body).get("codex").is_none());
}

#[tokio::test]
async fn chat_stream_choices_have_their_index() {
    let events = vec![
        (1, text("b")),
        (0, Ok(Event::ToolCall(tool_call()))),
        (0, Ok(Event::ToolCall(pb::ToolCall { id: "call_2".into(), ..tool_call() }))),
        (1, finished(FinishReason::Length)),
        (0, finished(FinishReason::ToolCalls)),
        (0, completed(None)),
    ];
    let body = HELLO_STREAM.replace("true", "true,\"n\":2,\"stream_options\":{\"include_usage\":true}");
    let response = send(&TestService::scripted(events), &config(), chat(body)).await;
    let expected = include_str!("../../tests/fixtures/openai/stream_choices.sse");
    assert_eq!(read(response).await, (StatusCode::OK, expected.to_owned()));
}

#[tokio::test]
async fn chat_stream_error_is_the_last_frame() {
    let failure = Error::TurnFailed { message: "the agent gave up".into() };
    let service = TestService::scripted(vec![(0, text("Hal")), (0, Err(failure.into())), (0, text("never"))]);
    let response = send(&service, &config(), chat(HELLO_STREAM)).await;
    let expected = include_str!("../../tests/fixtures/openai/stream_error.sse");
    assert_eq!(read(response).await, (StatusCode::OK, expected.to_owned()));
}

#[tokio::test]
async fn chat_stream_that_violates_the_contract_ends_with_an_internal_error() {
    for events in [
        vec![(0, text("no end"))],
        vec![(0, completed(None))],
        vec![(0, finished(FinishReason::Stop)), (0, text("late"))],
        vec![(7, text("no such choice"))],
    ] {
        let (_, body) = read(send(&TestService::scripted(events), &config(), chat(HELLO_STREAM)).await).await;
        let last = body.trim_end().rsplit("\n\n").next().unwrap();
        assert_eq!(json(last.strip_prefix("data: ").unwrap())["error"]["code"], "internal_error", "{body}");
        assert!(!body.contains("[DONE]"));
    }
}

#[tokio::test]
async fn chat_stream_failure_before_the_first_event_is_an_http_status() {
    let full =
        || Status::from(Error::Overloaded { message: "full".into(), retry_after: Duration::from_secs(2) });
    let before_the_call = TestService::refusing(full());
    let before_started = TestService::streaming(stream::iter([Err(full())]));
    for service in [before_the_call, before_started] {
        let response = send(&service, &config(), chat(HELLO_STREAM)).await;
        assert_eq!(response.headers()["retry-after"], "2");
        let (status, body) = read(response).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(json(&body)["error"]["code"], "overloaded");
    }
    let empty = send(&TestService::streaming(stream::empty()), &config(), chat(HELLO_STREAM)).await;
    assert_eq!(empty.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test(start_paused = true)]
async fn chat_stream_without_text_sends_head_and_comments() {
    let service = TestService::streaming(stream::iter(framed(vec![])).chain(stream::pending()));
    let response = send(&service, &config(), chat(HELLO_STREAM)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut frames = response.into_body().into_data_stream();
    let role = frames.next().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&role).unwrap().contains("\"role\":\"assistant\""));
    assert_eq!(frames.next().await.unwrap().unwrap(), ": keep-alive\n\n");
    assert_eq!(frames.next().await.unwrap().unwrap(), ": keep-alive\n\n");
}

#[tokio::test]
async fn chat_stream_dropped_body_drops_the_turn() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<pb::ChatEvent, Status>>(1);
    let rest = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let service = TestService::streaming(stream::iter(framed(vec![(0, text("a"))])).chain(rest));
    let response = send(&service, &config(), chat(HELLO_STREAM)).await;
    let mut frames = response.into_body().into_data_stream();
    frames.next().await.unwrap().unwrap();
    assert!(!sender.is_closed(), "the turn must live as long as its body");
    drop(frames);
    assert!(sender.is_closed());
}

#[tokio::test]
async fn chat_stream_ready_events_are_one_piece() {
    let mut events: Vec<_> = (0..40).map(|n| (0, text(&n.to_string()))).collect();
    events.push((0, finished(FinishReason::Stop)));
    events.push((0, completed(None)));
    let response = send(&TestService::scripted(events), &config(), chat(HELLO_STREAM)).await;
    assert_eq!(response.into_body().into_data_stream().count().await, 1);
}

#[tokio::test]
async fn chat_request_id_caller_and_time_limit_reach_the_service() {
    let service = TestService::answering(Ok(answer(vec![], None)));
    let mut config = config();
    config.token = Some(Secret::new("swordfish"));
    let mut request = chat(HELLO);
    for (name, value) in
        [("x-request-id", "r-1"), ("x-api-key", "swordfish"), ("x-codex-timeout-seconds", "2.5")]
    {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(send(&service, &config, request).await.status(), StatusCode::OK);
    let recorded = service.requests().remove(0);
    assert_eq!(recorded.request_id.as_deref(), Some("r-1"));
    assert_eq!(recorded.caller, Some(Caller::TokenHolder));
    assert_eq!(recorded.request.timeout, Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }));
    assert_eq!(recorded.request.model, "alias");
}

#[tokio::test]
async fn chat_ignored_parameters_are_in_the_header() {
    let ignored = |body: &str| body.replacen('{', "{\"temperature\":0,\"seed\":1,\"top_p\":null,", 1);
    let plain = TestService::answering(Ok(answer(vec![], None)));
    let streamed = TestService::scripted(vec![(0, finished(FinishReason::Stop)), (0, completed(None))]);
    for (service, body) in [(plain, HELLO), (streamed, HELLO_STREAM)] {
        let response = send(&service, &config(), chat(ignored(body))).await;
        assert_eq!(response.headers()["x-codex-ignored-params"], "seed, temperature");
    }
}

#[tokio::test]
async fn chat_error_of_the_core_contains_the_clients_field() {
    let refused = TestService::refusing(Error::invalid("messages[0].parts[1].image", "not a picture").into());
    let image = "{\"type\":\"image_url\",\"image_url\":\"data:image/png;base64,AAAA\"}";
    let body = format!(
        "{{\"messages\":[{{\"role\":\"user\",\"content\":[{{\"type\":\"text\",\"text\":\"\"}},{image}]}}]}}"
    );
    let (status, body) = read(send(&refused, &config(), chat(body)).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(json(&body)["error"]["param"], "messages[0].content[1].image_url");
}

#[tokio::test]
async fn chat_wrong_body_is_a_json_error() {
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for (body, http, code, param) in [
        ("", 400, "invalid_json", None),
        (" \n", 400, "invalid_json", None),
        ("{", 400, "invalid_json", None),
        ("{\"messages\":[}", 400, "invalid_json", None),
        ("[]", 400, "invalid_json", None),
        ("\"text\"", 400, "invalid_json", None),
        (&deep, 400, "invalid_value", Some("messages[0]")),
        ("{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}", 400, "invalid_json", None),
        ("{\"model\":\"\\ud800\",\"messages\":[]}", 400, "invalid_json", None),
        ("{} {}", 400, "invalid_json", None),
        ("{}", 400, "invalid_value", Some("messages")),
        ("{\"messages\":null}", 400, "invalid_value", Some("messages")),
        ("{\"messages\":\"hi\"}", 400, "invalid_value", Some("messages")),
        ("{\"messages\":[],\"n\":\"2\"}", 400, "invalid_value", Some("n")),
    ] {
        let (status, answer) =
            read(send(&TestService::listing(&[]), &config(), chat(body.to_owned())).await).await;
        let error = &json(&answer)["error"];
        assert_eq!(status.as_u16(), http, "{body}");
        assert_eq!(error["code"], code, "{body}: {error}");
        assert_eq!(error["param"], json!(param), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn router_without_a_token_refuses_all_routes_but_health() {
    let mut config = config();
    config.token = Some(Secret::new("swordfish"));
    let response = send(&TestService::listing(&[]), &config, chat(HELLO)).await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    let (status, body) = read(response).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let expected = json(include_str!("../../tests/fixtures/openai/unauthorized.json"));
    assert_eq!(json(&body), expected);
    for path in ["/v1/models", "/v1/models/m"] {
        assert_eq!(
            send(&TestService::listing(&["m"]), &config, get(path)).await.status(),
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(send(&TestService::listing(&[]), &config, get("/healthz")).await.status().as_u16(), 503);

    let mut rebound = get("/v1/models");
    rebound.headers_mut().insert(header::HOST, "evil.test".parse().unwrap());
    let (status, body) =
        read(send(&TestService::listing(&[]), &super::test_service::config(), rebound).await).await;
    assert_eq!((status, &json(&body)["error"]["code"]), (StatusCode::FORBIDDEN, &json!("host_refused")));
}

#[tokio::test]
async fn models_with_slashes_are_found() {
    let service = TestService::listing(&["gpt-5-codex", "acme/fast model"]);
    let (status, body) = read(send(&service, &config(), get("/v1/models")).await).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(json(&body), json(include_str!("../../tests/fixtures/openai/models.json")));
    for path in ["/v1/models/acme/fast%20model", "/v1/models/acme%2Ffast%20model"] {
        let (status, body) = read(send(&service, &config(), get(path)).await).await;
        assert_eq!((status, &json(&body)["id"]), (StatusCode::OK, &json!("acme/fast model")), "{path}");
    }
    let (status, body) = read(send(&service, &config(), get("/v1/models/nope")).await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(json(&body), json(include_str!("../../tests/fixtures/openai/model_not_found.json")));
}

#[tokio::test]
async fn health_not_ready_is_503_with_the_reason() {
    let ready = pb::GetStatusResponse {
        ready: true,
        demo: true,
        engine: "exec".into(),
        codex_version: "1.2.3".into(),
        server_version: "0.1.0".into(),
        running_turns: 2,
        waiting_turns: 1,
        ..pb::GetStatusResponse::default()
    };
    let draining = pb::GetStatusResponse {
        ready: false,
        draining: true,
        reason: "the server is shutting down".into(),
        codex_version: String::new(),
        ..ready.clone()
    };
    let (status, body) = read(send(&TestService::in_state(ready), &config(), get("/healthz")).await).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(json(&body), json(include_str!("../../tests/fixtures/openai/health.json")));
    let response = send(&TestService::in_state(draining), &config(), get("/healthz")).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let (status, body) = read(response).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json(&body), json(include_str!("../../tests/fixtures/openai/health_draining.json")));
}

#[tokio::test]
async fn status_has_the_limits_of_the_account_and_health_has_not() {
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 500 });
    let window = pb::LimitWindow {
        limit_id: "codex".into(),
        used_percent: 42.5,
        duration: Some(prost_types::Duration { seconds: 18_000, nanos: 0 }),
        resets_at: at(1_795_720_856),
    };
    let unknown = pb::LimitWindow { duration: None, resets_at: None, ..window.clone() };
    let limits = pb::AccountLimits {
        plan_type: "pro".into(),
        windows: vec![window, unknown],
        credits: Some(pb::Credits { has_credits: true, unlimited: false, balance: "12.50".into() }),
        read_at: at(1_795_700_000),
    };
    let status = pb::GetStatusResponse {
        reason: "no CLI".into(),
        account_limits: Some(limits),
        ..pb::GetStatusResponse::default()
    };
    let service = TestService::in_state(status);
    let response = send(&service, &config(), get("/v1/codex/status")).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    let (status, body) = read(response).await;
    assert_eq!((status, &json(&body)["reason"]), (StatusCode::OK, &json!("no CLI")));
    let expected = json!({
        "plan_type": "pro",
        "windows": [
            {"limit_id": "codex", "used_percent": 42.5, "window_seconds": 18_000, "resets_at": 1_795_720_856},
            {"limit_id": "codex", "used_percent": 42.5, "window_seconds": null, "resets_at": null},
        ],
        "credits": {"has_credits": true, "unlimited": false, "balance": "12.50"},
        "read_at": 1_795_700_000,
    });
    assert_eq!(json(&body)["account_limits"], expected);
    let (_, body) = read(send(&service, &config(), get("/healthz")).await).await;
    assert!(!body.contains("12.50") && !body.contains("limits"), "{body}");
    let (_, body) = read(send(&TestService::listing(&[]), &config(), get("/v1/codex/status")).await).await;
    assert_eq!(json(&body)["account_limits"], json!(null));
}

#[tokio::test]
async fn router_unknown_method_or_path_is_a_json_error() {
    let service = TestService::listing(&["m"]);
    for (method, path, allow) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET,HEAD"),
        ("POST", "/v1/models/m", "GET,HEAD"),
        ("POST", "/healthz", "GET,HEAD"),
    ] {
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        let response = send(&service, &config(), request).await;
        assert_eq!(response.headers()["allow"], allow, "{path}");
        let (status, body) = read(response).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(json(&body)["error"]["code"], "method_not_allowed");
    }
    let mut head = get("/v1/models");
    *head.method_mut() = http::Method::HEAD;
    assert_eq!(read(send(&service, &config(), head).await).await, (StatusCode::OK, String::new()));

    let request = get("/v1/nope");
    let (status, body) = read(super::not_found(request.method(), request.uri())).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(json(&body), json(include_str!("../../tests/fixtures/openai/unknown_url.json")));
}

#[tokio::test]
async fn cors_only_listed_origins_are_allowed() {
    let mut config = config();
    let preflight = |origin: &str| {
        Request::options("/v1/chat/completions")
            .header(header::HOST, "localhost:8000")
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,x-stainless-os")
            .body(Body::empty())
            .unwrap()
    };
    let service = TestService::listing(&["m"]);
    let off = send(&service, &config, preflight("https://app.test")).await;
    assert!(!off.headers().contains_key("access-control-allow-origin"));

    config.cors_origins = vec!["https://app.test".into()];
    config.token = Some(Secret::new("swordfish"));
    // A preflight has no token.
    let on = send(&service, &config, preflight("https://app.test")).await;
    assert_eq!(on.status(), StatusCode::OK);
    assert_eq!(on.headers()["access-control-allow-origin"], "https://app.test");
    assert_eq!(on.headers()["access-control-allow-headers"], "authorization,x-stainless-os");
    let other = send(&service, &config, preflight("https://evil.test")).await;
    assert!(!other.headers().contains_key("access-control-allow-origin"));

    let call = |origin: &str| {
        let mut request = get("/v1/models");
        request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
        request.headers_mut().insert("x-api-key", "swordfish".parse().unwrap());
        request
    };
    let allowed = send(&service, &config, call("https://app.test")).await;
    assert_eq!(allowed.status(), StatusCode::OK);
    let exposed = allowed.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(["x-request-id", "x-codex-ignored-params", "retry-after"].iter().all(|h| exposed.contains(h)));
    // The token is proof enough, but a browser shows the answer to listed origins only.
    let foreign = send(&service, &config, call("https://evil.test")).await;
    assert_eq!(foreign.status(), StatusCode::OK);
    assert!(!foreign.headers().contains_key("access-control-allow-origin"));
}
