//! Request ids, the access log and panics, tested over the wire.

use std::{
    io,
    sync::{Arc, Mutex},
};

use codex_api::error::INTERNAL_TEXT;
use serde_json::Value;
use tonic::{Code, Request};
use tracing::subscriber::NoSubscriber;

use super::toy::{Server, chat, in_time, request_id};

#[tokio::test]
async fn panic_is_an_error_in_the_callers_protocol() {
    let server = Server::start(|_| {});
    let response = in_time(reqwest::get(server.url("/panic"))).await.unwrap();
    assert_eq!(response.status(), 500);
    let object: Value = in_time(response.json()).await.unwrap();
    assert_eq!(object["error"]["code"], "internal_error");

    let mut client = server.client().await;
    let status = in_time(client.chat(chat("panic"))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, INTERNAL_TEXT));
    // The connection still serves calls.
    in_time(client.chat(chat(""))).await.unwrap();
}

#[tokio::test]
async fn panic_in_a_stream_ends_it_with_an_error() {
    let server = Server::start(|_| {});
    let feed = server.feed();
    let mut http = in_time(reqwest::get(server.url("/events"))).await.unwrap();
    feed.send("fine").await.unwrap();
    assert_eq!(in_time(http.chunk()).await.unwrap().unwrap(), "data: fine\n\n");
    feed.send("panic").await.unwrap();
    let last = in_time(http.text()).await.unwrap();
    let object: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(object["error"]["message"], INTERNAL_TEXT);

    let feed = server.feed();
    let mut client = server.client().await;
    let mut grpc = in_time(client.stream_chat(chat(""))).await.unwrap().into_inner();
    feed.send("fine").await.unwrap();
    assert_eq!(in_time(grpc.message()).await.unwrap().unwrap().id, "fine");
    feed.send("panic").await.unwrap();
    let status = in_time(grpc.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, INTERNAL_TEXT));
}

#[tokio::test]
async fn request_id_is_returned_at_both_doors() {
    let server = Server::start(|_| {});
    let http = reqwest::Client::new();
    let response =
        in_time(http.get(server.url("/none")).header("x-request-id", "mine").send()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-request-id"]),
        (404, &"mine".parse().unwrap())
    );

    let mut client = server.client().await;
    let mut request = Request::new(chat(""));
    request.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
    let response = in_time(client.chat(request)).await.unwrap();
    assert_eq!((&*response.get_ref().id, &*request_id(response.metadata())), ("mine", "mine"));
    let generated = in_time(client.chat(chat(""))).await.unwrap();
    assert_eq!(request_id(generated.metadata()), generated.get_ref().id);
    assert!(generated.get_ref().id.starts_with("req_"));
    let status = in_time(client.chat(chat("panic"))).await.unwrap_err();
    assert!(request_id(status.metadata()).starts_with("req_"));
}

/// Collects the log lines of the thread of the test and its server.
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

/// hyper stops polling a body of known length after its last byte. The access log must not count that as a disconnect.
#[tokio::test]
async fn sent_response_is_not_logged_as_aborted() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter("codex_api::transport::access_log=debug,codex_api::error=debug")
        .with_writer(move || writer.clone());
    // With a single subscriber, tracing caches a callsite as disabled for all threads if a thread without a subscriber
    // reaches it first. A second dispatcher prevents that.
    let _another = tracing::Dispatch::new(NoSubscriber::default());
    let _guard = tracing::subscriber::set_default(subscriber.finish());

    let mut server = Server::start(|_| {});
    for client in
        [reqwest::Client::new(), reqwest::Client::builder().http2_prior_knowledge().build().unwrap()]
    {
        in_time(async { client.get(server.url("/hello")).send().await?.text().await }).await.unwrap();
        in_time(client.head(server.url("/hello")).send()).await.unwrap();
        in_time(async { client.get(server.url("/none")).send().await?.text().await }).await.unwrap();
        drop(server.feed());
        in_time(async { client.get(server.url("/events")).send().await?.text().await }).await.unwrap();
    }
    let mut client = server.client().await;
    in_time(client.chat(chat(""))).await.unwrap();
    in_time(client.chat(chat("panic"))).await.unwrap_err();
    server.drain.cancel();
    server.wait_until_stopped().await;

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let (access_lines, causes): (Vec<Value>, Vec<Value>) =
        lines.partition(|line: &Value| line["level"] != "ERROR");
    let logged: Vec<String> = access_lines
        .iter()
        .map(|line| {
            let field = |name: &str| line["fields"][name].to_string().replace('"', "");
            format!("{} {} {} {}", field("path"), field("status"), field("grpc_status"), field("outcome"))
        })
        .collect();
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert_eq!(causes[0]["fields"]["cause"], "panic: now");
    assert!(causes[0]["span"]["request.id"].as_str().unwrap().starts_with("req_"));
    let http = [
        "/hello 200 null ended",
        "/hello 200 null ended",
        "unmatched 404 null ended",
        "/events 200 null ended",
    ];
    let chat = "/codex.v1.CodexService/Chat";
    let grpc = [format!("{chat} 200 0 ended"), format!("{chat} 200 13 ended")];
    let expected: Vec<String> = http.iter().chain(&http).map(ToString::to_string).chain(grpc).collect();
    assert_eq!(logged, expected);
}
