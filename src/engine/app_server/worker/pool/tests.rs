//! Workers without processes, on a clock of the test: the other end of each answers what it is asked, or is closed.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, split},
    time::timeout,
};

use super::*;
use crate::engine::app_server::{rpc::client::RpcClient, worker::spec::WorkerSpec};

/// Starts workers as long as it is told to.
#[derive(Debug, Default)]
struct Toys {
    started: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicBool,
    /// To be cancelled: the end of each worker, in the order of their start.
    ends: Mutex<Vec<CancellationToken>>,
    tasks: TaskTracker,
}

#[tonic::async_trait]
impl SpawnWorker for Toys {
    async fn worker(&self) -> Result<Worker, String> {
        if self.broken.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err("no more toys".to_owned());
        }
        self.started.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (stdout, stdin) = split(ours);
        let end = CancellationToken::new();
        self.ends.lock().unwrap().push(end.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = answer(theirs) => {}
                () = end.cancelled() => {}
            }
        });
        Ok(Worker::of(
            RpcClient::start(stdin, stdout, 1 << 16, &self.tasks),
            Arc::new(WorkerSpec::for_test()),
            None,
            None,
        ))
    }

    fn is_stale(&self, _worker: &Worker) -> bool {
        false
    }
}

/// Everything is answered.
async fn answer(pipe: DuplexStream) {
    let (read, mut write) = split(pipe);
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let call: Value = serde_json::from_str(&line).unwrap();
        let answer = json!({"id": call["id"], "result": {}});
        drop(write.write_all(format!("{answer}\n").as_bytes()).await);
    }
}

impl Toys {
    fn kill(&self, number: usize) {
        self.ends.lock().unwrap()[number].cancel();
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }
}

fn rules(count: usize) -> Workers {
    Workers { count, max_turns: 5, max_age: Duration::from_secs(3600), max_memory_bytes: u64::MAX }
}

async fn pool(rules: Workers) -> (Arc<Pool>, Arc<Toys>) {
    let toys = Arc::new(Toys::default());
    let first = toys.worker().await.unwrap();
    let count = rules.count;
    let nursery: Arc<dyn SpawnWorker> = Arc::<Toys>::clone(&toys);
    let pool = Pool::start(first, rules, nursery, &toys.tasks);
    until(|| pool.ready.read().unwrap().len() == count).await;
    (pool, toys)
}

/// The clock is the test's: it runs when nothing else does.
async fn until(condition: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(600), async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("it becomes true");
}

async fn close(pool: &Pool, toys: &Toys) {
    pool.close();
    toys.tasks.close();
    timeout(Duration::from_secs(60), toys.tasks.wait()).await.expect("no task is left");
    assert!(matches!(pool.lease().await, Err(Error::Draining)));
}

#[tokio::test(start_paused = true)]
async fn the_worker_with_the_fewest_turns_is_taken_and_one_that_is_late_last() {
    let (pool, toys) = pool(rules(2)).await;
    let (one, two) = (pool.lease().await.unwrap(), pool.lease().await.unwrap());
    assert!(!Arc::ptr_eq(&one.0, &two.0));
    two.late.store(true, Ordering::Relaxed);
    let three = pool.lease().await.unwrap();
    assert!(Arc::ptr_eq(&one.0, &three.0));
    drop((one, two, three));
    close(&pool, &toys).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_the_last_one_is_lost_waits_for_the_next() {
    let (pool, toys) = pool(rules(1)).await;
    let lost = pool.lease().await.unwrap();
    toys.kill(0);
    lost.rpc.closed().await;
    assert_eq!(pool.trouble(), None, "just lost is no trouble");
    let next = pool.lease().await.unwrap();
    assert!(!Arc::ptr_eq(&lost.0, &next.0));
    drop((lost, next));
    close(&pool, &toys).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_replaced_is_told_and_tried_again_with_growing_pauses() {
    let (pool, toys) = pool(rules(1)).await;
    toys.broken.store(true, Ordering::Relaxed);
    toys.kill(0);
    until(|| pool.trouble().is_some_and(|why| why == "no more toys")).await;
    let refused = pool.lease().await.unwrap_err();
    assert!(matches!(refused, Error::EngineUnavailable { message } if message == "no more toys"));
    sleep(Duration::from_secs(120)).await;
    // 0.25, 0.5, 1, … 16, 30, 30, 30 s.
    let tries = toys.refused.load(Ordering::Relaxed);
    assert!((8..13).contains(&tries), "{tries}");
    toys.broken.store(false, Ordering::Relaxed);
    until(|| pool.trouble().is_none()).await;
    drop(pool.lease().await.unwrap());
    close(&pool, &toys).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_has_had_its_turns_goes_when_they_are_over() {
    let (pool, toys) = pool(rules(1)).await;
    let old = pool.lease().await.unwrap();
    for _ in 1..5 {
        drop(pool.lease().await.unwrap());
    }
    until(|| toys.started() == 2).await;
    until(|| old.retired.load(Ordering::Relaxed)).await;
    assert!(!Arc::ptr_eq(&old.0, &pool.lease().await.unwrap().0));
    sleep(Duration::from_secs(60)).await;
    assert!(!old.rpc.is_closed(), "its turn is not over");
    let worker = Arc::clone(&old.0);
    drop(old);
    until(|| worker.rpc.is_closed()).await;
    close(&pool, &toys).await;
}

#[tokio::test(start_paused = true)]
async fn those_that_began_together_do_not_go_together() {
    let (pool, toys) = pool(rules(4)).await;
    assert_eq!(toys.started(), 4);
    let mut replaced = Vec::new();
    for _ in 0..3600 {
        sleep(Duration::from_secs(1)).await;
        replaced.push(toys.started() - 4);
    }
    // 90 s lie between one and the next.
    let at = |count| replaced.iter().position(|now| *now >= count);
    let (first, second, third) = (at(1).unwrap(), at(2).unwrap(), at(3).unwrap());
    assert!((3320..3340).contains(&first), "{first}");
    assert!(second - first >= 80 && third - second >= 80, "{first} {second} {third}");
    close(&pool, &toys).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_due_and_cannot_be_replaced_goes_on_and_is_still_watched() {
    let (pool, toys) = pool(rules(1)).await;
    toys.broken.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        drop(pool.lease().await.unwrap());
    }
    until(|| toys.refused.load(Ordering::Relaxed) == 1).await;
    drop(pool.lease().await.unwrap());
    toys.kill(0);
    sleep(Duration::from_secs(1)).await;
    assert!(pool.trouble().is_some(), "its death is seen though the next try is 30 s away");
    toys.broken.store(false, Ordering::Relaxed);
    drop(pool.lease().await.unwrap());
    close(&pool, &toys).await;
}
