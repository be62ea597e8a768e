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

/// Preface of an HTTP/2 client. Other bytes are HTTP/1.1.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A connection with its first bytes, which are read again.
#[derive(Debug)]
pub(crate) struct PrefixedIo<T> {
    bytes: [u8; PREFACE.len()],
    /// Length of the first bytes, and how many of them were read.
    length: usize,
    read: usize,
    io: T,
}

/// Detects the protocol. Fails with `TimedOut` if the peer sends too few bytes in time. The end of the input counts as
pub(crate) async fn look<T: AsyncRead + Unpin>(
    io: T,
    limit: Duration,
) -> io::Result<(Protocol, PrefixedIo<T>)> {
    let mut first = PrefixedIo { bytes: [0; PREFACE.len()], length: 0, read: 0, io };
    let told = timeout(limit, async {
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
    let too_late = |_| io::Error::new(io::ErrorKind::TimedOut, "no request in time");
    let protocol = told.await.map_err(too_late)??;
    Ok((protocol, first))
}

impl<T: AsyncRead + Unpin> AsyncRead for PrefixedIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read == this.length {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let left = &this.bytes[this.read..this.length];
        let taken = left.len().min(buf.remaining());
        buf.put_slice(&left[..taken]);
        this.read += taken;
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

    /// Sends these pieces, then nothing or the end. Returns the protocol and the bytes that can be read.
    async fn look_at(pieces: &[&[u8]], end: bool) -> (Result<Protocol, io::ErrorKind>, Vec<u8>) {
        let (mut client, server) = duplex(1024);
        let looked = async { look(server, LIMIT).await };
        let sent = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            (!end).then_some(client)
        };
        let (looked, client) = tokio::join!(looked, sent);
        let (protocol, mut first) = match looked {
            Ok(looked) => looked,
            Err(error) => return (Err(error.kind()), Vec::new()),
        };
        drop(client);
        let mut all = Vec::new();
        first.read_to_end(&mut all).await.unwrap();
        (Ok(protocol), all)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_partial_preface_are_cut() {
        for text in [&b""[..], b"P", &PREFACE[..23]] {
            assert_eq!(look_at(&[text], false).await, (Err(io::ErrorKind::TimedOut), Vec::new()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_tell_the_protocol_and_are_read_again() {
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
            assert_eq!(look_at(pieces, false).await, (Ok(protocol), pieces.concat()));
        }
        assert_eq!(look_at(&[b"P"], true).await, (Ok(Http1), b"P".to_vec()), "the end tells it as well");
    }

    #[tokio::test]
    async fn one_read_gets_all_that_is_there() {
        let (mut client, server) = duplex(1024);
        let text = b"GET / HTTP/1.1\r\nhost: somewhere\r\n\r\n";
        client.write_all(text).await.unwrap();
        let (_, mut first) = look(server, LIMIT).await.unwrap();
        let mut buffer = [0; 100];
        assert_eq!(first.read(&mut buffer).await.unwrap(), text.len());
    }
}
