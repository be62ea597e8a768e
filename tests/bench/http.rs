//! The part of HTTP/1.1 that the bench needs: whole messages with a length, and GET.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::BenchResult;

/// A response to a GET.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends a GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> BenchResult<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::new();
    let Some((head, length)) = read_message(&mut stream, &mut buffer).await? else {
        return Err("no answer".into());
    };
    let line = String::from_utf8_lossy(&buffer[..head]);
    let status = line.split_ascii_whitespace().nth(1).and_then(|code| code.parse().ok());
    let body = String::from_utf8_lossy(&buffer[head..head + length]).into_owned();
    Ok(Answer { status: status.ok_or("no status")?, body })
}

/// Reads a message. Returns the offset and length of its body in the buffer, or `None` at the end of the stream.
pub(crate) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> BenchResult<Option<(usize, usize)>> {
    let mut searched = 0;
    let head = loop {
        let from = searched.max(3) - 3;
        if let Some(at) = buffer[from..].windows(4).position(|window| window == b"\r\n\r\n") {
            break from + at + 4;
        }
        searched = buffer.len();
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let length = content_length(&buffer[..head]);
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            return Err("half a message".into());
        }
    }
    Ok(Some((head, length)))
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    value.unwrap_or(0)
}
