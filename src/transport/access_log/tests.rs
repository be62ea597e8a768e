use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use axum::{
    Router,
    middleware::from_fn,
    routing::{any, get, post},
};
use futures_util::{FutureExt, StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tracing::{
    Dispatch,
    subscriber::{DefaultGuard, NoSubscriber},
};

use super::*;

/// The lines that this thread logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn start() -> (Self, DefaultGuard) {
        // With a single subscriber, tracing disables an event for all threads if a test without one reaches it first.
        static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
        LazyLock::force(&ANOTHER);
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    fn get(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the only line: level, request id, fields without the times.
    fn one(&self) -> (String, String, Value) {
        let lines = self.get();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let mut fields = lines[0]["fields"].clone();
        let map = fields.as_object_mut().unwrap();
        assert!(map.remove("duration_ms").unwrap().is_u64());
        map.remove("head_ms");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&lines[0]["level"]), text(&lines[0]["span"]["request.id"]), fields)
    }
}

fn endless() -> Body {
    Body::from_stream(stream::once(async { Ok::<_, io::Error>("first") }).chain(stream::pending()))
}

fn app() -> Router {
    let with_trailers = || async {
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("9"))]);
        let frames = [Ok::<_, io::Error>(Frame::data(Bytes::from("x"))), Ok(Frame::trailers(trailers))];
        Response::new(Body::new(http_body_util::StreamBody::new(stream::iter(frames))))
    };
    Router::new()
        .route("/sized/{name}", get(|| async { "sized" }))
        .route("/bad", any(|| async { StatusCode::BAD_REQUEST }))
        .route("/stream", get(|| async { Response::new(endless()) }))
        .route("/never", get(std::future::pending::<Response>))
        .route("/echo", get(|headers: HeaderMap| async move { headers[REQUEST_ID].as_bytes().to_vec() }))
        .route("/a.Service/{*rest}", post(with_trailers))
        .route(
            "/b.Service/{*rest}",
            post(|| async { tonic::Status::unimplemented("").into_http::<String>().map(Body::from) }),
        )
        .layer(from_fn(log))
}

fn request(method: Method, path: &str) -> Request {
    http::Request::builder().method(method).uri(path).header(REQUEST_ID, "id-1").body(Body::empty()).unwrap()
}

async fn answer(method: Method, path: &str) -> Response {
    app().oneshot(request(method, path)).await.unwrap()
}

#[tokio::test]
async fn log_ended_body_writes_one_line() {
    let (lines, _guard) = Lines::start();
    let mut response = answer(Method::GET, "/sized/secret").await;
    assert!(lines.get().is_empty());
    // Like hyper: no poll after the last frame.
    response.body_mut().frame().await.unwrap().unwrap();
    let (level, id, fields) = lines.one();
    assert_eq!((&*level, &*id), ("DEBUG", "id-1"));
    let expected = serde_json::json!({
        "message": "request", "method": "GET", "path": "/sized/{name}", "status": 200, "outcome": "ended",
    });
    assert_eq!(fields, expected);
    drop(response);
    lines.one();
}

#[tokio::test]
async fn log_empty_or_unsent_body_ends_with_the_head() {
    for (method, path, status) in [(Method::POST, "/bad", 400), (Method::HEAD, "/sized/x", 200)] {
        let (lines, _guard) = Lines::start();
        let response = answer(method, path).await;
        let (level, _, fields) = lines.one();
        assert_eq!(level, if status == 400 { "INFO" } else { "DEBUG" });
        assert_eq!((&fields["status"], &fields["outcome"]), (&status.into(), &"ended".into()));
        drop(response);
        lines.one();
    }
}

#[tokio::test]
async fn log_disconnect_before_or_after_the_head_is_aborted() {
    let (lines, _guard) = Lines::start();
    assert!(answer(Method::GET, "/never").now_or_never().is_none());
    let (_, id, fields) = lines.one();
    assert_eq!((&*id, &fields["outcome"], &fields["status"]), ("id-1", &"aborted".into(), &Value::Null));

    let (lines, _guard) = Lines::start();
    let mut response = answer(Method::GET, "/stream").await;
    response.body_mut().frame().await.unwrap().unwrap();
    assert!(lines.get().is_empty());
    drop(response);
    let (_, id, fields) = lines.one();
    assert_eq!((&*id, &fields["outcome"], &fields["status"]), ("id-1", &"aborted".into(), &200.into()));
}

#[tokio::test]
async fn log_grpc_status_in_trailers_or_head_is_read() {
    let (lines, _guard) = Lines::start();
    answer(Method::POST, "/a.Service/Method").await.into_body().collect().await.unwrap();
    let (level, _, fields) = lines.one();
    assert_eq!((&*level, &fields["grpc_status"]), ("INFO", &9.into()));
    assert_eq!((&fields["path"], &fields["outcome"]), (&"/a.Service/Method".into(), &"ended".into()));

    let (lines, _guard) = Lines::start();
    answer(Method::POST, "/b.Service/chosen-by-the-caller").await;
    let (level, _, fields) = lines.one();
    assert_eq!((&*level, &fields["grpc_status"]), ("INFO", &12.into()));
    assert_eq!(fields["path"], "/b.Service/{*rest}");
}

#[tokio::test]
async fn log_unknown_path_is_unmatched() {
    let (lines, _guard) = Lines::start();
    answer(Method::GET, "/chosen-by-the-caller").await;
    assert_eq!(lines.one().2["path"], "unmatched");
}

#[tokio::test]
async fn log_invalid_request_id_is_replaced() {
    let longest = "x".repeat(128);
    let too_long = "x".repeat(129);
    let kept =
        [("a", true), (&*longest, true), (&*too_long, false), ("", false), ("a b", false), ("\u{e9}", false)];
    for (id, keep) in kept {
        let value = HeaderValue::from_bytes(id.as_bytes()).unwrap();
        let mut request = request(Method::GET, "/echo");
        request.headers_mut().insert(REQUEST_ID, value.clone());
        let response = app().oneshot(request).await.unwrap();
        let out = response.headers()[REQUEST_ID].clone();
        let handled = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(out.as_bytes(), &handled, "handler and caller get the same id");
        assert_eq!(out == value, keep, "{id:?}");
        let created = out.to_str().unwrap_or_default().strip_prefix("req_").map(str::len);
        assert!(keep || created == Some(32), "{out:?}");
    }
}
