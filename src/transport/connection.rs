//! Serves an accepted connection until it is closed.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    activity::{ConnectionActivity, Use},
    protocol_sniff,
    protocol_sniff::Protocol,
    seats::Seat,
    stalled_response::{timed_body, with_stall_timeout},
    write_timeout::WriteTimeout,
};
use crate::config::{ConnectionAge, ServerConfig};

/// Maximum number of open requests per HTTP/2 connection.
const MAX_STREAMS: u32 = 1024;

/// Maximum number of streams that a client resets before the server accepts them. Above the limit, the connection is
/// closed as an attack, with the calls of all clients behind a proxy. h2's default is 20, less than one burst of
/// expired deadlines.
const MAX_RESETS: usize = 4096;

/// Maximum number of stream errors per connection: frames for streams that the server has closed, or that violate the
/// protocol of one stream. Above the limit, the connection is closed. A proxy's connection stays open for weeks, and
/// each call that is refused before its body was read may cost one error.
const MAX_STREAM_ERRORS: usize = 65_536;

/// Maximum size of a request head, and of the response buffer per HTTP/1.1 connection or HTTP/2 stream.
const BUFFER_BYTES: usize = 64 * 1024;

/// Maximum number of header lines of an HTTP/1.1 request.
const MAX_HEADERS: usize = 128;

/// Interval of HTTP/2 pings, which detect unreachable peers.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Time limit for the answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle time after which a draining connection without a response is closed, so that half a request head does not delay
/// the drain.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_millis(500);

/// Number of idle timeouts after which a closing connection is closed although bytes arrive, such as pings.
const MAX_IDLE_ROUNDS: u32 = 3;

/// State that all connections of one listener share.
#[derive(Debug)]
pub(crate) struct ConnectionServer {
    app: Router,
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
    header_timeout: Duration,
    idle_timeout: Duration,
    age: Option<ConnectionAge>,
    write_timeout: Duration,
    drain: CancellationToken,
    kill: CancellationToken,
}

impl ConnectionServer {
    pub(crate) fn new(
        app: Router,
        config: &ServerConfig,
        tracker: TaskTracker,
        drain: CancellationToken,
        kill: CancellationToken,
    ) -> Self {
        let streams = Streams { tracker, kill: kill.clone() };
        Self {
            app,
            http1: http1(),
            http2: http2(streams),
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            age: config.connection_age,
            write_timeout: config.write_timeout,
            drain,
            kill,
        }
    }

    /// Serves one connection. Completes when the connection is closed.
    pub(crate) async fn run(&self, stream: TcpStream, peer: SocketAddr, seat: Seat) {
        if let Err(error) = self.set_socket_options(&stream) {
            tracing::debug!(%error, %peer, "cannot set socket options");
        }
        let served = with_stall_timeout(Box::pin(self.serve(stream, peer, &seat)));
        if let Some(Some(Err(error))) = self.kill.run_until_cancelled(served).await {
            tracing::debug!(error = &*error, %peer, "connection failed");
        }
    }

    fn set_socket_options(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        // Only the kernel can detect a peer whose machine is gone.
        socket.set_tcp_user_timeout(Some(self.write_timeout))?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PING_INTERVAL).with_interval(PING_TIMEOUT))
    }

    async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        seat: &Seat,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let activity = &seat.activity;
        let (protocol, io) = tokio::select! {
            detected = protocol_sniff::detect_protocol(stream, self.header_timeout) => detected?,
            () = self.drain_idle_timeout() => return Ok(()),
            () = seat.evicted.cancelled() => return Ok(()),
        };
        let io = TokioIo::new(WriteTimeout::new(
            io,
            self.write_timeout,
            Arc::clone(activity),
            Arc::clone(&seat.rate),
        ));
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let in_flight = activity.begin_request();
            seat.rate.count();
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(activity.watches().clone());
            let answer = self.app.clone().oneshot(request.map(Body::new));
            let limit = self.write_timeout;
            async move {
                let Ok(response) = answer.await;
                Ok::<_, Infallible>(response.map(|body| timed_body(body, limit, in_flight)))
            }
        });
        // Boxed, so that an HTTP/1.1 connection does not have the size of the other future.
        match protocol {
            Protocol::Http1 => {
                let connection = self.http1.serve_connection(io, service);
                Ok(Box::pin(self.serve_until_closed(connection, seat, Some(self.header_timeout))).await?)
            }
            Protocol::Http2 => {
                let connection = self.http2.serve_connection(io, service);
                Ok(Box::pin(self.serve_until_closed(connection, seat, None)).await?)
            }
        }
    }

    /// Serves a connection. In a drain, at its maximum age, unused for too long or without its seat, it gets no further
    /// requests and is closed once it is idle. `head_timeout` limits the time of a request head.
    async fn serve_until_closed<C: GracefulConnection>(
        &self,
        connection: C,
        seat: &Seat,
        head_timeout: Option<Duration>,
    ) -> Result<(), C::Error> {
        let mut connection = pin!(connection);
        let activity = &*seat.activity;
        let mut grace = None;
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.drain.cancelled() => {}
            () = seat.evicted.cancelled() => {
                if !activity.has_served() {
                    return Ok(());
                }
            }
            () = reach_age(self.age) => grace = self.age.map(|age| age.grace).filter(|grace| !grace.is_zero()),
            () = unused(activity, self.idle_timeout, head_timeout) => {
                // A client that has begun a head cannot continue with another connection.
                if matches!(activity.current_use(), Use::Head(_)) && head_timeout.is_some() {
                    return Ok(());
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        let closed = close_when_idle(connection, activity);
        match grace {
            None => closed.await,
            Some(grace) => timeout(grace, closed).await.unwrap_or(Ok(())),
        }
    }

    /// Completes one idle timeout after the beginning of the drain.
    async fn drain_idle_timeout(&self) {
        self.drain.cancelled().await;
        sleep(DRAIN_IDLE_TIMEOUT).await;
    }
}

/// Serves a closing connection until it is closed or idle.
async fn close_when_idle<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    activity: &ConnectionActivity,
) -> Result<(), C::Error> {
    let mut idle_rounds = 0;
    loop {
        let before = activity.io_count();
        if let Ok(ended) = timeout(DRAIN_IDLE_TIMEOUT, connection.as_mut()).await {
            return ended;
        }
        idle_rounds = if activity.is_idle() { idle_rounds + 1 } else { 0 };
        if idle_rounds > 0 && (activity.io_count() == before || idle_rounds >= MAX_IDLE_ROUNDS) {
            return Ok(());
        }
    }
}

/// Completes when no request was in progress for the idle timeout, or when a request head takes too long.
async fn unused(activity: &ConnectionActivity, idle_timeout: Duration, head_timeout: Option<Duration>) {
    let pause = head_timeout.map_or(idle_timeout, |head| head.min(idle_timeout));
    loop {
        let now = Instant::now();
        let end = match (activity.current_use(), head_timeout) {
            (Use::Busy, _) => None,
            (Use::Head(since), Some(limit)) => Some(since + limit),
            // HTTP/2 has no heads between its frames, and pings are no use.
            (Use::Head(_), None) => Some(activity.unused_since() + idle_timeout),
            (Use::Unused(since), _) => Some(since + idle_timeout),
        };
        if end.is_some_and(|end| end <= now) {
            return;
        }
        // What begins later ends one pause after now at the earliest.
        sleep_until(end.map_or(now + pause, |end| end.min(now + pause))).await;
    }
}

/// Completes at the maximum age of a connection, which varies so that connections opened together do not end together.
async fn reach_age(age: Option<ConnectionAge>) {
    let Some(age) = age else { return std::future::pending().await };
    // A hasher of the standard library has random keys.
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ()) % 2001;
    let deviation = (f64::from(u32::try_from(random).unwrap_or(1000)) / 1000.0 - 1.0) * age.jitter;
    sleep(age.max.mul_f64((1.0 + deviation).max(0.0))).await;
}

fn http1() -> http1::Builder {
    let mut http = http1::Builder::new();
    // The limit of a head runs outside of hyper, whose limit includes the idle time before the head.
    http.timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER_BYTES);
    http
}

fn http2(streams: Streams) -> http2::Builder<Streams> {
    let mut http = http2::Builder::new(streams);
    http.timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_STREAM_ERRORS)
        .max_header_list_size(u32::try_from(BUFFER_BYTES).unwrap_or(u32::MAX))
        .max_send_buf_size(BUFFER_BYTES);
    http
}

/// Runs the streams of HTTP/2 connections, each in a task that the listener tracks.
#[derive(Debug, Clone)]
struct Streams {
    tracker: TaskTracker,
    kill: CancellationToken,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, call: F) {
        let call = with_stall_timeout(Box::pin(call));
        self.tracker.spawn(self.kill.clone().run_until_cancelled_owned(call));
    }
}
