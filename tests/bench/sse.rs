//! A client of the HTTP door: one connection, one streamed chat completion after the other. The client parses only
//! the necessary parts, so that its own time stays small.

use std::net::SocketAddr;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    BenchResult,
    stats::now_us,
    tally::{Prompt, Reply, Tally, TurnTimer},
};

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Runs one turn to its end. The time to connect counts.
    pub(crate) async fn turn(&mut self, prompt: &Prompt, tally: &mut Tally) -> BenchResult<()> {
        let mut answer = self.send(prompt, tally).await?;
        while !answer.reader.is_over() {
            answer.read(tally).await?;
        }
        answer.timer.end(tally);
        self.stream = Some(answer.stream);
        Ok(())
    }

    /// Sends the body of a request and reads its answer to the end.
    pub(crate) async fn ask(&mut self, body: &str, tally: &mut Tally) -> BenchResult<Reply> {
        let known = tally.lags.len();
        let mut answer = self.send_body(body).await?;
        while !answer.reader.is_over() {
            answer.read(tally).await?;
        }
        self.stream = Some(answer.stream);
        Ok(Reply::new(answer.reader.call, known, answer.timer, tally))
    }

    /// Runs one turn to its first token. Dropping the answer closes the connection.
    pub(crate) async fn start_stream(
        &mut self,
        prompt: &Prompt,
        tally: &mut Tally,
    ) -> BenchResult<StartedStream> {
        let mut answer = self.send(prompt, tally).await?;
        while !answer.timer.has_text() {
            if answer.reader.is_over() {
                return Err("the answer ended before its first token".into());
            }
            answer.read(tally).await?;
        }
        Ok(answer)
    }

    async fn send(&mut self, prompt: &Prompt, _tally: &mut Tally) -> BenchResult<StartedStream> {
        let body = json!({"model": prompt.model, "stream": true, "messages": [{"role": "user", "content": prompt.text}]});
        self.send_body(&body.to_string()).await
    }

    async fn send_body(&mut self, body: &str) -> BenchResult<StartedStream> {
        let timer = TurnTimer::start();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             authorization: Bearer bench\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        stream.write_all(request.as_bytes()).await?;
        Ok(StartedStream { stream, timer, reader: Reader::default(), buffer: Vec::with_capacity(4 << 10) })
    }
}

/// A streaming answer.
#[derive(Debug)]
pub(crate) struct StartedStream {
    stream: TcpStream,
    timer: TurnTimer,
    reader: Reader,
    buffer: Vec<u8>,
}

impl StartedStream {
    async fn read(&mut self, tally: &mut Tally) -> BenchResult<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            let rest = String::from_utf8_lossy(&self.buffer);
            return Err(format!("the connection ended early ({rest:.200})").into());
        }
        let now = now_us();
        let Some(end) = self.buffer.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        for line in self.buffer[..end].split(|&byte| byte == b'\n') {
            self.reader.line(line.strip_suffix(b"\r").unwrap_or(line), now, &mut self.timer, tally)?;
        }
        self.buffer.drain(..=end);
        Ok(())
    }
}

/// Position in an answer.
#[derive(Debug, Default)]
struct Reader {
    stage: Stage,
    /// The current chunk of the transfer contains text.
    chunk_has_text: bool,
    /// The last data was `[DONE]`.
    done: bool,
    /// The id of a tool call.
    call: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Status,
    Head,
    Body,
    LastChunk,
    Over,
}

impl Reader {
    fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn line(&mut self, line: &[u8], now: u64, timer: &mut TurnTimer, tally: &mut Tally) -> BenchResult<()> {
        match self.stage {
            Stage::Status if line.starts_with(b"HTTP/1.1 200") => self.stage = Stage::Head,
            Stage::Status => return Err(String::from_utf8_lossy(line).into()),
            Stage::Head if line.is_empty() => self.stage = Stage::Body,
            Stage::Head | Stage::Over => {}
            Stage::LastChunk => self.stage = Stage::Over,
            Stage::Body => self.body(line, now, timer, tally)?,
        }
        Ok(())
    }

    fn body(&mut self, line: &[u8], now: u64, timer: &mut TurnTimer, tally: &mut Tally) -> BenchResult<()> {
        if let Some(data) = line.strip_prefix(b"data: ") {
            if data == b"[DONE]" {
                self.done = true;
            } else if data.starts_with(b"{\"error\"") {
                return Err(String::from_utf8_lossy(data).into());
            } else if let Some(text) = content(data) {
                if !self.chunk_has_text {
                    self.chunk_has_text = true;
                    tally.frames += 1;
                }
                timer.text(text, now, tally);
            } else if let Some(id) = call_id(data) {
                self.call = Some(id);
            }
        } else if line == b"0" && self.done {
            self.stage = Stage::LastChunk;
        } else if !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit) {
            self.chunk_has_text = false;
        }
        Ok(())
    }
}

/// Returns the id of a tool call in a chunk.
fn call_id(data: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"\"tool_calls\":[";
    data.windows(MARK.len()).find(|window| *window == MARK)?;
    let chunk: serde_json::Value = serde_json::from_slice(data).ok()?;
    chunk["choices"][0]["delta"]["tool_calls"][0]["id"].as_str().map(str::to_owned)
}

/// Returns the text after `"content":"`.
fn content(data: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b"\"content\":";
    let at = data.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let text = data[at..].trim_ascii_start().strip_prefix(b"\"")?;
    (text.first() != Some(&b'"')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::{Reader, content};
    use crate::tally::{Tally, TurnTimer};

    #[test]
    fn reader_of_a_chunked_answer_is_over_after_the_last_chunk() {
        let answer = "HTTP/1.1 200 OK\r\nx: 0\r\n\r\n1f\r\ndata: {\"delta\":{\"content\":\"\"}}\n\n\r\n50\r\n\
            data: {\"delta\":{\"content\":\"t=1767225600000000;\"}}\n\ndata: {\"delta\":{\"content\":\"b\"}}\n\n\r\n\
            e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
        let (mut reader, mut timer, mut tally) = (Reader::default(), TurnTimer::start(), Tally::default());
        for line in answer.trim_end_matches('\n').split('\n') {
            assert!(!reader.is_over());
            let line = line.strip_suffix('\r').unwrap_or(line);
            assert!(reader.line(line.as_bytes(), 1_767_225_600_000_250, &mut timer, &mut tally).is_ok());
        }
        assert!(reader.is_over() && timer.has_text());
        assert_eq!((tally.frames, tally.lags), (1, vec![(1_767_225_600_000_000, 250)]));
    }

    #[test]
    fn reader_of_an_error_status_fails() {
        let (mut reader, mut timer, mut tally) = (Reader::default(), TurnTimer::start(), Tally::default());
        assert!(reader.line(b"HTTP/1.1 429 Too Many Requests", 0, &mut timer, &mut tally).is_err());
        assert_eq!(content(br#"{"content":null}"#), None);
        assert_eq!(content(br#"{"content": "a"}"#), Some(&br#"a"}"#[..]));
    }
}
