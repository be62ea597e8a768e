//! The end of a server by drain or kill.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::toy::{HandlerEvent, Server, chat, in_time};

/// Waits until the server refuses connections.
async fn wait_until_refused(server: &Server) {
    in_time(async {
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
    let mut http = in_time(reqwest::get(server.url("/events"))).await.unwrap();
    let calls = server.feed();
    let mut client = server.client().await;
    let mut grpc = in_time(client.stream_chat(chat(""))).await.unwrap().into_inner();
    let mut silent = in_time(TcpStream::connect(server.addr)).await.unwrap();
    in_time(silent.write_all(b"GET /hello HTTP/1.1\r\n")).await.unwrap();
    // This response proves that the server has accepted the silent connection.
    assert_eq!(in_time(reqwest::get(server.url("/hello"))).await.unwrap().status(), 200);

    server.drain.cancel();
    wait_until_refused(&server).await;
    // The drain closes the silent connection, but not the open streams.
    let _ = in_time(silent.read_u8()).await;
    events.send("late").await.unwrap();
    calls.send("late").await.unwrap();
    assert_eq!(in_time(http.chunk()).await.unwrap().unwrap(), "data: late\n\n");
    assert_eq!(in_time(grpc.message()).await.unwrap().unwrap().id, "late");
    assert!(client.chat(chat("")).await.is_err(), "a new call on an old connection");
    drop((events, calls));
    assert!(in_time(http.chunk()).await.unwrap().is_none());
    assert!(in_time(grpc.message()).await.unwrap().is_none());
    server.wait_until_stopped().await;
}

#[tokio::test]
async fn kill_drops_open_streams() {
    let mut server = Server::start(|_| {});
    let _feeds = [server.feed(), server.feed()];
    let mut http = in_time(reqwest::get(server.url("/events"))).await.unwrap();
    let mut grpc = in_time(server.client().await.stream_chat(chat(""))).await.unwrap().into_inner();
    assert_eq!(
        [server.next_handler_event().await, server.next_handler_event().await],
        [HandlerEvent::Opened; 2]
    );

    server.drain.cancel();
    wait_until_refused(&server).await;
    server.kill.cancel();
    server.wait_until_stopped().await;
    assert_eq!(
        server.handler_events_so_far(),
        [HandlerEvent::Dropped; 2],
        "both handlers are dropped before the server stops"
    );
    assert!(in_time(http.chunk()).await.is_err());
    assert!(in_time(grpc.message()).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_drain() {
    let long = Duration::from_secs(3600);
    let mut server = Server::start(|config| config.header_timeout = long);
    let mut open = Vec::new();
    for text in ["", "PRI * HTTP/2", "G", "GET /hello HTTP/1.1\r\nhost: x\r\nhalf"] {
        let mut stream = in_time(TcpStream::connect(server.addr)).await.unwrap();
        in_time(stream.write_all(text.as_bytes())).await.unwrap();
        open.push(stream);
    }
    // Idle connections of each protocol. Their responses prove that the server has accepted the other connections.
    let http = reqwest::Client::new();
    assert_eq!(in_time(http.get(server.url("/hello")).send()).await.unwrap().status(), 200);
    let mut client = server.client().await;
    in_time(client.chat(chat(""))).await.unwrap();

    server.drain.cancel();
    server.wait_until_stopped().await;
}
