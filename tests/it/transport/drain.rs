//! The end of a server, gentle and not.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::toy::{Seen, Server, chat, soon};

/// Connects until nobody listens any more.
async fn refused(server: &Server) {
    soon(async {
        while !matches!(TcpStream::connect(server.addr).await, Err(e) if e.kind() == io::ErrorKind::ConnectionRefused) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn drain_finishes_streams_and_refuses_new_connections() {
    let mut server = Server::start(|_| {});
    let events = server.feed();
    let mut http = soon(reqwest::get(server.url("/events"))).await.unwrap();
    let calls = server.feed();
    let mut client = server.client().await;
    let mut grpc = soon(client.stream_chat(chat(""))).await.unwrap().into_inner();
    let mut silent = soon(TcpStream::connect(server.addr)).await.unwrap();
    soon(silent.write_all(b"GET /hello HTTP/1.1\r\n")).await.unwrap();
    // By the time of this answer the server has seen it.
    assert_eq!(soon(reqwest::get(server.url("/hello"))).await.unwrap().status(), 200);

    server.drain.cancel();
    refused(&server).await;
    // A silent connection is closed after a moment; a silent answer is not.
    let _ = soon(silent.read_u8()).await;
    events.send("late").await.unwrap();
    calls.send("late").await.unwrap();
    assert_eq!(soon(http.chunk()).await.unwrap().unwrap(), "data: late\n\n");
    assert_eq!(soon(grpc.message()).await.unwrap().unwrap().id, "late");
    assert!(client.chat(chat("")).await.is_err(), "a new call on an old connection");
    drop((events, calls));
    assert!(soon(http.chunk()).await.unwrap().is_none());
    assert!(soon(grpc.message()).await.unwrap().is_none());
    server.ended().await;
}

#[tokio::test]
async fn kill_drops_open_streams() {
    let mut server = Server::start(|_| {});
    let _feeds = [server.feed(), server.feed()];
    let mut http = soon(reqwest::get(server.url("/events"))).await.unwrap();
    let mut grpc = soon(server.client().await.stream_chat(chat(""))).await.unwrap().into_inner();
    assert_eq!([server.seen().await, server.seen().await], [Seen::Opened; 2]);

    server.drain.cancel();
    refused(&server).await;
    server.kill.cancel();
    server.ended().await;
    assert_eq!(server.seen_already(), [Seen::Dropped; 2], "both before the end");
    assert!(soon(http.chunk()).await.is_err());
    assert!(soon(grpc.message()).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_drain() {
    let long = Duration::from_secs(3600);
    let mut server = Server::start(|doors| doors.header_timeout = long);
    let mut open = Vec::new();
    for text in ["", "PRI * HTTP/2", "G", "GET /hello HTTP/1.1\r\nhost: x\r\nhalf"] {
        let mut stream = soon(TcpStream::connect(server.addr)).await.unwrap();
        soon(stream.write_all(text.as_bytes())).await.unwrap();
        open.push(stream);
    }
    // Idle connections of each protocol; by the time of their answers the server has seen the others.
    let http = reqwest::Client::new();
    assert_eq!(soon(http.get(server.url("/hello")).send()).await.unwrap().status(), 200);
    let mut client = server.client().await;
    soon(client.chat(chat(""))).await.unwrap();

    server.drain.cancel();
    server.ended().await;
}
