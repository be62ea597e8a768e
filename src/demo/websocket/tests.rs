//! Tests of WebSockets over real connections.

use std::time::Duration;

use futures_util::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, error::ProtocolError},
};

use crate::demo::{Transport, Upgrade, Upstream, WebSocketEnd};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A WebSocket of a client. Each wait has a time limit.
struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn try_open(upstream: &Upstream) -> Result<Self, Error> {
        let tcp = TcpStream::connect(upstream.address).await.expect("connects");
        let url = format!("ws://{}/v1/responses", upstream.address);
        let (socket, _) = timeout(TIMEOUT, client_async(url, tcp)).await.expect("in time")?;
        Ok(Self(socket))
    }

    async fn open(upstream: &Upstream) -> Self {
        Self::try_open(upstream).await.expect("the upgrade")
    }

    /// Sends a text frame. `SinkExt` needs a feature that the crate does not use.
    async fn send(&mut self, frame: &Value) {
        let mut sink = std::pin::Pin::new(&mut self.0);
        let text = Message::Text(frame.to_string().into());
        std::future::poll_fn(|context| futures_util::Sink::poll_ready(sink.as_mut(), context)).await.unwrap();
        futures_util::Sink::start_send(sink.as_mut(), text).unwrap();
        std::future::poll_fn(|context| futures_util::Sink::poll_flush(sink.as_mut(), context)).await.unwrap();
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        timeout(TIMEOUT, self.0.next()).await.expect("in time")
    }

    async fn frame(&mut self) -> Value {
        match self.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("not a text frame: {other:?}"),
        }
    }

    /// Returns the events of a response, or a single error frame.
    async fn response(&mut self, request: &Value) -> Vec<Value> {
        self.send(request).await;
        let mut events = vec![self.frame().await];
        let is_last = |event: &Value| {
            let name = event["type"].as_str().unwrap_or_default();
            name == "error" || super::plan::is_end(name)
        };
        while !events.last().is_some_and(is_last) {
            events.push(self.frame().await);
        }
        events
    }

    /// Sends a request and returns the frames before the end of the connection, and the end.
    async fn until_end(&mut self, text: &str) -> (Vec<Value>, Option<Result<Message, Error>>) {
        self.send(&create(text)).await;
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Some(Ok(Message::Text(text))) => frames.push(serde_json::from_str(&text).expect("JSON")),
                end => return (frames, end),
            }
        }
    }
}

async fn start() -> Upstream {
    Upstream::start().await.expect("listens")
}

fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}

fn create(text: &str) -> Value {
    json!({"type": "response.create", "model": "m", "stream": true, "input": [user(text)]})
}

fn names(events: &[Value]) -> Vec<&str> {
    let names = events.iter().map(|event| event["type"].as_str().expect("a type"));
    names.map(|name| name.trim_start_matches("response.")).collect()
}

fn text_of(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}

fn id_of(events: &[Value]) -> Value {
    events[0]["response"]["id"].clone()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = timeout(TIMEOUT, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

#[track_caller]
fn assert_closed(end: Option<Result<Message, Error>>, code: u16) {
    match end {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), code),
        other => panic!("no close frame: {other:?}"),
    }
}

#[tokio::test]
async fn response_has_the_events_of_http_and_is_recorded() {
    let upstream = start().await;
    let text = r#"@@ {"text":"a b","reasoning":"r","calls":[{"name":"f"}]} @@"#;
    let mut client = Client::open(&upstream).await;
    let events = client.response(&create(text)).await;
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).map(Some).collect::<Vec<_>>());

    let mut body = create(text);
    body.as_object_mut().expect("an object").remove("type");
    let url = format!("{}/responses", upstream.base_url());
    let response = reqwest::Client::new().post(url).json(&body).send().await.expect("an answer");
    let sse = response
        .text()
        .await
        .expect("a body")
        .replace("_2_", "_1_")
        .replace("resp_2", "resp_1")
        .replace("encrypted-2", "encrypted-1");
    let sse = sse.lines().filter_map(|line| line.strip_prefix("data: "));
    let over_http: Vec<Value> = sse.map(|data| serde_json::from_str(data).expect("JSON")).collect();
    assert_eq!(over_http, events);

    let [first, second] = upstream.requests().try_into().expect("two requests");
    assert_eq!((first.transport, second.transport), (Transport::WebSocket, Transport::Http));
    assert_eq!(first.body, second.body, "the body has the shape of HTTP");
    assert!(!first.is_warm_up() && first.headers.is_empty(), "{first:?}");
    until("no response is open", || upstream.open_responses() == 0).await;
}

#[tokio::test]
async fn response_that_continues_another_sees_the_whole_conversation() {
    let upstream = start().await;
    let mut client = Client::open(&upstream).await;
    let mut warm_up = create("");
    warm_up["input"] = json!([]);
    warm_up["generate"] = json!(false);
    let warm = client.response(&warm_up).await;
    assert_eq!(names(&warm), ["created", "completed"]);

    let mut first = create(r#"@@ [{"text":"look","calls":[{"name":"f"}]},{"text":"two"}] @@"#);
    first["previous_response_id"] = id_of(&warm);
    let called = client.response(&first).await;
    let call = called.iter().rev().find(|event| event["item"]["type"] == "function_call").expect("a call");
    assert_eq!((&call["item"]["call_id"], text_of(&called).as_str()), (&json!("call_s0_2_0"), "look"));

    let output = json!({"type": "function_call_output", "call_id": "call_s0_2_0", "output": "x"});
    let mut second = create("");
    second["input"] = json!([output]);
    second["previous_response_id"] = id_of(&called);
    assert_eq!(text_of(&client.response(&second).await), "two");

    let requests = upstream.requests();
    assert_eq!(
        requests.iter().map(|r| (r.round, r.is_warm_up())).collect::<Vec<_>>(),
        [(0, true), (0, false), (1, false)]
    );
    let kinds = requests[2].body["input"].as_array().expect("items").iter();
    let kinds: Vec<_> = kinds.map(|item| item["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["message", "message", "function_call", "function_call_output"]);
    assert_eq!(requests[2].body["previous_response_id"], id_of(&called));
}

#[tokio::test]
async fn response_to_an_unknown_previous_response_is_an_error_frame() {
    let upstream = start().await;
    let mut client = Client::open(&upstream).await;
    let failed = client.response(&create(r#"@@ {"failed":{"code":"server_error","message":"m"}} @@"#)).await;
    // A failed response cannot be continued, nor can a response of another connection.
    for id in [id_of(&failed), json!("resp_9")] {
        let mut request = create("hi");
        request["previous_response_id"] = id.clone();
        let [error] = client.response(&request).await.try_into().expect("one frame");
        assert_eq!((&error["type"], &error["status"]), (&json!("error"), &json!(400)));
        assert_eq!(error["error"]["code"], "previous_response_not_found");
        assert_eq!(error["error"]["param"], "previous_response_id");
        let message = error["error"]["message"].as_str().expect("a text");
        assert!(message.contains(id.as_str().expect("an id")), "{message}");
    }
    assert_eq!(upstream.requests().len(), 1, "the others did not reach the script");
    assert_eq!(text_of(&client.response(&create(r#"@@ {"text":"on"} @@"#)).await), "on");
}

#[tokio::test]
async fn response_with_status_is_an_error_frame_and_the_connection_stays() {
    let upstream = start().await;
    let mut client = Client::open(&upstream).await;
    for (step, expected) in [
        (
            json!({"status": 429, "headers": {"retry-after": "2"}, "body": {"error": {"code": "slow"}}}),
            json!({"type": "error", "status": 429, "error": {"code": "slow"}, "headers": {"retry-after": "2"}}),
        ),
        (
            json!({"status": 503, "body": "<html>busy</html>"}),
            json!({"type": "error", "status": 503, "error": {"message": "<html>busy</html>"}}),
        ),
        (
            json!({"status": 500}),
            json!({"type": "error", "status": 500, "error": {"message": "a scripted error", "type": "server_error",
                "param": null, "code": "scripted"}}),
        ),
        (
            json!({"ws": {"frame": {"type": "error", "code": "server_error", "message": "flat"}}, "text": "x"}),
            json!({"type": "error", "code": "server_error", "message": "flat"}),
        ),
    ] {
        assert_eq!(client.response(&create(&format!("@@ {step} @@"))).await, [expected]);
    }
    let [error] = client.response(&create("@@ [oops @@")).await.try_into().expect("one frame");
    assert_eq!((&error["status"], &error["error"]["code"]), (&json!(400), &json!("invalid_directive")));
    let [error] = client.response(&json!({"type": "response.stop"})).await.try_into().expect("one frame");
    assert_eq!((&error["status"], &error["error"]["param"]), (&json!(400), &json!("type")));
    let text = r#"@@ {"status":500,"times":1,"then":{"text":"ok"}} @@"#;
    assert_eq!(names(&client.response(&create(text)).await), ["error"]);
    assert_eq!(text_of(&client.response(&create(text)).await), "ok");
}

#[tokio::test]
async fn response_with_an_early_end_delivers_earlier_events() {
    let upstream = start().await;
    let until_end =
        async |step: Value| Client::open(&upstream).await.until_end(&format!("@@ {step} @@")).await;
    let (frames, end) = until_end(json!({"text": "a b c", "cut_after": 2})).await;
    assert_eq!(text_of(&frames), "a b ");
    assert!(
        matches!(end, Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)))),
        "{end:?}"
    );
    let (frames, end) = until_end(json!({"text": "a b c", "cut_after": 2, "ws": {"close": 1011}})).await;
    assert_eq!(text_of(&frames), "a b ");
    assert_closed(end, 1011);
    let (frames, end) = until_end(json!({"text": "a b", "cut_after_events": 2, "ws": {"reset": true}})).await;
    assert_eq!(names(&frames), ["created", "output_item.added"]);
    let Some(Err(Error::Io(error))) = end else { panic!("no reset: {end:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let (frames, end) = until_end(json!({"text": "a b", "ws": {"close": 1008}})).await;
    assert_eq!(frames, Vec::<Value>::new());
    assert_closed(end, 1008);
    let (frames, end) = until_end(json!({"text": "a b", "eof": true})).await;
    assert_eq!((text_of(&frames).as_str(), names(&frames).contains(&"completed")), ("a b", false));
    assert_closed(end, 1000);

    // A frame in the middle ends the response but not the connection.
    let mut client = Client::open(&upstream).await;
    let step = json!({"text": "a b", "cut_after": 1, "ws": {"frame": {"type": "error", "error": {}}}});
    let events = client.response(&create(&format!("@@ {step} @@"))).await;
    assert_eq!(names(&events), ["created", "output_item.added", "output_text.delta", "error"]);
    assert_eq!(text_of(&client.response(&create(r#"@@ {"text":"on"} @@"#)).await), "on");
}

#[tokio::test]
async fn rate_limits_are_an_event_or_headers() {
    let upstream = start().await;
    let mut client = Client::open(&upstream).await;
    let primary = json!({"used_percent": 77.5, "window_minutes": 300, "reset_at": 1_800_000_000});
    let secondary = json!({"used_percent": 100, "window_minutes": 10080, "reset_at": 1_900_000_000});
    let step = json!({"text": "a", "rate_limits": {"primary": primary, "secondary": secondary}});
    let events = client.response(&create(&format!("@@ {step} @@"))).await;
    assert_eq!(events[0]["type"], "codex.rate_limits");
    let limits = &events[0]["rate_limits"];
    assert_eq!((&limits["primary"], &limits["limit_reached"]), (&primary, &json!(true)));
    assert_eq!(limits["secondary"]["reset_at"], 1_900_000_000);
    assert_eq!((text_of(&events).as_str(), events.len()), ("a", 6));

    let expected = json!({"x-codex-primary-used-percent": "77.5", "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": "1800000000", "x-codex-secondary-used-percent": "100",
        "x-codex-secondary-window-minutes": "10080", "x-codex-secondary-reset-at": "1900000000"});
    let mut refused = step.clone();
    refused["status"] = json!(429);
    let [error] = client.response(&create(&format!("@@ {refused} @@"))).await.try_into().expect("one frame");
    assert_eq!(error["headers"], expected);

    let body = json!({"stream": true, "input": format!("@@ {step} @@")});
    let url = format!("{}/responses", upstream.base_url());
    let response = reqwest::Client::new().post(url).json(&body).send().await.expect("an answer");
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(response.headers()[name.as_str()], value.as_str().expect("a text"));
    }
    assert!(!response.text().await.expect("a body").contains("codex.rate_limits"));
}

#[tokio::test]
async fn upgrade_is_answered_as_set_and_counted() {
    let upstream = start().await;
    let refused = |outcome: Result<Client, Error>| match outcome {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    };
    for status in [400, 403, 404, 405, 426, 500, 502, 503] {
        upstream.set_upgrade(Upgrade::Refuse(StatusCode::from_u16(status).expect("a status")));
        assert_eq!(refused(Client::try_open(&upstream).await), status);
    }
    upstream.set_upgrade(Upgrade::Drop);
    let dropped = Client::try_open(&upstream).await;
    assert!(
        matches!(dropped, Err(Error::Protocol(ProtocolError::HandshakeIncomplete))),
        "{:?}",
        dropped.err()
    );
    upstream.set_upgrade(Upgrade::Close(1008));
    let closed = Client::open(&upstream).await.next().await;
    assert_closed(closed, 1008);
    upstream.set_upgrade(Upgrade::Hang);
    let mut hanging = Box::pin(Client::try_open(&upstream));
    tokio::select! {
        _ = &mut hanging => panic!("it must hang"),
        () = until("the upgrade arrives", || upstream.upgrades() == 11) => {}
    }
    drop(hanging);
    upstream.set_upgrade(Upgrade::Accept);
    let mut client = Client::open(&upstream).await;
    assert_eq!(text_of(&client.response(&create(r#"@@ {"text":"ok"} @@"#)).await), "ok");
    assert_eq!(upstream.upgrades(), 12);
    upstream.clear();
    assert_eq!(upstream.upgrades(), 0);
}

#[tokio::test]
async fn response_of_a_dropped_websocket_is_closed() {
    let upstream = start().await;
    for step in [r#"{"tokens":1000000,"delay_ms":1}"#, r#"{"hang_before_ms":600000}"#] {
        let mut client = Client::open(&upstream).await;
        client.send(&create(&format!("@@ {step} @@"))).await;
        until("the response is open", || upstream.open_responses() == 1).await;
        drop(client);
        until("the response is closed", || upstream.open_responses() == 0).await;
    }
}

#[tokio::test]
async fn requests_during_a_response_are_answered_in_order_and_bounded() {
    let upstream = start().await;
    let mut client = Client::open(&upstream).await;
    client.send(&create(r#"@@ {"text":"a b","delay_ms":1} @@"#)).await;
    client.send(&create(r#"@@ {"text":"second"} @@"#)).await;
    let mut events = Vec::new();
    while events.iter().filter(|event: &&Value| event["type"] == "response.completed").count() < 2 {
        events.push(client.frame().await);
    }
    assert_eq!(text_of(&events), "a bsecond");

    for _ in 0..12 {
        client.send(&create(r#"@@ {"hang_before_ms":600000} @@"#)).await;
    }
    assert_closed(client.next().await, 1008);
}

#[tokio::test]
async fn frame_larger_than_a_body_ends_the_connection() {
    let upstream = start().await;
    let mut client = Client::open(&upstream).await;
    // Only the head of the frame: its length alone is refused.
    let tcp = client.0.get_mut();
    let length = u64::try_from(super::routes::MAX_BODY_BYTES).expect("fits") + 1;
    let head = [&[0x81, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    tokio::io::AsyncWriteExt::write_all(tcp, &head).await.expect("sent");
    let end = client.next().await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

#[tokio::test]
async fn upstream_when_dropped_closes_its_websockets() {
    let upstream = start().await;
    let (mut idle, mut busy) = (Client::open(&upstream).await, Client::open(&upstream).await);
    busy.send(&create(r#"@@ {"text":"a","hang_after_ms":600000} @@"#)).await;
    assert_eq!(busy.frame().await["type"], "response.created");
    drop(upstream);
    for client in [&mut idle, &mut busy] {
        let end = client.next().await;
        assert!(matches!(end, Some(Err(_))), "{end:?}");
    }
}

#[tokio::test]
async fn end_websockets_ends_the_open_ones_only() {
    let upstream = start().await;
    let mut closed = Client::open(&upstream).await;
    closed.response(&create("hi")).await;
    upstream.end_websockets(WebSocketEnd::Close(1001));
    assert_closed(closed.next().await, 1001);

    let mut reset = Client::open(&upstream).await;
    reset.response(&create("hi")).await;
    upstream.end_websockets(WebSocketEnd::Reset);
    assert!(matches!(reset.next().await, Some(Err(Error::Io(_)))));

    let mut silent = Client::open(&upstream).await;
    silent.response(&create("hi")).await;
    upstream.end_websockets(WebSocketEnd::Silence);
    silent.send(&create("hi")).await;
    let mut later = Client::open(&upstream).await;
    later.response(&create("hi")).await;
    assert_eq!(upstream.requests().len(), 4, "the silent one does not answer");
    assert!(timeout(Duration::ZERO, silent.0.next()).await.is_err());
}
