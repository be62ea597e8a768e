//! Results of the checks of `codex-api doctor`.

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The checked part, such as `login`.
    pub name: &'static str,
    /// The severity of the finding.
    pub severity: Severity,
    /// The finding, for a person.
    pub finding: String,
    /// The action for the operator. Empty if none is needed.
    pub remedy: &'static str,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The check passed.
    Good,
    /// Turns run, with a limitation.
    Odd,
    /// Turns fail.
    Bad,
}

impl Check {
    /// Returns a passed check.
    pub fn good(name: &'static str, finding: String) -> Self {
        Self { name, severity: Severity::Good, finding, remedy: "" }
    }

    /// Returns a warning.
    pub fn odd(name: &'static str, finding: String, remedy: &'static str) -> Self {
        Self { name, severity: Severity::Odd, finding, remedy }
    }

    /// Returns a failed check.
    pub fn bad(name: &'static str, finding: String, remedy: &'static str) -> Self {
        Self { name, severity: Severity::Bad, finding, remedy }
    }

    /// Turns a failure into a warning.
    pub(crate) fn soften(&mut self) {
        if self.severity == Severity::Bad {
            self.severity = Severity::Odd;
        }
    }
}
