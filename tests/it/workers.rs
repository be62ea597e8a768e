//! Warm workers that die, hang, grow old or are replaced: nobody loses more than the turn that was running, and is told
//! so.

mod asked;
mod leftovers;
mod lost;
mod recycle;
mod replaced;
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
    AppConfig, Codex, Engine, SOON, TestApp, ask,
    grpc::kind,
    http::{body, chunks},
};

/// Turns under way when something happens to their worker.
const STREAMS: usize = 20;

/// A server with warm workers.
fn one_worker(codex: Codex) -> AppConfig {
    AppConfig::new(codex, Engine::AppServer).workers(1)
}

/// The processes that run turns, by what they were started as.
fn workers(app: &TestApp) -> Vec<Pid> {
    let alive = app.processes();
    let alive = alive.iter().filter(|line| line.contains(" app-server") && !line.contains(" supervise "));
    alive.filter_map(|line| Pid::from_raw(line.split_once(':')?.0.parse().ok()?)).collect()
}

/// Every worker gets a signal.
fn signal_all(app: &TestApp, signal: Signal) {
    let pids = workers(app);
    assert!(!pids.is_empty(), "there is a worker");
    for pid in pids {
        kill_process(pid, signal).unwrap();
    }
}

/// Where a worker lives.
fn home_of(pid: Pid) -> PathBuf {
    let environ = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap();
    let mut variables = environ.split(|byte| *byte == 0);
    let home = variables.find_map(|variable| variable.strip_prefix(b"CODEX_HOME=")).unwrap();
    String::from_utf8(home.to_vec()).unwrap().into()
}

/// Resident memory of a process, in kB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// A request that is answered without end, and one that is answered at once, in the words of either codex.
fn endless(codex: Codex) -> (&'static str, &'static str) {
    match codex {
        Codex::Fake => ("fake:stream:100000:20", "hi"),
        Codex::Real => ("gpt-5.5", r#"@@{"tokens":100000,"delay_ms":20}@@"#),
    }
}

fn short(codex: Codex) -> (&'static str, &'static str) {
    match codex {
        Codex::Fake => ("fake:text:5", "hi"),
        Codex::Real => ("gpt-5.5", r#"@@{"text":"01234"}@@"#),
    }
}

/// A stream of which something was read.
enum Begun {
    Sse(String, futures_util::stream::BoxStream<'static, reqwest::Result<axum::body::Bytes>>),
    Grpc(Box<tonic::Streaming<pb::ChatEvent>>),
}

/// Opens a stream on one door or the other and waits for its first text.
async fn begin(app: &TestApp, number: usize, (model, text): (&str, &str)) -> Begun {
    timeout(SOON, open(app, number, model, text)).await.expect("it begins in time")
}

async fn open(app: &TestApp, number: usize, model: &str, text: &str) -> Begun {
    if number.is_multiple_of(2) {
        let mut request = body(model, text);
        request["stream"] = true.into();
        let response = app.post(&request).await;
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        let mut stream = response.bytes_stream().boxed();
        let mut read = String::new();
        while !read.contains(r#""content":""#) {
            let bytes = stream.next().await.expect("text comes first").unwrap();
            read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        Begun::Sse(read, stream)
    } else {
        let mut stream = app.grpc().await.stream_chat(ask(model, text)).await.unwrap().into_inner();
        loop {
            let event = stream.message().await.unwrap().expect("text comes first");
            if matches!(event.event, Some(pb::chat_event::Event::TextDelta(_))) {
                return Begun::Grpc(Box::new(stream));
            }
        }
    }
}

impl Begun {
    /// The stable reason of the error that it ends with.
    async fn error(self) -> String {
        self.failure().await.0
    }

    /// Waits for more text.
    async fn more(&mut self) {
        match self {
            Self::Sse(_, stream) => {
                let bytes = stream.next().await.expect("it goes on").unwrap();
                let text = String::from_utf8_lossy(&bytes);
                assert!(text.contains(r#""content":""#) && !text.contains(r#""error""#), "{text}");
            }
            Self::Grpc(stream) => drop(stream.message().await.unwrap().expect("it goes on")),
        }
    }

    /// The stable reason of the error that it ends with, and its words.
    async fn failure(self) -> (String, String) {
        timeout(SOON, self.read_failure()).await.expect("it ends in time")
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
                    Ok(None) => panic!("it ended well"),
                    Err(status) => return (kind(&status).1, status.message().to_owned()),
                }
            },
        }
    }

    /// Waits for more text.
    async fn goes_on(&mut self) {
        timeout(SOON, self.read_on()).await.expect("it goes on in time");
    }

    async fn read_on(&mut self) {
        match self {
            Self::Sse(read, stream) => loop {
                let bytes = stream.next().await.expect("it has not ended").unwrap();
                let more = std::str::from_utf8(&bytes).unwrap();
                assert!(!more.contains("error"), "{more}");
                read.push_str(more);
                if more.contains(r#""content":""#) {
                    return;
                }
            },
            Self::Grpc(stream) => loop {
                let event = stream.message().await.unwrap().expect("it has not ended");
                if matches!(event.event, Some(pb::chat_event::Event::TextDelta(_))) {
                    return;
                }
            },
        }
    }
}

/// Opens twenty streams on both doors.
async fn twenty(app: &TestApp, codex: Codex) -> Vec<Begun> {
    join_all((0..STREAMS).map(|number| begin(app, number, endless(codex)))).await
}

/// Twenty turns, half of them on each door, all of which must be right.
async fn twenty_work(app: &TestApp, codex: Codex) {
    let (model, text) = short(codex);
    join_all((0..STREAMS).map(async |number| {
        if number.is_multiple_of(2) {
            let answer = app.complete(&body(model, text)).await;
            assert_eq!(answer["choices"][0]["message"]["content"], "01234", "{answer}");
        } else {
            assert_eq!(app.chat(ask(model, text)).await, "01234");
        }
    }))
    .await;
}

/// Whatever happened is over within the time.
async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    timeout(limit, work).await.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// The next twenty turns after a loss, within the time that is promised for them. They must work whatever else the
/// machine does; if something else takes it, the same loss may be tried twice more for the time.
async fn next_twenty(app: &TestApp, codex: Codex) -> bool {
    let began = Instant::now();
    timeout(SOON, twenty_work(app, codex)).await.expect("the next twenty turns");
    began.elapsed() <= lost::NEXT
}

/// What health says.
async fn health(app: &TestApp) -> (u16, Value) {
    let response = reqwest::get(app.url("/healthz")).await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(json!(null)))
}
