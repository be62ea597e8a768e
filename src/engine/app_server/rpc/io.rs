//! Both pipes of an app-server: lines go out as they are, and come in up to a limit. A longer one is skipped, and costs
//! the turn that it is of, unless nobody needs it; one that could be of any turn ends the conversation.

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::{dispatch::Dispatcher, large_lines};
use crate::engine::process::lines::{LineError, LineReader};

/// Writes until the pipe breaks; says why.
pub(crate) async fn write(mut stdin: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<Vec<u8>>) -> String {
    while let Some(line) = lines.recv().await {
        if let Err(error) = stdin.write_all(&line).await {
            return format!("it cannot be written to: {error}");
        }
    }
    "nobody speaks to it".to_owned()
}

/// Reads until the pipe ends, or cannot be made sense of any more; says why.
pub(crate) async fn read(mut lines: LineReader<impl AsyncRead + Unpin>, shared: &Dispatcher) -> String {
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                shared.hear();
                if let Some(reply) = shared.take(line)
                    && let Err(error) = shared.outbox.try_send(reply)
                {
                    return format!("it asks faster than it listens: {error}");
                }
            }
            Ok(None) => return "it ended".to_owned(),
            Err(LineError::TooLong { limit }) => {
                let missed = match lines.begun() {
                    begun if large_lines::is_addressed(begun) => match lines.skip(|| shared.hear()).await {
                        Ok(edges) => shared.put(large_lines::edges(edges), limit),
                        Err(error) => return format!("it cannot be read: {error}"),
                    },
                    _ => false,
                };
                if !missed {
                    return format!(
                        "it printed a line of more than {limit} bytes (CODEX_SUBPROCESS_STREAM_LIMIT)"
                    );
                }
            }
            Err(LineError::Io(error)) => return format!("it cannot be read: {error}"),
        }
    }
}
