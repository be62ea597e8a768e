//! A worker that is lost with its threads: every conversation goes on with a fresh one, and nothing is wrong.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::client::Client;
use crate::{
    eventually,
    support::{AppConfig, Engine, TestApp, with_app},
    tools::routes::{ROUTES, Route, tool_result},
};

const MODEL: &str = "fake:directives:chat";
const KEPT: usize = 64;
const PARKED: usize = 16;

fn config() -> AppConfig {
    AppConfig::fake(Engine::AppServer).workers(1).max_concurrency(16).max_queue(500)
}

/// Returns a request that continues after the answer `Hello.`, and its first part.
fn conversation(number: usize) -> (Value, Value) {
    let question = json!({"role": "user", "content": format!("{number}: @@think secret@@@@text Hello.@@")});
    let more = [
        json!({"role": "assistant", "content": "Hello."}),
        json!({"role": "user", "content": "@@transcript@@"}),
    ];
    let first = json!({"model": MODEL, "messages": [question]});
    let mut next = first.clone();
    next["messages"].as_array_mut().unwrap().extend(more);
    (first, next)
}

/// Asks for two calls. Returns the request with their results.
async fn call(client: &Client, route: Route, number: usize) -> Value {
    let function = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let script = format!(
        "{number}: @@think secret@@@@call f {{\"n\":{number}}}@@@@call f {{\"n\":-1}}@@ @@then@@ @@transcript@@"
    );
    let question = json!({"role": "user", "content": script});
    let mut body = json!({"model": MODEL, "messages": [question], "tools": [function]});
    let reply = client.send(route, &body).await;
    let answer = reply.answer();
    assert_eq!((answer.calls.len(), &*answer.finish_reason), (2, "tool_calls"));
    let results = answer.calls.iter().map(|call| tool_result(call, format!("result {number}")));
    let more: Vec<Value> = [answer.message()].into_iter().chain(results).collect();
    body["messages"].as_array_mut().unwrap().extend(more);
    body
}

fn kill_workers(app: &TestApp) {
    for pid in app.workers() {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    }
}

/// Starts turns until `stop` is set. Returns the number of turns that were answered and lost.
async fn load(client: &Client, number: usize, stop: &AtomicBool) -> (usize, usize) {
    let (mut answered, mut lost) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let text = format!("load {number} {answered}");
        let script = format!("@@text {text}@@@@wait 5@@");
        let body = json!({"model": MODEL, "messages": [{"role": "user", "content": script}]});
        match client.send(ROUTES[number % 4], &body).await.outcome {
            Ok(answer) => {
                assert_eq!(answer.text, text);
                answered += 1;
            }
            Err(error) => {
                assert!(error.contains("worker_lost") || error.contains("WORKER_LOST"), "{error}");
                lost += 1;
            }
        }
    }
    (answered, lost)
}

#[tokio::test]
async fn lost_worker_with_kept_and_parked_threads_costs_time_only() {
    with_app(config().env("CODEX_KEPT_THREADS", "200"), async |app| {
        with_app(config().env("CODEX_KEPT_THREADS", "0"), async |fresh| {
            let (client, fresh) = (Client::new(app).await, Client::new(fresh).await);
            let requests: Vec<(Value, Value)> = (0..KEPT).map(conversation).collect();
            let answered = join_all(requests.iter().enumerate().map(async |(number, (first, _))| {
                client.send(ROUTES[number % 4], first).await.answer().text.clone()
            }))
            .await;
            assert!(answered.iter().all(|text| text == "Hello."));
            let parked = (0..PARKED).map(|number| call(&client, ROUTES[number % 4], number));
            let parked = join_all(parked).await;
            let threads = app.status().await.threads.unwrap();
            assert_eq!((threads.kept as usize, threads.parked as usize), (KEPT, PARKED), "{threads:?}");

            let stop = AtomicBool::new(false);
            let killed = async {
                let before = app.workers();
                eventually!("the load runs", app.status().await.running_turns > 0);
                kill_workers(app);
                eventually!("another worker runs", app.workers().iter().any(|pid| !before.contains(pid)));
                let bodies: Vec<&Value> = requests.iter().map(|(_, next)| next).chain(&parked).collect();
                let replies = join_all(bodies.iter().enumerate().map(async |(number, body)| {
                    let route = ROUTES[number % 4];
                    (client.send(route, body).await, fresh.send(route, body).await)
                }))
                .await;
                stop.store(true, Ordering::Relaxed);
                for (reply, expected) in replies {
                    assert!(!reply.is_continued());
                    assert_eq!(reply.answer().text, expected.answer().text);
                }
            };
            let load = join_all((0..4).map(|number| load(&client, number, &stop)));
            let (counts, ()) = tokio::join!(load, killed);
            assert!(counts.iter().all(|(answered, _)| *answered > 0), "{counts:?}");
            let threads = app.status().await.threads.unwrap();
            assert!(threads.evicted["worker"] as usize >= KEPT + PARKED, "{threads:?}");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn result_of_a_call_that_its_worker_lost_is_answered_by_a_replay() {
    with_app(config(), async |app| {
        let client = Client::new(app).await;
        for route in ROUTES {
            let body = call(&client, route, 1).await;
            let before = app.workers();
            kill_workers(app);
            eventually!("the thread is let go", app.status().await.threads.unwrap().parked == 0);
            eventually!("another worker runs", app.workers().iter().any(|pid| !before.contains(pid)));
            let replayed = client.send(route, &body).await;
            assert_eq!(replayed.thread, "fresh");
            let again = call(&client, route, 1).await;
            let answered = client.send(route, &again).await;
            assert_eq!(answered.thread, "continued");
            assert_eq!(replayed.answer().text, answered.answer().text);
        }
    })
    .await;
}
