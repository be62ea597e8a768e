//! What is taken for dead, and what is not.

use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex, split},
    time::{Instant, timeout},
};

use super::*;

fn worker() -> (Worker, DuplexStream) {
    let (ours, theirs) = duplex(1 << 16);
    let (stdout, stdin) = split(ours);
    let peer = RpcClient::start(stdin, stdout, 1 << 16, &TaskTracker::new());
    (Worker::of(peer, Arc::new(WorkerSpec::for_test()), None, None), theirs)
}

async fn lost(worker: &Worker) -> (&'static str, Duration) {
    let began = Instant::now();
    let why = timeout(Duration::from_secs(60), worker.watch()).await.expect("it is noticed");
    (why, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed() {
    let (worker, _silent) = worker();
    let (why, after) = lost(&worker).await;
    assert_eq!(why, "it no longer answers");
    assert_eq!(after, IDLE + PULSE + TICK * SILENT_TICKS);
    assert!(worker.late.load(Ordering::Relaxed), "and others were preferred before");
}

#[tokio::test(start_paused = true)]
async fn who_speaks_but_does_not_answer_has_more_time_but_not_for_ever() {
    let (worker, mut theirs) = worker();
    let worker = Arc::new(worker);
    let _turn = WorkerLease::of(&worker);
    let speaking = async {
        loop {
            theirs.write_all(b"{\"method\":\"some/news\"}\n").await.unwrap();
            sleep(TICK / 2).await;
        }
    };
    let (why, after) = tokio::select! {
        lost = lost(&worker) => lost,
        () = speaking => unreachable!("it goes on for ever"),
    };
    assert_eq!((why, after), ("it no longer answers", PULSE + TICK * DEAF_TICKS), "it has turns");
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_makes_all_good() {
    let (worker, mut theirs) = worker();
    let answering = async {
        // The ids of our calls count from one.
        for id in 1_u32.. {
            sleep(Duration::from_secs(4)).await;
            theirs.write_all(format!("{{\"id\":{id},\"result\":{{}}}}\n").as_bytes()).await.unwrap();
            sleep(Duration::from_millis(10)).await;
            assert!(!worker.late.load(Ordering::Relaxed));
        }
    };
    tokio::select! {
        why = worker.watch() => unreachable!("{why}"),
        () = answering => {}
        () = sleep(Duration::from_secs(40)) => {}
    }
    drop(theirs);
    assert_eq!(lost(&worker).await.0, "it ended");
}

#[tokio::test(start_paused = true)]
async fn a_turn_ends_the_rest_of_its_watch() {
    let (worker, _silent) = worker();
    let worker = Arc::new(worker);
    let first = async {
        sleep(IDLE / 4).await;
        let turn = WorkerLease::of(&worker);
        std::future::pending::<()>().await;
        drop(turn);
    };
    let (_, after) = tokio::select! {
        lost = lost(&worker) => lost,
        () = first => unreachable!("it goes on for ever"),
    };
    assert_eq!(after, IDLE / 4 + PULSE + TICK * SILENT_TICKS);
}
