//! Errors of others in logs and answers, probes, tasks and memory.

use super::Section;

pub(super) const SECTIONS: &[Section] =
    &[Section { title: "Texts of others, probes, tasks and memory", faults: &[] }];
