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
    Passed,
    /// Turns run, with a limitation.
    Warning,
    /// Turns fail.
    Failed,
}

impl Check {
    /// Returns a passed check.
    pub fn passed(name: &'static str, finding: String) -> Self {
        Self { name, severity: Severity::Passed, finding, remedy: "" }
    }

    /// Returns a warning.
    pub fn warning(name: &'static str, finding: String, remedy: &'static str) -> Self {
        Self { name, severity: Severity::Warning, finding, remedy }
    }

    /// Returns a failed check.
    pub fn failed(name: &'static str, finding: String, remedy: &'static str) -> Self {
        Self { name, severity: Severity::Failed, finding, remedy }
    }

    /// Turns a failed check into a warning.
    pub(crate) fn downgrade_failure(&mut self) {
        if self.severity == Severity::Failed {
            self.severity = Severity::Warning;
        }
    }
}
