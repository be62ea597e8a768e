use std::convert::Infallible;

use futures_util::{StreamExt, stream};
use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::context::Caller;

fn limits() -> BodyLimits {
    BodyLimits {
        max_bytes: 32,
        pause: Duration::from_secs(30),
        request: Duration::from_secs(600),
        lists: ListLimits { messages: 4, tools: 4 },
        budget: BodyBudget::new(1 << 20, 32),
    }
}

fn parts(headers: &[(&'static str, &str)]) -> Parts {
    let mut request = Request::post("/").header(header::CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn chunked(chunks: Vec<&'static str>) -> Body {
    Body::from_stream(stream::iter(chunks).map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk))))
}

async fn read_json(mut parts: Parts, body: Body) -> Result<Value, Value> {
    let error = |error: ApiError| serde_json::to_value(error.body()).unwrap()["error"].take();
    json::<Value, _>(&mut parts, body, &limits(), Ok).await.map_err(error)
}

#[tokio::test]
async fn json_other_content_type_is_refused() {
    for (given, accepted) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/vnd.api+json", true),
        ("text/plain", false),
        ("application/x-www-form-urlencoded", false),
        ("multipart/form-data; boundary=application/json", false),
        ("text/json", false),
        ("", false),
    ] {
        let mut parts = parts(&[]);
        parts.headers.insert(header::CONTENT_TYPE, given.parse().unwrap());
        let result = read_json(parts, Body::from("{}")).await;
        let code = result.map_err(|error| error["code"].clone());
        assert_eq!(
            code,
            if accepted { Ok(json!({})) } else { Err(json!("unsupported_media_type")) },
            "{given}"
        );
    }
}

#[tokio::test]
async fn json_declared_or_chunked_body_above_the_limit_is_refused() {
    let text = |size: usize| format!("\"{}\"", "a".repeat(size - 2));
    assert!(read_json(parts(&[]), Body::from(text(32))).await.is_ok());
    let declared = read_json(parts(&[]), Body::from(text(33))).await.unwrap_err();
    assert_eq!(declared["code"], "body_too_large");
    let fits = chunked(vec!["\"aaaaaaaaaa", "aaaaaaaaaa", "\""]);
    assert!(read_json(parts(&[]), fits).await.is_ok());
    let over = chunked(vec!["\"aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaa", "\""]);
    assert_eq!(read_json(parts(&[]), over).await.unwrap_err()["code"], "body_too_large");
}

#[tokio::test(start_paused = true)]
async fn json_endless_body_is_refused() {
    let endless =
        || Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(b"aaaa"))));
    assert_eq!(read_json(parts(&[]), endless()).await.unwrap_err()["code"], "body_too_large");
    // A body that exceeds the limit and then stalls: the read waits as long as for any body.
    let silent =
        stream::iter([Ok::<_, Infallible>(Bytes::from_static(&[b'a'; 33]))]).chain(stream::pending());
    assert_eq!(read_json(parts(&[]), Body::from_stream(silent)).await.unwrap_err()["code"], "body_too_large");
}

#[tokio::test(start_paused = true)]
async fn json_stalled_body_times_out() {
    let stalled = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(stream::pending());
    let error = read_json(parts(&[]), Body::from_stream(stalled)).await.unwrap_err();
    assert_eq!(error["code"], "body_timeout");
    assert_eq!(error["message"], "no part of the body arrived for 30 seconds (CODEX_BODY_TIMEOUT_SECONDS)");
}

#[tokio::test]
async fn json_broken_body_is_a_client_error() {
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
    let error = read_json(parts(&[]), Body::from_stream(broken)).await.unwrap_err();
    assert_eq!(error["code"], "invalid_body");
}

#[test]
fn parse_syntax_error_contains_position_and_surrogate_hint() {
    let message = |text: &str| {
        let error = parse::<Value>(text.as_bytes()).unwrap_err();
        serde_json::to_value(error.body()).unwrap()["error"]["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        message("{\n  \"a\": [1 2]\n}"),
        "the body is not valid JSON: expected `,` or `]` at line 2 column 11"
    );
    for lone in ["\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud800x\""] {
        let message = message(lone);
        assert!(message.contains("line 1 column") && message.contains("half of a pair"), "{lone}: {message}");
    }
    let not_utf8 = parse::<Value>(b"\"\xff\"").unwrap_err();
    assert!(serde_json::to_value(not_utf8.body()).unwrap()["error"]["code"] == "invalid_json");
}

#[test]
fn parse_skips_a_byte_order_mark() {
    assert_eq!(parse::<Value>(b"\xef\xbb\xbf{\"a\":1}").unwrap(), json!({"a": 1}));
    let empty = serde_json::to_value(parse::<Value>(b"\xef\xbb\xbf \n").unwrap_err().body()).unwrap();
    assert!(empty["error"]["message"].as_str().unwrap().contains("empty"));
    assert!(parse::<Value>(b"\xef\xbb\xbf\xef\xbb\xbf{}").is_err());
}

#[test]
fn parse_error_with_a_long_quote_is_truncated_in_the_middle() {
    let long = format!("{{\"n\":\"{}\"}}", "é".repeat(100_000));
    #[derive(Debug, serde::Deserialize)]
    struct Number {
        #[serde(rename = "n")]
        _n: u32,
    }
    let error = parse::<Number>(long.as_bytes()).unwrap_err();
    let error = serde_json::to_value(error.body()).unwrap()["error"].take();
    let message = error["message"].as_str().unwrap();
    assert_eq!(error["param"], "n");
    assert!(message.chars().count() < MAX_QUOTE + 10);
    assert!(
        message.starts_with("n: invalid type: string") && message.ends_with("column 200007"),
        "{message}"
    );
}

#[test]
fn timeout_other_than_a_positive_decimal_is_refused() {
    let read = |text: &str| timeout(&parts(&[(TIMEOUT_HEADER, text)]).headers);
    let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    assert_eq!(read("30").unwrap(), duration(30, 0));
    assert_eq!(read(" 0.25 ").unwrap(), duration(0, 250_000_000));
    for wrong in ["", "0", "0.0", "-1", "+1", "1e3", "inf", "nan", "1s", "1,5", ".", "1.2.3"] {
        let error = serde_json::to_value(read(wrong).unwrap_err().body()).unwrap();
        assert_eq!(error["error"]["param"], TIMEOUT_HEADER, "{wrong}");
    }
    assert!(read(&"9".repeat(400)).is_err());
}

#[test]
fn call_without_and_with_a_context_passes_it_on() {
    let mut parts = parts(&[("x-request-id", "r-1")]);
    assert!(call(&parts, ()).extensions().get::<RequestContext>().is_none());
    let context = RequestContext::new(Caller::TokenHolder, &parts.headers, None, Instant::now());
    parts.extensions.insert(context);
    let call = call(&parts, ());
    let context: &RequestContext = call.extensions().get().unwrap();
    assert_eq!((context.caller, context.request_id.as_deref()), (Caller::TokenHolder, Some("r-1")));
}
