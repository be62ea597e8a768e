//! An output pipe of a child.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;

/// Time that a pipe stays open after the exit of the child, if a surviving descendant holds its other end. All data of
/// the child itself is in the pipe before its exit.
const SURVIVOR_TIMEOUT: Duration = Duration::from_secs(1);

/// The stdout or stderr of a child. Ends when the pipe ends, and at the latest [`SURVIVOR_TIMEOUT`] after the exit of
/// the child. On systems where not all descendants can be killed, a surviving descendant must not keep a turn open.
pub(crate) struct OutputPipe<R> {
    pipe: R,
    /// `None` after the timeout.
    timeout: Option<BoxFuture<'static, ()>>,
}

impl<R> OutputPipe<R> {
    /// Wraps a pipe. `exited` is cancelled after the exit of the child.
    pub(super) fn new(pipe: R, exited: CancellationToken) -> Self {
        let timeout: BoxFuture<'static, ()> = Box::pin(async move {
            exited.cancelled().await;
            tokio::time::sleep(SURVIVOR_TIMEOUT).await;
        });
        Self { pipe, timeout: Some(timeout) }
    }
}

impl<R> std::fmt::Debug for OutputPipe<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputPipe").finish_non_exhaustive()
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for OutputPipe<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.pipe).poll_read(context, buffer) {
            return Poll::Ready(result);
        }
        if let Some(timeout) = &mut self.timeout {
            ready!(timeout.as_mut().poll(context));
            self.timeout = None;
        }
        // An empty buffer marks the end of the input.
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn poll_read_of_a_pipe_held_open_ends_after_the_exit() {
        let (mut writer, pipe) = duplex(64);
        let exited = CancellationToken::new();
        let mut output = OutputPipe::new(pipe, exited.clone());
        writer.write_all(b"all").await.unwrap();
        exited.cancel();
        let mut text = String::new();
        output.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "all");
        // The next read is at the end too.
        assert_eq!(output.read_to_string(&mut text).await.unwrap(), 0);
        drop(writer);
    }

    #[tokio::test(start_paused = true)]
    async fn poll_read_of_a_running_child_waits_for_its_output() {
        let (mut writer, pipe) = duplex(64);
        let mut output = OutputPipe::new(pipe, CancellationToken::new());
        let mut byte = [0];
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, output.read(&mut byte)).await.unwrap_err();
        writer.write_all(b"x").await.unwrap();
        assert_eq!(output.read(&mut byte).await.unwrap(), 1);
        drop(writer);
        assert_eq!(output.read(&mut byte).await.unwrap(), 0);
    }
}
