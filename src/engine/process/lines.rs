//! Lines from a pipe, bounded in length. Does not look into them.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// A line is longer than the limit. The pipe is unusable from here, unless the rest of the line is skipped.
    #[error("a line of more than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The pipe broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What is kept of both ends of a line that is skipped, in bytes.
const EDGE: usize = 2048;

/// Memory that a reader keeps between two lines.
const KEPT: usize = 1 << 20;

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

    /// The next line without its end, or `None` when the pipe is closed. A last line without an end counts.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.line.clear();
        self.line.shrink_to(KEPT);
        loop {
            let (found, used) = {
                let buffer = self.reader.fill_buf().await?;
                if buffer.is_empty() {
                    let rest = (!self.line.is_empty()).then_some(self.line.as_slice());
                    return Ok(rest);
                }
                let end = buffer.iter().position(|byte| *byte == b'\n');
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
            if found {
                return Ok(Some(&self.line));
            }
        }
    }

    /// What was read of a line that is too long.
    pub(crate) fn begun(&self) -> &[u8] {
        &self.line
    }

    /// Reads on to the end of a line that is too long, keeping no more than its first and its last bytes: these.
    /// `heard` is called whenever more of it comes.
    pub(crate) async fn skip(&mut self, heard: impl Fn()) -> Result<&[u8], std::io::Error> {
        let mut tail = self.line.split_off(EDGE.min(self.line.len()));
        self.line.shrink_to(KEPT);
        loop {
            tail.drain(..tail.len().saturating_sub(EDGE));
            let (found, used) = {
                let buffer = self.reader.fill_buf().await?;
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let piece = &buffer[..end.unwrap_or(buffer.len())];
                tail.extend_from_slice(&piece[piece.len().saturating_sub(EDGE)..]);
                heard();
                (end.is_some() || buffer.is_empty(), piece.len() + usize::from(end.is_some()))
            };
            self.reader.consume(used);
            if found {
                tail.drain(..tail.len().saturating_sub(EDGE));
                self.line.extend_from_slice(&tail);
                return Ok(&self.line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8], limit: usize) -> Result<Vec<String>, String> {
        let mut lines = LineReader::new(input, limit);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.map_err(|e| e.to_string())? {
            found.push(String::from_utf8_lossy(line).into_owned());
        }
        Ok(found)
    }

    #[tokio::test]
    async fn lines_end_at_the_newline_or_at_the_end() {
        assert_eq!(all(b"a\n\nbc", 10).await.unwrap(), ["a", "", "bc"]);
        assert!(all(b"", 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_limit_holds_to_the_byte() {
        assert_eq!(all(b"12345\nx\n", 5).await.unwrap(), ["12345", "x"]);
        assert_eq!(all(b"123456\n", 5).await.unwrap_err(), "a line of more than 5 bytes");
        let long = vec![b'x'; 200_000];
        assert_eq!(all(&long, 200_000).await.unwrap()[0].len(), 200_000);
        assert!(all(&long, 199_999).await.is_err());
    }

    #[tokio::test]
    async fn a_line_that_is_skipped_leaves_its_ends_and_the_next_one_is_read() {
        for middle in [0, 100, 3000, 300_000] {
            let input = format!("a\n<{}{}{}>\nb\n", "h".repeat(60), "m".repeat(middle), "t".repeat(60));
            let mut lines = LineReader::new(input.as_bytes(), 50);
            assert_eq!(lines.next().await.unwrap().unwrap(), b"a");
            lines.next().await.unwrap_err();
            assert_eq!(lines.begun().len(), 50);
            let edges = lines.skip(|| ()).await.unwrap();
            assert!(edges.len() <= 2 * EDGE && edges.starts_with(b"<hh") && edges.ends_with(b"tt>"));
            assert!(middle > EDGE || edges.len() == middle + 122);
            assert_eq!(lines.next().await.unwrap().unwrap(), b"b");
            assert!(lines.next().await.unwrap().is_none());
            assert!(lines.line.capacity() <= KEPT);
        }
        let mut lines = LineReader::new(&b"123456"[..], 5);
        lines.next().await.unwrap_err();
        assert_eq!(lines.skip(|| ()).await.unwrap(), b"123456");
        assert!(lines.next().await.unwrap().is_none());
    }
}
