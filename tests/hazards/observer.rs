//! Neighbours of a hazard: a stream and the health report. Each has a thread of its own, so that the work of the attacker does not
//! count.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc::{self, Receiver, Sender},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Pause between two health reports.
const HEALTH_PAUSE: Duration = Duration::from_millis(20);

/// Maximum time until the next piece of a stream that goes on.
const NEXT_PIECE: Duration = Duration::from_secs(10);

/// The longest pauses of the neighbours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    /// Whether the stream went on after the hazard.
    pub(crate) goes_on: bool,
    /// Between two pieces of the stream.
    pub(crate) stream: Duration,
    /// From the start of a health report to its end.
    pub(crate) health: Duration,
}

/// The running neighbours.
#[derive(Debug)]
pub(crate) struct Observer {
    socket: TcpStream,
    stream: JoinHandle<Duration>,
    pieces: Receiver<()>,
    stop: Sender<()>,
    health: JoinHandle<io::Result<Duration>>,
}

impl Observer {
    /// Starts a stream of twenty deltas a second of the fake codex, waits for its first piece, and asks for health reports.
    pub(crate) fn start(address: SocketAddr) -> io::Result<Self> {
        let body =
            r#"{"model":"fake:stream:100000:50","stream":true,"messages":[{"role":"user","content":"go"}]}"#;
        let mut socket = TcpStream::connect(address)?;
        write!(
            socket,
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut reader = socket.try_clone()?;
        let mut buffer = [0; 4096];
        if reader.read(&mut buffer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (arrived, pieces) = mpsc::channel();
        let stream = std::thread::spawn(move || {
            let (mut longest, mut last) = (Duration::ZERO, Instant::now());
            while reader.read(&mut buffer).is_ok_and(|bytes| bytes > 0) && arrived.send(()).is_ok() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            longest.max(last.elapsed())
        });
        let (stop, stopped) = mpsc::channel();
        let health = std::thread::spawn(move || {
            let mut longest = time_health(address)?;
            while stopped.recv_timeout(HEALTH_PAUSE).is_err() {
                longest = longest.max(time_health(address)?);
            }
            Ok(longest)
        });
        Ok(Self { socket, stream, pieces, stop, health })
    }

    /// Waits for the next piece of the stream, ends the neighbours, and returns their longest pauses.
    pub(crate) fn end(self) -> io::Result<Pauses> {
        while self.pieces.try_recv().is_ok() {}
        let goes_on = self.pieces.recv_timeout(NEXT_PIECE).is_ok();
        let lost = |_| io::Error::other("the thread of a neighbour panicked");
        // Fails if the thread has ended with an error, which follows.
        let _ended = self.stop.send(());
        let health = self.health.join().map_err(lost)??;
        // Fails if the server has closed the stream.
        let _closed = self.socket.shutdown(Shutdown::Both);
        let stream = self.stream.join().map_err(lost)?;
        Ok(Pauses { goes_on, stream, health })
    }
}

/// Returns the time of one health report on a new connection.
fn time_health(address: SocketAddr) -> io::Result<Duration> {
    let started = Instant::now();
    let mut socket = TcpStream::connect(address)?;
    write!(socket, "GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut response = String::new();
    socket.read_to_string(&mut response)?;
    match response.starts_with("HTTP/1.1 200") {
        true => Ok(started.elapsed()),
        false => Err(io::Error::other(response)),
    }
}
