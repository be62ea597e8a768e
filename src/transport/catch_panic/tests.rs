use axum::{Router, middleware::from_fn_with_state, routing};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use tonic::Code;
use tower::ServiceExt;

use super::*;
use crate::error::INTERNAL_TEXT;

/// Returns a body with one frame `text`, followed by a panic.
fn panicking(text: &'static str) -> Body {
    let frames = stream::iter([text, ""]).map(|text| {
        assert!(!text.is_empty(), "frame");
        Ok::<_, std::io::Error>(text)
    });
    Body::from_stream(frames)
}

async fn get(path: &str, content_type: &str) -> Response {
    let app = Router::new()
        .route("/now", routing::get(|| async { panic!("handler") as Response }))
        .route("/plain", routing::get(|| async { Response::new(panicking("half")) }))
        .route("/fine", routing::get(|| async { "fine" }))
        .route(
            "/events",
            routing::get(|| async {
                ([(header::CONTENT_TYPE, "text/event-stream")], panicking("data: 1\n\n"))
            }),
        )
        .layer(from_fn_with_state(
            ErrorRenderer { response: crate::http::refusal, event: crate::http::refusal_event },
            catch,
        ));
    let request = http::Request::get(path).header(header::CONTENT_TYPE, content_type).body(Body::empty());
    app.oneshot(request.unwrap()).await.unwrap()
}

fn check_object(text: &[u8]) {
    let object: serde_json::Value = serde_json::from_slice(text).unwrap();
    let expected = json!({"error": {
        "message": INTERNAL_TEXT, "type": "server_error", "param": null, "code": "internal_error",
    }});
    assert_eq!(object, expected);
}

#[tokio::test]
async fn catch_panic_in_a_handler_is_a_500_without_the_cause() {
    let response = get("/now", "application/json").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()["x-should-retry"], "false");
    check_object(&response.into_body().collect().await.unwrap().to_bytes());
}

#[tokio::test]
async fn catch_panic_in_a_grpc_handler_is_an_internal_status() {
    for content_type in ["application/grpc", "application/grpc+proto"] {
        let response = get("/now", content_type).await;
        assert_eq!(response.status(), StatusCode::OK);
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::Internal, INTERNAL_TEXT));
        assert!(http_body::Body::is_end_stream(response.body()));
    }
}

#[tokio::test]
async fn catch_panic_in_a_grpc_stream_ends_with_an_internal_status() {
    let mut body = get("/plain", "application/grpc").await.into_body();
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.data_ref().unwrap(), "half");
    assert!(!http_body::Body::is_end_stream(&body));
    let last = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    let status = Status::from_header_map(&last).unwrap();
    assert_eq!((status.code(), status.message()), (Code::Internal, INTERNAL_TEXT));
    assert!(http_body::Body::is_end_stream(&body));
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn catch_panic_in_an_event_stream_ends_with_an_error_event() {
    let body = get("/events", "application/json").await.into_body();
    let text = body.collect().await.unwrap().to_bytes();
    let rest = text.strip_prefix(b"data: 1\n\ndata: ").unwrap();
    check_object(rest.strip_suffix(b"\n\n").unwrap());
}

#[tokio::test]
async fn catch_panic_in_another_body_fails_the_body() {
    let mut body = get("/plain", "application/json").await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.frame().await.unwrap().is_err());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn catch_without_a_panic_keeps_body_and_length() {
    let response = get("/fine", "application/json").await;
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(4));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "fine");
}
