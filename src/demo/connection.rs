//! The TCP connection behind a request, for ends that HTTP and WebSockets do not have, and the lifetime of a WebSocket.

use std::{io, net::Shutdown, sync::Arc, time::Duration};

use tokio::{net::TcpStream, sync::oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A shared handle of the connection.
#[derive(Debug, Clone)]
pub(super) struct Connection(Arc<Socket>);

#[derive(Debug)]
struct Socket {
    /// A second descriptor of the socket, because hyper owns the first.
    tcp: socket2::Socket,
    closing: CancellationToken,
    /// Dropped with the last user of the connection.
    _open: oneshot::Sender<()>,
}

/// The end of a connection's task ends its WebSocket.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    _closing: DropGuard,
    closed: oneshot::Receiver<()>,
}

impl Connection {
    pub(super) fn new(stream: &TcpStream) -> io::Result<(Self, ConnectionGuard)> {
        let (closing, (open, closed)) = (CancellationToken::new(), oneshot::channel());
        let guard = ConnectionGuard { _closing: closing.clone().drop_guard(), closed };
        let tcp = socket2::SockRef::from(stream).try_clone()?;
        Ok((Self(Arc::new(Socket { tcp, closing, _open: open })), guard))
    }

    /// Closes the connection in both directions.
    pub(super) fn shut_down(&self) {
        // The client may have closed it already.
        let _ = self.0.tcp.shutdown(Shutdown::Both);
    }

    /// Completes when the connection's task has ended.
    pub(super) async fn closing(&self) {
        self.0.closing.cancelled().await;
    }

    /// Makes the close of the last descriptor a TCP reset.
    pub(super) fn reset_on_close(&self) {
        if let Err(error) = self.0.tcp.set_linger(Some(Duration::ZERO)) {
            tracing::warn!(%error, "scripted upstream cannot reset a connection");
        }
    }
}

impl ConnectionGuard {
    /// Completes when the connection has no user, which for a WebSocket is its end.
    pub(super) async fn websocket_closed(self) {
        // The sender is dropped and never sends.
        let _ = self.closed.await;
    }
}
