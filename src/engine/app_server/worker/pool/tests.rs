//! Tests with workers without processes and a paused clock. The other end of each pipe answers every call, or is closed.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, split},
    time::timeout,
};

use super::*;
use crate::{
    config::{Config, Sources},
    engine::app_server::{rpc::client::RpcClient, worker::spec::WorkerSpec},
};

/// Spawns workers until `broken` is set.
#[derive(Debug, Default)]
struct ToySpawner {
    started: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicBool,
    /// Panics in `spawn`.
    panics_at_start: AtomicBool,
    /// Panics in the watch of a worker.
    panics_at_watch: AtomicBool,
    /// The login that a started worker finds.
    login: Option<Arc<LoginWatch>>,
    /// One token per worker, in the order of the starts. Cancelling the token ends the worker.
    ends: Mutex<Vec<CancellationToken>>,
    tasks: TaskTracker,
}

#[tonic::async_trait]
impl SpawnWorker for ToySpawner {
    async fn spawn(&self) -> Result<Worker, StartError> {
        assert!(!self.panics_at_start.load(Ordering::Relaxed), "injected");
        if self.broken.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(StartError::Exited { stderr: "the test spawner is broken".to_owned() });
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
        let mut worker = Worker::new(
            RpcClient::start(stdin, stdout, 1 << 16, Arc::default(), &self.tasks),
            Arc::new(WorkerSpec::for_test()),
            None,
            None,
        );
        worker.login = self.login.as_ref().and_then(|login| login.current().identity);
        Ok(worker)
    }

    fn is_outdated(&self, _worker: &Worker) -> bool {
        assert!(!self.panics_at_watch.swap(false, Ordering::Relaxed), "injected");
        false
    }
}

/// Answers every call.
async fn answer(pipe: DuplexStream) {
    let (read, mut write) = split(pipe);
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let call: Value = serde_json::from_str(&line).unwrap();
        let answer = json!({"id": call["id"], "result": {}});
        drop(write.write_all(format!("{answer}\n").as_bytes()).await);
    }
}

impl ToySpawner {
    fn kill(&self, number: usize) {
        self.ends.lock().unwrap()[number].cancel();
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }
}

fn config(count: usize) -> Workers {
    Workers { count, max_turns: 5, max_age: Duration::from_secs(3600), max_memory_bytes: u64::MAX }
}

async fn pool(config: Workers) -> (Arc<Pool>, Arc<ToySpawner>) {
    pool_with_env(config, &[("CODEX_API_KEY", "sk-1")]).await
}

async fn pool_with_env(config: Workers, env: &[(&str, &str)]) -> (Arc<Pool>, Arc<ToySpawner>) {
    let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let sources = Sources { env, current_dir: "/work".into(), ..Sources::default() };
    let login = Arc::new(LoginWatch::new(&Config::load(sources).unwrap().codex));
    let spawner = Arc::new(ToySpawner { login: Some(Arc::clone(&login)), ..ToySpawner::default() });
    let first = spawner.spawn().await.unwrap();
    let count = config.count;
    let dyn_spawner: Arc<dyn SpawnWorker> = Arc::<ToySpawner>::clone(&spawner);
    let pool = Pool::start(first, config, dyn_spawner, login, &spawner.tasks);
    until(|| pool.ready.read().unwrap().len() == count).await;
    (pool, spawner)
}

/// Waits until `condition` is true. The paused clock advances when no task can run.
async fn until(condition: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(600), async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("the condition becomes true");
}

async fn close(pool: &Pool, spawner: &ToySpawner) {
    pool.close();
    spawner.tasks.close();
    timeout(Duration::from_secs(60), spawner.tasks.wait()).await.expect("all tasks end");
    assert!(matches!(pool.lease().await, Err(Error::Draining)));
}

#[tokio::test(start_paused = true)]
async fn lease_with_several_workers_prefers_few_turns_and_avoids_slow_workers() {
    let (pool, spawner) = pool(config(2)).await;
    let (one, two) = (pool.lease().await.unwrap(), pool.lease().await.unwrap());
    assert!(!Arc::ptr_eq(&one.worker, &two.worker));
    two.apply(WorkerEvent::Delayed);
    let three = pool.lease().await.unwrap();
    assert!(Arc::ptr_eq(&one.worker, &three.worker));
    drop((one, two, three));
    close(&pool, &spawner).await;
}

#[tokio::test(start_paused = true)]
async fn lease_after_the_loss_of_the_only_worker_waits_for_its_successor() {
    let (pool, spawner) = pool(config(1)).await;
    let lost = pool.lease().await.unwrap();
    spawner.kill(0);
    lost.rpc.closed().await;
    assert_eq!(pool.unavailable_reason(), None, "a pool is available shortly after a loss");
    let next = pool.lease().await.unwrap();
    assert!(!Arc::ptr_eq(&lost.worker, &next.worker));
    drop((lost, next));
    close(&pool, &spawner).await;
}

#[tokio::test(start_paused = true)]
async fn failed_start_is_reported_and_retried_with_growing_delays() {
    let (pool, spawner) = pool(config(1)).await;
    spawner.broken.store(true, Ordering::Relaxed);
    spawner.kill(0);
    until(|| {
        pool.unavailable_reason()
            .is_some_and(|reason| reason.starts_with("the app-server exited at its start"))
    })
    .await;
    let refused = pool.lease().await.unwrap_err();
    assert!(
        matches!(refused, Error::EngineUnavailable { message } if message.starts_with("the app-server exited at its start"))
    );
    sleep(Duration::from_secs(120)).await;
    // 0.25, 0.5, 1, … 16, 30, 30, 30 s.
    let tries = spawner.refused.load(Ordering::Relaxed);
    assert!((8..13).contains(&tries), "{tries}");
    spawner.broken.store(false, Ordering::Relaxed);
    until(|| pool.unavailable_reason().is_none()).await;
    drop(pool.lease().await.unwrap());
    close(&pool, &spawner).await;
}

#[tokio::test(start_paused = true)]
async fn worker_at_max_turns_is_killed_when_its_turns_have_ended() {
    let (pool, spawner) = pool(config(1)).await;
    let old = pool.lease().await.unwrap();
    for _ in 1..5 {
        drop(pool.lease().await.unwrap());
    }
    until(|| spawner.started() == 2).await;
    until(|| old.state() == WorkerState::Retired).await;
    assert!(!Arc::ptr_eq(&old.worker, &pool.lease().await.unwrap().worker));
    sleep(Duration::from_secs(60)).await;
    assert!(!old.rpc.is_closed(), "the turn of the old worker still runs");
    let worker = Arc::clone(&old.worker);
    drop(old);
    until(|| worker.rpc.is_closed()).await;
    close(&pool, &spawner).await;
}

#[tokio::test(start_paused = true)]
async fn workers_of_the_same_age_are_replaced_one_by_one() {
    let (pool, spawner) = pool(config(4)).await;
    assert_eq!(spawner.started(), 4);
    let mut replaced = Vec::new();
    for _ in 0..3600 {
        sleep(Duration::from_secs(1)).await;
        replaced.push(spawner.started() - 4);
    }
    // The limits differ by 90 s.
    let at = |count| replaced.iter().position(|now| *now >= count);
    let (first, second, third) = (at(1).unwrap(), at(2).unwrap(), at(3).unwrap());
    assert!((3320..3340).contains(&first), "{first}");
    assert!(second - first >= 80 && third - second >= 80, "{first} {second} {third}");
    close(&pool, &spawner).await;
}

#[tokio::test(start_paused = true)]
async fn due_worker_without_a_successor_is_still_watched() {
    let (pool, spawner) = pool(config(1)).await;
    spawner.broken.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        drop(pool.lease().await.unwrap());
    }
    until(|| spawner.refused.load(Ordering::Relaxed) == 1).await;
    drop(pool.lease().await.unwrap());
    spawner.kill(0);
    sleep(Duration::from_secs(1)).await;
    assert!(
        pool.unavailable_reason().is_some(),
        "the loss is reported although the next attempt is 30 s away"
    );
    spawner.broken.store(false, Ordering::Relaxed);
    drop(pool.lease().await.unwrap());
    close(&pool, &spawner).await;
}

#[tokio::test(start_paused = true)]
async fn worker_with_a_former_login_gets_no_more_turns_and_finishes_its_own() {
    let home = tempfile::tempdir().unwrap();
    let log_in = |key: &str| {
        let new = home.path().join("new");
        std::fs::write(&new, json!({"OPENAI_API_KEY": key}).to_string()).unwrap();
        std::fs::rename(new, home.path().join("auth.json")).unwrap();
    };
    log_in("sk-1");
    let limits = Workers { max_turns: 100, ..config(2) };
    let (pool, spawner) = pool_with_env(limits, &[("CODEX_HOME", home.path().to_str().unwrap())]).await;
    let old = pool.lease().await.unwrap();
    log_in("sk-2");
    assert_eq!(pool.unavailable_reason(), None, "the successor is starting");
    for _ in 0..10 {
        let new = pool.lease().await.unwrap();
        assert_ne!(new.worker.login, old.worker.login);
    }
    until(|| spawner.started() == 4).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(spawner.started(), 4, "the workers with the new login stay");
    assert!(!old.rpc.is_closed(), "the turn of the old worker still runs");
    let worker = Arc::clone(&old.worker);
    drop(old);
    until(|| worker.rpc.is_closed()).await;

    // A login that cannot be used leads to no start.
    spawner.broken.store(true, Ordering::Relaxed);
    log_in("sk-3");
    let refused = pool.lease().await.unwrap_err();
    assert!(
        matches!(&refused, Error::EngineUnavailable { message } if message.starts_with("the app-server exited at its start")),
        "{refused}"
    );
    assert!(pool.unavailable_reason().is_some());
    spawner.broken.store(false, Ordering::Relaxed);
    drop(pool.lease().await.unwrap());
    close(&pool, &spawner).await;
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_start_is_reported_and_the_slot_tries_again() {
    let (pool, spawner) = pool(config(1)).await;
    spawner.panics_at_start.store(true, Ordering::Relaxed);
    spawner.kill(0);
    until(|| pool.unavailable_reason().is_some_and(|reason| reason.starts_with("internal error"))).await;
    spawner.panics_at_start.store(false, Ordering::Relaxed);
    until(|| pool.unavailable_reason().is_none()).await;
    drop(pool.lease().await.unwrap());
    close(&pool, &spawner).await;
}

#[tokio::test(start_paused = true)]
async fn worker_whose_watch_panics_is_closed_and_replaced() {
    let (pool, spawner) = pool(config(1)).await;
    let unwatched = pool.lease().await.unwrap();
    spawner.panics_at_watch.store(true, Ordering::Relaxed);
    until(|| spawner.started() == 2).await;
    assert_eq!(unwatched.state(), WorkerState::Closed);
    let next = pool.lease().await.unwrap();
    assert!(!Arc::ptr_eq(&unwatched.worker, &next.worker));
    drop((unwatched, next));
    close(&pool, &spawner).await;
}
