//! Time limit for a peer that reads nothing. The same wrapper of the socket notes the activity of the connection and limits
//! the rate of requests.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep, sleep_until},
};

use super::{activity::ConnectionActivity, request_rate::RequestRate};

/// Fails a write with `TimedOut` if the peer reads nothing for the limit.
#[derive(Debug)]
pub(crate) struct WriteTimeout<T> {
    io: T,
    limit: Duration,
    /// Runs while a write is pending.
    timer: Option<Pin<Box<Sleep>>>,
    activity: Arc<ConnectionActivity>,
    rate: Arc<RequestRate>,
    /// Runs while the peer is not read because of its rate.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<T> WriteTimeout<T> {
    /// Limits the writes of `io`, counts its reads and writes in `activity`, and reads no faster than `rate`.
    pub(crate) fn new(
        io: T,
        limit: Duration,
        activity: Arc<ConnectionActivity>,
        rate: Arc<RequestRate>,
    ) -> Self {
        Self { io, limit, timer: None, activity, rate, pause: None }
    }

    /// Counts reads and writes. A flush does not count, because it succeeds without data.
    fn count<R>(&self, result: &Poll<io::Result<R>>) {
        if result.is_ready() {
            self.activity.count_io();
        }
    }

    /// Returns the result of a write, or an error if writes are pending for the limit.
    fn limit_pending<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            if self.timer.take().is_some() {
                self.activity.set_write_pending(false);
            }
            return result;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        self.activity.set_write_pending(true);
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
        while let Some(until) = self.rate.paused_until() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(until)));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        self.count(&result);
        if buf.filled().len() > before {
            self.activity.note_read();
        }
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
        let mut server =
            WriteTimeout::new(server, LIMIT, Arc::clone(&activity), Arc::new(RequestRate::new(0)));
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
        let mut server = WriteTimeout::new(server, LIMIT, Arc::default(), Arc::new(RequestRate::new(0)));
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
}
