//! Requests that cost too much.

use super::Section;

pub(super) const SECTIONS: &[Section] = &[Section { title: "Requests that cost too much", faults: &[] }];
