//! Memory that large requests leave behind.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures_util::future::join_all;

use crate::{
    both_engines, eventually,
    support::{
        Codex, Engine,
        program::{Program, RunningProgram},
    },
};

/// The memory that a server may keep, in MiB: 64, and a third more for the machine's allocator and loaded code.
const SLACK: u64 = 64 + 21;

const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// Returns the resident memory of the server in MiB.
fn resident(server: &RunningProgram) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
}

/// Returns a request with an image of 15 MB, which is accepted, and one with a text of 31 MB, which is too long.
fn bodies() -> [(String, u16); 2] {
    let mut image = BASE64.decode(PNG).unwrap();
    image.resize(15_000_000, 0);
    let image = BASE64.encode(image);
    let content = format!(
        r#"[{{"type":"text","text":"x"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}}]"#
    );
    [(content, 200), (format!("\"{}\"", "a".repeat(31_000_000)), 413)].map(|(content, status)| {
        let body = format!(r#"{{"model":"fake:text:5","messages":[{{"role":"user","content":{content}}}]}}"#);
        (body, status)
    })
}

both_engines!(
    #[cfg_attr(not(target_os = "linux"), ignore = "reads /proc")]
    memory_of_large_requests_is_given_back
);
async fn memory_of_large_requests_is_given_back(engine: Engine) {
    let program = Program::new(Codex::Fake, engine)
        .env("CODEX_MAX_IMAGE_BYTES", "20000000")
        .env("CODEX_MAX_CONCURRENCY", "4");
    let server = program.serve(&[]).await;
    let client = reqwest::Client::new();
    let send = async |body: &str| {
        let request =
            client.post(server.url("/v1/chat/completions")).header("content-type", "application/json");
        let response = request.body(body.to_owned()).send().await.unwrap();
        let status = response.status().as_u16();
        drop(response.bytes().await);
        status
    };
    let small = r#"{"model":"fake:text:5","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(send(small).await, 200);
    let before = resident(&server);
    // The debug build of the fake is too slow for many images on one worker.
    let accepted = usize::from(engine == Engine::AppServer);
    for (body, status) in bodies().into_iter().skip(accepted) {
        for _ in 0..3 {
            let statuses = join_all((0..4).map(|_| send(&body))).await;
            assert_eq!(statuses, [status; 4]);
        }
    }
    // The allocator gives memory back at later requests.
    eventually!("the memory is given back", {
        assert_eq!(send(small).await, 200);
        resident(&server) <= before + SLACK
    });
}
