//! The accept loop of both doors: HTTP/1.1 and HTTP/2 without TLS on one listener, with limits of time and number,
//! and a drain. The router handles the requests.

pub mod access_log;
pub(crate) mod activity;
pub mod catch_panic;
pub(crate) mod connection;
mod hooked_body;
pub mod open_files;
pub(crate) mod protocol_sniff;
pub(crate) mod request_rate;
pub(crate) mod seats;
pub(crate) mod stalled_response;
pub(crate) mod write_timeout;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{connection::ConnectionServer, seats::Seats};
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
    let seats = Arc::new(Seats::new(
        config.max_connections,
        config.max_connections_per_peer,
        config.max_request_rate,
    ));
    let waiting = Arc::new(Semaphore::new(seats::spare(config.max_connections)));
    let accepting = async {
        loop {
            let (stream, peer) = accept(&listener).await;
            let connections = Arc::clone(&connections);
            if let Some(seat) = seats.take(peer.ip()).await {
                tracker.spawn(async move { connections.run(stream, peer, seat).await });
                continue;
            }
            // A peer at its limit waits without delaying the others.
            let Ok(place) = Arc::clone(&waiting).try_acquire_owned() else {
                tracing::debug!(%peer, "too many connections of this peer; closing the newest");
                continue;
            };
            let (seats, drain, limit) = (Arc::clone(&seats), drain.clone(), config.header_timeout);
            tracker.spawn(async move {
                let waiting = timeout(limit, seats.wait_and_take(peer.ip()));
                let seat = drain.run_until_cancelled(waiting).await;
                drop(place);
                if let Some(Ok(seat)) = seat {
                    connections.run(stream, peer, seat).await;
                }
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

/// Accepts the next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
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
