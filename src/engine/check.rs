//! Findings of `codex-api doctor`.

/// One finding of `codex-api doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What came out.
    pub outcome: Outcome,
    /// What was found.
    pub says: String,
    /// What to do about it; empty if nothing.
    pub remedy: &'static str,
}

/// What came out of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Works, but worth knowing.
    Odd,
    /// Turns will fail.
    Bad,
}

impl Check {
    /// As it should be.
    pub fn good(name: &'static str, says: String) -> Self {
        Self { name, outcome: Outcome::Good, says, remedy: "" }
    }

    /// Works, but worth knowing.
    pub fn odd(name: &'static str, says: String, remedy: &'static str) -> Self {
        Self { name, outcome: Outcome::Odd, says, remedy }
    }

    /// Turns will fail.
    pub fn bad(name: &'static str, says: String, remedy: &'static str) -> Self {
        Self { name, outcome: Outcome::Bad, says, remedy }
    }

    /// Makes a failure something worth knowing.
    pub(crate) fn soften(&mut self) {
        if self.outcome == Outcome::Bad {
            self.outcome = Outcome::Odd;
        }
    }
}
