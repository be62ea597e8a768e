//! The phases of the server, and the signals that advance them.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// Phase of the server. Phases only advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Requests are accepted.
    Serving,
    /// Not ready, so that load balancers select another server. Requests are still accepted.
    LameDuck,
    /// Not ready. Running turns may finish within their grace.
    Draining,
    /// No turn and no connection is left.
    Stopped,
}

/// A handle to the phase. Clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    phase: Arc<watch::Sender<Phase>>,
    kill: CancellationToken,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Serving)), kill: CancellationToken::new() }
    }
}

impl Shutdown {
    /// Returns the current phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns a receiver of the phase.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Ends `Serving`. The drain begins after the lame-duck time of the server.
    pub fn begin_lame_duck(&self) {
        self.advance(Phase::LameDuck);
    }

    /// Ends `Serving` and `LameDuck`.
    pub fn begin_drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Advances to `Stopped`.
    pub fn stop(&self) {
        self.advance(Phase::Stopped);
    }

    /// Ends the grace, so that running turns are interrupted. Begins the drain if it has not begun.
    pub fn kill(&self) {
        self.begin_drain();
        self.kill.cancel();
    }

    /// Returns a token that [`kill`](Self::kill) cancels.
    pub fn kill_token(&self) -> CancellationToken {
        self.kill.clone()
    }

    /// Completes at the end of `Serving`.
    pub async fn leaving(&self) {
        self.reached(Phase::LameDuck).await;
    }

    /// Completes at the begin of the drain.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Completes at `Stopped`.
    pub async fn stopped(&self) {
        self.reached(Phase::Stopped).await;
    }

    /// Handles two signals and completes after the second. The first signal begins the drain, the second signal
    /// interrupts the running turns. SIGTERM, which orchestrators send, begins the lame duck first.
    pub async fn handle_signals(&self, mut signals: Signals) {
        // The wait is outside of the macros, which skip their arguments if the line is filtered out.
        let signal = signals.next().await;
        tracing::info!(signal, "draining; a second signal interrupts turns");
        if signal == "SIGTERM" {
            self.begin_lame_duck();
        } else {
            self.begin_drain();
        }
        let signal = signals.next().await;
        tracing::warn!(signal, "interrupting turns");
        self.kill();
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = *phase < to;
            if forward {
                *phase = to;
            }
            forward
        });
    }

    async fn reached(&self, phase: Phase) {
        // Fails only if no sender exists, and this handle owns a sender.
        let _ = self.subscribe().wait_for(|now| *now >= phase).await;
    }
}

/// Receives SIGTERM, SIGINT and SIGHUP, each of which begins the drain. A SIGHUP that is ignored at the start stays ignored,
/// because `nohup` ignores it so that the server outlives its terminal. While this value exists, these signals do not kill the process, and no signal is
/// lost between two calls of `next`.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Registers the handlers, except for SIGHUP if `ignores_hangup`. Must be called inside of the runtime.
    pub fn register(ignores_hangup: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if ignores_hangup { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for the next signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn shutdown_begin_drain_after_stop_keeps_the_phase() {
        let shutdown = Shutdown::default();
        let mut phase = shutdown.subscribe();
        assert_eq!(shutdown.phase(), Phase::Serving);
        shutdown.begin_drain();
        timeout(SOON, shutdown.draining()).await.unwrap();
        assert_eq!(*phase.borrow_and_update(), Phase::Draining);
        shutdown.stop();
        shutdown.begin_drain();
        assert_eq!(shutdown.phase(), Phase::Stopped);
        // A later phase counts as reached.
        timeout(SOON, shutdown.stopped()).await.unwrap();
        timeout(SOON, shutdown.draining()).await.unwrap();
        assert!(!shutdown.kill_token().is_cancelled());
    }

    #[tokio::test]
    async fn handle_signals_first_drains_and_second_kills() {
        let shutdown = Shutdown::default();
        let signals = Signals::register(false).unwrap();
        let sent = async {
            kill_process(getpid(), Signal::TERM).unwrap();
            shutdown.leaving().await;
            assert_eq!(shutdown.phase(), Phase::LameDuck);
            assert!(!shutdown.kill_token().is_cancelled());
            kill_process(getpid(), Signal::INT).unwrap();
            shutdown.kill_token().cancelled().await;
        };
        timeout(SOON, async { tokio::join!(shutdown.handle_signals(signals), sent) }).await.unwrap();
        assert_eq!(shutdown.phase(), Phase::Draining);
    }
}
