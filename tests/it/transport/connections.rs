//! Idle, old and too many connections.

use std::{net::SocketAddr, time::Duration};

use codex_api::config::ConnectionAge;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};

use super::{
    frames::{self, Connection, DATA, GOAWAY, HEADERS, PING},
    toy::{HandlerEvent, Server, in_time},
};

const SHORT: Duration = Duration::from_millis(300);

const LONG: Duration = Duration::from_secs(3600);

const GET: &[u8] = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n";

/// Connects from another address of the loopback network.
async fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    in_time(socket.connect(to)).await.unwrap()
}

/// Sends a GET and reads the response, whose connection stays open.
async fn get(stream: &mut BufReader<TcpStream>) -> String {
    in_time(stream.write_all(GET)).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        assert_ne!(
            in_time(stream.read_line(&mut answer)).await.unwrap(),
            0,
            "the connection is open: {answer}"
        );
    }
    let mut body = [0; 5];
    in_time(stream.read_exact(&mut body)).await.unwrap();
    assert_eq!(&body, b"hello");
    answer
}

/// Waits until the server closes a connection whose head is incomplete, which takes the header timeout.
async fn wait_for_a_header_timeout(server: &Server) {
    let mut half = in_time(TcpStream::connect(server.addr)).await.unwrap();
    in_time(half.write_all(b"GET /hello HTTP/1.1\r\nhalf")).await.unwrap();
    let _ = in_time(half.read_u8()).await;
}

#[tokio::test]
async fn idle_connection_outlives_the_header_timeout() {
    let server = Server::start(|config| (config.header_timeout, config.idle_timeout) = (SHORT, LONG));
    let mut idle = BufReader::new(in_time(TcpStream::connect(server.addr)).await.unwrap());
    get(&mut idle).await;
    wait_for_a_header_timeout(&server).await;
    wait_for_a_header_timeout(&server).await;
    get(&mut idle).await;
    // The next head has its own time limit.
    in_time(idle.write_all(b"GET /hello HTTP/1.1\r\nhalf")).await.unwrap();
    let _ = in_time(idle.read_u8()).await;
}

#[tokio::test]
async fn idle_http2_connection_that_answers_pings_is_closed() {
    let mut server = Server::start(|config| config.idle_timeout = SHORT);
    let feed = server.feed();
    let mut busy = Connection::open(server.addr).await;
    busy.send(&frames::get(1, "/events")).await;
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    let mut idle = Connection::open(server.addr).await;
    idle.send(&frames::get(1, "/hello")).await;
    // Pings do not count as use. The server answers each of them until it closes the connection.
    let mut payload = b"12345678".to_vec();
    loop {
        idle.send(&frames::ping(&payload, false)).await;
        let frame = idle.next(&[PING, GOAWAY]).await;
        if frame.kind == GOAWAY {
            break;
        }
        payload = frame.payload;
    }
    // At this time both connections have exceeded the limit.
    feed.send("busy").await.unwrap();
    assert_eq!(busy.next(&[DATA, GOAWAY]).await.payload, b"data: busy\n\n");
}

#[tokio::test]
async fn fast_pings_beside_a_stream_are_answered() {
    let server = Server::start(|_| {});
    let feed = server.feed();
    let mut connection = Connection::open(server.addr).await;
    connection.send(&frames::get(1, "/events")).await;
    for number in 0..500_u64 {
        connection.send(&frames::ping(&number.to_be_bytes(), false)).await;
        let answer = connection.next(&[PING, GOAWAY]).await;
        assert_eq!((answer.kind, &*answer.payload), (PING, &number.to_be_bytes()[..]));
    }
    feed.send("still here").await.unwrap();
    assert_eq!(connection.next(&[DATA, GOAWAY]).await.payload, b"data: still here\n\n");
}

#[tokio::test]
async fn connection_at_its_maximum_age_finishes_its_requests() {
    let age = ConnectionAge { max: SHORT, grace: Duration::ZERO, jitter: 0.1 };
    let server = Server::start(|config| config.connection_age = Some(age));
    let feed = server.feed();
    let mut connection = Connection::open(server.addr).await;
    connection.send(&frames::get(1, "/events")).await;
    assert_eq!(connection.next(&[HEADERS, GOAWAY]).await.kind, HEADERS);
    assert_eq!(connection.next(&[DATA, GOAWAY]).await.kind, GOAWAY);
    feed.send("late").await.unwrap();
    assert_eq!(connection.next(&[DATA]).await.payload, b"data: late\n\n");
    drop(feed);
    assert!(connection.next(&[DATA]).await.is_last);
}

#[tokio::test]
async fn requests_past_the_grace_of_the_maximum_age_are_cancelled() {
    let age = ConnectionAge { max: SHORT, grace: SHORT, jitter: 0.0 };
    let mut server = Server::start(|config| config.connection_age = Some(age));
    let _feed = server.feed();
    let mut response = in_time(reqwest::get(server.url("/events"))).await.unwrap();
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    assert_eq!(server.next_handler_event().await, HandlerEvent::Dropped);
    in_time(response.chunk()).await.unwrap_err();
}

#[tokio::test]
async fn silent_connections_give_their_seats_to_newcomers() {
    for per_peer in [8, 6] {
        let server = Server::start(|config| {
            (config.max_connections, config.max_connections_per_peer) = (8, per_peer);
            (config.header_timeout, config.idle_timeout) = (LONG, LONG);
        });
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(in_time(TcpStream::connect(server.addr)).await.unwrap());
        }
        // The limit of a peer may refuse a connection during a burst of the same peer.
        in_time(async {
            while reqwest::get(server.url("/hello")).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let mut other = BufReader::new(connect_from("127.0.0.2", server.addr).await);
        get(&mut other).await;
    }
}

#[tokio::test]
async fn idle_http2_connections_give_their_seats_to_newcomers() {
    let server = Server::start(|config| (config.max_connections, config.idle_timeout) = (4, LONG));
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(server.addr).await;
        connection.send(&frames::get(1, "/hello")).await;
        assert_eq!(connection.next(&[HEADERS, GOAWAY]).await.kind, HEADERS);
        idle.push(connection);
    }
    assert_eq!(in_time(reqwest::get(server.url("/hello"))).await.unwrap().status(), 200);
    assert_eq!(idle[0].next(&[GOAWAY]).await.kind, GOAWAY);
    idle[3].send(&frames::get(3, "/hello")).await;
    assert_eq!(idle[3].next(&[HEADERS, GOAWAY]).await.kind, HEADERS);
}

#[tokio::test]
async fn busy_peer_at_its_limit_waits_while_another_peer_is_served() {
    let mut server = Server::start(|config| {
        (config.max_connections, config.max_connections_per_peer) = (8, 2);
    });
    let _feeds = [server.feed(), server.feed()];
    let mut busy = Vec::new();
    for _ in 0..2 {
        busy.push(in_time(reqwest::get(server.url("/events"))).await.unwrap());
        assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    }
    let mut waiting = in_time(TcpStream::connect(server.addr)).await.unwrap();
    in_time(waiting.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await.unwrap();
    let mut other = BufReader::new(connect_from("127.0.0.2", server.addr).await);
    get(&mut other).await;
    assert!(waiting.try_read(&mut [0; 1]).is_err(), "the peer has no seat left");
    drop(busy.pop());
    let mut answer = String::new();
    in_time(waiting.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}
