//! An HTTP/2 client that sends single frames, for sequences that HTTP libraries do not send.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::toy::in_time;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub is_last: bool,
    pub payload: Vec<u8>,
}

pub struct Connection(TcpStream);

impl Connection {
    pub async fn open(addr: SocketAddr) -> Self {
        Self::open_from([127, 0, 0, 1], addr).await
    }

    /// Opens a connection from this address of the machine.
    pub async fn open_from(from: [u8; 4], addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let mut connection = Self(in_time(socket.connect(addr)).await.unwrap());
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        connection.send(&frame(SETTINGS, 0, 0, &[])).await;
        connection
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        in_time(self.0.write_all(bytes)).await.unwrap();
    }

    /// Reads to the next frame of one of these kinds.
    pub async fn next(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let mut head = [0; 9];
            in_time(self.0.read_exact(&mut head)).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            in_time(self.0.read_exact(&mut payload)).await.unwrap();
            let kind = head[3];
            let is_last = [DATA, HEADERS].contains(&kind) && head[4] & END_STREAM != 0;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if kinds.contains(&kind) {
                return Frame { kind, stream, is_last, payload };
            }
        }
    }
}

/// Builds a ping or, with `is_answer`, the answer to one.
pub fn ping(payload: &[u8], is_answer: bool) -> Vec<u8> {
    frame(PING, u8::from(is_answer), 0, payload)
}

/// Builds a GET without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    head(0x82, END_STREAM, stream, path)
}

/// Builds the head of a POST with a body.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    head(0x83, 0, stream, path)
}

/// Builds a part of a body.
pub fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, bytes)
}

fn head(method: u8, flags: u8, stream: u32, path: &str) -> Vec<u8> {
    // Method and scheme are in HPACK's static table; path and authority are literals.
    let mut block = vec![method, 0x86];
    for (name, value) in [(0x04, path), (0x01, "localhost")] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

/// Builds a `RST_STREAM` with the code `CANCEL`.
pub fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}
