//! Time limit for a client that does not read a response. While the client's window is closed hyper does not poll the
//! body, so a deadline inside of the body cannot end the request. On HTTP/2 a limit on the socket cannot end it
//! either, because only the one stream stalls.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

use super::write_timeout::InFlight;

/// Bytes of a frame per time limit; a larger frame gets more time.
const STEP_BYTES: usize = 64 * 1024;

tokio::task_local! {
    /// Time by which hyper must poll the body of the running task for its next frame. hyper creates the task of an
    /// HTTP/2 stream around the body, so only a task-local connects both.
    static DUE: Arc<StallDeadline>;
}

#[derive(Debug, Default)]
struct StallDeadline(Mutex<Option<Instant>>);

impl StallDeadline {
    fn set(&self, due: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a task that sends a response. Returns `None` if the client did not read a frame of the body in time. The task
/// is boxed, because each future around it would contain it twice.
pub(crate) async fn unless_stuck<F: Future>(task: Pin<Box<F>>) -> Option<F::Output> {
    let due = Arc::new(StallDeadline::default());
    let mut task = pin!(DUE.scope(Arc::clone(&due), task));
    let mut timer = None;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = task.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(due) = due.get() else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        tracing::debug!("a client does not read; its response is cut");
        Poll::Ready(None)
    })
    .await
}

/// A response body that sets the deadline of its task.
#[derive(Debug)]
pub(crate) struct TimedBody {
    body: Body,
    limit: Duration,
    #[expect(dead_code, reason = "held for its destructor")]
    request: InFlight,
}

impl TimedBody {
    pub(crate) fn new(body: Body, limit: Duration, request: InFlight) -> Self {
        Self { body, limit, request }
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        set_due(None);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !self.body.is_end_stream()
        {
            let steps = u32::try_from(data.len() / STEP_BYTES).unwrap_or(u32::MAX);
            set_due(Some(Instant::now() + self.limit.saturating_mul(steps.saturating_add(1))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        // On HTTP/1.1 the task continues with the next request.
        set_due(None);
    }
}

fn set_due(due: Option<Instant>) {
    // Outside of `with_stall_timeout` there is no deadline.
    let _ = DUE.try_with(|cell| cell.set(due));
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http_body_util::BodyExt;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::transport::write_timeout::ConnectionActivity;

    const LIMIT: Duration = Duration::from_secs(60);

    fn body(frames: Vec<Vec<u8>>) -> TimedBody {
        let frames = frames.into_iter().map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures_util::stream::iter(frames));
        TimedBody::new(body, LIMIT, Arc::<ConnectionActivity>::default().request())
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_is_not_taken_ends_the_task() {
        let start = Instant::now();
        let stuck = unless_stuck(Box::pin(async {
            let mut body = body(vec![vec![1], vec![2]]);
            body.frame().await;
            pending::<()>().await;
        }));
        assert_eq!(timeout(LIMIT * 2, stuck).await, Ok(None));
        assert!(start.elapsed() >= LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_frame_has_more_time() {
        let slow = unless_stuck(Box::pin(async {
            let mut body = body(vec![vec![0; 3 * STEP_BYTES], vec![2]]);
            body.frame().await;
            sleep(LIMIT * 3).await;
            body.frame().await.is_some()
        }));
        assert_eq!(timeout(LIMIT * 4, slow).await, Ok(Some(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_handler_and_a_body_that_is_over_are_not_the_clients_fault() {
        let fine = unless_stuck(Box::pin(async {
            sleep(LIMIT * 2).await;
            let mut first = body(vec![vec![1]]);
            first.frame().await;
            first.frame().await;
            sleep(LIMIT * 2).await;
            let mut second = body(vec![vec![1], vec![2]]);
            second.frame().await;
            drop(second);
            sleep(LIMIT * 2).await;
        }));
        assert_eq!(timeout(LIMIT * 8, fine).await, Ok(Some(())));
    }
}
