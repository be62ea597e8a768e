//! Both pipes of an app-server. Lines are written unchanged, and read up to a limit. The reader skips a longer line. An
//! unneeded line has no further effect. A needed line fails its turn, or closes the connection if the turn is unknown.

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    dispatch::{CloseReason, Dispatcher},
    large_lines,
};
use crate::engine::process::lines::{LineError, LineReader};

/// Writes lines until the pipe breaks, and returns the reason. Never completes when all senders are dropped.
pub(super) async fn write(
    mut stdin: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<Vec<u8>>,
) -> CloseReason {
    while let Some(line) = lines.recv().await {
        if let Err(error) = stdin.write_all(&line).await {
            return CloseReason::Write(Arc::new(error));
        }
    }
    std::future::pending().await
}

/// Reads lines until the pipe ends or breaks, and returns the reason.
pub(super) async fn read(
    mut lines: LineReader<impl AsyncRead + Unpin>,
    dispatcher: &Dispatcher,
) -> CloseReason {
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                dispatcher.count_line();
                if let Some(response) = dispatcher.on_line(line)
                    && dispatcher.outbox.try_send(response).is_err()
                {
                    return CloseReason::OutboxFull;
                }
            }
            Ok(None) => return CloseReason::Exited,
            Err(LineError::TooLong { limit }) => {
                let handled = match lines.partial() {
                    prefix if large_lines::is_notification(prefix) => {
                        match lines.skip_line(|| dispatcher.count_line()).await {
                            Ok(edges) => dispatcher.on_large_line(large_lines::classify_edges(edges), limit),
                            Err(error) => return CloseReason::Read(Arc::new(error)),
                        }
                    }
                    _ => false,
                };
                if !handled {
                    return CloseReason::LineTooLong { limit };
                }
            }
            Err(LineError::Io(error)) => return CloseReason::Read(Arc::new(error)),
        }
    }
}
