//! Decides from pings, output and process state whether a worker still works. Pure, because the caller waits for the
//! ticks.
//!
//! Counts ticks instead of time, because a stopped or starved server must not replace healthy workers.

use std::time::Duration;

/// Interval of the ticks while a ping is unanswered or the worker may be stopped.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Ticks without any line of a worker with an unanswered ping, after which the worker is lost.
pub(crate) const MAX_SILENT_TICKS: u32 = 20;

/// Ticks after which a worker that prints lines but does not answer is lost.
pub(crate) const MAX_UNANSWERED_TICKS: u32 = 32;

/// Ticks without an answer after which other workers are preferred.
const SLOW_TICKS: u32 = 2;

/// Ticks in a row in which the process was stopped, after which the worker is lost.
const MAX_STOPPED_TICKS: u32 = 2;

/// The verdict of one tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// The worker shows no fault so far.
    Ok,
    /// Other workers should be preferred.
    Slow,
    /// The worker must be replaced.
    Lost,
}

/// Counts the ticks between a ping and its answer.
#[derive(Debug)]
pub(crate) struct PingTicks {
    lines: u64,
    silent: u32,
    unanswered: u32,
}

impl PingTicks {
    /// Starts to count at a ping, when the worker had printed `lines` lines.
    pub(crate) const fn new(lines: u64) -> Self {
        Self { lines, silent: 0, unanswered: 0 }
    }

    /// Counts one tick. `lines` is the number of lines printed so far.
    pub(crate) fn tick(&mut self, lines: u64) -> Health {
        self.silent = if lines == self.lines { self.silent + 1 } else { 0 };
        self.unanswered += 1;
        self.lines = lines;
        if self.silent >= MAX_SILENT_TICKS || self.unanswered >= MAX_UNANSWERED_TICKS {
            Health::Lost
        } else if self.unanswered >= SLOW_TICKS {
            Health::Slow
        } else {
            Health::Ok
        }
    }
}

/// Counts the ticks in which the process was stopped by a signal. A stopped process answers no ping.
#[derive(Debug)]
pub(crate) struct StoppedTicks {
    lines: u64,
    stopped: u32,
}

impl StoppedTicks {
    /// Starts to count when the worker had printed `lines` lines.
    pub(crate) const fn new(lines: u64) -> Self {
        Self { lines, stopped: 0 }
    }

    /// Counts one tick. `is_stopped` is called only if no line arrived, because it reads a file.
    pub(crate) fn tick(&mut self, lines: u64, is_stopped: impl FnOnce() -> bool) -> Health {
        let is_stopped = lines == self.lines && is_stopped();
        self.lines = lines;
        self.stopped = if is_stopped { self.stopped + 1 } else { 0 };
        match self.stopped {
            0 => Health::Ok,
            MAX_STOPPED_TICKS.. => Health::Lost,
            _ => Health::Slow,
        }
    }

    /// Returns `true` if the process was not stopped at the last tick.
    pub(crate) const fn is_clear(&self) -> bool {
        self.stopped == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_worker_is_slow_and_then_lost() {
        let mut ticks = PingTicks::new(7);
        let found: Vec<_> = (0..MAX_SILENT_TICKS).map(|_| ticks.tick(7)).collect();
        assert_eq!(found[0], Health::Ok);
        assert!(found[1..19].iter().all(|health| *health == Health::Slow), "{found:?}");
        assert_eq!(found[19], Health::Lost);
    }

    #[test]
    fn worker_that_prints_without_answering_is_lost_later() {
        let mut ticks = PingTicks::new(0);
        let lost = (1..).position(|lines| ticks.tick(lines) == Health::Lost);
        assert_eq!(lost, Some(MAX_UNANSWERED_TICKS as usize - 1));
    }

    #[test]
    fn ping_ticks_after_a_line_restart_the_count_of_silent_ticks() {
        let mut ticks = PingTicks::new(0);
        for _ in 0..MAX_SILENT_TICKS - 1 {
            assert_ne!(ticks.tick(0), Health::Lost);
        }
        assert_eq!(ticks.tick(1), Health::Slow);
        assert_eq!(ticks.tick(1), Health::Slow);
    }

    #[test]
    fn process_stopped_for_two_ticks_in_a_row_is_lost() {
        let mut ticks = StoppedTicks::new(0);
        let found = [true, false, true, true].map(|stopped| ticks.tick(0, || stopped));
        assert_eq!(found, [Health::Slow, Health::Ok, Health::Slow, Health::Lost]);
    }

    #[test]
    fn stopped_ticks_of_a_printing_process_skip_the_state_check() {
        let mut ticks = StoppedTicks::new(0);
        assert_eq!(ticks.tick(1, || unreachable!("a line arrived")), Health::Ok);
        assert!(ticks.is_clear());
    }
}
