//! Two thousand turns through the real CLI. No turn fails, and memory and disk usage stay flat. Run by `scripts/soak.sh`.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::{resident_kb, worker_home};
use crate::{
    eventually,
    support::{
        Codex, Engine, TIMEOUT,
        http::{answer_of_chunks, body, chunks, streamed},
        program::{Program, RunningProgram},
    },
};

const TURNS: usize = 2000;
const CLIENTS: usize = 16;
const WORKERS: usize = 2;

/// Memory and disk usage at one moment, in kB.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    gateway: u64,
    workers: u64,
    disk: u64,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: ./scripts/soak.sh"]
async fn two_thousand_turns_succeed_with_flat_memory_and_disk() {
    let program = Program::new(Codex::Real, Engine::AppServer)
        .env("CODEX_WORKERS", WORKERS.to_string())
        .env("CODEX_WORKER_MAX_TURNS", "1000000");
    let mut server = program.serve(&["serve", "--demo"]).await;
    eventually!("the workers run", workers(&server).len() == WORKERS);
    let before = workers(&server);
    let (next, done, began) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let clients = join_all((0..CLIENTS).map(async |_| {
        let client = reqwest::Client::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= TURNS {
                return;
            }
            assert_turn_succeeds(&client, &server, number).await;
            done.fetch_add(1, Ordering::Relaxed);
        }
    }));
    // Sampled per number of turns, not per time.
    let sampling = async {
        let mut samples: Vec<Usage> = Vec::new();
        while done.load(Ordering::Relaxed) < TURNS {
            if done.load(Ordering::Relaxed) / 20 > samples.len() {
                samples.push(measure(&server));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        samples
    };
    let (_, samples) = tokio::join!(clients, sampling);
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(workers(&server), before, "no worker was lost");

    let quarter =
        |number: usize| mean(&samples[samples.len() * number / 4..samples.len() * (number + 1) / 4]);
    let quarters = [0, 1, 2, 3].map(quarter);
    eprintln!("{TURNS} turns in {seconds:.0} s, mean kB in each quarter:");
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
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    server.assert_nothing_is_left().await;
}

/// Runs one turn, plain or streamed, and asserts its answer.
async fn assert_turn_succeeds(client: &reqwest::Client, server: &RunningProgram, number: usize) {
    let expected: String = (0..20).map(|n| format!("{number}.{n} ")).collect();
    let request = body("gpt-5.5", &format!("@@{}@@", serde_json::json!({"text": expected.trim_end()})));
    let stream = number.is_multiple_of(2);
    let request = if stream { streamed(request) } else { request };
    let response = client.post(server.url("/v1/chat/completions")).json(&request).send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "turn {number}: {status}: {text}");
    let answer = if stream {
        let (chunks, done) = chunks(&text);
        assert!(done, "turn {number}: {text}");
        answer_of_chunks(&chunks).text
    } else {
        let whole: Value = serde_json::from_str(&text).unwrap();
        whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(answer, expected.trim_end(), "turn {number}");
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
