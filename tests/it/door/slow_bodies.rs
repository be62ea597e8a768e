//! Unusual ways to send a request: bytes one by one, `Expect`, chunks, an offer to upgrade.

use std::time::{Duration, Instant};

use futures_util::stream;
use tokio::time::sleep;

use crate::{
    both_engines,
    support::{
        AppConfig, Engine,
        http::body,
        wire::{Wire, head},
        with_app,
    },
};

/// Time between two bytes of a slow body.
const DRIP: Duration = Duration::from_millis(50);

both_engines!(dripping_body_ends_at_the_time_limit_of_the_request);
async fn dripping_body_ends_at_the_time_limit_of_the_request(engine: Engine) {
    with_app(AppConfig::fake(engine).timeout_seconds(1.0), async |app| {
        let began = Instant::now();
        let mut wire = Wire::open(app.address).await;
        wire.send(head(10_000, "")).await;
        let (mut reader, mut writer) = wire.0.into_inner().into_split();
        let dripping = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            while writer.write_all(b" ").await.is_ok() {
                sleep(DRIP).await;
            }
        });
        let mut answer = vec![0; 4096];
        let length = tokio::io::AsyncReadExt::read(&mut reader, &mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert!(
            answer.contains("not received completely") && answer.contains("CODEX_TIMEOUT_SECONDS"),
            "{answer}"
        );
        drop(reader);
        dripping.await.unwrap();

        // The first bytes announce a message of 16 MiB.
        let drip = || {
            stream::unfold(vec![0, 1, 0, 0, 0], async |bytes| {
                sleep(DRIP).await;
                Some((Ok::<_, std::io::Error>(bytes), vec![0]))
            })
        };
        let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        for method in ["Chat", "StreamChat"] {
            let call = client.post(app.url(&format!("/codex.v1.CodexService/{method}")));
            let call = call.header("content-type", "application/grpc");
            let answer = call.body(reqwest::Body::wrap_stream(drip())).send().await.unwrap();
            assert_eq!(answer.headers()["grpc-status"], "4", "{answer:?}");
            let message = answer.headers()["grpc-message"].to_str().unwrap();
            assert!(message.contains("not%20received%20completely"), "{message}");
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    })
    .await;
}

both_engines!(upgrade_offer_of_the_jdk_is_answered_in_http1);
async fn upgrade_offer_of_the_jdk_is_answered_in_http1(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let offer =
            "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
        let body = body("fake:echo", "x").to_string();
        let mut wire = Wire::open(app.address).await;
        wire.send(format!("{}{body}", head(body.len(), offer))).await;
        let answer = wire.response().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("upgrade"), "");
    })
    .await;
}

both_engines!(chunked_body_after_expect_is_read);
async fn chunked_body_after_expect_is_read(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let body = body("fake:echo", "x").to_string();
        let (first, second) = body.split_at(7);
        let mut wire = Wire::open(app.address).await;
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n";
        wire.send(head).await;
        assert_eq!(wire.response().await.status, 100);
        for chunk in [first, second, ""] {
            wire.send(format!("{:x}\r\n{chunk}\r\n", chunk.len())).await;
        }
        assert_eq!(wire.response().await.status, 200);
    })
    .await;
}
