//! Long texts of the upstream with secrets: what callers and the log get of them.

use codex_api::pb::codex_service_client::CodexServiceClient;
use http::HeaderMap;
use tonic::{Status, transport::Endpoint};

use crate::{
    both_engines, eventually,
    support::{
        Codex, Engine, chat_request,
        http::{body, streamed},
        program::Program,
    },
};

const SECRETS: [&str; 5] = ["sk-proj", "0123456789abcdef", "10.1.2.3", "codex-home", "auth.json"];

fn assert_no_secret(text: &str, context: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{context}: {secret} in {text}");
    }
}

/// Asserts that the status fits into the header limit of clients.
fn assert_small(status: &Status, context: &str) {
    let mut head = HeaderMap::new();
    status.add_header(&mut head).unwrap();
    let bytes: usize = head.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes < 4096, "{context}: {bytes} bytes");
    assert_no_secret(&format!("{} {}", status.message(), String::from_utf8_lossy(status.details())), context);
}

both_engines!(long_errors_of_the_upstream_are_bounded_and_scrubbed);
async fn long_errors_of_the_upstream_are_bounded_and_scrubbed(engine: Engine) {
    let program = Program::new(Codex::Fake, engine)
        .env("CODEX_LOG_MAX_CHARS", "300")
        .env("CODEX_UPSTREAM_RETRIES", "0");
    let server = program.serve(&[]).await;
    let channel = Endpoint::new(server.url("")).unwrap().connect().await.unwrap();
    let mut grpc = CodexServiceClient::new(channel);
    let client = reqwest::Client::new();
    let short = [
        "401",
        "403",
        "404",
        "422",
        "429-delay",
        "502",
        "503",
        "cut",
        "sse-server-error",
        "sse-invalid-prompt",
    ];
    let kinds = short.iter().map(|kind| format!("{kind}+40000"));
    let kinds: Vec<_> = kinds.chain(["422+5000000".into(), "503+5000000".into()]).collect();
    for kind in &kinds {
        let model = format!("fake:failed:{kind}");
        let status = grpc.chat(chat_request(&model, "hi")).await.expect_err(kind);
        assert_small(&status, kind);
        assert!(!status.message().is_empty(), "{kind}");
        let streamed_status = match grpc.stream_chat(chat_request(&model, "hi")).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(event) => assert!(event.is_some(), "{kind}: the stream ended without an error"),
                        Err(status) => break status,
                    }
                }
            }
        };
        assert_small(&streamed_status, kind);
        for request in [body(&model, "hi"), streamed(body(&model, "hi"))] {
            let url = server.url("/v1/chat/completions");
            let response = client.post(url).json(&request).send().await.unwrap();
            assert!(response.status().as_u16() >= 400, "{kind}: {}", response.status());
            let text = response.text().await.unwrap();
            assert!(text.len() < 4096 && text.contains("\"message\""), "{kind}: {} bytes", text.len());
            assert_no_secret(&text, kind);
        }
    }
    let ended = || {
        server.log().iter().filter(|line| line.contains("turn ended") || line.contains("turn failed")).count()
    };
    eventually!("each turn has its line", ended() >= 4 * kinds.len());
    for line in server.log() {
        // Beside the cause, a line has some fields of its own.
        assert!(line.chars().count() < 1500, "{} characters: {line}", line.chars().count());
        assert!(!line.contains("sk-proj"), "{line}");
    }
}
