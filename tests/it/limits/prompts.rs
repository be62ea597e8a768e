//! Prompts and answers with unusual content or great length.

use codex_api::pb;
use prost::Message as _;
use serde_json::json;
use tonic::Code;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TestApp, chat_request,
        grpc::{answers, code_and_reason, collect_events},
        http::{answer_of_chunks, answer_of_completion, body},
        with_app,
    },
};

async fn assert_echoed_at_both_doors(app: &TestApp, model: &str, text: &str) {
    let expected = app.echo(text);
    // `assert_eq` would print the texts, some of which are long.
    assert!(app.chat(chat_request(model, text)).await == expected, "gRPC");
    assert!(answer_of_completion(&app.complete(&body(model, text)).await).text == expected, "HTTP");
}

async fn stream_at_both_doors(app: &TestApp, model: &str, text: &str) -> (String, String) {
    let events = app.grpc().await.stream_chat(chat_request(model, text)).await.unwrap().into_inner();
    let grpc = answers(&collect_events(events).await.unwrap())[0].0.clone();
    (grpc, answer_of_chunks(&app.stream(&body(model, text)).await).text)
}

/// Returns a text with characters of one to four bytes.
fn wide_text(chars: usize) -> String {
    "aé世🌍".chars().cycle().take(chars).collect()
}

both_engines!(prompt_limit_counts_characters);
async fn prompt_limit_counts_characters(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let longest = wide_text(200_000);
        assert!(longest.len() > 400_000);
        assert_echoed_at_both_doors(app, "fake:echo", &longest).await;

        let too_long = wide_text(200_001);
        let (status, error) = app.http_error(&body("fake:echo", &too_long)).await;
        assert_eq!((status, &error["code"]), (413, &json!("context_length_exceeded")));
        assert_eq!(error["type"], "invalid_request_error");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("200001") && message.contains("CODEX_MAX_PROMPT_CHARS"), "{message}");
        let status = app.grpc_error(chat_request("fake:echo", &too_long)).await;
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "PROMPT_TOO_LARGE".into()));

        // The limit counts the whole conversation, not a single message.
        let half = wide_text(100_001);
        let two = json!([{"role": "user", "content": half}, {"role": "user", "content": half}]);
        assert_eq!(app.http_error(&json!({"model": "fake:echo", "messages": two})).await.0, 413);
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    longest_prompt_reaches_the_real_cli_whole
);
async fn longest_prompt_reaches_the_real_cli_whole(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let (status, error) = app.http_error(&body("gpt-5.5", &"x".repeat(10 << 20))).await;
        assert_eq!((status, &error["code"]), (413, &json!("context_length_exceeded")));
        let upstream = app.upstream();
        assert!(upstream.requests().is_empty(), "no request reaches the model");
        let directive = r#"@@{"text":"all of it"}@@"#;
        let longest = wide_text(200_000 - directive.chars().count()) + directive;
        assert_eq!(app.chat(chat_request("gpt-5.5", &longest)).await, "all of it");
        let sent = upstream.requests().last().unwrap().body.to_string();
        assert!(sent.contains(&longest.replace('"', "\\\"")), "the upstream request has the whole prompt");
        let (status, _) = app.http_error(&body("gpt-5.5", &format!("x{longest}"))).await;
        assert_eq!((status, app.model_calls_since(0)), (413, 1));
    })
    .await;
}

both_engines!(prompt_of_ten_megabytes_is_refused);
async fn prompt_of_ten_megabytes_is_refused(engine: Engine) {
    let ten = "x".repeat(10 << 20);
    // The body is within its limit, but the prompt is not.
    with_app(AppConfig::fake(engine), async |app| {
        let (status, error) = app.http_error(&body("fake:echo", &ten)).await;
        assert_eq!((status, &error["code"]), (413, &json!("context_length_exceeded")));
        let refused = app.grpc_error(chat_request("fake:echo", &ten)).await;
        assert_eq!(code_and_reason(&refused), (Code::InvalidArgument, "PROMPT_TOO_LARGE".into()));
    })
    .await;

    with_app(AppConfig::fake(engine).env("CODEX_MAX_BODY_BYTES", "1048576"), async |app| {
        let (status, error) = app.http_error(&body("fake:echo", &ten)).await;
        assert_eq!((status, &error["code"]), (413, &json!("body_too_large")));
        assert!(error["message"].as_str().unwrap().contains("CODEX_MAX_BODY_BYTES"), "{error}");
        // A body of unknown length.
        let chunks = ten.as_bytes().chunks(64 * 1024).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()));
        let chunks: Vec<_> = chunks.collect();
        let request = reqwest::Client::new()
            .post(app.url("/v1/chat/completions"))
            .header("content-type", "application/json")
            .body(reqwest::Body::wrap_stream(futures_util::stream::iter(chunks)));
        assert_eq!(request.send().await.unwrap().status(), 413);
        let refused = app.grpc_error(chat_request("fake:echo", &ten)).await;
        assert_eq!(code_and_reason(&refused), (Code::InvalidArgument, "INVALID_VALUE".into()));
        assert!(refused.message().contains("1048576 bytes (CODEX_MAX_BODY_BYTES)"), "{refused:?}");
        assert_echoed_at_both_doors(app, "fake:echo", "the next one works").await;
    })
    .await;
}

both_engines!(unusual_texts_are_echoed_by_the_fake_unchanged);
async fn unusual_texts_are_echoed_by_the_fake_unchanged(engine: Engine) {
    let texts = [
        "--help",
        "-",
        "- x",
        "\0",
        "a\0b\u{1}\u{7f}",
        "",
        " ",
        "\r\n\u{2028}",
        "\u{fffe}\u{10ffff}",
        "@@",
        "'; $(x)",
    ];
    with_app(AppConfig::fake(engine), async |app| {
        for text in texts {
            assert_echoed_at_both_doors(app, "fake:echo", text).await;
        }
        // The model is an argument of the CLI, which must not parse it as an option.
        assert_echoed_at_both_doors(app, "--fake:echo", "x").await;
        assert_echoed_at_both_doors(app, "-c=fake:echo", "x").await;
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    unusual_texts_reach_the_model_through_the_real_cli
);
async fn unusual_texts_reach_the_model_through_the_real_cli(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        for text in ["--help", "a\0b", "世🌍\u{202e}"] {
            let prompt = format!("{text} @@{{\"echo\":true}}@@");
            let answer = answer_of_completion(&app.complete(&body("gpt-5.5", &prompt)).await).text;
            let report: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert!(report["user"].as_str().unwrap().contains(text), "{text:?}: {report}");
        }
    })
    .await;
}

both_engines!(half_a_surrogate_pair_is_refused);
async fn half_a_surrogate_pair_is_refused(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for escape in [r"\ud83c", r"\udf0d", r"\udf0d\ud83c", r"x\ud83cx"] {
            let text =
                format!(r#"{{"model":"fake:echo","messages":[{{"role":"user","content":"{escape}"}}]}}"#);
            let request = reqwest::Client::new().post(app.url("/v1/chat/completions"));
            let response =
                request.header("content-type", "application/json").body(text).send().await.unwrap();
            assert_eq!(response.status(), 400, "{escape}");
            let error: serde_json::Value = response.json().await.unwrap();
            assert_eq!(error["error"]["code"], "invalid_json", "{escape}");
            assert!(error["error"]["message"].as_str().unwrap().contains("half of a pair"), "{error}");
        }
        let pair = r#"{"model":"fake:echo","messages":[{"role":"user","content":"\ud83c\udf0d"}]}"#;
        let answer = app.complete(&serde_json::from_str(pair).unwrap()).await;
        assert_eq!(answer_of_completion(&answer).text, engine.echo("🌍"));
        // Protobuf has no escapes. The same mistake is three bytes that are not valid UTF-8.
        let mut message = chat_request("fake:echo", "???").encode_to_vec();
        let at = message.windows(3).position(|bytes| bytes == b"???").unwrap();
        message[at..at + 3].copy_from_slice(b"\xed\xa0\xbc");
        message.splice(0..0, u32::try_from(message.len()).unwrap().to_be_bytes());
        message.insert(0, 0);
        let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let request =
            client.post(app.url("/codex.v1.CodexService/Chat")).header("content-type", "application/grpc");
        let answer = request.body(message).send().await.unwrap();
        let status = tonic::Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "INVALID_VALUE".into()));
        assert!(status.message().contains("UTF-8"), "{status:?}");
    })
    .await;
}

both_engines!(answer_of_a_megabyte_from_the_fake_arrives_whole);
async fn answer_of_a_megabyte_from_the_fake_arrives_whole(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let expected: String = "0123456789".repeat(100_000);
        let model = "fake:text:1000000";
        assert!(app.chat(chat_request(model, "x")).await == expected, "gRPC");
        assert!(answer_of_completion(&app.complete(&body(model, "x")).await).text == expected, "HTTP");
        let (grpc, sse) = stream_at_both_doors(app, model, "x").await;
        assert!(grpc == expected && sse == expected, "{} and {}", grpc.len(), sse.len());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn prompt_and_answer_of_a_megabyte_pass_the_real_cli_whole() {
    // Only `exec` accepts such a prompt. In a warm worker the prompt is history, which Codex compacts beyond the window of
    // the model (see `histories::sizes`).
    with_app(AppConfig::real(Engine::Exec).max_prompt_chars(1_048_576), async |app| {
        let expected = "é".repeat(1_000_000);
        let prompt = format!("@@{{\"text\":\"{expected}\"}}@@");
        assert!(app.chat(chat_request("gpt-5.5", &prompt)).await == expected, "gRPC");
        assert!(answer_of_chunks(&app.stream(&body("gpt-5.5", &prompt)).await).text == expected, "SSE");
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    answer_of_120000_tokens_passes_the_real_cli_whole
);
async fn answer_of_120000_tokens_passes_the_real_cli_whole(engine: Engine) {
    // Old releases may lose the end of such an answer. The turn then never completes, so the test limits its time.
    with_app(AppConfig::real(engine).timeout_seconds(60.0), async |app| {
        let count = 120_000;
        let expected = (0..count).map(|n| format!("tok{n}")).collect::<Vec<_>>().join(" ");
        assert!(expected.len() > 1_000_000);
        let prompt = format!("@@{{\"tokens\":{count}}}@@");
        assert!(app.chat(chat_request("gpt-5.5", &prompt)).await == expected, "gRPC");
        assert!(answer_of_chunks(&app.stream(&body("gpt-5.5", &prompt)).await).text == expected, "SSE");
    })
    .await;
}

both_engines!(line_beyond_the_limit_fails_its_turn);
async fn line_beyond_the_limit_fails_its_turn(engine: Engine) {
    // `longline:N` prints exactly N bytes with `exec` and slightly more with `app-server`.
    let (limit, fits, exceeds) = match engine {
        Engine::Exec => ("10000", "fake:longline:10000", "fake:longline:10001"),
        Engine::AppServer => ("100000", "fake:longline:99000", "fake:longline:100001"),
    };
    let (code, grpc) = ("turn_failed", (Code::Aborted, "TURN_FAILED"));
    with_app(AppConfig::fake(engine).env("CODEX_SUBPROCESS_STREAM_LIMIT", limit), async |app| {
        assert_eq!(app.chat(chat_request(fits, "x")).await, "the answer after a long line");
        let (status, error) = app.http_error(&body(exceeds, "x")).await;
        assert_eq!((status, &error["code"]), (502, &json!(code)));
        assert!(error["message"].as_str().unwrap().contains("CODEX_SUBPROCESS_STREAM_LIMIT"), "{error}");
        let refused = app.grpc_error(chat_request(exceeds, "x")).await;
        assert_eq!(code_and_reason(&refused), (grpc.0, grpc.1.into()));
        eventually!("no process is left", app.turn_processes().is_empty());
        eventually!("the slot is free", app.status().await.running_turns == 0);
    })
    .await;
}

both_engines!(empty_conversation_is_refused_with_the_field);
async fn empty_conversation_is_refused_with_the_field(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let (status, error) = app.http_error(&json!({"model": "fake:echo", "messages": []})).await;
        assert_eq!((status, &error["param"]), (400, &json!("messages")));
        let refused = app.grpc_error(pb::ChatRequest::default()).await;
        assert_eq!(code_and_reason(&refused), (Code::InvalidArgument, "INVALID_VALUE".into()));
    })
    .await;
}
