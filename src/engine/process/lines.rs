//! Reads lines of bounded length from a pipe.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// The reason why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// A line exceeds the limit. The reader is unusable until [`LineReader::skip_line`] has skipped the rest of the
    /// line.
    #[error("a line of more than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Reading from the pipe failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Bytes that are kept of each end of a skipped line.
const EDGE_BYTES: usize = 2048;

/// Buffer capacity that a reader keeps between two lines, in bytes.
const MAX_IDLE_CAPACITY: usize = 1 << 20;

/// Reads lines of at most `limit` bytes.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    limit: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, reader), line: Vec::new(), limit }
    }

    /// Returns the next line without its newline, or `None` at the end of the pipe. The last line needs no newline.
    ///
    /// Not cancel safe, because a partly read line is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.line.clear();
        self.line.shrink_to(MAX_IDLE_CAPACITY);
        loop {
            let (is_end, used) = {
                let buffer = self.reader.fill_buf().await?;
                if buffer.is_empty() {
                    let rest = (!self.line.is_empty()).then_some(self.line.as_slice());
                    return Ok(rest);
                }
                let end = memchr::memchr(b'\n', buffer);
                let piece = &buffer[..end.unwrap_or(buffer.len())];
                let room = self.limit - self.line.len();
                if piece.len() > room {
                    self.line.extend_from_slice(&piece[..room]);
                    self.reader.consume(room);
                    return Err(LineError::TooLong { limit: self.limit });
                }
                self.line.extend_from_slice(piece);
                (end.is_some(), piece.len() + usize::from(end.is_some()))
            };
            self.reader.consume(used);
            if is_end {
                return Ok(Some(&self.line));
            }
        }
    }

    /// Returns the bytes of an oversized line that were read before the limit.
    pub(crate) fn partial(&self) -> &[u8] {
        &self.line
    }

    /// Skips the rest of an oversized line and returns its first and last [`EDGE_BYTES`], joined. Calls `on_progress`
    /// for each read, so that a caller can count a long line as activity.
    pub(crate) async fn skip_line(&mut self, on_progress: impl Fn()) -> Result<&[u8], std::io::Error> {
        let mut tail = self.line.split_off(EDGE_BYTES.min(self.line.len()));
        self.line.shrink_to(MAX_IDLE_CAPACITY);
        loop {
            tail.drain(..tail.len().saturating_sub(EDGE_BYTES));
            let (is_end, used) = {
                let buffer = self.reader.fill_buf().await?;
                let end = memchr::memchr(b'\n', buffer);
                let piece = &buffer[..end.unwrap_or(buffer.len())];
                tail.extend_from_slice(&piece[piece.len().saturating_sub(EDGE_BYTES)..]);
                on_progress();
                (end.is_some() || buffer.is_empty(), piece.len() + usize::from(end.is_some()))
            };
            self.reader.consume(used);
            if is_end {
                tail.drain(..tail.len().saturating_sub(EDGE_BYTES));
                self.line.extend_from_slice(&tail);
                return Ok(&self.line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(input: &[u8], limit: usize) -> Result<Vec<String>, String> {
        let mut lines = LineReader::new(input, limit);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.map_err(|e| e.to_string())? {
            all.push(String::from_utf8_lossy(line).into_owned());
        }
        Ok(all)
    }

    #[tokio::test]
    async fn next_with_and_without_final_newline_returns_every_line() {
        assert_eq!(read_all(b"a\n\nbc", 10).await.unwrap(), ["a", "", "bc"]);
        assert!(read_all(b"", 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn next_above_the_limit_fails_at_the_exact_byte() {
        assert_eq!(read_all(b"12345\nx\n", 5).await.unwrap(), ["12345", "x"]);
        assert_eq!(read_all(b"123456\n", 5).await.unwrap_err(), "a line of more than 5 bytes");
        let long = vec![b'x'; 200_000];
        assert_eq!(read_all(&long, 200_000).await.unwrap()[0].len(), 200_000);
        assert!(read_all(&long, 199_999).await.is_err());
    }

    #[tokio::test]
    async fn skip_line_returns_both_edges_and_next_returns_the_following_line() {
        for middle in [0, 100, 3000, 300_000] {
            let input = format!("a\n<{}{}{}>\nb\n", "h".repeat(60), "m".repeat(middle), "t".repeat(60));
            let mut lines = LineReader::new(input.as_bytes(), 50);
            assert_eq!(lines.next().await.unwrap().unwrap(), b"a");
            lines.next().await.unwrap_err();
            assert_eq!(lines.partial().len(), 50);
            let edges = lines.skip_line(|| ()).await.unwrap();
            assert!(edges.len() <= 2 * EDGE_BYTES && edges.starts_with(b"<hh") && edges.ends_with(b"tt>"));
            assert!(middle > EDGE_BYTES || edges.len() == middle + 122);
            assert_eq!(lines.next().await.unwrap().unwrap(), b"b");
            assert!(lines.next().await.unwrap().is_none());
            assert!(lines.line.capacity() <= MAX_IDLE_CAPACITY);
        }
        let mut lines = LineReader::new(&b"123456"[..], 5);
        lines.next().await.unwrap_err();
        assert_eq!(lines.skip_line(|| ()).await.unwrap(), b"123456");
        assert!(lines.next().await.unwrap().is_none());
    }
}
