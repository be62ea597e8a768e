//! The accept loop of both doors: HTTP/1.1 and HTTP/2 without TLS on one listener, with limits of time and number,
//! and a drain. The router handles the requests.

pub mod access_log;
pub mod catch_panic;
pub(crate) mod connection;
mod hooked_body;
pub(crate) mod protocol_sniff;
pub(crate) mod stalled_response;
pub(crate) mod write_timeout;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::connection::ConnectionServer;
use super::config::ServerConfig;

/// Length of the listen queue.
const BACKLOG: i32 = 4096;

/// Size of the kernel's send buffer. By default the buffer grows to several megabytes, and a client that stopped
/// reading is detected only when the buffer is full.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Pause after a failed accept (no file descriptors, no memory), so that the loop does not retry millions of
/// times.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Opens a listener. Must be called inside of the runtime.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server gets its address at once, although old connections linger in the kernel.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit the size.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until `drain` is cancelled, then closes the listener and lets open requests finish. Completes when the last
/// connection is closed. Cancelling `kill` drops the remaining connections.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    config: &ServerConfig,
    drain: CancellationToken,
    kill: CancellationToken,
) {
    let tracker = TaskTracker::new();
    let connections =
        Arc::new(ConnectionServer::new(app, config, tracker.clone(), drain.clone(), kill.clone()));
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let accepting = async {
        while let Some((permit, stream, peer)) = accept(&listener, &permits).await {
            let connections = Arc::clone(&connections);
            tracker.spawn(async move {
                connections.run(stream, peer).await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        biased;
        () = kill.cancelled() => {}
        () = drain.cancelled() => {}
        () = accepting => {}
    }
    // From here on the kernel refuses new connections.
    drop(listener);
    tracker.close();
    tracker.wait().await;
}

/// Accepts the next connection when a permit is free. Other connections wait in the kernel.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Some((permit, stream, peer)),
            Err(error) if is_peer_error(&error) => {
                tracing::debug!(%error, "connection closed before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; retrying");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns `true` if an accept failed because of its connection, so that other connections can be accepted.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}
