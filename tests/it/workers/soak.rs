//! Thousands of turns through the real CLI. No turn fails, and memory and disk usage stay flat. Run by `scripts/soak.sh`.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::{resident_kb, worker_home};
use crate::{
    eventually,
    support::{
        Codex, Engine, TIMEOUT,
        http::{answer_of_chunks, chunks, streamed},
        program::{Program, RunningProgram},
    },
};

const CLIENTS: usize = 16;
const WORKERS: usize = 2;

/// The default of `CODEX_KEPT_THREADS`.
const KEPT: usize = 64;

/// Memory and disk usage at one moment, in kB.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    gateway: u64,
    workers: u64,
    disk: u64,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: ./scripts/soak.sh"]
async fn conversations_with_branches_succeed_with_flat_memory_and_disk() {
    const CONVERSATIONS: usize = 250;
    let mut server = start().await;
    run(&server, CONVERSATIONS, 8, async |client, number, done| {
        let mut conversation = Conversation { number, messages: Vec::new() };
        let mut branch = conversation.clone();
        for turn in 0..8 {
            if turn == 2 {
                branch = conversation.clone();
            }
            // The last turns follow an earlier answer.
            if turn == 5 {
                conversation = branch.clone();
            }
            let origin = conversation.ask(client, &server, turn).await;
            assert!(turn > 0 || origin == "fresh", "conversation {number}: {origin}");
            done();
        }
    })
    .await;
    let threads = threads(&server).await;
    eprintln!("{threads}");
    // The branch of each conversation has lost its thread to the turns that followed.
    let turns = CONVERSATIONS as u64;
    assert_eq!(threads["continued_turns"], turns * 6, "{threads}");
    assert_eq!(threads["forked_turns"], turns, "{threads}");
    assert_stops(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: ./scripts/soak.sh"]
async fn thousand_conversations_succeed_with_the_threads_of_few() {
    const CONVERSATIONS: usize = 1000;
    let mut server = start().await;
    run(&server, CONVERSATIONS, 1, async |client, number, done| {
        Conversation { number, messages: Vec::new() }.ask(client, &server, 0).await;
        done();
    })
    .await;
    let kept = KEPT * WORKERS;
    let first = threads(&server).await;
    eprintln!("{first}");
    assert!(first["kept"].as_u64().unwrap() <= kept as u64, "{first}");
    // The order of the last conversations depends on the clients, so a few more than those kept are not asked for.
    let (continued, others) = (AtomicUsize::new(0), AtomicUsize::new(0));
    run(&server, CONVERSATIONS, 1, async |client, number, done| {
        // From the newest to the oldest.
        let number = CONVERSATIONS - 1 - number;
        let mut conversation = Conversation { number, messages: Vec::new() };
        conversation.push(0);
        let origin = conversation.ask(client, &server, 1).await;
        let counter = if origin == "continued" { &continued } else { &others };
        counter.fetch_add(1, Ordering::Relaxed);
        assert!(
            origin != "continued" || number + kept + CLIENTS >= CONVERSATIONS,
            "conversation {number} is older than those kept"
        );
        done();
    })
    .await;
    let (continued, others) = (continued.into_inner(), others.into_inner());
    eprintln!("{continued} continued, {others} not; {}", threads(&server).await);
    assert!(continued > kept / 2, "{continued} continued");
    assert_stops(&mut server).await;
}

async fn start() -> RunningProgram {
    let program = Program::new(Codex::Real, Engine::AppServer)
        .env("CODEX_PROFILE", "chat")
        .env("CODEX_WORKERS", WORKERS.to_string())
        .env("CODEX_WORKER_MAX_TURNS", "1000000");
    program.serve(&["serve", "--demo"]).await
}

async fn assert_stops(server: &mut RunningProgram) {
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    server.assert_nothing_is_left().await;
}

/// Runs conversations with all clients and asserts that memory and disk usage stay flat and that no worker is lost. Each
/// conversation tells the end of each of its turns.
async fn run(
    server: &RunningProgram,
    conversations: usize,
    turns_each: usize,
    conversation: impl AsyncFn(&reqwest::Client, usize, &dyn Fn()),
) {
    eventually!("the workers run", workers(server).len() == WORKERS);
    let before = workers(server);
    let turns = conversations * turns_each;
    let (next, done, began) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let clients = join_all((0..CLIENTS).map(async |_| {
        let client = reqwest::Client::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= conversations {
                return;
            }
            let count = || {
                done.fetch_add(1, Ordering::Relaxed);
            };
            conversation(&client, number, &count).await;
        }
    }));
    // Sampled per number of turns, not per time.
    let sampling = async {
        let mut samples: Vec<Usage> = Vec::new();
        while done.load(Ordering::Relaxed) < turns {
            if done.load(Ordering::Relaxed) / 10 > samples.len() {
                samples.push(measure(server));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        samples
    };
    let (_, samples) = tokio::join!(clients, sampling);
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(workers(server), before, "no worker was lost");

    let quarter =
        |number: usize| mean(&samples[samples.len() * number / 4..samples.len() * (number + 1) / 4]);
    let quarters = [0, 1, 2, 3].map(quarter);
    eprintln!("{turns} turns in {seconds:.0} s, mean kB in each quarter:");
    for usage in quarters {
        eprintln!("  gateway {:>7}  workers {:>7}  disk {:>7}", usage.gateway, usage.workers, usage.disk);
    }
    let [_, second, _, last] = quarters;
    for (name, before, after) in [
        ("gateway", second.gateway, last.gateway),
        ("workers", second.workers, last.workers),
        ("disk", second.disk, last.disk),
    ] {
        // The tolerance of 64 kB allows for an additional folder.
        assert!(after <= before + before / 10 + 64, "{name}: {before} kB, then {after} kB");
    }
}

/// A conversation whose texts are unique.
#[derive(Debug, Clone)]
struct Conversation {
    number: usize,
    messages: Vec<Value>,
}

impl Conversation {
    /// Adds a question and its answer.
    fn push(&mut self, turn: usize) -> String {
        let answer: String = (0..20).map(|n| format!("{}.{turn}.{n} ", self.number)).collect();
        let answer = answer.trim_end().to_owned();
        let question = format!("Question {turn} of {}. @@{}@@", self.number, json!({"text": answer}));
        self.messages.push(json!({"role": "user", "content": question}));
        self.messages.push(json!({"role": "assistant", "content": answer}));
        answer
    }

    /// Asks a question, plain or streamed, and asserts its answer. Returns where the turn ran.
    async fn ask(&mut self, client: &reqwest::Client, server: &RunningProgram, turn: usize) -> String {
        let number = self.number;
        let expected = self.push(turn);
        let asked = &self.messages[..self.messages.len() - 1];
        let request = json!({"model": "gpt-5.5", "messages": asked});
        let stream = (number + turn).is_multiple_of(2);
        let request = if stream { streamed(request) } else { request };
        let response = client.post(server.url("/v1/chat/completions")).json(&request).send().await.unwrap();
        let status = response.status();
        let origin =
            response.headers().get("x-codex-thread").map(|origin| origin.to_str().unwrap().to_owned());
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "turn {turn} of {number}: {status}: {text}");
        let answer = if stream {
            let (chunks, done) = chunks(&text);
            assert!(done, "turn {turn} of {number}: {text}");
            answer_of_chunks(&chunks).text
        } else {
            let whole: Value = serde_json::from_str(&text).unwrap();
            whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
        };
        assert_eq!(answer, expected, "turn {turn} of {number}");
        origin.unwrap()
    }
}

/// Returns the counts of threads that the server tells.
async fn threads(server: &RunningProgram) -> Value {
    let response = reqwest::get(server.url("/v1/codex/status")).await.unwrap();
    response.json::<Value>().await.unwrap()["threads"].take()
}

fn workers(server: &RunningProgram) -> Vec<Pid> {
    let lines = server.processes();
    let lines = lines.iter().filter(|line| line.contains(" app-server") && !line.contains(" supervise "));
    lines.filter_map(|line| Pid::from_raw(line.split_once(':')?.0.parse().ok()?)).collect()
}

fn measure(server: &RunningProgram) -> Usage {
    let workers = workers(server);
    let homes: u64 = workers.iter().map(|pid| size(&worker_home(*pid))).sum();
    Usage {
        gateway: resident_kb(server.pid()),
        workers: workers.iter().map(|pid| resident_kb(pid.as_raw_nonzero().get().unsigned_abs())).sum(),
        disk: (homes + size(server.home())) / 1024,
    }
}

/// Returns the size of a folder in bytes. Does not follow links.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn mean(samples: &[Usage]) -> Usage {
    let count = samples.len().max(1) as u64;
    let mean_of = |field: fn(&Usage) -> u64| samples.iter().map(field).sum::<u64>() / count;
    Usage {
        gateway: mean_of(|usage| usage.gateway),
        workers: mean_of(|usage| usage.workers),
        disk: mean_of(|usage| usage.disk),
    }
}
