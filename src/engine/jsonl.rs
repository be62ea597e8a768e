//! Lines from a pipe, bounded in length. Does not look into them.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// A line is longer than the limit; the pipe is unusable from here.
    #[error("a line of more than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The pipe broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Reads lines of at most `limit` bytes.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    limit: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, limit: usize) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, reader), line: Vec::new(), limit }
    }

    /// The next line without its end, or `None` when the pipe is closed. A last line without an end counts.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.line.clear();
        loop {
            let (found, used) = {
                let buffer = self.reader.fill_buf().await?;
                if buffer.is_empty() {
                    let rest = (!self.line.is_empty()).then_some(self.line.as_slice());
                    return Ok(rest);
                }
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let piece = &buffer[..end.unwrap_or(buffer.len())];
                if self.line.len() + piece.len() > self.limit {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8], limit: usize) -> Result<Vec<String>, String> {
        let mut lines = Lines::new(input, limit);
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
}
