//! The accept loop of both doors: HTTP/1.1 and HTTP/2 without TLS on one listener, with limits of time and number,
//! and a drain. The router decides what a request may do.

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

/// Size of the kernel's send buffer. By default it grows to several megabytes, and a client that stopped reading is
/// detected only when it is full.
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
    // Accepted sockets inherit it.
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
    doors: &ServerConfig,
    drain: CancellationToken,
    kill: CancellationToken,
) {
    let tracker = TaskTracker::new();
    let connections =
        Arc::new(ConnectionServer::new(app, doors, tracker.clone(), drain.clone(), kill.clone()));
    let seats = Arc::new(Semaphore::new(doors.max_connections));
    let accepting = async {
        while let Some((seat, stream, peer)) = next(&listener, &seats).await {
            let connections = Arc::clone(&connections);
            tracker.spawn(async move {
                connections.run(stream, peer).await;
                drop(seat);
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

/// Returns the next connection when a permit is free. Other connections wait in the kernel.
async fn next(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> Option<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let seat = Arc::clone(seats).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Some((seat, stream, peer)),
            Err(error) if is_peers(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns `true` if an accept failed because of the one connection.
fn is_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}
