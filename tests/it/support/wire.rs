//! An HTTP/1.1 client that sends raw bytes, for requests that HTTP libraries cannot send.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::TIMEOUT;

/// One connection.
pub struct Wire(pub BufReader<TcpStream>);

/// A response. The body is empty unless the head has `content-length`.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, with values.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        Self(BufReader::new(timeout(TIMEOUT, TcpStream::connect(address)).await.unwrap().unwrap()))
    }

    /// Connects with a small receive window, so that the server notices a stalled reader early.
    pub async fn open_with_small_window(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        Self(BufReader::new(timeout(TIMEOUT, socket.connect(address)).await.unwrap().unwrap()))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(TIMEOUT, self.0.write_all(bytes.as_ref())).await.unwrap().unwrap();
    }

    /// Sends a complete POST with a JSON body.
    pub async fn post(&mut self, body: &serde_json::Value) {
        let body = body.to_string();
        self.send(format!("{}{body}", head(body.len(), ""))).await;
    }

    pub async fn response(&mut self) -> Response {
        let first = self.line().await;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not the head of a response: {first:?}"));
        let mut response = Response { status, headers: Vec::new(), body: String::new() };
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { break };
            response.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut body = vec![0; response.header("content-length").parse().unwrap_or_default()];
        timeout(TIMEOUT, self.0.read_exact(&mut body)).await.unwrap().unwrap();
        response.body = String::from_utf8(body).unwrap();
        response
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(TIMEOUT, self.0.read_line(&mut line)).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }
}

/// Builds the head of a POST to chat completions with additional header lines.
pub fn head(length: usize, more: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{more}\r\n"
    )
}
