//! Panics of owned tasks.

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt;

/// Runs the work of a task. After a panic, writes the task's name to the log and returns `None`, so that the owner defines
/// the consequence. A task tracker alone would drop the panic.
///
/// Not an `async fn`, which would hold `work` twice.
pub(crate) fn catch_panic<T>(
    task: &'static str,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    AssertUnwindSafe(work).catch_unwind().map(move |result| {
        let logged = result.inspect_err(|panic| {
            tracing::error!(task, panic = panic_text(&**panic), "a task panicked");
        });
        logged.ok()
    })
}

/// Returns the message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test]
    async fn catch_panic_in_a_tracked_task_names_it_and_lets_its_owner_go_on() {
        let tasks = TaskTracker::new();
        let work = async { if tasks.is_closed() { 1 } else { panic!("number {}", 7) } };
        let found = catch_panic("toy", work).await;
        assert_eq!(found, None);
        let task = tasks.spawn(async { catch_panic("toy", async { panic!("text") as u8 }).await });
        tasks.close();
        tasks.wait().await;
        assert_eq!(task.await.unwrap(), None);
        assert_eq!(catch_panic("toy", async { 1 }).await, Some(1));
    }
}
