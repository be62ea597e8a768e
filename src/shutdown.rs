//! The phases of a server's life and the signals that end it. What is done in a phase is the business of whoever
//! holds the handle.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// How far the server is. It only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Requests are taken.
    Serving,
    /// No longer ready; what runs may end within its grace.
    Draining,
    /// Nothing runs any more.
    Stopped,
}

/// A handle to the phase; clones share it.
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
    /// Where the server is now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows the phase: for health services and the like.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Ends `Serving`.
    pub fn begin_drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Says that nothing runs any more.
    pub fn stop(&self) {
        self.advance(Phase::Stopped);
    }

    /// Gives up the grace: what still runs is interrupted. Begins the drain if nobody has.
    pub fn kill(&self) {
        self.begin_drain();
        self.kill.cancel();
    }

    /// Is cancelled by [`kill`](Self::kill).
    pub fn kill_token(&self) -> CancellationToken {
        self.kill.clone()
    }

    /// Waits for the end of `Serving`.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits for `Stopped`.
    pub async fn stopped(&self) {
        self.reached(Phase::Stopped).await;
    }

    /// Obeys signals: the first one begins the drain, the second one kills. Ends after the second.
    pub async fn obey(&self, mut signals: Signals) {
        // Waited for outside of the macros: they skip what they are given when the line is filtered out.
        let signal = signals.next().await;
        tracing::info!(signal, "draining; a second signal stops at once");
        self.begin_drain();
        let signal = signals.next().await;
        tracing::warn!(signal, "stopping at once");
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
        // Fails only without a sender, and this handle is one.
        let _ = self.subscribe().wait_for(|now| *now >= phase).await;
    }
}

/// SIGTERM, SIGINT and SIGHUP (the terminal is closed). From its making on they no longer end the process by themselves, and none is missed between
/// two calls of `next`.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over. Must be called inside the runtime.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one and tells its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
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
    async fn phases_go_forward_only() {
        let shutdown = Shutdown::default();
        let mut seen = shutdown.subscribe();
        assert_eq!(shutdown.phase(), Phase::Serving);
        shutdown.begin_drain();
        timeout(SOON, shutdown.draining()).await.unwrap();
        assert_eq!(*seen.borrow_and_update(), Phase::Draining);
        shutdown.stop();
        shutdown.begin_drain();
        assert_eq!(shutdown.phase(), Phase::Stopped);
        // Whoever comes late is not left waiting, and to be past a phase is to have reached it.
        timeout(SOON, shutdown.stopped()).await.unwrap();
        timeout(SOON, shutdown.draining()).await.unwrap();
        assert!(!shutdown.kill_token().is_cancelled());
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_kills() {
        let shutdown = Shutdown::default();
        let signals = Signals::take().unwrap();
        let told = async {
            kill_process(getpid(), Signal::TERM).unwrap();
            shutdown.draining().await;
            assert!(!shutdown.kill_token().is_cancelled());
            kill_process(getpid(), Signal::INT).unwrap();
            shutdown.kill_token().cancelled().await;
        };
        timeout(SOON, async { tokio::join!(shutdown.obey(signals), told) }).await.unwrap();
        assert_eq!(shutdown.phase(), Phase::Draining);
    }
}
