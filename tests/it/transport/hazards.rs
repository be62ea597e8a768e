//! Harmful clients: resets, unfinished requests, stalled readers, too many connections.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{
    frames::{self, Connection, DATA, GOAWAY, HEADERS, RST_STREAM},
    toy::{HandlerEvent, Server, chat, in_time},
};

const SHORT: Duration = Duration::from_millis(300);

/// Opens and cancels `calls` calls, a hundred per write, so that many are cancelled before the server accepts them.
/// Asserts that a stream on the same connection is not affected.
async fn assert_cancelled_calls_leave_a_stream_intact(path: &str, calls: u32) {
    let mut server = Server::start(|_| {});
    let feed = server.feed();
    let mut connection = Connection::open(server.addr).await;
    connection.send(&frames::get(1, "/events")).await;
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    assert_eq!(connection.next(&[HEADERS, GOAWAY]).await.kind, HEADERS);

    let ids: Vec<u32> = (1..=calls).map(|n| 2 * n + 1).collect();
    for ids in ids.chunks(100) {
        let burst: Vec<u8> =
            ids.iter().flat_map(|&id| [frames::get(id, path), frames::cancel(id)].concat()).collect();
        connection.send(&burst).await;
    }
    feed.send("still here").await.unwrap();
    let frame = loop {
        let frame = connection.next(&[DATA, RST_STREAM, GOAWAY]).await;
        if frame.kind == GOAWAY || frame.stream == 1 {
            break frame;
        }
    };
    assert_eq!((frame.kind, &*frame.payload), (DATA, &b"data: still here\n\n"[..]), "{frame:?}");
    drop(feed);
    let last = connection.next(&[DATA, GOAWAY]).await;
    assert!(last.kind == DATA && last.is_last, "{last:?}");
    // Every started handler has been dropped.
    server.drain.cancel();
    server.wait_until_stopped().await;
    let events = server.handler_events_so_far();
    let count = |kind| events.iter().filter(|event| **event == kind).count();
    assert_eq!(count(HandlerEvent::Opened) + 1, count(HandlerEvent::Dropped));
}

#[tokio::test]
async fn cancelled_calls_leave_other_streams_intact() {
    assert_cancelled_calls_leave_a_stream_intact("/hang", 1_000).await;
}

#[tokio::test]
async fn unread_answers_leave_other_streams_intact() {
    assert_cancelled_calls_leave_a_stream_intact("/hello", 3_000).await;
}

#[tokio::test]
async fn address_that_resets_streams_without_end_is_read_later() {
    let server = Server::start(|config| config.max_request_rate = 1);
    let mut attacker = Connection::open(server.addr).await;
    for first in 0..60 {
        let ids = (0..100).map(|n| 2 * (first * 100 + n) + 1);
        let burst: Vec<u8> =
            ids.flat_map(|id| [frames::get(id, "/missing"), frames::cancel(id)].concat()).collect();
        attacker.send(&burst).await;
    }
    let answers = async |from| {
        let mut connection = Connection::open_from(from, server.addr).await;
        connection.send(&frames::get(1, "/missing")).await;
        timeout(SHORT, connection.next(&[HEADERS])).await.is_ok()
    };
    let mut tries = 0..100;
    while answers([127, 0, 0, 1]).await {
        assert!(tries.next().is_some(), "the address is always read");
    }
    let mut other = Connection::open_from([127, 0, 0, 2], server.addr).await;
    other.send(&frames::get(1, "/missing")).await;
    assert_eq!(other.next(&[HEADERS, GOAWAY]).await.kind, HEADERS);
}

/// A client may still send the body of a call that was answered before its body was read, for example with a 401.
#[tokio::test]
async fn bodies_after_the_answer_leave_other_streams_intact() {
    let server = Server::start(|_| {});
    let feed = server.feed();
    let mut connection = Connection::open(server.addr).await;
    connection.send(&frames::get(1, "/events")).await;
    for burst in 0..15 {
        let ids = (0..200).map(|n| 2 * (burst * 200 + n) + 3);
        connection.send(&ids.clone().flat_map(|id| frames::post(id, "/hello")).collect::<Vec<_>>()).await;
        for _ in ids.clone() {
            assert_eq!(connection.next(&[RST_STREAM, GOAWAY]).await.kind, RST_STREAM);
        }
        connection.send(&ids.flat_map(|id| frames::data(id, b"late")).collect::<Vec<_>>()).await;
    }
    feed.send("still here").await.unwrap();
    loop {
        let frame = connection.next(&[DATA, GOAWAY]).await;
        assert_eq!(frame.kind, DATA, "{frame:?}");
        if frame.stream == 1 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_deadlines_leave_other_calls_intact() {
    let mut server = Server::start(|_| {});
    let feed = server.feed();
    let client = server.client().await;
    let mut long = in_time(client.clone().stream_chat(chat(""))).await.unwrap().into_inner();
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    let mut calls = JoinSet::new();
    for _ in 0..1_000 {
        let mut client = client.clone();
        calls.spawn(
            async move { timeout(Duration::from_millis(1), client.chat(chat("hang"))).await.is_err() },
        );
    }
    assert!(in_time(calls.join_all()).await.into_iter().all(|timed_out| timed_out));
    feed.send("still here").await.unwrap();
    assert_eq!(in_time(long.message()).await.unwrap().unwrap().id, "still here");
    drop(feed);
    assert!(in_time(long.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn unfinished_head_is_disconnected() {
    let server = Server::start(|config| config.header_timeout = SHORT);
    for text in ["", "PRI * HTTP/2", "G", "GET /hello HTTP/1.1\r\nhost: x\r\nhalf"] {
        let mut stream = in_time(TcpStream::connect(server.addr)).await.unwrap();
        in_time(stream.write_all(text.as_bytes())).await.unwrap();
        let mut rest = Vec::new();
        // The server may close the connection with a reset.
        let _ = in_time(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{text:?}: {}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn idle_connection_is_closed_and_a_busy_one_stays_open() {
    let mut server = Server::start(|config| config.idle_timeout = SHORT);
    let feed = server.feed();
    let mut busy = in_time(reqwest::get(server.url("/events"))).await.unwrap();
    let mut idle = in_time(TcpStream::connect(server.addr)).await.unwrap();
    in_time(idle.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")).await.unwrap();
    let mut answer = String::new();
    in_time(idle.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    // At this time both connections have exceeded the limit.
    feed.send("busy").await.unwrap();
    assert_eq!(in_time(busy.chunk()).await.unwrap().unwrap(), "data: busy\n\n");
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
}

#[tokio::test]
async fn events_are_sent_without_buffering() {
    let server = Server::start(|_| {});
    let feed = server.feed();
    let mut response = in_time(reqwest::get(server.url("/events"))).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    for text in ["one", "two", "three"] {
        feed.send(text).await.unwrap();
        assert_eq!(in_time(response.chunk()).await.unwrap().unwrap(), format!("data: {text}\n\n"));
    }
}

#[tokio::test]
async fn disconnect_drops_the_handler() {
    let mut server = Server::start(|_| {});
    let _feeds = [server.feed(), server.feed()];
    let mut client = server.client().await;

    let events = in_time(reqwest::get(server.url("/events"))).await.unwrap();
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    drop(events);
    assert_eq!(server.next_handler_event().await, HandlerEvent::Dropped);

    let stream = in_time(client.stream_chat(chat(""))).await.unwrap();
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    drop(stream);
    assert_eq!(server.next_handler_event().await, HandlerEvent::Dropped);

    let mut unary = JoinSet::new();
    let url = server.url("/hang");
    unary.spawn(async move { drop(reqwest::get(url).await) });
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    unary.shutdown().await;
    assert_eq!(server.next_handler_event().await, HandlerEvent::Dropped);

    unary.spawn(async move { drop(client.chat(chat("hang")).await) });
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    unary.shutdown().await;
    assert_eq!(server.next_handler_event().await, HandlerEvent::Dropped);
}

#[tokio::test]
async fn stalled_reader_is_disconnected() {
    let mut server = Server::start(|config| config.write_timeout = SHORT);
    let mut stream = in_time(TcpStream::connect(server.addr)).await.unwrap();
    in_time(stream.write_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")).await.unwrap();
    assert_eq!(server.next_handler_event().await, HandlerEvent::Opened);
    assert_eq!(server.next_handler_event().await, HandlerEvent::Dropped);
}

/// The client reads the socket, so the connection does not stall, but never opens the window of the stream.
#[tokio::test]
async fn call_with_a_closed_window_is_reset_alone() {
    let mut server = Server::start(|config| config.write_timeout = SHORT);
    let mut connection = Connection::open(server.addr).await;
    connection.send(&frames::get(1, "/flood")).await;
    let reset = connection.next(&[RST_STREAM, GOAWAY]).await;
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, 1));
    assert_eq!(
        [server.next_handler_event().await, server.next_handler_event().await],
        [HandlerEvent::Opened, HandlerEvent::Dropped]
    );
    connection.send(&frames::get(3, "/hello")).await;
    let answer = connection.next(&[HEADERS, GOAWAY]).await;
    assert_eq!((answer.kind, answer.stream), (HEADERS, 3));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let mut server = Server::start(|config| config.max_connections = 1);
    let feeds = [server.feed(), server.feed()];
    let mut first = in_time(reqwest::get(server.url("/events"))).await.unwrap();
    let mut second = in_time(TcpStream::connect(server.addr)).await.unwrap();
    in_time(second.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")).await.unwrap();
    // A round trip, in which the server could serve the second connection.
    feeds[1].send("one").await.unwrap();
    in_time(first.chunk()).await.unwrap();
    drop(first);
    let events = [
        server.next_handler_event().await,
        server.next_handler_event().await,
        server.next_handler_event().await,
    ];
    assert_eq!(events, [HandlerEvent::Opened, HandlerEvent::Dropped, HandlerEvent::Opened]);
}

#[tokio::test]
async fn head_beyond_the_limit_is_refused_and_the_peer_is_known() {
    let server = Server::start(|_| {});
    let client = reqwest::Client::new();
    let send = |size: usize| client.get(server.url("/peer")).header("x-large", "x".repeat(size)).send();
    let fine = in_time(send(32 * 1024)).await.unwrap();
    let peer: std::net::SocketAddr = in_time(fine.text()).await.unwrap().parse().unwrap();
    assert!(peer.ip().is_loopback() && peer != server.addr);
    assert_eq!(in_time(send(100 * 1024)).await.unwrap().status(), 431);
}
