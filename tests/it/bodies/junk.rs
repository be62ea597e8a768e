//! Large members that the server does not know.

use serde_json::json;

use crate::support::{
    Codex, Engine,
    program::{Program, RunningProgram},
};

/// Size of the junk in a body.
const BYTES: usize = 8 << 20;

/// Returns the peak of the resident memory of the server in bytes.
fn peak_memory(server: &RunningProgram) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn unknown_members_need_no_more_memory_than_the_body() {
    let server = Program::new(Codex::Fake, Engine::Exec).serve(&["serve"]).await;
    let client = reqwest::Client::new();
    let post = async |body: String| {
        let request = client.post(server.url("/v1/chat/completions"));
        let response = request.header("content-type", "application/json").body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let body = json!({
        "model": "fake:text:5",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", "x": "IN PART"}], "x": "IN MESSAGE"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "IN THOUGHT"}]},
            {"role": "user", "content": "go on"},
        ],
        "reasoning": {"x": "IN REASONING"},
        "tool_choice": {"type": "auto", "x": "IN CHOICE"},
        "stream_options": {"x": "IN OPTIONS"},
        "response_format": {"type": "text", "x": "IN FORMAT"},
        "prediction": "TOP",
        "x": "UNKNOWN",
    })
    .to_string();
    assert_eq!(post(body.clone()).await.0, 200, "the body without junk");
    let before = peak_memory(&server);
    for place in [
        "TOP",
        "UNKNOWN",
        "IN PART",
        "IN MESSAGE",
        "IN THOUGHT",
        "IN REASONING",
        "IN CHOICE",
        "IN OPTIONS",
        "IN FORMAT",
    ] {
        for junk in [
            format!("[0{}]", ",0".repeat(BYTES / 2)),
            format!("{{\"a\":0{}}}", ",\"a\":0".repeat(BYTES / 6)),
            format!("{}{}", "[".repeat(BYTES / 2), "]".repeat(BYTES / 2)),
        ] {
            let (status, text) = post(body.replace(&format!("\"{place}\""), &junk)).await;
            assert_eq!(status, 200, "{place}: {}", text.chars().take(300).collect::<String>());
        }
        let used = peak_memory(&server).saturating_sub(before);
        // The buffer doubles while it grows.
        assert!(used < 5 * BYTES, "{place}: {} MB", used >> 20);
    }
}
