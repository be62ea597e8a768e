//! Both pipes of an app-server. Lines are written as they are, and read up to a limit. A longer line is skipped and
//! fails the turn it belongs to, unless the line is not needed. If the line may belong to any turn, the connection
//! ends.

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::{dispatch::Dispatcher, large_lines};
use crate::engine::process::lines::{LineError, LineReader};

/// Writes lines until the pipe breaks, and returns the reason. Pends for ever when no sender is left.
pub(super) async fn write(mut stdin: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<Vec<u8>>) -> String {
    while let Some(line) = lines.recv().await {
        if let Err(error) = stdin.write_all(&line).await {
            return format!("writing to it failed: {error}");
        }
    }
    std::future::pending().await
}

/// Reads lines until the pipe ends or breaks, and returns the reason.
pub(super) async fn read(mut lines: LineReader<impl AsyncRead + Unpin>, dispatcher: &Dispatcher) -> String {
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                dispatcher.count_line();
                if let Some(response) = dispatcher.on_line(line)
                    && let Err(error) = dispatcher.outbox.try_send(response)
                {
                    return format!("it sends requests faster than it reads responses: {error}");
                }
            }
            Ok(None) => return "it exited".to_owned(),
            Err(LineError::TooLong { limit }) => {
                let handled = match lines.partial() {
                    prefix if large_lines::is_notification(prefix) => {
                        match lines.skip_line(|| dispatcher.count_line()).await {
                            Ok(edges) => dispatcher.on_large_line(large_lines::classify_edges(edges), limit),
                            Err(error) => return format!("reading from it failed: {error}"),
                        }
                    }
                    _ => false,
                };
                if !handled {
                    return format!(
                        "it printed a line of more than {limit} bytes (CODEX_SUBPROCESS_STREAM_LIMIT)"
                    );
                }
            }
            Err(LineError::Io(error)) => return format!("reading from it failed: {error}"),
        }
    }
}
