//! The conditions under which `Worker::watch` reports a worker as lost.

use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex, split},
    time::{Instant, timeout},
};

use super::{
    health::{MAX_SILENT_TICKS, MAX_UNANSWERED_TICKS},
    lease::WorkerLease,
    *,
};

fn worker() -> (Worker, DuplexStream) {
    let (ours, theirs) = duplex(1 << 16);
    let (stdout, stdin) = split(ours);
    let client = RpcClient::start(stdin, stdout, 1 << 16, Arc::default(), &TaskTracker::new());
    (Worker::new(client, Arc::new(WorkerSpec::for_test()), None, None), theirs)
}

async fn wait_until_lost(worker: &Worker) -> (Cow<'static, str>, Duration) {
    let began = Instant::now();
    let reason = timeout(Duration::from_secs(60), worker.watch()).await.expect("the worker is lost");
    (reason, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_silent_worker_completes() {
    let (worker, _silent) = worker();
    let (reason, after) = wait_until_lost(&worker).await;
    assert_eq!(reason, "it did not answer");
    assert_eq!(after, IDLE_INTERVAL + PING_INTERVAL + TICK * MAX_SILENT_TICKS);
    assert_eq!(*worker.state.lock().unwrap(), WorkerState::Slow);
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_worker_that_prints_without_answering_completes_later() {
    let (worker, mut theirs) = worker();
    let worker = Arc::new(worker);
    let _turn = WorkerLease::new(&worker);
    let printing = async {
        loop {
            theirs.write_all(b"{\"method\":\"some/notification\"}\n").await.unwrap();
            sleep(TICK / 2).await;
        }
    };
    let (reason, after) = tokio::select! {
        lost = wait_until_lost(&worker) => lost,
        () = printing => unreachable!("the printing never completes"),
    };
    assert_eq!((reason.as_ref(), after), ("it did not answer", PING_INTERVAL + TICK * MAX_UNANSWERED_TICKS));
}

#[tokio::test(start_paused = true)]
async fn watch_after_a_late_answer_continues() {
    let (worker, mut theirs) = worker();
    let answering = async {
        // The ids of calls count from one.
        for id in 1_u32.. {
            sleep(Duration::from_secs(4)).await;
            theirs.write_all(format!("{{\"id\":{id},\"result\":{{}}}}\n").as_bytes()).await.unwrap();
            sleep(Duration::from_millis(10)).await;
            assert_eq!(worker.state(), WorkerState::Ready);
        }
    };
    tokio::select! {
        reason = worker.watch() => unreachable!("{reason}"),
        () = answering => {}
        () = sleep(Duration::from_secs(40)) => {}
    }
    drop(theirs);
    assert_eq!(wait_until_lost(&worker).await.0, "it exited");
}

#[tokio::test(start_paused = true)]
async fn watch_of_an_idle_worker_that_gets_a_turn_pings_at_once() {
    let (worker, _silent) = worker();
    let worker = Arc::new(worker);
    let first = async {
        sleep(IDLE_INTERVAL / 4).await;
        let turn = WorkerLease::new(&worker);
        std::future::pending::<()>().await;
        drop(turn);
    };
    let (_, after) = tokio::select! {
        lost = wait_until_lost(&worker) => lost,
        () = first => unreachable!("the turn never completes"),
    };
    assert_eq!(after, IDLE_INTERVAL / 4 + PING_INTERVAL + TICK * MAX_SILENT_TICKS);
}
