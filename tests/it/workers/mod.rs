//! Warm workers that exit, hang, age or are replaced. A client loses at most its running turn and gets a clear error.

mod leftovers;
mod logins;
mod lost;
mod recycle;
mod replaced;
mod requests;
mod sabotage;
mod soak;
mod start;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use codex_api::pb;
use futures_util::{StreamExt, future::join_all};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    AppConfig, Codex, Engine, TIMEOUT, TestApp, chat_request,
    grpc::code_and_reason,
    http::{body, chunks},
};

/// The number of open streams when a worker is lost.
const STREAMS: usize = 20;

/// Configures a server with one warm worker.
fn one_worker(codex: Codex) -> AppConfig {
    AppConfig::new(codex, Engine::AppServer).workers(1)
}

/// Returns the worker processes.
fn workers(app: &TestApp) -> Vec<Pid> {
    let lines = app.processes();
    let lines = lines.iter().filter(|line| line.contains(" app-server") && !line.contains(" supervise "));
    lines.filter_map(|line| Pid::from_raw(line.split_once(':')?.0.parse().ok()?)).collect()
}

/// Sends a signal to every worker.
fn signal_workers(app: &TestApp, signal: Signal) {
    let pids = workers(app);
    assert!(!pids.is_empty(), "a worker runs");
    for pid in pids {
        kill_process(pid, signal).unwrap();
    }
}

/// Returns the home folder of a worker.
fn worker_home(pid: Pid) -> PathBuf {
    let environ = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap();
    let mut variables = environ.split(|byte| *byte == 0);
    let home = variables.find_map(|variable| variable.strip_prefix(b"CODEX_HOME=")).unwrap();
    String::from_utf8(home.to_vec()).unwrap().into()
}

/// Returns the resident memory of a process, in kB.
pub fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Returns model and prompt of an endless turn.
fn endless_turn(codex: Codex) -> (&'static str, &'static str) {
    match codex {
        Codex::Fake => ("fake:stream:100000:20", "hi"),
        Codex::Real => ("gpt-5.5", r#"@@{"tokens":100000,"delay_ms":20}@@"#),
    }
}

fn short_turn(codex: Codex) -> (&'static str, &'static str) {
    match codex {
        Codex::Fake => ("fake:text:5", "hi"),
        Codex::Real => ("gpt-5.5", r#"@@{"text":"01234"}@@"#),
    }
}

/// A stream whose first text has been read.
enum OpenStream {
    Sse(String, futures_util::stream::BoxStream<'static, reqwest::Result<axum::body::Bytes>>),
    Grpc(Box<tonic::Streaming<pb::ChatEvent>>),
}

/// Opens a stream, at the HTTP door for even numbers, and waits for its first text.
async fn open_stream(app: &TestApp, number: usize, (model, text): (&str, &str)) -> OpenStream {
    timeout(TIMEOUT, open_without_limit(app, number, model, text))
        .await
        .expect("the first text arrives in time")
}

async fn open_without_limit(app: &TestApp, number: usize, model: &str, text: &str) -> OpenStream {
    if number.is_multiple_of(2) {
        let mut request = body(model, text);
        request["stream"] = true.into();
        let response = app.post(&request).await;
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        let mut stream = response.bytes_stream().boxed();
        let mut read = String::new();
        while !read.contains(r#""content":""#) {
            let bytes = stream.next().await.expect("text precedes the end").unwrap();
            read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        OpenStream::Sse(read, stream)
    } else {
        let mut stream = app.grpc().await.stream_chat(chat_request(model, text)).await.unwrap().into_inner();
        loop {
            let event = stream.message().await.unwrap().expect("text precedes the end");
            if matches!(event.event, Some(pb::chat_event::Event::TextDelta(_))) {
                return OpenStream::Grpc(Box::new(stream));
            }
        }
    }
}

impl OpenStream {
    /// Reads to the final error and returns its stable reason.
    async fn error_reason(self) -> String {
        self.failure().await.0
    }

    /// Reads the next event, which must not be an error.
    async fn read_more_text(&mut self) {
        match self {
            Self::Sse(_, stream) => {
                let bytes = stream.next().await.expect("the stream continues").unwrap();
                let text = String::from_utf8_lossy(&bytes);
                assert!(text.contains(r#""content":""#) && !text.contains(r#""error""#), "{text}");
            }
            Self::Grpc(stream) => drop(stream.message().await.unwrap().expect("the stream continues")),
        }
    }

    /// Reads to the final error and returns its stable reason and message.
    async fn failure(self) -> (String, String) {
        timeout(TIMEOUT, self.read_failure()).await.expect("the stream ends in time")
    }

    async fn read_failure(self) -> (String, String) {
        match self {
            Self::Sse(mut read, mut stream) => {
                while let Some(bytes) = stream.next().await {
                    read.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
                }
                let (chunks, done) = chunks(&read);
                assert!(!done, "a broken stream has no [DONE]");
                let error = &chunks.last().unwrap()["error"];
                let code = error["code"].as_str().unwrap_or_else(|| panic!("no error: {chunks:?}"));
                (code.to_ascii_uppercase(), error["message"].as_str().unwrap().to_owned())
            }
            Self::Grpc(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended without an error"),
                    Err(status) => return (code_and_reason(&status).1, status.message().to_owned()),
                }
            },
        }
    }

    /// Reads to the next text; panics after [`TIMEOUT`].
    async fn read_more_text_in_time(&mut self) {
        timeout(TIMEOUT, self.read_until_text()).await.expect("more text arrives in time");
    }

    async fn read_until_text(&mut self) {
        match self {
            Self::Sse(read, stream) => loop {
                let bytes = stream.next().await.expect("the stream has not ended").unwrap();
                let more = std::str::from_utf8(&bytes).unwrap();
                assert!(!more.contains("error"), "{more}");
                read.push_str(more);
                if more.contains(r#""content":""#) {
                    return;
                }
            },
            Self::Grpc(stream) => loop {
                let event = stream.message().await.unwrap().expect("the stream has not ended");
                if matches!(event.event, Some(pb::chat_event::Event::TextDelta(_))) {
                    return;
                }
            },
        }
    }
}

/// Opens twenty streams, half of them at each door.
async fn open_twenty_streams(app: &TestApp, codex: Codex) -> Vec<OpenStream> {
    join_all((0..STREAMS).map(|number| open_stream(app, number, endless_turn(codex)))).await
}

/// Runs twenty turns, half of them at each door, and asserts their answers.
async fn assert_twenty_turns_succeed(app: &TestApp, codex: Codex) {
    let (model, text) = short_turn(codex);
    join_all((0..STREAMS).map(async |number| {
        if number.is_multiple_of(2) {
            let answer = app.complete(&body(model, text)).await;
            assert_eq!(answer["choices"][0]["message"]["content"], "01234", "{answer}");
        } else {
            assert_eq!(app.chat(chat_request(model, text)).await, "01234");
        }
    }))
    .await;
}

/// Waits for a future; panics with `name` after the limit.
async fn within<T>(limit: Duration, name: &str, work: impl Future<Output = T>) -> T {
    timeout(limit, work).await.unwrap_or_else(|_| panic!("not within {limit:?}: {name}"))
}

/// Runs the next twenty turns after a loss. Returns whether they ended within the limit. A busy machine may exceed the
/// limit, so the caller makes up to three attempts.
async fn twenty_turns_succeed_in_time(app: &TestApp, codex: Codex) -> bool {
    let began = Instant::now();
    timeout(TIMEOUT, assert_twenty_turns_succeed(app, codex)).await.expect("the next twenty turns");
    began.elapsed() <= lost::RECOVERY_LIMIT
}

/// Returns status and body of the health report.
async fn health(app: &TestApp) -> (u16, Value) {
    let response = reqwest::get(app.url("/healthz")).await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(json!(null)))
}
