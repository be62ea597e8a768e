//! Time limit for the first bytes of a connection: until they tell the protocol, no timer of the HTTP library runs.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// What an HTTP/2 client says first. Bytes that differ from it are HTTP/1.1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Fails a read with `TimedOut` if the peer has not told its protocol in time.
#[derive(Debug)]
pub(super) struct FirstBytes<T> {
    io: T,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// How much of the preface has been seen.
    seen: usize,
    limit: Pin<Box<Sleep>>,
}

impl<T> FirstBytes<T> {
    pub(super) fn new(io: T, limit: Duration) -> Self {
        Self { io, waiting: Some(Waiting { seen: 0, limit: Box::pin(sleep(limit)) }) }
    }
}

impl Waiting {
    /// Whether these further bytes tell the protocol. The end of the input (no bytes) does as well.
    fn is_over(&mut self, bytes: &[u8]) -> bool {
        let expected = &PREFACE[self.seen..];
        let length = bytes.len().min(expected.len());
        self.seen += length;
        bytes.is_empty() || bytes[..length] != expected[..length] || length == expected.len()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FirstBytes<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        let Some(waiting) = &mut this.waiting else { return read };
        if read.is_pending() {
            ready!(waiting.limit.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request in time")));
        }
        if waiting.is_over(&buf.filled()[before..]) {
            this.waiting = None;
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FirstBytes<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Sends `text`, then nothing; tells what reading until the end or an error gives.
    async fn read_after(text: &[u8]) -> (Vec<u8>, Option<io::ErrorKind>) {
        let (mut client, server) = duplex(1024);
        let mut server = FirstBytes::new(server, LIMIT);
        client.write_all(text).await.unwrap();
        let mut got = Vec::new();
        // Longer than the limit: who passes it was not cut.
        let end = tokio::time::timeout(LIMIT * 2, server.read_to_end(&mut got)).await;
        (got, end.ok().map(|read| read.unwrap_err().kind()))
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_partial_preface_are_cut() {
        for text in [&b""[..], b"P", &PREFACE[..23]] {
            assert_eq!(read_after(text).await, (text.to_vec(), Some(io::ErrorKind::TimedOut)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_told_the_protocol_is_left_alone() {
        for text in [PREFACE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", b"GET", b"PRI * HTTP/1.1"] {
            assert_eq!(read_after(text).await, (text.to_vec(), None));
        }
    }

    #[test]
    fn a_preface_in_pieces_is_followed() {
        let pieces = |pieces: &[&[u8]]| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _guard = runtime.enter();
            let mut waiting = Waiting { seen: 0, limit: Box::pin(sleep(LIMIT)) };
            pieces.iter().map(|piece| waiting.is_over(piece)).collect::<Vec<_>>()
        };
        assert_eq!(pieces(&[b"PRI * ", b"HTTP/2.0\r\n\r\nSM\r\n", b"\r\n"]), [false, false, true]);
        assert_eq!(pieces(&[b"P", b"OST"]), [false, true]);
        assert_eq!(pieces(&[b"P", b""]), [false, true]);
    }
}
