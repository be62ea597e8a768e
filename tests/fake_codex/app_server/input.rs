//! The lines of the client, read on a thread of their own. It can be told to stop and close stdin, which a blocking
//! read could not.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    sync::{Arc, mpsc},
    thread,
};

use tokio::{io::AsyncReadExt, net::unix::pipe, sync::Notify};

/// Lines that wait to be read.
const QUEUE: usize = 1024;

/// What was read.
#[derive(Debug)]
pub(crate) enum Input {
    /// Whole lines.
    Lines(Vec<u8>),
    /// The client has closed the pipe.
    End,
}

/// Starts to read. Notifying the second part closes stdin.
pub(crate) fn start() -> io::Result<(mpsc::Receiver<Input>, Arc<Notify>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    let close = Arc::new(Notify::new());
    let closed = Arc::clone(&close);
    let stdin = stdin();
    thread::spawn(move || {
        let asked = runtime.block_on(read(stdin, &sender, &closed));
        if !asked {
            let _ = sender.send(Input::End);
        }
        // Asked to close, the channel stays: nobody has ended anything.
        if asked {
            loop {
                thread::park();
            }
        }
    });
    Ok((receiver, close))
}

#[expect(unsafe_code, reason = "nobody else in this process reads or closes stdin")]
fn stdin() -> OwnedFd {
    // SAFETY: descriptor 0 is open at the start, and std's handle is not used in this mode.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Reads until the end; returns true after a request to close.
async fn read(stdin: OwnedFd, lines: &mpsc::SyncSender<Input>, close: &Notify) -> bool {
    // This end of the pipe is ours alone: nobody else notices that it does not block.
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
        // What was there before has no end of a line; looked at again and again, a large line would take seconds.
        if let Some(at) = rest[before..].iter().rposition(|b| *b == b'\n').map(|at| before + at) {
            let tail = rest.split_off(at + 1);
            if lines.send(Input::Lines(std::mem::replace(&mut rest, tail))).is_err() {
                return false;
            }
        }
    }
}
