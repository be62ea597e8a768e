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
    waiting: Option<Pin<Box<Sleep>>>,
    traffic: Arc<ConnectionActivity>,
}

/// Activity of one connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionActivity {
    requests: AtomicUsize,
    moves: AtomicUsize,
    write_waits: AtomicBool,
}

/// A request in progress.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<ConnectionActivity>);

impl ConnectionActivity {
    pub(crate) fn request(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Returns the number of reads and writes.
    pub(crate) fn moves(&self) -> usize {
        self.moves.load(Relaxed)
    }

    /// Returns `true` if no request is in progress and no byte waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Relaxed) == 0 && !self.write_waits.load(Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

impl<T> WriteTimeout<T> {
    pub(crate) fn new(io: T, limit: Duration, traffic: Arc<ConnectionActivity>) -> Self {
        Self { io, limit, waiting: None, traffic }
    }

    /// Counts reads and writes. A flush does not count, because it succeeds without data.
    fn count<R>(&self, result: &Poll<io::Result<R>>) {
        if result.is_ready() {
            self.traffic.moves.fetch_add(1, Relaxed);
        }
    }

    /// Passes a result through and limits the time without one.
    fn watch<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            if self.waiting.take().is_some() {
                self.traffic.write_waits.store(false, Relaxed);
            }
            return result;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        self.traffic.write_waits.store(true, Relaxed);
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count(&result);
        self.watch(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count(&result);
        self.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, result)
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
    async fn a_peer_that_takes_nothing_is_cut_after_the_limit() {
        let (_client, server) = duplex(4);
        let traffic = Arc::new(ConnectionActivity::default());
        let mut server = WriteTimeout::new(server, LIMIT, Arc::clone(&traffic));
        let start = Instant::now();
        server.write_all(b"1234").await.unwrap();
        assert!(traffic.is_idle());
        let error = timeout(LIMIT * 2, server.write_all(b"5")).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= LIMIT);
        assert!(!traffic.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_not_cut() {
        let (mut client, server) = duplex(4);
        let mut server = WriteTimeout::new(server, LIMIT, Arc::default());
        let sent = server.write_all(b"1234567890ab");
        let taken = async {
            let mut got = [0; 4];
            for _ in 0..3 {
                sleep(LIMIT - Duration::from_secs(1)).await;
                client.read_exact(&mut got).await.unwrap();
            }
            got
        };
        let (sent, got) = timeout(LIMIT * 4, async { tokio::join!(sent, taken) }).await.unwrap();
        sent.unwrap();
        assert_eq!(&got, b"90ab");
    }

    #[test]
    fn a_request_counts_until_it_is_dropped() {
        let traffic = Arc::new(ConnectionActivity::default());
        let request = traffic.request();
        assert!(!traffic.is_idle());
        drop(request);
        assert!(traffic.is_idle());
    }
}
