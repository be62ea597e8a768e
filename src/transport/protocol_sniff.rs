//! Detects the protocol from the first bytes of a connection. hyper's timers do not run before that.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::timeout,
};

/// Preface of an HTTP/2 client. Other first bytes mean HTTP/1.1.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A connection whose first bytes were read for the detection. Returns them again before further bytes.
#[derive(Debug)]
pub(crate) struct PrefixedIo<T> {
    bytes: [u8; PREFACE.len()],
    /// Number of bytes in `bytes`.
    length: usize,
    /// Number of `bytes` that were returned again.
    returned: usize,
    io: T,
}

/// Detects the protocol. Fails with `TimedOut` if the peer sends too few bytes within `limit`. The end of the input
/// counts as HTTP/1.1.
pub(crate) async fn detect_protocol<T: AsyncRead + Unpin>(
    io: T,
    limit: Duration,
) -> io::Result<(Protocol, PrefixedIo<T>)> {
    let mut first = PrefixedIo { bytes: [0; PREFACE.len()], length: 0, returned: 0, io };
    let detection = timeout(limit, async {
        loop {
            let read = first.io.read(&mut first.bytes[first.length..]).await?;
            first.length += read;
            if read == 0 || first.bytes[..first.length] != PREFACE[..first.length] {
                return io::Result::Ok(Protocol::Http1);
            }
            if first.length == PREFACE.len() {
                return Ok(Protocol::Http2);
            }
        }
    });
    let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "no request in time");
    let protocol = detection.await.map_err(timed_out)??;
    Ok((protocol, first))
}

impl<T: AsyncRead + Unpin> AsyncRead for PrefixedIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.returned == this.length {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let left = &this.bytes[this.returned..this.length];
        let taken = left.len().min(buf.remaining());
        buf.put_slice(&left[..taken]);
        this.returned += taken;
        if buf.remaining() > 0 {
            // Passes on all bytes that are available, because a second read would double hyper's buffer. An end or
            // error is returned again by the next read.
            drop(Pin::new(&mut this.io).poll_read(cx, buf));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PrefixedIo<T> {
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
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Sends `pieces`, then nothing or the end. Returns the protocol and the bytes that can be read.
    async fn detect(pieces: &[&[u8]], end: bool) -> (Result<Protocol, io::ErrorKind>, Vec<u8>) {
        let (mut client, server) = duplex(1024);
        let detection = async { detect_protocol(server, LIMIT).await };
        let sent = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            (!end).then_some(client)
        };
        let (detected, client) = tokio::join!(detection, sent);
        let (protocol, mut first) = match detected {
            Ok(detected) => detected,
            Err(error) => return (Err(error.kind()), Vec::new()),
        };
        drop(client);
        let mut all = Vec::new();
        first.read_to_end(&mut all).await.unwrap();
        (Ok(protocol), all)
    }

    #[tokio::test(start_paused = true)]
    async fn detect_protocol_without_enough_bytes_times_out() {
        for text in [&b""[..], b"P", &PREFACE[..23]] {
            assert_eq!(detect(&[text], false).await, (Err(io::ErrorKind::TimedOut), Vec::new()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn detect_protocol_first_bytes_are_returned_again() {
        use Protocol::{Http1, Http2};
        let cases: [(&[&[u8]], Protocol); 6] = [
            (&[PREFACE], Http2),
            (&[PREFACE, b"more"], Http2),
            (&[b"PRI * ", b"HTTP/2.0\r\n\r\nSM\r\n", b"\r\nmore"], Http2),
            (&[b"GET / HTTP/1.1\r\nhost: somewhere\r\n\r\n"], Http1),
            (&[b"P", b"OST"], Http1),
            (&[b"PRI * HTTP/1.1"], Http1),
        ];
        for (pieces, protocol) in cases {
            assert_eq!(detect(pieces, false).await, (Ok(protocol), pieces.concat()));
        }
        assert_eq!(detect(&[b"P"], true).await, (Ok(Http1), b"P".to_vec()), "the end means HTTP/1.1");
    }

    #[tokio::test]
    async fn prefixed_io_one_read_returns_all_available_bytes() {
        let (mut client, server) = duplex(1024);
        let text = b"GET / HTTP/1.1\r\nhost: somewhere\r\n\r\n";
        client.write_all(text).await.unwrap();
        let (_, mut first) = detect_protocol(server, LIMIT).await.unwrap();
        let mut buffer = [0; 100];
        assert_eq!(first.read(&mut buffer).await.unwrap(), text.len());
    }
}
