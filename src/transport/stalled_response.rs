//! Time limit for a client that does not read a response. While the client's window is closed, hyper does not poll the
//! body, so a deadline inside of the body cannot end the request. On HTTP/2 a limit on the socket cannot end it
//! either, because only one stream stalls.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use tokio::time::{Instant, sleep_until};

use super::{
    activity::InFlight,
    hooked_body::{FrameHook, HookedBody, NextFrame},
};

/// Size of a frame per time limit. A larger frame gets one more limit for each multiple.
const STEP_BYTES: usize = 64 * 1024;

tokio::task_local! {
    /// Time by which hyper must poll the body of the running task for its next frame. hyper creates the task of an
    /// HTTP/2 stream around the body, so only a task-local connects both.
    static STALL_DEADLINE: Arc<StallDeadline>;
}

/// The deadline of one task. `None` while no read is expected.
#[derive(Debug, Default)]
struct StallDeadline(Mutex<Option<Instant>>);

impl StallDeadline {
    fn set(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a task that sends a response. Returns `None` if the client did not read a frame of a [`timed_body`] in time. The
/// task is boxed, because each future around it would contain it twice.
pub(super) async fn with_stall_timeout<F: Future>(task: Pin<Box<F>>) -> Option<F::Output> {
    let deadline = Arc::new(StallDeadline::default());
    let mut task = pin!(STALL_DEADLINE.scope(Arc::clone(&deadline), task));
    let mut timer = None;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = task.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(at) = deadline.get() else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        ready!(timer.as_mut().poll(cx));
        tracing::debug!("client does not read; dropping the response");
        Poll::Ready(None)
    })
    .await
}

/// Returns a body that sets the deadline of its task with each frame. `in_flight` ends with the body.
pub(super) fn timed_body(body: Body, limit: Duration, in_flight: InFlight) -> HookedBody<StallTimer> {
    HookedBody::new(body, StallTimer { limit, _in_flight: in_flight })
}

/// Sets the deadline of the running task.
#[derive(Debug)]
pub(super) struct StallTimer {
    limit: Duration,
    _in_flight: InFlight,
}

impl FrameHook for StallTimer {
    fn poll_frame(&mut self, body: &mut Option<Body>, cx: &mut Context<'_>) -> Poll<NextFrame> {
        let Some(body) = body else { return Poll::Ready(None) };
        set_deadline(None);
        let frame = ready!(http_body::Body::poll_frame(Pin::new(body), cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !http_body::Body::is_end_stream(body)
        {
            let steps = u32::try_from(data.len() / STEP_BYTES).unwrap_or(u32::MAX);
            set_deadline(Some(Instant::now() + self.limit.saturating_mul(steps.saturating_add(1))));
        }
        Poll::Ready(frame)
    }

    fn drop_body(&mut self, body: Option<Body>) {
        // On HTTP/1.1 the task continues with the next request.
        set_deadline(None);
        drop(body);
    }
}

fn set_deadline(at: Option<Instant>) {
    // Outside of `with_stall_timeout` there is no deadline.
    let _ = STALL_DEADLINE.try_with(|deadline| deadline.set(at));
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http_body_util::BodyExt;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::transport::activity::ConnectionActivity;

    const LIMIT: Duration = Duration::from_secs(60);

    fn body(frames: Vec<Vec<u8>>) -> HookedBody<StallTimer> {
        let frames = frames.into_iter().map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures_util::stream::iter(frames));
        timed_body(body, LIMIT, Arc::<ConnectionActivity>::default().begin_request())
    }

    #[tokio::test(start_paused = true)]
    async fn with_stall_timeout_unread_frame_ends_the_task() {
        let start = Instant::now();
        let stalled = with_stall_timeout(Box::pin(async {
            let mut body = body(vec![vec![1], vec![2]]);
            body.frame().await;
            pending::<()>().await;
        }));
        assert_eq!(timeout(LIMIT * 2, stalled).await, Ok(None));
        assert!(start.elapsed() >= LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn with_stall_timeout_large_frame_gets_more_time() {
        let slow = with_stall_timeout(Box::pin(async {
            let mut body = body(vec![vec![0; 3 * STEP_BYTES], vec![2]]);
            body.frame().await;
            sleep(LIMIT * 3).await;
            body.frame().await.is_some()
        }));
        assert_eq!(timeout(LIMIT * 4, slow).await, Ok(Some(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn with_stall_timeout_slow_handler_or_ended_body_sets_no_deadline() {
        let served = with_stall_timeout(Box::pin(async {
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
        assert_eq!(timeout(LIMIT * 8, served).await, Ok(Some(())));
    }
}
