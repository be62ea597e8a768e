//! Time limit for a peer that reads nothing, and the activity of a connection, by which a drain distinguishes active
//! from idle connections.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Fails a write with `TimedOut` if the peer reads nothing for the limit.
#[derive(Debug)]
pub(crate) struct WriteTimeout<T> {
    io: T,
    limit: Duration,
    /// Runs while a write is pending.
    timer: Option<Pin<Box<Sleep>>>,
    activity: Arc<ConnectionActivity>,
}

/// Activity of one connection, shared by its socket and its requests.
#[derive(Debug, Default)]
pub(crate) struct ConnectionActivity {
    requests: AtomicUsize,
    io_count: AtomicUsize,
    write_pending: AtomicBool,
}

/// Counts as a request in progress until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<ConnectionActivity>);

impl ConnectionActivity {
    /// Counts a request until the returned guard is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Returns the number of completed reads and writes.
    pub(crate) fn io_count(&self) -> usize {
        self.io_count.load(Relaxed)
    }

    /// Returns `true` if no request is in progress and no byte waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Relaxed) == 0 && !self.write_pending.load(Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

impl<T> WriteTimeout<T> {
    /// Limits the writes of `io`, and counts its reads and writes in `activity`.
    pub(crate) fn new(io: T, limit: Duration, activity: Arc<ConnectionActivity>) -> Self {
        Self { io, limit, timer: None, activity }
    }

    /// Counts reads and writes. A flush does not count, because it succeeds without data.
    fn count<R>(&self, result: &Poll<io::Result<R>>) {
        if result.is_ready() {
            self.activity.io_count.fetch_add(1, Relaxed);
        }
    }

    /// Returns the result of a write, or an error if writes are pending for the limit.
    fn limit_pending<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            if self.timer.take().is_some() {
                self.activity.write_pending.store(false, Relaxed);
            }
            return result;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        self.activity.write_pending.store(true, Relaxed);
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count(&result);
        self.limit_pending(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count(&result);
        self.limit_pending(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.limit_pending(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.limit_pending(cx, result)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        self.count(&result);
        result
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn write_timeout_peer_without_reads_fails_the_write() {
        let (_client, server) = duplex(4);
        let activity = Arc::new(ConnectionActivity::default());
        let mut server = WriteTimeout::new(server, LIMIT, Arc::clone(&activity));
        let start = Instant::now();
        server.write_all(b"1234").await.unwrap();
        assert!(activity.is_idle());
        let error = timeout(LIMIT * 2, server.write_all(b"5")).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= LIMIT);
        assert!(!activity.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn write_timeout_slow_peer_is_served() {
        let (mut client, server) = duplex(4);
        let mut server = WriteTimeout::new(server, LIMIT, Arc::default());
        let sent = server.write_all(b"1234567890ab");
        let received = async {
            let mut bytes = [0; 4];
            for _ in 0..3 {
                sleep(LIMIT - Duration::from_secs(1)).await;
                client.read_exact(&mut bytes).await.unwrap();
            }
            bytes
        };
        let (sent, bytes) = timeout(LIMIT * 4, async { tokio::join!(sent, received) }).await.unwrap();
        sent.unwrap();
        assert_eq!(&bytes, b"90ab");
    }

    #[test]
    fn connection_activity_until_a_request_is_dropped_is_not_idle() {
        let activity = Arc::new(ConnectionActivity::default());
        let request = activity.begin_request();
        assert!(!activity.is_idle());
        drop(request);
        assert!(activity.is_idle());
    }
}
