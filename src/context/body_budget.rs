//! The budget for the contents of all requests in memory, shared by both doors. Counts the bytes of bodies from their first
//! byte until the engine has handed the content to Codex.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// Maximum size of a body that may use the reserve.
const SMALL_BODY: usize = 64 << 10;

/// Part of the budget that is reserved for small bodies, so that ordinary requests pass while large ones use up the rest.
const RESERVE: usize = 8;

/// Bytes of one permit.
const UNIT: usize = 1 << 10;

/// Delay before a retry. Large bodies are read and handed over within seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    total: usize,
    large: Arc<Semaphore>,
    small: Arc<Semaphore>,
}

/// The bytes of one body. Returned to the budget on drop.
#[derive(Debug)]
pub struct BodyPermit {
    budget: BodyBudget,
    uses_reserve: bool,
    held: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// Creates a budget of `total` bytes, in which at least one body of `max_body` bytes fits.
    pub fn new(total: usize, max_body: usize) -> Self {
        let reserve = total / RESERVE;
        let units = |bytes: usize| Arc::new(Semaphore::new(bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS)));
        Self { total, large: units((total - reserve).max(max_body)), small: units(reserve) }
    }

    /// Returns a permit for a body that is about to be read. `declared` is its announced size, or 0.
    ///
    /// Bytes count when they arrive and not when they are announced, so that a client that sends nothing holds nothing.
    /// Fails if the announced size does not fit now.
    pub fn open(&self, declared: usize) -> Result<BodyPermit, Error> {
        let uses_reserve = declared <= SMALL_BODY;
        if !uses_reserve && declared.div_ceil(UNIT) > self.large.available_permits() {
            return Err(self.exhausted());
        }
        Ok(BodyPermit { budget: self.clone(), uses_reserve, held: None })
    }

    fn exhausted(&self) -> Error {
        Error::Overloaded {
            message: format!(
                "the server is busy: the contents of all requests together have reached {} bytes \
                 (CODEX_MAX_BODY_BYTES_TOTAL); try again later",
                self.total
            ),
            retry_after: RETRY_AFTER,
        }
    }
}

impl BodyPermit {
    /// Takes from the budget what is missing for `bytes` bytes in all. Fails if the budget is exhausted.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Error> {
        let units = bytes.div_ceil(UNIT);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if units <= held {
            return Ok(());
        }
        let acquire = |pool: &Arc<Semaphore>, units: usize| {
            let units = u32::try_from(units).ok()?;
            Arc::clone(pool).try_acquire_many_owned(units).ok()
        };
        if self.uses_reserve {
            if bytes <= SMALL_BODY
                && let Some(more) = acquire(&self.budget.small, units - held)
            {
                self.add(more);
                return Ok(());
            }
            // The body is larger than announced, or the reserve is used up.
            let all = acquire(&self.budget.large, units).ok_or_else(|| self.budget.exhausted())?;
            self.uses_reserve = false;
            self.held = Some(all);
            return Ok(());
        }
        let more = acquire(&self.budget.large, units - held).ok_or_else(|| self.budget.exhausted())?;
        self.add(more);
        Ok(())
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
    }
}

/// The permit of a request in its extensions. The core takes it out, because extensions may outlive the content.
#[derive(Clone, Default)]
pub struct HeldBody(Arc<Mutex<Option<BodyPermit>>>);

impl HeldBody {
    /// Wraps the permit of a body that was read.
    pub fn new(permit: BodyPermit) -> Self {
        Self(Arc::new(Mutex::new(Some(permit))))
    }

    /// Returns the permit, at the first call only.
    pub fn take(&self) -> Option<BodyPermit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for HeldBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldBody")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn read(budget: &BodyBudget, declared: usize, bytes: usize) -> Option<BodyPermit> {
        let mut permit = budget.open(declared).ok()?;
        permit.hold(bytes / 2).ok()?;
        permit.hold(bytes).ok()?;
        Some(permit)
    }

    #[test]
    fn large_bodies_leave_the_reserve_to_small_ones() {
        let budget = BodyBudget::new(8 * MIB, MIB);
        let mut large: Vec<_> = (0..7).map(|_| read(&budget, MIB, MIB).unwrap()).collect();
        let error = budget.open(MIB).unwrap_err();
        assert_eq!(error.reason(), "OVERLOADED");
        assert!(error.to_string().contains("CODEX_MAX_BODY_BYTES_TOTAL"), "{error}");
        let small: Vec<_> = (0..16).map(|_| read(&budget, SMALL_BODY, SMALL_BODY).unwrap()).collect();
        assert!(read(&budget, SMALL_BODY, SMALL_BODY).is_none(), "the reserve is used up");
        // A body of unknown size that turns out to be large may not use the reserve.
        drop(small);
        assert!(read(&budget, 0, SMALL_BODY + 1).is_none());
        large.pop();
        assert!(read(&budget, 0, MIB).is_some());
        assert!(read(&budget, MIB, MIB).is_some(), "a dropped permit is free again");
    }

    #[test]
    fn announced_bytes_that_do_not_arrive_hold_nothing() {
        let budget = BodyBudget::new(8 * MIB, MIB);
        let _silent: Vec<_> = (0..100).map(|_| budget.open(MIB).unwrap()).collect();
        assert!(read(&budget, MIB, MIB).is_some());
    }

    #[test]
    fn body_of_the_maximum_size_fits_in_any_budget() {
        assert!(read(&BodyBudget::new(MIB, 32 * MIB), 32 * MIB, 32 * MIB).is_some());
    }

    #[test]
    fn held_body_is_taken_once() {
        let held = HeldBody::new(BodyBudget::new(MIB, MIB).open(1).unwrap());
        assert!(held.clone().take().is_some());
        assert!(held.take().is_none());
    }
}
