//! The states of a worker. Pure.

/// The state of a worker whose handshake has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// The worker accepts turns.
    Ready,
    /// A ping is unanswered for longer than usual. The worker gets turns only if no other worker is ready.
    Slow,
    /// The worker gets no more turns and finishes its running turns.
    Retired,
    /// The process is being killed, or has exited.
    Closed,
}

/// A cause of a change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerEvent {
    /// A ping is unanswered for longer than usual, or the process was stopped by a signal.
    Delayed,
    /// A ping was answered.
    Answered,
    /// A successor took the worker's slot.
    Replaced,
    /// The process exited, was lost or is no longer needed.
    Closed,
}

impl WorkerState {
    /// Returns the state after `event`.
    pub(crate) const fn after(self, event: WorkerEvent) -> Self {
        match (self, event) {
            (Self::Closed, _) | (_, WorkerEvent::Closed) => Self::Closed,
            (Self::Retired, _) | (_, WorkerEvent::Replaced) => Self::Retired,
            (Self::Ready | Self::Slow, WorkerEvent::Delayed) => Self::Slow,
            (Self::Ready | Self::Slow, WorkerEvent::Answered) => Self::Ready,
        }
    }

    /// Returns `true` if the worker may get another turn.
    pub(crate) const fn accepts_turns(self) -> bool {
        matches!(self, Self::Ready | Self::Slow)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        WorkerEvent::{Answered, Closed as Close, Delayed, Replaced},
        WorkerState::{self, Closed, Ready, Retired, Slow},
    };

    #[test]
    fn after_each_event_in_each_state_returns_the_next_state() {
        let rows: [(WorkerState, [WorkerState; 4]); 4] = [
            (Ready, [Slow, Ready, Retired, Closed]),
            (Slow, [Slow, Ready, Retired, Closed]),
            (Retired, [Retired, Retired, Retired, Closed]),
            (Closed, [Closed, Closed, Closed, Closed]),
        ];
        for (state, expected) in rows {
            let found = [Delayed, Answered, Replaced, Close].map(|event| state.after(event));
            assert_eq!(found, expected, "{state:?}");
        }
    }

    #[test]
    fn accepts_turns_returns_true_for_ready_and_slow_only() {
        assert_eq!(
            [Ready, Slow, Retired, Closed].map(WorkerState::accepts_turns),
            [true, true, false, false]
        );
    }
}
