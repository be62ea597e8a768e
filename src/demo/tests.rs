//! Tests of the server over real connections.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Upstream, routes};

/// A client of a running upstream with time limits.
struct Client {
    upstream: Upstream,
    http: reqwest::Client,
}

impl Client {
    async fn start() -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
        Self { upstream: Upstream::start().await.expect("listens"), http }
    }

    async fn send_text(&self, text: &str) -> reqwest::Response {
        let input =
            json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}]);
        self.post(json!({"model": "m", "stream": true, "input": input})).await
    }

    async fn post(&self, body: Value) -> reqwest::Response {
        let url = format!("{}/responses", self.upstream.base_url());
        self.http.post(url).bearer_auth("any").json(&body).send().await.expect("an answer")
    }

    /// Returns the events of an answer, and whether the stream ended properly.
    async fn events(&self, text: &str) -> (Vec<Value>, bool) {
        read(self.send_text(text).await).await
    }

    /// Waits until no response is open.
    async fn all_closed(&self) {
        let closed = async {
            while self.upstream.open_responses() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed).await.expect("all responses are closed");
    }
}

async fn read(response: reqwest::Response) -> (Vec<Value>, bool) {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut text, mut proper) = (String::new(), true);
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => text.push_str(std::str::from_utf8(&chunk).expect("UTF-8")),
            Err(_) => proper = false,
        }
    }
    (events_of(&text), proper)
}

fn events_of(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn text_of(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}

#[tokio::test]
async fn response_numbers_events_and_records_the_request() {
    let client = Client::start().await;
    let (events, proper) = client.events(r#"@@ [{"text":"a b"}] @@"#).await;
    assert!(proper);
    assert_eq!(text_of(&events), "a b");
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).map(Some).collect::<Vec<_>>());
    assert_eq!(events.last().expect("an end")["type"], "response.completed");

    let requests = client.upstream.requests();
    assert_eq!((requests.len(), requests[0].round), (1, 0));
    assert_eq!(requests[0].headers["authorization"], "Bearer any");
    assert_eq!(requests[0].body["model"], "m");
    client.upstream.clear();
    assert!(client.upstream.requests().is_empty());
}

// Without sockets, so that the paused clock advances only between words.
#[tokio::test(start_paused = true)]
async fn response_without_directive_is_the_canned_answer_with_delays() {
    let body = json!({"model": "m", "stream": true, "input": "hello there"}).to_string();
    let request = http::Request::post("/v1/responses").body(Body::from(body)).expect("a request");
    let began = tokio::time::Instant::now();
    let response = routes::router(Arc::default()).oneshot(request).await.expect("an answer");
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let text = text_of(&events_of(std::str::from_utf8(&body).expect("UTF-8")));
    assert!(text.contains("“hello there”"), "{text}");
    let words = u32::try_from(text.split_inclusive(' ').count()).expect("few words");
    assert_eq!(began.elapsed(), Duration::from_millis(20) * words);
}

#[tokio::test]
async fn response_to_a_schema_is_an_instance() {
    let client = Client::start().await;
    let mut schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    schema["additionalProperties"] = json!(false);
    let format = json!({"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": true}});
    let (events, _) =
        read(client.post(json!({"model": "m", "stream": true, "input": "hi", "text": format})).await).await;
    assert_eq!(text_of(&events), r#"{"n":1}"#);

    let mut loose = format.clone();
    loose["format"]["schema"]["additionalProperties"] = json!(true);
    let refused = client.post(json!({"stream": true, "input": "hi", "text": loose})).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().await.expect("JSON")["error"]["code"], "invalid_json_schema");

    let (events, _) = client.events(r#"@@ {"echo":true} @@"#).await;
    let echo: Value = serde_json::from_str(&text_of(&events)).expect("JSON");
    assert_eq!((&echo["model"], &echo["input_items"], &echo["round"]), (&json!("m"), &json!(1), &json!(0)));
}

#[tokio::test]
async fn response_of_a_later_round_is_the_later_step() {
    let client = Client::start().await;
    let user = json!({"role": "user", "content": r#"@@ [{"calls":[{"name":"f"}]},{"text":"two"}] @@"#});
    let round = |calls: &[&str]| {
        let outputs =
            calls.iter().map(|id| json!({"type": "function_call_output", "call_id": id, "output": "x"}));
        let input: Vec<_> = std::iter::once(user.clone()).chain(outputs).collect();
        client.post(json!({"model": "m", "stream": true, "input": input}))
    };
    let (events, _) = read(round(&[]).await).await;
    let done = events.iter().find(|event| event["type"] == "response.output_item.done").expect("a call");
    assert_eq!(done["item"]["call_id"], "call_s0_1_0");
    let (events, _) = read(round(&["call_s0_1_0"]).await).await;
    assert_eq!(text_of(&events), "two");
    let (events, _) = read(round(&["call_s0_1_0", "call_s1_2_0"]).await).await;
    assert_eq!(text_of(&events), "(script over)");
}

#[tokio::test]
async fn response_with_cut_delivers_earlier_deltas_and_breaks() {
    let client = Client::start().await;
    let (events, proper) = client.events(r#"@@ {"text":"a b c","cut_after":2} @@"#).await;
    assert!(!proper, "the transfer must not end properly");
    assert_eq!(text_of(&events), "a b ");
    let (events, proper) = client.events(r#"@@ {"text":"a b c","eof":true} @@"#).await;
    assert!(proper);
    assert_eq!(text_of(&events), "a b c");
}

#[tokio::test]
async fn response_with_status_and_times_recovers() {
    let client = Client::start().await;
    let text =
        r#"@@ {"status":429,"headers":{"retry-after":"2"},"body":{"a":1},"times":1,"then":{"text":"ok"}} @@"#;
    let response = client.send_text(text).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"2".parse().unwrap())
    );
    assert_eq!(response.json::<Value>().await.expect("JSON"), json!({"a": 1}));
    assert_eq!(text_of(&client.events(text).await.0), "ok");

    let plain = client.send_text(r#"@@ {"status":503,"body":"busy"} @@"#).await;
    assert_eq!((plain.status().as_u16(), plain.text().await.expect("a text")), (503, "busy".to_owned()));
    client.all_closed().await;
}

#[tokio::test]
async fn response_to_mistakes_and_unknown_paths_is_an_openai_error() {
    let client = Client::start().await;
    let bad = client.send_text("@@ [oops @@").await;
    assert_eq!(bad.status(), 400);
    let bad: Value = bad.json().await.expect("JSON");
    assert_eq!(bad["error"]["code"], "invalid_directive");
    assert!(bad["error"]["message"].as_str().is_some_and(|m| m.contains("not JSON")), "{bad}");

    let unary = client.post(json!({"model": "m", "input": "hi"})).await;
    assert_eq!(unary.status(), 400);
    let base = client.upstream.base_url();
    for path in ["/nothing", "/responses"] {
        let missing = client.http.get(format!("{base}{path}")).send().await.expect("an answer");
        assert_eq!(missing.status(), 404);
        assert_eq!(missing.json::<Value>().await.expect("JSON")["error"]["code"], "unknown_url");
    }
    let models: Value = client
        .http
        .get(format!("{base}/models"))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!((&models["object"], models["data"].as_array().map(Vec::len)), (&json!("list"), Some(3)));
}

#[tokio::test]
async fn models_for_codex_are_its_own_list_with_an_etag() {
    let client = Client::start().await;
    let list = async || {
        let url = format!("{}/models?client_version=0.169.0", client.upstream.base_url());
        let response = client.http.get(url).send().await.expect("an answer");
        let tag = response.headers()["etag"].to_str().expect("a text").to_owned();
        (tag, response.json::<Value>().await.expect("JSON"))
    };
    let (first, empty) = list().await;
    assert_eq!(empty, json!({"models": []}));
    assert_eq!(list().await.0, first, "the tag of the same list");
    client.upstream.set_models(vec![json!({"slug": "x"})]);
    let (second, models) = list().await;
    assert_eq!(models, json!({"models": [{"slug": "x"}]}));
    assert_ne!(first, second);
    assert!(second.starts_with('"') && second.ends_with('"'), "{second}");
}

#[tokio::test]
async fn response_of_a_dropped_connection_is_closed() {
    let client = Client::start().await;
    let mut response = client.send_text(r#"@@ {"tokens":1000000,"delay_ms":1} @@"#).await;
    response.chunk().await.expect("a chunk");
    assert_eq!(client.upstream.open_responses(), 1);
    drop(response);
    client.all_closed().await;

    // Also before anything was sent.
    let hanging = client.send_text(r#"@@ {"hang_before_ms":600000} @@"#);
    let arrived = async {
        while client.upstream.open_responses() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = hanging => panic!("it must hang"),
        arrived = tokio::time::timeout(Duration::from_secs(10), arrived) => arrived.expect("the request arrives"),
    }
    client.all_closed().await;
}

#[tokio::test]
async fn upstream_when_dropped_closes_port_and_streams() {
    let Client { upstream, http } = Client::start().await;
    let url = format!("{}/responses", upstream.base_url());
    let body = json!({"stream": true, "input": r#"@@ {"text":"a","hang_after_ms":600000} @@"#});
    let mut response = http.post(&url).json(&body).send().await.expect("an answer");
    response.chunk().await.expect("response.created");
    drop(upstream);
    assert!(response.chunk().await.is_err(), "the stream must break");
    let refused = http.post(&url).json(&body).send().await.expect_err("the port is closed");
    assert!(refused.is_connect(), "{refused}");
}
