//! Reads the lines of the client on a separate thread. The read is asynchronous, so that the thread can close stdin on
//! request.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    sync::{Arc, mpsc},
    thread,
};

use tokio::{io::AsyncReadExt, net::unix::pipe, sync::Notify};

/// Capacity of the channel of line batches.
const QUEUE: usize = 1024;

/// Input of the client.
#[derive(Debug)]
pub(crate) enum Input {
    /// Whole lines.
    Lines(Vec<u8>),
    /// The end of stdin.
    End,
}

/// Starts the reading thread. Notifying the second value closes stdin.
pub(crate) fn start() -> io::Result<(mpsc::Receiver<Input>, Arc<Notify>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    let close = Arc::new(Notify::new());
    let closed = Arc::clone(&close);
    let stdin = stdin();
    thread::spawn(move || {
        let close_requested = runtime.block_on(read(stdin, &sender, &closed));
        if !close_requested {
            let _ = sender.send(Input::End);
        }
        // After a request to close, the channel stays open, so that the process continues.
        if close_requested {
            loop {
                thread::park();
            }
        }
    });
    Ok((receiver, close))
}

#[expect(unsafe_code, reason = "no other code in this process reads or closes stdin")]
fn stdin() -> OwnedFd {
    // SAFETY: descriptor 0 is open at the start, and the handle of std is not used in this mode.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Reads until the end; returns true after a request to close.
async fn read(stdin: OwnedFd, lines: &mpsc::SyncSender<Input>, close: &Notify) -> bool {
    // No other process has this end of the pipe, so the non-blocking mode affects only this thread.
    let _ = rustix::io::ioctl_fionbio(&stdin, true);
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd_unchecked(stdin) else { return false };
    let mut rest = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = pipe.read(&mut chunk) => read,
            () = close.notified() => return true,
        };
        let before = rest.len();
        match read {
            Ok(0) | Err(_) => return false,
            Ok(n) => rest.extend_from_slice(&chunk[..n]),
        }
        // The earlier bytes contain no line end. Searching them again would take seconds for a large line.
        if let Some(at) = rest[before..].iter().rposition(|b| *b == b'\n').map(|at| before + at) {
            let tail = rest.split_off(at + 1);
            if lines.send(Input::Lines(std::mem::replace(&mut rest, tail))).is_err() {
                return false;
            }
        }
    }
}
