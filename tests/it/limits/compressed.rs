//! Compressed calls that cost too much, and bodies of a call that are not one whole message.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use codex_api::pb;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use prost::Message as _;
use tonic::{Code, Status};
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::{
    both_engines,
    support::{
        AppConfig, Codex, Engine, TestApp, chat_request,
        grpc::{code_and_reason, violated_field},
        program::Program,
        with_app,
    },
    workers::resident_kb,
};

const ENCODINGS: [&str; 3] = ["gzip", "deflate", "zstd"];

/// Size of a decompressed bomb. The default limit of a message is a little more.
const BOMB: usize = 33_000_000;

/// Maximum time for the refusal of a bomb in the debug build on a busy machine. Decoding 16 million messages takes longer.
const BOUND: Duration = Duration::from_secs(10);

fn compressed(encoding: &str, plain: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => {
            let mut encoder = ZstdEncoder::new(Vec::new(), 1).unwrap();
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        _ => plain.to_vec(),
    }
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let size = u32::try_from(message.len()).unwrap();
    [&[flag][..], &size.to_be_bytes(), message].concat()
}

fn request() -> Vec<u8> {
    chat_request("fake:text:3", "hi").encode_to_vec()
}

/// Sends the body of a unary call. Returns its status, and the headers of the response.
async fn call(url: String, encoding: &str, body: Vec<u8>) -> (Status, http::HeaderMap) {
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let call = client.post(url).header("content-type", "application/grpc").header("grpc-encoding", encoding);
    let response = call.body(body).send().await.unwrap();
    let headers = response.headers().clone();
    // The status of an answer is in the trailers, which this client does not return.
    let status = Status::from_header_map(&headers).unwrap_or_else(|| Status::ok(""));
    let body = response.bytes().await.unwrap();
    if status.code() == Code::Ok {
        let answer = pb::ChatResponse::decode(body.get(5..).unwrap()).unwrap();
        assert!(!answer.choices[0].text.is_empty());
    }
    (status, headers)
}

async fn status_of(app: &TestApp, encoding: &str, body: Vec<u8>) -> Status {
    call(app.url("/codex.v1.CodexService/Chat"), encoding, body).await.0
}

fn assert_invalid(status: &Status, text: &str) {
    assert_eq!(code_and_reason(status), (Code::InvalidArgument, "INVALID_VALUE".into()), "{status:?}");
    assert!(status.message().contains(text), "{text}: {status:?}");
}

#[tokio::test]
async fn compressed_bombs_are_refused_within_bounds() {
    let empty_messages = [0x12, 0].repeat(BOMB / 2);
    // One text of more bytes than a message may have.
    let text = chat_request("fake:echo", &"a".repeat(3 * BOMB)).encode_to_vec();
    let program = Program::new(Codex::Fake, Engine::AppServer).serve(&["serve"]).await;
    let url = program.url("/codex.v1.CodexService/Chat");
    assert_eq!(call(url.clone(), "gzip", frame(1, &compressed("gzip", &request()))).await.0.code(), Code::Ok);
    let before = resident_kb(program.pid());
    for encoding in ENCODINGS {
        let bomb = compressed(encoding, &empty_messages);
        assert!(bomb.len() < BOMB / 100, "{encoding}");
        let began = Instant::now();
        let (status, _) = call(url.clone(), encoding, frame(1, &bomb)).await;
        assert_invalid(&status, "CODEX_MAX_MESSAGES");
        assert_eq!(violated_field(&status), "messages");
        // tonic reads messages behind the first, too.
        let two = [frame(1, &compressed(encoding, &request())), frame(1, &bomb)].concat();
        let (status, _) = call(url.clone(), encoding, two).await;
        assert_eq!(status.code(), Code::Ok, "{status:?}");
        let (status, _) = call(url.clone(), encoding, frame(1, &compressed(encoding, &text))).await;
        assert_invalid(&status, "CODEX_MAX_BODY_BYTES");
        assert!(began.elapsed() < BOUND, "{encoding}: {:?}", began.elapsed());
    }
    let grown = resident_kb(program.pid()).saturating_sub(before);
    // A decoded empty message has more than 100 bytes: 16.5 million have 1.6 GB.
    let peak = peak_kb(program.pid());
    assert!(grown < 200_000 && peak < before + 300_000, "{before} kB, then {grown} more, at most {peak}");
}

/// Returns the highest resident memory that a process has had.
fn peak_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

both_engines!(body_that_is_not_one_whole_message_is_answered_or_refused);
async fn body_that_is_not_one_whole_message_is_answered_or_refused(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for encoding in ["identity", "gzip", "deflate", "zstd"] {
            let flag = u8::from(encoding != "identity");
            let whole = frame(flag, &compressed(encoding, &request()));
            for answered in [
                whole.clone(),
                // A message may be uncompressed although the call names an encoding.
                frame(0, &request()),
                // What follows the first message is ignored.
                [&whole[..], &whole].concat(),
                [&whole[..], b"\x01\0\0"].concat(),
                [&whole[..], &frame(flag, b"no message")].concat(),
            ] {
                let status = status_of(app, encoding, answered.clone()).await;
                assert_eq!(status.code(), Code::Ok, "{encoding}, {answered:?}: {status:?}");
            }
            for cut in [1, 4, 6, whole.len() - 1] {
                let status = status_of(app, encoding, whole[..cut].to_vec()).await;
                assert_invalid(&status, "Unexpected EOF");
            }
            for missing in [&[][..], &whole[..5]] {
                let status = status_of(app, encoding, missing.to_vec()).await;
                assert_invalid(&status, "Missing request message");
            }
            assert_invalid(&status_of(app, encoding, frame(2, b"x")).await, "invalid compression flag");
        }
        for encoding in ENCODINGS {
            let garbage = status_of(app, encoding, frame(1, &request())).await;
            assert_invalid(&garbage, "Error decompressing");
        }
        assert_invalid(&status_of(app, "identity", frame(1, &request())).await, "compressed-flag");
        let url = app.url("/codex.v1.CodexService/Chat");
        for flag in [0, 1] {
            let (status, headers) = call(url.clone(), "br", frame(flag, &request())).await;
            assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
            assert_eq!(headers["grpc-accept-encoding"], "gzip,deflate,zstd,identity");
        }
    })
    .await;
}

both_engines!(health_and_reflection_refuse_compressed_messages);
async fn health_and_reflection_refuse_compressed_messages(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for path in [
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            let (status, headers) = call(app.url(path), "gzip", frame(1, &compressed("gzip", b""))).await;
            assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
            assert_eq!(headers["grpc-accept-encoding"], "identity", "{path}");
        }
    })
    .await;
}
