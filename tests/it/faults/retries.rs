//! Turns that must not run twice, and answers that are asked again.

use super::Section;

pub(super) const SECTIONS: &[Section] = &[Section { title: "Retries", faults: &[] }];
